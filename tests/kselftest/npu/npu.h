/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the NPU driver share: finding the device, thin wrappers
 * around the interface of <drm/npu_accel.h> and DRM's own ioctls, commands and
 * programs for the device. "§" refers to the hardware specification.
 *
 * Functions return 0 or a negative error number, unless they say otherwise.
 */
#ifndef NPU_SELFTEST_H
#define NPU_SELFTEST_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <drm/npu_accel.h>

#include "kselftest_harness.h"

#define NPU_PAGE	4096ul
#define NPU_MIB		(1ul << 20)

/* Longer than anything that ends takes, on an emulated processor too. */
#define NPU_WAIT_MS	20000

#define NPU_DEVICE	DRM_NPU_PLACEMENT_DEVICE
#define NPU_SYSTEM	DRM_NPU_PLACEMENT_SYSTEM

/* Of drm_npu_device_info.features: model time and profile records (§13.8). */
#define NPU_TIMING	(1ull << 13)

/* Of the module; its value is in milliseconds. */
#define NPU_JOB_TIMEOUT	"/sys/module/npu/parameters/job_timeout_ms"

struct npu_device {
	char node[32];		/* /dev/accel/accelN */
	char sysfs[PATH_MAX];	/* directory of the device that the driver is bound to */
	char bus[16];		/* name of its bus: pci, virtio */
};

struct npu_bo {
	uint32_t handle;
	uint64_t size;
	uint64_t offset;	/* for mmap() */
	uint8_t *map;		/* NULL if it cannot be mapped */
};

static inline int npu_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do {
		ret = ioctl(fd, request, arg);
	} while (ret < 0 && (errno == EINTR || errno == EAGAIN));
	return ret < 0 ? -errno : 0;
}

static inline int npu_version(int fd, int *major, int *minor, char name[32])
{
	struct drm_version v = { .name = name, .name_len = 31 };
	int ret;

	memset(name, 0, 32);
	ret = npu_ioctl(fd, DRM_IOCTL_VERSION, &v);
	*major = v.version_major;
	*minor = v.version_minor;
	return ret;
}

/* Minor version of the interface of an open device. */
static inline int npu_minor(int fd)
{
	int major, minor;
	char name[32];

	return npu_version(fd, &major, &minor, name) ? 0 : minor;
}

/* Reads the target of a symlink, and keeps the part behind the last slash. */
static inline int npu_link_name(const char *path, char *name, size_t size)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *base;

	if (n < 0)
		return -errno;
	target[n] = 0;
	base = strrchr(target, '/');
	snprintf(name, size, "%.*s", (int)size - 1, base ? base + 1 : target);
	return 0;
}

/* Finds the first device of the driver; ENODEV if there is none. */
static inline int npu_find(struct npu_device *dev)
{
	int i, fd, major, minor;
	char name[32], path[PATH_MAX + 16];
	bool ours;

	for (i = 0; i < 64; i++) {
		snprintf(dev->node, sizeof(dev->node), "/dev/accel/accel%d", i);
		fd = open(dev->node, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		ours = !npu_version(fd, &major, &minor, name) && !strcmp(name, DRM_NPU_NAME) &&
		       major == DRM_NPU_VERSION_MAJOR;
		close(fd);
		if (!ours)
			continue;
		snprintf(path, sizeof(path), "/sys/class/accel/accel%d/device", i);
		if (!realpath(path, dev->sysfs))
			return -errno;
		snprintf(path, sizeof(path), "%s/subsystem", dev->sysfs);
		return npu_link_name(path, dev->bus, sizeof(dev->bus));
	}
	return -ENODEV;
}

/* Returns a descriptor of the device, or -ENODEV: a reason to skip. */
static inline int npu_open(struct npu_device *dev)
{
	int ret = npu_find(dev);

	if (ret)
		return ret;
	ret = open(dev->node, O_RDWR | O_CLOEXEC);
	return ret < 0 ? -errno : ret;
}

/* Returns a further descriptor, or a negative error number. */
static inline int npu_reopen(const struct npu_device *dev)
{
	int fd = open(dev->node, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static inline int npu_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* Reads the first line of a file, without its end. */
static inline int npu_read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		return -errno;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return 0;
}

static inline double npu_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static inline void npu_sleep_ms(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000l };

	nanosleep(&t, NULL);
}

static inline int npu_query(int fd, uint32_t type, uint64_t arg, void *to, uint32_t size)
{
	struct drm_npu_query q = { .type = type, .size = size, .arg = arg, .ptr = (uintptr_t)to };

	return npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &q);
}

/* All zero if the query fails, which no device is. */
static inline struct drm_npu_device_info npu_info(int fd)
{
	struct drm_npu_device_info info = { 0 };

	if (npu_query(fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info)))
		memset(&info, 0, sizeof(info));
	return info;
}

static inline int npu_gem_close(int fd, uint32_t handle)
{
	struct drm_gem_close c = { .handle = handle };

	return npu_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &c);
}

/* Creates a BO, and maps it if that is possible. */
static inline int npu_bo_create(int fd, uint32_t placement, uint64_t size, struct npu_bo *bo)
{
	struct drm_npu_bo_create c = { .size = size, .placement = placement };
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_BO_CREATE, &c);

	memset(bo, 0, sizeof(*bo));
	if (ret)
		return ret;
	bo->handle = c.handle;
	bo->size = c.size;
	bo->offset = c.mmap_offset;
	if (!bo->offset)
		return 0;
	bo->map = mmap(NULL, bo->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, bo->offset);
	if (bo->map == MAP_FAILED) {
		ret = -errno;
		bo->map = NULL;
		npu_gem_close(fd, bo->handle);
	}
	return ret;
}

static inline void npu_bo_destroy(int fd, struct npu_bo *bo)
{
	if (bo->map)
		munmap(bo->map, bo->size);
	npu_gem_close(fd, bo->handle);
	memset(bo, 0, sizeof(*bo));
}

/* Returns a handle, or 0. */
static inline uint32_t npu_syncobj(int fd)
{
	struct drm_syncobj_create c = { 0 };

	return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_CREATE, &c) ? 0 : c.handle;
}

static inline void npu_syncobj_destroy(int fd, uint32_t handle)
{
	struct drm_syncobj_destroy d = { .handle = handle };

	npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_DESTROY, &d);
}

/* Waits for a point of a timeline; 0 is a binary syncobj. ETIME if it takes longer. */
static inline int npu_wait_ms(int fd, uint32_t handle, uint64_t point, int ms)
{
	struct timespec now;
	struct drm_syncobj_timeline_wait w = {
		.handles = (uintptr_t)&handle,
		.points = (uintptr_t)&point,
		.count_handles = 1,
		.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT,
	};

	clock_gettime(CLOCK_MONOTONIC, &now);
	w.timeout_nsec = now.tv_sec * 1000000000ll + now.tv_nsec + ms * 1000000ll;
	return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &w);
}

static inline int npu_wait(int fd, uint32_t handle, uint64_t point)
{
	return npu_wait_ms(fd, handle, point, NPU_WAIT_MS);
}

/* Signals a binary syncobj, or a point of a timeline. */
static inline int npu_signal(int fd, uint32_t handle, uint64_t point)
{
	struct drm_syncobj_timeline_array a = {
		.handles = (uintptr_t)&handle, .points = (uintptr_t)&point, .count_handles = 1,
	};

	if (point)
		return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL, &a);
	return npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_SIGNAL, &(struct drm_syncobj_array){
		.handles = (uintptr_t)&handle, .count_handles = 1,
	});
}

#define NPU_ARRAY(p, n)	((struct drm_npu_array){ sizeof(*(p)), n, (uintptr_t)(p) })

/* Submits commands to a queue (interface 1.1); a sync that is NULL is not given. */
static inline int npu_submit_to(int fd, uint32_t queue, const struct drm_npu_command *commands,
				uint32_t n, const struct drm_npu_sync *in,
				const struct drm_npu_sync *out, uint64_t *seqno)
{
	struct drm_npu_submit s = { .commands = NPU_ARRAY(commands, n), .queue = queue };
	int ret;

	if (in)
		s.in_syncs = NPU_ARRAY(in, 1);
	if (out)
		s.out_syncs = NPU_ARRAY(out, 1);
	ret = npu_ioctl(fd, DRM_IOCTL_NPU_SUBMIT, &s);
	if (seqno)
		*seqno = s.seqno;
	return ret;
}

/* Submits commands to the implicit queue. */
static inline int npu_submit(int fd, const struct drm_npu_command *commands, uint32_t n,
			     const struct drm_npu_sync *in, const struct drm_npu_sync *out,
			     uint64_t *seqno)
{
	return npu_submit_to(fd, 0, commands, n, in, out, seqno);
}

/*
 * Submits commands and waits. It returns the error of the call or of the wait;
 * what became of the job is in *status.
 */
static inline int npu_run_on(int fd, uint32_t queue, const struct drm_npu_command *commands,
			     uint32_t n, struct drm_npu_job_status *status)
{
	struct drm_npu_sync out = { .handle = npu_syncobj(fd) };
	uint64_t seqno;
	int ret;

	memset(status, 0, sizeof(*status));
	ret = npu_submit_to(fd, queue, commands, n, NULL, &out, &seqno);
	if (!ret)
		ret = npu_wait(fd, out.handle, 0);
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqno, status, sizeof(*status));
	npu_syncobj_destroy(fd, out.handle);
	return ret;
}

static inline int npu_run(int fd, const struct drm_npu_command *commands, uint32_t n,
			  struct drm_npu_job_status *status)
{
	return npu_run_on(fd, 0, commands, n, status);
}

/* The error of a job that is run, whatever kind it is. */
static inline int npu_run_error(int fd, const struct drm_npu_command *commands, uint32_t n)
{
	struct drm_npu_job_status status;
	int ret = npu_run(fd, commands, n, &status);

	if (ret)
		return ret;
	return status.state == DRM_NPU_JOB_PENDING ? -EINPROGRESS : status.error;
}

static inline struct drm_npu_command npu_nop(void)
{
	return (struct drm_npu_command){ .type = DRM_NPU_COMMAND_NOP };
}

/* Copies n bytes between the starts of two BOs. */
static inline struct drm_npu_command npu_copy(const struct npu_bo *src, const struct npu_bo *dst,
					      uint32_t n)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY };

	c.copy.src_handle = src->handle;
	c.copy.dst_handle = dst->handle;
	c.copy.nx = n;
	c.copy.ny = 1;
	c.copy.nz = 1;
	return c;
}

/*
 * A copy that writes the same bytes over and over: 4 PiB, with BOs of a
 * megabyte. No device ends it in the time of a test.
 */
static inline struct drm_npu_command npu_endless(const struct npu_bo *src,
						 const struct npu_bo *dst)
{
	struct drm_npu_command c = npu_copy(src, dst, NPU_MIB);

	c.copy.ny = 65535;
	c.copy.nz = 65535;
	return c;
}

/* A copy of so many megabytes, in rows of one, through BOs of a megabyte. */
static inline struct drm_npu_command npu_long(const struct npu_bo *src, const struct npu_bo *dst,
					      uint32_t mib)
{
	struct drm_npu_command c = npu_copy(src, dst, NPU_MIB);

	c.copy.ny = mib;
	return c;
}

/* Programs (§5): a descriptor and instructions of 32 bytes. */

#define NPU_PROGRAM_MAX	16

struct npu_program {
	uint8_t bytes[64 + NPU_PROGRAM_MAX * 32];
	uint32_t size;
};

#define NPU_HALT	0x01
#define NPU_LOAD	0x10
#define NPU_STORE	0x20

static inline void npu_put(uint8_t *p, uint64_t value, int bytes)
{
	while (bytes--) {
		*p++ = value;
		value >>= 8;
	}
}

/* Adds an instruction, all zero but for its opcode, and returns its bytes. */
static inline uint8_t *npu_instruction(struct npu_program *p, uint8_t opcode)
{
	uint8_t *i;

	if (!p->size) {
		memset(p, 0, sizeof(*p));
		p->size = 64;
	}
	i = p->bytes + p->size;
	p->size += 32;
	i[0] = opcode;
	return i;
}

/* A LOAD or STORE of n bytes between offset 0 of a binding and scratchpad 0. */
static inline uint8_t *npu_move(struct npu_program *p, uint8_t opcode, uint8_t binding, uint32_t n)
{
	uint8_t *i = npu_instruction(p, opcode);

	i[4] = binding;
	npu_put(i + 6, 1, 2);
	npu_put(i + 16, n, 4);
	npu_put(i + 28, 1, 2);
	return i;
}

static inline uint32_t npu_crc32(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;
	int bit;

	while (n--) {
		crc ^= *p++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* Writes the descriptor for what was added. */
static inline void npu_finish(struct npu_program *p, const struct drm_npu_device_info *info,
			      uint32_t spad, uint32_t bindings)
{
	uint8_t *d = p->bytes;

	memcpy(d, "NPUP", 4);
	npu_put(d + 0x04, 1, 2);
	npu_put(d + 0x08, 64, 4);
	npu_put(d + 0x0c, 64, 4);
	npu_put(d + 0x10, p->size - 64, 4);
	npu_put(d + 0x14, npu_crc32(d + 64, p->size - 64), 4);
	npu_put(d + 0x18, info->array_rows, 2);
	npu_put(d + 0x1a, info->array_cols, 2);
	npu_put(d + 0x1c, spad, 4);
	npu_put(d + 0x24, bindings, 2);
}

/* A program that copies n bytes from binding 0 to binding 1. */
static inline struct npu_program npu_copy_program(const struct drm_npu_device_info *info,
						  uint32_t n)
{
	struct npu_program p = { .size = 0 };

	npu_move(&p, NPU_LOAD, 0, n)[3] = 0x10;		/* signal token 0 */
	npu_move(&p, NPU_STORE, 1, n)[2] = 0x10;	/* wait for it */
	npu_instruction(&p, NPU_HALT);
	npu_finish(&p, info, n, 2);
	return p;
}

/* A launch of the program at the start of a BO; bindings are not copied. */
static inline struct drm_npu_command npu_launch(const struct npu_bo *bo, uint32_t size,
						const struct drm_npu_binding *bindings, uint32_t n)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_LAUNCH };

	c.launch.program_handle = bo->handle;
	c.launch.program_size = size;
	c.launch.bindings = NPU_ARRAY(bindings, n);
	return c;
}

static inline void npu_fill(uint8_t *p, size_t n, uint32_t seed)
{
	while (n--) {
		seed = seed * 1664525 + 1013904223;
		*p++ = seed >> 24;
	}
}

static inline bool npu_all(const uint8_t *p, size_t n, uint8_t value)
{
	while (n--)
		if (*p++ != value)
			return false;
	return true;
}

/* Sets the time after which jobs end, for queues that are still to come. */
static inline int npu_set_job_timeout(int ms)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", ms);
	return npu_write_file(NPU_JOB_TIMEOUT, text);
}

/* The exit status of a child, or 128 and the signal that ended it. */
static inline int npu_reap(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Opens the device into self->fd and self->dev, or skips. */
#define NPU_SETUP_OPEN() do {							\
	self->fd = npu_open(&self->dev);					\
	if (self->fd == -ENODEV)						\
		SKIP(return, "no device of driver " DRM_NPU_NAME);		\
	ASSERT_GE(self->fd, 0);							\
} while (0)

#endif /* NPU_SELFTEST_H */
