// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver of the NPU, architecture 1.x: boot, resets, faults, files, queries.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/unaligned.h>

#include <drm/drm_accel.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>

#include "npu_compat.h"
#include "npu_drv.h"

/* How long jobs on the device may take to end before the system sleeps. */
#define NPU_SUSPEND_TIMEOUT_MS	10000

/* How long they are, before a reset for dead firmware. */
#define NPU_SETTLE_TIMEOUT_MS	5000

/* Presence and sleep. */

/*
 * npu_enter says whether the device is there, and keeps it until drm_dev_exit(). A device that
 * stops to answer is found out by whoever waits for it.
 */
bool npu_enter(struct npu_device *npu, int *idx)
{
	if (!drm_dev_enter(&npu->drm, idx))
		return false;
	if (!READ_ONCE(npu->gone))
		return true;
	drm_dev_exit(*idx);
	return false;
}

/* npu_wake wakes the device, which may sleep again after npu_relax(). No locks matter. */
int npu_wake(struct npu_device *npu)
{
	return npu->ops->runtime_pm ? pm_runtime_resume_and_get(npu->drm.dev) : 0;
}

/* npu_stay_awake is npu_wake() for a device that is awake. */
void npu_stay_awake(struct npu_device *npu)
{
	if (npu->ops->runtime_pm)
		pm_runtime_get_noresume(npu->drm.dev);
}

void npu_relax(struct npu_device *npu)
{
	if (!npu->ops->runtime_pm)
		return;
	pm_runtime_mark_last_busy(npu->drm.dev);
	pm_runtime_put_autosuspend(npu->drm.dev);
}

/*
 * npu_hold is npu_wake() for who only looks: -ENODATA if the device sleeps. After
 * npu_let_go() it may, as if nobody had looked.
 */
int npu_hold(struct npu_device *npu)
{
	if (!npu->ops->runtime_pm || !IS_ENABLED(CONFIG_PM))
		return 0;
	return pm_runtime_get_if_active(npu->drm.dev) > 0 ? 0 : -ENODATA;
}

void npu_let_go(struct npu_device *npu)
{
	if (npu->ops->runtime_pm && IS_ENABLED(CONFIG_PM))
		pm_runtime_put(npu->drm.dev);
}

/* Boot and reset. */

/*
 * npu_signalling_begin says that fences of jobs may wait for what the caller does until
 * npu_signalling_end(). It waits for no fence, and for no lock under which others wait for one
 * or for memory: whoever frees memory may wait for a fence. A kernel with lockdep looks after it.
 *
 * A bus whose reset allocates gets memory that nobody frees for it; what it locks is not the
 * driver's, so lockdep is not asked.
 */
void npu_signalling_begin(struct npu_device *npu, struct npu_signalling *s)
{
	s->annotated = !npu->ops->reset_allocates;
	if (s->annotated)
		s->cookie = dma_fence_begin_signalling();
	s->noreclaim = memalloc_noreclaim_save();
}

void npu_signalling_end(const struct npu_signalling *s)
{
	memalloc_noreclaim_restore(s->noreclaim);
	if (s->annotated)
		dma_fence_end_signalling(s->cookie);
}

/* npu_boot_error_name returns the name of a boot error, §3.5. */
const char *npu_boot_error_name(u32 error)
{
	static const char * const names[] = {
		[NPU_BOOT_ERROR_NONE] = "NONE",
		[NPU_BOOT_ERROR_SIZE] = "SIZE",
		[NPU_BOOT_ERROR_FETCH] = "FETCH",
		[NPU_BOOT_ERROR_MAGIC] = "MAGIC",
		[NPU_BOOT_ERROR_HEADER] = "HEADER",
		[NPU_BOOT_ERROR_HEADER_CRC] = "HEADER_CRC",
		[NPU_BOOT_ERROR_PAYLOAD_CRC] = "PAYLOAD_CRC",
		[NPU_BOOT_ERROR_INTERFACE] = "INTERFACE",
		[NPU_BOOT_ERROR_ARCH] = "ARCH",
		[NPU_BOOT_ERROR_RANGE] = "RANGE",
		[NPU_BOOT_ERROR_TIMEOUT] = "TIMEOUT",
		[NPU_BOOT_ERROR_TRAP] = "TRAP",
		[NPU_BOOT_ERROR_WATCHDOG] = "WATCHDOG",
	};

	return error < ARRAY_SIZE(names) ? names[error] : "unknown";
}

/* npu_check_arch checks that the architecture of npu_params is known here (§1.1). */
int npu_check_arch(struct npu_device *npu)
{
	u32 arch = npu->params.arch_version;

	if (FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch) == NPU_ARCH_MAJOR)
		return 0;
	return dev_err_probe(npu->drm.dev, -ENODEV,
			     "hardware architecture is %lu.%lu, needed is %u.x; remedy: a driver for architecture %lu\n",
			     FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch),
			     FIELD_GET(NPU_ARCH_VERSION_MINOR, arch), NPU_ARCH_MAJOR,
			     FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch));
}

static int npu_identify(struct npu_device *npu)
{
	u8 identify[NPU_IDENTIFY_SIZE];
	int ret;

	ret = npu_mbox_read(npu, NPU_ADMIN_IDENTIFY, 0, identify, sizeof(identify),
			    npu->ops->identify_timeout_ms);
	if (ret) {
		drm_err(&npu->drm, "firmware does not identify itself: %d\n", ret);
		return ret;
	}
	npu->fw_version = get_unaligned_le32(identify + NPU_IDENTIFY_VERSION);
	npu->fw_build = get_unaligned_le32(identify + NPU_IDENTIFY_BUILD);
	memcpy(npu->fw_name, identify + NPU_IDENTIFY_NAME, sizeof(npu->fw_name));
	if (FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version) == NPU_FIRMWARE_MAJOR)
		return 0;
	drm_err(&npu->drm, "firmware interface is %lu.%lu, needed is %u.x; remedy: install firmware and driver that fit\n",
		FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version),
		FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version), NPU_FIRMWARE_MAJOR);
	return -ENODEV;
}

/* Boots a device that was reset, and notes whether it is of use. */
static int npu_boot(struct npu_device *npu)
{
	int ret;

	clear_bit(NPU_RECOVER_RESET, &npu->recover); /* of who saw what the reset was for */
	ret = npu->ops->boot(npu);
	if (!ret) {
		npu_mbox_enable(npu);
		ret = npu_identify(npu);
	}
	if (!ret || npu->ops->take_crash)
		npu_dump_crash(npu);
	if (ret) {
		npu_mbox_disable(npu);
		npu->ops->stop(npu);
	}
	npu->up = !ret;
	npu->generation++;
	if (!ret)
		npu_health_check(npu);
	return ret;
}

/*
 * npu_lock takes npu_device.lock for who needs the device: not while somebody else resets it.
 * Recovery does not wait for that; it finds that the device is not up, and leaves it alone.
 */
void npu_lock(struct npu_device *npu)
{
	mutex_lock(&npu->lock);
	while (npu->resetting) {
		mutex_unlock(&npu->lock);
		wait_event(npu->reset_wait, !READ_ONCE(npu->resetting));
		mutex_lock(&npu->lock);
	}
}

/*
 * npu_reset_begin keeps commands from a device that is about to be reset;
 * npu_device.lock is held from here until after npu_reset_end().
 */
void npu_reset_begin(struct npu_device *npu)
{
	lockdep_assert_held(&npu->lock);

	npu_queues_stop(npu);
	npu_mbox_disable(npu);
}

/* Ends the jobs that a reset has ended, unless the device is found gone. */
static void npu_reset_interrupt(struct npu_device *npu, int error)
{
	atomic_inc(&npu->resets); /* before a job that it ended can be seen */
	if (error != -ENODEV)
		npu_queues_interrupt(npu);
}

/* Boots the device after a reset, and lets jobs run. */
static int npu_reset_revive(struct npu_device *npu, int error)
{
	if (error == -ENODEV) {
		WRITE_ONCE(npu->gone, true);
		npu_queues_cancel(npu, -ENODEV);
	}
	if (error)
		npu->up = false;
	else
		error = npu_boot(npu);
	npu_queues_restart(npu);
	if (npu->gone)
		drm_err(&npu->drm, "device is gone\n");
	else if (error)
		drm_err(&npu->drm, "device is lost: %d; remedy: reset it, or load the driver again\n",
			error);
	else
		drm_info(&npu->drm, "device was reset\n");
	return error;
}

/*
 * npu_reset_end brings the device back after a reset, which failed if error is not 0. It
 * returns error, or why the device did not come back.
 */
int npu_reset_end(struct npu_device *npu, int error)
{
	lockdep_assert_held(&npu->lock);

	npu_reset_interrupt(npu, error);
	return npu_reset_revive(npu, error);
}

/*
 * npu_reset_pause is for a reset that the bus is about to make, for somebody else: nothing runs
 * on the device from here until npu_reset_resume(). The lock is not held between them, because
 * the bus takes locks of its own, under which others allocate.
 */
void npu_reset_pause(struct npu_device *npu)
{
	mutex_lock(&npu->lock);
	npu_reset_begin(npu);
	npu_reset_interrupt(npu, npu->ops->reset(npu));
	npu->up = false;
	npu->resetting = true;
	mutex_unlock(&npu->lock);
}

/* npu_reset_resume brings the device back after that reset, which failed if error is not 0. */
void npu_reset_resume(struct npu_device *npu, int error)
{
	mutex_lock(&npu->lock);
	npu_reset_revive(npu, error);
	WRITE_ONCE(npu->resetting, false);
	mutex_unlock(&npu->lock);
	wake_up_all(&npu->reset_wait);
}

/**
 * npu_reset_locked - reset the device and bring it back
 * @npu: device; npu_device.lock is held
 *
 * Without firmware queues go on (§9.2): their jobs may end first. Otherwise, and after a while,
 * jobs that may have started, and those behind a late one, end with an error; the others, and
 * those that wait, run afterwards. Contexts and queues are made again.
 *
 * Return: 0, or an error; then the device is not up and every submit fails until
 * a reset succeeds (for instance through the function's "reset" file in sysfs).
 */
int npu_reset_locked(struct npu_device *npu)
{
	npu_reset_begin(npu);
	if (npu->ops->firmware_dead(npu))
		npu_queues_settle(npu, NPU_SETTLE_TIMEOUT_MS);
	return npu_reset_end(npu, npu->ops->reset(npu));
}

static void npu_recover(struct work_struct *work)
{
	struct npu_device *npu = container_of(work, struct npu_device, recover_work);
	struct npu_signalling s;
	bool reset, contexts;
	u32 i;
	int idx;

	if (!npu_enter(npu, &idx))
		return;
	if (npu_wake(npu)) /* does nothing if there are jobs */
		goto out;
	npu_signalling_begin(npu, &s);
	mutex_lock(&npu->lock);
	reset = test_and_clear_bit(NPU_RECOVER_RESET, &npu->recover);
	contexts = test_and_clear_bit(NPU_RECOVER_CONTEXTS, &npu->recover);
	if (contexts && !reset && npu->up)
		reset = npu_faults_find(npu) != 0;
	if (test_and_clear_bit(NPU_RECOVER_QUEUES, &npu->recover) || contexts)
		for (i = 0; i < npu->params.queues; i++) {
			struct npu_queue *q = &npu->queues[i];

			if (test_and_clear_bit(i, npu->faulted) && !reset)
				reset = (contexts && npu_context_faulted(q) ?
					 npu_context_recover(q) :
					 npu_queue_recover(q)) != 0;
		}
	if (reset && npu->up) {
		npu_dump(npu, "the device or a queue does not answer, or reported a fault");
		npu_reset_locked(npu);
	}
	mutex_unlock(&npu->lock);
	npu_signalling_end(&s);
	npu_relax(npu);
out:
	drm_dev_exit(idx);
}

/* npu_schedule_recovery asks for one of NPU_RECOVER_. */
void npu_schedule_recovery(struct npu_device *npu, int what)
{
	set_bit(what, &npu->recover);
	queue_work(npu->reset_wq, &npu->recover_work);
}

/* npu_schedule_queue_recovery asks for npu_queue_recover(). */
void npu_schedule_queue_recovery(struct npu_queue *q)
{
	set_bit(q->number - 1, q->npu->faulted);
	npu_schedule_recovery(q->npu, NPU_RECOVER_QUEUES);
}

/*
 * npu_fault reports a fault record (§9.3), whose fields are as in the registers FAULT_*,
 * and starts what brings the device back.
 */
void npu_fault(struct npu_device *npu, u32 code, u32 info, u64 addr, bool overflow)
{
	static const char * const sources[] = {
		[NPU_FAULT_SOURCE_DOORBELL] = "doorbell",
		[NPU_FAULT_SOURCE_FETCH] = "submission fetch",
		[NPU_FAULT_SOURCE_POST] = "completion post",
		[NPU_FAULT_SOURCE_CP] = "control processor",
	};
	u32 queue = FIELD_GET(NPU_FAULT_INFO_QUEUE, info);
	u32 source = FIELD_GET(NPU_FAULT_INFO_SOURCE, info);

	if (code == NPU_STATUS_WAIT_TIMEOUT) /* each queue of it is in firmware's log (§4.14) */
		dev_warn_ratelimited(npu->drm.dev,
				     "deadlock: queue %u waits for a value at 0x%llx, queue %lu is another one of it%s\n",
				     queue, addr, FIELD_GET(NPU_FAULT_INFO_INDEX, info),
				     overflow ? ", further faults not recorded" : "");
	else if (source != NPU_FAULT_SOURCE_MMU) /* which is a mistake of a file, and told to it */
		dev_err_ratelimited(npu->drm.dev,
				    "fault: %s (0x%02x), queue %u, source %s, index %lu, address 0x%llx%s\n",
				    npu_status_name(code), code, queue,
				    source < ARRAY_SIZE(sources) ? sources[source] : "unknown",
				    FIELD_GET(NPU_FAULT_INFO_INDEX, info), addr,
				    overflow ? ", further faults not recorded" : "");
	spin_lock(&npu->fault_lock);
	npu->fault = (struct npu_fault_record){ npu->fault.count + 1, code, info, addr };
	spin_unlock(&npu->fault_lock);

	/* Nothing runs there; who has the queues finds why in completions. */
	if (code == NPU_STATUS_QUEUE_DISABLED || code == NPU_STATUS_WAIT_TIMEOUT) {
		if (overflow)
			npu_schedule_recovery(npu, NPU_RECOVER_CONTEXTS);
		return;
	}
	if (source == NPU_FAULT_SOURCE_CP || !queue || queue > npu->params.queues ||
	    (overflow && !(npu->params.features & NPU_FEATURES_LO_QUEUE_CONTROL))) {
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
		return;
	}
	/* What was not recorded shows in the queues' states. */
	if (source == NPU_FAULT_SOURCE_MMU || overflow)
		npu_schedule_recovery(npu, NPU_RECOVER_CONTEXTS);
	if (source != NPU_FAULT_SOURCE_MMU)
		npu_schedule_queue_recovery(&npu->queues[queue - 1]);
}

/* Sleep of the system. */

/*
 * npu_suspend lets the jobs on the device end, keeps the others from it, and makes it silent.
 * It returns -EBUSY if they take too long; then everything goes on.
 */
int npu_suspend(struct npu_device *npu)
{
	int ret = 0;

	mutex_lock(&npu->lock);
	if (!npu->up)
		goto out; /* and stays so */
	npu_queues_stop(npu);
	if (npu_queues_drain(npu, NPU_SUSPEND_TIMEOUT_MS)) {
		drm_err(&npu->drm, "jobs on the device do not end, so it cannot sleep; remedy: end the programs\n");
		npu_queues_start(npu);
		ret = -EBUSY;
		goto out;
	}
	npu_mbox_disable(npu);
	npu->ops->stop(npu);
	npu_queues_cancel(npu, -ECANCELED); /* there are none */
	npu->up = false;
	npu->asleep = true;
out:
	mutex_unlock(&npu->lock);
	return ret;
}

/* npu_resume boots the device that npu_suspend() stopped, and lets jobs run on. */
int npu_resume(struct npu_device *npu)
{
	int ret = 0;

	mutex_lock(&npu->lock);
	if (npu->asleep) {
		npu->asleep = false;
		if (npu->ops->runtime_pm) /* others come as after a reset */
			ret = npu->ops->reset(npu);
		if (ret == -ENODEV)
			WRITE_ONCE(npu->gone, true);
		if (!ret)
			ret = npu_boot(npu);
		npu_queues_restart(npu);
		if (ret)
			drm_err(&npu->drm, "device did not wake: %d; remedy: reset it, or load the driver again\n",
				ret);
	}
	mutex_unlock(&npu->lock);
	return ret;
}

/* Files. */

static int npu_open(struct drm_device *drm, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct npu_file *file;

	file = kzalloc(sizeof(*file), GFP_KERNEL);
	if (!file)
		return -ENOMEM;
	file->npu = npu;
	file->client_id = filp->client_id;
	mutex_init(&file->lock);
	xa_init_flags(&file->queues, XA_FLAGS_ALLOC1);
	spin_lock_init(&file->jobs_lock);
	npu_vm_init(&file->vm, npu, &file->context);
	filp->driver_priv = file;

	mutex_lock(&npu->files_lock);
	list_add(&file->node, &npu->files);
	mutex_unlock(&npu->files_lock);
	return 0;
}

static void npu_postclose(struct drm_device *drm, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct npu_file *file = filp->driver_priv;

	/* First, so that npu_remove() waits for it. */
	npu_file_release_queues(file);
	npu_vm_empty(&file->vm);

	mutex_lock(&npu->files_lock);
	list_del(&file->node);
	mutex_unlock(&npu->files_lock);

	npu_vm_fini(&file->vm);
	xa_destroy(&file->queues);
	mutex_destroy(&file->lock);
	kfree(file);
}

/* Queries. */

static void npu_query_device_info(struct npu_device *npu, struct drm_npu_device_info *info)
{
	const struct npu_params *params = &npu->params;

	*info = (struct drm_npu_device_info){
		.uapi_version = DRM_NPU_VERSION_MAJOR << 16 | DRM_NPU_VERSION_MINOR,
		.arch_version = params->arch_version,
		.fw_version = npu->fw_version,
		.fw_build = npu->fw_build,
		.features = params->features,
		.array_rows = FIELD_GET(NPU_ARRAY_DIM_ROWS, params->array_dim),
		.array_cols = FIELD_GET(NPU_ARRAY_DIM_COLS, params->array_dim),
		.spad_size = params->spad_size,
		.acc_size = params->acc_size,
		.cores = FIELD_GET(NPU_ENGINE_PARAM_CORES, params->engines),
		.dma_channels = FIELD_GET(NPU_ENGINE_PARAM_DMA_CHANNELS, params->engines),
		.queues = params->queues,
		.queues_free = npu_queues_free(npu),
		.dram_size = params->dram_size,
		.max_commands = params->max_commands,
		.max_bindings = NPU_MAX_BINDINGS,
		.max_syncs = NPU_MAX_SYNCS,
		.vectors = params->vectors,
		.job_timeout_ms = npu_job_timeout_ms(),
		.resets = atomic_read(&npu->resets),
		.priorities = npu_has_queue_control(npu) ? NPU_QUEUE_PRIORITIES : 1,
		.max_weight = npu_has_queue_control(npu) ? NPU_MAX_WEIGHT : 1,
		.max_timeout_ms = npu_has_queue_timeouts(npu) ? NPU_MAX_TIMEOUT_MS : 0,
		.timeouts = atomic_read(&npu->timeouts),
	};
	flush_work(&npu->vm_work); /* what waits for an invalidation only is free */
	mutex_lock(&npu->bo_lock);
	info->dram_free = npu->dram_free;
	mutex_unlock(&npu->bo_lock);
	memcpy(info->firmware, npu->fw_name, sizeof(info->firmware));
}

static int npu_query_counters(struct npu_device *npu, struct drm_npu_counters *counters)
{
	__le64 page[NPU_COUNTER_COUNT];
	int ret;

	ret = npu_wake(npu);
	if (ret)
		return ret;
	ret = npu_mbox_read(npu, NPU_ADMIN_GET_LOG_PAGE, NPU_LOG_COUNTERS, page, sizeof(page),
			    NPU_MBOX_TIMEOUT_MS);
	npu_relax(npu);
	if (ret == -ETIMEDOUT)
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
	if (ret)
		return ret;
	*counters = (struct drm_npu_counters){
		.commands = le64_to_cpu(page[NPU_COUNTER_COMMANDS]),
		.errors = le64_to_cpu(page[NPU_COUNTER_ERRORS]),
		.programs = le64_to_cpu(page[NPU_COUNTER_PROGRAMS]),
		.instructions = le64_to_cpu(page[NPU_COUNTER_INSTRUCTIONS]),
		.macs = le64_to_cpu(page[NPU_COUNTER_MACS]),
		.dma_read = le64_to_cpu(page[NPU_COUNTER_DMA_READ]),
		.dma_written = le64_to_cpu(page[NPU_COUNTER_DMA_WRITTEN]),
		.interrupts = le64_to_cpu(page[NPU_COUNTER_INTERRUPTS]),
		.doorbells = le64_to_cpu(page[NPU_COUNTER_DOORBELLS]),
		.faults = le64_to_cpu(page[NPU_COUNTER_FAULTS]),
		.copies = le64_to_cpu(page[NPU_COUNTER_COPIES]),
		.admin = le64_to_cpu(page[NPU_COUNTER_ADMIN]),
		.shadow_doorbells = le64_to_cpu(page[NPU_COUNTER_SHADOW]),
		.tlb_hits = le64_to_cpu(page[NPU_COUNTER_TLB_HITS]),
		.tlb_misses = le64_to_cpu(page[NPU_COUNTER_TLB_MISSES]),
		.translation_faults = le64_to_cpu(page[NPU_COUNTER_TRANSLATION_FAULTS]),
		.waits = le64_to_cpu(page[NPU_COUNTER_WAITS]),
		.signals = le64_to_cpu(page[NPU_COUNTER_SIGNALS]),
		.timeouts = le64_to_cpu(page[NPU_COUNTER_QUEUE_TIMEOUTS]),
		.coalesced = le64_to_cpu(page[NPU_COUNTER_COALESCED]),
		.ecc_corrected = le64_to_cpu(page[NPU_COUNTER_ECC_CORRECTED]),
		.ecc_uncorrected = le64_to_cpu(page[NPU_COUNTER_ECC_UNCORRECTED]),
		.engine_resets = le64_to_cpu(page[NPU_COUNTER_ENGINE_RESETS]),
	};
	return 0;
}

static int npu_query(struct npu_device *npu, struct drm_npu_query *args, struct npu_file *file)
{
	union {
		struct drm_npu_device_info info;
		struct drm_npu_counters counters;
		struct drm_npu_job_status job;
		struct drm_npu_vm_info vm;
		struct drm_npu_fault fault;
		struct drm_npu_telemetry telemetry;
	} answer = {};
	u32 size;
	int ret = 0;

	switch (args->type) {
	case DRM_NPU_QUERY_DEVICE_INFO:
		size = sizeof(answer.info);
		if (args->ptr)
			npu_query_device_info(npu, &answer.info);
		break;
	case DRM_NPU_QUERY_COUNTERS:
		size = sizeof(answer.counters);
		if (args->ptr)
			ret = npu_query_counters(npu, &answer.counters);
		break;
	case DRM_NPU_QUERY_JOB:
		size = sizeof(answer.job);
		if (args->ptr)
			ret = npu_job_query(file, args->arg, &answer.job);
		break;
	case DRM_NPU_QUERY_VM:
		size = sizeof(answer.vm);
		ret = npu->mmu ? 0 : -EOPNOTSUPP;
		if (!ret && args->ptr)
			npu_query_vm(&file->vm, &answer.vm);
		break;
	case DRM_NPU_QUERY_FAULT:
		size = sizeof(answer.fault);
		ret = npu->mmu ? 0 : -EOPNOTSUPP;
		if (!ret && args->ptr)
			npu_query_fault(file, &answer.fault);
		break;
	case DRM_NPU_QUERY_TELEMETRY:
		size = sizeof(answer.telemetry);
		ret = npu_has_ras(npu) ? 0 : -EOPNOTSUPP;
		if (!ret && args->ptr)
			ret = npu_query_telemetry(npu, &answer.telemetry);
		break;
	default:
		drm_dbg(&npu->drm, "query of unknown type %u\n", args->type);
		return -EINVAL;
	}
	if (ret)
		return ret;
	if (args->ptr && copy_to_user(u64_to_user_ptr(args->ptr), &answer, min(args->size, size)))
		return -EFAULT;
	args->size = size;
	return 0;
}

static int npu_ioctl_query(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_query *args = data;
	int ret, idx;

	if (args->type != DRM_NPU_QUERY_JOB && args->arg) {
		drm_dbg(drm, "query %u takes no argument\n", args->type);
		return -EINVAL;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	ret = npu_query(to_npu(drm), args, filp->driver_priv);
	drm_dev_exit(idx);
	return ret;
}

static const struct drm_ioctl_desc npu_ioctls[] = {
	DRM_IOCTL_DEF_DRV(NPU_QUERY, npu_ioctl_query, 0),
	DRM_IOCTL_DEF_DRV(NPU_BO_CREATE, npu_ioctl_bo_create, 0),
	DRM_IOCTL_DEF_DRV(NPU_SUBMIT, npu_ioctl_submit, 0),
	DRM_IOCTL_DEF_DRV(NPU_QUEUE_CREATE, npu_ioctl_queue_create, 0),
	DRM_IOCTL_DEF_DRV(NPU_QUEUE_DESTROY, npu_ioctl_queue_destroy, 0),
	DRM_IOCTL_DEF_DRV(NPU_VM_BIND, npu_ioctl_vm_bind, 0),
	DRM_IOCTL_DEF_DRV(NPU_QUEUE_MAP, npu_ioctl_queue_map, 0),
};

/* Memory of the file by region, for npu_show_fdinfo(). */
static void npu_show_memory(struct drm_printer *p, struct drm_file *filp)
{
	static const char * const regions[] = {
		[DRM_NPU_PLACEMENT_DEVICE] = "device",
		[DRM_NPU_PLACEMENT_SYSTEM] = "system",
	};
	struct drm_memory_stats stats[ARRAY_SIZE(regions)] = {};
	struct drm_gem_object *obj;
	u32 i;
	int id;

	spin_lock(&filp->table_lock);
	idr_for_each_entry(&filp->object_idr, obj, id) {
		struct drm_memory_stats *of;

		if (!obj)
			continue;
		of = &stats[to_npu_bo(obj)->placement];
		if (drm_gem_object_is_shared_for_memory_stats(obj))
			of->shared += obj->size;
		else
			of->private += obj->size;
		of->resident += obj->size;
		if (!dma_resv_test_signaled(obj->resv, DMA_RESV_USAGE_BOOKKEEP))
			of->active += obj->size;
	}
	spin_unlock(&filp->table_lock);

	for (i = DRM_NPU_PLACEMENT_DEVICE; i < ARRAY_SIZE(regions); i++)
		drm_print_memory_stats(p, &stats[i],
				       DRM_GEM_OBJECT_RESIDENT | NPU_GEM_OBJECT_ACTIVE,
				       regions[i]);
}

/* As Documentation/gpu/drm-usage-stats.rst says. */
static void npu_show_fdinfo(struct drm_printer *p, struct drm_file *filp)
{
	struct npu_file *file = filp->driver_priv;
	u32 engines = file->npu->params.engines;

	drm_printf(p, "drm-engine-npu:\t%lld ns\n", atomic64_read(&file->busy_ns));
	drm_printf(p, "drm-engine-capacity-npu:\t%lu\n",
		   FIELD_GET(NPU_ENGINE_PARAM_CORES, engines));
	drm_printf(p, "npu-timeouts:\t%d\n", atomic_read(&file->timeouts));
	npu_show_memory(p, filp);
}

static const struct file_operations npu_fops = {
	.owner = THIS_MODULE,
	/* DRM_ACCEL_FOPS but for mmap */
	.open = accel_open,
	.release = drm_release,
	.unlocked_ioctl = drm_ioctl,
	.compat_ioctl = drm_compat_ioctl,
	.poll = drm_poll,
	.read = drm_read,
	.llseek = noop_llseek,
	.mmap = npu_mmap,
	.fop_flags = FOP_UNSIGNED_OFFSET,
#ifdef CONFIG_PROC_FS
	.show_fdinfo = drm_show_fdinfo,
#endif
};

static const struct drm_driver npu_driver = {
	.driver_features = DRIVER_COMPUTE_ACCEL | DRIVER_GEM | DRIVER_SYNCOBJ |
			   DRIVER_SYNCOBJ_TIMELINE,
	.open = npu_open,
	.postclose = npu_postclose,
	.show_fdinfo = npu_show_fdinfo,
	.gem_prime_import = npu_gem_import,
	.gem_prime_import_sg_table = npu_gem_import_sg_table,
	.ioctls = npu_ioctls,
	.num_ioctls = ARRAY_SIZE(npu_ioctls),
	.fops = &npu_fops,
	.name = DRM_NPU_NAME,
	.desc = "NPU compute accelerator",
	NPU_DRIVER_DATE
	.major = DRM_NPU_VERSION_MAJOR,
	.minor = DRM_NPU_VERSION_MINOR,
};

/* What a bus calls in probe and remove. */

/**
 * npu_alloc - allocate a device
 * @dev: what it is on the bus; owns it
 * @size: of the bus's structure, whose first member is the npu_device
 * @ops: of the bus
 *
 * Return: the device, or an error pointer. The bus goes on to reset it, to fill in
 * npu_params, and to call npu_gem_init(), npu_init() and npu_start().
 */
struct npu_device *npu_alloc(struct device *dev, size_t size, const struct npu_bus_ops *ops)
{
	struct npu_device *npu;
	int ret;

	npu = __devm_drm_dev_alloc(dev, &npu_driver, size, offsetof(struct npu_device, drm));
	if (IS_ERR(npu))
		return npu;
	npu->ops = ops;
	INIT_LIST_HEAD(&npu->files);
	INIT_WORK(&npu->recover_work, npu_recover);
	INIT_WORK(&npu->vm_work, npu_vm_work);
	init_waitqueue_head(&npu->reset_wait);
	spin_lock_init(&npu->dead_lock);
	INIT_LIST_HEAD(&npu->dead);
	spin_lock_init(&npu->busy_lock);
	ret = drmm_mutex_init(&npu->drm, &npu->files_lock);
	if (!ret)
		ret = drmm_mutex_init(&npu->drm, &npu->lock);
	return ret ? ERR_PTR(ret) : npu;
}

/* npu_init makes admin queue and queue slots; npu_params is complete. */
int npu_init(struct npu_device *npu)
{
	struct npu_params *params = &npu->params;
	int ret;

	if (!params->queues || !params->contexts)
		return dev_err_probe(npu->drm.dev, -ENODEV, "no user queues or contexts (§2)\n");
	params->max_commands = min(params->credits, NPU_MAX_COMMANDS);
	ret = npu_state_init(npu);
	if (!ret)
		ret = npu_mbox_init(npu);
	if (!ret)
		ret = npu_fault_init(npu);
	if (!ret)
		ret = npu_health_init(npu);
	return ret ?: npu_queues_init(npu);
}

/*
 * An entry of a page table is one store (§11.2), which takes a 64-bit processor. Recovery from
 * faults asks for the status of queues (§4.19).
 */
static bool npu_has_mmu(struct npu_device *npu)
{
	return IS_ENABLED(CONFIG_64BIT) && npu->params.features & NPU_FEATURES_LO_MMU &&
	       npu_has_queue_control(npu); /* which asks for the same version of firmware */
}

/* npu_start boots the device and registers it. On failure the device is silent. */
int npu_start(struct npu_device *npu)
{
	const struct npu_params *params = &npu->params;
	int ret;

	mutex_lock(&npu->lock);
	ret = npu_boot(npu);
	npu->mmu = npu_has_mmu(npu);
	mutex_unlock(&npu->lock);
	if (!ret)
		ret = drm_dev_register(&npu->drm, 0);
	if (ret) {
		npu_quiesce(npu);
		return ret;
	}
	npu_hwmon_init(npu);

	drm_info(&npu->drm, "architecture %lu.%lu, firmware interface %lu.%lu, build %lu.%lu.%lu (%.32s)\n",
		 FIELD_GET(NPU_ARCH_VERSION_MAJOR, params->arch_version),
		 FIELD_GET(NPU_ARCH_VERSION_MINOR, params->arch_version),
		 FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version),
		 FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version),
		 FIELD_GET(NPU_FW_BUILD_MAJOR, npu->fw_build),
		 FIELD_GET(NPU_FW_BUILD_MINOR, npu->fw_build),
		 FIELD_GET(NPU_FW_BUILD_PATCH, npu->fw_build), npu->fw_name);
	drm_info(&npu->drm, "array %lux%lu, %llu MiB of DRAM, %u queues of %u commands\n",
		 FIELD_GET(NPU_ARRAY_DIM_ROWS, params->array_dim),
		 FIELD_GET(NPU_ARRAY_DIM_COLS, params->array_dim),
		 params->dram_size >> 20, params->queues, params->credits);
	return 0;
}

/* npu_quiesce ends everything that runs on the device, and leaves it silent. */
void npu_quiesce(struct npu_device *npu)
{
	mutex_lock(&npu->lock);
	npu_reset_begin(npu);
	npu->up = false;
	npu->ops->stop(npu);
	npu_queues_cancel(npu, -ECANCELED); /* before shutdown files have jobs there */
	npu_queues_restart(npu);
	mutex_unlock(&npu->lock);
	cancel_work_sync(&npu->recover_work);
	disable_work_sync(&npu->health.work);
	flush_work(&npu->dump_work);
}

/* npu_remove takes the device away from its users, who may still have it open. */
void npu_remove(struct npu_device *npu)
{
	struct npu_file *file;

	drm_dev_unplug(&npu->drm);

	/* Files may stay open; what they had on the device ends here. */
	mutex_lock(&npu->files_lock);
	list_for_each_entry(file, &npu->files, node) {
		npu_file_release_queues(file);
		npu_vm_empty(&file->vm);
	}
	mutex_unlock(&npu->files_lock);

	npu_quiesce(npu);
	npu_gem_revoke(npu);
}

static int __init npu_module_init(void)
{
	int ret;

	ret = npu_pci_register();
	if (ret)
		return ret;
	ret = npu_virtio_register();
	if (ret)
		npu_pci_unregister();
	return ret;
}
module_init(npu_module_init);

static void __exit npu_module_exit(void)
{
	npu_virtio_unregister();
	npu_pci_unregister();
	/* Whoever released the last fence has left npu_fence_release(), preempted there or not. */
	synchronize_rcu_tasks();
}
module_exit(npu_module_exit);

MODULE_DESCRIPTION("NPU compute accelerator");
MODULE_LICENSE("GPL");
