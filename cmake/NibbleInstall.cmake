# What `cmake --install` puts where, so that find_package(nibble) and pkg-config find it, wherever it is moved to
# (examples/CMakeLists.txt adds bin/nibble and share/nibble/models/tales, its model):
#
#   include/                         nibble.h, and nibble/ for nibble::quant and nibble::core
#   lib/                             libnibble.so, libnibble.a, cmake/nibble, pkgconfig/nibble.pc
#   share/doc/nibble                 licence and notices
include(CMakePackageConfigHelpers)

set(library_targets nibble_static nibble_quant)
if(NOT DEFINED BUILD_SHARED_LIBS OR BUILD_SHARED_LIBS)
  list(APPEND library_targets nibble_shared)
endif()
install(TARGETS ${library_targets} EXPORT nibbleTargets)
install(DIRECTORY include/nibble TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp")

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/nibble)
install(EXPORT nibbleTargets NAMESPACE nibble:: DESTINATION ${package_folder})
configure_package_config_file(cmake/nibbleConfig.cmake.in ${PROJECT_BINARY_DIR}/nibbleConfig.cmake
  INSTALL_DESTINATION ${package_folder} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change anything.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/nibbleConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nibbleConfig.cmake ${PROJECT_BINARY_DIR}/nibbleConfigVersion.cmake
  DESTINATION ${package_folder})

# The .pc file finds the prefix from its own place.
set(pkgconfig_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH prefix_from_pc /prefix/${pkgconfig_folder} /prefix)
configure_file(cmake/nibble.pc.in ${PROJECT_BINARY_DIR}/nibble.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/nibble.pc DESTINATION ${pkgconfig_folder})

install(FILES LICENSE THIRD_PARTY_NOTICES.md TYPE DOC)
