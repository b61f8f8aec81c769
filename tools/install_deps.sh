#!/usr/bin/env bash
# Installs what is missing on Debian or Ubuntu, and nothing beyond what the argument needs:
#   run      to build and run the program (default)
#   quick    that, and the release build's tests
#   test     that, and every check of ./test.sh
#   --list   says the packages of the three, a line each, and installs nothing; README.md has the same lines (tools/check_docs.sh)
# Does nothing when everything is there; says the command instead when it may not install.
set -euo pipefail

run="gcc libc6-dev cmake ninja-build pkg-config libopenblas-dev libcjson-dev libarchive-dev libzip-dev libssl-dev libcurl4-openssl-dev ca-certificates libpcre2-dev libsnappy-dev libutf8proc-dev libsqlite3-dev libzstd-dev zlib1g-dev r-mathlib gnuplot-nox fonts-dejavu-core"
quick="g++ libcmocka-dev"
test="git clang clang-format clang-tidy cppcheck libclang-rt-dev python3 python3-jsonschema python3-yaml shellcheck dpkg-dev file gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user"
case ${1:-run} in
  run) packages=$run ;;
  quick) packages="$run $quick" ;;
  test) packages="$run $quick $test" ;;
  --list) printf 'run: %s\nquick: %s\ntest: %s\n' "$run" "$quick" "$test"; exit ;;
  *) echo "usage: tools/install_deps.sh [run|quick|test|--list]" >&2; exit 2 ;;
esac

missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing" >&2
if [ "$(id -u)" = 0 ]; then
  sudo=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  sudo="sudo"
elif [ -t 0 ] && command -v sudo >/dev/null; then
  sudo="sudo"
else
  echo "cannot install as this user; run: sudo apt-get install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends $missing
} >&2
