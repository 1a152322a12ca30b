/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lifetest checks what becomes of an open file when its device sleeps or goes away. It
 * prints KTAP and exits with 0 if no test failed.
 *
 * usage: lifetest sleep           the idle function goes to D3hot and comes back
 *        lifetest suspend STATE   the system sleeps, as STATE in /sys/power/state says
 *        lifetest removed FILE    makes FILE, then works until the device is removed
 *        lifetest gone FILE       the same, until it does not answer
 *
 * The tests want the device for themselves, and root.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "npu.h"

#define WAIT_MS		60000
#define PAGE		4096
#define MIB		(1 << 20)

#define DEVICE		DRM_NPU_PLACEMENT_DEVICE
#define SYSTEM		DRM_NPU_PLACEMENT_SYSTEM

static int fd = -1;

static struct drm_npu_command copy(const struct npu_bo *src, const struct npu_bo *dst, uint32_t nx,
				   uint32_t ny)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY };

	c.copy.src_handle = src->handle;
	c.copy.dst_handle = dst->handle;
	c.copy.nx = nx;
	c.copy.ny = ny;
	c.copy.nz = 1;
	return c;
}

/* Submits to a queue; sync is a syncobj or 0. */
static int submit(uint32_t queue, const struct drm_npu_command *command, uint32_t sync,
		  uint64_t *seqno)
{
	struct drm_npu_sync out = { .handle = sync };
	struct drm_npu_submit args = {
		.commands = { sizeof(*command), 1, (uintptr_t)command },
		.out_syncs = { sizeof(out), sync != 0, (uintptr_t)&out },
		.queue = queue,
	};
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_SUBMIT, &args);

	*seqno = args.seqno;
	return ret;
}

/* Submits to a queue, waits, and returns the job's error. */
static int run(uint32_t queue, const struct drm_npu_command *command)
{
	struct drm_npu_job_status status;
	uint64_t seqno;
	uint32_t sync;
	int ret = npu_syncobj_create(fd, &sync);

	if (ret)
		return ret;
	ret = submit(queue, command, sync, &seqno);
	if (!ret)
		ret = npu_wait(fd, sync, 0, WAIT_MS);
	npu_syncobj_destroy(fd, sync);
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status));
	return ret ? ret : status.error;
}

static bool write_file(int file, const char *text)
{
	bool good = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);

	if (file >= 0)
		close(file);
	return good;
}

/* Sleep of the function. */

static bool falls_asleep(void)
{
	int i;

	for (i = 0; i < 100 && !is_suspended(fd); i++)
		usleep(100000);
	return is_suspended(fd);
}

/* Power state in the function's own register, PMCSR (§1.7). */
static int power_state(void)
{
	int file = open_sysfs(fd, "config", O_RDONLY);
	uint8_t pmcsr = 0xff;

	if (pread(file, &pmcsr, 1, 0x44) != 1)
		pmcsr = 0xff;
	close(file);
	return pmcsr & 3;
}

static void test_sleep(void)
{
	struct drm_npu_counters counters;
	struct npu_bo device = make_bo(fd, DEVICE, PAGE), system = make_bo(fd, SYSTEM, PAGE);
	struct drm_npu_command out = copy(&system, &device, PAGE, 1);
	struct drm_npu_command back = copy(&device, &system, PAGE, 1);
	uint32_t queue = make_queue(fd), before = get_info(fd).resets;
	int i, good = 0;

	row(write_file(open_sysfs(fd, "power/autosuspend_delay_ms", O_WRONLY), "100"),
	    "sleep: the delay can be set");
	memset(system.map, 0x5a, PAGE);
	row_error(0, run(queue, &out), "sleep", "a job runs");
	usleep(1000000);
	row(!is_suspended(fd) && device.map[0] == 0x5a, "sleep: a mapping of its memory keeps it awake");
	munmap(device.map, device.size);
	device.map = NULL;
	row(falls_asleep(), "sleep: an idle function falls asleep");
	row(power_state() == 3, "sleep: in D3hot");
	printf("lifetest: asleep\n");
	fflush(stdout);
	usleep(1000000);
	row(is_suspended(fd), "sleep: and stays there");
	memset(system.map, 0, PAGE);
	row_error(0, run(queue, &back), "sleep", "a job wakes it, on the queue of before");
	row(system.map[0] == 0x5a && system.map[PAGE - 1] == 0x5a, "sleep: its memory is kept");
	row(get_info(fd).resets == before, "sleep: without a reset");
	for (i = 0; i < 10; i++)
		good += falls_asleep() && !run(i & 1 ? queue : 0, &nop);
	row(good == 10, "sleep: ten times more, on two queues");
	row(falls_asleep() && !npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &counters, sizeof(counters)) &&
	    counters.commands, "sleep: a query wakes it");
	row(falls_asleep() && !npu_bo_map(fd, &device) && device.map[0] == 0x5a,
	    "sleep: a mapping wakes it");
	npu_bo_destroy(fd, &device);
	row(falls_asleep(), "sleep: and lets it sleep when it is gone");
	device = make_bo(fd, DEVICE, PAGE);
	row(!device.map[0] && !device.map[PAGE - 1], "sleep: a new BO wakes it, and is zero");
	npu_bo_destroy(fd, &device);
	npu_bo_destroy(fd, &system);
}

/* Sleep of the system. */

static void test_suspend(const char *state)
{
	struct npu_bo device = make_bo(fd, DEVICE, MIB), system = make_bo(fd, SYSTEM, MIB);
	struct drm_npu_command slow = copy(&system, &device, MIB, 2048);
	struct drm_npu_command back = copy(&device, &system, MIB, 1);
	struct drm_npu_job_status status = { 0 };
	uint32_t queue = make_queue(fd), before = get_info(fd).resets, syncs[2];
	uint64_t seqnos[2] = { 0 };
	int i, ret = 0;

	memset(system.map, 0xa5, MIB);
	for (i = 0; i < 2; i++) {
		npu_syncobj_create(fd, &syncs[i]);
		ret |= submit(i ? queue : 0, &slow, syncs[i], &seqnos[i]);
	}
	row_error(0, ret, "suspend", "jobs run");
	row(write_file(open("/sys/power/state", O_WRONLY), state), "suspend: the system slept (%s)",
	    state);
	for (i = 0; i < 2; i++) {
		ret = npu_wait(fd, syncs[i], 0, WAIT_MS);
		if (!ret)
			ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqnos[i], &status, sizeof(status));
		row(!ret && status.state == DRM_NPU_JOB_DONE, "suspend: job %d has ended well", i);
		if (ret || status.error)
			printf("# %d, error %d\n", ret, status.error);
		npu_syncobj_destroy(fd, syncs[i]);
	}
	row(device.map[0] == 0xa5 && device.map[MIB - 1] == 0xa5, "suspend: device memory is kept");
	memset(system.map, 0, MIB);
	row_error(0, run(queue, &back), "suspend", "the queue goes on");
	row(system.map[0] == 0xa5 && system.map[MIB - 1] == 0xa5, "suspend: with what it knew");
	row_error(0, run(0, &nop), "suspend", "so does the implicit one");
	row(get_info(fd).resets == before, "suspend: it counts as no reset");
	npu_bo_destroy(fd, &device);
	npu_bo_destroy(fd, &system);
}

/* Removal. */

static sigjmp_buf fault;

static void on_sigbus(int number)
{
	siglongjmp(fault, number);
}

/* Calls fail a moment before mappings are gone. */
static bool faults(volatile uint8_t *p)
{
	volatile int i;

	signal(SIGBUS, on_sigbus);
	if (sigsetjmp(fault, 1))
		return true;
	for (i = 0; i < 100; i++) {
		(void)*p;
		usleep(100000);
	}
	return false;
}

static uint8_t *map_dmabuf(uint32_t handle)
{
	struct drm_prime_handle args = { .handle = handle, .flags = DRM_CLOEXEC | DRM_RDWR };
	int ret = npu_ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &args);
	void *map;

	if (ret)
		bail("export", ret);
	map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, args.fd, 0);
	if (map == MAP_FAILED)
		bail("dma-buf", -errno);
	close(args.fd);
	return map;
}

static void test_gone(const char *ready, bool removed)
{
	struct npu_bo device = make_bo(fd, DEVICE, MIB / 2), system = make_bo(fd, SYSTEM, MIB);
	struct drm_npu_command slow = copy(&system, &device, MIB / 2, 128);
	struct drm_npu_bo_create create = { .size = PAGE, .placement = SYSTEM };
	struct drm_npu_queue_create queue_create = { 0 };
	struct drm_npu_queue_destroy queue_destroy = { .queue = make_queue(fd) };
	uint8_t *device_map = device.map ? map_dmabuf(device.handle) : NULL;
	uint8_t *system_map = map_dmabuf(system.handle);
	struct drm_npu_counters counters;
	unsigned long jobs = 0;
	uint64_t seqno;
	int ret, i;

	system.map[0] = 0x77;
	while (!(ret = run(jobs & 1 ? queue_destroy.queue : 0, &slow)))
		if (!jobs++)
			close(open(ready, O_CREAT | O_WRONLY, 0600));
	printf("# %lu jobs, then %d (%s)\n", jobs, ret, strerror(-ret));
	/* The job that was on it may have been told first. */
	for (i = 0; i < 200 && ret != -ENODEV; i++) {
		usleep(100000);
		ret = run(0, &nop);
	}
	row(jobs > 0, "gone: jobs ran before");
	row_error(-ENODEV, ret, "gone", "and then no more");
	row_error(-ENODEV, submit(0, &nop, 0, &seqno), "gone", "submit");
	row_error(-ENODEV, npu_ioctl(fd, DRM_IOCTL_NPU_BO_CREATE, &create), "gone", "new BO");
	row_error(-ENODEV, npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &queue_create), "gone",
		  "new queue");
	row_error(-ENODEV, npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &queue_destroy), "gone",
		  "end of a queue");
	row_error(-ENODEV, npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &counters, sizeof(counters)),
		  "gone", "query");
	if (removed)
		row(mmap(NULL, MIB, PROT_READ, MAP_SHARED, fd, system.mmap_offset) == MAP_FAILED,
		    "gone: no new mapping");
	if (removed) {
		row(faults(system.map), "gone: mapped memory faults");
		row(faults(system_map), "gone: mapped by its dma-buf too");
	} else {
		row(system.map[0] == 0x77 && system_map[0] == 0x77, "gone: mapped memory stays");
	}
	if (removed && device_map) {
		row(faults(device.map), "gone: mapped device memory faults");
		row(faults(device_map), "gone: mapped by its dma-buf too");
	}
	npu_bo_destroy(fd, &device);
	npu_bo_destroy(fd, &system);
	if (device_map)
		munmap(device_map, PAGE);
	munmap(system_map, PAGE);
	row(!close(fd), "gone: close");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	printf("KTAP version 1\n");
	fd = npu_open();
	if (fd < 0)
		bail("open /dev/accel/*", fd);
	if (!strcmp(mode, "sleep") && argc == 2) {
		test_sleep();
	} else if (!strcmp(mode, "suspend") && argc == 3) {
		test_suspend(argv[2]);
	} else if ((!strcmp(mode, "removed") || !strcmp(mode, "gone")) && argc == 3) {
		test_gone(argv[2], !strcmp(mode, "removed"));
	} else {
		fprintf(stderr, "usage: lifetest sleep | suspend STATE | removed FILE | gone FILE\n");
		return 2;
	}
	return end_rows();
}
