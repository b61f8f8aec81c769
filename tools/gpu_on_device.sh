#!/usr/bin/env bash
# On the GPU machine, as .gpu/on_device.sh of a tree with a bundle (tools/gpu_bundle.sh): unpacks to build-bundle/, finds CUDA's
# libraries, checks that the programs start, and runs tools/gpu_check.sh on them. Needs bash, tar, the driver, and CUDA's
# libraries (cuBLAS, cuSOLVER and what they need); no network, compiler or package.
#   bash .gpu/on_device.sh [--build] [--setup] [--only STEPS] [SECONDS]
#   --build   compiles there against the carried sysroot, for edited sources (needs cmake, ninja, gcc and nvcc)
#   --setup   stops when the programs start
#   --only    these steps of tools/gpu_check.sh, as "tests,speed,gptq"
#   SECONDS   all of it ends within so many (575)
# Results in $OUT (build-bundle/results): gpu_check.json, logs/, setup.log. Exit 77 where there is no GPU or no CUDA libraries.
began=$SECONDS
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.." || exit 1
build=no setup=no only="" seconds=575
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=yes ;;
    --setup) setup=yes ;;
    --only) only=${2-} && shift ;;
    '' | *[!0-9]*) echo "usage: bash .gpu/on_device.sh [--build] [--setup] [--only STEP,...] [SECONDS]" >&2; exit 2 ;;
    *) seconds=$1 ;;
  esac
  shift
done
top=$PWD/build-bundle
mkdir -p "$top"
OUT=${OUT:-$top/results}
mkdir -p "$OUT"
: >"$OUT/setup.log"
say() { echo "[$((SECONDS - began)) s] $*" | tee -a "$OUT/setup.log"; }

{ nvidia-smi -L; nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,ecc.mode.current,mig.mode.current --format=csv,noheader
  uname -a; head -n 2 /etc/os-release; nproc; command -v nvcc gcc cmake ninja ncu compute-sanitizer; } >>"$OUT/setup.log" 2>&1

unpack() { # ARCHIVE FOLDER
  mkdir -p "$2"
  LD_LIBRARY_PATH=$here "$here/xz" -dc "$1" 2>>"$OUT/setup.log" | tar -xf - -C "$2" --no-same-owner 2>>"$OUT/setup.log" ||
    xz -dc "$1" 2>>"$OUT/setup.log" | tar -xf - -C "$2" --no-same-owner 2>>"$OUT/setup.log" ||
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$1" "$2" 2>>"$OUT/setup.log"
}
sum=$(cat "$here"/*.tar.xz | cksum)
if [ "$(cat "$top/unpacked" 2>/dev/null)" != "$sum" ]; then
  rm -rf "$top"/{bin,lib,lib-runtime,share,shared,sysroot,tests,unpacked}
  unpack "$here/bundle.tar.xz" "$top" && { [ ! -e "$here/shared.tar.xz" ] || unpack "$here/shared.tar.xz" "$top/shared"; } ||
    { say "the bundle cannot be unpacked: see $OUT/setup.log"; exit 1; }
  ldconfig -p 2>/dev/null | grep -q 'libstdc++\.so\.6' || cp "$top"/lib-runtime/* "$top/lib/"
  echo "$sum" >"$top/unpacked"
fi
# shellcheck disable=SC1091
. "$top/bundle"
say "unpacked: $revision for compute capability $arch"

# CUDA's libraries: the loader's, else a toolkit's, else those of the Python packages.
folders=""
for name in $cuda_libraries; do
  ldconfig -p 2>/dev/null | grep -q "$name" && continue
  found=$(ls -d /usr/local/cuda*/lib64/"$name" /usr/local/cuda*/targets/*/lib/"$name" /usr/lib/*/"$name" 2>/dev/null | head -n 1)
  [ -n "$found" ] || found=$(find /opt /usr/local /usr/lib "$HOME" -name "$name" -not -path '*/stubs/*' 2>/dev/null | head -n 1)
  [ -n "$found" ] || { say "skipped: no $name on this machine; the programs need CUDA's libraries: $cuda_libraries"; exit 77; }
  case ":$folders:" in *":$(dirname "$found"):"*) ;; *) folders="$folders${folders:+:}$(dirname "$found")" ;; esac
done
# The carried libraries stay out of it: the programs find them by themselves, and this machine's own git and cmake must not.
export LD_LIBRARY_PATH="${folders:+$folders:}/usr/local/nvidia/lib64:/usr/local/nvidia/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PATH="$PATH:/usr/local/cuda/bin"
[ ! -d "$top/shared" ] || export QB_SHARED=$top/shared

# The tests know the paths that they were built under.
if [ ! -e "$source" ]; then
  { mkdir -p "$(dirname "$source")" && ln -s "$PWD" "$source"; } 2>>"$OUT/setup.log" || say "$source cannot be made: tests that read the tree will fail"
fi
[ -e "$source/build-cuda" ] || ln -s "$top" "$source/build-cuda" 2>>"$OUT/setup.log" || say "$source/build-cuda cannot be made: tests that run bench will skip"

if [ $build = yes ] && [ ! -d "$top/sysroot" ]; then
  say "the bundle was made with --no-sysroot: nothing to build with"
  exit 1
fi
if [ $build = yes ]; then
  # shellcheck disable=SC2016
  { PKG_CONFIG_LIBDIR=$top/sysroot/lib/pkgconfig cmake --preset cuda -B "$top/build" -DCMAKE_CUDA_ARCHITECTURES="$arch" \
      -DPKG_CONFIG_EXECUTABLE="$top/sysroot/bin/pkg-config" -DRMATH_INCLUDE_DIR="$top/sysroot/include" -DRMATH_LIBRARY="$top/sysroot/lib/libRmath.so" \
      -DCMAKE_BUILD_RPATH='$ORIGIN/../../lib' -DCMAKE_EXE_LINKER_FLAGS="-Wl,-rpath-link,$top/lib${folders:+:$folders}" &&
      cmake --build "$top/build" -j "$(nproc)" --target bench bench_cuda gpu_tests; } >>"$OUT/setup.log" 2>&1 ||
    { tail -n 25 "$OUT/setup.log"; say "the build failed: see $OUT/setup.log"; exit 1; }
  say "built there"
  programs=$top/build
else
  programs=$top
fi

started=0
for program in "$programs"/bin/bench "$programs"/bin/bench_cuda "$programs"/bin/test_cuda_*; do
  case $program in *_shim) continue ;; esac
  missing=$(ldd "$program" 2>&1 | grep -E 'not found|no version information')
  [ -z "$missing" ] || { say "$(basename "$program") does not start: $missing"; exit 1; }
  started=$((started + 1))
done
"$programs/bin/bench" list backends >"$OUT/backends.txt" 2>&1 || { cat "$OUT/backends.txt"; say "bench does not start"; exit 1; }
say "$started programs start"
"$programs/bin/bench" doctor >"$OUT/doctor.txt" 2>&1
grep '^CUDA' "$OUT/doctor.txt" | tee -a "$OUT/setup.log"
[ $setup = no ] || exit 0

code=0
bash tools/gpu_check.sh --prebuilt "$programs" --seconds $((seconds - SECONDS + began)) --logs "$OUT/logs" ${only:+--only "$only"} "$OUT/gpu_check.json" || code=$?
[ $code = 77 ] || say "gpu_check ended with $code: $OUT/gpu_check.json, logs in $OUT/logs"
exit $code
