#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds User-mode Linux into the cache, for `make test-uml`: Debian's kernel source for ARCH=um, compiled in the tool
# root, and what modules for it are built with. The work tree stays as it is.
set -euo pipefail

usage() {
	cat <<-'END2'
	usage: setup.sh [--help]

	Needs the tool root of tests/guest/setup.sh. Fetches 155 MB, takes 5 to 15 minutes on two processors, and 3 GB
	while it builds; 100 MB stay in uml/ of the cache. A second run finds it complete and returns at once.

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources; on Ubuntu the default
	                        of the debootstrap package]
	END2
}

say() { printf 'uml: %s\n' "$*"; }
die() {
	printf 'uml: error: %s\n' "$1" >&2
	shift
	printf 'uml: remedy: %s\n' "$@" >&2
	exit 1
}
case ${1-} in
'') ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../guest/apt.sh
. "$here/../guest/apt.sh"
cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
[[ -f $cache/manifest ]] || die "there is no tool root in $cache" "run make setup"
# What decides the result: the commands in the tool root, below, and the configuration.
stamp=$({ sed -n '/^cat >"$work\/src\/build"/,/^END2$/p' "$0" && cat "$here/config"; } | sha256sum | cut -d' ' -f1)
dir=$cache/uml
exec 9>"$cache/uml.lock"
flock 9
if [[ $(cat "$dir/stamp" 2>/dev/null) == "$stamp" ]]; then
	say "complete: $dir"
	exit 0
fi
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 4000)) || die "$cache has $avail MB free; 4000 MB are needed while building" "free some space, or set NPUEMU_CACHE"

work=$cache/uml-work
rm -rf "$work"
mkdir -p "$work/src"
apt_debian "$work/apt"
say "fetching kernel source, flex and bison"
(cd "$work" && apt-get -q download linux-source-6.12 flex bison m4 bc libreadline8t64) ||
	die "packages cannot be had from $mirror" "check the network and run this again"
for deb in "$work"/*.deb; do
	case ${deb##*/} in
	linux-source*) dpkg-deb -x "$deb" "$work/source" ;;
	*) dpkg-deb -x "$deb" "$work/src/tools" ;;
	esac
done
mv "$work"/source/usr/src/linux-source-6.12.tar.xz "$work/src/linux.tar.xz"
cp "$here/config" "$work/src/config"
cat >"$work/src/build" <<'END2'
set -eu
t=$PWD/tools
mkdir linux
xz -dc linux.tar.xz | busybox tar -x -C linux --strip-components 1
cd linux
# Drivers select the scheduler; out of tree there is none that could.
sed -i '/^config DRM_SCHED$/,/^$/s/^\ttristate$/\ttristate "GPU scheduler"/' drivers/gpu/drm/Kconfig
export PATH=$t/usr/bin:$PATH LD_LIBRARY_PATH=$t/usr/lib/x86_64-linux-gnu M4=$t/usr/bin/m4 BISON_PKGDATADIR=$t/usr/share/bison
make -s ARCH=um KCONFIG_ALLCONFIG=../config allnoconfig
grep -vxFf .config ../config | grep '^CONFIG' && { echo 'options that the kernel did not take' >&2; exit 1; }
make -s -j2 ARCH=um all
mkdir ../out
cp linux ../out/linux
# As a distribution's headers package: all of the build system, no source and no objects.
{
	find . -path ./Documentation -prune -o -path ./tools -prune -o -type f \( -name 'Makefile*' -o -name 'Kbuild*' \) -print
	find include arch/um/include arch/x86/include arch/x86/um -type f -name '*.h'
	find include/config scripts arch/um -type f ! -name '*.o' ! -name '*.cmd'
	echo .config
	echo Module.symvers
} | sort -u >../list
mkdir ../out/headers
cpio -pdm --quiet ../out/headers <../list
cd ..
rm -rf linux linux.tar.xz tools config build list
END2
say "building; it takes 5 to 15 minutes"
nice "$here/../guest/toolroot-run" --src "$work/src" --out "$work/built" -- sh build >"$work/log" 2>&1 || {
	tail -20 "$work/log" >&2
	die "the kernel does not build" "see above; the whole log is in $work/log"
}
rm -rf "$dir"
mv "$work/built/out" "$dir"
printf '%s\n' "$stamp" >"$dir/stamp"
rm -rf "$work"
say "done: $(du -sm "$dir" | cut -f1) MB in $dir"
