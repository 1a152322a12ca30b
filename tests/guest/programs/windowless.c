/* SPDX-License-Identifier: Apache-2.0 */
/*
 * windowless uses device memory that the host has no window to: it is zero when it is
 * new, it cannot be mapped, and what is copied there comes back.
 *
 * usage: windowless [/dev/accel/accelN]
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "npu.h"

#define SIZE	(2 << 20)
#define WAIT_MS	20000

static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "windowless: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void copy(int fd, const struct npu_bo *from, const struct npu_bo *to)
{
	struct drm_npu_command command = {
		.type = DRM_NPU_COMMAND_COPY,
		.copy = { .src_handle = from->handle, .dst_handle = to->handle, .nx = SIZE, .ny = 1, .nz = 1 },
	};
	struct drm_npu_job_status status;
	int ret = npu_run(fd, &command, 1, WAIT_MS, &status);

	if (ret)
		die("copy: %s", strerror(-ret));
	if (status.seqno > 4)
		die("job %llu: zeroing counts as a job of the file", (unsigned long long)status.seqno);
}

static void create(int fd, uint32_t placement, struct npu_bo *bo)
{
	int ret = npu_bo_create(fd, placement, SIZE, bo);

	if (ret)
		die("create: %s", strerror(-ret));
}

static uint64_t dram_free(int fd)
{
	struct drm_npu_device_info info;
	int ret = npu_query(fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info));

	if (ret)
		die("query: %s", strerror(-ret));
	return info.dram_free;
}

/* Jobs that used it may still hold a buffer object for a moment. */
static void destroy(int fd, struct npu_bo *bo, uint64_t free_after)
{
	int i;

	npu_bo_destroy(fd, bo);
	for (i = 0; dram_free(fd) != free_after; i++) {
		if (i == WAIT_MS / 10)
			die("device memory is not given back");
		usleep(10000);
	}
}

int main(int argc, char **argv)
{
	struct npu_bo host, device, other;
	uint64_t free_before;
	int fd, ret;
	size_t i;

	if (argc > 2) {
		fprintf(stderr, "usage: windowless [/dev/accel/accelN]\n");
		return 2;
	}
	fd = argc == 2 ? npu_open_path(argv[1]) : npu_open();
	if (fd < 0)
		die("no device: %s", strerror(-fd));
	free_before = dram_free(fd);

	create(fd, DRM_NPU_PLACEMENT_SYSTEM, &host);
	ret = npu_bo_map(fd, &host);
	if (ret)
		die("memory of the host: %s", strerror(-ret));
	create(fd, DRM_NPU_PLACEMENT_DEVICE, &device);
	if (device.mmap_offset)
		die("there is an offset to map it at");
	if (mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED || errno != EINVAL)
		die("map at 0: %s", strerror(errno));

	for (i = 0; i < SIZE; i++)
		host.map[i] = i * 7 + i / 4096;
	copy(fd, &host, &device);
	memset(host.map, 0, SIZE);
	copy(fd, &device, &host);
	for (i = 0; i < SIZE; i++)
		if (host.map[i] != (uint8_t)(i * 7 + i / 4096))
			die("byte %zu came back as %u", i, host.map[i]);

	/* The same memory again: what was there is gone. */
	destroy(fd, &device, free_before);
	create(fd, DRM_NPU_PLACEMENT_DEVICE, &other);
	copy(fd, &other, &host);
	for (i = 0; i < SIZE; i++)
		if (host.map[i])
			die("byte %zu of a new buffer object is %u", i, host.map[i]);
	destroy(fd, &other, free_before);
	printf("ok\n");
	return 0;
}
