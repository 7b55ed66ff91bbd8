#!/bin/sh
# The room check itself: a tree that keeps to its arrows passes, and each single line that breaks them is found.
set -eu
check=$(cd "$(dirname "$0")" && pwd)/check.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# put FILE LINE...: a file of the tree.
put() {
  mkdir -p "$tree/$(dirname "$1")"
  file=$1
  shift
  printf '%s\n' "$@" >"$tree/$file"
}

plant() {
  rm -rf "${tree:?}"/*
  put docs/ARCHITECTURE.md '<!-- rooms -->' '| room | sees | sources | headers |' '|---|---|---|---|' \
    '| `base` | | `json/` | `registers.h` |' '| `io` | `base` | `fcntl.h` | |' '| `capi` | `io` `base` | | |' \
    '| `program` | `io` `base` | `CLI/` | |' '| `examples` | `capi` | | |' '<!-- /rooms -->' '| `text` | `io` | | |'
  put include/nibble/version.hpp '#pragma once'
  put include/nibble/base/status.hpp '#include <string>' '#include <registers.h>'
  put src/base/status.cpp '#include "detail.hpp"' '#include <json/json.hpp>' '#include <nibble/base/status.hpp>'
  put src/base/detail.hpp '#include <vector>'
  put include/nibble/io/file.hpp '#include <nibble/base/status.hpp>' '#include <nibble/version.hpp>'
  put src/io/file.cpp '#include <nibble/io/file.hpp>' '#include <fcntl.h>' '#include "parts/part.hpp"'
  put src/io/parts/part.hpp '#include "../part.hpp"'
  put src/io/part.hpp '// #include <nibble/nothing.hpp>'
  put capi/include/nibble.h '#include <stdint.h>'
  put capi/src/api.cpp '#include <nibble.h>' '#include <nibble/io/file.hpp>'
  put examples/hello.c '#include <nibble.h>' '#include <stdio.h>'
  put examples/program/main.cpp '#include <CLI/CLI.hpp>' '#include <nibble/io/file.hpp>'
}

# caught PLACE TEXT [LINKS]: the check fails, and says TEXT of PLACE, once and of nothing else.
caught() {
  said=$(sh "$check" "$tree" "${3:-}") && status=0 || status=$?
  case $said in
    "$1: "*"$2"*) [ "$status" -ne 0 ] && [ "$(printf '%s\n' "$said" | wc -l)" -eq 1 ] && return ;;
  esac
  printf 'wanted "%s: ...%s...", status 1; got status %s:\n%s\n' "$1" "$2" "$status" "$said"
  failures=$((failures + 1))
}

# breaks FILE LINE TEXT: LINE added to FILE is caught at its place.
breaks() {
  plant
  [ -f "$tree/$1" ] || put "$1" '// a new file'
  printf '%s\n' "$2" >>"$tree/$1"
  caught "$1:$(wc -l <"$tree/$1")" "$3"
}

plant
sh "$check" "$tree" "base:,io:base" || { echo "the tree that keeps to its arrows was refused"; failures=1; }

breaks include/nibble/base/status.hpp '#include <nibble/io/file.hpp>' 'room base may not see room io'
breaks src/base/status.cpp '  #  include  <nibble/io/file.hpp>  // why not' 'room base may not see room io'
breaks src/io/file.cpp '#include <nibble/io/missing.hpp>' 'not a public header'
breaks src/io/file.cpp '#include "../base/detail.hpp"' 'reaches into room base'
breaks src/io/parts/part.hpp '#include "../../base/detail.hpp"' 'reaches into room base'
breaks src/io/file.cpp '#include "fcntl.h"' 'no file of ours'
breaks src/io/file.cpp '#include <json/json.hpp>' 'outside the standard library'
breaks src/io/file.cpp '#include <Eigen/Dense>' 'outside the standard library'
breaks include/nibble/io/file.hpp '#include <fcntl.h>' 'for public headers'
breaks include/nibble/base/status.hpp '#include <json/json.hpp>' 'for public headers'
breaks include/nibble/version.hpp '#include <string>' 'includes nothing'
breaks src/io/file.cpp '#include NAME' 'cannot be checked'
breaks src/io/file.cpp '#include <nibble.h>' 'may not see capi'
breaks capi/include/nibble.h '#include <CL/cl.h>' 'for public headers'
breaks examples/hello.c '#include <nibble/base/status.hpp>' 'room examples may not see room base'
breaks examples/program/main.cpp '#include <histedit.h>' 'outside the standard library'

plant
put src/text/text.cpp '// a room after the end of the table'
caught src/text/text.cpp:1 'belongs to no room'
plant
put include/nibble/all.hpp '// beside the rooms'
caught include/nibble/all.hpp:1 'belongs to no room'
plant
caught docs/ARCHITECTURE.md:0 'CMake links room base to room io' 'io:base,base:io'
plant
put docs/ARCHITECTURE.md 'no table'
find "$tree/src" "$tree/include" "$tree/capi" "$tree/examples" -type f -delete
put src/io/empty.cpp '#include <string>'
sh "$check" "$tree" | grep -q 'has no table of rooms' || { echo "a missing table went unseen"; failures=$((failures + 1)); }

[ "$failures" -eq 0 ]
