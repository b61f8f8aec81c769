#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can say, in one command that ends inside nine minutes on an H200:
# build, the gpu tests, compute-sanitizer, ceilings, op sweep, GPTQ of a synthetic Llama-2-7B, its decode and prefill,
# and its decode with kernels that overlap.
#   tools/gpu_check.sh [RESULT.json]     default: gpu_check.json
# Each step has a limit of its own and prints a line; what was measured, and every step's end, goes into the JSON.
# Exit 77 without GPU or toolkit, 1 when a step failed or ran out of time.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/cuda/bin"
result=${1:-gpu_check.json}
total=535
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
steps="" failed=0

command -v nvidia-smi >/dev/null && capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1) &&
  [ -n "$capability" ] || { echo "skipped: no NVIDIA GPU (nvidia-smi shows none)"; exit 77; }
command -v nvcc >/dev/null || { echo "skipped: a GPU but no CUDA toolkit (nvcc)"; exit 77; }

quote() { # text as a JSON string
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\010\013\014\016-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' | sed ':a;N;$!ba;s/\n/\\n/g')"
}

# note NAME STATUS SECONDS TEXT
note() {
  printf '%-9s %s (%s s)%s\n' "$2" "$1" "$3" "${4:+: $(printf '%s' "$4" | tail -n 1)}"
  steps="$steps${steps:+,
  }{\"name\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"note\": $(quote "$4")}"
  case $2 in failed | timeout) failed=1 ;; esac
}

# step NAME LIMIT COMMAND...: stdout is kept as $work/NAME.out; never past the whole check's end.
step() {
  local name=$1 limit=$2 start=$SECONDS code=0
  shift 2
  [ $((total - SECONDS)) -lt "$limit" ] && limit=$((total - SECONDS))
  if [ "$limit" -lt 2 ]; then
    note "$name" timeout 0 "no time was left"
    return 1
  fi
  timeout --kill-after=5 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.err" || code=$?
  local seconds=$((SECONDS - start))
  case $code in
    0) note "$name" ok $seconds ""; : >"$work/$name.ok" ;;
    77) note "$name" skipped $seconds "$(tail -n 1 "$work/$name.out")"; return 77 ;;
    124 | 137) note "$name" timeout $seconds "limit of $limit s"; return 1 ;;
    *) note "$name" failed $seconds "$({ tail -n 12 "$work/$name.out"; tail -n 5 "$work/$name.err"; } 2>/dev/null | cut -c1-300)"; return 1 ;;
  esac
}

build() {
  cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES="${capability/./}" && cmake --build --preset cuda -j "$(nproc)" --target bench gpu_tests || return 1
  if cmake --build --preset cuda --target help | grep -q '^bench_cuda:'; then
    cmake --build --preset cuda -j "$(nproc)" --target bench_cuda
  fi
}
gpu_tests() {
  ctest --test-dir build-cuda -L gpu --output-on-failure -j 4
}
# sanitize TOOL: the programs of single ops, whole models aside.
sanitize() {
  local tool=$1 program
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return 77; }
  for program in build-cuda/bin/test_cuda_ops build-cuda/bin/test_cuda_quantize build-cuda/bin/test_cuda_attention; do
    [ -x "$program" ] || continue
    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$program" || { echo "$program under $tool"; return 1; }
  done
}
op_sweep() {
  [ -x build-cuda/bin/bench_cuda ] || { echo "bench_cuda is not built"; return 77; }
  build-cuda/bin/bench_cuda --json
}
quantize() {
  build-cuda/bin/bench quantize llama2-7b --synthetic --backend cuda --method gptq --bits 4 --group-size 128 \
    --samples 128 --seqlen 2048 -o "$work/llama2-7b-w4" --json
}
# Where GPTQ did not end in time the speed is still worth knowing: rounding gives the same format.
speed() {
  [ -d "$work/llama2-7b-w4" ] || build-cuda/bin/bench quantize llama2-7b --synthetic --backend cuda --method rtn --bits 4 \
    --group-size 128 -o "$work/llama2-7b-w4" >/dev/null || return 1
  build-cuda/bin/bench speed "$work/llama2-7b-w4" --backend cuda --prefill 512,2048 --decode 128 --depth 0,2048 --batch 1,8 \
    --repeat 5 --json
}
# The decode step with kernels that begin before those ahead of them end: the same bits twice, and its speed.
overlap() {
  [ "${capability%%.*}" -ge 9 ] || { echo "compute capability $capability has no dependent launches"; return 77; }
  export BENCH_CUDA_DEPENDENT=1
  build-cuda/bin/test_cuda_decode >&2 || return 1
  build-cuda/bin/bench speed "$work/llama2-7b-w4" --backend cuda --prefill 0 --decode 128 --depth 0,2048 --batch 1,8 --repeat 5 --json
}

export -f build gpu_tests sanitize op_sweep quantize speed overlap
export capability work
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1

if step build 170 bash -c build; then
  step ceilings 30 build-cuda/bin/bench doctor --json
  step tests 100 bash -c gpu_tests
  step op_sweep 45 bash -c op_sweep
  step gptq 150 bash -c quantize
  step speed 60 bash -c speed
  step overlap 40 bash -c overlap
  step memcheck 50 bash -c "sanitize memcheck"
  step racecheck 50 bash -c "sanitize racecheck"
fi

# document NAME: its standard output, as JSON where the step ended well, else what there is of it as a string.
document() {
  if [ ! -s "$work/$1.out" ]; then
    echo null
  elif [ -e "$work/$1.ok" ] && head -c 1 "$work/$1.out" | grep -q '[[{]'; then
    cat "$work/$1.out"
  else
    quote "$(cat "$work/$1.out")"
  fi
}
{
  printf '{"schema": "qb.gpu_check/1",\n "created": "%s",\n "git": %s,\n "seconds": %d,\n "passed": %s,\n "steps": [\n  %s],\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(quote "$(git describe --always --dirty 2>/dev/null)")" "$SECONDS" \
    "$([ $failed = 0 ] && echo true || echo false)" "$steps"
  for name in ceilings op_sweep gptq speed overlap; do printf ' "%s": %s,\n' "$name" "$(document $name)"; done
  printf ' "device": %s}\n' "$(quote "$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader | head -n 1)")"
} >"$work/result" && mv "$work/result" "$result"
echo "$result: $([ $failed = 0 ] && echo "all steps ended well" || echo "some steps failed or ran out of time"), $SECONDS s"
exit $failed
