// SPDX-License-Identifier: Apache-2.0
/*
 * mmiobench ROUNDS COUNT { NAME FILE OFFSET read|write }...
 *
 * Times 4-byte accesses to registers of PCI functions. FILE is a BAR (resourceN in sysfs). In each of ROUNDS rounds
 * every line of the list does COUNT accesses in turn, so that a slow moment of the machine meets all alike. Then one
 * line for each: NAME, and the median and the minimum over the rounds of the time of an access in nanoseconds; for
 * writes followed by the same two for writes that are in the device for sure, because a read came after the last.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct line {
	const char *name;
	volatile uint32_t *reg;
	int write;
	double *issued, *drained; /* ns an access, by round */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static volatile uint32_t *map(const char *path, unsigned long off)
{
	struct stat st;
	int fd = open(path, O_RDWR);
	char *p;

	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", path);
	if (off + 4 > (unsigned long)st.st_size)
		errx(1, "%s has %ld bytes", path, (long)st.st_size);
	p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		err(1, "mmap %s", path);
	close(fd);
	return (volatile uint32_t *)(p + off);
}

static void measure(struct line *l, int round, int count)
{
	double start = now(), end;

	for (int i = 0; i < count; i++) {
		if (l->write)
			*l->reg = i;
		else
			(void)*l->reg;
	}
	end = now();
	l->issued[round] = (end - start) / count;
	if (l->write) {
		(void)*l->reg;
		l->drained[round] = (now() - start) / count;
	}
}

static int ascending(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

static void print(double *ns, int rounds)
{
	qsort(ns, rounds, sizeof(*ns), ascending);
	printf(" %.1f %.1f", ns[rounds / 2], ns[0]);
}

int main(int argc, char **argv)
{
	int rounds, count, n = (argc - 3) / 4;
	struct line *lines;

	if (argc < 7 || (argc - 3) % 4)
		errx(2, "usage: mmiobench ROUNDS COUNT { NAME FILE OFFSET read|write }...");
	rounds = atoi(argv[1]);
	count = atoi(argv[2]);
	lines = calloc(n, sizeof(*lines));
	if (rounds < 1 || count < 1 || !lines)
		errx(2, "ROUNDS and COUNT are numbers above 0");
	for (int i = 0; i < n; i++) {
		char **a = argv + 3 + 4 * i;

		lines[i].name = a[0];
		lines[i].reg = map(a[1], strtoul(a[2], NULL, 0));
		lines[i].write = !strcmp(a[3], "write");
		lines[i].issued = calloc(rounds, sizeof(double));
		lines[i].drained = calloc(rounds, sizeof(double));
		if (!lines[i].issued || !lines[i].drained)
			err(1, "calloc");
		measure(&lines[i], 0, 100); /* warm */
	}
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < n; i++)
			measure(&lines[i], r, count);
	for (int i = 0; i < n; i++) {
		printf("%s", lines[i].name);
		print(lines[i].issued, rounds);
		if (lines[i].write)
			print(lines[i].drained, rounds);
		printf("\n");
	}
	return 0;
}
