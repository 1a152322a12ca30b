// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues of a file, and what /proc says of it (interface 1.1).
 */
#include "npu.h"

#ifdef DRM_IOCTL_NPU_QUEUE_CREATE

FIXTURE(queue) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct npu_bo a, b;
	struct drm_npu_queue_create c;
	struct drm_npu_queue_destroy d;
};

FIXTURE_SETUP(queue)
{
	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 1)
		SKIP(return, "no queues in 1.0");
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
}

FIXTURE_TEARDOWN(queue)
{
	close(self->fd);
}

static int create(FIXTURE_DATA(queue) *self)
{
	return npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &self->c);
}

static int destroy(FIXTURE_DATA(queue) *self, uint32_t queue)
{
	self->d = (struct drm_npu_queue_destroy){ .queue = queue };
	return npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &self->d);
}

static int submit_to(int fd, uint32_t queue, struct drm_npu_command *c,
		     const struct drm_npu_sync *out, uint64_t *seqno)
{
	struct drm_npu_submit s = { .commands = NPU_ARRAY(c, 1), .queue = queue };
	int ret;

	if (out)
		s.out_syncs = NPU_ARRAY(out, 1);
	ret = npu_ioctl(fd, DRM_IOCTL_NPU_SUBMIT, &s);
	if (seqno)
		*seqno = s.seqno;
	return ret;
}

TEST_F(queue, create_and_destroy)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	uint32_t queue;
	int i;

	for (i = 0; i < 3; i++) {
		self->c = (struct drm_npu_queue_create){ 0 };
		ASSERT_EQ(0, create(self));
		queue = self->c.queue;
		EXPECT_NE(0, queue);
		EXPECT_EQ(self->info.queues_free - 1, npu_info(self->fd).queues_free);
		npu_fill(self->a.map, 64, i);
		ASSERT_EQ(0, submit_to(self->fd, queue, &c, &out, NULL));
		ASSERT_EQ(0, npu_wait(self->fd, out.handle, 0));
		EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
		ASSERT_EQ(0, destroy(self, queue));
		EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);
		EXPECT_EQ(-ENOENT, submit_to(self->fd, queue, &c, NULL, NULL));
		EXPECT_EQ(-ENOENT, destroy(self, queue));
	}
}

#define BAD_CREATE(name, error, change)						\
	TEST_F(queue, bad_##name)						\
	{									\
		change;								\
		EXPECT_EQ(-(error), create(self));				\
		EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);	\
	}

BAD_CREATE(priority, EINVAL, self->c.priority = DRM_NPU_PRIORITY_MAX + 1)
BAD_CREATE(priority_all_ones, EINVAL, self->c.priority = ~0u)
BAD_CREATE(flag, EINVAL, self->c.flags = 2)
BAD_CREATE(queue_on_input, EINVAL, self->c.queue = 1)
BAD_CREATE(padding, EINVAL, self->c.pad = 1)

TEST_F(queue, bad_destroy)
{
	EXPECT_EQ(-ENOENT, destroy(self, 0));
	EXPECT_EQ(-ENOENT, destroy(self, 1));
	EXPECT_EQ(-ENOENT, destroy(self, ~0u));
	self->d = (struct drm_npu_queue_destroy){ .pad = 1 };
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &self->d));
}

TEST_F(queue, of_another_file)
{
	struct drm_npu_command nop = npu_nop();
	int other = npu_reopen(&self->dev);

	ASSERT_GE(other, 0);
	ASSERT_EQ(0, create(self));
	EXPECT_EQ(-ENOENT, submit_to(other, self->c.queue, &nop, NULL, NULL));
	EXPECT_EQ(0, submit_to(self->fd, self->c.queue, &nop, NULL, NULL));
	close(other);
}

TEST_F_TIMEOUT(queue, run_out, 60)
{
	uint32_t n = 0;
	int ret;

	do {
		self->c = (struct drm_npu_queue_create){ 0 };
		ret = create(self);
	} while (!ret && ++n < 5000);
	EXPECT_EQ(-EBUSY, ret);
	EXPECT_EQ(self->info.queues_free, n);
	EXPECT_EQ(0, npu_info(self->fd).queues_free);
	/* Queue 0 is one more, which cannot be made now. */
	EXPECT_EQ(-EBUSY, submit_to(self->fd, 0, &(struct drm_npu_command){
		.type = DRM_NPU_COMMAND_NOP }, NULL, NULL));
}

/* Seqnos are of all queues; a long job in one does not hold up the other. */
TEST_F_TIMEOUT(queue, independent, 60)
{
	struct drm_npu_command slow = npu_long(&self->a, &self->b, 300), nop = npu_nop();
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync other = { .handle = npu_syncobj(self->fd) };
	uint64_t first, second;

	ASSERT_EQ(0, create(self));
	ASSERT_EQ(0, submit_to(self->fd, 0, &slow, &out, &first));
	ASSERT_EQ(0, submit_to(self->fd, self->c.queue, &nop, &other, &second));
	EXPECT_EQ(first + 1, second);
	EXPECT_EQ(0, npu_wait(self->fd, other.handle, 0));
	EXPECT_EQ(0, npu_wait(self->fd, out.handle, 0));
}

/* Its jobs end with it, signalled and with a status. */
TEST_F_TIMEOUT(queue, destroyed_with_jobs, 90)
{
	struct drm_npu_command slow = npu_long(&self->a, &self->b, 100);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t seqno = 0;
	int i;

	ASSERT_EQ(0, create(self));
	for (i = 1; i <= 20; i++) {
		out.point = i;
		ASSERT_EQ(0, submit_to(self->fd, self->c.queue, &slow, &out, &seqno));
	}
	ASSERT_EQ(0, destroy(self, self->c.queue));
	EXPECT_EQ(0, npu_wait_ms(self->fd, out.handle, 20, 0));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno - i, &s, sizeof(s)));
		EXPECT_NE(DRM_NPU_JOB_PENDING, s.state);
		EXPECT_TRUE(!s.error || s.error == -ECANCELED);
	}
}

/* A higher priority is for those who may. */
TEST_F(queue, priority_needs_a_right)
{
	pid_t pid;
	int ret;

	self->c.priority = 1;
	ret = create(self);
	EXPECT_TRUE(!ret || ret == -EOPNOTSUPP);
	pid = fork();
	if (!pid) {
		struct drm_npu_queue_create c = { .priority = 1 };

		if (setuid(65534))
			_exit(1);
		ret = npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c);
		_exit(ret == -EACCES || ret == -EOPNOTSUPP ? 0 : 2);
	}
	EXPECT_EQ(0, npu_reap(pid));
}

/* What one file keeps in a queue of a higher priority is done first. */
TEST_F_TIMEOUT(queue, priority, 90)
{
	struct drm_npu_command c = npu_long(&self->a, &self->b, 4), nop = npu_nop();
	struct drm_npu_sync low = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync high = { .handle = npu_syncobj(self->fd) };
	int i, ret;

	self->c.priority = DRM_NPU_PRIORITY_MAX;
	ret = create(self);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the device has no priorities");
	ASSERT_EQ(0, ret);
	for (i = 1; i <= 50; i++) {
		low.point = i;
		ASSERT_EQ(0, submit_to(self->fd, 0, &c, &low, NULL));
	}
	ASSERT_EQ(0, submit_to(self->fd, self->c.queue, &nop, &high, NULL));
	ASSERT_EQ(0, npu_wait(self->fd, high.handle, 0));
	EXPECT_EQ(-ETIME, npu_wait_ms(self->fd, low.handle, 50, 0));
	EXPECT_EQ(0, npu_wait_ms(self->fd, low.handle, 50, 60000));
}

/* The value of a key of fdinfo, in bytes if it has a unit of memory; -1 without one. */
static long long fdinfo(int fd, const char *key)
{
	char path[64], line[256];
	long long value = -1;
	char *unit;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':') {
			value = strtoll(line + strlen(key) + 1, &unit, 10);
			if (!strncmp(unit, " KiB", 4))
				value <<= 10;
			else if (!strncmp(unit, " MiB", 4))
				value <<= 20;
		}
	if (f)
		fclose(f);
	return value;
}

TEST_F_TIMEOUT(queue, fdinfo, 60)
{
	struct drm_npu_command c = npu_long(&self->a, &self->b, 50);
	long long before = fdinfo(self->fd, "drm-engine-npu"), after;
	struct npu_bo device;

	ASSERT_GE(before, 0);
	EXPECT_EQ(2 * NPU_MIB, fdinfo(self->fd, "drm-total-system"));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &device));
	EXPECT_EQ(NPU_MIB, fdinfo(self->fd, "drm-total-device"));
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	/* The job's end is counted soon after its fence. */
	npu_sleep_ms(50);
	after = fdinfo(self->fd, "drm-engine-npu");
	EXPECT_GT(after, before);
	npu_sleep_ms(50);
	EXPECT_EQ(after, fdinfo(self->fd, "drm-engine-npu"));
}

#else

TEST(queue)
{
	SKIP(return, "<drm/npu_accel.h> is older than 1.1");
}

#endif

TEST_HARNESS_MAIN
