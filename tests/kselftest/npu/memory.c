// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects: what they hold at first, how much of them there can be, and
 * how long a mapping lives.
 */
#include "npu.h"

FIXTURE(memory) {
	struct npu_device dev;
	int fd;
	uint32_t placement;
};

FIXTURE_VARIANT(memory) {
	uint32_t placement;
};

FIXTURE_VARIANT_ADD(memory, device) {
	.placement = DRM_NPU_PLACEMENT_DEVICE,
};

FIXTURE_VARIANT_ADD(memory, system) {
	.placement = DRM_NPU_PLACEMENT_SYSTEM,
};

FIXTURE_SETUP(memory)
{
	struct npu_bo bo;

	NPU_SETUP_OPEN();
	self->placement = variant->placement;
	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_PAGE, &bo));
	if (!bo.map)
		SKIP(return, "the host has no window to device memory");
	npu_bo_destroy(self->fd, &bo);
}

FIXTURE_TEARDOWN(memory)
{
	close(self->fd);
}

TEST_F(memory, zero_again)
{
	struct npu_bo bo;
	int i;

	/* What one left another must not see, whoever gets the memory next. */
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, 16 * NPU_PAGE, &bo));
		EXPECT_TRUE(npu_all(bo.map, bo.size, 0));
		memset(bo.map, 0xa5, bo.size);
		EXPECT_TRUE(npu_all(bo.map, bo.size, 0xa5));
		npu_bo_destroy(self->fd, &bo);
	}
}

/* The same between processes. */
TEST_F(memory, zero_after_another_process)
{
	struct npu_bo bo;
	pid_t pid;
	int i;

	for (i = 0; i < 4; i++) {
		pid = fork();
		if (!pid) {
			int fd = npu_reopen(&self->dev);
			int ret = fd < 0 || npu_bo_create(fd, self->placement, NPU_MIB, &bo);

			if (!ret)
				memset(bo.map, 0x3c, bo.size);
			_exit(ret);
		}
		ASSERT_EQ(0, npu_reap(pid));
		ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &bo));
		EXPECT_TRUE(npu_all(bo.map, bo.size, 0));
		npu_bo_destroy(self->fd, &bo);
	}
}

TEST_F(memory, many)
{
	static struct npu_bo bo[256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bo); i++) {
		ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_PAGE, &bo[i]));
		npu_put(bo[i].map, i, 4);
	}
	for (i = 0; i < ARRAY_SIZE(bo); i++) {
		uint8_t want[4];

		npu_put(want, i, 4);
		EXPECT_EQ(0, memcmp(want, bo[i].map, 4));
	}
	for (i = 0; i < ARRAY_SIZE(bo); i++)
		npu_bo_destroy(self->fd, &bo[i]);
}

TEST_F(memory, mapped_wrongly)
{
	struct npu_bo bo;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, 4 * NPU_PAGE, &bo));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, bo.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd,
				   bo.offset));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, bo.size + NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   bo.offset));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   bo.offset + bo.size));
	EXPECT_EQ(MAP_FAILED, mremap(bo.map, bo.size, 2 * bo.size, MREMAP_MAYMOVE));
	npu_bo_destroy(self->fd, &bo);
}

/* An offset is a handle's: it ends with it. */
TEST_F(memory, offset_of_a_closed_bo)
{
	struct npu_bo bo;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_PAGE, &bo));
	npu_bo_destroy(self->fd, &(struct npu_bo){ .handle = bo.handle });
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd, bo.offset));
	munmap(bo.map, bo.size);
}

TEST_F(memory, mapped_twice)
{
	struct npu_bo bo;
	uint8_t *second;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, 4 * NPU_PAGE, &bo));
	second = mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd, bo.offset);
	ASSERT_NE(MAP_FAILED, second);
	memset(bo.map, 0x77, bo.size);
	EXPECT_TRUE(npu_all(second, NPU_PAGE, 0x77));
	munmap(second, NPU_PAGE);
	npu_bo_destroy(self->fd, &bo);
}

TEST_F_SIGNAL(memory, read_only_mapping, SIGSEGV)
{
	struct npu_bo bo;
	uint8_t *p;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_PAGE, &bo));
	p = mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd, bo.offset);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, *(volatile uint8_t *)p);
	*(volatile uint8_t *)p = 1;
}

TEST_F(memory, mapping_outlives_handle)
{
	struct npu_bo bo, other;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &bo));
	npu_fill(bo.map, bo.size, 1);
	ASSERT_EQ(0, npu_gem_close(self->fd, bo.handle));
	/* The memory is not given to another meanwhile. */
	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &other));
	memset(other.map, 0xff, other.size);
	{
		uint8_t *want = malloc(NPU_MIB);

		npu_fill(want, NPU_MIB, 1);
		EXPECT_EQ(0, memcmp(want, bo.map, NPU_MIB));
		free(want);
	}
	bo.map[0] = 1;
	EXPECT_EQ(1, bo.map[0]);
	munmap(bo.map, bo.size);
	npu_bo_destroy(self->fd, &other);
}

TEST_F(memory, mapping_outlives_file)
{
	struct npu_bo bo, other;
	uint64_t free_before = npu_info(self->fd).dram_free;
	int fd = npu_reopen(&self->dev);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, npu_bo_create(fd, self->placement, NPU_MIB, &bo));
	memset(bo.map, 0x11, bo.size);
	close(fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &other));
	EXPECT_TRUE(npu_all(other.map, other.size, 0));
	memset(other.map, 0x22, other.size);
	EXPECT_TRUE(npu_all(bo.map, bo.size, 0x11));
	memset(bo.map, 0x33, bo.size);
	EXPECT_TRUE(npu_all(other.map, other.size, 0x22));
	npu_bo_destroy(self->fd, &other);
	munmap(bo.map, bo.size);
	EXPECT_EQ(free_before, npu_info(self->fd).dram_free);
}

/* Both processes see one memory, and the one that is left keeps it. */
TEST_F(memory, mapping_shared_by_fork)
{
	struct npu_bo bo;
	int to[2], status;
	pid_t pid;
	char c;

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_PAGE, &bo));
	ASSERT_EQ(0, pipe(to));
	pid = fork();
	if (!pid) {
		close(to[1]);
		status = read(to[0], &c, 1) != 1 || !npu_all(bo.map, NPU_PAGE, 0x44);
		memset(bo.map, 0x55, NPU_PAGE);
		_exit(status);
	}
	memset(bo.map, 0x44, NPU_PAGE);
	EXPECT_EQ(1, write(to[1], "x", 1));
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_TRUE(npu_all(bo.map, NPU_PAGE, 0x55));
	npu_bo_destroy(self->fd, &bo);
}

/* A job keeps its BOs, whoever closes what. */
TEST_F_TIMEOUT(memory, closed_under_a_job, 60)
{
	struct npu_bo src, dst, big[2];
	struct drm_npu_command c[2];
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };

	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &src));
	ASSERT_EQ(0, npu_bo_create(self->fd, self->placement, NPU_MIB, &dst));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &big[0]));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &big[1]));
	npu_fill(src.map, NPU_MIB, 5);
	c[0] = npu_long(&big[0], &big[1], 256);
	c[1] = npu_copy(&src, &dst, NPU_MIB);
	ASSERT_EQ(0, npu_submit(self->fd, c, 2, NULL, &out, NULL));
	EXPECT_EQ(0, npu_gem_close(self->fd, src.handle));
	EXPECT_EQ(0, npu_gem_close(self->fd, dst.handle));
	npu_bo_destroy(self->fd, &big[0]);
	npu_bo_destroy(self->fd, &big[1]);
	EXPECT_EQ(0, npu_wait(self->fd, out.handle, 0));
	EXPECT_EQ(0, memcmp(src.map, dst.map, NPU_MIB));
	munmap(src.map, NPU_MIB);
	munmap(dst.map, NPU_MIB);
}

FIXTURE(limits) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
};

FIXTURE_SETUP(limits)
{
	NPU_SETUP_OPEN();
	self->info = npu_info(self->fd);
	if (self->info.dram_free != self->info.dram_size)
		TH_LOG("%llu bytes of device memory are in use by others",
		       (unsigned long long)(self->info.dram_size - self->info.dram_free));
}

FIXTURE_TEARDOWN(limits)
{
	close(self->fd);
}

/* Fills device memory with BOs of this size; returns their number. */
static int fill_device(int fd, uint64_t size, int *error)
{
	struct drm_npu_bo_create c;
	int n = 0;

	do {
		c = (struct drm_npu_bo_create){ .size = size, .placement = NPU_DEVICE };
		*error = npu_ioctl(fd, DRM_IOCTL_NPU_BO_CREATE, &c);
	} while (!*error && ++n < 1000);
	return n;
}

TEST_F(limits, device_memory_is_counted)
{
	struct npu_bo bo;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, 3 * NPU_PAGE, &bo));
	EXPECT_EQ(self->info.dram_free - 3 * NPU_PAGE, npu_info(self->fd).dram_free);
	npu_bo_destroy(self->fd, &bo);
	EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, 3 * NPU_PAGE, &bo));
	EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);
}

TEST_F_TIMEOUT(limits, device_memory_runs_out, 60)
{
	int fd = npu_reopen(&self->dev), error, n;

	ASSERT_GE(fd, 0);
	n = fill_device(fd, 16 * NPU_MIB, &error);
	EXPECT_EQ(-ENOSPC, error);
	EXPECT_LE(n * 16 * NPU_MIB, self->info.dram_size);
	EXPECT_GE((n + 1) * 16 * NPU_MIB, self->info.dram_free);
	/* Another file feels it, until this one is closed. */
	EXPECT_EQ(0, fill_device(self->fd, 16 * NPU_MIB, &error));
	EXPECT_EQ(-ENOSPC, error);
	close(fd);
	EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);
	EXPECT_EQ(n, fill_device(self->fd, 16 * NPU_MIB, &error));
}

TEST_F_TIMEOUT(limits, a_dead_process_leaves_nothing, 60)
{
	int to[2], error;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(to));
	pid = fork();
	if (!pid) {
		int fd = npu_reopen(&self->dev);
		struct drm_npu_command nop = npu_nop();

		if (fd < 0 || npu_run_error(fd, &nop, 1) ||
		    !fill_device(fd, 16 * NPU_MIB, &error) || write(to[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(to[1]);
	ASSERT_EQ(1, read(to[0], &c, 1));
	EXPECT_LT(npu_info(self->fd).dram_free, 16 * NPU_MIB);
	EXPECT_EQ(self->info.queues_free - 1, npu_info(self->fd).queues_free);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
	EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);
	EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);
}

/* More than the machine has is refused without harm to anybody. */
TEST_F(limits, system_memory)
{
	struct npu_bo bo;
	int ret;

	ret = npu_bo_create(self->fd, NPU_SYSTEM, 1ull << 40, &bo);
	EXPECT_TRUE(ret == -ENOMEM || ret == -EINVAL);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &bo));
	EXPECT_TRUE(npu_all(bo.map, bo.size, 0));
}

/* Every queue of the device, each of another file. */
TEST_F_TIMEOUT(limits, queues_run_out, 60)
{
	struct drm_npu_command nop = npu_nop();
	int fds[1024], n = 0, i, ret = 0;

	ASSERT_LT(self->info.queues, ARRAY_SIZE(fds));
	while (n < self->info.queues_free + 1 && !ret) {
		fds[n] = npu_reopen(&self->dev);
		ASSERT_GE(fds[n], 0);
		ret = npu_run_error(fds[n], &nop, 1);
		n++;
	}
	EXPECT_EQ(-EBUSY, ret);
	EXPECT_LE(n, self->info.queues_free + 1);
	EXPECT_GT(n, 1);
	close(fds[0]);
	/* What could not be made is made when there is room. */
	EXPECT_EQ(0, npu_run_error(fds[n - 1], &nop, 1));
	for (i = 1; i < n; i++)
		close(fds[i]);
	EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);
}

TEST_HARNESS_MAIN
