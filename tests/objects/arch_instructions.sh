#!/bin/sh
# arch_instructions.sh OBJDUMP OBJECT...: the objects of src/kernels/arch hold no instruction that their file's name does
# not promise, by the encodings: in 64-bit code c4 and c5 begin a VEX instruction (AVX, AVX2, AVX-VNNI), 62 an EVEX one
# (AVX-512). A flag too many in a build, or a compiler that takes another form of what is meant, shows here and not as
# an illegal instruction on somebody's machine.
set -eu
. "$(dirname "$0")/each_arch_object.sh"
objdump=$1
shift

look() {
  "$objdump" --disassemble "$1" | awk -F'\t' -v file="$2" '
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
    }'
}

each_arch_object "keep to their instruction sets" "$@"
