#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the public RISC-V test suites for our control processor, once, and prints the directory.
set -euo pipefail

usage() {
	cat <<-'END2'
	usage: setup.sh [--help]

	Fetches riscv-tests, riscv-test-env and riscv-arch-test at the pinned commits, builds what is for rv32imac with the tool
	root's gcc, has its QEMU write the signatures, and prints the directory with the programs. Needs the tool root of
	tests/guest/setup.sh, git, and curl unless the sources are given. Takes a minute or two the first time.

	Environment:
	  NPUEMU_CACHE           the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_RISCV_SOURCES   a directory that has the sources, where they cannot be fetched: for each of the three names a
	                         directory, or NAME.tar.gz as GitHub gives it; they must be the pinned ones, too
	END2
}
say() { printf 'riscv: %s\n' "$*" >&2; }
die() {
	printf 'riscv: error: %s\n' "$1" >&2
	shift
	printf 'riscv: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

# Owner, name, commit; a part that is used, and git's name of its tree, which is its checksum however it was packed.
sources='
riscv-software-src riscv-tests 34e6b6d1e7936b526075432fb730d89148623484 isa 4dbbbf874c804cf88ee93d93978abb22d52b1da2
riscv riscv-test-env 6de71edb142be36319e380ce782c3d1830c65d68 . a28a845f0c738a33db0a90215d5705c65d134411
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/env aaf45039559a0b5fdd195e38862008052ba9b95d
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/I d742443a8d7ca53c2851025d88dd741a2f19c331
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/M b2e7e4ed8fe6f4ce19801ee8990dc376e9ca0829
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/A 42f02a0bc65becc9554341ba467c1c30158668e9
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/C b9d4f41ba417424189c903f9340f5308e80b860c
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/Zifencei 3e5dd53c13c8aa5e8ff61c79e9f3fa7ad3dcf318
riscv-non-isa riscv-arch-test cd94912fed2aab75d7d5f115b441da0813fdce8d riscv-test-suite/rv32i_m/privilege e36e31efe6ae0fbefda85ed2d206fea4e75892fe
'

here=$(cd "$(dirname "$0")" && pwd)
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ -f $cache/manifest ]] || die "there is no tool root in $cache" "run make setup"
command -v git >/dev/null || die "there is no git, which checks the sources" "install git"

key=$(cat "$here/setup.sh" "$here/build.sh" "$here"/model/* "$cache/manifest" | sha256sum | cut -c1-16)
built=$cache/riscv/$key
mkdir -p "$cache/riscv"
exec 8>"$cache/riscv/lock"
flock 8
if [[ -d $built ]]; then
	echo "$built"
	exit 0
fi
rm -rf "$cache/riscv"/[0-9a-f]*
work=$(mktemp -d "$cache/riscv/new-XXXXXX")
trap 'rm -rf "$work"' EXIT

# tree prints git's name of the tree of files in a directory.
tree() {
	export GIT_DIR=$work/git
	git init --quiet
	git --work-tree="$1" -c core.autocrlf=false add --all --force .
	git write-tree
	rm -rf "$GIT_DIR"
	unset GIT_DIR
}

# unpack puts the sources that owner, name and commit tell into $work/name.
unpack() {
	local given=${NPUEMU_RISCV_SOURCES:+$NPUEMU_RISCV_SOURCES/$2} archive
	archive=$given.tar.gz
	mkdir "$work/$2"
	if [[ -n $given && -d $given ]]; then
		cp -R "$given/." "$work/$2"
		rm -rf "$work/$2/.git"
		return
	fi
	if [[ -z $given ]]; then
		local url=https://github.com/$1/$2/archive/$3.tar.gz
		archive=$work/$2.tar.gz
		say "fetching $url"
		curl --fail --silent --show-error --location --output "$archive" "$url" 8>&- ||
			die "$url cannot be fetched" "give a directory that has $2.tar.gz in NPUEMU_RISCV_SOURCES"
	fi
	[[ -f $archive ]] || die "$NPUEMU_RISCV_SOURCES has neither $2 nor $2.tar.gz" "put commit $3 of $1/$2 there"
	tar -xzf "$archive" -C "$work/$2" --strip-components=1 || die "$archive cannot be unpacked" "put commit $3 of $1/$2 there"
}

while read -r owner name commit part want; do
	[[ -n $owner ]] || continue
	[[ -d $work/$name ]] || unpack "$owner" "$name" "$commit"
	[[ -d $work/$name/$part ]] || die "$name has no $part" "put commit $commit of $owner/$name there"
	got=$(tree "$work/$name/$part")
	[[ $got == "$want" ]] || die "$part of $name is tree $got, commit $commit has $want" "put that commit of $owner/$name there, unchanged"
	mkdir -p "$work/src/$name/$part"
	cp -R "$work/$name/$part/." "$work/src/$name/$part"
done <<<"$sources"
cp -R "$here/model" "$here/build.sh" "$work/src"

say "building"
NPUEMU_CACHE=$cache "$here/../guest/toolroot-run" --src "$work/src" --out "$work/out" -- sh build.sh >&2 8>&-

say "signatures by QEMU"
for f in "$work/out/programs"/arch-*; do
	timeout 60 "$cache/bin/qemu-system-riscv32" -machine "spike,signature=$f.reference,signature-granularity=4" -bios none \
		-cpu rv32,pmp=false,h=false -display none -serial null -monitor none -kernel "$f" >"$work/qemu" 2>&1 8>&- || true
	[[ -s $f.reference ]] || die "QEMU writes no signature of ${f##*/}: $(head -1 "$work/qemu")" "see tests/riscv/build.sh"
done
mv "$work/out/programs" "$built"
echo "$built"
