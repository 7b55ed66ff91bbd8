# A room is one folder, one target, and the rooms it may see. The link edges are the arrows of docs/ARCHITECTURE.md;
# tests/rooms holds the #include lines to the same arrows.
#
#   nibble_room(io SEES formats base SOURCES file.cpp safetensors.cpp)
#
# makes the static library nibble_io; sources are relative to src/<room>.
function(nibble_room room)
  cmake_parse_arguments(ARG "" "" "SEES;SOURCES;PRIVATE_LIBRARIES" ${ARGN})
  set(target nibble_${room})
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:nibble_flags> ${ARG_PRIVATE_LIBRARIES})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
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
