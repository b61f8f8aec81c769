#!/usr/bin/env bash
# The library's products by AMX have activations and codes, or weights and activations, in their places: TDPBSUD of signed
# and unsigned bytes, TDPBF16PS, of tiles 4 and 5 with 6 and 7 into 0 to 3, of bfloat16 in either order. What loads shapes of tiles releases them.
set -euo pipefail
fail() { echo "amx_instructions: $1"; exit 1; }
# check FILE INSTRUCTION OPERANDS LEAST BEGINS
check() {
  local text right all begins ends
  text=$(sed -n "/^$1\\.c/,/^[a-z0-9_]*\\.c\\.o:/p" <<<"$disassembly")
  count() { grep -cE "$1" <<<"$text" || true; }
  all=$(count '\stdp[a-z0-9]+\s') right=$(count "\\s$2\\s+tmm[0-3],($3)\$")
  [ "$right" -ge "$4" ] || fail "$1: $right times $2, expected $4 or more"
  [ "$all" = "$right" ] || fail "$1: $all products of tiles, of which $right are $2 of the right ones"
  begins=$(count '\sldtilecfg\s') ends=$(count '\stilerelease')
  [ "$begins" -ge "$5" ] || fail "$1: $begins times ldtilecfg, expected $5 or more"
  [ "$ends" -ge "$begins" ] || fail "$1: $begins times ldtilecfg, $ends times tilerelease"
  echo "$1: $right $2, $begins ldtilecfg, $ends tilerelease"
}
# GNU's objdump heads a member "NAME:", LLVM's "LIBRARY(NAME):", with a blank behind each comma.
disassembly=$("$1" -d -M intel "$2" 2>/dev/null | sed -E 's/^[^ ]*\(([a-z0-9_]+\.c\.o)\):/\1:/; s/, /,/g')
check integer_amx tdpbsud 'tmm[45],tmm[67]' 16 5
check dense_amx tdpbf16ps 'tmm[45],tmm[67]|tmm[67],tmm[45]' 8 2
