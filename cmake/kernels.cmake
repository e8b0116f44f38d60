# CUDA kernels are text to this build: strobe_embed_kernels(sources) appends to the list named by `sources` a generated
# file that carries every kernel source and header (.cu, .cuh and params.hpp below src/cuda).

function(strobe_embed_kernels sources)
  file(GLOB_RECURSE files RELATIVE ${PROJECT_SOURCE_DIR}/src CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/src/cuda/*.cu ${PROJECT_SOURCE_DIR}/src/cuda/*.cuh ${PROJECT_SOURCE_DIR}/src/cuda/params.hpp)
  list(TRANSFORM files PREPEND ${PROJECT_SOURCE_DIR}/src/ OUTPUT_VARIABLE paths)
  set(output ${PROJECT_BINARY_DIR}/generated/kernel_text.cpp)
  set(script ${PROJECT_SOURCE_DIR}/cmake/kernel_text.cmake)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${output} -DROOT=${PROJECT_SOURCE_DIR}/src "-DFILES=${files}" -P ${script}
    DEPENDS ${paths} ${script} VERBATIM COMMENT "Embedding the text of the CUDA kernels")
  set(${sources} ${${sources}} ${output} PARENT_SCOPE)
endfunction()
