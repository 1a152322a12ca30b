// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resets of the PCI function through sysfs, idle and under load. Whatever was
 * running ends, with an error that says so; nothing hangs; memory is kept.
 */
#include <dirent.h>

#include "npu.h"

FIXTURE(reset) {
	struct npu_device dev;
	int fd;
	struct npu_bo a, b;
	char path[PATH_MAX + 8];
	uint32_t resets;
};

FIXTURE_SETUP(reset)
{
	NPU_SETUP_OPEN();
	if (strcmp(self->dev.bus, "pci"))
		SKIP(return, "not a PCI function");
	snprintf(self->path, sizeof(self->path), "%s/reset", self->dev.sysfs);
	if (access(self->path, W_OK))
		SKIP(return, "no function level reset, or no right to it");
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	self->resets = npu_info(self->fd).resets;
}

FIXTURE_TEARDOWN(reset)
{
	close(self->fd);
}

TEST_F(reset, idle)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, NPU_MIB);
	int i;

	for (i = 1; i <= 3; i++) {
		npu_fill(self->a.map, NPU_MIB, i);
		ASSERT_EQ(0, npu_write_file(self->path, "1"));
		EXPECT_EQ(self->resets + i, npu_info(self->fd).resets);
		ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
		EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	}
}

TEST_F(reset, file_without_queue)
{
	struct drm_npu_command nop = npu_nop();
	int fd = npu_reopen(&self->dev);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, npu_write_file(self->path, "1"));
	EXPECT_EQ(0, npu_run_error(fd, &nop, 1));
	close(fd);
}

TEST_F(reset, keeps_memory)
{
	struct npu_bo device;
	struct drm_npu_command c;

	npu_fill(self->a.map, NPU_MIB, 2);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &device));
	c = npu_copy(&self->a, &device, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	ASSERT_EQ(0, npu_write_file(self->path, "1"));
	/* Through a mapping made before, and by the device. */
	EXPECT_EQ(0, memcmp(self->a.map, device.map, NPU_MIB));
	c = npu_copy(&device, &self->b, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

TEST_F_TIMEOUT(reset, ends_a_job, 60)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b), nop = npu_nop();
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t seqno;
	double start;

	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, &seqno));
	EXPECT_EQ(-ETIME, npu_wait_ms(self->fd, out.handle, 0, 200));
	start = npu_now();
	ASSERT_EQ(0, npu_write_file(self->path, "1"));
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 0));
	TH_LOG("the reset took %.0f ms", (npu_now() - start) * 1000);
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);
	EXPECT_EQ(-ECANCELED, s.error);
	EXPECT_EQ(0, npu_run_error(self->fd, &nop, 1));
	/* And nothing of it is left on the bus. */
	memset(self->b.map, 0x34, NPU_MIB);
	npu_sleep_ms(200);
	EXPECT_TRUE(npu_all(self->b.map, NPU_MIB, 0x34));
}

/* Jobs that wait for a fence at the time of the reset run after it. */
TEST_F(reset, waiting_jobs_run)
{
	struct drm_npu_command good = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_command slow;
	struct drm_npu_sync fence, out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	int other = npu_reopen(&self->dev);
	struct npu_bo x, y;
	uint64_t seqno;
	struct drm_syncobj_handle h;

	/* The fence is the end of another file's job, which the reset ends. */
	ASSERT_GE(other, 0);
	ASSERT_EQ(0, npu_bo_create(other, NPU_SYSTEM, NPU_MIB, &x));
	ASSERT_EQ(0, npu_bo_create(other, NPU_SYSTEM, NPU_MIB, &y));
	slow = npu_endless(&x, &y);
	fence = (struct drm_npu_sync){ .handle = npu_syncobj(other) };
	ASSERT_EQ(0, npu_submit(other, &slow, 1, NULL, &fence, NULL));
	h = (struct drm_syncobj_handle){ .handle = fence.handle, .fd = -1 };
	ASSERT_EQ(0, npu_ioctl(other, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h));
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &h));
	fence.handle = h.handle;
	npu_fill(self->a.map, 64, 5);
	ASSERT_EQ(0, npu_submit(self->fd, &good, 1, &fence, &out, &seqno));
	ASSERT_EQ(0, npu_write_file(self->path, "1"));
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 0));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
	close(h.fd);
	close(other);
}

/* Jobs on the device that have not started run after the reset, in their order (1.2). */
TEST_F_TIMEOUT(reset, jobs_behind_run, 60)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b), next;
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	struct npu_bo in, chain;
	uint64_t first, seqno;
	int i;

	if (npu_minor(self->fd) < 2)
		SKIP(return, "before 1.2 they are cancelled");
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &in));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &chain));
	npu_fill(in.map, NPU_PAGE, 9);
	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, NULL, &first));
	/* Each copies what the one before it has written. */
	for (i = 0; i < 20; i++) {
		next = npu_copy(i ? &chain : &in, &chain, 64);
		next.copy.src_offset = i ? 64 * (i - 1) : 0;
		next.copy.dst_offset = 64 * i;
		out.point = i + 1;
		ASSERT_EQ(0, npu_submit(self->fd, &next, 1, NULL, &out, &seqno));
	}
	EXPECT_EQ(-ETIME, npu_wait_ms(self->fd, out.handle, 20, 200));
	ASSERT_EQ(0, npu_write_file(self->path, "1"));
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 20));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first, &s, sizeof(s)));
	EXPECT_EQ(-ECANCELED, s.error);
	for (i = 1; i <= 20; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first + i, &s, sizeof(s)));
		EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
		EXPECT_EQ(0, memcmp(in.map, chain.map + 64 * (i - 1), 64));
	}
}

/* Keeps a device busy until it is told to stop; 0 if all was as it must be. */
static int load(const struct npu_device *dev, int seed, int stop)
{
	struct drm_npu_command c[3];
	struct npu_bo a, b, device;
	int fd = npu_reopen(dev), error, good = 0, i;
	char x;

	if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &a) ||
	    npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &b) ||
	    npu_bo_create(fd, NPU_DEVICE, NPU_MIB, &device))
		return 1;
	c[0] = npu_copy(&a, &device, NPU_MIB);
	c[1] = npu_long(&device, &device, 8);
	c[2] = npu_copy(&device, &b, NPU_MIB);
	for (i = 0; read(stop, &x, 1) < 0; i++) {
		npu_fill(a.map, NPU_PAGE, seed + i);
		memset(b.map, 0, NPU_PAGE);
		error = npu_run_error(fd, c, 3);
		if (error && error != -ECANCELED)
			return 2;
		if (!error && memcmp(a.map, b.map, NPU_MIB))
			return 3;
		good += !error;
	}
	return good ? 0 : 4;
}

TEST_F_TIMEOUT(reset, under_load, 120)
{
	int stop[2], i;
	pid_t pid[3];

	/* The end of the pipe stops them all. */
	ASSERT_EQ(0, pipe2(stop, O_NONBLOCK));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = fork();
		if (!pid[i]) {
			close(stop[1]);
			_exit(load(&self->dev, i * 1000, stop[0]));
		}
	}
	for (i = 0; i < 8; i++) {
		npu_sleep_ms(50 + 37 * i);
		EXPECT_EQ(0, npu_write_file(self->path, "1"));
	}
	npu_sleep_ms(500);
	close(stop[1]);
	for (i = 0; i < ARRAY_SIZE(pid); i++)
		EXPECT_EQ(0, npu_reap(pid[i]));
	EXPECT_EQ(self->resets + 8, npu_info(self->fd).resets);
}

/* Two processes reset at once while files come and go. */
TEST_F_TIMEOUT(reset, while_files_come_and_go, 120)
{
	pid_t pid[2];
	int i, j;

	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			for (j = 0; j < 4; j++)
				if (npu_write_file(self->path, "1"))
					_exit(1);
			_exit(0);
		}
	}
	for (i = 0; i < 30; i++) {
		struct drm_npu_command nop = npu_nop();
		int fd = npu_reopen(&self->dev), error;

		ASSERT_GE(fd, 0);
		error = npu_run_error(fd, &nop, 1);
		EXPECT_TRUE(!error || error == -ECANCELED);
		close(fd);
	}
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, npu_reap(pid[i]));
}

TEST_HARNESS_MAIN
