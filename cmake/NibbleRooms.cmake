# A room is one folder, one target, and the rooms it may see. The link edges are the arrows of docs/ARCHITECTURE.md;
# tests/rooms holds the #include lines to the same arrows.
#
#   nibble_room(io COLD SEES formats base SOURCES file.cpp safetensors.cpp)
#
# makes the static library nibble_io; sources are relative to src/<room>. COLD: none of them is a loop that time is spent in.
function(nibble_room room)
  cmake_parse_arguments(ARG "COLD" "" "SEES;SOURCES;PRIVATE_LIBRARIES" ${ARGN})
  set(target nibble_${room})
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:nibble_flags> ${ARG_PRIVATE_LIBRARIES})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    # Whoever links a room, libnibble.so first of all, can leave out what it does not use (--gc-sections).
    target_compile_options(${target} PRIVATE -ffunction-sections -fdata-sections)
    if(ARG_COLD)  # -O3 would make a fifth more of code that runs once for a file or a pass
      target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O2>)
    endif()
    if(NIBBLE_BUILD_FUZZERS AND NOT room STREQUAL "kernels")  # what libFuzzer steers by; kernels parse nothing
      target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(nibble::${room} ALIAS ${target})
  target_compile_features(${target} ${scope} cxx_std_20)
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  foreach(seen IN LISTS ARG_SEES)
    target_link_libraries(${target} ${scope} nibble_${seen})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY NIBBLE_ROOMS ${room})
endfunction()
