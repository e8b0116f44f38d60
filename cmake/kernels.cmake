# CUDA kernels are text to this build. The library carries the text, to compile it where it runs; with
# STROBE_BUILTIN_KERNELS also what nvcc (or NVRTC, where there is no nvcc) makes of it here.

# Everything that knows how kernels are made, as objects that the library and the tool strobe_kernels share: takes these
# files out of the list named by `sources` and adds the generated file with the kernels' text: every .cu and .cuh, and the
# headers that kernels share with the host, which are named params.hpp and tiles.hpp.
function(strobe_add_recipes sources)
  set(src ${PROJECT_SOURCE_DIR}/src)
  file(GLOB_RECURSE files RELATIVE ${src} CONFIGURE_DEPENDS
    ${src}/cuda/*.cu ${src}/cuda/*.cuh ${src}/cuda/*params.hpp ${src}/cuda/*tiles.hpp)
  list(TRANSFORM files PREPEND ${src}/ OUTPUT_VARIABLE paths)
  set(text ${PROJECT_BINARY_DIR}/generated/kernel_text.cpp)
  set(script ${PROJECT_SOURCE_DIR}/cmake/kernel_text.cmake)
  add_custom_command(OUTPUT ${text}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${text} -DROOT=${src} "-DFILES=${files}" -P ${script}
    DEPENDS ${paths} ${script} VERBATIM COMMENT "Embedding the text of the CUDA kernels")

  set(recipes ${src}/base/hash.cpp ${src}/base/types.cpp ${src}/cuda/manifest.cpp ${src}/cuda/known_devices.cpp
              ${src}/cuda/jit/disk.cpp ${src}/cuda/jit/nvrtc.cpp ${src}/cuda/jit/nvrtc_search.cpp
              ${src}/cuda/jit/recipe.cpp)
  set(others ${${sources}})
  list(REMOVE_ITEM others ${recipes})
  add_library(strobe_recipes OBJECT ${recipes} ${text})
  target_link_libraries(strobe_recipes PRIVATE strobe_options)
  target_include_directories(strobe_recipes PUBLIC ${PROJECT_SOURCE_DIR}/include ${src})
  set_target_properties(strobe_recipes PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  set(${sources} ${others} PARENT_SCOPE)
endfunction()

if(STROBE_BUILTIN_KERNELS)
  file(GLOB toolkits /usr/local/cuda*/bin)
  find_program(STROBE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin PATHS ${toolkits} DOC "Compiles built-in kernels; NVRTC without it")
  if(STROBE_BUILTIN_KERNELS STREQUAL "AUTO")
    if(STROBE_NVCC)
      message(STATUS "Compiling CUDA kernels for 80;90 into the library (STROBE_BUILTIN_KERNELS=OFF leaves them to the first use)")
      set(STROBE_BUILTIN_KERNELS 80 90)
    else()
      message(STATUS "No nvcc: CUDA kernels are compiled when they are first used")
      set(STROBE_BUILTIN_KERNELS OFF)
    endif()
  endif()
endif()
if(STROBE_BUILTIN_KERNELS)
  enable_language(ASM)
endif()

# Compiles the manifest's variants and appends the object that carries them to the list named by `objects`.
function(strobe_add_built_in_kernels objects)
  if(NOT STROBE_BUILTIN_KERNELS)
    return()
  endif()
  set(architectures ${STROBE_BUILTIN_KERNELS})
  if(architectures STREQUAL "ALL")
    set(architectures 80 86 89 90 100 120)
  endif()
  list(JOIN architectures "," joined)
  set(nvcc)
  if(STROBE_NVCC)
    set(nvcc --nvcc ${STROBE_NVCC})
  endif()
  cmake_host_system_information(RESULT jobs QUERY NUMBER_OF_LOGICAL_CORES)

  set(folder ${PROJECT_BINARY_DIR}/generated)
  add_custom_command(OUTPUT ${folder}/built_in_kernels.bin ${folder}/built_in_kernels.inc
    COMMAND strobe_kernels embed ${folder} --architectures ${joined} --jobs ${jobs} --cache ${folder}/kernels ${nvcc}
            "--filter=${STROBE_BUILTIN_FILTER}"
    DEPENDS strobe_kernels VERBATIM USES_TERMINAL COMMENT "Compiling the built-in CUDA kernels for ${joined}")
  set(assembler ${PROJECT_SOURCE_DIR}/src/cuda/jit/built_in_kernels.S)
  add_library(strobe_built_in OBJECT ${assembler} ${folder}/built_in_kernels.inc)
  set_source_files_properties(${assembler} PROPERTIES
    COMPILE_DEFINITIONS "STROBE_BUILT_IN_BINARY=\"${folder}/built_in_kernels.bin\""
    OBJECT_DEPENDS ${folder}/built_in_kernels.bin)
  set_target_properties(strobe_built_in PROPERTIES POSITION_INDEPENDENT_CODE ON)
  set(table ${PROJECT_SOURCE_DIR}/src/cuda/jit/built_in.cpp)
  set_source_files_properties(${table} PROPERTIES
    COMPILE_DEFINITIONS
      "STROBE_BUILT_IN_TABLE=\"${folder}/built_in_kernels.inc\";STROBE_BUILT_IN_ARCHITECTURES=\"${joined}\""
    OBJECT_DEPENDS ${folder}/built_in_kernels.inc)
  add_dependencies(strobe_objects strobe_built_in)
  set(${objects} ${${objects}} $<TARGET_OBJECTS:strobe_built_in> PARENT_SCOPE)
endfunction()
