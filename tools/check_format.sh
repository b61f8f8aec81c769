#!/usr/bin/env bash
# Every C, C++ and CUDA file is formatted as .clang-format says. Needs clang-format (the version is named: others format differently).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
major=$(clang-format --version | sed -E 's/.*version ([0-9]+).*/\1/')
[ "$major" = 14 ] || { echo "clang-format 14 is the reference, found $major"; exit 77; }
git ls-files '*.c' '*.h' '*.inc' '*.cu' '*.cuh' '*.cc' | xargs clang-format --dry-run -Werror
