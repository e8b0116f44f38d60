# One kernel source, one object library per instruction set: src/cpu/<kernel>/unit.cpp compiled with the set's flags and
# STROBE_ISA naming it.
set(STROBE_ISAS sse4 avx2 avx512 avx512_bf16 amx_bf16)
set(STROBE_FLAGS_sse4 -msse4.2)
set(STROBE_FLAGS_avx2 -mavx2 -mfma -mf16c -mtune=haswell)
set(STROBE_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512)
set(STROBE_FLAGS_avx512_bf16 ${STROBE_FLAGS_avx512} -mavx512bf16)
set(STROBE_FLAGS_amx_bf16 ${STROBE_FLAGS_avx512_bf16} -mamx-tile -mamx-bf16)

# With sanitizers these take longest to compile: a machine that cannot run them need not optimise them.
if(STROBE_SANITIZE AND EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo avx512 REGEX "^flags.* avx512bw" LIMIT_COUNT 1)
  if(NOT avx512)
    list(APPEND STROBE_FLAGS_avx512 -O0)
    list(APPEND STROBE_FLAGS_avx512_bf16 -O0)
    list(APPEND STROBE_FLAGS_amx_bf16 -O0)
  endif()
endif()

# g++ 12 takes the undefined vectors of its own AVX-512 intrinsics for mistakes (GCC bug 105593).
set(STROBE_UNIT_WARNINGS $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>)

# Adds the units of a kernel and appends their objects to the list named by `objects`. A further argument is the source,
# where that is not the kernel's own unit.cpp.
function(strobe_add_units kernel objects)
  set(source ${PROJECT_SOURCE_DIR}/src/cpu/${kernel}/unit.cpp ${ARGN})
  list(GET source -1 source)
  set(collected ${${objects}})
  foreach(isa ${STROBE_ISAS})
    set(unit strobe_${kernel}_${isa})
    add_library(${unit} OBJECT ${source})
    target_compile_definitions(${unit} PRIVATE STROBE_ISA=${isa})
    target_compile_options(${unit} PRIVATE ${STROBE_FLAGS_${isa}} ${STROBE_UNIT_WARNINGS})
    target_include_directories(${unit} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(${unit} PRIVATE strobe_options)
    set_target_properties(${unit} PROPERTIES
      POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON UNITY_BUILD OFF)
    list(APPEND collected $<TARGET_OBJECTS:${unit}>)
  endforeach()
  set(${objects} ${collected} PARENT_SCOPE)
endfunction()
