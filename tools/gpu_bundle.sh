#!/usr/bin/env bash
# For GPU machines without network, packages or compiler: makes .gpu/, which travels with the working tree, so that there
#   bash .gpu/on_device.sh
# unpacks, checks that all programs start, and runs tools/gpu_check.sh without building. Run on a Debian or Ubuntu that can build
# (tools/install_deps.sh and the CUDA toolkit; no GPU). In .gpu (ignored by git):
#   bundle.tar.xz  the CUDA preset's bench, bench_cuda and gpu tests, stripped; share/; the shared libraries they need, but glibc's
#                  and CUDA's; a sysroot of headers, .pc files and link names to build again with (on_device.sh --build)
#   shared.tar.xz  of the shared test material what the tests of whole models read, as far as the limit allows
#   on_device.sh   tools/gpu_on_device.sh
#   xz             and its library, for machines that have none
#   tools/gpu_bundle.sh [--arch "90-real"] [--no-build] [--shared FOLDER] [--limit MIB] [--level N] [--no-sysroot]
#   --arch      the compute capabilities to build for (default: 90-real; every one more is some MiB)
#   --no-build  packs build-cuda/ as it is
#   --shared    the test material (default: $QB_SHARED, else ../shared; without it those tests skip there, counted and said)
#   --limit     what .gpu and the tree may have together (64 MiB); models that do not fit are left out, and it is said
#   --level     xz's, 0 (fast) to 9 (2)
#   --no-sysroot  leaves out what --build needs there
# Exit 77 without nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/cuda/bin"
usage() { echo "usage: tools/gpu_bundle.sh [--arch LIST] [--no-build] [--shared FOLDER] [--limit MIB] [--level N] [--no-sysroot]" >&2; exit 2; }
arch=90-real build=yes sysroot=yes shared=${QB_SHARED:-../shared} limit=64 level=2
while [ $# -gt 0 ]; do
  case $1 in
    --no-build) build=no; shift; continue ;;
    --no-sysroot) sysroot=no; shift; continue ;;
    --arch | --shared | --limit | --level) [ $# -ge 2 ] || usage ;;
    *) usage ;;
  esac
  case $1 in --arch) arch=$2 ;; --shared) shared=$2 ;; --limit) limit=$2 ;; --level) level=$2 ;; esac
  shift 2
done
command -v nvcc >/dev/null || { echo "no CUDA toolkit: nvcc is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/bin" "$tree/lib" "$tree/lib-runtime" "$tree/tests"

if [ $build = yes ]; then
  cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES="$arch" >/dev/null
  cmake --build --preset cuda -j "$(nproc)" --target bench bench_cuda gpu_tests >"$work/log" 2>&1 || { grep -E 'error|FAILED' "$work/log" | head -n 20; exit 1; }
fi
arch=$(sed -n 's/^CMAKE_CUDA_ARCHITECTURES:[A-Z]*=//p' build-cuda/CMakeCache.txt)

# Programs. They look for libraries in ../lib (CMakeLists.txt), also for those that libraries need.
for program in build-cuda/bin/bench build-cuda/bin/bench_cuda build-cuda/bin/test_cuda_*; do
  case $program in *_shim) ;; *) cp "$program" "$tree/bin/" ;; esac
done
strip --strip-unneeded "$tree"/bin/*
# shellcheck disable=SC2016
grep -q 'RPATH.*$ORIGIN/\.\./lib' <<<"$(objdump -p "$tree/bin/bench")" || { echo "build-cuda/ is from before programs could be moved: build it again"; exit 1; }
cp -r build-cuda/share "$tree/share"
cp build-cuda/tests/libfake-nvml.so "$tree/tests/"

# Libraries: all that the loader finds, but glibc, CUDA and the driver, which are the other machine's own. Those that the program loads
# when it needs them (base/library.h) stay behind: nothing is fetched and nothing compressed is read there.
glibc='^(libc|libm|libdl|librt|libpthread|ld-linux[^ ]*|libresolv|libutil)\.so'
cuda='^lib(cu[a-zA-Z]*|nvJitLink|nvrtc[a-zA-Z-]*)\.so'
ldd "$tree"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u >"$work/all"
grep -vE "$glibc|$cuda" "$work/all" >"$work/libraries"
grep -E "$cuda" "$work/all" | cut -d' ' -f1 | grep -v '^libcuda\.so' >"$work/cuda"
while read -r name path; do
  case $name in libstdc++.so.* | libgcc_s.so.*) cp -L "$path" "$tree/lib-runtime/$name" ;; *) cp -L "$path" "$tree/lib/$name" ;; esac
done <"$work/libraries"
strip --strip-unneeded "$tree"/lib/*.so*

# The sysroot: the headers that this build read, beyond those of the compiler and glibc; .pc files and link names.
sys=$tree/sysroot
mkdir -p "$sys/include" "$sys/lib/pkgconfig" "$sys/bin"
dpkg -L libc6-dev linux-libc-dev 2>/dev/null | sort >"$work/system"
ninja -C build-cuda -t deps | sed -n 's|^ *\(/usr/include/.*\)|\1|p' | grep -v '^/usr/include/c++/\|/c++/' | sort -u | comm -23 - "$work/system" >"$work/headers"
while read -r header; do
  below=$(sed -E 's|^/usr/include/||; s|^[a-z0-9_]+-linux-gnu/||; s|^openblas-[a-z0-9]+/||' <<<"$header")
  mkdir -p "$sys/include/$(dirname "$below")" && cp -L "$header" "$sys/include/$below"
done <"$work/headers"
link() { # NAME: the carried library as lib NAME.so
  local found
  found=$(cd "$tree/lib" && ls "lib$1".so* 2>/dev/null | head -n 1)
  [ -n "$found" ] || { echo "no lib$1 among the libraries"; exit 1; }
  ln -sf "../../lib/$found" "$sys/lib/lib$1.so"
}
for package in $(sed -n '/^pkg_check_modules(DEPS/,/)/p' CMakeLists.txt | tr -s ' \n' '\n' | grep -E '^[a-z]' | grep -vx pkg_check_modules'.*' | tr -d ')') cmocka; do
  names=$(pkg-config --libs-only-l "$package" | tr ' ' '\n' | sed -n 's/^-l//p')
  libs=""
  for name in $names; do link "$name"; libs="$libs -l$name"; done
  # shellcheck disable=SC2016
  printf 'prefix=${pcfiledir}/../..\nName: %s\nDescription: carried\nVersion: %s\nLibs: -L${prefix}/lib%s\nCflags: -I${prefix}/include\n' \
    "$package" "$(pkg-config --modversion "$package")" "$libs" >"$sys/lib/pkgconfig/$package.pc"
done
link Rmath
cp -L "$(command -v pkgconf || command -v pkg-config)" "$sys/bin/pkgconf"
ldd "$sys/bin/pkgconf" | awk '/libpkgconf/ { print $3 }' | while read -r library; do cp -L "$library" "$tree/lib/"; done
# shellcheck disable=SC2016
printf '#!/bin/sh\nhere=$(dirname "$0")\nLD_LIBRARY_PATH="$here/../../lib" exec "$here/pkgconf" "$@"\n' >"$sys/bin/pkg-config"
chmod +x "$sys/bin/pkg-config"

[ $sysroot = yes ] || rm -rf "$sys"

{
  printf 'source=%s\narch="%s"\nrevision=%s\n' "$PWD" "$arch" "$(git describe --always --dirty --abbrev=12)"
  printf 'cuda_libraries="%s"\n' "$(tr '\n' ' ' <"$work/cuda" | sed 's/ $//')"
} >"$tree/bundle"

rm -rf .gpu
mkdir .gpu
cp tools/gpu_on_device.sh .gpu/on_device.sh
cp -L "$(command -v xz)" .gpu/xz
ldd .gpu/xz | awk '/liblzma/ { print $1, $3 }' | while read -r name path; do cp -L "$path" ".gpu/$name"; done
pack() { # FOLDER NAME LEVEL FILTER...
  local folder=$1 name=$2 lzma=--lzma2=preset="$3",dict=128MiB
  shift 3
  tar -C "$folder" --sort=name --mtime=@0 --owner=0 --group=0 -cf - . | xz --threads=1 "$@" "$lzma" --stdout >".gpu/$name.tar.xz"
}
filter=""
case $(uname -m) in x86_64) filter=--x86 ;; aarch64) filter=--arm64 ;; esac
pack "$tree" bundle "$level" ${filter:+"$filter"}
tree_bytes=$({ git ls-files -z; git ls-files -zo --exclude-standard; } | xargs -0 du -cb 2>/dev/null | awk '$2 == "total" { n += $1 } END { print n + 0 }')
room() { echo $(((limit << 20) - tree_bytes - $(du -sb .gpu | cut -f1))); }

# What the tests of whole models read: perplexity against golden figures first.
carried=""
if [ -e "$shared/data/wikitext2/wiki.test.raw" ]; then
  mkdir -p "$work/shared"/data/{wikitext2,ptb,c4} "$work/shared/golden" "$work/shared/models" "$work/shared/tokenizers/llama2"
  cp -L "$shared/data/wikitext2/wiki.test.raw" "$work/shared/data/wikitext2/"
  cp -L "$shared"/golden/perplexity-*.json "$work/shared/golden/"
  # The golden figures are of these too, and whole wikitext2 is timed with Llama-2's tokens.
  cp -L "$shared"/data/ptb/ptb.{test,valid}.txt "$work/shared/data/ptb/" && cp -L "$shared"/data/c4/c4-validation*.jsonl "$work/shared/data/c4/" ||
    echo "ptb or c4 is not in $shared: a test of golden figures will fail"
  cp -L "$shared"/tokenizers/llama2/tokenizer{.model,_config.json} "$work/shared/tokenizers/llama2/" ||
    echo "no tokenizers/llama2 in $shared: the step perplexity will skip"
  packed_size=$(tar -C "$work/shared" -cf - . | xz -6 --stdout | wc -c) # of text
  for model in wikimini-hf stories260K-hf babyllama-tok105-hf; do
    [ -d "$shared/models/$model" ] || { echo "no $model in $shared/models"; continue; }
    size=$(($(du -sbL "$shared/models/$model" | cut -f1) + packed_size)) # weights hardly shrink
    [ $size -lt "$(room)" ] || { echo "left out for lack of room: $model; its tests will skip"; continue; }
    cp -rL "$shared/models/$model" "$work/shared/models/"
    packed_size=$size
    carried="$carried $model"
  done
fi
if [ -n "$carried" ]; then
  pack "$work/shared" shared 6
else
  echo "no models in $shared: the tests of whole models will skip"
fi
printf '.gpu for %s: %d MiB; with the tree %d of %d MiB%s\n' "$arch" $(($(du -sb .gpu | cut -f1) >> 20)) $((limit - ($(room) >> 20))) "$limit" "${carried:+; models:$carried}"
[ "$(room)" -ge 0 ] || { echo "too large: fewer architectures (--arch), or a larger --limit"; exit 1; }
