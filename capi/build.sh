#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds libnpuemu and puts it and its header into a directory.
# usage: build.sh DIRECTORY VERSION
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$here"
# The name that programs look for at run time has the major of the interface (npuemu.h).
so=libnpuemu.so.$(sed -n 's/^#define NPUEMU_ABI_MAJOR //p' npuemu.h)
CGO_ENABLED=1 ${GO:-go} build -buildmode=c-shared -trimpath \
	-ldflags "-s -w -X main.version=$2 -extldflags '-Wl,-soname,$so -Wl,--version-script=$here/npuemu.map'" -o "$dir/$so.part" .
rm -f "$dir/$so.h" "${dir:?}/libnpuemu.so.h" "$dir/$so.part.h" "$dir/libnpuemu.so.part.h" # cgo's own: npuemu.h is the interface
mv "$dir/$so.part" "$dir/$so"
ln -sf "$so" "$dir/libnpuemu.so"
cp npuemu.h "$dir/npuemu.h"
