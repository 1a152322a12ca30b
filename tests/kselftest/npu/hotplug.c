// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device goes away under open files: by unbinding the driver, and by
 * removing the function. Calls fail with ENODEV, waits end, nothing crashes, and
 * the device can be found again.
 */
#include <setjmp.h>

#include <linux/sync_file.h>

#include "npu.h"

FIXTURE(hotplug) {
	struct npu_device dev;
	int fd;
	struct npu_bo a, b, device;
	char remove[PATH_MAX + 16];	/* what to write to, to remove it */
	char text[64];			/* what to write */
};

FIXTURE_VARIANT(hotplug) {
	bool unbind;
};

FIXTURE_VARIANT_ADD(hotplug, unbind) {
	.unbind = true,
};

FIXTURE_VARIANT_ADD(hotplug, remove) {
	.unbind = false,
};

static const char *name_of(const struct npu_device *dev)
{
	return strrchr(dev->sysfs, '/') + 1;
}

FIXTURE_SETUP(hotplug)
{
	NPU_SETUP_OPEN();
	if (variant->unbind) {
		snprintf(self->remove, sizeof(self->remove), "%s/driver/unbind", self->dev.sysfs);
		snprintf(self->text, sizeof(self->text), "%.63s", name_of(&self->dev));
	} else {
		snprintf(self->remove, sizeof(self->remove), "%s/remove", self->dev.sysfs);
		snprintf(self->text, sizeof(self->text), "1");
		if (strcmp(self->dev.bus, "pci"))
			SKIP(return, "not a PCI function");
	}
	if (access(self->remove, W_OK))
		SKIP(return, "no right to remove the device");
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &self->device));
}

/* Brings the device back, and waits for its node. */
static int bring_back(const struct npu_device *dev, bool unbound)
{
	char path[64];
	struct npu_device again;
	int i, ret;

	if (unbound) {
		snprintf(path, sizeof(path), "/sys/bus/%s/drivers/npu/bind", dev->bus);
		ret = npu_write_file(path, name_of(dev));
	} else {
		ret = npu_write_file("/sys/bus/pci/rescan", "1");
	}
	for (i = 0; i < 100 && !ret; i++) {
		if (!npu_find(&again))
			return 0;
		npu_sleep_ms(50);
	}
	return ret ?: -ENODEV;
}

/* In the parent: whatever becomes of a test, the next one finds a device. */
FIXTURE_TEARDOWN_PARENT(hotplug)
{
	struct npu_device now;

	if (npu_find(&now))
		bring_back(&self->dev, variant->unbind);
}

static int take_away(FIXTURE_DATA(hotplug) *self)
{
	return npu_write_file(self->remove, self->text);
}

/* A job done by a new file of what is there now. */
static int works(void)
{
	struct drm_npu_command nop = npu_nop();
	struct npu_device dev;
	int fd = npu_open(&dev), ret;

	if (fd < 0)
		return fd;
	ret = npu_run_error(fd, &nop, 1);
	close(fd);
	return ret;
}

TEST_F_TIMEOUT(hotplug, idle, 60)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 8);
	struct drm_npu_bo_create create = { .size = NPU_PAGE, .placement = NPU_SYSTEM };
	struct drm_npu_device_info info;
	struct npu_device gone;

	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	ASSERT_EQ(0, take_away(self));
	EXPECT_EQ(-ENODEV, npu_find(&gone));
	EXPECT_EQ(-ENODEV, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	EXPECT_EQ(-ENODEV, npu_ioctl(self->fd, DRM_IOCTL_NPU_BO_CREATE, &create));
	EXPECT_EQ(-ENODEV, npu_query(self->fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info)));
	ASSERT_EQ(0, bring_back(&self->dev, variant->unbind));
	EXPECT_EQ(0, works());
	/* The old file does not become one of the new device. */
	EXPECT_EQ(-ENODEV, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	close(self->fd);
	EXPECT_EQ(0, works());
}

/* How the job of a sync file ended: 1, or a negative error number; 0 if it has not. */
static int ended(int sync_file)
{
	struct sync_fence_info fence = { .status = 0 };
	struct sync_file_info info = { .num_fences = 1, .sync_fence_info = (uintptr_t)&fence };
	int ret = npu_ioctl(sync_file, SYNC_IOC_FILE_INFO, &info);

	return ret ?: fence.status;
}

/* The file does not answer any more, so it is the job's fence that says how the job has ended. */
TEST_F_TIMEOUT(hotplug, with_a_job, 60)
{
	struct drm_syncobj_handle h = {
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE, .fd = -1,
	};
	struct drm_npu_command c = npu_endless(&self->a, &self->b);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	double start;
	pid_t pid;

	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, NULL));
	h.handle = out.handle;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h));
	/* Whoever waits, waits no longer; the call may see that the device is gone. */
	pid = fork();
	if (!pid) {
		int ret = npu_wait(self->fd, out.handle, 0);

		_exit(ret && ret != -ENODEV);
	}
	npu_sleep_ms(200);
	ASSERT_EQ(0, ended(h.fd));
	start = npu_now();
	ASSERT_EQ(0, take_away(self));
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_LT(npu_now() - start, 15);
	EXPECT_EQ(-ECANCELED, ended(h.fd));
	close(h.fd);
	ASSERT_EQ(0, bring_back(&self->dev, variant->unbind));
	EXPECT_EQ(0, works());
}

static sigjmp_buf fault;

static void on_bus_error(int sig)
{
	siglongjmp(fault, sig);
}

/* Reads a byte; -1 if there is nothing. */
static __attribute__((noinline)) int touch(const volatile uint8_t *p)
{
	if (sigsetjmp(fault, 1))
		return -1;
	return *p;
}

/* What was mapped is gone: touching it is SIGBUS, and does not show what another file puts there. */
TEST_F_TIMEOUT(hotplug, mapping, 60)
{
	struct npu_device dev;
	struct npu_bo bo;
	int fd, i;

	if (!self->device.map)
		SKIP(return, "the host has no window to device memory");
	memset(self->device.map, 0x21, NPU_MIB);
	memset(self->a.map, 0x22, NPU_MIB);
	ASSERT_EQ(0, take_away(self));
	ASSERT_EQ(0, bring_back(&self->dev, variant->unbind));
	fd = npu_open(&dev);
	ASSERT_GE(fd, 0);
	/* The new driver gives out all of its memory. */
	for (i = 0; i < 256; i++) {
		if (npu_bo_create(fd, NPU_DEVICE, 4 * NPU_MIB, &bo))
			break;
		memset(bo.map, 0x99, NPU_PAGE);
	}
	for (i = 0; i < 16; i++) {
		ASSERT_EQ(0, npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &bo));
		memset(bo.map, 0x99, NPU_MIB);
	}
	signal(SIGBUS, on_bus_error);
	EXPECT_EQ(0x99, touch(bo.map));
	EXPECT_EQ(-1, touch(self->device.map));
	EXPECT_EQ(-1, touch(self->a.map));
	close(fd);
}

/* Opened, removed, found again, while others open and close. */
TEST_F_TIMEOUT(hotplug, while_files_come_and_go, 120)
{
	struct npu_device again;
	int stop[2], i;
	pid_t pid;
	char x;

	ASSERT_EQ(0, pipe2(stop, O_NONBLOCK));
	pid = fork();
	if (!pid) {
		while (read(stop[0], &x, 1) != 1) {
			int ret = works();

			if (ret && ret != -ENODEV && ret != -ENOENT && ret != -ENXIO &&
			    ret != -ECANCELED)
				_exit(-ret);
		}
		_exit(0);
	}
	for (i = 0; i < 3; i++) {
		npu_sleep_ms(100 + 50 * i);
		ASSERT_EQ(0, take_away(self));
		ASSERT_EQ(0, bring_back(&self->dev, variant->unbind));
		ASSERT_EQ(0, npu_find(&again));
	}
	EXPECT_EQ(1, write(stop[1], "x", 1));
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_EQ(0, works());
}

TEST_HARNESS_MAIN
