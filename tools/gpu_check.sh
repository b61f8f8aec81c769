#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can say, in one command that ends inside nine minutes on an H200:
# build, the gpu tests (whole models' perplexity among them), compute-sanitizer on them, ceilings, decode and prefill of a
# synthetic Llama-2-7B in every format, wikitext2's perplexity on it, its GPTQ, the op sweep, its decode with kernels that do
# not overlap, a profile of the decode kernels, and the times of all kernels of a prefill and of GPTQ.
#   tools/gpu_check.sh [--prebuilt FOLDER] [--seconds N] [--logs FOLDER] [--only STEPS] [RESULT.json]
#   --prebuilt  takes the programs in FOLDER/bin rather than building (tools/gpu_bundle.sh brings them; no compiler is needed)
#   --seconds   when all must be over (535)
#   --logs      keeps what every step wrote; without it, what fails is quoted in the result alone
#   --only      these steps, as "tests,speed,gptq"; the result says so ("only") and is not complete
# Each step has a limit of its own and prints a line. RESULT.json (gpu_check.json) is rewritten whole after every step, so that
# whatever ends the check leaves what was measured; "complete" says whether it came to its end.
# Exit 77 without GPU or toolkit, 1 when a step failed or ran out of time. A step that skips says why and fails nothing.
set -uo pipefail
all="tests memcheck racecheck ceilings speed perplexity gptq op_sweep overlap profile kernels_prefill kernels_gptq"
prebuilt="" total=535 logs="" only="" result=gpu_check.json
usage() { echo "usage: tools/gpu_check.sh [--prebuilt FOLDER] [--seconds N] [--logs FOLDER] [--only STEP,...] [RESULT.json]; steps: $all" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --prebuilt | --seconds | --logs | --only) [ $# -ge 2 ] || usage ;;&
    --prebuilt) prebuilt=$(cd "$2" && pwd) || exit 2; shift 2 ;;
    --seconds) total=$2; shift 2 ;;
    --logs) mkdir -p "$2" && logs=$(cd "$2" && pwd) || exit 2; shift 2 ;;
    --only) only=${2//,/ }; shift 2 ;;
    -*) usage ;;
    *) result=$1; shift ;;
  esac
done
for name in $only; do case " $all " in *" $name "*) ;; *) usage ;; esac; done
case $total in '' | *[!0-9]*) usage ;; esac
case $result in /*) ;; *) result=$PWD/$result ;; esac
cd "$(dirname "$0")/.." || exit 2
export PATH="$PATH:/usr/local/cuda/bin"

command -v nvidia-smi >/dev/null && capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1) &&
  [ -n "$capability" ] || { echo "skipped: no NVIDIA GPU (nvidia-smi shows none)"; exit 77; }
[ -n "$prebuilt" ] || command -v nvcc >/dev/null ||
  { echo "skipped: a GPU but no CUDA toolkit (nvcc); tools/gpu_bundle.sh brings built programs"; exit 77; }

scratch=$(mktemp -d)          # models: gigabytes, gone at the end
work=${logs:-$scratch/logs}   # what the steps wrote
mkdir -p "$work"
top=${prebuilt:-$PWD/build-cuda} bin=${prebuilt:-$PWD/build-cuda}/bin
steps="" failed=0 complete=false began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
revision=$(git describe --always --dirty 2>/dev/null || { [ -n "$prebuilt" ] && sed -n 's/^revision=//p' "$prebuilt/bundle" 2>/dev/null; })
device=$(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader | head -n 1)
documents="ceilings speed perplexity gptq op_sweep overlap profile kernels_prefill kernels_gptq"

quote() { # text as a JSON string
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\010\013\014\016-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' | sed ':a;N;$!ba;s/\n/\\n/g')"
}

# document NAME: its standard output, as JSON where the step ended well, else what there is of it as a string.
document() {
  if [ ! -s "$work/$1.out" ]; then
    echo null
  elif [ -e "$work/$1.ok" ] && head -c 1 "$work/$1.out" | grep -q '[[{]'; then
    cat "$work/$1.out"
  else
    quote "$(head -c 60000 "$work/$1.out")"
  fi
}

write_result() {
  local name
  {
    printf '{"schema": "qb.gpu_check/1",\n "created": "%s",\n "git": %s,\n "seconds": %d,\n "complete": %s,\n "only": %s,\n "passed": %s,\n "steps": [\n  %s],\n' \
      "$began" "$(quote "$revision")" "$SECONDS" "$complete" "$(quote "$only")" \
      "$([ $failed = 0 ] && echo true || echo false)" "$steps"
    for name in $documents; do printf ' "%s": %s,\n' "$name" "$(document "$name")"; done
    printf ' "device": %s}\n' "$(quote "$device")"
  } >"$result.new" && mv "$result.new" "$result"
}

# note NAME STATUS SECONDS TEXT; what is said is in the result by then.
note() {
  steps="$steps${steps:+,
  }{\"name\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"note\": $(quote "$4")}"
  printf '%s' "$steps" >"$scratch/steps" # for who ends this shell
  case $2 in failed | timeout) failed=1 ;; esac
  write_result
  printf '%-9s %s (%s s)%s\n' "$2" "$1" "$3" "${4:+: $(printf '%s' "$4" | tail -n 1)}"
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
  rm -f "$work/$name.ok"
  (echo "$BASHPID" >"$scratch/running" && exec timeout --kill-after=5 "$limit" "$@") >"$work/$name.out" 2>"$work/$name.err" &
  wait $! || code=$?
  rm -f "$scratch/running"
  local seconds=$((SECONDS - start))
  case $code in
    0) : >"$work/$name.ok"; note "$name" ok $seconds "$(cat "$work/$name.note" 2>/dev/null)" ;;
    77) note "$name" skipped $seconds "$(tail -n 1 "$work/$name.out")"; : >"$work/$name.out"; return 77 ;;
    124 | 137) note "$name" timeout $seconds "limit of $limit s"; return 1 ;;
    *) note "$name" failed $seconds "$({ tail -n 12 "$work/$name.out"; tail -n 5 "$work/$name.err"; } 2>/dev/null | cut -c1-300)"; return 1 ;;
  esac
}

wanted() { [ -z "$only" ] || [[ " $only " == *" $1 "* ]]; }

build() {
  cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES="${capability/./}" &&
    cmake --build --preset cuda -j "$(nproc)" --target bench bench_cuda gpu_tests
}
# Carried programs: each finds its libraries.
programs() {
  local program missing bad=0
  for program in "$bin"/*; do
    missing=$(ldd "$program" 2>&1 | grep -E 'not found|no version information')
    [ -z "$missing" ] || { echo "$program: $missing"; bad=1; }
  done
  [ $bad = 0 ] && "$bin/bench" doctor
}
gpu_tests() {
  local code=0
  BENCH_SHARE=$top/share/quantbench tools/run_gpu_tests.sh "$bin" "$work/tests" || code=$?
  { tail -n 1 "$work/tests.out"; sed -n 's/^ *\(skipped: .*\)/\1/p' "$work/tests.out" | sort | uniq -c | sed 's/^ *//'; } >"$work/tests.note.new"
  { sed 1d "$work/tests.note.new"; sed -n 1p "$work/tests.note.new"; } >"$work/tests.note" # the numbers last
  rm -f "$work/tests.note.new"
  return $code
}
# sanitize TOOL: the programs of single ops, whole models aside.
sanitize() {
  local tool=$1 program
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return 77; }
  for program in "$bin"/test_cuda_ops "$bin"/test_cuda_quantize "$bin"/test_cuda_attention; do
    [ -x "$program" ] || continue
    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 "$program" || { echo "$program under $tool"; return 1; }
  done
}
# int4_model: the synthetic Llama-2-7B that several steps measure, made by whichever comes first.
int4_model() {
  local model=$scratch/llama2-7b-int4
  [ -d "$model" ] || "$bin/bench" quantize llama2-7b --synthetic --backend cuda --method rtn --bits 4 --group-size 128 -o "$model" >/dev/null
}
# speed_of NAME OPTIONS...: decode and prefill of the synthetic Llama-2-7B that `bench quantize OPTIONS` makes; decode of eight
# sequences too.
speed_of() {
  local name=$1 model=$scratch/llama2-7b-$1
  shift
  [ -d "$model" ] || "$bin/bench" quantize llama2-7b --synthetic --backend cuda "$@" -o "$model" >/dev/null || return 1
  "$bin/bench" speed "$model" --backend cuda --prefill 512,2048 --decode 128 --depth 0,2048 --batch 1 --repeat 5 --json || return 1
  echo ,
  "$bin/bench" speed "$model" --backend cuda --prefill 0 --decode 128 --depth 0 --batch 8 --repeat 5 --json || return 1
  [ "$name" = int4 ] || rm -rf "$model"
}
speed() {
  echo '['
  speed_of int4 --method rtn --bits 4 --group-size 128 && echo , && speed_of nf4 --method nf4 && echo , &&
    speed_of int8 --method rtn --bits 8 --group-size 128 && echo , && speed_of int3 --method rtn --bits 3 --group-size 128 && echo , &&
    speed_of int2 --method rtn --bits 2 --group-size 64 || return 1
  echo ']'
}
# All of wikitext2 through the int4 model, with Llama-2's tokens: the weights are noise, the work is that of the real ones.
perplexity() {
  local shared=${QB_SHARED:-../shared} model=$scratch/llama2-7b-int4
  [ -e "$shared/tokenizers/llama2/tokenizer.model" ] && [ -e "$shared/data/wikitext2" ] ||
    { echo "no tokenizers/llama2 or no wikitext2 in $shared"; return 77; }
  int4_model && cp -L "$shared"/tokenizers/llama2/tokenizer.model "$shared"/tokenizers/llama2/tokenizer_config.json "$model/" || return 1
  "$bin/bench" eval "$model" --backend cuda --dataset wikitext2 --protocol gptq-2048 --data "$shared/data" --json
}
quantize() {
  "$bin/bench" quantize llama2-7b --synthetic --backend cuda --method gptq --bits 4 --group-size 128 \
    --samples 128 --seqlen 2048 -o "$scratch/llama2-7b-gptq" --json || return 1
  rm -rf "$scratch/llama2-7b-gptq"
}
op_sweep() { "$bin/bench_cuda" --json; }
# The decode step whose kernels begin only when those ahead of them have ended: the same bits twice, and its speed.
overlap() {
  [ "${capability%%.*}" -ge 9 ] || { echo "compute capability $capability has no dependent launches"; return 77; }
  int4_model || return 1
  export BENCH_CUDA_DEPENDENT=0
  "$bin/test_cuda_decode" >&2 || return 1
  "$bin/bench" speed "$scratch/llama2-7b-int4" --backend cuda --prefill 0 --decode 128 --depth 0,2048 --batch 1,8 --repeat 5 --json
}
# What bounds the kernels of one token at depth 2048: ncu's counters, where the machine has it and lets it read them.
profile() {
  command -v ncu >/dev/null || { echo "ncu is not installed"; return 77; }
  int4_model || return 1
  ncu --clock-control none --graph-profiling node -k 'regex:residual_kernel|mlp_kernel|project_kernel|decode_kernel|choose_kernel' \
    --launch-skip 200 --launch-count 14 --csv \
    --metrics gpu__time_duration.sum,dram__bytes_read.sum.per_second,sm__inst_issued.avg.per_cycle_active,sm__warps_active.avg.pct_of_peak_sustained_active,smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio \
    "$bin/bench" speed "$scratch/llama2-7b-int4" --backend cuda --prefill 0 --decode 4 --depth 2048 --batch 1 --repeat 1 ||
    { echo "ncu may not read this machine's counters, or failed: see profile.err"; return 77; }
}

# kernel_times SKIPPED LAUNCHES COMMAND...: its kernels by name, grid and block, of so many launches behind the skipped ones: "total_us,launches,name,grid,block",
# the longest first. The program is ended behind them.
kernel_times() {
  local skipped=$1 launches=$2
  shift 2
  command -v ncu >/dev/null || { echo "ncu is not installed"; return 77; }
  ncu --clock-control none --graph-profiling node --launch-skip "$skipped" --launch-count "$launches" --kill yes --csv --print-units base \
    --metrics gpu__time_duration.sum "$@" >"$scratch/kernels.csv"
  awk -F '","' 'BEGIN { print "total_us,launches,name,grid,block" }
    $13 == "gpu__time_duration.sum" {
      time = $15; gsub(/[",]/, "", time); key = "\"" $5 "\",\"" $9 "\",\"" $8 "\""; n[key]++; sum[key] += time / 1000; all++
    }
    END { for (key in n) printf "%.1f,%d,%s\n", sum[key], n[key], key | "sort -t, -k1,1nr | head -n 60"; exit !all }' "$scratch/kernels.csv" ||
    { echo "ncu may not read this machine's counters, or failed: see the step's .err"; return 77; }
}
# Of a prompt of 2048 tokens, the loading ahead of it included (pack_kernel).
kernels_prefill() {
  int4_model || return 1
  kernel_times 0 6000 "$bin/bench" speed "$scratch/llama2-7b-int4" --backend cuda --prefill 2048 --decode 0 --batch 1 --repeat 1
}
# Of about one layer's GPTQ of 16 windows of 2048.
kernels_gptq() {
  kernel_times 200 5000 "$bin/bench" quantize llama2-7b --synthetic --backend cuda --method gptq --bits 4 --group-size 128 \
    --samples 16 --seqlen 2048 -o "$scratch/llama2-7b-kernels"
}

export -f build programs gpu_tests sanitize int4_model speed_of speed perplexity quantize op_sweep overlap profile kernel_times kernels_prefill kernels_gptq
export capability work scratch bin top
echo "$device"

run_steps() {
  if { [ -n "$prebuilt" ] && step programs 30 bash -c programs; } || { [ -z "$prebuilt" ] && step build 170 bash -c build; }; then
    wanted tests && step tests 100 bash -c gpu_tests
    wanted memcheck && step memcheck 50 bash -c "sanitize memcheck"
    wanted racecheck && step racecheck 50 bash -c "sanitize racecheck"
    wanted ceilings && step ceilings 30 "$bin/bench" doctor --json
    wanted speed && step speed 120 bash -c speed
    wanted perplexity && step perplexity 60 bash -c perplexity
    wanted gptq && step gptq 150 bash -c quantize
    wanted op_sweep && step op_sweep 45 bash -c op_sweep
    wanted overlap && step overlap 40 bash -c overlap
    wanted profile && step profile 60 bash -c profile
    wanted kernels_prefill && step kernels_prefill 60 bash -c kernels_prefill
    wanted kernels_gptq && step kernels_gptq 60 bash -c kernels_gptq
  fi
  [ -n "$only" ] || complete=true
  write_result
  echo "$result: $([ $failed = 0 ] && echo "all steps ended well" || echo "some steps failed or ran out of time"), $SECONDS s"
  exit $failed
}

# The steps run in a shell of their own, and this one only waits: bash 5.2 that runs a trap while it expands $(...) loses its
# place, goes on behind it, and ends well. A stopped check has not passed; its result holds what the step at hand had written, too.
stop=""
trap 'stop=yes' INT TERM HUP
(run_steps) &
steps_shell=$!
wait "$steps_shell"
code=$?
if [ -n "$stop" ]; then
  trap '' INT TERM HUP
  kill -KILL "$steps_shell"
  wait "$steps_shell"
  mv "$scratch" "$scratch.stopped" # a step that has not begun cannot
  scratch=$scratch.stopped
  work=${logs:-$scratch/logs}
  read -r step <"$scratch/running" && { kill -- "-$step" || kill "$step"; } # timeout's group, or it is not there yet
  steps=$(cat "$scratch/steps") failed=1 code=1
  write_result
fi 2>/dev/null
rm -rf "$scratch"
exit $code
