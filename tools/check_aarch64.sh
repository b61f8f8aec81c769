#!/usr/bin/env bash
# The program for aarch64: built by a cross compiler with every warning an error, the tests of its kernels and layouts run under qemu (those of the
# instruction sets try each that the processor has), and the perplexity of the demo model the same as here with each set of a processor
# that has all, and with one that has NEON alone. Speeds under an emulator mean nothing and are not looked at.
# Needs a Debian or Ubuntu system with gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu and qemu-user (tools/install_deps.sh test), and its
# mirror, which the libraries come from (45 MB; nothing is installed, no architecture is added); else 77. BENCH_PROGRAM is the bench of
# this machine (build/bin/bench), FOLDER keeps the libraries and the build (build-aarch64).
#   tools/check_aarch64.sh [FOLDER]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
native=$(realpath "${BENCH_PROGRAM:-build/bin/bench}")
folder=$(realpath -m "${1:-build-aarch64}")
tests="test_dtype test_gguf test_layout test_layout_readers test_kernels_algebra test_kernels_attention test_kernels_elements
  test_kernels_integer test_kernels_matmul test_kernels_ops test_kernels_recurrent test_kernels_route test_threads"
for program in aarch64-linux-gnu-gcc aarch64-linux-gnu-g++ qemu-aarch64 apt-get dpkg-deb; do
  command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done
[ -x "$native" ] || { echo "$native is not built"; exit 77; }

# ---- libraries of aarch64, from the system's own mirrors, in a folder
packages=$(tools/install_deps.sh --list | sed -n 's/^run: //p' | tr ' ' '\n' | grep -E '^(lib.*-dev|zlib1g-dev|r-mathlib)$')
if [ ! -e "$folder/sysroot/complete" ]; then
  apt=$folder/apt
  rm -rf "$apt" "$folder/sysroot"
  mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$folder/sysroot"
  : >"$apt/status"
  options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o "Dir::State=$apt/state" -o "Dir::Cache=$apt/cache"
    -o "Dir::State::status=$apt/status" -o Debug::NoLocking=1 -o APT::Install-Recommends=0 -o APT::Sandbox::User=root)
  # shellcheck disable=SC2086
  { timeout 300 apt-get "${options[@]}" update && timeout 600 apt-get "${options[@]}" -y --download-only install libcmocka-dev $packages; } \
    >"$folder/apt.log" 2>&1 || { echo "the mirrors of this system gave no arm64 packages: $(tail -n 1 "$folder/apt.log")"; exit 77; }
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/sysroot" || exit 1; done
  rm -r "$apt"
  : >"$folder/sysroot/complete"
fi

# ---- the build
export SYSROOT=$folder/sysroot PKG_CONFIG_SYSROOT_DIR=$folder/sysroot
libraries=$SYSROOT/usr/lib/aarch64-linux-gnu
export PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$libraries/openblas-pthread/pkgconfig:$SYSROOT/usr/share/pkgconfig
# shellcheck disable=SC2086
{ cmake -S . -B "$folder/build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/tools/aarch64.cmake" -DCMAKE_BUILD_TYPE=Release -DBENCH_CUDA=OFF -DBENCH_WERROR=ON &&
  cmake --build "$folder/build" --target bench $tests; } >"$folder/build.log" 2>&1 ||
  { grep -E 'error|undefined|CMake Error' -A 3 "$folder/build.log" | head -n 40; echo "the program does not build for aarch64 ($folder/build.log)"; exit 1; }

# ---- what it does
bad=0
emulated() { timeout 600 qemu-aarch64 -cpu "${CPU:-max}" -L "$SYSROOT" "$@"; }
unset OPENBLAS_CORETYPE BENCH_SIMD
for test in $tests; do
  { emulated "$folder/build/bin/$test" >"$folder/$test.log" 2>&1; echo $? >"$folder/$test.code"; } &
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
done
wait
for test in $tests; do
  [ "$(cat "$folder/$test.code")" = 0 ] || { grep -E 'ERROR|FAILED' "$folder/$test.log" | head -n 10; echo "$test failed"; bad=1; }
done
export BENCH_CACHE=$folder/cache
perplexity() { "$@" eval bench/demo --dataset demo --max-windows 1 --quiet --activations "$activations" | sed -n 's/^perplexity \([0-9.]* ± [0-9.]*\) .*/\1/p'; }
# A processor, what its sets have to be, and the activations that show the last of them at work.
while read -r CPU sets activations; do
  found=$(BENCH_SIMD=none emulated "$folder/build/bin/bench" doctor 2>&1 | sed -n 's/.*BENCH_SIMD=.*(\(.*\))$/\1/p')
  [ "$found" = "${sets//,/, }" ] || { echo "$CPU has \"$found\", not \"${sets//,/, }\""; bad=1; }
  here=$(perplexity "$native")
  there=$(BENCH_SIMD=${sets##*,} perplexity emulated "$folder/build/bin/bench")
  if [ -z "$here" ] || [ "$here" != "$there" ]; then
    echo "perplexity of the demo, ${sets##*,}, $activations: \"$here\" here, \"$there\" on aarch64"
    bad=1
  fi
done <<'END'
cortex-a72 generic,neon f32
cortex-a76 generic,neon,neon-dotprod i16
max generic,neon,neon-dotprod,neon-i8mm i16
END
[ $bad = 0 ] && echo "$(wc -w <<<"$tests") test programs pass under qemu, perplexity $there as here"
exit $bad
