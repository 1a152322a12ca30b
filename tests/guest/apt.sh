# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by scripts that fetch Debian packages: an apt of their own, with lists, archives and package status below one
# directory. Nothing is installed on the host and the host's own apt state is neither used nor changed. Needs the functions
# say and die of the script.

# apt_state DIR [ARCH] writes DIR/apt.conf for this architecture besides amd64. Of the host's configuration only the
# network part stays (proxy, certificates, date checks). Archives of a run that was interrupted are kept.
apt_state() {
	mkdir -p "$1"
	find "$1" -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +
	mkdir -p "$1"/{conf.d,sources.d,trusted.d,state/lists/partial,cache/archives/partial}
	: >"$1/status"
	apt-config dump | grep '^Acquire::' | grep -v '^Acquire::\(IndexTargets\|Languages\|GzipIndexes\)' >"$1/conf.d/host" || true
	cat >"$1/apt.conf" <<-END
	Dir::Etc::Parts "$1/conf.d";
	Dir::Etc::Main "/dev/null";
	Dir::Etc::Preferences "$1/preferences";
	Dir::Etc::PreferencesParts "/dev/null";
	Dir::State "$1/state";
	Dir::State::status "$1/status";
	Dir::Cache "$1/cache";
	APT::Architecture "amd64";
	APT::Architectures { "amd64";${2:+ "$2";} };
	APT::Install-Recommends "0";
	APT::Install-Suggests "0";
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	Acquire::Retries "3";
	Debug::NoLocking "1";
	END
}

# apt_host DIR NAME WHY REMEDY unpacks a package of the host's own distribution below DIR/NAME.
apt_host() {
	if [[ ! -d $1-host ]]; then
		apt_state "$1-host"
		say "reading this machine's package lists into a private place"
		APT_CONFIG=$1-host/apt.conf apt-get -q update
	fi
	say "fetching package $2 of $PRETTY_NAME: $3"
	(cd "$1-host" && APT_CONFIG=$1-host/apt.conf apt-get -q download "$2") ||
		die "package $2 of $PRETTY_NAME cannot be had" "$4"
	dpkg-deb -x "$1-host/$2"_*.deb "$1/$2"
}

# apt_debian DIR [ARCH] makes apt-get one of Debian's trixie and its backports, of which the newest counts, with all state below
# DIR and DIR-host, and reads the package lists. Sets mirror, the URI of what it found, and exports APT_CONFIG.
apt_debian() {
	local dir=$1 arch=${2-} keyring='' k
	apt_state "$@"
	# shellcheck source=/dev/null
	. /etc/os-release
	mirror=${NPUEMU_DEBIAN_MIRROR:-}
	if [[ -z $mirror && $ID == debian ]]; then
		# apt itself reads its sources, in both formats. The archive that carries this release's main component
		# and calls itself debian comes before any other that uses the same names.
		mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
			awk -v c="$VERSION_CODENAME" '($1 == c || $1 ~ /^(stable|testing|unstable|sid)$/) && $2 == "main" && $3 !~ /^(cdrom|file|copy):/ { print ($3 ~ /debian(\/|\.list)?$/ ? 0 : 1), $3 }' |
			sort -s -k1,1n | awk 'NR == 1 { print $2 }')
	fi
	if [[ -z $mirror ]]; then
		apt_host "$dir" debootstrap "it names Debian's default mirror" "set NPUEMU_DEBIAN_MIRROR to the URI of a Debian mirror"
		mirror=$(sed -n 's/^DEF_MIRROR="\(.*debian.*\)"$/\1/p' "$dir/debootstrap/usr/sbin/debootstrap")
		[[ -n $mirror ]] || die "no Debian mirror found in package debootstrap" "set NPUEMU_DEBIAN_MIRROR to the URI of a Debian mirror"
	fi

	for k in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[[ ! -e $k ]] || keyring=$k
	done
	if [[ -z $keyring ]]; then
		apt_host "$dir" debian-archive-keyring "Debian's signing keys" "apt-get install debian-archive-keyring"
		for k in "$dir"/debian-archive-keyring/usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
			[[ ! -e $k ]] || keyring=$k
		done
	fi
	# Read by apt's verifier, which may run with another identity than ours.
	cp -L "$keyring" "$dir/debian.${keyring##*.}"

	cat >>"$dir/conf.d/sources" <<-END
	Dir::Etc::SourceList "/dev/null";
	Dir::Etc::SourceParts "$dir/sources.d";
	Dir::Etc::Trusted "/dev/null";
	Dir::Etc::TrustedParts "$dir/trusted.d";
	END
	cat >"$dir/sources.d/debian.sources" <<-END
	Types: deb
	URIs: $mirror
	Suites: trixie trixie-backports
	Components: main
	Signed-By: $dir/debian.${keyring##*.}
	END
	# The newest of both suites: the kernel and QEMU of backports need libraries and tools of backports.
	printf '%s\n' 'Package: *' 'Pin: release n=trixie-backports' 'Pin-Priority: 500' >"$dir/preferences"
	export APT_CONFIG=$dir/apt.conf

	say "reading Debian's package lists ($((${#arch} ? 20 : 10)) MB) from $mirror"
	apt-get -q update -o APT::Update::Error-Mode=any ||
		die "Debian's package lists cannot be had from $mirror, or their signature is not valid" \
			"check the network and the clock, and for https that ca-certificates is installed" \
			"on NO_PUBKEY install the debian-archive-keyring package of Debian 12 or later, or of Ubuntu 24.04 or later" \
			"or set NPUEMU_DEBIAN_MIRROR to the URI of another mirror"
}
