#!/bin/sh
# arch_symbols.sh NM OBJECT...: the objects of src/kernels/arch define no function that another file could define too.
#
# Such a file is compiled for one instruction set. A shared inline function in it (a std::vector growing, a helper that is
# no template on the instruction set) may be the copy that the linker keeps for everybody, and then a processor
# without that instruction set meets it. So every function that leaves avx2.cpp must have the type Avx2 in its name, or
# be a part of its table kAvx2Backend.
set -eu
. "$(dirname "$0")/each_arch_object.sh"
nm=$1
shift

look() {
  # Columns of sysv: name | value | class | type | size | line | section. A class in lower case is local, but for w and u.
  "$nm" --demangle --defined-only --format=sysv "$1" | awk -v file="$2" '
    BEGIN {
      arch = file
      sub(/[._].*/, "", arch)
      arch = toupper(substr(arch, 1, 1)) substr(arch, 2)
    }
    # A demangled name may hold "|" itself (operator|), so columns are counted from the end.
    {
      n = split($0, column, "|")
      if (n < 7 || column[n - 3] !~ /FUNC/ || column[n - 4] !~ /[A-Zwu]/) next
      functions++
      name = column[1]
      for (i = 2; i <= n - 6; i++) name = name "|" column[i]
      sub(/ +$/, "", name)
      if (name !~ ("[^A-Za-z0-9_](" arch "|k" arch "(Backend|Encoders))[^A-Za-z0-9_]")) {
        print file ": " name " is shared, but compiled for " arch
        bad = 1
      }
    }
    END {
      if (!functions) print file ": defines no function at all"
      exit bad || !functions
    }'
}

each_arch_object "share nothing" "$@"
