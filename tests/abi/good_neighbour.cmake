# cmake -DNM= -DLIBRARY= -DASSERTS=ON|OFF -P good_neighbour.cmake: the objects of the static library call nothing that
# ends the process, prints, reads the environment or changes what the process shares, and run no code before main.
cmake_minimum_required(VERSION 3.25)
set(forbidden
  printf fprintf vfprintf puts fputs putchar perror fwrite stdout stderr __printf_chk __fprintf_chk
  _ZSt4cout _ZSt4cerr _ZSt4clog _ZNSt8ios_base4InitC1Ev
  exit _exit _Exit quick_exit abort raise kill atexit __cxa_atexit
  getenv secure_getenv setenv putenv environ setlocale signal sigaction system popen rand srand)
if(NOT ASSERTS)
  list(APPEND forbidden __assert_fail)
endif()
execute_process(COMMAND ${NM} --format=posix ${LIBRARY} OUTPUT_VARIABLE table COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${table}")
set(object "")
set(objects 0)
foreach(line IN LISTS lines)
  if(line MATCHES "([^[]+\\.o)\\]?:$")  # library.a[name.o]: of binutils, name.o: of LLVM
    set(object "${CMAKE_MATCH_1}")
    math(EXPR objects "${objects} + 1")
  elseif(line MATCHES "^([^ ]+) [Uw]")
    if(CMAKE_MATCH_1 IN_LIST forbidden)
      message(SEND_ERROR "${object} refers to ${CMAKE_MATCH_1}")
    endif()
  elseif(line MATCHES "^_GLOBAL__sub_I")
    message(SEND_ERROR "${object} initializes a global before main")
  endif()
endforeach()
if(objects EQUAL 0)
  message(FATAL_ERROR "${LIBRARY} has no objects to look at")
endif()
message(STATUS "${objects} objects looked at")
