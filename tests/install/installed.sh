#!/bin/sh
# installed.sh CMAKE BUILD SOURCE CC CXX: installs BUILD, moves it, and uses it from a project elsewhere.
set -eu
cmake=$1 build=$2 source=$3
export CC="$4" CXX="$5"
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

wrong() {
  echo "$*"
  exit 1
}

"$cmake" --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
prefix=$work/moved
mv "$work/first" "$prefix"
model=$prefix/share/nibble/models/tales

for file in include/nibble.h include/nibble/version.hpp share/doc/nibble/LICENSE share/doc/nibble/THIRD_PARTY_NOTICES.md \
  share/nibble/models/tales/model.safetensors share/nibble/models/tales/README.md bin/nibble; do
  [ -f "$prefix/$file" ] || wrong "not installed: $file"
done
named=$(grep -rlF -e "$build" -e "$source" "$prefix" || true)
[ -z "$named" ] || wrong "these installed files name the folders they were built in:" "$named"

echo "== the program, where it was moved to, finds its model"
"$prefix/bin/nibble" run -p "Once upon a time" -n 5

echo "== find_package"
"$cmake" -S "$here/consumer" -B "$work/package" -DCMAKE_PREFIX_PATH="$prefix" -DHELLO="$source/examples/hello.c" >/dev/null
"$cmake" --build "$work/package" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/package/hello" "$model" >"$work/story"
"$work/package/hello_static" "$model" | cmp - "$work/story" || wrong "the static library tells another story"
"$work/package/quant"
"$work/package/core" "$model"

echo "== pkg-config"
command -v pkg-config >/dev/null 2>&1 || { echo "there is no pkg-config: left out"; exit 0; }
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name nibble.pc)")
libraries=$(dirname "$PKG_CONFIG_PATH")
export PKG_CONFIG_PATH
# A program of C, linked by the C compiler.
# shellcheck disable=SC2046
"$CC" "$source/examples/hello.c" -o "$work/hello" $(pkg-config --cflags --libs nibble)
LD_LIBRARY_PATH=$libraries "$work/hello" "$model" | cmp - "$work/story" || wrong "another story through pkg-config"
rm "$libraries"/libnibble.so*
# shellcheck disable=SC2046
"$CC" "$source/examples/hello.c" -o "$work/hello" $(pkg-config --static --cflags --libs nibble)
"$work/hello" "$model" | cmp - "$work/story" || wrong "another story through pkg-config --static"
