// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver of the NPU, architecture 1.x: probe, boot, resets, files, queries.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/firmware.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include <drm/drm_accel.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>

#include "npu_compat.h"
#include "npu_drv.h"

#define NPU_PCI_VENDOR		0x1af4 /* §1.1 */
#define NPU_PCI_DEVICE		0x10f0
#define NPU_PCI_CLASS		0x120000

#define NPU_FIRMWARE		"npu/npufw-1.bin"

/* Header and one word, to a bound that keeps a wrong file from eating memory. */
#define NPU_FIRMWARE_MIN	68
#define NPU_FIRMWARE_MAX	SZ_4M

/* A reset is over within 100 ms (§9.4); a loaded host may be late. */
#define NPU_RESET_TIMEOUT_US	(2 * USEC_PER_SEC)

/* The device gives up first, and says why; then the driver does. */
#define NPU_BOOT_TIMEOUT_MS	10000
#define NPU_BOOT_PATIENCE_US	((NPU_BOOT_TIMEOUT_MS + 2000) * USEC_PER_MSEC)

/* Reset and boot. */

static int npu_wait_reset(struct npu_device *npu)
{
	u32 status, boot;
	int ret;

	ret = read_poll_timeout(npu_read, status,
				status != U32_MAX && !(status & NPU_DEVICE_STATUS_RESETTING),
				1000, NPU_RESET_TIMEOUT_US, false, npu, NPU_DEVICE_STATUS);
	if (!ret)
		ret = read_poll_timeout(npu_read, boot,
					FIELD_GET(NPU_BOOT_STATUS_STATE, boot) ==
					NPU_BOOT_STATE_WAITING,
					1000, NPU_RESET_TIMEOUT_US, false, npu, NPU_BOOT_STATUS);
	if (ret)
		drm_err(&npu->drm, "reset does not end: DEVICE_STATUS 0x%08x, BOOT_STATUS 0x%08x\n",
			status, npu_read(npu, NPU_BOOT_STATUS));
	return ret;
}

static int npu_soft_reset(struct npu_device *npu)
{
	npu_write(npu, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	return npu_wait_reset(npu);
}

static void npu_report_boot(struct npu_device *npu, u32 status)
{
	static const char * const states[] = {
		[NPU_BOOT_STATE_OFF] = "OFF",
		[NPU_BOOT_STATE_WAITING] = "WAITING",
		[NPU_BOOT_STATE_LOADING] = "LOADING",
		[NPU_BOOT_STATE_STARTING] = "STARTING",
		[NPU_BOOT_STATE_READY] = "READY",
		[NPU_BOOT_STATE_FAILED] = "FAILED",
	};
	static const struct {
		const char *name;
		const char *remedy;
	} errors[] = {
		[NPU_BOOT_ERROR_NONE] = { "NONE", "none known" },
		[NPU_BOOT_ERROR_SIZE] = { "SIZE", "install an intact " NPU_FIRMWARE },
		[NPU_BOOT_ERROR_FETCH] = { "FETCH", "look for an IOMMU fault of the function" },
		[NPU_BOOT_ERROR_MAGIC] = { "MAGIC", "install an intact " NPU_FIRMWARE },
		[NPU_BOOT_ERROR_HEADER] = { "HEADER", "install an intact " NPU_FIRMWARE },
		[NPU_BOOT_ERROR_HEADER_CRC] = { "HEADER_CRC", "install an intact " NPU_FIRMWARE },
		[NPU_BOOT_ERROR_PAYLOAD_CRC] = { "PAYLOAD_CRC",
						 "install an intact " NPU_FIRMWARE },
		[NPU_BOOT_ERROR_INTERFACE] = { "INTERFACE", "install firmware for this device" },
		[NPU_BOOT_ERROR_ARCH] = { "ARCH", "install firmware for this device" },
		[NPU_BOOT_ERROR_RANGE] = { "RANGE", "install firmware for this device" },
		[NPU_BOOT_ERROR_TIMEOUT] = { "TIMEOUT", "report the firmware's version" },
		[NPU_BOOT_ERROR_TRAP] = { "TRAP", "report the firmware's version" },
		[NPU_BOOT_ERROR_WATCHDOG] = { "WATCHDOG", "report the firmware's version" },
	};
	u32 state = FIELD_GET(NPU_BOOT_STATUS_STATE, status);
	u32 error = FIELD_GET(NPU_BOOT_STATUS_ERROR, status);

	drm_err(&npu->drm, "firmware does not boot: state %s (%u), error %s (%u), detail 0x%08x; remedy: %s\n",
		state < ARRAY_SIZE(states) ? states[state] : "unknown", state,
		error < ARRAY_SIZE(errors) ? errors[error].name : "unknown", error,
		npu_read(npu, NPU_FW_ERROR_DETAIL),
		error < ARRAY_SIZE(errors) ? errors[error].remedy : "none known");
}

/* Boots firmware from WAITING (§3.2) and starts the admin queue. */
static int npu_boot(struct npu_device *npu)
{
	u8 identify[NPU_IDENTIFY_SIZE];
	u32 status, state;
	int ret;

	npu_write(npu, NPU_IMAGE_ADDR_LO, lower_32_bits(npu->fw_addr));
	npu_write(npu, NPU_IMAGE_ADDR_HI, upper_32_bits(npu->fw_addr));
	npu_write(npu, NPU_IMAGE_SIZE, npu->fw_size);
	npu_write(npu, NPU_BOOT_TIMEOUT, NPU_BOOT_TIMEOUT_MS);
	npu_write(npu, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);

	ret = read_poll_timeout(npu_read, status,
				(state = FIELD_GET(NPU_BOOT_STATUS_STATE, status)) ==
				NPU_BOOT_STATE_READY || state == NPU_BOOT_STATE_FAILED,
				2000, NPU_BOOT_PATIENCE_US, false, npu, NPU_BOOT_STATUS);
	if (ret || state != NPU_BOOT_STATE_READY) {
		npu_report_boot(npu, status);
		return ret ?: -EIO;
	}

	npu->fw_version = npu_read(npu, NPU_FW_VERSION);
	npu->fw_build = npu_read(npu, NPU_FW_BUILD);
	if (FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version) != NPU_FIRMWARE_MAJOR) {
		drm_err(&npu->drm, "firmware interface is %lu.%lu, needed is %u.x; remedy: install %s of this driver's version\n",
			FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version),
			FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version), NPU_FIRMWARE_MAJOR,
			NPU_FIRMWARE);
		return -ENODEV;
	}

	npu_mbox_enable(npu);
	npu_irq_enable(npu);
	ret = npu_mbox_read(npu, NPU_ADMIN_IDENTIFY, 0, identify, sizeof(identify));
	if (ret) {
		drm_err(&npu->drm, "firmware does not identify itself: %d\n", ret);
		return ret;
	}
	memcpy(npu->fw_name, identify + NPU_IDENTIFY_NAME, sizeof(npu->fw_name));
	return 0;
}

/* Boots after a reset that is over, and says whether the device is of use again. */
static int npu_boot_again(struct npu_device *npu)
{
	int ret;

	pci_set_master(to_pci_dev(npu->drm.dev));
	ret = npu_boot(npu);
	if (ret) {
		npu_irq_disable(npu);
		npu_mbox_disable(npu);
	}
	npu->up = !ret;
	return ret;
}

/**
 * npu_reset_locked - reset the device and bring it back
 * @npu: device; npu_device.lock is held
 * @guilty: job whose timeout is the reason, or NULL. Its scheduler is left
 *	    stopped, for timedout_job to start it.
 *
 * Jobs on the device end with an error, jobs that wait run afterwards. Contexts
 * and queues are made again.
 *
 * Return: 0, or an error; then the device is not up and every submit fails until
 * a reset succeeds (for instance through the function's "reset" file in sysfs).
 */
int npu_reset_locked(struct npu_device *npu, struct drm_sched_job *guilty)
{
	int ret;

	lockdep_assert_held(&npu->lock);

	npu_queues_stop(npu);
	npu_mbox_disable(npu);
	ret = npu_soft_reset(npu);
	if (ret) /* it may still write to memory that is about to be freed */
		pci_clear_master(to_pci_dev(npu->drm.dev));
	atomic_inc(&npu->resets); /* before a job that it ended can be seen */
	npu_queues_cancel(npu, guilty);
	if (guilty)
		drm_sched_stop(guilty->sched, guilty);
	if (ret)
		npu->up = false;
	else
		ret = npu_boot_again(npu);
	npu_queues_restart(npu, guilty ? guilty->sched : NULL);
	if (ret)
		drm_err(&npu->drm, "device is lost: %d; remedy: reset the function, or load the driver again\n",
			ret);
	else
		drm_info(&npu->drm, "device was reset\n");
	return ret;
}

static void npu_recover(struct work_struct *work)
{
	struct npu_device *npu = container_of(work, struct npu_device, recover_work);
	bool reset;
	u32 i;
	int idx;

	if (!drm_dev_enter(&npu->drm, &idx))
		return;
	mutex_lock(&npu->lock);
	reset = test_and_clear_bit(NPU_RECOVER_RESET, &npu->recover);
	if (test_and_clear_bit(NPU_RECOVER_QUEUES, &npu->recover))
		for (i = 0; i < npu->params.queues; i++)
			if (test_and_clear_bit(i, npu->faulted) && !reset)
				reset = npu_queue_recover(&npu->queues[i]) != 0;
	if (reset && npu->up)
		npu_reset_locked(npu, NULL);
	mutex_unlock(&npu->lock);
	drm_dev_exit(idx);
}

/* npu_schedule_recovery asks for NPU_RECOVER_RESET or NPU_RECOVER_QUEUES. */
void npu_schedule_recovery(struct npu_device *npu, int what)
{
	set_bit(what, &npu->recover);
	queue_work(npu->reset_wq, &npu->recover_work);
}

/*
 * PCI core is about to reset the function, for instance because somebody wrote
 * to its "reset" file. Bus mastering goes off before that, so work in flight ends
 * here. The lock is given back when the reset is done.
 */
static void npu_reset_prepare(struct pci_dev *pdev)
{
	struct npu_device *npu = pci_get_drvdata(pdev);

	mutex_lock(&npu->lock);
	npu_queues_stop(npu);
	npu_mbox_disable(npu);
	npu_soft_reset(npu);
}

static void npu_reset_done(struct pci_dev *pdev)
{
	struct npu_device *npu = pci_get_drvdata(pdev);
	int ret;

	ret = npu_wait_reset(npu);
	if (ret)
		pci_clear_master(pdev);
	atomic_inc(&npu->resets);
	npu_queues_cancel(npu, NULL);
	if (ret)
		npu->up = false;
	else
		ret = npu_boot_again(npu);
	npu_queues_restart(npu, NULL);
	mutex_unlock(&npu->lock);
	if (ret)
		drm_err(&npu->drm, "device is lost after the reset of its function: %d\n", ret);
	else
		drm_info(&npu->drm, "function was reset\n");
}

static const struct pci_error_handlers npu_err_handler = {
	.reset_prepare = npu_reset_prepare,
	.reset_done = npu_reset_done,
};

/* Files. */

static int npu_open(struct drm_device *drm, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct npu_file *file;

	file = kzalloc(sizeof(*file), GFP_KERNEL);
	if (!file)
		return -ENOMEM;
	file->npu = npu;
	mutex_init(&file->lock);
	spin_lock_init(&file->jobs_lock);
	filp->driver_priv = file;

	mutex_lock(&npu->files_lock);
	list_add(&file->node, &npu->files);
	mutex_unlock(&npu->files_lock);
	return 0;
}

static void npu_file_release_queue(struct npu_file *file)
{
	mutex_lock(&file->lock);
	if (file->queue)
		npu_queue_release(file->queue);
	file->queue = NULL;
	mutex_unlock(&file->lock);
}

static void npu_postclose(struct drm_device *drm, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct npu_file *file = filp->driver_priv;

	mutex_lock(&npu->files_lock);
	list_del(&file->node);
	mutex_unlock(&npu->files_lock);

	npu_file_release_queue(file);
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
		.queues = params->files,
		.queues_free = npu_queues_free(npu),
		.dram_size = params->dram_size,
		.max_commands = params->max_commands,
		.max_bindings = NPU_MAX_BINDINGS,
		.max_syncs = NPU_MAX_SYNCS,
		.vectors = npu->vector_count,
		.job_timeout_ms = npu_job_timeout_ms(),
		.resets = atomic_read(&npu->resets),
	};
	mutex_lock(&npu->bo_lock);
	info->dram_free = npu->dram_free;
	mutex_unlock(&npu->bo_lock);
	memcpy(info->firmware, npu->fw_name, sizeof(info->firmware));
}

static int npu_query_counters(struct npu_device *npu, struct drm_npu_counters *counters)
{
	__le64 page[NPU_COUNTER_COUNT];
	int ret;

	ret = npu_mbox_read(npu, NPU_ADMIN_GET_LOG_PAGE, NPU_LOG_COUNTERS, page, sizeof(page));
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
	};
	return 0;
}

static int npu_query(struct npu_device *npu, struct drm_npu_query *args, struct npu_file *file)
{
	union {
		struct drm_npu_device_info info;
		struct drm_npu_counters counters;
		struct drm_npu_job_status job;
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
	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	ret = npu_query(to_npu(drm), args, filp->driver_priv);
	drm_dev_exit(idx);
	return ret;
}

static const struct drm_ioctl_desc npu_ioctls[] = {
	DRM_IOCTL_DEF_DRV(NPU_QUERY, npu_ioctl_query, 0),
	DRM_IOCTL_DEF_DRV(NPU_BO_CREATE, npu_ioctl_bo_create, 0),
	DRM_IOCTL_DEF_DRV(NPU_SUBMIT, npu_ioctl_submit, 0),
};

DEFINE_DRM_ACCEL_FOPS(npu_fops);

static const struct drm_driver npu_driver = {
	.driver_features = DRIVER_COMPUTE_ACCEL | DRIVER_GEM | DRIVER_SYNCOBJ |
			   DRIVER_SYNCOBJ_TIMELINE,
	.open = npu_open,
	.postclose = npu_postclose,
	.ioctls = npu_ioctls,
	.num_ioctls = ARRAY_SIZE(npu_ioctls),
	.fops = &npu_fops,
	.name = DRM_NPU_NAME,
	.desc = "NPU compute accelerator",
	NPU_DRIVER_DATE
	.major = DRM_NPU_VERSION_MAJOR,
	.minor = DRM_NPU_VERSION_MINOR,
};

/* Probe and remove. */

/* Checks that the registers are those of an architecture known here (§1.1). */
static int npu_check_identity(struct npu_device *npu)
{
	struct device *dev = npu->drm.dev;
	u32 id = npu_read(npu, NPU_ID);
	u32 arch = npu_read(npu, NPU_ARCH_VERSION);

	if (id != NPU_MAGIC)
		return dev_err_probe(dev, -ENODEV,
				     "ID is 0x%08x, needed is 0x%08x; remedy: this is no NPU, or it is powered off\n",
				     id, NPU_MAGIC);
	if (FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch) != NPU_ARCH_MAJOR)
		return dev_err_probe(dev, -ENODEV,
				     "hardware architecture is %lu.%lu, needed is %u.x; remedy: a driver for architecture %lu\n",
				     FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch),
				     FIELD_GET(NPU_ARCH_VERSION_MINOR, arch), NPU_ARCH_MAJOR,
				     FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch));
	return 0;
}

static int npu_read_params(struct npu_device *npu)
{
	struct npu_params *params = &npu->params;
	u32 queues = npu_read(npu, NPU_QUEUE_PARAM);
	u64 end;

	params->arch_version = npu_read(npu, NPU_ARCH_VERSION);
	params->features = npu_read(npu, NPU_FEATURES_LO) |
			   (u64)npu_read(npu, NPU_FEATURES_HI) << 32;
	params->array_dim = npu_read(npu, NPU_ARRAY_DIM);
	params->spad_size = npu_read(npu, NPU_SPAD_SIZE);
	params->acc_size = npu_read(npu, NPU_ACC_SIZE);
	params->engines = npu_read(npu, NPU_ENGINE_PARAM);
	params->queues = FIELD_GET(NPU_QUEUE_PARAM_COUNT, queues);
	params->files = min(params->queues, npu_read(npu, NPU_CONTEXT_PARAM));
	params->dram_size = npu_read(npu, NPU_DRAM_SIZE_LO) |
			    (u64)npu_read(npu, NPU_DRAM_SIZE_HI) << 32;
	params->doorbell_offset = npu_read(npu, NPU_DOORBELL_OFFSET);
	params->doorbell_stride = npu_read(npu, NPU_DOORBELL_STRIDE);
	params->entries = min_t(u32, FIELD_GET(NPU_QUEUE_PARAM_MAX_ENTRIES, queues),
				NPU_QUEUE_ENTRIES);

	end = params->doorbell_offset + (u64)(params->queues + 1) * params->doorbell_stride;
	if (!params->files || params->entries < 2 || end > NPU_BAR0_SIZE)
		return dev_err_probe(npu->drm.dev, -ENODEV,
				     "%u queues of %u entries, doorbells end at 0x%llx: outside §4.1, §4.3\n",
				     params->queues, params->entries, end);
	params->max_commands = min_t(u32, params->entries - 1, NPU_MAX_COMMANDS);
	return 0;
}

/* The image is copied once and kept, because every reset needs it again. */
static int npu_load_firmware(struct npu_device *npu)
{
	struct device *dev = npu->drm.dev;
	const struct firmware *fw;
	int ret;

	ret = request_firmware(&fw, NPU_FIRMWARE, dev);
	if (ret)
		return dev_err_probe(dev, ret, "no firmware; remedy: install /lib/firmware/%s\n",
				     NPU_FIRMWARE);
	if (fw->size < NPU_FIRMWARE_MIN || fw->size > NPU_FIRMWARE_MAX) {
		ret = dev_err_probe(dev, -EINVAL,
				    "%s has %zu bytes; remedy: install an intact one\n",
				    NPU_FIRMWARE, fw->size);
		goto out;
	}
	npu->fw_size = fw->size;
	npu->fw = dmam_alloc_coherent(dev, fw->size, &npu->fw_addr, GFP_KERNEL);
	if (npu->fw)
		memcpy(npu->fw, fw->data, fw->size);
	else
		ret = -ENOMEM;
out:
	release_firmware(fw);
	return ret;
}

static int npu_init_locks(struct npu_device *npu)
{
	int ret;

	INIT_LIST_HEAD(&npu->files);
	INIT_WORK(&npu->recover_work, npu_recover);
	ret = drmm_mutex_init(&npu->drm, &npu->files_lock);
	return ret ?: drmm_mutex_init(&npu->drm, &npu->lock);
}

/* Leaves the device silent. */
static void npu_quiesce(struct npu_device *npu)
{
	mutex_lock(&npu->lock);
	npu->up = false;
	npu_mbox_disable(npu);
	npu_irq_disable(npu);
	npu_soft_reset(npu);
	pci_clear_master(to_pci_dev(npu->drm.dev));
	mutex_unlock(&npu->lock);
	cancel_work_sync(&npu->recover_work);
}

static int npu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct npu_device *npu;
	int ret;

	npu = devm_drm_dev_alloc(dev, &npu_driver, struct npu_device, drm);
	if (IS_ERR(npu))
		return PTR_ERR(npu);
	pci_set_drvdata(pdev, npu);
	ret = npu_init_locks(npu);
	if (ret)
		return ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return dev_err_probe(dev, ret, "function cannot be enabled\n");
	npu->regs = pcim_iomap_region(pdev, 0, DRM_NPU_NAME);
	if (IS_ERR(npu->regs))
		return dev_err_probe(dev, PTR_ERR(npu->regs), "BAR0 cannot be mapped\n");
	ret = npu_check_identity(npu);
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return dev_err_probe(dev, ret, "no 64-bit DMA\n");

	/* Somebody may have left it running. */
	ret = npu_soft_reset(npu);
	if (ret)
		return ret;
	ret = npu_read_params(npu);
	if (ret)
		return ret;
	ret = npu_gem_init(npu);
	if (ret)
		return ret;
	ret = npu_mbox_init(npu);
	if (ret)
		return ret;
	ret = npu_queues_init(npu);
	if (ret)
		return ret;
	ret = npu_load_firmware(npu);
	if (ret)
		return ret;
	ret = npu_irq_init(npu);
	if (ret)
		return ret;

	mutex_lock(&npu->lock);
	ret = npu_boot_again(npu);
	mutex_unlock(&npu->lock);
	if (ret)
		goto err_quiesce;
	ret = drm_dev_register(&npu->drm, 0);
	if (ret)
		goto err_quiesce;

	drm_info(&npu->drm, "architecture %lu.%lu, firmware interface %lu.%lu, build %lu.%lu.%lu (%.32s)\n",
		 FIELD_GET(NPU_ARCH_VERSION_MAJOR, npu->params.arch_version),
		 FIELD_GET(NPU_ARCH_VERSION_MINOR, npu->params.arch_version),
		 FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version),
		 FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version),
		 FIELD_GET(NPU_FW_BUILD_MAJOR, npu->fw_build),
		 FIELD_GET(NPU_FW_BUILD_MINOR, npu->fw_build),
		 FIELD_GET(NPU_FW_BUILD_PATCH, npu->fw_build), npu->fw_name);
	drm_info(&npu->drm, "array %lux%lu, %llu MiB of DRAM, %u queues, %u vectors%s\n",
		 FIELD_GET(NPU_ARRAY_DIM_ROWS, npu->params.array_dim),
		 FIELD_GET(NPU_ARRAY_DIM_COLS, npu->params.array_dim),
		 npu->params.dram_size >> 20, npu->params.queues, npu->vector_count,
		 npu->intx ? " (INTx)" : "");
	return 0;

err_quiesce:
	npu_quiesce(npu);
	return ret;
}

static void npu_remove(struct pci_dev *pdev)
{
	struct npu_device *npu = pci_get_drvdata(pdev);
	struct npu_file *file;

	drm_dev_unplug(&npu->drm);
	if (!pci_device_is_present(pdev)) /* nobody will answer */
		npu_mbox_disable(npu);

	/* Files may stay open; what they had on the device ends here. */
	mutex_lock(&npu->files_lock);
	list_for_each_entry(file, &npu->files, node)
		npu_file_release_queue(file);
	mutex_unlock(&npu->files_lock);

	npu_quiesce(npu);
	npu_gem_revoke(npu);
}

static void npu_shutdown(struct pci_dev *pdev)
{
	npu_quiesce(pci_get_drvdata(pdev));
}

static const struct pci_device_id npu_pci_ids[] = {
	{
		PCI_DEVICE(NPU_PCI_VENDOR, NPU_PCI_DEVICE),
		.class = NPU_PCI_CLASS,
		.class_mask = 0xffffff,
	},
	{ }
};
MODULE_DEVICE_TABLE(pci, npu_pci_ids);

static struct pci_driver npu_pci_driver = {
	.name = DRM_NPU_NAME,
	.id_table = npu_pci_ids,
	.probe = npu_probe,
	.remove = npu_remove,
	.shutdown = npu_shutdown,
	.err_handler = &npu_err_handler,
};
module_pci_driver(npu_pci_driver);

MODULE_DESCRIPTION("NPU compute accelerator");
MODULE_LICENSE("GPL");
MODULE_FIRMWARE(NPU_FIRMWARE);
