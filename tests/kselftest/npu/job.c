// SPDX-License-Identifier: GPL-2.0-only
/*
 * Jobs: what they do, in which order, and what is said of them.
 */
#include <pthread.h>

#include "npu.h"

FIXTURE(job) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct npu_bo a, b, text;
	uint32_t sync, timeline;
};

FIXTURE_SETUP(job)
{
	NPU_SETUP_OPEN();
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->text));
	self->sync = npu_syncobj(self->fd);
	self->timeline = npu_syncobj(self->fd);
	ASSERT_NE(0, self->sync);
	ASSERT_NE(0, self->timeline);
	npu_fill(self->a.map, NPU_MIB, 1);
}

FIXTURE_TEARDOWN(job)
{
	close(self->fd);
}

TEST_F(job, copy)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, NPU_MIB);
	struct drm_npu_job_status status;

	ASSERT_EQ(0, npu_run(self->fd, &c, 1, &status));
	EXPECT_EQ(DRM_NPU_JOB_DONE, status.state);
	EXPECT_EQ(NPU_MIB, status.info);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

TEST_F(job, strided_copy)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 16);
	int y, z;

	c.copy.ny = 5;
	c.copy.nz = 3;
	c.copy.src_offset = 3;
	c.copy.src_stride_y = 100;
	c.copy.src_stride_z = 1000;
	c.copy.dst_stride_y = 16;
	c.copy.dst_stride_z = 80;
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	for (z = 0; z < 3; z++)
		for (y = 0; y < 5; y++)
			EXPECT_EQ(0, memcmp(self->a.map + 3 + z * 1000 + y * 100,
					    self->b.map + z * 80 + y * 16, 16));
	EXPECT_TRUE(npu_all(self->b.map + 240, NPU_PAGE, 0));
}

/* Through device memory and back: three commands, each needs the one before. */
TEST_F(job, through_device_memory)
{
	struct npu_bo device;
	struct drm_npu_command c[2];

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &device));
	c[0] = npu_copy(&self->a, &device, NPU_MIB);
	c[1] = npu_copy(&device, &self->b, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->fd, c, 2));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

TEST_F(job, launch)
{
	struct npu_program p = npu_copy_program(&self->info, 1000);
	struct drm_npu_binding bindings[] = {
		{ self->a.handle, DRM_NPU_BINDING_READ, 4096, 1000 },
		{ self->b.handle, DRM_NPU_BINDING_WRITE, 8192, 1000 },
	};
	struct drm_npu_command c = npu_launch(&self->text, p.size, bindings, 2);
	struct drm_npu_job_status status;

	memcpy(self->text.map, p.bytes, p.size);
	ASSERT_EQ(0, npu_run(self->fd, &c, 1, &status));
	EXPECT_EQ(DRM_NPU_JOB_DONE, status.state);
	EXPECT_EQ(3, status.result);
	EXPECT_EQ(0, status.info);
	EXPECT_EQ(0, memcmp(self->a.map + 4096, self->b.map + 8192, 1000));
	EXPECT_TRUE(npu_all(self->b.map, 8192, 0));
	EXPECT_TRUE(npu_all(self->b.map + 9192, NPU_PAGE, 0));
}

/* Jobs with a program that is wrong: the call is good, the job is not. */
FIXTURE(wrong) {
	struct npu_device dev;
	int fd;
	struct npu_bo text, data;
	struct npu_program p;
	struct drm_npu_binding b[2];
};

FIXTURE_SETUP(wrong)
{
	struct drm_npu_device_info info;

	NPU_SETUP_OPEN();
	info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->text));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->data));
	self->p = npu_copy_program(&info, 64);
	self->b[0] = (struct drm_npu_binding){ self->data.handle, DRM_NPU_BINDING_READ, 0, 64 };
	self->b[1] = (struct drm_npu_binding){ self->data.handle, DRM_NPU_BINDING_WRITE, 64, 64 };
}

FIXTURE_TEARDOWN(wrong)
{
	close(self->fd);
}

/*
 * Changes a byte of descriptor or text, with a checksum that is right unless it
 * is the checksum that changes, and runs it between two jobs that are good.
 */
static int run_wrong(FIXTURE_DATA(wrong) *self, int byte, uint8_t value,
		     struct drm_npu_job_status *status)
{
	struct drm_npu_command c = npu_launch(&self->text, self->p.size, self->b, 2);
	struct drm_npu_command nop = npu_nop();
	int ret;

	if (byte >= 0)
		self->p.bytes[byte] = value;
	if (byte >= 64)
		npu_put(self->p.bytes + 0x14, npu_crc32(self->p.bytes + 64, self->p.size - 64), 4);
	memcpy(self->text.map, self->p.bytes, self->p.size);
	ret = npu_run(self->fd, &c, 1, status);
	if (!ret)
		ret = npu_run_error(self->fd, &nop, 1);
	return ret;
}

#define WRONG(name, byte, value, want_error, want_status, want_result, want_info)	\
	TEST_F(wrong, name)							\
	{									\
		struct drm_npu_job_status s;					\
										\
		ASSERT_EQ(0, run_wrong(self, byte, value, &s));			\
		EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);				\
		EXPECT_EQ(-(want_error), s.error);				\
		EXPECT_EQ(want_status, s.status);				\
		EXPECT_EQ(want_result, s.result);				\
		EXPECT_EQ(want_info, s.info);					\
		EXPECT_EQ(0, s.command);					\
	}

/* §5.3: info is the offset in the descriptor. */
WRONG(magic, 0x00, 'X', EINVAL, 0x40, 0, 0x00)
WRONG(version, 0x04, 2, EINVAL, 0x40, 0, 0x04)
WRONG(checksum, 0x14, 0, EINVAL, 0x40, 0, 0x14)
WRONG(reserved_of_descriptor, 0x26, 1, EINVAL, 0x40, 0, 0x26)
WRONG(rows, 0x18, 1, EINVAL, 0x41, 0, 0x18)
WRONG(bindings_of_descriptor, 0x24, 3, EINVAL, 0x40, 0, 0x24)
WRONG(features, 0x2f, 0x80, EINVAL, 0x41, 0, 0x28)

/* §5.7: result is the index of the instruction. */
WRONG(opcode, 64, 0x0f, EINVAL, 0x42, 0, 0x0f)
WRONG(reserved_of_instruction, 96 + 1, 0x80, EINVAL, 0x43, 1, 1)
WRONG(no_rows, 64 + 6, 0, EINVAL, 0x44, 0, 6)
WRONG(local_bounds, 64 + 8, 1, EFAULT, 0x46, 0, 64)
WRONG(binding_index, 64 + 4, 2, EFAULT, 0x47, 0, 2)
WRONG(token_that_never_comes, 96 + 2, 0x11, EINVAL, 0x4d, 1, 1)
WRONG(no_halt, 128, 0x1f, EINVAL, 0x4e, 3, 0)

TEST_F(wrong, access_of_binding)
{
	struct drm_npu_job_status s;

	self->b[1].flags = DRM_NPU_BINDING_READ;
	ASSERT_EQ(0, run_wrong(self, -1, 0, &s));
	EXPECT_EQ(0x48, s.status);
	EXPECT_EQ(1, s.result);
	EXPECT_EQ(-EFAULT, s.error);
}

TEST_F(wrong, bounds_of_binding)
{
	struct drm_npu_job_status s;

	self->b[0].size = 63;
	ASSERT_EQ(0, run_wrong(self, -1, 0, &s));
	EXPECT_EQ(0x49, s.status);
	EXPECT_EQ(0, s.result);
	EXPECT_EQ(63, s.info);
	EXPECT_EQ(-EFAULT, s.error);
	/* Nothing was stored. */
	EXPECT_TRUE(npu_all(self->data.map, NPU_PAGE, 0));
}

/* The first of several failures is told, and the commands behind it run. */
TEST_F(wrong, first_failure_counts)
{
	struct drm_npu_command c[4];
	struct drm_npu_job_status s;

	memcpy(self->text.map, self->p.bytes, self->p.size);
	memset(self->data.map, 0x66, 64);
	c[0] = npu_nop();
	c[1] = npu_launch(&self->text, self->p.size, self->b, 1);	/* needs 2 */
	c[2] = npu_launch(&self->text, self->p.size, self->b, 2);
	c[3] = npu_launch(&self->text, self->p.size - 32, self->b, 2);
	ASSERT_EQ(0, npu_run(self->fd, c, 4, &s));
	EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);
	EXPECT_EQ(1, s.command);
	EXPECT_EQ(-EINVAL, s.error);
	EXPECT_EQ(0x24, s.info);
	EXPECT_TRUE(npu_all(self->data.map + 64, 64, 0x66));
}

TEST_F(job, numbers)
{
	struct drm_npu_command nop = npu_nop();
	uint64_t seqno;
	int i;

	for (i = 1; i <= 10; i++) {
		ASSERT_EQ(0, npu_submit(self->fd, &nop, 1, NULL, NULL, &seqno));
		EXPECT_EQ(i, seqno);
	}
}

TEST_F_TIMEOUT(job, as_many_commands_as_allowed, 60)
{
	struct drm_npu_command *c = calloc(self->info.max_commands, sizeof(*c));
	struct drm_npu_job_status s;
	uint32_t i;

	ASSERT_NE(NULL, c);
	for (i = 0; i < self->info.max_commands; i++) {
		c[i] = npu_copy(&self->a, &self->b, 1);
		c[i].copy.src_offset = i;
		c[i].copy.dst_offset = i;
	}
	ASSERT_EQ(0, npu_run(self->fd, c, self->info.max_commands, &s));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_EQ(self->info.max_commands - 1, s.command);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, self->info.max_commands));
	free(c);
}

TEST_F(job, last_64_are_known)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_job_status s;
	int i;

	for (i = 0; i < 70; i++)
		ASSERT_EQ(0, npu_run_error(self->fd, &nop, 1));
	for (i = 7; i <= 70; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, i, &s, sizeof(s)));
		EXPECT_EQ(i, s.seqno);
		EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	}
	EXPECT_EQ(-ENOENT, npu_query(self->fd, DRM_NPU_QUERY_JOB, 6, &s, sizeof(s)));
	EXPECT_EQ(-ENOENT, npu_query(self->fd, DRM_NPU_QUERY_JOB, 71, &s, sizeof(s)));
}

/* Jobs of a file run in order, however many wait. */
TEST_F_TIMEOUT(job, order, 60)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 4);
	struct drm_npu_sync out = { .handle = self->timeline };
	int i;

	for (i = 1; i <= 300; i++) {
		c.copy.src_offset = 4 * i;
		out.point = i;
		ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, NULL));
	}
	ASSERT_EQ(0, npu_wait(self->fd, self->timeline, 300));
	EXPECT_EQ(0, memcmp(self->a.map + 1200, self->b.map, 4));
}

TEST_F(job, waits_for_its_fence)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 4);
	struct drm_npu_sync in = { .handle = self->timeline, .point = 3 };
	struct drm_npu_sync out = { .handle = self->sync }, first;
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_job_status s;
	int fd = npu_reopen(&self->dev);
	uint64_t seqno;

	ASSERT_GE(fd, 0);
	/* Point 3 is the end of a job that waits for the end of a long one. */
	first = (struct drm_npu_sync){ .handle = self->timeline, .point = 3 };
	{
		struct drm_npu_command slow = npu_long(&self->a, &self->b, 128);

		slow.copy.src_offset = 0;
		ASSERT_EQ(0, npu_submit(self->fd, &slow, 1, NULL, &first, NULL));
	}
	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, &in, &out, &seqno));
	/* Others are not held up for ever by one that waits. */
	EXPECT_EQ(0, npu_run_error(fd, &nop, 1));
	EXPECT_EQ(0, npu_wait(self->fd, self->sync, 0));
	EXPECT_EQ(0, npu_wait_ms(self->fd, self->timeline, 3, 0));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	close(fd);
}

/* A fence that failed counts as signalled. */
TEST_F(job, fence_of_a_failed_job)
{
	struct drm_npu_command bad = npu_launch(&self->text, 96, NULL, 0);
	struct drm_npu_command good = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_sync sync = { .handle = self->sync };
	struct drm_npu_sync out = { .handle = self->timeline, .point = 1 };

	ASSERT_EQ(0, npu_submit(self->fd, &bad, 1, NULL, &sync, NULL));
	ASSERT_EQ(0, npu_submit(self->fd, &good, 1, &sync, &out, NULL));
	EXPECT_EQ(0, npu_wait(self->fd, self->timeline, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
}

/* The status is complete before the fence is signalled. */
TEST_F(job, status_before_fence)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_sync out = { .handle = self->sync };
	struct drm_npu_job_status s;
	uint64_t seqno;
	int i;

	for (i = 0; i < 200; i++) {
		ASSERT_EQ(0, npu_submit(self->fd, &nop, 1, NULL, &out, &seqno));
		ASSERT_EQ(0, npu_wait(self->fd, self->sync, 0));
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
		ASSERT_EQ(DRM_NPU_JOB_DONE, s.state);
	}
}

/* A syncobj is also a sync file, which poll() understands. */
TEST_F(job, sync_file)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_sync out = { .handle = self->sync };
	struct drm_syncobj_handle h = {
		.handle = self->sync, .fd = -1,
		.flags = DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE,
	};
	struct pollfd p = { .events = POLLIN };

	ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, NULL));
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h));
	p.fd = h.fd;
	EXPECT_EQ(1, poll(&p, 1, NPU_WAIT_MS));
	EXPECT_EQ(POLLIN, p.revents);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
	close(h.fd);
}

struct worker {
	int fd, error;
	struct npu_bo *src, *dst;
	uint32_t slot;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct drm_npu_command c = npu_copy(w->src, w->dst, 64);
	int i;

	for (i = 0; i < 50 && !w->error; i++) {
		c.copy.src_offset = (i * 4 + w->slot) * 64;
		c.copy.dst_offset = c.copy.src_offset;
		w->error = npu_run_error(w->fd, &c, 1);
	}
	return NULL;
}

/* Threads that use one file. */
TEST_F_TIMEOUT(job, threads, 60)
{
	struct worker w[4];
	pthread_t thread[4];
	int i;

	for (i = 0; i < 4; i++) {
		w[i] = (struct worker){ self->fd, 0, &self->a, &self->b, i };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, work, &w[i]));
	}
	for (i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, w[i].error);
	}
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 50 * 256));
	EXPECT_TRUE(npu_all(self->b.map + 50 * 256, NPU_PAGE, 0));
}

TEST_HARNESS_MAIN
