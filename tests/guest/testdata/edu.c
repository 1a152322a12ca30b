// SPDX-License-Identifier: Apache-2.0
/*
 * Reads the identification register of QEMU's edu device (docs/specs/edu.rst) through its PCI resource file, asks it
 * for 5!, and prints both.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	volatile uint32_t *bar;
	int fd;

	if (argc != 2)
		return 2;
	fd = open(argv[1], O_RDWR);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	bar = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bar == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	bar[0x08 / 4] = 5;
	while (bar[0x20 / 4] & 1)
		;
	printf("%08x %u\n", bar[0], bar[0x08 / 4]);
	return 0;
}
