/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest programs in C share, which look at what the driver does with odd arguments, or
 * measure; others use package accel: thin wrappers around the driver's interface
 * (npu_accel.h) and DRM syncobjs. Functions return 0 or a negative error
 * number, unless they say otherwise.
 */
#ifndef NPU_H
#define NPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npu_accel.h"

/* A buffer object of one open device. */
struct npu_bo {
	uint32_t handle;
	uint64_t size;		/* whole pages */
	uint64_t mmap_offset;
	uint8_t *map;		/* NULL until npu_bo_map */
};

struct npu_version {
	int major, minor;
	char name[32];
};

/* npu_open opens the first accel node of the NPU driver; returns the descriptor. */
int npu_open(void);
/* npu_open_path opens the given node if it belongs to the NPU driver. */
int npu_open_path(const char *path);

/* npu_ioctl is ioctl that repeats interrupted calls and returns -errno. */
int npu_ioctl(int fd, unsigned long request, void *arg);

int npu_get_version(int fd, struct npu_version *version);
int npu_query(int fd, uint32_t type, uint64_t arg, void *to, uint32_t size);

int npu_bo_create(int fd, uint32_t placement, uint64_t size, struct npu_bo *bo);
int npu_bo_map(int fd, struct npu_bo *bo);
/* npu_bo_destroy unmaps and closes; a bo that is all zero is left alone. */
void npu_bo_destroy(int fd, struct npu_bo *bo);

int npu_syncobj_create(int fd, uint32_t *handle);
void npu_syncobj_destroy(int fd, uint32_t handle);
/* npu_wait waits for a point of a timeline, or with point 0 for a binary syncobj. */
int npu_wait(int fd, uint32_t handle, uint64_t point, int timeout_ms);

int npu_submit(int fd, const struct drm_npu_command *commands, uint32_t count,
	       const struct drm_npu_sync *in, uint32_t in_count,
	       const struct drm_npu_sync *out, uint32_t out_count, uint64_t *seqno);
/* npu_run submits, waits and queries. It returns the job's error, if there is no other. */
int npu_run(int fd, const struct drm_npu_command *commands, uint32_t count, int timeout_ms,
	    struct drm_npu_job_status *status);

/*
 * npu_launch describes a launch; the command refers to bindings until it is
 * submitted.
 */
struct drm_npu_command npu_launch(const struct npu_bo *program, uint64_t offset, uint32_t size,
				  const struct drm_npu_binding *bindings, uint32_t count);

/* npu_now returns seconds of a clock that only goes forward. */
double npu_now(void);

/* npu_print_counters prints b - a as a JSON object. */
void npu_print_counters(const struct drm_npu_counters *a, const struct drm_npu_counters *b);

/*
 * For programs that are tests, and print KTAP: a row each, "Bail out!" when it makes no sense to
 * go on, and the plan at the end. Who says make_ or get_ bails out if that fails.
 */
bool row(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* row_error is a row for a call that returns 0 or -errno. */
bool row_error(int want, int got, const char *group, const char *name);
void bail(const char *what, int ret) __attribute__((noreturn));
/* end_rows prints the plan, and returns what main does. */
int end_rows(void);

extern const struct drm_npu_command nop;

/* make_bo maps too, unless it is device memory to which the host has no window. */
struct npu_bo make_bo(int fd, uint32_t placement, uint64_t size);
uint32_t make_queue(int fd);
uint32_t make_syncobj(int fd);
struct drm_npu_device_info get_info(int fd);

/* open_sysfs opens a file of the device's directory in sysfs; -1 if that fails. */
int open_sysfs(int fd, const char *name, int flags);
/* is_suspended says whether the function sleeps in D3hot. */
bool is_suspended(int fd);

#endif /* NPU_H */
