#!/usr/bin/env bash
# Builds the CUDA preset (program and device tests) without warnings, and fails where ptxas spills registers to memory
# in a kernel not allowed to. Needs nvcc (77 without). An argument gives the architectures, such as "90".
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/cuda/bin"
command -v nvcc >/dev/null || { echo "no CUDA toolkit: nvcc is not installed"; exit 77; }

# Kernels that may spill, as an extended regular expression over their plain names. quantize_columns: blocks of other
# than the usual 65 to 128 columns, a few words each.
may_spill="quantize_columns<(1|2|8|16),"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset cuda -DBENCH_WERROR=ON -DCMAKE_CUDA_FLAGS="-Xptxas -v" ${1:+-DCMAKE_CUDA_ARCHITECTURES="$1"} >/dev/null
ninja -C build-cuda -t clean qb_cuda >/dev/null # ptxas speaks only when it compiles
cmake --build --preset cuda -j "$(nproc)" --target bench gpu_tests >"$log" 2>&1 || { grep -E 'error:|undefined|FAILED|ld returned' "$log" | head -n 30; exit 1; }

# "Function properties for NAME" is followed by "N bytes stack frame, N bytes spill stores, N bytes spill loads".
kernels=$(grep -c 'Function properties for' "$log" || true)
[ "$kernels" -gt 0 ] || { echo "ptxas reported no kernel"; exit 1; }
grep -A 1 'Function properties for' "$log" | c++filt | awk -v allowed="$may_spill" '
  /Function properties for/ { sub(/.*Function properties for /, ""); name = $0 }
  /spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ && (allowed == "" || name !~ allowed) {
    sub(/^.*stack frame, /, ""); print "spills: " name ": " $0; bad = 1
  }
  END { exit bad }'
echo "$kernels kernels compiled, none spills but what may"
