#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches the kernel's selftest harness into the cache, for tests/kselftest: a few files of Debian's package of the
# kernel source, the same release as the newest guest kernel. The work tree stays as it is.
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
	printf 'kselftest: remedy: %s\n' "$2" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

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

# Debian's own lists and archives, apart from the host's.
work=$cache/kselftest-work
rm -rf "$work"
mkdir -p "$work"/{apt/{lists/partial,archives/partial},new}
: >"$work/apt/status"
mirror=${NPUEMU_DEBIAN_MIRROR:-}
if [[ -z $mirror ]]; then
	mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "main" && $2 ~ /debian(\/|\.list)?$/ { print $2; exit }')
fi
# host_package NAME FILE prints the path of a file of a package of the host's own distribution, for hosts that are not Debian.
host_package() {
	[[ -d $work/$1 ]] || { (cd "$work" && apt-get -q download "$1" >&2) && dpkg-deb -x "$work/$1"_*.deb "$work/$1"; } || return
	printf '%s\n' "$work/$1"/$2
}
if [[ -z $mirror ]]; then
	mirror=$(sed -n 's/^DEF_MIRROR="\(.*debian.*\)"$/\1/p' "$(host_package debootstrap usr/sbin/debootstrap)")
	[[ -n $mirror ]] || die "no Debian mirror in this machine's apt sources" "set NPUEMU_DEBIAN_MIRROR to the URI of one"
fi
keyring=
for k in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
	[[ ! -e $k ]] || keyring=$k
done
[[ -n $keyring ]] || keyring=$(host_package debian-archive-keyring 'usr/share/keyrings/debian-archive-keyring.*g*' | tail -n 1)
[[ -n $keyring ]] || die "Debian's signing keys are not on this machine" "apt-get install debian-archive-keyring"
cp -L "$keyring" "$work/apt/keys.${keyring##*.}"
cat >"$work/apt/debian.sources" <<-END
Types: deb
URIs: $mirror
Suites: trixie trixie-backports
Components: main
Signed-By: $work/apt/keys.${keyring##*.}
END
apt=(apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/apt" -o Dir::State::Lists="$work/apt/lists"
	-o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt" -o Dir::Cache::Archives="$work/apt/archives"
	-o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3)
say "reading Debian's package lists from $mirror"
"${apt[@]}" update -o APT::Update::Error-Mode=any || die "Debian's package lists cannot be had from $mirror" "check the network"
say "fetching linux-source-$version"
(cd "$work" && "${apt[@]}" download "linux-source-$version") ||
	die "linux-source-$version cannot be had from $mirror" "check the network and run this again"

say "unpacking the harness"
top=linux-source-$version
dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb | tar -xO "./usr/src/$top.tar.xz" |
	"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/bin/xz" -dc |
	tar -x -C "$work/new" --strip-components 1 "$top/scripts/subarch.include" "$top/tools/testing/selftests/Makefile" \
		"$top/tools/testing/selftests/lib.mk" "$top/tools/testing/selftests/kselftest.h" "$top/tools/testing/selftests/kselftest_harness.h" ||
	die "the package does not hold the harness where kernels up to 7.3 have it" "say so in an issue, with the version $version"
printf '%s\n' "$stamp" >"$work/new/stamp"
rm -rf "$dir"
mv "$work/new" "$dir"
rm -rf "$work"
say "done: $dir"
