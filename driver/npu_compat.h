/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between the kernels that this driver is built for: 6.12 (with
 * stable updates) and 6.17 or later.
 */
#ifndef NPU_COMPAT_H
#define NPU_COMPAT_H

#include <linux/version.h>

#include <drm/drm_gem.h>
#include <drm/gpu_scheduler.h>

#define NPU_KERNEL_6_12 (KERNEL_VERSION(6, 17, 0) > LINUX_VERSION_CODE)

/* Member of struct drm_driver that must be set where it exists. */
#if NPU_KERNEL_6_12
#define NPU_DRIVER_DATE .date = "20260101",
#else
#define NPU_DRIVER_DATE
#endif

#if KERNEL_VERSION(6, 13, 0) > LINUX_VERSION_CODE
#define NPU_IMPORT_NS_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#else
#define NPU_IMPORT_NS_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#endif

/* 6.12 tells of active memory whether the driver says so or not. */
#if NPU_KERNEL_6_12
#define NPU_GEM_OBJECT_ACTIVE 0
#else
#define NPU_GEM_OBJECT_ACTIVE DRM_GEM_OBJECT_ACTIVE
#endif

static inline int npu_sched_init(struct drm_gpu_scheduler *sched,
				 const struct drm_sched_backend_ops *ops,
				 struct workqueue_struct *submit_wq, u32 credits,
				 long timeout, struct workqueue_struct *timeout_wq,
				 const char *name, struct device *dev)
{
#if NPU_KERNEL_6_12
	return drm_sched_init(sched, ops, submit_wq, DRM_SCHED_PRIORITY_COUNT,
			      credits, 0, timeout, timeout_wq, NULL, name, dev);
#else
	const struct drm_sched_init_args args = {
		.ops = ops,
		.submit_wq = submit_wq,
		.timeout_wq = timeout_wq,
		.num_rqs = DRM_SCHED_PRIORITY_COUNT,
		.credit_limit = credits,
		.timeout = timeout,
		.name = name,
		.dev = dev,
	};

	return drm_sched_init(sched, &args);
#endif
}

/*
 * What timedout_job returns to have the scheduler take the job back, which goes on or has ended:
 * then it is freed. A scheduler that is stopped stays so; who stops schedulers is locked out.
 */
static inline enum drm_gpu_sched_stat npu_sched_take_back(struct drm_sched_job *job)
{
#if NPU_KERNEL_6_12
	struct drm_gpu_scheduler *sched = job->sched;

	/* The scheduler took the job off its list; without it nobody frees the job. */
	spin_lock(&sched->job_list_lock);
	list_add(&job->list, &sched->pending_list);
	spin_unlock(&sched->job_list_lock);
	if (!READ_ONCE(sched->pause_submit))
		drm_sched_wqueue_start(sched); /* looks for jobs to free */
	return DRM_GPU_SCHED_STAT_NOMINAL;
#else
	return DRM_GPU_SCHED_STAT_NO_HANG;
#endif
}

#endif /* NPU_COMPAT_H */
