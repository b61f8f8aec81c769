#!/usr/bin/env bash
# Sets bench beside llama.cpp and, where IK_BIN names one, ik_llama.cpp on this processor: builds llama.cpp from the sources
# inside the Python package llama-cpp-python (0.3.36, which holds llama.cpp 0c1e57098), makes model files of random weights, runs
# the programs in turn and prints ratios with their spread. Figures mean something on a machine that does nothing else.
#
# Usage: tools/compare_peers.sh [-o RESULT.json] [--formats q4_0,q8_0] [--threads 1,2] [--rounds 5] [--model t6|smollm2]
# Environment: WORK, where sources, builds and models lie (default: build/peers); LLAMA_CPP, unpacked sources of llama.cpp;
# LLAMA_BIN, a folder with llama-bench and llama-quantize that are built already; IK_BIN, a folder with ik_llama.cpp's
# llama-bench (github.com/ikawrakow/ik_llama.cpp; no package holds its sources), which runs with -rtr, too; BENCH, the program
# (default: build/bin/bench); PYTHON, one that has numpy (default: python3).
set -euo pipefail
cd "$(dirname "$0")/.."
case " $* " in *' --help '* | *' -h '*)
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' tools/compare_peers.sh
  exit ;;
esac
package=llama-cpp-python
version=0.3.36
work=${WORK:-build/peers}
python=${PYTHON:-python3}
export BENCH=${BENCH:-build/bin/bench}
[ -x "$BENCH" ] || { echo "no program $BENCH: build the release preset first"; exit 2; }
"$python" -c 'import numpy' 2>/dev/null || { echo "$python has no numpy, which the model files are made with"; exit 2; }
mkdir -p "$work"

if [ -z "${LLAMA_CPP:-}" ]; then
  LLAMA_CPP=$work/llama_cpp_python-$version/vendor/llama.cpp
  if [ ! -d "$LLAMA_CPP" ]; then
    "$python" -m pip download --quiet --no-deps --no-binary "$package" --dest "$work" "$package==$version"
    tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work"
  fi
fi
if [ -z "${LLAMA_BIN:-}" ]; then
  # GCC 12's _tile_loadconfig says that it reads eight bytes of 64: the other stores are dropped, and llama.cpp crashes.
  flags=""
  if grep -qw amx_tile /proc/cpuinfo && [ "$("${CXX:-c++}" -dumpversion | cut -d. -f1)" = 12 ]; then
    flags="-fno-tree-dse -fno-dse"
    echo "llama.cpp is built with $flags: GCC 12 breaks its products by AMX" >&2
  fi
  cmake -S "$LLAMA_CPP" -B "$work/llama" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DCMAKE_CXX_FLAGS="$flags" >"$work/llama.log"
  cmake --build "$work/llama" --target llama-bench llama-quantize >>"$work/llama.log"
  LLAMA_BIN=$work/llama/bin
fi
export LLAMA_BIN PYTHONPATH=$LLAMA_CPP/gguf-py LLAMA_VERSION="$package $version"
unset OPENBLAS_CORETYPE
exec "$python" tools/compare_peers.py --work "$work" "$@"
