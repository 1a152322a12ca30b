#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the tool root: one directory, outside the work tree, that holds QEMU, the guest kernels with their
# headers, the compiler that built them, compilers, a debugger and an emulator for RISC-V, and a static busybox, all
# of them Debian packages. What arm64 guests need comes on top when it is asked for.
# Nothing is installed on the host and the host's own apt state is neither used nor changed.
set -euo pipefail

usage() {
	cat <<-'END'
	usage: setup.sh [--help] [--print-cache] [--arm64]

	Fetches the guest environment for `make demo` and `make test` into a cache directory: about 540 MB of
	Debian packages, 1.7 GB unpacked. A second run finds it complete and returns at once. No root needed.

	  --print-cache   print the cache directory and exit
	  --arm64         what arm64 guests need as well, from now on: another 160 MB, 0.4 GB unpacked

	Environment:
	  NPUEMU_CACHE          the cache directory [${XDG_CACHE_HOME:-~/.cache}/npuemu]
	  NPUEMU_DEBIAN_MIRROR  URI of a Debian mirror [that of this machine's apt sources; on Ubuntu the default
	                        of the debootstrap package]
	  NPUEMU_QEMU           path of a qemu-system-x86_64 with the vfio-user-pci device, used instead of
	                        Debian's [that of this machine if it has the device]
	  CI                    as root, install missing host tools with apt-get instead of naming them
	END
}

say() { printf 'setup: %s\n' "$*"; }
die() {
	printf 'setup: error: %s\n' "$1" >&2
	shift
	printf 'setup: remedy: %s\n' "$@" >&2
	exit 1
}

# shellcheck source=apt.sh
. "$(dirname "$0")/apt.sh"

cache=${NPUEMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/npuemu}
arm64=
case ${1-} in
'') ;;
--arm64) arm64=1 ;;
--help | -h) usage; exit 0 ;;
--print-cache) printf '%s\n' "$cache"; exit 0 ;;
*) usage >&2; exit 2 ;;
esac
[[ $cache == /* ]] || die "the cache directory $cache is not an absolute path" "set NPUEMU_CACHE to one"

root=$cache/toolroot
manifest=$cache/manifest
self=$(sha256sum "$0" | cut -d' ' -f1)

# The host's QEMU is as good as Debian's if it has the device, which QEMU gained in 10.1.
host_qemu=
for q in "${NPUEMU_QEMU:-}" "$(command -v qemu-system-x86_64 || true)"; do
	if [[ -n $q ]] && "$q" -device help 2>/dev/null | grep -q '"vfio-user-pci"'; then
		host_qemu=$(realpath "$q")
		break
	fi
	[[ -z $q || $q != "${NPUEMU_QEMU:-}" ]] ||
		die "NPUEMU_QEMU=$q does not run or has no vfio-user-pci device" \
			"point it at qemu-system-x86_64 10.1 or later, or unset it to use Debian's"
done

# complete reports whether this very script found the tool root complete, for this QEMU and for what is asked for.
complete() {
	[[ -f $manifest ]] && grep -qxF "setup $self" "$manifest" && grep -qxF "host-qemu ${host_qemu:-none}" "$manifest" &&
		{ [[ -z $arm64 ]] || grep -qxF "arch arm64" "$manifest"; }
}
if complete; then
	say "complete: $cache"
	exit 0
fi

# --- host tools -------------------------------------------------------------------------------------------

[[ $(uname -s)/$(uname -m) == Linux/x86_64 ]] ||
	die "this machine is $(uname -s)/$(uname -m); the tool root holds Linux/x86-64 programs" "use an x86-64 Linux machine"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	die "apt-get and dpkg-deb are needed to fetch and verify Debian packages" "use Debian 12 or later, or Ubuntu 24.04 or later"
missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need flock util-linux
need unshare util-linux
need tar tar
command -v sqv >/dev/null || need gpgv gpgv
if ((${#missing[@]})); then
	if [[ $(id -u) == 0 && -n ${CI:-} ]]; then
		say "installing ${missing[*]} on this machine: apt's signature check and the unpacking use them"
		apt-get -q update
		DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}"
	else
		die "missing on this machine: ${missing[*]}" "apt-get install ${missing[*]}"
	fi
fi

mkdir -p "$cache" || die "cannot create $cache" "set NPUEMU_CACHE to a writable directory"
exec 9>"$cache/lock"
if ! flock -n 9; then
	say "waiting for whoever uses or builds the tool root in $cache"
	flock 9
fi
if complete; then
	say "complete: $cache"
	exit 0
fi
# What was wanted once stays.
[[ ! -f $manifest ]] || ! grep -qxF "arch arm64" "$manifest" || arm64=1
avail=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1024) }')
((avail >= 2500)) || die "$cache has $avail MB free; 2500 MB are needed while unpacking" \
	"free some space, or set NPUEMU_CACHE to a directory on another file system"

# --- packages ---------------------------------------------------------------------------------------------

work=$cache/apt
say "tool root: $root"
apt_debian "$work" ${arm64:+arm64}

# kernel SUITE ARCH prints the packages that SUITE's default kernel is made of: image and headers.
kernel() {
	apt-cache show --no-all-versions -o APT::Default-Release="$1" "linux-image-$2:$2" "linux-headers-$2:$2" |
		grep '^Depends:' | grep -oE 'linux-(image|headers)-[0-9][^ ,]*' | sed "s/\$/:$2/" | grep . ||
		die "$mirror has no linux-image-$2 in $1" "set NPUEMU_DEBIAN_MIRROR to a complete mirror"
}
# resolve PACKAGE... prints a line for each of them and of what they need, as apt-get --print-uris does: URI, file, size,
# hash. The package status and the archive directory are empty, so this is the whole closure: nothing is taken from
# the host and nothing counts as fetched.
mkdir -p "$work/none/partial"
resolve() {
	apt-get -qq --print-uris install -y -o Dir::Cache::archives="$work/none" "$@" ||
		die "the packages do not resolve on $mirror" "try again later: a mirror may be in the middle of an update"
}
kernels=$(kernel trixie amd64 && kernel trixie-backports amd64)
# shellcheck disable=SC2206 # words wanted
packages=($kernels
	busybox-static kmod xz-utils # the guest's user space; depmod; modules are compressed
	pciutils # what a guest says of the card
	gcc-14 make libc6-dev bash dash coreutils sed grep mawk findutils diffutils perl # modules and guest programs
	gcc-riscv64-unknown-elf # firmware
	clang lld # firmware again: it must not depend on one compiler
	gdb-multiarch # judges the debugger's road to the control processor
	sparse # judges the driver's source
	qemu-system-riscv # judges the control processor
	qemu-system-x86) # also when the host's is used: changing one's mind shall not cost a new tool root
closure=$(resolve "${packages[@]}")
if [[ -n $arm64 ]]; then
	kernels=$(kernel trixie-backports arm64)
	# shellcheck disable=SC2206 # words wanted
	packages+=($kernels libc6-dev-arm64-cross qemu-system-arm)
	more=$(resolve "${packages[@]}")
	# It conflicts with the other architecture's, and needs nothing.
	busybox=$(apt-get -qq --print-uris download busybox-static:arm64) ||
		die "$mirror has no busybox-static for arm64" "set NPUEMU_DEBIAN_MIRROR to a complete mirror"
	closure=$(printf '%s\n' "$closure" "$more" "$busybox" | awk '!seen[$2]++')
fi
# names turns lines of resolve into "PACKAGE VERSION", with ":arm64" after what is for that architecture.
names() {
	awk '{ print $2 }' | sed 's/%3a/:/; s/_/ /; s/^\([^ ]*\) \(.*\)_arm64\.deb$/\1:arm64 \2/; s/_[a-z0-9]*\.deb$//'
}
new=$cache/manifest.new
{
	echo "setup $self"
	echo "host-qemu ${host_qemu:-none}"
	echo "layout 1"
	[[ -z $arm64 ]] || echo "arch arm64"
	names <<<"$closure" | sed 's/^/package /' | LC_ALL=C sort
} >"$new"

# --- fetch and unpack -------------------------------------------------------------------------------------

# If all that the tool root holds is still wanted, what it lacks is added to it; if not, a new one takes its place.
to=$root.new
if [[ -f $manifest && -d $root ]] && [[ -z $(grep -E '^(layout|package) ' "$manifest" | grep -vxFf "$new") ]]; then
	to=$root
	closure=$(paste -d ' ' <(names <<<"$closure" | sed 's/^/package /') - <<<"$closure" |
		awk 'NR == FNR { have[$0] = 1; next } !(($1 " " $2 " " $3) in have) { print $4, $5, $6 }' "$manifest" -)
	# Other versions of this script, from other work trees, found it complete: it stays so for them.
	grep '^setup ' "$manifest" | grep -vxF "setup $self" >>"$new" || true
fi
if [[ -z $closure ]]; then
	say "the tool root already holds these package versions"
else
	awk '{ n++; s += $3 } END { printf "setup: fetching %d packages, %d MB\n", n, s / 1e6 }' <<<"$closure"
	mapfile -t wanted < <(names <<<"$closure" | tr ' ' '=')
	(cd "$work/cache/archives" && apt-get -q download "${wanted[@]}") ||
		die "packages cannot be had from $mirror" "check the network and run this again"

	say "unpacking"
	rm -rf "$root.new"
	mkdir -p "$to"/{usr/{bin,sbin,lib,lib64},dev,build,tmp}
	for d in bin sbin lib lib64; do ln -sfn usr/$d "$to/$d"; done
	if [[ -n $arm64 ]]; then
		mkdir -p "$to/arm64/usr/lib"
		ln -sfn usr/lib "$to/arm64/lib"
	fi
	rm -f "$manifest" # from here until the end the tool root counts as absent
	# Two at a time: decompression is what takes the time. What runs in arm64 guests goes to a root of its own; the
	# compiler and the kernel headers are for the compiler's machine. Device trees are for boards.
	awk -v dir="$work/cache/archives/" '{ printf "%s%s%c", dir, $2, 0 }' <<<"$closure" | xargs -0 -n 8 -P 2 bash -euc '
		set -o pipefail
		for deb; do
			to=$0
			case ${deb##*/} in
			linux-headers-* | *-for-host_*) ;;
			*_arm64.deb) to=$0/arm64 ;;
			esac
			dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$to" --no-same-owner --keep-directory-symlink \
				--exclude=./usr/share/{doc,man,locale,info,lintian} --exclude="./usr/lib/debug" \
				--exclude="./usr/lib/modules/*/dtb"
		done' "$to" || die "unpacking failed" "look above for the reason; free disk space is the usual one"
	ln -sf dash "$to/usr/bin/sh"
	ln -sf mawk "$to/usr/bin/awk"
	ln -sf gcc-14 "$to/usr/bin/gcc"
	# The packages' scripts do not run, so the module dependencies are computed here.
	for modules in "$to"/usr/lib/modules/*/kernel "$to"/arm64/usr/lib/modules/*/kernel; do
		dir=${modules%/kernel}
		[[ -d $modules && ! -e $dir/modules.dep ]] || continue
		say "module dependencies of kernel ${dir##*/}"
		"$to/lib64/ld-linux-x86-64.so.2" --library-path "$to/usr/lib/x86_64-linux-gnu" --argv0 depmod \
			"$to/usr/bin/kmod" -b "${dir%/usr/lib/modules/*}" "${dir##*/}"
	done
	if [[ $to != "$root" ]]; then
		rm -rf "$root"
		mv "$to" "$root"
	fi
fi

# A program of the tool root runs on the host through the tool root's own loader: the host's C library may be older.
mkdir -p "$cache/bin"
# qemu NAME [PATH] makes $cache/bin/NAME start the tool root's QEMU, or that at PATH.
qemu() {
	if [[ -n ${2-} ]]; then
		printf '#!/bin/sh\nexec %q "$@"\n' "$2" >"$cache/bin/qemu.new"
	else
		cat >"$cache/bin/qemu.new" <<-'END'
		#!/bin/sh
		root=$(dirname "$(dirname "$0")")/toolroot
		export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
		exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
			"$root/usr/bin/${0##*/}" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
		END
	fi
	chmod +x "$cache/bin/qemu.new"
	mv "$cache/bin/qemu.new" "$cache/bin/$1"
	[[ $1 == qemu-system-riscv32 ]] || "$cache/bin/$1" -device help 2>/dev/null | grep -q '"vfio-user-pci"' ||
		die "$cache/bin/$1 does not run or has no vfio-user-pci device" \
			"set NPUEMU_QEMU to a qemu-system-x86_64 10.1 or later"
}
qemu qemu-system-x86_64 "$host_qemu"
[[ -z $arm64 ]] || qemu qemu-system-aarch64
qemu qemu-system-riscv32
cat >"$cache/bin/gdb.new" <<-'END'
#!/bin/sh
root=$(dirname "$(dirname "$0")")/toolroot
export PYTHONHOME="$root/usr" # its own scripts are Python of its own version
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
	"$root/usr/bin/gdb-multiarch" --data-directory="$root/usr/share/gdb" "$@"
END
chmod +x "$cache/bin/gdb.new"
mv "$cache/bin/gdb.new" "$cache/bin/gdb-multiarch"

mv "$new" "$manifest"
rm -rf "$work" "$work-host"
say "done: $(du -sm "$cache" | cut -f1) MB in $cache"
