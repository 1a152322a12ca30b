/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest programs in C share, which look at what the driver does with odd arguments, or
 * measure; others use package accel: thin wrappers around the driver's interface
 * (npu_accel.h) and DRM syncobjs. Functions return 0 or a negative error
 * number, unless they say otherwise.
 */
#ifndef NPU_H
#define NPU_H

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

#endif /* NPU_H */
