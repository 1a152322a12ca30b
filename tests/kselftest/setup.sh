#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches a few files of Debian's package of the kernel source, the same release as the newest guest kernel, into the cache: the
# selftest harness, for tests/kselftest, and checkpatch, for tests/driver. The work tree stays as it is.
set -euo pipefail

usage() {
	cat <<-'END'
	usage: setup.sh [--help]

	Needs the tool root of tests/guest/setup.sh. Fetches 177 MB, unpacks for half a minute, and keeps less than 1 MB
	in kselftest/ of the cache. A second run finds it complete and returns at once.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources; on Ubuntu the default
	                        of the debootstrap package]
	END
}

say() { printf 'kselftest: %s\n' "$*"; }
die() {
	printf 'kselftest: error: %s\n' "$1" >&2
	shift
	printf 'kselftest: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

# shellcheck source=../guest/apt.sh
. "$(dirname "$0")/../guest/apt.sh"
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ -f $cache/manifest ]] || die "there is no tool root in $cache" "run make setup"
root=$cache/toolroot
version=$(cd "$root/usr/lib/modules" && printf '%s\n' [0-9]* | sort -V | tail -n 1 | grep -oE '^[0-9]+\.[0-9]+')
dir=$cache/kselftest
exec 9>"$cache/kselftest.lock"
flock 9
stamp="$(sha256sum <"$0" | cut -d' ' -f1) $version"
if [[ $(cat "$dir/stamp" 2>/dev/null) == "$stamp" ]]; then
	say "complete: $dir"
	exit 0
fi
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 500)) || die "$cache has $avail MB free; 500 MB are needed while unpacking" "free some space, or set NPUEMU_CACHE"

work=$cache/kselftest-work
rm -rf "$work"
mkdir -p "$work/new"
apt_debian "$work/apt"
say "fetching linux-source-$version"
(cd "$work" && apt-get -q download "linux-source-$version") ||
	die "linux-source-$version cannot be had from $mirror" "check the network and run this again"

say "unpacking the harness and checkpatch"
top=linux-source-$version
dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb | tar -xO "./usr/src/$top.tar.xz" |
	"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/xz" -dc |
	tar -x -C "$work/new" --strip-components 1 "$top/scripts/subarch.include" "$top/tools/testing/selftests/Makefile" \
		"$top/tools/testing/selftests/lib.mk" "$top/tools/testing/selftests/kselftest.h" "$top/tools/testing/selftests/kselftest_harness.h" \
		"$top/scripts/checkpatch.pl" "$top/scripts/spelling.txt" "$top/scripts/const_structs.checkpatch" ||
	die "the package does not hold these files where kernels up to 7.3 have them" "say so in an issue, with the version $version"
printf '%s\n' "$stamp" >"$work/new/stamp"
rm -rf "$dir"
mv "$work/new" "$dir"
rm -rf "$work"
say "done: $dir"
