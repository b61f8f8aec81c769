#!/usr/bin/env bash
# full_disk.sh BENCH: commands on a disk of each of several sizes too small, up to one that is large enough. After each: exit code 0 or 1,
# with 1 one line that says so, nothing half there, and the same command works once there is room. Exit code 77 where a small disk
# cannot be mounted.
set -uo pipefail
bench=$(readlink -f "$1")
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
top=$(mktemp -d)
disk=$top/disk
mkdir "$disk"
cleanup() { mountpoint -q "$disk" && umount "$disk"; rm -rf "$top"; }
trap cleanup EXIT

# In a namespace of its own where this user may have one; else as root; else not at all.
if [ "${FULL_DISK_INSIDE:-}" = "" ] && [ "$(id -u)" != 0 ]; then
  if unshare -rm true 2>/dev/null; then
    FULL_DISK_INSIDE=1 exec unshare -rm "$0" "$@"
  fi
fi
if ! mount -t tmpfs -o size=64k none "$disk" 2>/dev/null; then
  echo "no file system may be mounted here"
  exit 77
fi
umount "$disk"

failures=0 trials=0 worked=0 refused=0
fail() { echo "$1 on $2 KB: $3"; sed 's/^/    | /' "$top/err" | tail -5; failures=$((failures + 1)); }

cat >"$top/suite.json" <<'JSON'
{"name": "full", "summary": "s", "models": ["demo"], "datasets": ["demo"], "protocols": ["gptq-64"], "metrics": ["perplexity", "memory"],
 "max_windows": 2, "methods": [{"method": "none"}, {"method": "rtn", "bits": [8, 4, 2], "group_size": 64}]}
JSON

whole_checkpoint() { [ ! -e "$1" ] || "$bench" inspect "$1" >/dev/null 2>&1; }
whole_document() { [ ! -e "$1" ] || "$bench" table "$1" >/dev/null 2>&1; }
whole_plots() {
  local f
  for f in "$1"/*.svg; do [ ! -e "$f" ] || tail -c 10 "$f" | grep -q '</svg>' || return 1; done
  for f in "$1"/*.png; do [ ! -e "$f" ] || tail -c 12 "$f" | grep -aq IEND || return 1; done
  for f in "$1"/*.pdf; do [ ! -e "$f" ] || tail -c 10 "$f" | grep -aq '%%EOF' || return 1; done
}

# trial NAME KB CHECK WORDS...: the command with $disk as its folder, cache and place of temporary files.
trial() {
  local name=$1 size=$2 check=$3 code=0 lines kept told
  shift 3
  trials=$((trials + 1))
  mount -t tmpfs -o size="${size}k" none "$disk" || exit 1
  (cd "$disk" && BENCH_CACHE=$disk/cache TMPDIR=$disk timeout -s KILL 60 "$bench" "$@") >"$top/out" 2>"$top/err" || code=$?
  lines=$(grep -c '^bench: ' "$top/err")
  case $code in
    0) worked=$((worked + 1)); [ "$lines" = 0 ] || fail "$name" "$size" "an error line with exit code 0" ;;
    1) refused=$((refused + 1))
      [ "$lines" = 1 ] || grep -qE '[0-9]+ of [0-9]+ cases failed' "$top/err" || fail "$name" "$size" "$lines error lines" ;;
    *) fail "$name" "$size" "exit code $code" ;;
  esac
  $check || fail "$name" "$size" "something half there"
  if [ "$name" = run ]; then # what was told as finished is in the document, or printed
    told=$(grep -cE '^\[ *[0-9]+/[0-9]+\] .* ok ' "$top/err")
    kept=$(cat "$disk/r.json" "$top/out" "$top/err" 2>/dev/null | grep -c '"status":.*"ok"')
    [ -e "$disk/r.json" ] && [ "$code" = 0 ] && [ "$told" != 4 ] && fail "$name" "$size" "exit code 0 with $told cases"
    # Every metric row has a status too: at least one a finished case.
    [ "$kept" -ge "$told" ] || fail "$name" "$size" "$told cases finished, $kept kept"
  fi
  mount -o remount,size=64m "$disk"
  local more=""
  [ "$name" = run ] && [ -e "$disk/r.json" ] && more=--resume
  [ "$name" = quantize ] && [ -e "$disk/w4" ] && more=--force
  code=0
  # shellcheck disable=SC2086
  (cd "$disk" && BENCH_CACHE=$disk/cache TMPDIR=$disk timeout -s KILL 60 "$bench" "$@" $more) >"$top/out" 2>"$top/err" || code=$?
  [ "$code" = 0 ] || fail "$name" "$size" "exit code $code when there was room again"
  $check || fail "$name" "$size" "not whole when there was room again"
  find "$disk" -name '*.tmp.*' -o -name '*.partial' -o -name '*.lock' | grep -q . && fail "$name" "$size" "left behind: $(find "$disk" -name '*.tmp.*' -o -name '*.partial' | tr '\n' ' ')"
  umount "$disk"
}

check_w4() { whole_checkpoint "$disk/w4"; }
check_run() { whole_document "$disk/r.json"; }
check_plots() { whole_plots "$disk/plots"; }
for size in 4 16 64 256 900 960 1000 1100 1400 2000; do
  trial quantize "$size" check_w4 quantize demo -m rtn --bits 4 -o w4 -t 1
done
for size in 8 32 256 900 1400 2000 2600 3200 6000; do
  trial run "$size" check_run run --suite "$top/suite.json" -o r.json -t 1
done
for size in 8 24 40 64 100 160 1000 2000; do
  trial plot "$size" check_plots plot "$source_dir/results/baselines/demo.json" --out plots --only pareto
done
echo "$trials trials on full disks: $worked worked, $refused were refused, $failures faults"
[ "$failures" = 0 ] && [ "$worked" -gt 0 ] && [ "$refused" -gt 0 ]
