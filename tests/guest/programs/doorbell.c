// SPDX-License-Identifier: Apache-2.0
/*
 * Measures what telling the device of a job costs.
 *
 *	doorbell jobs N		N jobs of a NOP, one after the other, then N jobs of which
 *				several are under way; prints times and counters
 *	doorbell register FILE N
 *				N writes to a register that does nothing by itself, in BAR0
 *				behind FILE (resource0), and N stores and loads of memory
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "npu.h"

#define IMAGE_ADDR_LO	0x148	/* §2.1: read by the device only when a boot starts */
#define DEPTH		16	/* jobs under way */
#define TIMEOUT_MS	60000

static void check(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "doorbell: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static void submit(int fd, uint32_t timeline, uint64_t point)
{
	struct drm_npu_command nop = { .type = DRM_NPU_COMMAND_NOP };
	struct drm_npu_sync out = { .handle = timeline, .point = point };
	uint64_t seqno;

	check(npu_submit(fd, &nop, 1, NULL, 0, &out, 1, &seqno), "submit");
}

static void jobs(uint64_t n)
{
	struct drm_npu_counters counters[3];
	uint32_t timeline;
	double seconds[2];
	uint64_t i, point = 0;
	int fd = npu_open(), run;

	check(fd, "open /dev/accel/*");
	check(npu_syncobj_create(fd, &timeline), "syncobj");
	submit(fd, timeline, ++point); /* makes the file's queue */
	check(npu_wait(fd, timeline, point, TIMEOUT_MS), "wait");

	check(npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &counters[0], sizeof(counters[0])),
	      "counters");
	for (run = 0; run < 2; run++) {
		uint64_t depth = run ? DEPTH : 1;

		seconds[run] = npu_now();
		for (i = 0; i < n; i++) {
			submit(fd, timeline, ++point);
			if (i + 1 >= depth)
				check(npu_wait(fd, timeline, point - depth + 1, TIMEOUT_MS), "wait");
		}
		check(npu_wait(fd, timeline, point, TIMEOUT_MS), "wait");
		seconds[run] = npu_now() - seconds[run];
		check(npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &counters[run + 1],
				sizeof(counters[0])), "counters");
	}
	printf("{\"jobs\": %llu, \"alone\": {\"seconds\": %.4f, \"counters\": ",
	       (unsigned long long)n, seconds[0]);
	npu_print_counters(&counters[0], &counters[1]);
	printf("}, \"queued\": {\"seconds\": %.4f, \"counters\": ", seconds[1]);
	npu_print_counters(&counters[1], &counters[2]);
	printf("}}\n");
}

static void registers(const char *path, uint64_t n)
{
	static _Alignas(64) volatile uint32_t line[16];
	volatile uint32_t *bar;
	double trapped, stored;
	uint64_t i, rung = 0;
	int fd = open(path, O_RDWR);
	void *map;

	check(fd < 0 ? -errno : 0, path);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map == MAP_FAILED ? -errno : 0, "mmap");
	bar = map;
	trapped = npu_now();
	for (i = 0; i < n; i++)
		bar[IMAGE_ADDR_LO / 4] = (uint32_t)i;
	trapped = npu_now() - trapped;
	stored = npu_now();
	for (i = 0; i < n; i++) {
		line[0] = (uint32_t)i;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		rung += line[2];
	}
	stored = npu_now() - stored;
	printf("{\"writes\": %llu, \"trapped_us\": %.4f, \"stored_us\": %.4f, \"rung\": %llu}\n",
	       (unsigned long long)n, 1e6 * trapped / n, 1e6 * stored / n, (unsigned long long)rung);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "jobs")) {
		jobs(strtoull(argv[2], NULL, 0));
	} else if (argc == 4 && !strcmp(argv[1], "register")) {
		registers(argv[2], strtoull(argv[3], NULL, 0));
	} else {
		fprintf(stderr, "usage: doorbell jobs N\n       doorbell register FILE N\n");
		return 2;
	}
	return 0;
}
