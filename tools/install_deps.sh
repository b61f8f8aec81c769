#!/usr/bin/env bash
# Installs what is missing to build and run (argument "run") or also to test ("test") on Debian or Ubuntu.
# Does nothing when everything is there; says the command instead when it may not install.
set -euo pipefail

packages="gcc g++ make cmake ninja-build pkg-config git libopenblas-dev liblapacke-dev libcjson-dev libarchive-dev libzip-dev libssl-dev r-mathlib gnuplot-nox fonts-dejavu-core"
if [ "${1:-run}" = test ]; then
  packages="$packages libcmocka-dev clang clang-format clang-tidy cppcheck libclang-rt-dev python3 python3-jsonschema"
fi

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
