#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the kernel driver as a kernel maintainer would: the compiler's extra warnings and sparse for every guest kernel,
# and checkpatch. Any line that one of them says is a failure, but for the exceptions below.
set -euo pipefail

usage() {
	cat <<-'END2'
	usage: check.sh [--help]

	Needs the tool root of tests/guest/setup.sh, and what tests/kselftest/setup.sh fetches. Takes about a minute.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	END2
}

say() { printf 'driver-check: %s\n' "$*"; }
die() {
	printf 'driver-check: error: %s\n' "$1" >&2
	shift
	printf 'driver-check: remedy: %s\n' "$@" >&2
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
#   ALLOC_WITH_SIZEOF      6.12 has no kzalloc_obj
exceptions=LINUX_VERSION_CODE,FILE_PATH_CHANGES,ALLOC_WITH_SIZEOF

here=$(cd "$(dirname "$0")" && pwd)
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ -f $cache/manifest ]] || die "there is no tool root in $cache" "run make setup"

scripts=$cache/kselftest/scripts
[[ -f $scripts/checkpatch.pl && -f $cache/toolroot/usr/bin/sparse ]] || die "there is no checkpatch, or no sparse, in $cache" "run make setup-kselftest"
src=$(mktemp -d)
trap 'rm -rf "$src"' EXIT
cp -R "$here/../../driver" "$src/driver"
cp -R "$scripts" "$src/tools"
# Sparse 0.6.4 does not know what kernels since 6.13 are made of. Their own test of it is not in the headers packages.
cat >"$src/tools/check" <<'END2'
#!/bin/sh
exec sparse -D__typeof_unqual__=__typeof__ '-D__builtin_strlen(s)=(sizeof(s) - 1)' "$@"
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
