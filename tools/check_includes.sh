#!/usr/bin/env bash
# Checks every #include "room/..." against the arrows of docs/ARCHITECTURE.md: a room includes only the rooms listed behind it.
# Needs: bash, grep. Prints each arrow that points the wrong way and exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A may=(
  [base]=""
  [hub]="base"
  [kernels]="base"
  [checkpoint]="base kernels"
  [tokenizer]="base"
  [datasets]="base hub tokenizer"
  [model]="base hub kernels checkpoint"
  [quant]="base kernels checkpoint model"
  [adapter]="base kernels checkpoint model quant"
  [eval]="base kernels model"
  [results]="base"
  [plots]="base results"
  [history]="base results plots"
  [bench]="base hub kernels checkpoint tokenizer datasets model quant adapter eval results plots history"
  [tools]="base"
  [tests]="bench tools base hub kernels checkpoint tokenizer datasets model quant adapter eval results plots history"
)
rooms="${!may[*]}"
bad=0
while IFS=: read -r file line text; do
  from=${file%%/*}
  to=$(sed -E 's/.*#include "([^"]+)".*/\1/' <<<"$text")
  to_room=${to%%/*}
  if [[ "$to" != */* ]]; then
    echo "$file:$line: include from the root, as in #include \"room/file.h\": found \"$to\""
    bad=1
  elif [[ " $rooms " == *" $to_room "* && "$from" != "$to_room" && " ${may[$from]} " != *" $to_room "* ]]; then
    echo "$file:$line: $from/ must not include $to_room/ (it may include: ${may[$from]:-nothing})"
    bad=1
  fi
done < <(for room in $rooms; do [ -d "$room" ] && grep -rnE '^#include "' "$room" --include='*.c' --include='*.h' --include='*.cu' --include='*.inc' || true; done)
exit $bad
