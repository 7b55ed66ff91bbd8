# Sourced by the checks of the objects of src/kernels/arch.

# each_arch_object GOOD OBJECT...: runs `look OBJECT FILE`, with a FILE such as avx2.cpp, for those among them, and ends with 1
# when it failed for one, or when there is none. GOOD is what is said of them otherwise.
each_arch_object() {
  good=$1
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
    look "$object" "${file%.o}" || found=1
  done
  [ "$checked" -gt 0 ] || { echo "no object of src/kernels/arch among $# objects"; exit 1; }
  [ "$found" -ne 0 ] || echo "$checked objects $good"
  exit "$found"
}
