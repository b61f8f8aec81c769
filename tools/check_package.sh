#!/usr/bin/env bash
# The packages that cpack makes: what is in them, that they run where they were not built, and that docker/Dockerfile's steps work.
#   tools/check_package.sh                the .deb and the tarball of build/, unpacked here
#   tools/check_package.sh --roots [KEEP] also docker/Dockerfile without Docker: its stages are debootstrap's systems, its steps run in
#                                         them; then the package as that image has it. Needs root, debootstrap and a mirror ($BENCH_MIRROR);
#                                         KEEP: a folder where the systems stay
set -uo pipefail
cd "$(dirname "$0")/.."
for tool in dpkg-shlibdeps dpkg-deb file; do
  command -v $tool >/dev/null || { echo "$tool is not installed (of dpkg-dev and file)"; exit 77; }
done
[ -x build/bin/bench ] || { echo "build/bin/bench is not built"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
wrong() { echo "wrong: $*"; bad=1; }

# ---- here
(cd build && cpack -B "$work/packages") >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
deb=$(find "$work/packages" -maxdepth 1 -name 'quantbench_*.deb') tarball=$(find "$work/packages" -maxdepth 1 -name 'quantbench-*.tar.gz')
[ -f "$deb" ] && [ -f "$tarball" ] || { wrong "cpack left: $(ls "$work/packages")"; exit 1; }
dpkg-deb -x "$deb" "$work/deb"
mkdir "$work/tar" && tar -xzf "$tarball" -C "$work/tar" --strip-components=1
# Every library that the program names is of a package that it depends on.
depends=$(dpkg-deb -f "$deb" Depends)
objdump -p "$work/deb/usr/bin/bench" | sed -n 's/^ *NEEDED *//p' | while read -r library; do
  path=$(ldconfig -p | sed -n "s|^[[:space:]]*$library .* => ||p" | head -n 1)
  package=$(dpkg -S "$(realpath "$path")" 2>/dev/null || dpkg -S "$path" 2>/dev/null || dpkg -S "${path#/usr}" 2>/dev/null)
  package=$(head -n 1 <<<"$package" | cut -d: -f1)
  package=${package%-pthread} # libopenblas0 stands for its variants
  [ -n "$package" ] && grep -qE "(^|[ ,|])$package([ ,(|]|$)" <<<"$depends" || { echo "wrong: $library (${package:-of no package}) is not in Depends: $depends"; exit 1; }
done || bad=1
for top in "$work/deb/usr" "$work/tar"; do
  [ "$(BENCH_SHARE="" "$top/bin/bench" --version)" = "$(build/bin/bench --version)" ] || wrong "$top has another program"
  for file in share/man/man1/bench.1 share/man/man1/bench-compare.1 share/bash-completion/completions/bench \
    share/fish/vendor_completions.d/bench.fish share/quantbench/demo/model.safetensors share/quantbench/suites/demo.json \
    share/doc/quantbench/copyright share/doc/quantbench/README.md share/doc/quantbench/docs/gate.md; do
    [ -s "$top/$file" ] || wrong "$top lacks $file"
  done
  case $top in */deb/*) zsh=share/zsh/vendor-completions ;; *) zsh=share/zsh/site-functions ;; esac
  [ -s "$top/$zsh/_bench" ] || wrong "$top lacks $zsh/_bench"
  [ -x "$top/share/doc/quantbench/examples/nightly.sh" ] || wrong "nightly.sh cannot be executed"
  # Beside the program lies all that it needs.
  BENCH_CACHE=$work/cache "$top/bin/bench" eval demo --max-windows 1 >"$work/log" 2>&1 || { wrong "$top: eval: $(tail -n 1 "$work/log")"; }
  if command -v man >/dev/null; then man -l "$top/share/man/man1/bench-compare.1" 2>"$work/log" | grep -q 'EXIT STATUS' || wrong "man: $(cat "$work/log")"; fi
done
if command -v zsh >/dev/null; then
  zsh -fc 'print -l $fpath' | grep -qx /usr/share/zsh/vendor-completions || wrong "zsh does not look where the package puts its completions"
fi
twice=$(find "$work/deb" -type f -size +1k -exec sha256sum {} + | sort | uniq -w 64 -D)
[ -z "$twice" ] || wrong "the package holds one file twice: $twice"
(cd "$work/deb" && md5sum --quiet -c <(dpkg-deb -I "$deb" md5sums)) || wrong "the package's sums differ from its files"
[ "${1:-}" = --roots ] || { [ $bad = 0 ] && echo "the packages hold"; exit $bad; }

# ---- docker/Dockerfile in systems of debootstrap
[ "$(id -u)" = 0 ] || { echo "setting up a system needs root"; exit 77; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed"; exit 77; }
unshare --mount true 2>/dev/null || { echo "this system lets nobody mount (a container?)"; exit 77; }
roots=${2:-$work/roots} mirror=${BENCH_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$roots"
# shellcheck disable=SC2034
declare -A stage_of # name -> root
root="" dir=/ user=root stage=0 environment=()
inside() { # USER DIR COMMAND: in $root
  # shellcheck disable=SC2016
  unshare --mount --pid --fork --kill-child sh -c 'root=$1 user=$2 dir=$3; shift 3
    mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
    exec chroot "$root" setpriv --reuid "$user" --regid "$user" --init-groups env -i -C "$dir" LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="/tmp" "$@"' \
    inside "$root" "$1" "$2" "${environment[@]}" "${@:3}"
}
while IFS= read -r -u 3 line; do
  word=${line%% *} rest=${line#* }
  case $word in
    FROM)
      read -r image _ name <<<"$rest"
      suite=${image#debian:} suite=${suite%-slim}
      stage=$((stage + 1)) root=$roots/$stage dir=/ user=root environment=()
      stage_of[${name:-last}]=$root
      [ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/log" 2>&1 || {
        tail -n 5 "$work/log"; echo "no system from $mirror"; exit 77; }
      cp /etc/resolv.conf /etc/hosts "$root/etc/"
      ;;
    WORKDIR) dir=$rest; mkdir -p "$root$dir" ;;
    USER) user=$rest ;;
    ENV) read -r -a more <<<"$rest"; environment+=("${more[@]}") ;;
    COPY)
      if [[ $rest == --from=* ]]; then
        from=${rest%% *} from=${from#--from=} rest=${rest#* }
        # shellcheck disable=SC2086
        cp -r "${stage_of[$from]}"${rest% *} "$root${rest##* }" || { wrong "$line"; break; }
      elif [ "$rest" = ". ." ]; then # what .dockerignore leaves: git's files, and git
        git ls-files -z --cached --others --exclude-standard | xargs -0r cp --parents -t "$root$dir" && rm -rf "$root$dir/.git" && cp -r "$(git rev-parse --git-common-dir)" "$root$dir/.git"
      else
        mkdir -p "$root$dir/${rest##* }" && cp "${rest% *}" "$root$dir/${rest##* }"
      fi
      ;;
    RUN)
      start=$SECONDS
      inside "$user" "$dir" /bin/bash -euo pipefail -c "$rest" >"$roots/$stage.log" 2>&1 || { wrong "$line"; tail -n 20 "$roots/$stage.log"; break; }
      echo "ok       RUN ${rest:0:60}.. ($((SECONDS - start)) s)"
      ;;
    SHELL | VOLUME | ENTRYPOINT | CMD | "#"*) ;;
    *) wrong "docker/Dockerfile: this script knows no $word" ;;
  esac
done 3< <(sed -e '/^#/d; /^$/d' docker/Dockerfile | sed -e ':a' -e '/\\$/N; s/\\\n *//; ta')
if [ $bad = 0 ]; then
  # The image as its ENTRYPOINT starts it: its user, its folder.
  inside "$user" "$dir" bench run --suite demo --only 'none,rtn-4b*' --set max_windows=4 --set budget_s=0.2 -o demo.json --plots plots >"$roots/image.log" 2>&1 &&
    [ -s "$root$dir/demo.json" ] && ls "$root$dir"/plots/*.svg >/dev/null || { wrong "the image cannot run the demo"; tail -n 20 "$roots/image.log"; }
  inside "$user" "$dir" bench doctor >"$roots/image.log" 2>&1 || { wrong "bench doctor"; tail -n 5 "$roots/image.log"; }
fi
[ $bad = 0 ] && echo "the packages and docker/Dockerfile hold"
exit $bad
