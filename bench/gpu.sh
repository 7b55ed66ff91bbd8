#!/bin/sh
# Everything that can be found out about nibble on this machine's GPU, in one call and without a network:
#
#   bench/gpu.sh OUT [TEST_DATA]
#
# Builds nibble with CUDA, runs the kernels' tests and those of whole models (and some of them under compute-sanitizer,
# where it is installed), measures what the device can do, then random models of the shapes of gpt-oss-20b and -120b.
# OUT gets logs, JSON and one table, OUT/gpu.md. Stages that fail do not stop those after them; the exit status tells.
# About nine minutes on a machine with sixteen processors and an H200, by estimate; NIBBLE_GPU_STAGES picks some: "build test
# sanitize floors 20b 120b", which are all but "fast": prompts in the fast class, two minutes more.
set -u
out=${1:?"usage: bench/gpu.sh OUT [TEST_DATA]"}
[ $# -ge 2 ] && NIBBLE_TEST_DATA=$(cd "$2" && pwd) && export NIBBLE_TEST_DATA
stages=${NIBBLE_GPU_STAGES:-"build test sanitize floors 20b 120b"}
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.." || exit 1
build=${NIBBLE_GPU_BUILD:-build/gpu}
failed=""
begun=$(date +%s)

# stage NAME LIMIT_SECONDS COMMAND...: its output goes to OUT/NAME.log.
stage() {
  name=$1 limit=$2
  shift 2
  case " $stages " in *" ${name%%-*} "*) ;; *) return ;; esac
  printf '%4d s  %s\n' $(($(date +%s) - begun)) "$name"
  if ! timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
    failed="$failed $name"
    printf '        failed; the end of %s:\n' "$out/$name.log"
    tail -n 5 "$out/$name.log" | sed 's/^/        /'
  fi
}
# model NAME SHAPE LIMIT_SECONDS OPTIONS...
model() {
  what=$1 shape=$2 seconds=$3
  shift 3
  stage "$what" "$seconds" "$build/bench/bench_device" --cuda-library "$build/lib" --shape "$shape" \
    --floors "$out/floors.json" --markdown "$out/gpu.md" --json "$out/$what.json" "$@"
}

command -v nvidia-smi > /dev/null && nvidia-smi > "$out/nvidia-smi.txt" 2>&1
: > "$out/gpu.md"

stage build-configure 60 cmake -S . -B "$build" -G "${CMAKE_GENERATOR:-Unix Makefiles}" -DCMAKE_BUILD_TYPE=Release \
  -DNIBBLE_CUDA=ON -DNIBBLE_SIMT_EVERYWHERE=ON -DNIBBLE_BUILD_TESTS=ON -DNIBBLE_BUILD_BENCHES=ON
stage build-library 300 cmake --build "$build" -j "$(nproc)" --target nibble_cuda bench_device bench_device_floors \
  test_device test_cuda_on_device
export NIBBLE_TEST_CUDA_LIBRARY="$build/lib/libnibble-cuda.so"
stage test-kernels 120 "$build/tests/cuda/on_device/test_cuda_on_device"
stage test 120 "$build/tests/device/test_device"
if command -v compute-sanitizer > /dev/null; then
  stage sanitize-kernels 120 compute-sanitizer --error-exitcode 1 "$build/tests/cuda/on_device/test_cuda_on_device" \
    --test-case='multiply: ragged*,multiply: the fast*,experts: units*,experts: the fast*,route: logits*,norms*,heads*,attention: a row*'
  stage sanitize 120 compute-sanitizer --error-exitcode 1 "$build/tests/device/test_device" --test-case='tales: *'
fi
stage floors 30 sh -c "'$build/bench/bench_device_floors' > '$out/floors.json'"
model 20b-short 20b 90 --contexts 0 --batches 1,2,4,8,16,32,64 --prompts 512,2048
model fast-20b 20b 90 --fast --contexts 0 --batches 1 --prompts 512,2048,8192
model 20b-long 20b 90 --contexts 8192,32768 --batches 1 --prompts 8192
model 20b-half 20b 90 --expert-percent 50 --contexts 0 --batches 1,8 --prompts 512
model 120b-short 120b 150 --contexts 0 --batches 1,8,64 --prompts 512,2048
model fast-120b 120b 120 --fast --contexts 0 --batches 1 --prompts 512,2048,8192
model 120b-long 120b 120 --contexts 8192,32768 --batches 1 --prompts 8192

printf '%4d s  done:%s\n' $(($(date +%s) - begun)) "${failed:- nothing failed}"
cat "$out/gpu.md"
[ -z "$failed" ]
