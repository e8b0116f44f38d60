# What the shared library exports: the C and C++ API and nothing else. exports.map keeps the C++ runtime's templates in;
# exports.txt pins the rest, and the test `exports` compares (tests/package).

function(strobe_limit_exports target)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY" AND NOT APPLE AND NOT WIN32)
    set(map ${PROJECT_SOURCE_DIR}/cmake/exports.map)
    target_link_options(${target} PRIVATE LINKER:--version-script=${map})
    set_target_properties(${target} PROPERTIES LINK_DEPENDS ${map})
  endif()
  if(type STREQUAL "SHARED_LIBRARY")
    target_compile_definitions(${target} INTERFACE STROBE_SHARED)
  endif()
endfunction()
