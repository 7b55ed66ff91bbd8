#!/bin/sh
# arch_instructions.sh OBJDUMP OBJECT...: the objects of src/kernels/arch hold no instruction that their file's name does
# not promise, by the encodings: in 64-bit code c4 and c5 begin a VEX instruction (AVX, AVX2, AVX-VNNI), 62 an EVEX one
# (AVX-512). A flag too many in a build, or a compiler that takes another form of what is meant, shows here and not as
# an illegal instruction on somebody's machine.
set -eu
objdump=$1
shift
found=0
checked=0
for object in "$@"; do
  case $object in
    */arch/*) ;;
    *) continue ;;
  esac
  file=${object##*/}
  checked=$((checked + 1))
  "$objdump" --disassemble "$object" | awk -F'\t' -v file="${file%.o}" '
    BEGIN {
      evex = file ~ /^avx512/
      vex = file ~ /^avx/
      vnni = file ~ /^(avx512|avxvnni)[.]/
    }
    function refuse(what) {
      if (!bad++) print file ": " what ":" $0
    }
    NF < 3 { next }
    { instructions++ }
    !evex && $2 ~ /^62 / { refuse("an instruction of AVX-512") }
    !vex && $2 ~ /^c[45] / { refuse("an instruction of AVX") }
    $3 ~ /vpdpbusd/ {
      dots++
      if (!vnni) refuse("a dot of bytes")
    }
    END {
      if (!instructions) refuse("no instruction at all")
      if (vnni && !dots) refuse("no dot of bytes")
      exit bad > 0
    }' || found=1
done
[ "$checked" -gt 0 ] || { echo "no object of src/kernels/arch among $# objects"; exit 1; }
[ "$found" -ne 0 ] || echo "$checked objects keep to their instruction sets"
exit $found
