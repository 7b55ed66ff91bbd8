#!/bin/sh
# Everything that can be found out about nibble on this machine's GPU, in one call and without a network:
#
#   bench/gpu.sh OUT [TEST_DATA]
#
# Builds nibble with CUDA for this GPU, runs the kernels' tests and those of whole models, measures what the device can
# do, then random models of the shapes of gpt-oss-20b and -120b, and in the end, where there is time left, runs tests
# again under compute-sanitizer, where it is installed. What nibble is compiled with may be missing here: bench/gpu_needs.sh
# brings it from another computer.
#
# OUT gets gpu.md, a table; gpu.log, all that was printed; floors.json; models.json, one object for each model. They are
# written as results come, so that whoever ends this has what there was. Stages that fail do not stop those after them;
# the exit status tells. It ends within NIBBLE_GPU_SECONDS, 570 unless set, and leaves out what it has no time for.
# NIBBLE_GPU_STAGES picks some: "build test floors 20b 120b sanitize", which are all but "fast": prompts in the fast
# class. What was built before, in NIBBLE_GPU_BUILD (build/gpu), is not built again; NIBBLE_GPU_DEVICES (as 90) is for
# building where there is no GPU.
set -u
out=${1:?"usage: bench/gpu.sh OUT [TEST_DATA]"}
[ $# -ge 2 ] && NIBBLE_TEST_DATA=$(cd "$2" && pwd) && export NIBBLE_TEST_DATA
stages=${NIBBLE_GPU_STAGES:-"build test floors 20b 120b sanitize"}
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.." || exit 1
build=${NIBBLE_GPU_BUILD:-build/gpu}
failed=""
begun=$(date +%s)
ends=$((begun + ${NIBBLE_GPU_SECONDS:-570}))
jobs=$(nproc)

say() { printf '%4d s  %s\n' $(($(date +%s) - begun)) "$*" | tee -a "$out/gpu.log"; }

# stage NAME LIMIT_SECONDS COMMAND...
stage() {
  name=$1 limit=$2
  shift 2
  case " $stages " in *" ${name%%-*} "*) ;; *) return ;; esac
  left=$((ends - $(date +%s)))
  if [ $left -lt 5 ]; then
    failed="$failed $name"
    say "$name: no time left"
    return
  fi
  say "$name"
  [ "$limit" -lt $left ] || limit=$left
  before=$(wc -l < "$out/gpu.log")
  if ! timeout --kill-after=5 "$limit" "$@" >> "$out/gpu.log" 2>&1; then
    failed="$failed $name"
    printed=$(tail -n +$((before + 1)) "$out/gpu.log" | tail -n 5 | sed 's/^/        /')
    say "$name failed; the end of what it printed:"
    printf '%s\n' "$printed"
  fi
}
# cases NAME LIMIT_SECONDS PROGRAM [OPTION...]: its test cases one by one.
cases() {
  what=$1 seconds=$2
  shift 2
  stage "$what" "$seconds" bench/test_cases.sh 60 $(((jobs + 1) / 2)) "$@"
}
# model NAME SHAPE LIMIT_SECONDS OPTION...
model() {
  what=$1 shape=$2 seconds=$3
  shift 3
  stage "$what" "$seconds" "$build/bench/bench_device" --cuda-library "$build/lib" --shape "$shape" \
    --floors "$out/floors.json" --markdown "$out/gpu.md" --json "$out/models.json" "$@"
}

: > "$out/gpu.log"
: > "$out/gpu.md"
: > "$out/models.json"
if command -v nvidia-smi > /dev/null; then
  nvidia-smi >> "$out/gpu.log" 2>&1
  devices=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1 | tr -cd 0-9)
fi
devices=${NIBBLE_GPU_DEVICES:-${devices:-}}

# Tests and benches alone: the program needs more.
command -v ninja > /dev/null && export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"
stage build-configure 90 cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$PWD/build/gpu-needs/usr" -DNIBBLE_CUDA=ON -DNIBBLE_CUDA_DEVICES="$devices" \
  -DNIBBLE_SIMT_EVERYWHERE=ON -DNIBBLE_BUILD_EXAMPLES=OFF -DNIBBLE_BUILD_TESTS=ON -DNIBBLE_BUILD_BENCHES=ON
# What measures first: if time ends, or a test does not compile, that is there.
stage build-benches 300 cmake --build "$build" -j "$jobs" --target bench_device_floors nibble_cuda bench_device
stage build-tests 240 cmake --build "$build" -j "$jobs" --target test_cuda_on_device test_device
export NIBBLE_TEST_CUDA_LIBRARY="$build/lib/libnibble-cuda.so"
cases test-kernels 100 "$build/tests/cuda/on_device/test_cuda_on_device"
# But for what an emulated device has said: that takes long, and is the same everywhere.
cases test-models 100 "$build/tests/device/test_device" --test-case-exclude='slow: slots: every other*'
stage floors 30 sh -c "'$build/bench/bench_device_floors' > '$out/floors.json'"
model 20b-short 20b 90 --contexts 0 --batches 1,2,4,8,16,32,64 --prompts 512,2048
model fast-20b 20b 90 --fast --contexts 0 --batches 1 --prompts 512,2048,8192
model 120b-short 120b 150 --contexts 0 --batches 1,8,64 --prompts 512,2048
model 20b-long 20b 90 --contexts 8192,32768 --batches 1 --prompts 8192
model 20b-half 20b 90 --expert-percent 50 --contexts 0 --batches 1,8 --prompts 512
model fast-120b 120b 120 --fast --contexts 0 --batches 1 --prompts 512,2048,8192
model 120b-long 120b 120 --contexts 8192,32768 --batches 1 --prompts 8192
if command -v compute-sanitizer > /dev/null; then
  stage sanitize-kernels 120 compute-sanitizer --error-exitcode 1 "$build/tests/cuda/on_device/test_cuda_on_device" \
    --test-case='multiply: ragged*,multiply: the fast*,experts: units*,experts: the fast*,route: logits*,norms*,heads*,attention: a row*'
  stage sanitize-models 120 compute-sanitizer --error-exitcode 1 "$build/tests/device/test_device" --test-case='tales: *'
fi

say "done:${failed:- nothing failed}"
cat "$out/gpu.md"
[ -z "$failed" ]
