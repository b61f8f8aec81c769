#!/usr/bin/env bash
# The bundle for GPU machines (tools/gpu_bundle.sh), made of build-cuda/ as it is, starts in a bare Debian without GPU, network
# or package of ours: set up by debootstrap, given a copy of the tree and CUDA's libraries. There its programs start and the whole
# ends as a skip, in words. Needs nvcc's build in build-cuda/ (tools/check_ptxas.sh), root, debootstrap and a mirror; else 77.
#   tools/check_bundle.sh [ROOT]     ROOT: a folder for the bare system, kept and taken up when it is there
set -uo pipefail
cd "$(dirname "$0")/.."
[ -x build-cuda/bin/bench_cuda ] || { echo "no CUDA build in build-cuda/"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "setting up a system needs root"; exit 77; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed"; exit 77; }
unshare --mount true 2>/dev/null || { echo "this system lets nobody mount (a container?)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=${1:-$work/root}
log=$work/log
mirror=${BENCH_MIRROR:-$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\(http[^ ]*debian\/\?\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)}
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")

# The mirror answers while the bundle is packed.
if [ ! -e "$root/etc/debian_version" ]; then
  timeout 240 debootstrap --variant=minbase "$suite" "$root" "${mirror:-http://deb.debian.org/debian}" >"$work/root.log" 2>&1 &
  setting_up=$!
fi
# A larger limit than what travels: build-cuda/ may hold many architectures here.
tools/gpu_bundle.sh --no-build --level 0 --limit 512 >"$log" 2>&1 || { code=$?; cat "$log"; exit $code; }
tail -n 1 "$log"
if [ -n "${setting_up:-}" ] && ! wait "$setting_up"; then
  tail -n 3 "$work/root.log"
  echo "no bare system: debootstrap failed with $suite from ${mirror:-deb.debian.org}"
  exit 77
fi

# What a GPU machine has of its own: CUDA's libraries. What it gets: the tree and .gpu.
rm -rf "$root/quantbench" "$root/usr/local/cuda"
mkdir -p "$root/usr/local/cuda/lib64" "$root/quantbench"
ldd build-cuda/bin/bench | awk '$1 ~ /^lib(cu[a-zA-Z]*|nvJitLink)\.so/ && $3 ~ /^\// { print $1, $3 }' | while read -r name path; do
  cp -lL "$path" "$root/usr/local/cuda/lib64/$name" 2>/dev/null || cp -L "$path" "$root/usr/local/cuda/lib64/$name"
done
{ git ls-files -z; git ls-files -zo --exclude-standard; } | xargs -0 cp --parents -t "$root/quantbench"
cp -r .gpu "$root/quantbench/"

# inside COMMAND...: in the bare system with a /proc, by which programs find what lies beside them; it vanishes with the command.
inside() {
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child sh -c 'root=$1; shift
    mount -t proc proc "$root/proc" && exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' inside "$root" "$@"
}
bad=0
expect() { # CODE WORDS... : of .gpu/on_device.sh in the bare system
  local want=$1 code=0 word
  shift
  inside bash /quantbench/.gpu/on_device.sh >"$log" 2>&1 || code=$?
  [ "$code" = "$want" ] || { echo "on_device.sh ended with $code, not $want"; bad=1; }
  for word in "$@"; do grep -qF -e "$word" "$log" || { echo "it did not say \"$word\""; bad=1; }; done
  [ $bad = 0 ] || { cat "$log"; tail -n 20 "$root/quantbench/build-bundle/results/setup.log"; exit 1; }
}
expect 77 "unpacked: " " programs start" "no NVIDIA driver" "skipped: no NVIDIA GPU"
[ -s "$root/quantbench/build-bundle/results/doctor.txt" ] || { echo "no doctor.txt is kept"; bad=1; }
sed 's/^/  /' "$log"
# The tests' own programs run, and skip in words.
code=0
inside LD_LIBRARY_PATH=/usr/local/cuda/lib64 bash -c 'cd /quantbench && tools/run_gpu_tests.sh build-bundle/bin /tmp/logs' >"$log" 2>&1 || code=$?
[ $code = 77 ] && grep -qE '^[1-9][0-9]* passed, 0 failed, [0-9]{2,} skipped$' "$log" || { echo "run_gpu_tests.sh ended with $code"; cat "$log"; bad=1; }
# A program that misses a library is named, whatever else there is; so is a machine without CUDA's libraries.
mv "$root/quantbench/build-bundle/lib/libcjson.so.1" "$root/"
expect 1 "bench does not start" "libcjson.so.1"
mv "$root/libcjson.so.1" "$root/quantbench/build-bundle/lib/"
rm -rf "$root/usr/local/cuda"
expect 77 "skipped: no libcu" "the programs need CUDA's libraries"
[ $bad = 0 ] && echo "the bundle starts in a bare $suite"
exit $bad
