#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh: fetches oneDNN (library, headers, and the C and C++ libraries that it runs with) from Debian trixie into
# the cache, and builds the measuring program for it. Nothing is installed on the host, whose apt state is neither
# used nor changed. Prints, as its only line on standard output, the command that runs the program.
set -euo pipefail

say() { printf 'bench-products: %s\n' "$*" >&2; }
die() {
	printf 'bench-products: error: %s\n' "$1" >&2
	printf 'bench-products: remedy: %s\n' "$2" >&2
	exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/npuemu}
root=$cache/bench/onednn
lib=usr/lib/x86_64-linux-gnu

[[ $(uname -s)/$(uname -m) == Linux/x86_64 ]] || die "this machine is $(uname -s)/$(uname -m)" "measure on x86-64 Linux"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	die "apt-get and dpkg-deb are needed to fetch and verify Debian packages" "use Debian 12 or later, or Ubuntu 24.04 or later"
cc=${CC:-cc}
command -v "$cc" >/dev/null || die "no C compiler" "apt-get install gcc libc6-dev"
mkdir -p "$cache/bench"
exec 9>"$cache/bench/onednn.lock"
flock 9

fetch() {
	local work=$root.apt keyring=
	rm -rf "$work" "$root.new"
	mkdir -p "$work"/{conf.d,sources.d,trusted.d,state/lists/partial,cache/archives/partial} "$root.new"
	: >"$work/status"
	for k in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do [[ ! -e $k ]] || keyring=$k; done
	[[ -n $keyring ]] || die "Debian's signing keys are missing" "apt-get install debian-archive-keyring"
	cp -L "$keyring" "$work/debian.${keyring##*.}"
	apt-config dump | grep '^Acquire::' | grep -v '^Acquire::\(IndexTargets\|Languages\|GzipIndexes\)' >"$work/conf.d/host" || true
	cat >"$work/apt.conf" <<-END
	Dir::Etc::Parts "$work/conf.d";
	Dir::Etc::Main "/dev/null";
	Dir::Etc::Preferences "/dev/null";
	Dir::Etc::PreferencesParts "/dev/null";
	Dir::Etc::SourceList "/dev/null";
	Dir::Etc::SourceParts "$work/sources.d";
	Dir::Etc::TrustedParts "$work/trusted.d";
	Dir::State "$work/state";
	Dir::State::status "$work/status";
	Dir::Cache "$work/cache";
	APT::Architecture "amd64";
	APT::Architectures { "amd64"; };
	APT::Install-Recommends "0";
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	Acquire::Retries "3";
	Debug::NoLocking "1";
	END
	local mirror=${NPUEMU_DEBIAN_MIRROR:-}
	if [[ -z $mirror ]]; then
		mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
			awk '$1 == "main" && $2 ~ /debian\/?$/ { print $2; exit }')
	fi
	[[ -n $mirror ]] || die "this machine's apt sources name no Debian mirror" "set NPUEMU_DEBIAN_MIRROR to the URI of one"
	cat >"$work/sources.d/debian.sources" <<-END
	Types: deb
	URIs: $mirror
	Suites: trixie
	Components: main
	Signed-By: $work/debian.${keyring##*.}
	END
	export APT_CONFIG=$work/apt.conf
	say "reading the package lists of Debian trixie"
	apt-get -q update -o APT::Update::Error-Mode=any >&2 ||
		die "the package lists cannot be had from $mirror" "check the network, or set NPUEMU_DEBIAN_MIRROR"
	# The status file is empty, so this is all that the library needs, down to the C library.
	say "fetching oneDNN and what it runs with"
	apt-get -q install -y --download-only libdnnl-dev >&2 || die "the packages do not resolve on $mirror" "try again later"
	for deb in "$work"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root.new" --no-same-owner --keep-directory-symlink --exclude='./usr/share/*'
	done
	unset APT_CONFIG
	[[ -e $root.new/$lib/libdnnl.so ]] || die "Debian's libdnnl-dev has no $lib/libdnnl.so" "the packages have changed: tests/bench/peers/c/setup.sh has to"
	rm -rf "$root" "$work"
	mv "$root.new" "$root"
}
[[ -e $root/$lib/libdnnl.so ]] || fetch

"$cc" -O2 -fopenmp -Wall -Wextra -Werror -I"$root/usr/include" -o "$root/peer" "$here/onednn.c" -L"$root/$lib" -ldnnl \
	-Wl,--unresolved-symbols=ignore-in-shared-libs >&2 || die "the measuring program does not compile" "see the messages above"
printf '%s --library-path %s %s\n' "$root/$lib/ld-linux-x86-64.so.2" "$root/$lib" "$root/peer"
