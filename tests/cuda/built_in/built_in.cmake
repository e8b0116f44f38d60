# cmake -P, by ctest: compiles a kernel with NVRTC as STROBE_BUILTIN_KERNELS does, links a program with it and runs that
# over the fake driver. Prints "skipped" where there is no NVRTC.
file(REMOVE_RECURSE ${WORK})
execute_process(
  COMMAND ${KERNELS} embed ${WORK} --architectures 90 --filter cuda.selftest --cache ${WORK}/cache
  RESULT_VARIABLE status ERROR_VARIABLE message)
if(NOT status EQUAL 0)
  if(message MATCHES "was not found")
    message(STATUS "skipped: ${message}")
    return()
  endif()
  message(FATAL_ERROR "${message}")
endif()
separate_arguments(flags UNIX_COMMAND "${FLAGS}")
execute_process(
  COMMAND ${CXX} -std=c++20 ${flags} -I${SOURCE_DIR}/include -I${SOURCE_DIR}/src
          -DSTROBE_BUILT_IN_TABLE="${WORK}/built_in_kernels.inc" -DSTROBE_BUILT_IN_BINARY="${WORK}/built_in_kernels.bin"
          -DSTROBE_BUILT_IN_ARCHITECTURES="90" ${SOURCE_DIR}/tests/cuda/built_in/main.cpp
          ${SOURCE_DIR}/src/cuda/jit/built_in.cpp ${SOURCE_DIR}/src/cuda/jit/built_in_kernels.S ${LIBRARY}
          -o ${WORK}/built_in -ldl -pthread
  COMMAND_ERROR_IS_FATAL ANY)
set(ENV{STROBE_CUDA_DRIVER} ${DRIVER})
set(ENV{STROBE_JIT} off)
execute_process(COMMAND ${WORK}/built_in COMMAND_ERROR_IS_FATAL ANY)
