#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the kernel driver as a kernel maintainer would: the compiler's extra warnings and sparse for every guest kernel,
# and checkpatch. Any line that one of them says is a failure, but for the exceptions below.
set -euo pipefail

usage() {
	cat <<-'END2'
	usage: check.sh [--help]

	Needs the tool root of tests/guest/setup.sh. The first time it fetches sparse and the kernel's source, 160 MB, of
	which 1 MB stays in checks/ of the cache; after that it takes about a minute.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources, if it is Debian]
	END2
}

say() { printf 'driver-check: %s\n' "$*"; }
die() {
	printf 'driver-check: error: %s\n' "$1" >&2
	printf 'driver-check: remedy: %s\n' "$2" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

# What checkpatch is told to leave out, and why:
#   LINUX_VERSION_CODE     npu_compat.h, in a module out of the tree, has to look at the version
#   FILE_PATH_CHANGES      there is no MAINTAINERS file to update
exceptions=LINUX_VERSION_CODE,FILE_PATH_CHANGES

here=$(cd "$(dirname "$0")" && pwd)
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ -f $cache/manifest ]] || die "there is no tool root in $cache" "run make setup"

# --- sparse and checkpatch --------------------------------------------------------------------------------

tools=$cache/checks
stamp=$(sed -n '/^# --- sparse/,/^# --- checks/p' "$0" | sha256sum | cut -d' ' -f1)
exec 9>"$cache/checks.lock"
flock 9
if [[ $(cat "$tools/stamp" 2>/dev/null) != "$stamp" ]]; then
	work=$cache/checks-work
	rm -rf "$work" "$tools"
	mkdir -p "$work"/{apt/{lists/partial,archives/partial},tools}
	: >"$work/apt/status"
	mirror=${NPUEMU_DEBIAN_MIRROR:-}
	if [[ -z $mirror ]]; then
		mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
			awk '$1 == "main" && $2 ~ /debian(\/|\.list)?$/ { print $2; exit }')
	fi
	[[ -n $mirror ]] || die "no Debian mirror in this machine's apt sources" "set NPUEMU_DEBIAN_MIRROR to the URI of one"
	keyring=
	for k in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[[ ! -e $k ]] || keyring=$k
	done
	[[ -n $keyring ]] || die "Debian's signing keys are not on this machine" "apt-get install debian-archive-keyring"
	cp -L "$keyring" "$work/apt/keys.${keyring##*.}"
	cat >"$work/apt/debian.sources" <<-END2
	Types: deb
	URIs: $mirror
	Suites: trixie
	Components: main
	Signed-By: $work/apt/keys.${keyring##*.}
	END2
	apt=(apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/apt" -o Dir::State::Lists="$work/apt/lists"
		-o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt" -o Dir::Cache::Archives="$work/apt/archives"
		-o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3)
	say "reading Debian's package lists from $mirror"
	"${apt[@]}" update -o APT::Update::Error-Mode=any || die "Debian's package lists cannot be had from $mirror" "check the network"
	say "fetching sparse and the kernel's source, for its checkpatch"
	(cd "$work" && "${apt[@]}" download sparse linux-source-6.12) ||
		die "packages cannot be had from $mirror" "check the network and run this again"
	dpkg-deb --fsys-tarfile "$work"/sparse_*.deb | tar -x -C "$work" ./usr/bin/sparse
	dpkg-deb --fsys-tarfile "$work"/linux-source-*.deb | tar -xO ./usr/src/linux-source-6.12.tar.xz >"$work/linux.tar.xz"
	# The tool root has xz; this machine need not.
	mkdir "$work/source"
	mv "$work/linux.tar.xz" "$work/source/"
	"$here/../guest/toolroot-run" --src "$work/source" --out "$work/unpacked" -- sh -c \
		'xz -dc linux.tar.xz | busybox tar -x --strip-components 1 \
			linux-source-6.12/scripts/checkpatch.pl linux-source-6.12/scripts/spelling.txt linux-source-6.12/scripts/const_structs.checkpatch
		rm linux.tar.xz'
	mv "$work/usr/bin/sparse" "$work/unpacked/scripts"/* "$work/tools/"
	echo "$stamp" >"$work/tools/stamp"
	mv "$work/tools" "$tools"
	rm -rf "$work"
fi

# --- checks -----------------------------------------------------------------------------------------------

src=$(mktemp -d)
trap 'rm -rf "$src"' EXIT
cp -R "$here/../../driver" "$src/driver"
cp -R "$tools" "$src/tools"
# Sparse 0.6.4 does not know what kernels since 6.13 are made of. Their own test of it is not in the headers packages.
cat >"$src/tools/check" <<'END2'
#!/bin/sh
exec "${0%/*}/sparse" -D__typeof_unqual__=__typeof__ '-D__builtin_strlen(s)=(sizeof(s) - 1)' "$@"
END2
chmod +x "$src/tools/check"
failed=0

# check NAME COMMAND... runs a command in the tool root; what it says is a failure.
check() {
	local name=$1 out
	shift
	out=$("$here/../guest/toolroot-run" --src "$src" -- "$@" 2>&1) || { failed=1; out=${out:-"failed"}; }
	# What the kernel's makefiles say of compiler and sparse, see above.
	out=$(grep -v -e 'compiler differs from the one' -e '^  The kernel was built by:' -e '^  You are using:' \
		-e 'scripts/checker-valid.sh: No such file' -e 'C=1 specified, but .* is not available or not up to date' <<<"$out" || true)
	if [[ -n $out ]]; then
		failed=1
		printf '%s\n' "$out" | sed "s|^|$name: |" >&2
	else
		say "$name: clean"
	fi
}

for headers in "$cache"/toolroot/usr/lib/modules/*-amd64/build; do
	release=$(basename "$(dirname "$headers")")
	# shellcheck disable=SC2016 # for the inner shell
	check "W=1 and sparse, $release" \
		sh -c 'cd driver && make -s -C "/lib/modules/$0/build" M="$PWD" W=1 C=1 KBUILD_CHECKSRC=1 CHECK="$PWD/../tools/check" modules' "$release"
done
# shellcheck disable=SC2016
check "checkpatch --strict" \
	sh -c 'cd driver && perl ../tools/checkpatch.pl --no-tree --strict --terse --no-summary --quiet --ignore "$0" --file *.c *.h uapi/*.h' \
	"$exceptions"
exit "$failed"
