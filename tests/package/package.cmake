# cmake -DSTEP=... -P package.cmake: one step of the package tests; CMakeLists.txt passes the rest. The consumers are the
# examples, built outside this tree and moved prefixes included.
cmake_minimum_required(VERSION 3.22)
set(MOVED ${PREFIX}-moved)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# Builds the consumer project with extra arguments and runs what it built.
function(consume name)
  set(build ${WORK}/${name})
  file(REMOVE_RECURSE ${build})
  run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/tests/package/consumer -B ${build} -G ${GENERATOR}
      -DCMAKE_CXX_COMPILER=${CXX} -DEXAMPLES=${SOURCE_DIR}/examples ${ARGN})
  run(${CMAKE_COMMAND} --build ${build} --parallel 2)
  run(${build}/consumer)
endfunction()

if(STEP STREQUAL install)
  file(REMOVE_RECURSE ${PREFIX} ${MOVED})
  run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${PREFIX})
  # Nothing in the package may name the place that it was installed to.
  file(RENAME ${PREFIX} ${MOVED})
elseif(STEP STREQUAL find_package)
  consume(find_package -DCMAKE_PREFIX_PATH=${MOVED} -DCMAKE_BUILD_TYPE=Release)
elseif(STEP STREQUAL pkg_config)
  find_program(PKG_CONFIG pkg-config REQUIRED)
  set(ENV{PKG_CONFIG_PATH} ${MOVED}/${LIBDIR}/pkgconfig)
  execute_process(COMMAND ${PKG_CONFIG} --cflags --libs strobe
    OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  run(${CC} -std=c99 -pedantic -Wall -Wextra -Werror ${SOURCE_DIR}/examples/forward.c -o ${WORK}/c_consumer ${flags} -lm
      -Wl,-rpath,${MOVED}/${LIBDIR})
  run(${WORK}/c_consumer)
elseif(STEP STREQUAL add_subdirectory)
  # As a shared library, so that one test links against what exports.map lets through. No unity build: here each file of
  # the library compiles by itself.
  consume(add_subdirectory -DSTROBE_SOURCE=${SOURCE_DIR} -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_TYPE=Debug)
endif()
