#!/bin/sh
# arch_symbols_selftest.sh NM COMPILER: arch_symbols.sh sees a shared inline function, and nothing wrong where there is none.
set -eu
check=$(cd "$(dirname "$0")" && pwd)/arch_symbols.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/arch"
object=$folder/arch/avx2.cpp.o

# of SOURCE: its object, as if it were avx2.cpp.
of() {
  printf '%s\n' "struct Avx2 {}; template <class A> __attribute__((noinline)) int f(A) { return 1; }" "$1" >"$folder/avx2.cpp"
  "$2" -std=c++20 -O0 -c "$folder/avx2.cpp" -o "$object"
}

of 'namespace { int own() { return f(Avx2{}); } } extern const int table; const int table = own();' "$2"
sh "$check" "$1" "$object"

refused() {
  of "$1" "$3"
  said=$(sh "$check" "$2" "$object") && { echo "not seen: $1"; exit 1; }
  case $said in
    *"$4"*) ;;
    *) echo "wanted $4, got $said"; exit 1 ;;
  esac
}
refused 'inline int helper() { return 2; } int Avx2Table = f(Avx2{}) + helper();' "$1" "$2" 'helper() is shared'
refused 'struct Avx24 {}; int t = f(Avx2{}) + f(Avx24{});' "$1" "$2" 'int f<Avx24>(Avx24) is shared'
refused 'int entry() { return f(Avx2{}); }' "$1" "$2" 'entry() is shared'
refused 'struct S {}; int operator|(S, int) { return f(Avx2{}); }' "$1" "$2" 'operator|(S, int) is shared'
refused '' "$1" "$2" 'no function at all'
