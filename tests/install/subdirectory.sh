#!/bin/sh
# subdirectory.sh CMAKE SOURCE CC CXX [TARGET...]: SOURCE as a subdirectory of another project, of which TARGETs are built
# (all, when none is named: that compiles the library once more). For a compiler cache the flags are those of our preset,
# whose objects it has; without one they are without -O3, for nobody measures it.
set -eu
cmake=$1 source=$2
export CC="$3" CXX="$4"
shift 4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=-DCMAKE_CXX_FLAGS_RELEASE=-DNDEBUG
[ -z "${CMAKE_CXX_COMPILER_LAUNCHER:-}" ] || flags=-DNIBBLE_WERROR=ON
"$cmake" -S "$here/consumer" -B "$work" -DNIBBLE_SOURCE="$source" -DHELLO="$source/examples/hello.c" \
  -DCMAKE_BUILD_TYPE=Release "$flags" >"$work/log" || { cat "$work/log"; exit 1; }
if [ $# -gt 0 ]; then
  "$cmake" --build "$work" --target "$@"
else
  "$cmake" --build "$work" --parallel "$(getconf _NPROCESSORS_ONLN)"
  "$work/hello" "$source/examples/models/tales"
fi
"$work/quant"
