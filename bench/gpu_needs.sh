#!/bin/sh
# The development files of other projects that bench/gpu.sh compiles with, for a computer that has a GPU and no network:
#
#   bench/gpu_needs.sh [FOLDER]
#
# copies them from the packages of this Debian or Ubuntu to FOLDER (build/gpu-needs, where bench/gpu.sh looks for them),
# some five MB: headers, and utf8proc for processors like this one's.
set -eu
folder=${1:-build/gpu-needs}
packages="nlohmann-json3-dev libutf8proc-dev libxsimd-dev libcli11-dev doctest-dev"
here=$(dpkg --print-architecture)  # other processors' packages may be here, too
mkdir -p "$folder"
for package in $packages; do
  files=$(dpkg -L "$package:$here" 2>/dev/null || dpkg -L "$package") || {
    echo "gpu_needs.sh: please install $package: apt-get install $packages" >&2
    exit 1
  }
  for file in $files; do
    case $file in /usr/share/doc/* | /usr/share/doc-base/*) continue ;; esac
    [ -d "$file" ] || cp -P --parents "$file" "$folder"
  done
done
du -sh "$folder"
