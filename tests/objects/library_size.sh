#!/bin/sh
# library_size.sh STRIP LIBRARY MOST: what is shipped, without symbols, takes at most so many bytes.
set -eu
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
"$1" -o "$stripped" "$2"
size=$(wc -c < "$stripped")
echo "$2: $size bytes stripped, $3 at most"
[ "$size" -le "$3" ]
