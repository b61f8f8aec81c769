#!/usr/bin/env bash
# Static analysis with cppcheck. Needs cppcheck and a configured build/ (compile_commands.json).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cppcheck >/dev/null || { echo "cppcheck is not installed"; exit 77; }
git ls-files 'base/*.c' 'hub/*.c' 'kernels/*.c' 'checkpoint/*.c' 'tokenizer/*.c' 'datasets/*.c' 'model/*.c' 'quant/*.c' 'adapter/*.c' 'eval/*.c' \
  'results/*.c' 'plots/*.c' 'bench/*.c' |
  cppcheck --file-list=- --std=c11 --language=c -I . --enable=warning,portability,performance --inline-suppr --quiet \
    --suppress=missingIncludeSystem --suppress=unknownMacro --error-exitcode=1 -j "$(nproc)" -D__x86_64__ -DQB_VERSION='"0"'
