#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the wheel: package, library and program. It needs a C compiler with binutils and, the first time, PyPI.
# usage: wheel.sh DIRECTORY VERSION
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
venv=$dir/wheel-venv
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$venv/requirements.txt"
fi
"$here/../capi/build.sh" "$dir" "$2"
# The newest symbol of glibc that the library uses names the oldest glibc that has all.
glibc=$(objdump -T "$dir/libnpuemu.so" | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
NPUEMU_PLATFORM=manylinux_2_${glibc#GLIBC_2.}_$(uname -m)
# v1.2.3-4-gabc-dirty is 1.2.3.post4+gabc.dirty, and abc, where there is no tag, 0+gabc.
NPUEMU_VERSION=$(echo "$2" | sed 's/-dirty$/.dirty/' | sed -nE '
	s/^v?([0-9]+(\.[0-9]+)*)-([0-9]+)-(g[0-9a-f]+(\.dirty)?)$/\1.post\3+\4/p; t
	s/^v?([0-9]+(\.[0-9]+)+)\.dirty$/\1+dirty/p; t
	s/^v?([0-9]+(\.[0-9]+)+)$/\1/p; t
	s/^([0-9a-f]{7,40}(\.dirty)?)$/0+g\1/p; t
	s/^.*$/0+unknown/p')
export NPUEMU_PLATFORM NPUEMU_VERSION
rm -rf "$dir/wheel"
mkdir "$dir/wheel"
cp -r "$here/pyproject.toml" "$here/setup.py" "$here/README.md" "$here/npuemu" "$here/../LICENSE" "$dir/wheel"
cp -L "$dir/libnpuemu.so" "$dir/wheel/npuemu/libnpuemu.so"
(cd "$here/.." && CGO_ENABLED=0 ${GO:-go} build -trimpath -ldflags "-s -w -X main.version=$2" -o "$dir/wheel/npuemu/npuemu" ./cmd/npuemu)
rm -f "$dir"/npuemu-*.whl
(cd "$dir/wheel" && "$venv/bin/python" -m build --quiet --wheel --no-isolation --outdir "$dir" >/dev/null 2>"$dir/wheel/log") || { cat "$dir/wheel/log" >&2; exit 1; }
"$venv/bin/auditwheel" show "$dir"/npuemu-*.whl >"$dir/wheel/audit"
grep -q "$NPUEMU_PLATFORM" "$dir/wheel/audit" || { cat "$dir/wheel/audit"; echo "wheel: auditwheel does not call it $NPUEMU_PLATFORM" >&2; exit 1; }
rm -rf "$dir/wheel"
echo "$dir"/npuemu-*.whl
