/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sharetest checks what version 1.1 of the driver's interface lets programs share: the
 * device's queues, the usage that is told of them, and memory as dma-bufs. It prints KTAP
 * and exits with 0 if no test failed.
 *
 * usage: sharetest [-i]
 *   -i  the device is behind an IOMMU, which makes one piece of pages that are apart
 *
 * The tests want the device for themselves, root, and the kernel's vgem driver.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npu.h"

#define WAIT_MS		60000
#define PAGE		4096
#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

#define DEVICE		DRM_NPU_PLACEMENT_DEVICE
#define SYSTEM		DRM_NPU_PLACEMENT_SYSTEM

static int fd = -1;
static struct drm_npu_device_info info;
static bool joined; /* pages that are apart are one piece for the device: it has an MMU, or an IOMMU is there */

/* A copy of nx bytes, ny times over. */
static struct drm_npu_command copy(uint32_t src, uint32_t dst, uint32_t nx, uint32_t ny)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY };

	c.copy.src_handle = src;
	c.copy.dst_handle = dst;
	c.copy.nx = nx;
	c.copy.ny = ny;
	c.copy.nz = 1;
	return c;
}

/* Submits one command to a queue; in and out are syncobjs, or 0. */
static int submit(int file, uint32_t queue, const struct drm_npu_command *command, uint32_t in,
		  uint32_t out, uint64_t *seqno)
{
	struct drm_npu_sync ins = { .handle = in }, outs = { .handle = out };
	struct drm_npu_submit args = {
		.commands = { sizeof(*command), 1, (uintptr_t)command },
		.in_syncs = { sizeof(ins), in != 0, (uintptr_t)&ins },
		.out_syncs = { sizeof(outs), out != 0, (uintptr_t)&outs },
		.queue = queue,
	};
	int ret = npu_ioctl(file, DRM_IOCTL_NPU_SUBMIT, &args);

	if (seqno)
		*seqno = args.seqno;
	return ret;
}

/* Runs one command on a queue and returns its error. */
static int run(int file, uint32_t queue, const struct drm_npu_command *command)
{
	struct drm_npu_job_status status;
	uint64_t seqno = 0;
	uint32_t sync;
	int ret = npu_syncobj_create(file, &sync);

	if (ret)
		return ret;
	ret = submit(file, queue, command, 0, sync, &seqno);
	if (!ret)
		ret = npu_wait(file, sync, 0, WAIT_MS);
	npu_syncobj_destroy(file, sync);
	if (!ret)
		ret = npu_query(file, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status));
	return ret ? ret : status.error;
}

/* Queues. */

static int queue_create(int file, uint32_t *queue)
{
	struct drm_npu_queue_create args = { 0 };
	int ret = npu_ioctl(file, DRM_IOCTL_NPU_QUEUE_CREATE, &args);

	*queue = args.queue;
	return ret;
}

static int queue_destroy(int file, uint32_t queue)
{
	struct drm_npu_queue_destroy args = { .queue = queue };

	return npu_ioctl(file, DRM_IOCTL_NPU_QUEUE_DESTROY, &args);
}

/* What a user without CAP_SYS_NICE is told of a priority. */
static int unprivileged_priority(uint32_t priority)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct drm_npu_queue_create args = { .priority = priority };
		struct drm_npu_queue_destroy destroy = { 0 };
		int ret;

		if (setuid(65534))
			_exit(255);
		ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &args);
		destroy.queue = args.queue;
		if (!ret)
			ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &destroy);
		_exit(-ret);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

static void test_queue_errors(void)
{
	static const struct {
		const char *name;
		struct drm_npu_queue_create args;
		int want;
	} creates[] = {
		{ "unknown flag", { .flags = 2 }, -EINVAL },
		{ "padding", { .pad = 1 }, -EINVAL },
		{ "queue on input", { .queue = 1 }, -EINVAL },
		{ "unknown priority", { .priority = DRM_NPU_PRIORITY_MAX + 1 }, -EINVAL },
		{ "largest priority", { .priority = ~0u }, -EINVAL },
	};
	static const struct {
		const char *name;
		struct drm_npu_queue_destroy args;
		int want;
	} destroys[] = {
		{ "the implicit queue", { .queue = 0 }, -ENOENT },
		{ "a queue that never was", { .queue = 4711 }, -ENOENT },
		{ "the largest number", { .queue = ~0u }, -ENOENT },
		{ "padding", { .queue = 1, .pad = 1 }, -EINVAL },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(creates); i++) {
		struct drm_npu_queue_create args = creates[i].args;

		row_error(creates[i].want, npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &args),
			  "queue: create", creates[i].name);
	}
	for (i = 0; i < ARRAY_LEN(destroys); i++) {
		struct drm_npu_queue_destroy args = destroys[i].args;

		row_error(destroys[i].want, npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &args),
			  "queue: destroy", destroys[i].name);
	}
	row_error(-EACCES, unprivileged_priority(1), "queue: create",
		  "a priority without CAP_SYS_NICE");
	row_error(0, unprivileged_priority(0), "queue: create", "the default needs no capability");
	row_error(-ENOENT, submit(fd, 4711, &nop, 0, 0, NULL), "queue", "submit to none");
}

static void test_queue_use(void)
{
	struct drm_npu_device_info before = get_info(fd);
	struct drm_npu_job_status status;
	uint32_t queues[4], gate = make_syncobj(fd), done = make_syncobj(fd), other;
	uint64_t seqno = 0, next = 0;
	int file = npu_open(), ret = 0;
	bool good = true;
	size_t i;

	for (i = 0; i < ARRAY_LEN(queues); i++) {
		ret = queue_create(fd, &queues[i]);
		good &= !ret && queues[i] == i + 1;
	}
	row(good, "queue: several in a file, numbered from 1");
	row(get_info(fd).queues_free == before.queues_free - ARRAY_LEN(queues),
	    "queue: each takes one of the device");
	for (i = 0; i < ARRAY_LEN(queues) && !ret; i++)
		ret = run(fd, queues[i], &nop);
	row_error(0, ret, "queue", "each runs a job");
	row_error(-ENOENT, submit(file, queues[0], &nop, 0, 0, NULL), "queue",
		  "one of another file is unknown");
	row_error(0, queue_create(file, &other), "queue", "another file has its own");
	row(other == 1, "queue: numbers are the file's");

	/* Without a fence queue 1 cannot go on; queue 2 can, and opens the gate. */
	ret = submit(fd, queues[0], &nop, 0, gate, &seqno);
	row(!ret && !submit(fd, queues[1], &nop, 0, 0, &next) && next == seqno + 1,
	    "queue: jobs of a file are numbered over all queues");
	ret = submit(fd, queues[1], &nop, gate, done, NULL);
	if (!ret)
		ret = npu_wait(fd, done, 0, WAIT_MS);
	row_error(0, ret, "queue", "a job waits for one of another queue");

	row_error(0, queue_destroy(fd, queues[1]), "queue", "destroyed");
	row_error(-ENOENT, queue_destroy(fd, queues[1]), "queue", "once");
	row_error(-ENOENT, submit(fd, queues[1], &nop, 0, 0, NULL), "queue",
		  "submit to a destroyed one");
	row_error(0, run(fd, queues[0], &nop), "queue", "its neighbour works on");
	row_error(0, run(fd, 0, &nop), "queue", "so does the implicit one");
	row_error(0, queue_create(fd, &queues[1]), "queue", "made again");
	row_error(0, run(fd, queues[1], &nop), "queue", "and runs");
	for (i = 0; i < ARRAY_LEN(queues); i++)
		queue_destroy(fd, queues[i]);
	close(file);

	/* A job whose fence never comes is ended with its queue. */
	ret = queue_create(fd, &queues[0]);
	if (!ret)
		ret = submit(fd, queues[0], &nop, 0, done, &seqno);
	row_error(0, ret, "queue", "destroyed with a job in it");
	npu_wait(fd, done, 0, WAIT_MS);
	row_error(0, queue_destroy(fd, queues[0]), "queue", "is gone");
	ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status));
	row(!ret && status.state == DRM_NPU_JOB_DONE, "queue: the status of its job stays");
	npu_syncobj_destroy(fd, gate);
	npu_syncobj_destroy(fd, done);
}

/* Rows of 1 MiB that take a while. Of pages that are apart a row takes several times as long. */
static uint32_t long_rows(void)
{
	return joined ? 512 : 2048;
}

/* Jobs that run and jobs that wait are cancelled with their queue. */
static void test_queue_destroy_busy(void)
{
	struct npu_bo a = make_bo(fd, SYSTEM, 1 << 20), b = make_bo(fd, DEVICE, 1 << 20);
	struct drm_npu_command slow = copy(a.handle, b.handle, 1 << 20, long_rows());
	struct drm_npu_job_status status = { 0 };
	uint32_t queue, syncs[4];
	uint64_t seqnos[ARRAY_LEN(syncs)];
	unsigned int ended = 0, cancelled = 0;
	size_t i;
	int ret = queue_create(fd, &queue);

	for (i = 0; i < ARRAY_LEN(syncs); i++) {
		syncs[i] = make_syncobj(fd);
		if (!ret)
			ret = submit(fd, queue, &slow, 0, syncs[i], &seqnos[i]);
	}
	row_error(0, ret, "queue", "destroyed with long jobs in it");
	row_error(0, queue_destroy(fd, queue), "queue", "goes away");
	for (i = 0; i < ARRAY_LEN(syncs); i++) {
		ended += !npu_wait(fd, syncs[i], 0, 0) &&
			 !npu_query(fd, DRM_NPU_QUERY_JOB, seqnos[i], &status, sizeof(status)) &&
			 status.state != DRM_NPU_JOB_PENDING;
		cancelled += status.error == -ECANCELED;
		npu_syncobj_destroy(fd, syncs[i]);
	}
	row(ended == ARRAY_LEN(syncs) && cancelled, "queue: %u of %u jobs are cancelled, none is left",
	    cancelled, ended);
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
}

static void test_queue_limit(void)
{
	uint32_t before = get_info(fd).queues_free, n = 0, queue, first = 0;
	int ret, file = npu_open();

	while (!(ret = queue_create(file, &queue)))
		if (!n++)
			first = queue;
	row_error(-EBUSY, ret, "queue", "the device has no more");
	row(n == before, "queue: one file can have all %u", n);
	row_error(0, queue_destroy(file, first), "queue", "one is given back");
	row_error(0, queue_create(file, &queue), "queue", "and can be had again");
	close(file);
	row(get_info(fd).queues_free == before, "queue: closing the file gives all back");
}

/* Usage. */

/* Finds "key:" in the file's fdinfo and returns its number, or -1. */
static long long usage(const char *key)
{
	char path[64], line[256];
	long long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':') {
			value = strtoll(line + strlen(key) + 1, NULL, 0);
			if (strstr(line, "KiB"))
				value <<= 10;
			if (strstr(line, "MiB"))
				value <<= 20;
		}
	if (file)
		fclose(file);
	return value;
}

static void test_usage(void)
{
	struct npu_bo a = make_bo(fd, SYSTEM, 1 << 20), b = make_bo(fd, DEVICE, 1 << 20), more;
	struct drm_npu_command c = copy(a.handle, b.handle, 1 << 20, 256);
	long long busy = usage("drm-engine-npu"), now, device, system;
	double start = npu_now(), took;
	int ret;

	row(usage("drm-client-id") > 0, "usage: the client has a number");
	ret = run(fd, 0, &c);
	took = (npu_now() - start) * 1e9;
	now = usage("drm-engine-npu");
	row(busy >= 0 && !ret && now > busy && now - busy <= took,
	    "usage: the engine was busy for %lld of %.0f us", (now - busy) / 1000, took / 1000);
	busy = now;
	usleep(50000);
	row(usage("drm-engine-npu") == busy, "usage: an idle file uses no engine");
	row(usage("drm-engine-capacity-npu") == info.cores, "usage: the engine's capacity");

	device = usage("drm-total-device");
	system = usage("drm-total-system");
	row(device >= 1 << 20 && system >= 1 << 20, "usage: memory of both regions");
	row(usage("drm-resident-device") == device && usage("drm-resident-system") == system,
	    "usage: all of it is resident");
	more = make_bo(fd, DEVICE, 3 << 20);
	row(usage("drm-total-device") == device + (3 << 20), "usage: more device memory");
	npu_bo_destroy(fd, &more);
	more = make_bo(fd, SYSTEM, 2 << 20);
	row(usage("drm-total-system") == system + (2 << 20), "usage: more system memory");
	npu_bo_destroy(fd, &more);
	row(usage("drm-total-device") == device && usage("drm-total-system") == system,
	    "usage: is given back");
	row(usage("drm-shared-device") == 0, "usage: nothing is shared");
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
}

/* dma-bufs. */

/* Exports a BO; returns the descriptor or -errno. */
static int export_bo(int file, uint32_t handle)
{
	struct drm_prime_handle args = { .handle = handle, .flags = DRM_CLOEXEC | DRM_RDWR };
	int ret = npu_ioctl(file, DRM_IOCTL_PRIME_HANDLE_TO_FD, &args);

	return ret ? ret : args.fd;
}

static int import_bo(int file, int dmabuf, uint32_t *handle)
{
	struct drm_prime_handle args = { .fd = dmabuf };
	int ret = npu_ioctl(file, DRM_IOCTL_PRIME_FD_TO_HANDLE, &args);

	*handle = args.handle;
	return ret;
}

static void close_handle(int file, uint32_t handle)
{
	struct drm_gem_close args = { .handle = handle };

	npu_ioctl(file, DRM_IOCTL_GEM_CLOSE, &args);
}

static uint8_t *map_dmabuf(int dmabuf, size_t size, off_t offset)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, dmabuf, offset);

	return map == MAP_FAILED ? NULL : map;
}

static void test_export_errors(void)
{
	struct npu_bo bo = make_bo(fd, SYSTEM, PAGE);
	struct drm_prime_handle args;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	uint32_t handle;
	int dmabuf;

	row_error(-ENOENT, export_bo(fd, 4711), "dma-buf: export", "an unknown BO");
	args = (struct drm_prime_handle){ .handle = bo.handle, .flags = ~0u };
	row_error(-EINVAL, npu_ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &args), "dma-buf: export",
		  "unknown flags");
	row_error(-EBADF, import_bo(fd, -1, &handle), "dma-buf: import", "no descriptor");
	row_error(-EINVAL, import_bo(fd, null, &handle), "dma-buf: import", "no dma-buf");
	dmabuf = export_bo(fd, bo.handle);
	row(dmabuf >= 0 && mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, dmabuf, 0) == MAP_FAILED,
	    "dma-buf: no private mapping");
	row(dmabuf >= 0 && !map_dmabuf(dmabuf, 2 * PAGE, 0) && !map_dmabuf(dmabuf, PAGE, PAGE),
	    "dma-buf: no mapping beyond its end");
	close(dmabuf);
	close(null);
	npu_bo_destroy(fd, &bo);
}

/* Another process: imports, and writes 0x5a to the second page with a job. */
static int other_process(int dmabuf)
{
	int file = npu_open(), ret;
	struct drm_npu_command c;
	struct npu_bo bo;
	uint32_t handle;

	if (file < 0)
		return 1;
	bo = make_bo(file, SYSTEM, PAGE);
	memset(bo.map, 0x5a, PAGE);
	ret = import_bo(file, dmabuf, &handle);
	if (ret)
		return 2;
	c = copy(bo.handle, handle, PAGE, 1);
	c.copy.dst_offset = PAGE;
	return run(file, 0, &c) ? 3 : 0;
}

static void test_export(uint32_t placement, const char *name)
{
	struct npu_bo bo = make_bo(fd, placement, 4 * PAGE);
	int dmabuf = export_bo(fd, bo.handle), status = -1;
	uint32_t again = 0;
	uint8_t *map, *second;
	pid_t pid;

	if (!row(dmabuf >= 0, "dma-buf: %s: exported", name))
		return;
	map = map_dmabuf(dmabuf, 4 * PAGE, 0);
	second = map_dmabuf(dmabuf, PAGE, PAGE);
	if (!row(map && second, "dma-buf: %s: mapped, whole and in part", name))
		return;
	bo.map[0] = 0x11;
	bo.map[PAGE] = 0x22;
	row(map[0] == 0x11 && map[PAGE] == 0x22 && second[0] == 0x22,
	    "dma-buf: %s: shows the BO's content", name);
	pid = fork();
	if (!pid)
		_exit(other_process(dmabuf));
	waitpid(pid, &status, 0);
	row(WIFEXITED(status) && !WEXITSTATUS(status), "dma-buf: %s: another process uses it", name);
	row(bo.map[0] == 0x11 && bo.map[PAGE] == 0x5a && map[2 * PAGE - 1] == 0x5a &&
	    second[PAGE - 1] == 0x5a && !bo.map[2 * PAGE], "dma-buf: %s: and all see what it wrote",
	    name);
	row(!import_bo(fd, dmabuf, &again) && again == bo.handle,
	    "dma-buf: %s: at home it is the same BO", name);

	npu_bo_destroy(fd, &bo);
	row(map[0] == 0x11 && second[0] == 0x5a, "dma-buf: %s: outlives its handle", name);
	row(!import_bo(fd, dmabuf, &again), "dma-buf: %s: comes back", name);
	close(dmabuf);
	close_handle(fd, again);
	map[0] = 0x33;
	row(map[0] == 0x33, "dma-buf: %s: a mapping outlives it", name);
	munmap(map, 4 * PAGE);
	munmap(second, PAGE);
}

/* A dma-buf of pages of a memory file, as many as there are indices. */
static int make_udmabuf(const unsigned int *indices, unsigned int count, uint8_t **map)
{
	struct udmabuf_create_list *list = calloc(1, sizeof(*list) + count * sizeof(list->list[0]));
	int memfd = memfd_create("pages", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), dmabuf;
	unsigned int i;

	if (ftruncate(memfd, 16 * PAGE) || fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return -errno;
	*map = map_dmabuf(memfd, 16 * PAGE, 0);
	memset(*map, 0, 16 * PAGE);
	list->flags = UDMABUF_FLAGS_CLOEXEC;
	list->count = count;
	for (i = 0; i < count; i++) {
		list->list[i].memfd = memfd;
		list->list[i].offset = (uint64_t)indices[i] * PAGE;
		list->list[i].size = PAGE;
	}
	dmabuf = ioctl(device, UDMABUF_CREATE_LIST, list);
	if (dmabuf < 0)
		dmabuf = -errno;
	close(device);
	close(memfd);
	free(list);
	return dmabuf;
}

static int make_heap(size_t size)
{
	struct dma_heap_allocation_data data = { .len = size, .fd_flags = O_RDWR | O_CLOEXEC };
	int heap = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
	int ret;

	if (heap < 0)
		return -errno;
	ret = npu_ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data);
	close(heap);
	return ret ? ret : (int)data.fd;
}

static void test_import(void)
{
	static const unsigned int one[] = { 0 }, apart[] = { 0, 1, 0 };
	struct npu_bo bo = make_bo(fd, DEVICE, 64 << 10);
	struct drm_npu_command c;
	uint32_t handle = 0;
	uint8_t *pages, *map;
	int dmabuf, ret;

	dmabuf = make_udmabuf(one, 1, &pages);
	ret = dmabuf < 0 ? dmabuf : import_bo(fd, dmabuf, &handle);
	row_error(0, ret, "dma-buf", "a page of a memory file is imported");
	memset(bo.map, 0x77, PAGE);
	c = copy(bo.handle, handle, PAGE, 1);
	row_error(0, run(fd, 0, &c), "dma-buf", "a job writes it");
	row(pages[0] == 0x77 && pages[PAGE - 1] == 0x77 && !pages[PAGE],
	    "dma-buf: the file has what the job wrote");
	c.copy.dst_offset = 1;
	row_error(-EINVAL, submit(fd, 0, &c, 0, 0, NULL), "dma-buf", "no job beyond its end");
	close_handle(fd, handle);
	row_error(-ENOENT, submit(fd, 0, &c, 0, 0, NULL), "dma-buf", "no job after it is closed");
	close(dmabuf);

	dmabuf = make_udmabuf(apart, 3, &pages);
	ret = dmabuf < 0 ? dmabuf : import_bo(fd, dmabuf, &handle);
	row_error(joined ? 0 : -EINVAL, ret, "dma-buf",
		  joined ? "pages that are apart are joined" : "pages that are apart are refused");
	if (joined && !ret) {
		c = copy(handle, bo.handle, 3 * PAGE, 1);
		pages[0] = 0x44;
		pages[PAGE] = 0x55;
		row_error(0, run(fd, 0, &c), "dma-buf", "a job reads them as one");
		row(bo.map[0] == 0x44 && bo.map[PAGE] == 0x55 && bo.map[2 * PAGE] == 0x44,
		    "dma-buf: in their order");
	}
	if (!ret)
		close_handle(fd, handle);
	close(dmabuf);

	dmabuf = make_heap(64 << 10);
	ret = dmabuf < 0 ? dmabuf : import_bo(fd, dmabuf, &handle);
	if (!row_error(0, ret, "dma-buf", "64 KiB of the system heap are imported"))
		return;
	map = map_dmabuf(dmabuf, 64 << 10, 0);
	memset(map, 0x99, 64 << 10);
	c = copy(handle, bo.handle, 64 << 10, 1);
	row_error(0, run(fd, 0, &c), "dma-buf", "a job reads them");
	row(bo.map[0] == 0x99 && bo.map[(64 << 10) - 1] == 0x99, "dma-buf: all of them");
	row(export_bo(fd, handle) >= 0, "dma-buf: an imported BO is given on");
	close_handle(fd, handle);
	close(dmabuf);
	npu_bo_destroy(fd, &bo);
}

/* More than the kernel has in one piece. */
static void test_large(void)
{
	const uint64_t size = 24 << 20;
	struct npu_bo large, small = make_bo(fd, DEVICE, PAGE);
	struct drm_npu_command c;
	int ret = npu_bo_create(fd, SYSTEM, size, &large);

	row_error(joined ? 0 : -ENOMEM, ret, "bo", "24 MiB of system memory");
	if (!ret && !npu_bo_map(fd, &large)) {
		c = copy(small.handle, large.handle, PAGE, 1);
		c.copy.dst_offset = size - PAGE;
		memset(small.map, 0x66, PAGE);
		row_error(0, run(fd, 0, &c), "bo", "a job writes its end");
		row(large.map[size - 1] == 0x66 && !large.map[size - PAGE - 1] && !large.map[0],
		    "bo: and nothing else");
		npu_bo_destroy(fd, &large);
	}
	npu_bo_destroy(fd, &small);
}

/* Another driver: vgem, whose files are in /dev/dri. */
static void test_other_driver(void)
{
	struct npu_bo system = make_bo(fd, SYSTEM, PAGE), device = make_bo(fd, DEVICE, PAGE);
	int other = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
	int system_fd = export_bo(fd, system.handle), device_fd = export_bo(fd, device.handle);
	uint32_t handle = 0;

	if (!row(other >= 0, "dma-buf: another driver is there"))
		return;
	row_error(0, import_bo(other, system_fd, &handle), "dma-buf", "it imports system memory");
	close_handle(other, handle);
	row_error(-EOPNOTSUPP, import_bo(other, device_fd, &handle), "dma-buf",
		  "it is refused device memory");
	close(system_fd);
	close(device_fd);
	close(other);
	npu_bo_destroy(fd, &system);
	npu_bo_destroy(fd, &device);
}

/* The fence of a job is in the reservation of what it writes. */
static void test_reservation(void)
{
	struct npu_bo a = make_bo(fd, SYSTEM, 1 << 20), b = make_bo(fd, DEVICE, 1 << 20);
	struct drm_npu_command slow = copy(a.handle, b.handle, 1 << 20, long_rows());
	struct drm_npu_command quick = copy(b.handle, a.handle, 64, 1);
	struct pollfd written = { .fd = export_bo(fd, b.handle), .events = POLLIN };
	struct pollfd read = { .fd = export_bo(fd, a.handle), .events = POLLIN };
	uint32_t queue, first = make_syncobj(fd), second = make_syncobj(fd);
	int ret;

	row(poll(&written, 1, 0) == 1, "dma-buf: an idle one is ready");
	ret = submit(fd, 0, &slow, 0, first, NULL);
	row(!ret && poll(&written, 1, 0) == 0, "dma-buf: what a job writes is not");
	row(poll(&read, 1, 0) == 1, "dma-buf: what it reads can be read");
	read.events = POLLOUT;
	row(poll(&read, 1, 0) == 0, "dma-buf: but not written");

	/* Both BOs are shared, so the second job waits for the first without a syncobj. */
	ret = queue_create(fd, &queue);
	if (!ret)
		ret = submit(fd, queue, &quick, 0, second, NULL);
	if (!ret)
		ret = npu_wait(fd, second, 0, WAIT_MS);
	row_error(0, ret, "dma-buf", "a job of another queue reads what was written");
	row_error(0, npu_wait(fd, first, 0, 0), "dma-buf", "and so has waited for the writer");
	row(poll(&written, 1, WAIT_MS) == 1, "dma-buf: ready again");
	row(usage("drm-shared-device") == 1 << 20, "usage: a dma-buf is shared memory");

	queue_destroy(fd, queue);
	close(written.fd);
	close(read.fd);
	npu_syncobj_destroy(fd, first);
	npu_syncobj_destroy(fd, second);
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
}

int main(int argc, char **argv)
{
	struct drm_npu_query vm = { .type = DRM_NPU_QUERY_VM };

	joined = argc == 2 && !strcmp(argv[1], "-i");
	if (argc > 1 && !joined) {
		fprintf(stderr, "usage: sharetest [-i]\n");
		return 2;
	}
	printf("KTAP version 1\n");
	fd = npu_open();
	if (fd < 0)
		bail("open /dev/accel/*", fd);
	info = get_info(fd);
	joined |= !npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &vm);

	test_queue_errors();
	test_queue_use();
	test_queue_destroy_busy();
	test_queue_limit();
	test_usage();
	test_export_errors();
	test_export(DEVICE, "device");
	test_export(SYSTEM, "system");
	test_import();
	test_large();
	test_other_driver();
	test_reservation();

	return end_rows();
}
