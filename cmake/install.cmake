# Installing the library: headers, the CMake package (find_package(strobe) gives strobe::strobe) and strobe.pc.
include(CMakePackageConfigHelpers)

install(TARGETS strobe EXPORT strobeTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/strobe DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/strobe)
install(EXPORT strobeTargets NAMESPACE strobe:: DESTINATION ${package_dir})
configure_package_config_file(cmake/strobeConfig.cmake.in ${PROJECT_BINARY_DIR}/strobeConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the API.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/strobeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/strobeConfig.cmake ${PROJECT_BINARY_DIR}/strobeConfigVersion.cmake
  DESTINATION ${package_dir})

# A static library leaves the C++ runtime and threads to whoever links it, which may be a C program.
set(STROBE_PC_LIBS "-lstrobe")
if(NOT BUILD_SHARED_LIBS)
  foreach(library ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
    if(library MATCHES "^(stdc\\+\\+|c\\+\\+)$")
      string(APPEND STROBE_PC_LIBS " -l${library}")
    endif()
  endforeach()
  string(APPEND STROBE_PC_LIBS " -lm -ldl -pthread")
endif()
# Paths relative to the file itself, so that the tree can move.
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH STROBE_PC_PREFIX ${CMAKE_INSTALL_PREFIX}/${pc_dir} ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/strobe.pc.in ${PROJECT_BINARY_DIR}/strobe.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/strobe.pc DESTINATION ${pc_dir})
