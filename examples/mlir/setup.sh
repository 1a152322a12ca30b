#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches stock MLIR tools, Debian's packages, with the libraries that they need, into the cache. Nothing is installed on the host.
set -euo pipefail

usage() {
	cat <<-'END'
	usage: setup.sh [--help]

	Fetches mlir-opt and mlir-cpu-runner of LLVM 19: 102 MB, 331 MB unpacked, in mlir/ of the cache; mlir/bin has programs that
	start them. A second run finds them and returns at once.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources; on Ubuntu the default
	                        of the debootstrap package]
	END
}

say() { printf 'mlir: %s\n' "$*"; }
die() {
	printf 'mlir: error: %s\n' "$1" >&2
	shift
	printf 'mlir: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac
[[ $(uname -s)/$(uname -m) == Linux/x86_64 ]] || die "this machine is $(uname -s)/$(uname -m); the packages are for Linux/x86-64" "use such a machine"
for tool in apt-get dpkg-deb flock; do
	command -v "$tool" >/dev/null || die "there is no $tool, which fetches and unpacks Debian packages" "use Debian 12 or later, or Ubuntu 24.04 or later"
done

# shellcheck source=../../tests/guest/apt.sh
. "$(dirname "$0")/../../tests/guest/apt.sh"
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
dir=$cache/mlir
mkdir -p "$cache" || die "cannot create $cache" "set NPUEMU_CACHE to a writable directory"
exec 9>"$cache/mlir.lock"
flock 9
stamp=$(sha256sum <"$0" | cut -d' ' -f1)
if [[ $(head -n 1 "$dir/stamp" 2>/dev/null) == "$stamp" ]]; then
	say "complete: $dir"
	exit 0
fi
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 700)) || die "$cache has $avail MB free; 700 MB are needed while unpacking" "free some space, or set NPUEMU_CACHE"

work=$cache/mlir-work
rm -rf "$work"
mkdir -p "$work/new" "$work/none/partial" "$work/debs"
apt_debian "$work/apt"
# The package status and the archive directory are empty, so this is the whole closure, the C library included.
closure=$(apt-get -qq --print-uris install -y -o Dir::Cache::archives="$work/none" mlir-19-tools libmlir-19) ||
	die "the packages do not resolve on $mirror" "try again later: a mirror may be in the middle of an update"
mapfile -t wanted < <(awk '{ print $2 }' <<<"$closure" | sed 's/%3a/:/; s/_[a-z0-9]*\.deb$//; s/_/=/')
say "fetching ${#wanted[@]} packages, $(awk '{ s += $3 } END { print int(s / 1e6) }' <<<"$closure") MB"
(cd "$work/debs" && apt-get -q download "${wanted[@]}") || die "packages cannot be had from $mirror" "check the network and run this again"

say "unpacking"
root=$work/new/root
mkdir -p "$root"/usr/{lib,lib64,bin,sbin} "$work/new/bin"
for d in bin sbin lib lib64; do ln -s "usr/$d" "$root/$d"; done
for deb in "$work"/debs/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner --keep-directory-symlink \
		--exclude=./usr/share --exclude=./usr/include ||
		die "unpacking failed" "look above for the reason; free disk space is the usual one"
done
find "$root/usr/lib/llvm-19/bin" -type f ! -name mlir-opt ! -name mlir-cpu-runner -delete
for tool in mlir-opt mlir-cpu-runner; do
	cat >"$work/new/bin/$tool" <<-'END'
	#!/bin/sh
	# The root's own loader: the host's C library may be older.
	root=$(dirname "$(dirname "$0")")/root
	exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/llvm-19/lib" \
		"$root/usr/lib/llvm-19/bin/${0##*/}" "$@"
	END
	chmod +x "$work/new/bin/$tool"
	"$work/new/bin/$tool" --version >/dev/null || die "$tool does not run" "say so in an issue, with what stands above"
done
printf '%s\n' "$stamp" "${wanted[@]}" >"$work/new/stamp"
rm -rf "$dir"
mv "$work/new" "$dir"
rm -rf "$work"
say "done: $(du -sm "$dir" | cut -f1) MB in $dir"
