#!/usr/bin/env bash
# Compiles kernels/cuda/ with clang, host side and device side without code generation, against the headers of another CUDA
# toolkit than the one that is installed: 11.8 is the oldest that is promised. Needs clang; by hand, because the headers are
# a download of 500 MB:
#   pip download --no-deps nvidia-cuda-runtime-cu11==11.8.89 nvidia-cublas-cu11==11.11.3.6 nvidia-cusolver-cu11 \
#     nvidia-curand-cu11 nvidia-cuda-nvcc-cu11==11.8.89, and unpack the include/ and nvvm/ of each into one folder
#   tools/check_cuda_api.sh FOLDER [ARCHITECTURE]
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: tools/check_cuda_api.sh FOLDER [ARCHITECTURE]" >&2; exit 2; }
command -v clang++ >/dev/null || { echo "clang is not installed"; exit 77; }
toolkit=$1 architecture=${2:-sm_75} bad=0 n=0
[ -f "$toolkit/include/cuda_runtime_api.h" ] || { echo "$toolkit/include holds no cuda_runtime_api.h"; exit 1; }
version=$(sed -n 's/^#define CUDART_VERSION *//p' "$toolkit/include/cuda_runtime_api.h")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$toolkit/bin" "$toolkit/lib64" # clang looks for them
for file in kernels/cuda/*.cu; do
  for side in --cuda-host-only --cuda-device-only; do
    # -isystem: before a toolkit whose headers lie in /usr/local/include.
    clang++ -x cuda --cuda-path="$toolkit" --cuda-gpu-arch="$architecture" "$side" -isystem "$toolkit/include" -I. \
      -std=c++17 -fsyntax-only -Wno-unknown-cuda-version "$file" >"$work/log" 2>&1 ||
      { echo "$file $side"; grep -A 3 error: "$work/log" | head -n 12; bad=1; }
  done
  n=$((n + 1))
done
echo "CUDA $((version / 1000)).$((version % 1000 / 10)): $n files"
exit $bad
