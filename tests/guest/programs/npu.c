/* SPDX-License-Identifier: Apache-2.0 */
#include "npu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

int npu_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do
		ret = ioctl(fd, request, arg);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

int npu_get_version(int fd, struct npu_version *version)
{
	struct drm_version v = {
		.name = version->name,
		.name_len = sizeof(version->name) - 1,
	};
	int ret;

	memset(version, 0, sizeof(*version));
	ret = npu_ioctl(fd, DRM_IOCTL_VERSION, &v);
	version->major = v.version_major;
	version->minor = v.version_minor;
	return ret;
}

int npu_open_path(const char *path)
{
	struct npu_version version;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = npu_get_version(fd, &version);
	if (!ret && (strcmp(version.name, DRM_NPU_NAME) ||
		     version.major != DRM_NPU_VERSION_MAJOR))
		ret = -ENODEV;
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

int npu_open(void)
{
	DIR *dir = opendir("/dev/accel");
	struct dirent *entry;
	int fd = -ENODEV;

	if (!dir)
		return -ENODEV;
	while (fd < 0 && (entry = readdir(dir))) {
		char path[sizeof("/dev/accel/") + sizeof(entry->d_name)];

		if (strncmp(entry->d_name, "accel", 5))
			continue;
		snprintf(path, sizeof(path), "/dev/accel/%s", entry->d_name);
		fd = npu_open_path(path);
	}
	closedir(dir);
	return fd;
}

int npu_query(int fd, uint32_t type, uint64_t arg, void *to, uint32_t size)
{
	struct drm_npu_query query = {
		.type = type, .size = size, .arg = arg, .ptr = (uintptr_t)to,
	};

	return npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &query);
}

int npu_bo_create(int fd, uint32_t placement, uint64_t size, struct npu_bo *bo)
{
	struct drm_npu_bo_create create = { .size = size, .placement = placement };
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_BO_CREATE, &create);

	memset(bo, 0, sizeof(*bo));
	if (ret)
		return ret;
	bo->handle = create.handle;
	bo->size = create.size;
	bo->mmap_offset = create.mmap_offset;
	return 0;
}

int npu_bo_map(int fd, struct npu_bo *bo)
{
	void *map = mmap(NULL, bo->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, bo->mmap_offset);

	if (map == MAP_FAILED)
		return -errno;
	bo->map = map;
	return 0;
}

void npu_bo_destroy(int fd, struct npu_bo *bo)
{
	struct drm_gem_close args = { .handle = bo->handle };

	if (bo->map)
		munmap(bo->map, bo->size);
	if (bo->handle)
		npu_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &args);
	memset(bo, 0, sizeof(*bo));
}

int npu_syncobj_create(int fd, uint32_t *handle)
{
	struct drm_syncobj_create create = { 0 };
	int ret = npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &create);

	*handle = create.handle;
	return ret;
}

void npu_syncobj_destroy(int fd, uint32_t handle)
{
	struct drm_syncobj_destroy destroy = { .handle = handle };

	npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_DESTROY, &destroy);
}

int npu_wait(int fd, uint32_t handle, uint64_t point, int timeout_ms)
{
	struct drm_syncobj_timeline_wait timeline = {
		.handles = (uintptr_t)&handle, .points = (uintptr_t)&point, .count_handles = 1,
	};
	struct drm_syncobj_wait binary = { .handles = (uintptr_t)&handle, .count_handles = 1 };
	struct timespec now;
	int64_t deadline;

	clock_gettime(CLOCK_MONOTONIC, &now);
	deadline = (now.tv_sec + timeout_ms / 1000) * 1000000000LL + now.tv_nsec +
		   timeout_ms % 1000 * 1000000LL;
	binary.timeout_nsec = deadline;
	timeline.timeout_nsec = deadline;
	if (point)
		return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &timeline);
	return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_WAIT, &binary);
}

int npu_submit(int fd, const struct drm_npu_command *commands, uint32_t count,
	       const struct drm_npu_sync *in, uint32_t in_count,
	       const struct drm_npu_sync *out, uint32_t out_count, uint64_t *seqno)
{
	struct drm_npu_submit submit = {
		.commands = { sizeof(*commands), count, (uintptr_t)commands },
		.in_syncs = { sizeof(*in), in_count, (uintptr_t)in },
		.out_syncs = { sizeof(*out), out_count, (uintptr_t)out },
	};
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_SUBMIT, &submit);

	if (!ret && seqno)
		*seqno = submit.seqno;
	return ret;
}

int npu_run(int fd, const struct drm_npu_command *commands, uint32_t count, int timeout_ms,
	    struct drm_npu_job_status *status)
{
	struct drm_npu_sync out = { 0 };
	uint64_t seqno = 0;
	int ret;

	memset(status, 0, sizeof(*status));
	ret = npu_syncobj_create(fd, &out.handle);
	if (ret)
		return ret;
	ret = npu_submit(fd, commands, count, NULL, 0, &out, 1, &seqno);
	if (!ret)
		ret = npu_wait(fd, out.handle, 0, timeout_ms);
	npu_syncobj_destroy(fd, out.handle);
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqno, status, sizeof(*status));
	return ret ? ret : status->error;
}

struct drm_npu_command npu_launch(const struct npu_bo *program, uint64_t offset, uint32_t size,
				  const struct drm_npu_binding *bindings, uint32_t count)
{
	struct drm_npu_command command = { .type = DRM_NPU_COMMAND_LAUNCH };

	command.launch.program_handle = program->handle;
	command.launch.program_offset = offset;
	command.launch.program_size = size;
	command.launch.bindings.stride = sizeof(*bindings);
	command.launch.bindings.count = count;
	command.launch.bindings.ptr = (uintptr_t)bindings;
	return command;
}

double npu_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

void npu_print_counters(const struct drm_npu_counters *a, const struct drm_npu_counters *b)
{
#define COUNTER(name, end) printf("\"" #name "\": %llu" end, (unsigned long long)(b->name - a->name))
	printf("{");
	COUNTER(commands, ", ");
	COUNTER(errors, ", ");
	COUNTER(programs, ", ");
	COUNTER(instructions, ", ");
	COUNTER(macs, ", ");
	COUNTER(dma_read, ", ");
	COUNTER(dma_written, ", ");
	COUNTER(interrupts, ", ");
	COUNTER(doorbells, ", ");
	COUNTER(faults, ", ");
	COUNTER(copies, ", ");
	COUNTER(admin, "}");
#undef COUNTER
}

/* Tests. */

static int rows, failures;

bool row(bool passed, const char *format, ...)
{
	va_list args;

	rows++;
	failures += !passed;
	printf("%sok %d ", passed ? "" : "not ", rows);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	return passed;
}

bool row_error(int want, int got, const char *group, const char *name)
{
	bool passed = row(want == got, "%s: %s", group, name);

	if (!passed)
		printf("# got %d (%s), want %d (%s)\n", got, strerror(-got), want, strerror(-want));
	return passed;
}

void bail(const char *what, int ret)
{
	printf("Bail out! %s: %s\n", what, strerror(-ret));
	exit(1);
}

int end_rows(void)
{
	printf("1..%d\n# %d of %d failed\n", rows, failures, rows);
	return failures ? 1 : 0;
}

const struct drm_npu_command nop = { .type = DRM_NPU_COMMAND_NOP };

struct npu_bo make_bo(int fd, uint32_t placement, uint64_t size)
{
	struct npu_bo bo;
	int ret = npu_bo_create(fd, placement, size, &bo);

	if (!ret && bo.mmap_offset)
		ret = npu_bo_map(fd, &bo);
	if (ret)
		bail("buffer object", ret);
	return bo;
}

uint32_t make_queue(int fd)
{
	struct drm_npu_queue_create args = { 0 };
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &args);

	if (ret)
		bail("queue", ret);
	return args.queue;
}

uint32_t make_syncobj(int fd)
{
	uint32_t handle;
	int ret = npu_syncobj_create(fd, &handle);

	if (ret)
		bail("syncobj", ret);
	return handle;
}

struct drm_npu_device_info get_info(int fd)
{
	struct drm_npu_device_info info;
	int ret = npu_query(fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info));

	if (ret)
		bail("device info", ret);
	return info;
}

int open_sysfs(int fd, const char *name, int flags)
{
	char path[128];
	struct stat st;

	if (fstat(fd, &st))
		return -1;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device/%s", major(st.st_rdev),
		 minor(st.st_rdev), name);
	return open(path, flags | O_CLOEXEC);
}

bool is_suspended(int fd)
{
	char text[32] = "";
	int file = open_sysfs(fd, "power/runtime_status", O_RDONLY);

	if (file < 0)
		return false;
	if (read(file, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(file);
	return !strcmp(text, "suspended\n");
}
