#!/usr/bin/env bash
# The library's products by AMX are TDPBSUD of signed activations (tiles 4, 5) and unsigned codes (6, 7) into sums (0 to 3); every
# function that loads shapes of tiles releases them.
set -euo pipefail
text=$("$1" -d -M intel "$2" 2>/dev/null | sed -n '/^integer_amx\.c/,/^[a-z0-9_]*\.c\.o:/p')
count() { grep -cE "$1" <<<"$text" || true; }
fail() { echo "amx_instructions: $1"; exit 1; }
all=$(count '\stdp[a-z0-9]+\s') right=$(count '\stdpbsud\s+tmm[0-3],tmm[45],tmm[67]$')
[ "$right" -ge 16 ] || fail "$right products of activations and codes, expected 16 or more"
[ "$all" = "$right" ] || fail "$all products of tiles, of which $right have activations first and codes second"
begins=$(count '\sldtilecfg\s') ends=$(count '\stilerelease')
[ "$begins" -ge 5 ] || fail "$begins times ldtilecfg, expected four panels' and the ceiling's"
[ "$ends" -ge "$begins" ] || fail "$begins times ldtilecfg, $ends times tilerelease"
echo "$right tdpbsud, $begins ldtilecfg, $ends tilerelease"
