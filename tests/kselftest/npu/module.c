// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: while a file is open, or a fence of its jobs is kept, it stays; afterwards
 * it goes, also when that file had just been working.
 */
#include <linux/sync_file.h>
#include <sys/syscall.h>

#include "npu.h"

FIXTURE(module) {
	struct npu_device dev;
	int fd;
};

static int unload(void)
{
	return syscall(SYS_delete_module, DRM_NPU_NAME, O_NONBLOCK) ? -errno : 0;
}

static int reload(void)
{
	struct npu_device dev;
	int i, status = system("modprobe " DRM_NPU_NAME);

	if (status)
		return -EIO;
	for (i = 0; i < 100; i++) {
		if (!npu_find(&dev))
			return 0;
		npu_sleep_ms(50);
	}
	return -ENODEV;
}

FIXTURE_SETUP(module)
{
	NPU_SETUP_OPEN();
	if (geteuid() || access("/sys/module/npu/initstate", F_OK))
		SKIP(return, "built in, or no right to unload it");
}

FIXTURE_TEARDOWN_PARENT(module)
{
	struct npu_device dev;

	if (npu_find(&dev))
		reload();
}

TEST_F(module, open_file_keeps_it)
{
	struct drm_npu_command nop = npu_nop();

	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, npu_run_error(self->fd, &nop, 1));
}

TEST_F(module, mapping_keeps_it)
{
	struct npu_bo bo;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &bo));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(-EWOULDBLOCK, unload());
	memset(bo.map, 1, NPU_PAGE);
	munmap(bo.map, bo.size);
	EXPECT_EQ(0, unload());
	EXPECT_EQ(0, reload());
}

TEST_F_TIMEOUT(module, under_load, 120)
{
	int i, ready[2], ret;
	uint8_t refused = 0;
	pid_t pid;
	char x;

	close(self->fd);
	self->fd = -1;
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		if (!pid) {
			struct drm_npu_command c;
			struct npu_bo a, b;
			int fd = npu_reopen(&self->dev);

			if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &a) ||
			    npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &b))
				_exit(1);
			c = npu_long(&a, &b, 200);
			if (npu_submit(fd, &c, 1, NULL, NULL, NULL) ||
			    npu_submit(fd, &c, 1, NULL, NULL, NULL))
				_exit(2);
			if (write(ready[1], "x", 1) != 1)
				_exit(3);
			pause();
		}
		close(ready[1]);
		ASSERT_EQ(1, read(ready[0], &x, 1));
		close(ready[0]);
		refused += unload() == -EWOULDBLOCK;
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
		/* The last reference goes with the process; then it may go at once. */
		ret = unload();
		EXPECT_EQ(0, ret);
		if (!ret)
			ASSERT_EQ(0, reload());
	}
	EXPECT_EQ(4, refused);
}

/* A fence of a job that is done may outlive its file. It keeps the module. */
TEST_F_TIMEOUT(module, fence_outlives_file, 60)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_syncobj_handle h = {
		.handle = out.handle, .fd = -1,
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
	};
	struct pollfd p = { .events = POLLIN };
	struct sync_fence_info fence;
	struct sync_file_info info = { .num_fences = 1, .sync_fence_info = (uintptr_t)&fence };

	ASSERT_EQ(0, npu_submit(self->fd, &nop, 1, NULL, &out, NULL));
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h));
	close(self->fd);
	self->fd = -1;
	p.fd = h.fd;
	EXPECT_EQ(1, poll(&p, 1, NPU_WAIT_MS));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(1, poll(&p, 1, 0));
	EXPECT_EQ(0, npu_ioctl(h.fd, SYNC_IOC_FILE_INFO, &info));
	EXPECT_EQ(1, info.status);
	close(h.fd);
	EXPECT_EQ(0, unload());
	EXPECT_EQ(0, reload());
}

/* Somebody lets the last fence go while somebody else unloads the module. */
TEST_F_TIMEOUT(module, fences_go_while_it_is_unloaded, 120)
{
	struct drm_npu_command nop = npu_nop();
	int i, k, ret = 0, fences[16];
	pid_t pid;

	close(self->fd);
	self->fd = -1;
	for (i = 0; i < 5; i++) {
		int fd = npu_reopen(&self->dev);

		ASSERT_GE(fd, 0);
		for (k = 0; k < ARRAY_SIZE(fences); k++) {
			struct drm_npu_sync out = { .handle = npu_syncobj(fd) };
			struct drm_syncobj_handle h = {
				.handle = out.handle, .fd = -1,
				.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
			};

			ASSERT_EQ(0, npu_submit(fd, &nop, 1, NULL, &out, NULL));
			ASSERT_EQ(0, npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h));
			fences[k] = h.fd;
		}
		close(fd);
		pid = fork();
		if (!pid) {
			npu_sleep_ms(20);
			for (k = 0; k < ARRAY_SIZE(fences); k++)
				close(fences[k]);
			_exit(0);
		}
		for (k = 0; k < ARRAY_SIZE(fences); k++)
			close(fences[k]);
		for (k = 0; (ret = unload()) == -EWOULDBLOCK && k < 100000; k++)
			;
		EXPECT_EQ(0, ret);
		EXPECT_GT(k, 0);
		EXPECT_EQ(0, npu_reap(pid));
		if (!ret)
			ASSERT_EQ(0, reload());
	}
}

TEST_HARNESS_MAIN
