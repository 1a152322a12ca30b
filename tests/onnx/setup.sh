#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches the pinned wheels, lets ONNX write its backend node test cases, and prints the directory that has them, which is in the
# cache. The work tree stays as it is.
set -euo pipefail

usage() {
	cat <<-'END'
	usage: setup.sh [--help]

	Fetches the wheels of requirements.txt with what they need, 40 MB, into a Python environment of its own; 64 MB of cases are
	kept in onnx/ of the cache, and nothing else. A second run finds them complete and returns at once.

	Environment:
	  NPUEMU_CACHE  the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  CI            as root, install Python's venv with apt-get if it is missing instead of naming it
	END
}

say() { printf 'onnx: %s\n' "$*" >&2; }
die() {
	printf 'onnx: error: %s\n' "$1" >&2
	shift
	printf 'onnx: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ $cache == /* ]] || die "the cache directory $cache is not an absolute path" "set NPUEMU_CACHE to one"
dir=$cache/onnx
stamp=$(cat "$here/requirements.txt" "$here/nodes.py" "$0" | sha256sum | cut -d' ' -f1)
mkdir -p "$cache" || die "cannot create $cache" "set NPUEMU_CACHE to a writable directory"
exec 9>"$cache/onnx.lock"
flock 9
if [[ $(cat "$dir/stamp" 2>/dev/null) == "$stamp" ]]; then
	printf '%s\n' "$dir/nodes"
	exit 0
fi

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
	if [[ $(id -u) == 0 && -n ${CI:-} ]]; then
		say "installing python3-venv on this machine"
		{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3-venv; } >&2
	else
		die "python3 is missing on this machine, or its modules venv and ensurepip" "apt-get install python3-venv"
	fi
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
	die "python3 is $(python3 -V | cut -d' ' -f2); the pinned wheels need 3.11" "use Debian 12 or later, or Ubuntu 24.04 or later"
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 500)) || die "$cache has $avail MB free; 500 MB are needed while unpacking" "free some space, or set NPUEMU_CACHE"

say "fetching $(tr '\n' ' ' <"$here/requirements.txt")"
new=$dir.new
rm -rf "$new"
mkdir -p "$new"
python3 -m venv "$new/python" >&2
"$new/python/bin/pip" -q --disable-pip-version-check install --only-binary :all: -r "$here/requirements.txt" >&2 ||
	die "the wheels cannot be had from the package index" "check the network and run this again"
say "writing the cases: $("$new/python/bin/python" -W ignore "$here/nodes.py" "$new/nodes")"
rm -rf "$new/python"
printf '%s\n' "$stamp" >"$new/stamp"
rm -rf "$dir"
mv "$new" "$dir"
printf '%s\n' "$dir/nodes"
