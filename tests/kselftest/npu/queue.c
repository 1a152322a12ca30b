// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues of a file, and what /proc says of it (interface 1.1); priorities, weights
 * and timeouts of queues (1.2).
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
	return npu_submit_to(fd, queue, c, 1, NULL, out, seqno);
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
#if DRM_NPU_VERSION_MINOR >= 2
BAD_CREATE(weight, EINVAL, self->c.weight = 256)
BAD_CREATE(weight_all_ones, EINVAL, self->c.weight = ~0u)
BAD_CREATE(timeout, EINVAL, self->c.timeout_ms = 3600 * 1000 + 1)
BAD_CREATE(timeout_all_ones, EINVAL, self->c.timeout_ms = ~0u)
#endif

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

/*
 * Seqnos are of all queues. A long command in one holds up the other (§4.12), whose job is done
 * nevertheless; each has the status of its own.
 */
TEST_F_TIMEOUT(queue, seqnos_of_all_queues, 60)
{
	struct drm_npu_command slow = npu_long(&self->a, &self->b, 300), nop = npu_nop();
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync other = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t first, second;

	ASSERT_EQ(0, create(self));
	ASSERT_EQ(0, submit_to(self->fd, 0, &slow, &out, &first));
	ASSERT_EQ(0, submit_to(self->fd, self->c.queue, &nop, &other, &second));
	EXPECT_EQ(first + 1, second);
	ASSERT_EQ(0, npu_wait(self->fd, other.handle, 0));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, second, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_EQ(0, s.info);
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 0));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first, &s, sizeof(s)));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_EQ(300 * NPU_MIB, s.info);
}

/* Its jobs end with it, signalled and with a status: the one without end, and those behind it. */
TEST_F_TIMEOUT(queue, destroyed_with_jobs, 90)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t seqno = 0;
	int i;

	ASSERT_EQ(0, create(self));
	for (i = 1; i <= 20; i++) {
		out.point = i;
		ASSERT_EQ(0, submit_to(self->fd, self->c.queue, &c, &out, &seqno));
		c = npu_nop();
	}
	ASSERT_EQ(0, destroy(self, self->c.queue));
	EXPECT_EQ(0, npu_wait_ms(self->fd, out.handle, 20, 0));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno - i, &s, sizeof(s)));
		EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);
		EXPECT_EQ(-ECANCELED, s.error);
	}
}

#if DRM_NPU_VERSION_MINOR >= 2

static bool has_queue_control(FIXTURE_DATA(queue) *self)
{
	return npu_minor(self->fd) >= 2 && self->info.priorities > 1 && self->info.max_timeout_ms;
}

/* A higher priority is for those who may, if the device has any. */
TEST_F(queue, priority_needs_a_right)
{
	pid_t pid;

	if (npu_minor(self->fd) < 2)
		SKIP(return, "an interface before 1.2 has none");
	self->c.priority = 1;
	EXPECT_EQ(self->info.priorities > 1 ? 0 : -EOPNOTSUPP, create(self));
	pid = fork();
	if (!pid) {
		struct drm_npu_queue_create c = { .priority = 1 };

		if (setuid(65534))
			_exit(1);
		_exit(npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c) == -EACCES ? 0 : 2);
	}
	EXPECT_EQ(0, npu_reap(pid));
}

/* The limits that the device tells can be had, and are no more than the header's. */
TEST_F(queue, limits)
{
	if (npu_minor(self->fd) < 2)
		SKIP(return, "an interface before 1.2 has none");
	EXPECT_LE(self->info.priorities, DRM_NPU_PRIORITY_MAX + 1);
	EXPECT_GE(self->info.priorities, 1);
	EXPECT_GE(self->info.max_weight, 1);
	self->c.priority = self->info.priorities - 1;
	self->c.weight = self->info.max_weight;
	self->c.timeout_ms = self->info.max_timeout_ms;
	EXPECT_EQ(0, create(self));
}

/* A card without them refuses all but the default, which may be spelled out. */
TEST_F(queue, no_queue_control)
{
	if (npu_minor(self->fd) < 2 || self->info.priorities > 1)
		SKIP(return, "the device has priorities");
	EXPECT_EQ(0, self->info.max_timeout_ms);
	self->c.weight = 1;
	EXPECT_EQ(0, create(self));
	self->c = (struct drm_npu_queue_create){ .weight = 2 };
	EXPECT_EQ(-EOPNOTSUPP, create(self));
	self->c = (struct drm_npu_queue_create){ .timeout_ms = 1 };
	EXPECT_EQ(-EOPNOTSUPP, create(self));
	self->c = (struct drm_npu_queue_create){ .priority = 1 };
	EXPECT_EQ(-EOPNOTSUPP, create(self));
}

/* A hang keeps the device from others as long as the timeout: a long one is for those who may. */
TEST_F(queue, long_timeout_needs_a_right)
{
	uint32_t limit = self->info.job_timeout_ms;
	pid_t pid;

	if (!has_queue_control(self))
		SKIP(return, "the device has no timeouts");
	self->c.timeout_ms = limit + 1;
	EXPECT_EQ(0, create(self));
	pid = fork();
	if (!pid) {
		struct drm_npu_queue_create c = { .timeout_ms = limit + 1 };

		if (setuid(65534))
			_exit(1);
		if (npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c) != -EACCES)
			_exit(2);
		c = (struct drm_npu_queue_create){ .timeout_ms = limit, .weight = 255 };
		_exit(npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c) ? 3 : 0);
	}
	EXPECT_EQ(0, npu_reap(pid));
}

/*
 * Who was served when. Each job is one copy of a number: a job of the counting queue
 * puts its own number, from 1, where it can be seen, and job i of the noting queue
 * notes in notes[i] what it sees there. So the device itself says how many jobs of
 * the one it had executed before job i of the other, whatever the clock says.
 *
 * Both queues have all their jobs before the device executes the first: meanwhile it
 * executes a copy without end in a third queue, until that one's timeout.
 */
#define RACE_MAX	120

static int race(FIXTURE_DATA(queue) *self, uint32_t counting, uint32_t count, uint32_t noting,
		uint32_t note, uint64_t notes[RACE_MAX])
{
	struct drm_npu_queue_create gate = { .priority = DRM_NPU_PRIORITY_MAX, .timeout_ms = 1000 };
	struct drm_npu_sync counted = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync noted = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync opened = { .handle = npu_syncobj(self->fd) };
	uint64_t *numbers = (uint64_t *)self->a.map;
	struct drm_npu_command c;
	struct npu_bo x, y;
	double start;
	uint32_t i;
	bool shut;
	int ret;

	if (npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &x) ||
	    npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &y))
		return -ENOMEM;
	/* A slow machine gets more time. */
	for (; gate.timeout_ms <= 16000; gate.timeout_ms *= 2) {
		for (i = 0; i <= count; i++)
			numbers[i] = i;
		memset(self->b.map, 0, NPU_MIB);
		gate.queue = 0;
		ret = npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &gate);
		if (ret)
			return ret;
		c = npu_endless(&x, &y);
		ret = submit_to(self->fd, gate.queue, &c, &opened, NULL);
		npu_sleep_ms(50);
		start = npu_now();
		for (i = 1; i <= count && !ret; i++) {
			c = npu_copy(&self->a, &self->b, 8);
			c.copy.src_offset = 8 * i;
			counted.point++;
			ret = submit_to(self->fd, counting, &c, &counted, NULL);
		}
		for (i = 0; i < note && !ret; i++) {
			c = npu_copy(&self->b, &self->b, 8);
			c.copy.dst_offset = NPU_PAGE + 8 * i;
			noted.point++;
			ret = submit_to(self->fd, noting, &c, &noted, NULL);
		}
		/* The driver hands jobs to the device one after the other. */
		npu_sleep_ms(50 + (npu_now() - start) * 2000);
		shut = npu_wait_ms(self->fd, opened.handle, 0, 0) == -ETIME;
		if (!ret)
			ret = npu_wait_ms(self->fd, counted.handle, counted.point, 60000);
		if (!ret)
			ret = npu_wait_ms(self->fd, noted.handle, noted.point, 60000);
		npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_DESTROY,
			  &(struct drm_npu_queue_destroy){ .queue = gate.queue });
		if (ret)
			return ret;
		if (shut) { /* still, when all were there */
			memcpy(notes, self->b.map + NPU_PAGE, note * sizeof(*notes));
			return 0;
		}
	}
	return -ETIME;
}

static uint32_t queue_with(FIXTURE_DATA(queue) *self, uint32_t priority, uint32_t weight)
{
	self->c = (struct drm_npu_queue_create){ .priority = priority, .weight = weight };
	return create(self) ? 0 : self->c.queue;
}

/* Jobs that the device surely holds at a time, of a queue, over any bus. */
#define RACE_HELD	60

/* The higher class is served first. */
TEST_F_TIMEOUT(queue, priority, 120)
{
	uint64_t notes[RACE_MAX];
	uint32_t high, low, i;

	if (!has_queue_control(self))
		SKIP(return, "the device has no priorities");
	for (i = 0; i < 3; i++) {
		low = queue_with(self, i, 0);
		high = queue_with(self, i + 1, 0);
		ASSERT_NE(0, low);
		ASSERT_NE(0, high);
		ASSERT_EQ(0, race(self, high, RACE_HELD, low, 20, notes));
		EXPECT_EQ(RACE_HELD, notes[0]);
		EXPECT_EQ(RACE_HELD, notes[19]);
		ASSERT_EQ(0, destroy(self, low));
		ASSERT_EQ(0, destroy(self, high));
	}
}

/* After 64 commands of higher classes one of the lower class is served all the same (§4.12). */
TEST_F_TIMEOUT(queue, low_priority_is_served, 120)
{
	uint64_t notes[RACE_MAX];
	uint32_t high, low;

	if (!has_queue_control(self))
		SKIP(return, "the device has no priorities");
	if (strcmp(self->dev.bus, "pci"))
		SKIP(return, "the device does not hold so many jobs at a time");
	low = queue_with(self, 0, 0);
	high = queue_with(self, 3, 0);
	ASSERT_NE(0, low);
	ASSERT_NE(0, high);
	ASSERT_EQ(0, race(self, high, 100, low, 20, notes));
	EXPECT_EQ(64, notes[0]);
	EXPECT_EQ(100, notes[1]);
	EXPECT_EQ(100, notes[19]);
}

/* In a class each queue has its weight in a turn: shares of the device by count. */
TEST_F_TIMEOUT(queue, weight, 180)
{
	static const struct {
		uint32_t counting, noting;
	} weights[] = { { 0, 0 }, { 3, 1 }, { 1, 3 }, { 5, 2 }, { 255, 1 } };
	uint64_t notes[RACE_MAX];
	uint32_t counting, noting, i, k, a, b, first;

	if (!has_queue_control(self))
		SKIP(return, "the device has no weights");
	for (i = 0; i < ARRAY_SIZE(weights); i++) {
		a = weights[i].counting ?: 1;
		b = weights[i].noting ?: 1;
		counting = queue_with(self, 0, weights[i].counting);
		noting = queue_with(self, 0, weights[i].noting);
		ASSERT_NE(0, counting);
		ASSERT_NE(0, noting);
		ASSERT_EQ(0, race(self, counting, RACE_HELD, noting, RACE_HELD / 2, notes));
		/* Either has the first turn; from then on there is no choice. */
		first = notes[0] ? a : 0;
		for (k = 0; k < RACE_HELD / 2; k++) {
			uint64_t want = first + k / b * a;

			EXPECT_EQ(want < RACE_HELD ? want : RACE_HELD, notes[k]) {
				TH_LOG("weights %u and %u: job %u", a, b, k);
			}
		}
		ASSERT_EQ(0, destroy(self, counting));
		ASSERT_EQ(0, destroy(self, noting));
	}
}

#endif

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
	after = fdinfo(self->fd, "drm-engine-npu");
	EXPECT_GT(after, before);
	npu_sleep_ms(50);
	EXPECT_EQ(after, fdinfo(self->fd, "drm-engine-npu"));
}

#define SHARERS		4
#define SHARER_JOBS	10

/*
 * Files that keep the device busy at the same time share the time that passes: it executes one command
 * at a time, so they have no more than that, and, as they always have work there, hardly less. Each has
 * about the same work, in a queue of its own.
 */
TEST_F_TIMEOUT(queue, fdinfo_of_busy_files, 120)
{
	long long busy[SHARERS], sum = 0;
	struct drm_npu_command c[2];
	struct drm_npu_sync out[SHARERS];
	struct npu_bo x, y;
	double start, took;
	int fd[SHARERS], i, job;

	for (i = 0; i < SHARERS; i++) {
		fd[i] = npu_reopen(&self->dev);
		ASSERT_GE(fd[i], 0);
		out[i] = (struct drm_npu_sync){ .handle = npu_syncobj(fd[i]) };
	}
	start = npu_now();
	for (i = 0; i < SHARERS; i++) {
		ASSERT_EQ(0, npu_bo_create(fd[i], NPU_SYSTEM, NPU_MIB, &x));
		ASSERT_EQ(0, npu_bo_create(fd[i], NPU_SYSTEM, NPU_MIB, &y));
		c[0] = npu_long(&x, &y, 20);
		c[1] = c[0];
		for (job = 0; job < SHARER_JOBS; job++) {
			out[i].point++;
			ASSERT_EQ(0, npu_submit(fd[i], c, 2, NULL, &out[i], NULL));
		}
	}
	for (i = 0; i < SHARERS; i++)
		ASSERT_EQ(0, npu_wait_ms(fd[i], out[i].handle, SHARER_JOBS, 60000));
	took = (npu_now() - start) * 1e9;
	for (i = 0; i < SHARERS; i++) {
		busy[i] = fdinfo(fd[i], "drm-engine-npu");
		EXPECT_GT(busy[i], 0);
		sum += busy[i];
	}
	EXPECT_LE(sum, took);
	EXPECT_GT(sum, took / 2);
	TH_LOG("busy %lld, %lld, %lld and %lld of %.0f ms", busy[0] / 1000000, busy[1] / 1000000,
	       busy[2] / 1000000, busy[3] / 1000000, took / 1e6);
	npu_sleep_ms(50);
	for (i = 0; i < SHARERS; i++) {
		EXPECT_EQ(busy[i], fdinfo(fd[i], "drm-engine-npu"));
		close(fd[i]);
	}
}

/* A job that waited for the device behind that of another file, and never began, is not charged. */
TEST_F_TIMEOUT(queue, fdinfo_of_a_job_that_never_ran, 60)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b), nop = npu_nop();
	int other = npu_reopen(&self->dev);
	long long before;
	uint32_t queue;

	if (strcmp(self->dev.bus, "pci"))
		SKIP(return, "the device ends those that never began in the same way as others");
	ASSERT_GE(other, 0);
	ASSERT_EQ(0, npu_run_error(other, &nop, 1));
	before = fdinfo(other, "drm-engine-npu");
	ASSERT_EQ(0, create(self));
	queue = self->c.queue;
	ASSERT_EQ(0, submit_to(self->fd, queue, &c, NULL, NULL));
	npu_sleep_ms(100);
	self->c = (struct drm_npu_queue_create){ 0 };
	ASSERT_EQ(0, npu_ioctl(other, DRM_IOCTL_NPU_QUEUE_CREATE, &self->c));
	ASSERT_EQ(0, submit_to(other, self->c.queue, &nop, NULL, NULL));
	npu_sleep_ms(300);
	self->d = (struct drm_npu_queue_destroy){ .queue = self->c.queue };
	ASSERT_EQ(0, npu_ioctl(other, DRM_IOCTL_NPU_QUEUE_DESTROY, &self->d));
	EXPECT_EQ(before, fdinfo(other, "drm-engine-npu"));
	ASSERT_EQ(0, destroy(self, queue));
	EXPECT_GT(fdinfo(self->fd, "drm-engine-npu"), 300000000);
	close(other);
}

#else

TEST(queue)
{
	SKIP(return, "<drm/npu_accel.h> is older than 1.1");
}

#endif

TEST_HARNESS_MAIN
