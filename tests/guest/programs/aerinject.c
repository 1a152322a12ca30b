/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aerinject makes the kernel believe that a PCI function reported an error; the kernel's
 * aer_inject module does the rest.
 *
 * usage: aerinject DDDD:BB:DD.F UNCORRECTABLE CORRECTABLE   (bits of the AER status registers)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As in the kernel's drivers/pci/pcie/aer_inject.c. */
struct error {
	uint8_t bus;
	uint8_t dev;
	uint8_t fn;
	uint32_t uncorrectable;
	uint32_t correctable;
	uint32_t header[4];
	uint32_t domain;
};

int main(int argc, char **argv)
{
	unsigned int domain, bus, dev, fn;
	struct error e = { 0 };
	int file;

	if (argc != 4 || sscanf(argv[1], "%x:%x:%x.%x", &domain, &bus, &dev, &fn) != 4) {
		fprintf(stderr, "usage: aerinject DDDD:BB:DD.F UNCORRECTABLE CORRECTABLE\n");
		return 2;
	}
	e.domain = domain;
	e.bus = bus;
	e.dev = dev;
	e.fn = fn;
	e.uncorrectable = strtoul(argv[2], NULL, 0);
	e.correctable = strtoul(argv[3], NULL, 0);
	file = open("/dev/aer_inject", O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, &e, sizeof(e)) != sizeof(e)) {
		fprintf(stderr, "aerinject: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}
