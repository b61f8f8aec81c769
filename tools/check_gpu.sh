#!/usr/bin/env bash
# Runs the tests labelled gpu of build-cuda/ (tools/check_ptxas.sh builds it). 77 where there is no CUDA toolkit or no
# device.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f build-cuda/CTestTestfile.cmake ] || { echo "no CUDA build"; exit 77; }
out=$(cd build-cuda && ctest -L gpu --output-on-failure) || { echo "$out"; exit 1; }
echo "$out"
if grep -q 'test_cuda_device .*Skipped' <<<"$out"; then
  build-cuda/bin/bench doctor 2>/dev/null | sed -n 's/^CUDA */no CUDA device: /p'
  exit 77
fi
