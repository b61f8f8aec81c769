#!/usr/bin/env bash
# What comments and pages name is there: documents in docs/, links of the pages, scripts in tools/; and no comment points
# outside the repository (../shared, the optional test material, may be named in tests/ and tools/). docs/families.md names every GGUF
# architecture that is read, README.md the packages of tools/install_deps.sh. Needs git.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0
wrong() { echo "$*"; bad=1; }

while IFS=: read -r file line name; do
  [ -e "$name" ] || wrong "$file:$line: names $name, which is not there"
done < <(git grep -noIE '\b(docs/[A-Za-z]+\.md|tools/[a-z_]+\.(sh|py|c|awk))\b' -- . ':!tests/golden' | grep -vE 'ggml|:[0-9]+:docs/gguf\.md$')
while IFS=: read -r file line name; do
  [ "$name" = README.md ] || [ -e "$name" ] || [ -e "docs/$name" ] || wrong "$file:$line: names $name, which is not there"
done < <(git grep -noIwE '[A-Z][A-Z_]+\.md' -- . ':!tests/golden' ':!tools/check_docs.sh' | grep -v ':USE_POLICY.md$')
while IFS=: read -r file line link; do
  target=${link#*](}
  target=${target%)}
  [ -e "$(dirname "$file")/${target%%#*}" ] || wrong "$file:$line: links to $target, which is not there"
done < <(git grep -noIE '\]\([A-Za-z0-9_./-]+(#[a-z-]*)?\)' -- '*.md' ':!tests/golden')
while IFS=: read -r file line _; do
  wrong "$file:$line: points outside the repository"
done < <(git grep -nIE '\.\./shared' -- . ':!tests' ':!tools')
while read -r name; do
  grep -q "\`$name\`" docs/families.md || wrong "docs/families.md: does not name the GGUF architecture $name"
done < <(sed -n 's/^ *\.name = "\(.*\)",$/\1/p' checkpoint/gguf/gguf_architectures.def checkpoint/gguf/gguf_mixtures.def | sort -u)
# Variables of the environment that a user may set stand in `bench help environment`, or in docs/hub.md where they are the hub's.
while read -r name; do
  grep -qF "$name" bench/program_page.c docs/hub.md || wrong "bench/program_page.c: does not name the variable $name"
done < <(git grep -ohE '(getenv|variable|is_set|seconds_of)\("[A-Z_]+"' -- '*.c' ':!tests' | sed 's/.*"\(.*\)"/\1/' | sort -u | grep -vxE 'HOME|TERM|BENCH_BLAS_RESTARTED')
# README's packages are those that are installed.
while IFS= read -r line; do
  grep -qxF -e "$line" README.md || wrong "README.md: does not have the line of tools/install_deps.sh --list \"$line\""
done < <(tools/install_deps.sh --list)
[ "$(tools/install_deps.sh --list | wc -l)" = 3 ] || wrong "tools/install_deps.sh --list does not say three lists"
[ $bad = 0 ] && echo "every document that is named is there"
exit $bad
