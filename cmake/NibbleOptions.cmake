# What a builder may choose. A consumer (add_subdirectory) gets the library only.
include(GNUInstallDirs)

option(NIBBLE_BUILD_EXAMPLES "Build the nibble program and the examples" ${PROJECT_IS_TOP_LEVEL})
option(NIBBLE_BUILD_TESTS "Build the tests (needs doctest)" ${PROJECT_IS_TOP_LEVEL})
option(NIBBLE_BUILD_BENCHES "Build the benches (some need Google Benchmark)" OFF)
option(NIBBLE_BUILD_FUZZERS "Build the libFuzzer targets (needs clang)" OFF)
set(NIBBLE_CUDA AUTO CACHE STRING "Build libnibble-cuda.so: ON, OFF, or AUTO: where nvcc is found, in builds of nibble itself without sanitizers")
set_property(CACHE NIBBLE_CUDA PROPERTY STRINGS AUTO ON OFF)
option(NIBBLE_INSTALL "Add install rules" ${PROJECT_IS_TOP_LEVEL})
option(NIBBLE_WERROR "Warnings are errors (set by the presets)" OFF)
set(NIBBLE_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize= (address,undefined or thread)")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# Flags of every target of ours; none of them reaches a consumer.
add_library(nibble_flags INTERFACE)
target_compile_features(nibble_flags INTERFACE cxx_std_20)
target_compile_options(nibble_flags INTERFACE
  -ffp-contract=off   # canonical arithmetic: the compiler may not fuse what we did not
  $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique> -fvisibility=hidden $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict>   # GCC 12 raises it in its own std::string
  $<$<BOOL:${NIBBLE_WERROR}>:-Werror>)
if(NIBBLE_SANITIZE)
  target_compile_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE})
endif()
