#!/bin/sh
# check.sh ROOT [LINKS]: every #include line under ROOT against the arrows of its docs/ARCHITECTURE.md (rooms.awk).
set -eu
rules=$(cd "$(dirname "$0")" && pwd)/rooms.awk
cd "$1"
files=$(find include src capi examples cuda -type f \( -name '*.hpp' -o -name '*.h' -o -name '*.cpp' -o -name '*.c' \
  -o -name '*.cu' -o -name '*.cuh' \) 2>/dev/null | LC_ALL=C sort)
# File names of ours have no spaces.
# shellcheck disable=SC2086
exec awk -v links="${2:-}" -f "$rules" docs/ARCHITECTURE.md $files
