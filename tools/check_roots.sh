#!/usr/bin/env bash
# Tries ./demo.sh and ./test.sh in fresh Debian systems: each suite is set up by debootstrap in a folder of its own, gets a copy
# of the working tree, and starts without any package of ours. Needs root, debootstrap, git and a Debian mirror; else 77.
#   tools/check_roots.sh [--all] [--keep] [SUITE...]     default: bookworm trixie
# --all runs every check (./test.sh) rather than ./test.sh quick; --keep leaves the folders for a look and takes up those
# that are there. BENCH_ROOTS is where they stand (default: a temporary folder), BENCH_MIRROR the mirror.
set -uo pipefail
cd "$(dirname "$0")/.."
mode=quick keep="" suites=""
for word in "$@"; do
  case $word in
    --all) mode=all ;;
    --keep) keep=1 ;;
    -*) echo "usage: tools/check_roots.sh [--all] [--keep] [SUITE...]" >&2; exit 2 ;;
    *) suites="$suites $word" ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "setting up a system needs root"; exit 77; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed"; exit 77; }
unshare --mount true 2>/dev/null || { echo "this system lets nobody mount (a container?)"; exit 77; }
mirror=${BENCH_MIRROR:-http://deb.debian.org/debian}
roots=${BENCH_ROOTS:-}
[ -n "$roots" ] || { roots=$(mktemp -d); [ -n "$keep" ] || trap 'rm -rf "$roots"' EXIT; }
mkdir -p "$roots"
bad=0

# inside ROOT COMMAND...: in the root with its own /proc and /dev, which vanish with the command.
inside() {
  local root=$1
  shift
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child sh -c 'root=$1; shift
    mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
    exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin '"$(env | grep -iE '^(https?|no)_proxy=' | sed "s/'/'\\\\''/g; s/^[^=]*=/&'/; s/\$/'/" | tr '\n' ' ')"' "$@"' \
    inside "$root" "$@"
}

for suite in ${suites:-bookworm trixie}; do
  root=$roots/$suite start=$SECONDS
  if [ ! -e "$root/etc/debian_version" ]; then
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$roots/$suite.log" 2>&1 || {
      tail -n 5 "$roots/$suite.log"
      grep -qiE "couldn't download|failed getting|unable to" "$roots/$suite.log" && { echo "$suite: no mirror at $mirror"; exit 77; }
      bad=1
      continue
    }
  fi
  cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null
  rm -rf "$root/quantbench"
  git clone -q . "$root/quantbench" && git ls-files -m -o --exclude-standard -z | xargs -0r cp --parents -t "$root/quantbench"
  name="$suite ($(cat "$root/etc/debian_version"))"

  code=0
  inside "$root" sh -c 'cd /quantbench && ./demo.sh' >"$roots/$suite.demo.log" 2>&1 || code=$?
  if [ $code = 0 ] && [ -s "$root/quantbench/demo-results/demo.json" ] && ls "$root"/quantbench/demo-results/plots/*.svg >/dev/null; then
    echo "ok       $name: ./demo.sh ($((SECONDS - start)) s)"
  else
    echo "FAILED   $name: ./demo.sh (exit $code)"
    tail -n 40 "$roots/$suite.demo.log"
    bad=1
  fi
  start=$SECONDS code=0
  inside "$root" sh -c "cd /quantbench && ./test.sh $mode" >"$roots/$suite.test.log" 2>&1 || code=$?
  last=$(tail -n 1 "$roots/$suite.test.log")
  if [ $code = 0 ] && grep -qE '^[1-9][0-9]* passed, 0 failed, [0-9]+ skipped$' <<<"$last"; then
    echo "ok       $name: ./test.sh $mode: $last ($((SECONDS - start)) s)"
  else
    echo "FAILED   $name: ./test.sh $mode (exit $code)"
    grep -A 40 -m 3 FAILED "$roots/$suite.test.log" || tail -n 40 "$roots/$suite.test.log"
    bad=1
  fi
  [ -n "$keep" ] || rm -rf "$root"
done
exit $bad
