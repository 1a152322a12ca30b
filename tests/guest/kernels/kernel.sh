#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds a guest kernel from Debian's source of the newest stock one, into the cache: image, modules, what modules of ours
# are built with, and the source of the kernel's VFIO selftests. The work tree and the host stay as they are.
set -euo pipefail

usage() {
	cat <<-'END2'
	usage: kernel.sh [--help] CONFIG...

	Builds the kernel of tinyconfig and the options in all CONFIGs; the name of the last, without .config, is the kernel's.
	Needs the tool root of tests/guest/setup.sh. Fetches 170 MB, takes about 15 minutes of processor time, and 4 GB while
	it builds; 150 MB stay in kernels/ of the cache, under a name that is the hash of configurations, source, compiler and the
	script that builds it (tests/guest/kernels/build). What is there already is not built again.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources; on Ubuntu the default
	                        of the debootstrap package]
	END2
}

die() {
	printf 'kernel: error: %s\n' "$1" >&2
	shift
	printf 'kernel: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
--help | -h) usage; exit 0 ;;
'' | -*) usage >&2; exit 2 ;;
esac
for config; do
	[[ -r $config ]] || die "there is no configuration $config" "name one of tests/guest/kernels/"
done
name=$(basename "$config" .config)
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../apt.sh
. "$here/../apt.sh"
say() { printf 'kernel %s: %s\n' "$name" "$*"; }

cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
manifest=$cache/manifest
[[ -f $manifest ]] || die "there is no tool root in $cache" "run make setup"
# The newest stock kernel: its version names the source package, its release without Debian's part is the kernel's own.
read -r base version < <(sed -n 's/^package linux-headers-\([0-9.]*\)[^ ]*-amd64 \(.*\)$/\1 \2/p' "$manifest" | sort -V | tail -1)
series=$(cut -d. -f1,2 <<<"$base")
compiler=$(sed -n 's/^package gcc-14 //p' "$manifest")
# stamp is what the Go side can check; key is everything that decides the result.
stamp=$(cat "$here/build" "$@" | sha256sum | cut -d' ' -f1)
key=$(printf '%s\n' "$stamp" "linux-source-$series $version" "gcc-14 $compiler" | sha256sum | cut -c1-8)
release=$base-$name-$key
dir=$cache/kernels/$release
mkdir -p "$cache/kernels"
exec 9>"$cache/kernels/lock"
if ! flock -n 9; then
	say "waiting for whoever builds a kernel in $cache"
	flock 9
fi
if [[ -f $dir/stamp ]]; then
	say "complete: $dir"
	exit 0
fi
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 5000)) || die "$cache has $avail MB free; 5000 MB are needed while building" "free some space, or set NPUEMU_CACHE"

work=$cache/kernels/work
rm -rf "$work"
mkdir -p "$work/src"
say "$release"
apt_debian "$work/apt"
say "fetching kernel source $version and what builds it"
# Of the version that the tool root's library has: they are one source package.
elf=$(sed -n 's/^package libelf1t64 //p' "$manifest")
(cd "$work" && apt-get -q download "linux-source-$series=$version" "libelf-dev=$elf" flex bison m4 bc libreadline8t64 gzip uuid-dev) ||
	die "packages cannot be had from $mirror" "check the network; if the mirror has newer ones, bring the tool root up to date: remove $cache/toolroot and run make setup"
for deb in "$work"/*.deb; do
	case ${deb##*/} in
	linux-source*) dpkg-deb -x "$deb" "$work/source" ;;
	*) dpkg-deb -x "$deb" "$work/src/tools" ;;
	esac
done
mv "$work/source/usr/src/linux-source-$series.tar.xz" "$work/src/linux.tar.xz"
cp "$here/build" "$work/src/build"
for config; do
	cat "$config"
	echo
done >"$work/src/config"
say "building $release"
start=$(date +%s)
log=$work/log
# The log's last line, from time to time.
progress() {
	while sleep 30; do
		say "$((($(date +%s) - start) / 60)) min: $(grep -c '^  ' "$log") steps, now $(tail -1 "$log" | cut -c1-70)"
	done
}
progress 9<&- &
ticker=$!
trap 'kill $ticker 2>/dev/null || true' EXIT
nice "$here/../toolroot-run" --src "$work/src" --out "$work/built" -- sh build "$release" "-$name-$key" >"$log" 2>&1 || {
	tail -20 "$log" >&2
	die "the kernel does not build" "see above; the whole log is in $log"
}
rm -rf "$dir"
mv "$work/built/out" "$dir"
printf '%s\n' "$stamp" >"$dir/stamp"
rm -rf "$work"
say "done after $((($(date +%s) - start) / 60)) min: $(du -sm "$dir" | cut -f1) MB in $dir"
