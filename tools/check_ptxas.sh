#!/usr/bin/env bash
# Builds the CUDA preset (program and device tests) without warnings, and fails where ptxas spills registers to memory
# in a kernel that may not. Needs nvcc (77 without).
#   tools/check_ptxas.sh ["75-real;90"]     default: the preset's architectures, some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/cuda/bin"
command -v nvcc >/dev/null || { echo "no CUDA toolkit: nvcc is not installed"; exit 77; }

# Bytes of spill stores that a kernel may have, by an extended regular expression over its plain name. All are known and
# small; what they cost is to be measured on a device. Prompts' attention with two bands of rows a warp has all 255 registers and
# more: on an H200 a prompt of 2048 tokens gains 9 to 12 % with its 112 bytes.
allowed='quantize_columns<(1|2|4|8|16),=400
mlp_kernel<=168
project_kernel<=20
residual_kernel<=48
decode_kernel<=32
matmul_kernel<0, true, false, (1, 1|4, 2)>=24
prefill_kernel<=40
prefill_kernel<__half, (96|128), 64, 2=168'

# Reads what ptxas said: "Function properties for NAME", then "N bytes stack frame, N bytes spill stores, ...".
judge() {
  c++filt | awk -v allowed="$allowed" '
    BEGIN { n = split(allowed, rows, "\n"); for (i = 1; i <= n; i++) { at = match(rows[i], /=[0-9]+$/)
              pattern[i] = substr(rows[i], 1, at - 1); most[i] = substr(rows[i], at + 1) + 0 } }
    /Function properties for/ { sub(/.*Function properties for /, ""); name = $0; kernels++ }
    /bytes spill stores/ { spilled = $0; sub(/^.*stack frame, /, "", spilled); bytes = spilled + 0; limit = 0
      for (i = 1; i <= n; i++) if (name ~ pattern[i]) limit = most[i]
      if (bytes > limit) { print "spills: " name ": " spilled; bad = 1 } }
    END { if (!kernels) { print "ptxas reported no kernel"; exit 1 }
          if (bad) exit 1
          print kernels " kernels compiled; none spills but what may" }'
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset cuda -DBENCH_WERROR=ON -DCMAKE_CUDA_FLAGS="-Xptxas -v" -DCMAKE_CUDA_ARCHITECTURES="${1:-75-real;80-real;86-real;90}" >/dev/null
ninja -C build-cuda -t clean qb_cuda >/dev/null # ptxas speaks only when it compiles
cmake --build --preset cuda -j "$(nproc)" --target bench bench_cuda gpu_tests >"$log" 2>&1 ||
  { grep -E 'error:|undefined|FAILED|ld returned' "$log" | head -n 30; exit 1; }
judge <"$log"
