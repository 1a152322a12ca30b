// SPDX-License-Identifier: GPL-2.0-only
/*
 * The NPU as a PCI function: probe, identity, firmware, resets.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/firmware.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "npu_pci.h"

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

/* npu_pci_wait_reset waits for the end of a reset; -ENODEV if nobody is there to reset. */
int npu_pci_wait_reset(struct npu_pci *pci)
{
	u32 status, boot;
	int ret;

	if (npu_read(pci, NPU_DEVICE_STATUS) == U32_MAX &&
	    !pci_device_is_present(to_pci_dev(pci->npu.drm.dev)))
		return -ENODEV;
	ret = read_poll_timeout(npu_read, status,
				status != U32_MAX && !(status & NPU_DEVICE_STATUS_RESETTING),
				1000, NPU_RESET_TIMEOUT_US, false, pci, NPU_DEVICE_STATUS);
	if (!ret)
		ret = read_poll_timeout(npu_read, boot,
					FIELD_GET(NPU_BOOT_STATUS_STATE, boot) ==
					NPU_BOOT_STATE_WAITING,
					1000, NPU_RESET_TIMEOUT_US, false, pci, NPU_BOOT_STATUS);
	if (ret)
		drm_err(&pci->npu.drm, "reset does not end: DEVICE_STATUS 0x%08x, BOOT_STATUS 0x%08x\n",
			status, npu_read(pci, NPU_BOOT_STATUS));
	return ret;
}

int npu_pci_soft_reset(struct npu_pci *pci)
{
	npu_write(pci, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	return npu_pci_wait_reset(pci);
}

static void npu_pci_report_boot(struct npu_pci *pci, u32 status)
{
	static const char * const states[] = {
		[NPU_BOOT_STATE_OFF] = "OFF",
		[NPU_BOOT_STATE_WAITING] = "WAITING",
		[NPU_BOOT_STATE_LOADING] = "LOADING",
		[NPU_BOOT_STATE_STARTING] = "STARTING",
		[NPU_BOOT_STATE_READY] = "READY",
		[NPU_BOOT_STATE_FAILED] = "FAILED",
	};
	static const char * const remedies[] = {
		[NPU_BOOT_ERROR_NONE] = "none known",
		[NPU_BOOT_ERROR_SIZE] = "install an intact " NPU_FIRMWARE,
		[NPU_BOOT_ERROR_FETCH] = "look for an IOMMU fault of the function",
		[NPU_BOOT_ERROR_MAGIC] = "install an intact " NPU_FIRMWARE,
		[NPU_BOOT_ERROR_HEADER] = "install an intact " NPU_FIRMWARE,
		[NPU_BOOT_ERROR_HEADER_CRC] = "install an intact " NPU_FIRMWARE,
		[NPU_BOOT_ERROR_PAYLOAD_CRC] = "install an intact " NPU_FIRMWARE,
		[NPU_BOOT_ERROR_INTERFACE] = "install firmware for this device",
		[NPU_BOOT_ERROR_ARCH] = "install firmware for this device",
		[NPU_BOOT_ERROR_RANGE] = "install firmware for this device",
		[NPU_BOOT_ERROR_TIMEOUT] = "report the firmware's version",
		[NPU_BOOT_ERROR_TRAP] = "report the firmware's version",
		[NPU_BOOT_ERROR_WATCHDOG] = "report the firmware's version",
	};
	u32 state = FIELD_GET(NPU_BOOT_STATUS_STATE, status);
	u32 error = FIELD_GET(NPU_BOOT_STATUS_ERROR, status);

	drm_err(&pci->npu.drm, "firmware does not boot: state %s (%u), error %s (%u), detail 0x%08x; remedy: %s\n",
		state < ARRAY_SIZE(states) ? states[state] : "unknown", state,
		npu_boot_error_name(error), error,
		npu_read(pci, NPU_FW_ERROR_DETAIL),
		error < ARRAY_SIZE(remedies) ? remedies[error] : "none known");
}

/* Boots firmware from WAITING (§3.2) and starts the admin queue. */
static int npu_pci_boot(struct npu_device *npu)
{
	struct npu_pci *pci = to_npu_pci(npu);
	u32 status, state;
	int ret;

	pci_set_master(to_pci_dev(npu->drm.dev));
	npu_write(pci, NPU_IMAGE_ADDR_LO, lower_32_bits(pci->fw_addr));
	npu_write(pci, NPU_IMAGE_ADDR_HI, upper_32_bits(pci->fw_addr));
	npu_write(pci, NPU_IMAGE_SIZE, pci->fw_size);
	npu_write(pci, NPU_BOOT_TIMEOUT, NPU_BOOT_TIMEOUT_MS);
	npu_write(pci, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);

	ret = read_poll_timeout(npu_read, status,
				(state = FIELD_GET(NPU_BOOT_STATUS_STATE, status)) ==
				NPU_BOOT_STATE_READY || state == NPU_BOOT_STATE_FAILED,
				2000, NPU_BOOT_PATIENCE_US, false, pci, NPU_BOOT_STATUS);
	if (ret || state != NPU_BOOT_STATE_READY) {
		npu_pci_report_boot(pci, status);
		return ret ?: -EIO;
	}

	npu_ring_start_admin(pci);
	npu_irq_enable(pci);
	return 0;
}

static int npu_pci_reset(struct npu_device *npu)
{
	int ret;

	ret = npu_pci_soft_reset(to_npu_pci(npu));
	if (ret) /* it may still write to memory that is about to be freed */
		pci_clear_master(to_pci_dev(npu->drm.dev));
	return ret;
}

static bool npu_pci_firmware_dead(struct npu_device *npu)
{
	u32 status = npu_read(to_npu_pci(npu), NPU_BOOT_STATUS);

	return status != U32_MAX &&
	       FIELD_GET(NPU_BOOT_STATUS_STATE, status) == NPU_BOOT_STATE_FAILED;
}

static void npu_pci_stop(struct npu_device *npu)
{
	struct npu_pci *pci = to_npu_pci(npu);

	npu_irq_disable(pci);
	npu_pci_soft_reset(pci);
	pci_clear_master(to_pci_dev(npu->drm.dev));
}

/* All registers that can be read without an effect. */
static void npu_pci_print(struct npu_device *npu, struct drm_printer *p)
{
	static const struct {
		const char *name;
		u32 offset;
	} registers[] = {
		{ "ID", NPU_ID },
		{ "ARCH_VERSION", NPU_ARCH_VERSION },
		{ "FEATURES_LO", NPU_FEATURES_LO },
		{ "FEATURES_HI", NPU_FEATURES_HI },
		{ "DEVICE_STATUS", NPU_DEVICE_STATUS },
		{ "BOOT_STATUS", NPU_BOOT_STATUS },
		{ "FW_ERROR_DETAIL", NPU_FW_ERROR_DETAIL },
		{ "AQ_SIZE", NPU_AQ_SIZE },
		{ "AQ_CONTROL", NPU_AQ_CONTROL },
		{ "IRQ_STATUS", NPU_IRQ_STATUS },
		{ "IRQ_ENABLE", NPU_IRQ_ENABLE },
		{ "FAULT_STATUS", NPU_FAULT_STATUS },
		{ "FAULT_INFO", NPU_FAULT_INFO },
		{ "FAULT_ADDR_LO", NPU_FAULT_ADDR_LO },
		{ "FAULT_ADDR_HI", NPU_FAULT_ADDR_HI },
	};
	struct npu_pci *pci = to_npu_pci(npu);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(registers); i++)
		drm_printf(p, "  %-16s 0x%08x\n", registers[i].name,
			   npu_read(pci, registers[i].offset));
	npu_ring_print(&pci->rings[0], p);
}

static size_t npu_pci_take_crash(struct npu_device *npu, void *to, size_t size)
{
	struct npu_pci *pci = to_npu_pci(npu);
	u32 status = npu_read(pci, NPU_CRASH_STATUS);
	__le32 *words = to;
	size_t i;

	if (status == U32_MAX || !(status & NPU_CRASH_STATUS_VALID))
		return 0;
	size = min(npu_read(pci, NPU_CRASH_SIZE), size) / sizeof(*words);
	npu_write(pci, NPU_CRASH_SELECT, 0);
	for (i = 0; i < size; i++)
		words[i] = cpu_to_le32(npu_read(pci, NPU_CRASH_DATA));
	if (npu_read(pci, NPU_CRASH_STATUS) != status)
		return 0; /* it has gone, or is another one */
	npu_write(pci, NPU_CRASH_STATUS, NPU_CRASH_STATUS_VALID);
	return size * sizeof(*words);
}

static const struct npu_bus_ops npu_pci_ops = {
	.identify_timeout_ms = NPU_MBOX_TIMEOUT_MS,
	.runtime_pm = true,
	.boot = npu_pci_boot,
	.reset = npu_pci_reset,
	.firmware_dead = npu_pci_firmware_dead,
	.stop = npu_pci_stop,
	.take_crash = npu_pci_take_crash,
	.print = npu_pci_print,
	.admin = npu_ring_admin,
	.queue_alloc = npu_ring_queue_alloc,
	.queue_free = npu_ring_queue_free,
	.queue_empty = npu_ring_queue_empty,
	.queue_push = npu_ring_queue_push,
	.queue_kick = npu_ring_queue_kick,
	.queue_pop = npu_ring_queue_pop,
	.queue_share = npu_ring_queue_share,
	.queue_print = npu_ring_queue_print,
};

/* Probe and remove. */

static int npu_pci_check_identity(struct npu_pci *pci)
{
	u32 id = npu_read(pci, NPU_ID);

	if (id != NPU_MAGIC)
		return dev_err_probe(pci->npu.drm.dev, -ENODEV,
				     "ID is 0x%08x, needed is 0x%08x; remedy: this is no NPU, or it is powered off\n",
				     id, NPU_MAGIC);
	pci->npu.params.arch_version = npu_read(pci, NPU_ARCH_VERSION);
	return npu_check_arch(&pci->npu);
}

static int npu_pci_read_params(struct npu_pci *pci)
{
	struct npu_params *params = &pci->npu.params;
	u32 queues = npu_read(pci, NPU_QUEUE_PARAM);
	u64 end;

	params->features = npu_read(pci, NPU_FEATURES_LO) |
			   (u64)npu_read(pci, NPU_FEATURES_HI) << 32;
	params->array_dim = npu_read(pci, NPU_ARRAY_DIM);
	params->spad_size = npu_read(pci, NPU_SPAD_SIZE);
	params->acc_size = npu_read(pci, NPU_ACC_SIZE);
	params->engines = npu_read(pci, NPU_ENGINE_PARAM);
	params->queues = FIELD_GET(NPU_QUEUE_PARAM_COUNT, queues);
	params->contexts = npu_read(pci, NPU_CONTEXT_PARAM);
	params->dram_size = npu_read(pci, NPU_DRAM_SIZE_LO) |
			    (u64)npu_read(pci, NPU_DRAM_SIZE_HI) << 32;
	pci->doorbell_offset = npu_read(pci, NPU_DOORBELL_OFFSET);
	pci->doorbell_stride = npu_read(pci, NPU_DOORBELL_STRIDE);
	pci->entries = min_t(u32, FIELD_GET(NPU_QUEUE_PARAM_MAX_ENTRIES, queues),
			     NPU_QUEUE_ENTRIES);

	end = pci->doorbell_offset + (u64)(params->queues + 1) * pci->doorbell_stride;
	if (pci->entries < 2 || end > NPU_BAR0_SIZE)
		return dev_err_probe(pci->npu.drm.dev, -ENODEV,
				     "%u queues of %u entries, doorbells end at 0x%llx: outside §4.1, §4.3\n",
				     params->queues, pci->entries, end);
	params->credits = pci->entries - 1; /* one stays free */
	return 0;
}

/* BAR2 is device memory. */
static int npu_pci_init_window(struct npu_pci *pci)
{
	struct device *dev = pci->npu.drm.dev;
	struct pci_dev *pdev = to_pci_dev(dev);
	u64 size = pci->npu.params.dram_size;
	int ret;

	if (size > pci_resource_len(pdev, 2))
		return dev_err_probe(dev, -ENODEV,
				     "DRAM_SIZE is %llu, BAR2 has %llu bytes (§1.2)\n", size,
				     (u64)pci_resource_len(pdev, 2));
	ret = pcim_request_region(pdev, 2, DRM_NPU_NAME);
	if (ret)
		return dev_err_probe(dev, ret, "BAR2 is in use\n");
	return npu_gem_init(&pci->npu, pci_resource_start(pdev, 2));
}

/* The image is copied once and kept, because every reset needs it again. */
static int npu_pci_load_firmware(struct npu_pci *pci)
{
	struct device *dev = pci->npu.drm.dev;
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
	pci->fw_size = fw->size;
	pci->fw = dmam_alloc_coherent(dev, fw->size, &pci->fw_addr, GFP_KERNEL);
	if (pci->fw)
		memcpy(pci->fw, fw->data, fw->size);
	else
		ret = -ENOMEM;
out:
	release_firmware(fw);
	return ret;
}

static int npu_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct npu_device *npu;
	struct npu_pci *pci;
	int ret;

	npu = npu_alloc(dev, sizeof(*pci), &npu_pci_ops);
	if (IS_ERR(npu))
		return PTR_ERR(npu);
	pci = to_npu_pci(npu);
	pci_set_drvdata(pdev, pci);

	ret = pcim_enable_device(pdev);
	if (ret)
		return dev_err_probe(dev, ret, "function cannot be enabled\n");
	pci->regs = pcim_iomap_region(pdev, 0, DRM_NPU_NAME);
	if (IS_ERR(pci->regs))
		return dev_err_probe(dev, PTR_ERR(pci->regs), "BAR0 cannot be mapped\n");
	if (pci_resource_len(pdev, 0) < NPU_BAR0_SIZE)
		return dev_err_probe(dev, -ENODEV, "BAR0 has %llu bytes, needed are %u (§1.2)\n",
				     (u64)pci_resource_len(pdev, 0), (u32)NPU_BAR0_SIZE);
	ret = npu_pci_check_identity(pci);
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return dev_err_probe(dev, ret, "no 64-bit DMA\n");

	/* Somebody may have left it running. */
	ret = npu_pci_soft_reset(pci);
	if (ret)
		return ret;
	ret = npu_pci_read_params(pci);
	if (ret)
		return ret;
	ret = npu_pci_init_window(pci);
	if (ret)
		return ret;
	ret = npu_init(npu);
	if (ret)
		return ret;
	ret = npu_ring_init(pci);
	if (ret)
		return ret;
	ret = npu_pci_load_firmware(pci);
	if (ret)
		return ret;
	ret = npu_irq_init(pci);
	if (ret)
		return ret;
	ret = npu_start(npu);
	if (!ret)
		npu_power_start(pci);
	return ret;
}

static void npu_pci_remove(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);

	npu_power_stop(pci);
	if (!pci_device_is_present(pdev)) { /* nobody will answer */
		WRITE_ONCE(pci->npu.gone, true);
		npu_mbox_disable(&pci->npu);
	}
	npu_remove(&pci->npu);
}

static void npu_pci_shutdown(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);

	npu_quiesce(&pci->npu);
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
	.probe = npu_pci_probe,
	.remove = npu_pci_remove,
	.shutdown = npu_pci_shutdown,
	.err_handler = &npu_pci_err_handler,
	.driver.pm = pm_ptr(&npu_pci_pm_ops),
};

int npu_pci_register(void)
{
	return pci_register_driver(&npu_pci_driver);
}

void npu_pci_unregister(void)
{
	pci_unregister_driver(&npu_pci_driver);
}

MODULE_FIRMWARE(NPU_FIRMWARE);
