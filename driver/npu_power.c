// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sleep of the PCI function, and its recovery from errors of the bus.
 *
 * D3hot, which the idle function goes to, keeps everything (§1.7). A system that sleeps may
 * take its power, so it boots again then; before that the jobs on it end.
 */

#include <linux/bitfield.h>
#include <linux/interrupt.h>
#include <linux/pm_runtime.h>

#include "npu_pci.h"

/* Idle time before D3hot, if user space does not choose another. */
#define NPU_AUTOSUSPEND_MS	1000

/* Sleep. */

static int npu_pci_runtime_suspend(struct device *dev)
{
	struct pci_dev *pdev = to_pci_dev(dev);
	struct npu_pci *pci = pci_get_drvdata(pdev);
	u32 i;

	/* Who needs the function keeps it awake, so there is nothing to wait for but handlers. */
	WRITE_ONCE(pci->asleep, true);
	for (i = 0; i < pci->npu.params.vectors; i++)
		synchronize_irq(pci_irq_vector(pdev, i));
	return 0;
}

static int npu_pci_runtime_resume(struct device *dev)
{
	struct pci_dev *pdev = to_pci_dev(dev);
	struct npu_pci *pci = pci_get_drvdata(pdev);
	u32 status = npu_read(pci, NPU_BOOT_STATUS);

	WRITE_ONCE(pci->asleep, false);
	pci_save_state(pdev); /* for npu_pci_slot_reset() */
	if (FIELD_GET(NPU_BOOT_STATUS_STATE, status) == NPU_BOOT_STATE_READY) {
		npu_irq_again(pci);
	} else {
		drm_warn(&pci->npu.drm, "firmware does not run after sleep: BOOT_STATUS 0x%08x\n",
			 status);
		npu_schedule_recovery(&pci->npu, NPU_RECOVER_RESET);
	}
	return 0;
}

static int npu_pci_suspend(struct device *dev)
{
	struct npu_pci *pci = dev_get_drvdata(dev);

	return npu_suspend(&pci->npu);
}

static int npu_pci_resume(struct device *dev)
{
	struct npu_pci *pci = dev_get_drvdata(dev);

	pci_save_state(to_pci_dev(dev));
	return npu_resume(&pci->npu);
}

static int npu_pci_freeze(struct device *dev)
{
	dev_err(dev, "device memory does not survive hibernation; remedy: unload the driver first\n");
	return -EOPNOTSUPP;
}

const struct dev_pm_ops npu_pci_pm_ops = {
	.suspend = pm_sleep_ptr(npu_pci_suspend),
	.resume = pm_sleep_ptr(npu_pci_resume),
	.freeze = pm_sleep_ptr(npu_pci_freeze),
	RUNTIME_PM_OPS(npu_pci_runtime_suspend, npu_pci_runtime_resume, NULL)
};

/* npu_power_start lets the function sleep when it is idle; probe has succeeded. */
void npu_power_start(struct npu_pci *pci)
{
	struct device *dev = pci->npu.drm.dev;

	pci_save_state(to_pci_dev(dev));
	/* A system that slept has to be told that its registers are lost. */
	dev_pm_set_driver_flags(dev, DPM_FLAG_NO_DIRECT_COMPLETE);
	pm_runtime_set_autosuspend_delay(dev, NPU_AUTOSUSPEND_MS);
	pm_runtime_use_autosuspend(dev);
	pm_runtime_allow(dev);
	pm_runtime_mark_last_busy(dev);
	pm_runtime_put_autosuspend(dev);
}

/* npu_power_stop undoes npu_power_start(); the function is awake. */
void npu_power_stop(struct npu_pci *pci)
{
	struct device *dev = pci->npu.drm.dev;

	pm_runtime_get_noresume(dev);
	pm_runtime_forbid(dev);
	pm_runtime_dont_use_autosuspend(dev);
}

/* Errors of the bus. */

/*
 * Nobody says whether a frozen function will be reset: jobs on it are ended at once, and
 * until npu_pci_error_resume() later ones fail.
 */
static void npu_pci_frozen(struct npu_pci *pci)
{
	struct npu_device *npu = &pci->npu;

	mutex_lock(&npu->lock);
	npu_reset_begin(npu);
	npu->up = false;
	pci_clear_master(to_pci_dev(npu->drm.dev)); /* jobs that end are not written for any more */
	npu_queues_cancel(npu, -ECANCELED);
	npu_queues_restart(npu);
	pci->frozen = true;
	mutex_unlock(&npu->lock);
}

static pci_ers_result_t npu_pci_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);

	switch (state) {
	case pci_channel_io_normal: /* a command that it hit says so itself */
		drm_warn(&pci->npu.drm, "error of the bus, not fatal\n");
		return PCI_ERS_RESULT_CAN_RECOVER;
	case pci_channel_io_frozen:
		drm_err(&pci->npu.drm, "fatal error of the bus\n");
		npu_pci_frozen(pci);
		return PCI_ERS_RESULT_NEED_RESET;
	default:
		drm_err(&pci->npu.drm, "the bus gives the device up\n");
		npu_pci_frozen(pci);
		WRITE_ONCE(pci->npu.gone, true);
		return PCI_ERS_RESULT_DISCONNECT;
	}
}

static pci_ers_result_t npu_pci_slot_reset(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);
	int ret;

	pci_restore_state(pdev);
	pci_save_state(pdev);
	ret = npu_pci_soft_reset(pci);
	if (!ret)
		return PCI_ERS_RESULT_RECOVERED;
	drm_err(&pci->npu.drm, "device is lost after a reset of the slot: %d\n", ret);
	return PCI_ERS_RESULT_DISCONNECT;
}

static void npu_pci_error_resume(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);

	mutex_lock(&pci->npu.lock);
	if (pci->frozen) {
		pci->frozen = false;
		npu_reset_begin(&pci->npu);
		npu_reset_end(&pci->npu, 0);
	}
	mutex_unlock(&pci->npu.lock);
}

/*
 * PCI core is about to reset the function, for instance because somebody wrote
 * to its "reset" file. Bus mastering goes off before that, so work in flight ends
 * here. The lock is given back when the reset is done.
 */
static void npu_pci_reset_prepare(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);

	mutex_lock(&pci->npu.lock);
	npu_reset_begin(&pci->npu);
	npu_pci_soft_reset(pci);
}

static void npu_pci_reset_done(struct pci_dev *pdev)
{
	struct npu_pci *pci = pci_get_drvdata(pdev);
	int ret;

	ret = npu_pci_wait_reset(pci);
	if (ret)
		pci_clear_master(pdev);
	npu_reset_end(&pci->npu, ret);
	mutex_unlock(&pci->npu.lock);
}

const struct pci_error_handlers npu_pci_err_handler = {
	.error_detected = npu_pci_error_detected,
	.slot_reset = npu_pci_slot_reset,
	.resume = npu_pci_error_resume,
	.reset_prepare = npu_pci_reset_prepare,
	.reset_done = npu_pci_reset_done,
};
