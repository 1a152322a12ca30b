#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh OUT: builds into OUT the measuring client and, where NPUEMU_LIBVFIO_USER_PREFIX names a place where
# libvfio-user is installed (include/libvfio-user.h, and libvfio-user.so below lib), the trivial device that it serves.
# Exit status 0: both; 3: only the client, and why on standard error.
set -euo pipefail

out=$1
here=$(cd "$(dirname "$0")" && pwd)
prefix=${NPUEMU_LIBVFIO_USER_PREFIX:-}
cc=${CC:-cc}

say() { printf 'bench-transport: %s\n' "$*" >&2; }
no_peer() {
	say "libvfio-user is not measured: $1"
	say "remedy: $2"
	exit 3
}

command -v "$cc" >/dev/null || {
	say "no C compiler; the measuring client is written in C"
	say "remedy: apt-get install gcc libc6-dev"
	exit 1
}
mkdir -p "$out"
"$cc" -O2 -Wall -o "$out/client" "$here/client.c"

install='install it as its own documentation says, and set NPUEMU_LIBVFIO_USER_PREFIX to where'
[[ -n $prefix ]] || no_peer "NPUEMU_LIBVFIO_USER_PREFIX is not set" "$install"
[[ -f $prefix/include/libvfio-user.h ]] || no_peer "$prefix/include/libvfio-user.h is missing" "$install"
lib=$(find "$prefix"/lib* -name libvfio-user.so -print -quit 2>/dev/null || true)
[[ -n $lib ]] || no_peer "there is no libvfio-user.so below $prefix/lib" "$install"
lib=$(cd "$(dirname "$lib")" && pwd)
"$cc" -O3 -D_GNU_SOURCE -I"$prefix/include" -o "$out/peer" "$here/peer.c" -L"$lib" -Wl,-rpath,"$lib" -lvfio-user >&2 ||
	no_peer "the device for it does not compile" "see the messages above"
