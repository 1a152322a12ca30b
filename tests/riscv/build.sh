# SPDX-License-Identifier: Apache-2.0
#
# Runs in the tool root, in a directory with the sources (setup.sh): builds the suites into programs/. Everything is built
# without compressed instructions (-nc) where it has none of its own, and with them (-c).
set -eu
mkdir programs

# gcc OUTPUT MARCH ARGUMENT...
gcc() {
	out=programs/$1 march=$2
	shift 2
	riscv64-unknown-elf-gcc -march="$march" -mabi=ilp32 -static -mcmodel=medany -fvisibility=hidden -nostdlib -nostartfiles \
		-Wl,--no-warn-rwx-segments -o "$out" "$@"
}
plain=rv32ima_zicsr_zifencei compressed=rv32imac_zicsr_zifencei

for suite in rv32ui rv32um rv32ua rv32mi rv32uc; do
	for source in riscv-tests/isa/$suite/*.S; do
		name=$suite-p-$(basename "$source" .S)
		set -- -Iriscv-test-env/p -Iriscv-tests/isa/macros/scalar -Triscv-test-env/p/link.ld "$source"
		[ $suite = rv32uc ] || gcc "$name-nc" $plain "$@"
		gcc "$name-c" $compressed "$@"
	done
done

for suite in I M A C Zifencei privilege; do
	for source in riscv-arch-test/riscv-test-suite/rv32i_m/$suite/src/*.S; do
		case $(grep RVTEST_ISA "$source") in
		*Zcb*) continue ;; # which the hart does not have
		esac
		name=arch-$suite-$(basename "$source" .S)
		# What a test is to be compiled with is in its own conditions: "def NAME=VALUE;".
		defines=$(grep RVTEST_CASE "$source" | grep -o 'def [A-Za-z0-9_]*=[A-Za-z0-9_]*' | sed 's/def /-D/' | sort -u)
		# shellcheck disable=SC2086 # a list of words
		set -- -DXLEN=32 $defines -Imodel -Iriscv-arch-test/riscv-test-suite/env -Tmodel/link.ld "$source"
		case $suite in
		C | privilege) ;;
		*) gcc "$name-nc" $plain "$@" ;;
		esac
		gcc "$name-c" $compressed "$@"
	done
done
