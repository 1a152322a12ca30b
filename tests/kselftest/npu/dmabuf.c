// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffers shared as dma-bufs, between files and processes (interface 1.1).
 */
#include <linux/dma-buf.h>

#include "npu.h"

FIXTURE(dmabuf) {
	struct npu_device dev;
	int fd, other;
	struct npu_bo bo;
};

FIXTURE_VARIANT(dmabuf) {
	uint32_t placement;
};

FIXTURE_VARIANT_ADD(dmabuf, device) {
	.placement = DRM_NPU_PLACEMENT_DEVICE,
};

FIXTURE_VARIANT_ADD(dmabuf, system) {
	.placement = DRM_NPU_PLACEMENT_SYSTEM,
};

FIXTURE_SETUP(dmabuf)
{
	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 1)
		SKIP(return, "no dma-bufs in 1.0");
	self->other = npu_reopen(&self->dev);
	ASSERT_GE(self->other, 0);
	ASSERT_EQ(0, npu_bo_create(self->fd, variant->placement, NPU_MIB, &self->bo));
	if (!self->bo.map)
		SKIP(return, "the host has no window to device memory");
	npu_fill(self->bo.map, NPU_MIB, 1);
}

FIXTURE_TEARDOWN(dmabuf)
{
	close(self->fd);
	close(self->other);
}

/* Returns a dma-buf, or a negative error number. */
static int export(int fd, uint32_t handle)
{
	struct drm_prime_handle p = { .handle = handle, .flags = DRM_CLOEXEC | DRM_RDWR };
	int ret = npu_ioctl(fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &p);

	return ret ?: p.fd;
}

static int import(int fd, int dmabuf, uint32_t *handle)
{
	struct drm_prime_handle p = { .fd = dmabuf };
	int ret = npu_ioctl(fd, DRM_IOCTL_PRIME_FD_TO_HANDLE, &p);

	*handle = p.handle;
	return ret;
}

TEST_F(dmabuf, export_and_import)
{
	int buf = export(self->fd, self->bo.handle);
	struct npu_bo theirs = { 0 }, out;
	struct drm_npu_command c;

	ASSERT_GE(buf, 0);
	EXPECT_EQ(NPU_MIB, lseek(buf, 0, SEEK_END));
	ASSERT_EQ(0, import(self->other, buf, &theirs.handle));
	close(buf);
	ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, NPU_MIB, &out));
	c = npu_copy(&theirs, &out, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->other, &c, 1));
	EXPECT_EQ(0, memcmp(self->bo.map, out.map, NPU_MIB));
	/* And back: what they write we see. */
	memset(out.map, 0x42, NPU_MIB);
	c = npu_copy(&out, &theirs, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->other, &c, 1));
	EXPECT_TRUE(npu_all(self->bo.map, NPU_MIB, 0x42));
}

TEST_F(dmabuf, own_import_is_the_same_handle)
{
	int buf = export(self->fd, self->bo.handle);
	uint32_t handle;

	ASSERT_GE(buf, 0);
	ASSERT_EQ(0, import(self->fd, buf, &handle));
	EXPECT_EQ(self->bo.handle, handle);
	close(buf);
}

TEST_F(dmabuf, outlives_its_file)
{
	uint64_t free_before = npu_info(self->other).dram_free;
	int buf = export(self->fd, self->bo.handle);
	struct npu_bo theirs = { 0 }, out;
	struct drm_npu_command c;
	uint8_t *want = malloc(NPU_MIB);
	int i;

	ASSERT_GE(buf, 0);
	npu_fill(want, NPU_MIB, 1);
	munmap(self->bo.map, NPU_MIB);
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, import(self->other, buf, &theirs.handle));
	close(buf);
	ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, NPU_MIB, &out));
	c = npu_copy(&theirs, &out, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->other, &c, 1));
	EXPECT_EQ(0, memcmp(want, out.map, NPU_MIB));
	EXPECT_EQ(0, npu_gem_close(self->other, theirs.handle));
	if (variant->placement == NPU_DEVICE)
		free_before += NPU_MIB;
	/* The kernel frees the job that used it a little after telling of its end. */
	for (i = 0; i < 100 && npu_info(self->other).dram_free != free_before; i++)
		npu_sleep_ms(20);
	EXPECT_EQ(free_before, npu_info(self->other).dram_free);
}

TEST_F(dmabuf, mapped)
{
	int buf = export(self->fd, self->bo.handle);
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };
	uint8_t *p;

	ASSERT_GE(buf, 0);
	p = mmap(NULL, NPU_MIB, PROT_READ | PROT_WRITE, MAP_SHARED, buf, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, npu_ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	EXPECT_EQ(0, memcmp(self->bo.map, p, NPU_MIB));
	p[NPU_MIB - 1] = 0x77;
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
	EXPECT_EQ(0, npu_ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	EXPECT_EQ(0x77, self->bo.map[NPU_MIB - 1]);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, buf, NPU_MIB));
	close(buf);
	munmap(p, NPU_MIB);
}

/* poll() waits for the jobs that use it. */
TEST_F_TIMEOUT(dmabuf, poll, 60)
{
	struct drm_npu_command c;
	struct drm_npu_job_status s;
	struct npu_bo src;
	struct pollfd p = { .events = POLLIN };
	uint64_t seqno;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &src));
	p.fd = export(self->fd, self->bo.handle);
	ASSERT_GE(p.fd, 0);
	c = npu_long(&src, &self->bo, 200);
	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, NULL, &seqno));
	EXPECT_EQ(1, poll(&p, 1, NPU_WAIT_MS));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	close(p.fd);
}

/* Jobs of two files on a shared BO keep their order without any syncobj. */
TEST_F_TIMEOUT(dmabuf, implicit_order, 60)
{
	int buf = export(self->fd, self->bo.handle), i;
	struct npu_bo theirs = { 0 }, src, out, scratch;
	struct drm_npu_command write[2], read;

	ASSERT_GE(buf, 0);
	ASSERT_EQ(0, import(self->other, buf, &theirs.handle));
	close(buf);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &src));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &scratch));
	ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, NPU_MIB, &out));
	for (i = 0; i < 5; i++) {
		npu_fill(src.map, NPU_MIB, 100 + i);
		write[0] = npu_long(&scratch, &scratch, 20);
		write[1] = npu_copy(&src, &self->bo, NPU_MIB);
		read = npu_copy(&theirs, &out, NPU_MIB);
		ASSERT_EQ(0, npu_submit(self->fd, write, 2, NULL, NULL, NULL));
		ASSERT_EQ(0, npu_run_error(self->other, &read, 1));
		EXPECT_EQ(0, memcmp(src.map, out.map, NPU_MIB));
	}
}

/* To another process, through a socket or, as here, by fork. */
TEST_F(dmabuf, another_process)
{
	int buf = export(self->fd, self->bo.handle);
	pid_t pid;

	ASSERT_GE(buf, 0);
	pid = fork();
	if (!pid) {
		int fd = npu_reopen(&self->dev);
		struct npu_bo in = { 0 }, src;
		struct drm_npu_command c;

		if (fd < 0 || import(fd, buf, &in.handle) ||
		    npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &src))
			_exit(1);
		memset(src.map, 0x31, NPU_MIB);
		c = npu_copy(&src, &in, NPU_MIB);
		_exit(npu_run_error(fd, &c, 1) ? 2 : 0);
	}
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_TRUE(npu_all(self->bo.map, NPU_MIB, 0x31));
	close(buf);
}

TEST_F(dmabuf, bad_arguments)
{
	struct drm_prime_handle p = { .handle = 4711 };
	int pipes[2];
	uint32_t handle;

	EXPECT_EQ(-ENOENT, npu_ioctl(self->fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &p));
	p = (struct drm_prime_handle){ .handle = self->bo.handle, .flags = 0x40000000 };
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_PRIME_HANDLE_TO_FD, &p));
	EXPECT_EQ(-EBADF, import(self->fd, -1, &handle));
	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-EINVAL, import(self->fd, pipes[0], &handle));
	EXPECT_EQ(-EINVAL, import(self->fd, self->fd, &handle));
}

TEST_HARNESS_MAIN
