// SPDX-License-Identifier: GPL-2.0-only
/*
 * Jobs that do not end: device or driver end them, and everything else goes on. The
 * job is a copy of 4 PiB, the time limit the module's parameter or that of a queue.
 *
 * From interface 1.2 on nobody else notices. Before, the device was reset, and jobs of
 * others ended with it.
 */
#include "npu.h"

#define LIMIT_MS	1000

FIXTURE(timeout) {
	struct npu_device dev;
	int fd, victim;
	struct npu_bo a, b, victim_a, victim_b;
	char limit[16];
	uint32_t resets;
	bool alone;	/* a timeout ends nothing but its own job and those behind it */
	bool watched;	/* by the device, from the start of each command */
};

FIXTURE_SETUP(timeout)
{
	NPU_SETUP_OPEN();
	if (npu_read_file(NPU_JOB_TIMEOUT, self->limit, sizeof(self->limit)) ||
	    npu_set_job_timeout(LIMIT_MS))
		SKIP(return, "cannot set " NPU_JOB_TIMEOUT);
	self->victim = npu_reopen(&self->dev);
	ASSERT_GE(self->victim, 0);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, npu_bo_create(self->victim, NPU_SYSTEM, NPU_MIB, &self->victim_a));
	ASSERT_EQ(0, npu_bo_create(self->victim, NPU_SYSTEM, NPU_MIB, &self->victim_b));
	self->resets = npu_info(self->fd).resets;
	self->alone = npu_minor(self->fd) >= 2;
#if DRM_NPU_VERSION_MINOR >= 2
	self->watched = npu_info(self->fd).max_timeout_ms;
#endif
}

/* In the parent: a test that dies leaves the parameter as it was. */
FIXTURE_TEARDOWN_PARENT(timeout)
{
	npu_write_file(NPU_JOB_TIMEOUT, self->limit);
}

TEST_F(timeout, is_told)
{
	EXPECT_EQ(LIMIT_MS, npu_info(self->fd).job_timeout_ms);
}

TEST_F_TIMEOUT(timeout, ends_the_job, 60)
{
	struct drm_npu_command c[2] = { npu_nop(), npu_endless(&self->a, &self->b) };
	struct drm_npu_command good = npu_copy(&self->a, &self->b, NPU_MIB);
	struct drm_npu_job_status s;
	double start = npu_now();

	ASSERT_EQ(0, npu_run(self->fd, c, 2, &s));
	EXPECT_GE(npu_now() - start, LIMIT_MS / 1000.0 * 0.9);
	EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);
	EXPECT_EQ(-ETIMEDOUT, s.error);
	EXPECT_EQ(1, s.command);
	EXPECT_EQ(self->resets + !self->alone, npu_info(self->fd).resets);
	/* The same file goes on. */
	npu_fill(self->a.map, NPU_MIB, 1);
	EXPECT_EQ(0, npu_run_error(self->fd, &good, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

/* Nothing is written for a job once it was ended. */
TEST_F_TIMEOUT(timeout, writes_no_more, 60)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b);

	memset(self->a.map, 0x12, NPU_MIB);
	EXPECT_EQ(-ETIMEDOUT, npu_run_error(self->fd, &c, 1));
	memset(self->b.map, 0x34, NPU_MIB);
	npu_sleep_ms(300);
	EXPECT_TRUE(npu_all(self->b.map, NPU_MIB, 0x34));
}

/*
 * Jobs that were on the device behind it end with it, for they may need what it did not do. Those
 * that waited, as the queue holds no more, run afterwards.
 */
TEST_F_TIMEOUT(timeout, later_jobs_run, 60)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b), nops[127];
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	uint32_t max = npu_info(self->fd).max_commands, i;
	struct drm_npu_job_status s;
	uint64_t first, seqno;
	int error = -ECANCELED;

	ASSERT_LE(max, ARRAY_SIZE(nops));
	/* Time for the others to get there. */
	ASSERT_EQ(0, npu_set_job_timeout(2 * LIMIT_MS));
	ASSERT_EQ(0, npu_submit(self->fd, &bad, 1, NULL, NULL, &first));
	for (i = 0; i < ARRAY_SIZE(nops); i++)
		nops[i] = npu_nop();
	for (i = 1; i <= 10; i++) {
		out.point = i;
		ASSERT_EQ(0, npu_submit(self->fd, nops, i == 1 ? 1 : max, NULL, &out, &seqno));
	}
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 10));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first, &s, sizeof(s)));
	EXPECT_EQ(-ETIMEDOUT, s.error);
	for (i = 1; i <= 10; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first + i, &s, sizeof(s)));
		/* The first was there, the last was not; what waits is behind what does not. */
		if (!s.error && i > 1)
			error = 0;
		EXPECT_EQ(error, s.error);
		EXPECT_EQ(error ? DRM_NPU_JOB_FAILED : DRM_NPU_JOB_DONE, s.state);
	}
	EXPECT_EQ(0, error);
	EXPECT_EQ(0, npu_run_error(self->fd, nops, 1));
}

/*
 * Another process submits and waits all the time. Its jobs are right or end with
 * an error that says what happened, and it needs no help to go on.
 */
TEST_F_TIMEOUT(timeout, others_go_on, 90)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b);
	struct drm_npu_command good = npu_copy(&self->victim_a, &self->victim_b, NPU_PAGE);
	int stop[2], done[2], count[2] = { 0 }, i;
	pid_t pid;

	ASSERT_EQ(0, pipe2(stop, O_NONBLOCK));
	ASSERT_EQ(0, pipe(done));
	pid = fork();
	if (!pid) {
		char x;

		for (i = 0; read(stop[0], &x, 1) != 1; i++) {
			int error;

			npu_fill(self->victim_a.map, NPU_PAGE, i);
			error = npu_run_error(self->victim, &good, 1);
			if (error && error != -ECANCELED && error != -ETIMEDOUT)
				_exit(1);
			if (!error && memcmp(self->victim_a.map, self->victim_b.map, NPU_PAGE))
				_exit(2);
			count[!!error]++;
		}
		_exit(write(done[1], count, sizeof(count)) != sizeof(count) ||
		      npu_run_error(self->victim, &good, 1));
	}
	for (i = 0; i < 2; i++) {
		/* If a job of the victim's reaches its limit first, ours is cancelled. */
		int error = npu_run_error(self->fd, &bad, 1);

		EXPECT_TRUE(error == -ETIMEDOUT || error == -ECANCELED);
		npu_sleep_ms(100);
	}
	EXPECT_EQ(1, write(stop[1], "x", 1));
	EXPECT_EQ(0, npu_reap(pid));
	ASSERT_EQ(sizeof(count), read(done[0], count, sizeof(count)));
	EXPECT_GT(count[0], 0);
	/* At most one for each timeout, and one for each file's own limit. */
	EXPECT_LE(count[1], self->watched ? 0 : 4);
}

/* Device memory keeps its content over the reset. */
TEST_F_TIMEOUT(timeout, memory_is_kept, 60)
{
	struct drm_npu_command c = npu_endless(&self->a, &self->b), back;
	struct npu_bo device;

	npu_fill(self->victim_a.map, NPU_MIB, 7);
	ASSERT_EQ(0, npu_bo_create(self->victim, NPU_DEVICE, NPU_MIB, &device));
	back = npu_copy(&self->victim_a, &device, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->victim, &back, 1));
	EXPECT_EQ(-ETIMEDOUT, npu_run_error(self->fd, &c, 1));
	back = npu_copy(&device, &self->victim_b, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->victim, &back, 1));
	EXPECT_EQ(0, memcmp(self->victim_a.map, self->victim_b.map, NPU_MIB));
}

/* The owner of an endless job dies: the device is free long before the limit. */
TEST_F_TIMEOUT(timeout, death_ends_the_job, 60)
{
	struct drm_npu_command good = npu_copy(&self->victim_a, &self->victim_b, 64);
	int ready[2];
	pid_t pid;
	char x;

	ASSERT_EQ(0, npu_set_job_timeout(60000));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		struct drm_npu_command bad;
		struct npu_bo a, b;
		int fd = npu_reopen(&self->dev);

		if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &a) ||
		    npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &b))
			_exit(1);
		bad = npu_endless(&a, &b);
		if (npu_submit(fd, &bad, 1, NULL, NULL, NULL) || write(ready[1], "x", 1) != 1)
			_exit(2);
		pause();
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &x, 1));
	npu_sleep_ms(100);
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
	EXPECT_EQ(0, npu_run_error(self->victim, &good, 1));
}

/* Ten times in a row; the time from the end of one to a job that is done is told. */
TEST_F_TIMEOUT(timeout, again_and_again, 120)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b), nop = npu_nop();
	struct npu_bo a, b;
	double start, worst = 0;
	int i, fd;

	ASSERT_EQ(0, npu_set_job_timeout(200));
	for (i = 0; i < 10; i++) {
		/* A file's limit is that of its first submit. */
		fd = npu_reopen(&self->dev);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &a));
		ASSERT_EQ(0, npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &b));
		bad = npu_endless(&a, &b);
		ASSERT_EQ(-ETIMEDOUT, npu_run_error(fd, &bad, 1));
		start = npu_now();
		ASSERT_EQ(0, npu_run_error(fd, &nop, 1));
		if (npu_now() - start > worst)
			worst = npu_now() - start;
		munmap(a.map, a.size);
		munmap(b.map, b.size);
		close(fd);
	}
	EXPECT_EQ(self->resets + (self->alone ? 0 : 10), npu_info(self->fd).resets);
	TH_LOG("from a job that was ended to the next that is done: %.0f ms at most", worst * 1000);
}

#if DRM_NPU_VERSION_MINOR >= 2

#define SKIP_UNWATCHED() do {							\
	if (!self->watched)							\
		SKIP(return, "the device does not watch its commands");		\
} while (0)

static uint32_t queue_of(int fd, uint32_t timeout_ms)
{
	struct drm_npu_queue_create c = { .timeout_ms = timeout_ms };

	return npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c) ? 0 : c.queue;
}

/* Runs jobs until it is told to stop; 0 if all succeeded, and their results were right. */
static int innocent(const struct npu_device *dev, int seed, int ready, int stop)
{
	struct drm_npu_command c[3];
	struct drm_npu_device_info info;
	struct npu_program program;
	struct drm_npu_binding bindings[2] = {
		{ .flags = DRM_NPU_BINDING_READ, .size = NPU_PAGE },
		{ .flags = DRM_NPU_BINDING_WRITE, .size = NPU_PAGE },
	};
	struct npu_bo a, b, d, text;
	int fd = npu_reopen(dev), i;
	char x;

	if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &a) ||
	    npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &b) ||
	    npu_bo_create(fd, NPU_DEVICE, NPU_PAGE, &d) ||
	    npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &text))
		return 1;
	info = npu_info(fd);
	program = npu_copy_program(&info, NPU_PAGE);
	memcpy(text.map, program.bytes, program.size);
	bindings[0].handle = d.handle;
	bindings[1].handle = b.handle;
	c[0] = npu_copy(&a, &d, NPU_PAGE);
	c[1] = npu_nop();
	c[2] = npu_launch(&text, program.size, bindings, 2);
	for (i = 0; read(stop, &x, 1) < 0; i++) {
		npu_fill(a.map, NPU_PAGE, seed + i);
		memset(b.map, 0, NPU_PAGE);
		if (npu_run_error(fd, c, 3))
			return 2;
		if (memcmp(a.map, b.map, NPU_PAGE))
			return 3;
		if (!i && write(ready, "x", 1) != 1)
			return 4;
	}
	return i > 1 ? 0 : 5;
}

/* One file hangs time and again, in two queues at last; three others do not notice. */
TEST_F_TIMEOUT(timeout, innocent_files, 120)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	uint32_t before = npu_info(self->fd).timeouts, queue;
	int ready[2], stop[2], i;
	pid_t pid[3];
	char x;

	SKIP_UNWATCHED();
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe2(stop, O_NONBLOCK));
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = fork();
		if (!pid[i]) {
			close(stop[1]);
			_exit(innocent(&self->dev, i * 1000, ready[1], stop[0]));
		}
	}
	for (i = 0; i < ARRAY_SIZE(pid); i++)
		ASSERT_EQ(1, read(ready[0], &x, 1));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(-ETIMEDOUT, npu_run_error(self->fd, &bad, 1));
	queue = queue_of(self->fd, 500);
	ASSERT_NE(0, queue);
	out.point = 1;
	ASSERT_EQ(0, npu_submit(self->fd, &bad, 1, NULL, &out, NULL));
	out.point = 2;
	ASSERT_EQ(0, npu_submit_to(self->fd, queue, &bad, 1, NULL, &out, NULL));
	EXPECT_EQ(0, npu_wait(self->fd, out.handle, 2));
	close(stop[1]);
	for (i = 0; i < ARRAY_SIZE(pid); i++)
		EXPECT_EQ(0, npu_reap(pid[i]));
	EXPECT_EQ(before + 5, npu_info(self->fd).timeouts);
	EXPECT_EQ(self->resets, npu_info(self->fd).resets);
}

/* Other queues of the file go on too, those that wait for a fence of the late job as well. */
TEST_F_TIMEOUT(timeout, other_queues_go_on, 60)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b);
	struct drm_npu_command good = npu_copy(&self->victim_a, &self->victim_b, 64);
	struct drm_npu_sync late = { .handle = npu_syncobj(self->victim) };
	struct drm_npu_sync out = { .handle = npu_syncobj(self->victim) };
	uint32_t queue = queue_of(self->victim, 300);
	struct drm_npu_job_status s;
	uint64_t first, seqno;
	struct npu_bo x, y;

	SKIP_UNWATCHED();
	ASSERT_NE(0, queue);
	ASSERT_EQ(0, npu_bo_create(self->victim, NPU_SYSTEM, NPU_MIB, &x));
	ASSERT_EQ(0, npu_bo_create(self->victim, NPU_SYSTEM, NPU_MIB, &y));
	bad = npu_endless(&x, &y);
	npu_fill(self->victim_a.map, 64, 3);
	ASSERT_EQ(0, npu_submit_to(self->victim, queue, &bad, 1, NULL, &late, &first));
	ASSERT_EQ(0, npu_submit(self->victim, &good, 1, &late, &out, &seqno));
	ASSERT_EQ(0, npu_wait(self->victim, out.handle, 0));
	ASSERT_EQ(0, npu_query(self->victim, DRM_NPU_QUERY_JOB, first, &s, sizeof(s)));
	EXPECT_EQ(-ETIMEDOUT, s.error);
	ASSERT_EQ(0, npu_query(self->victim, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
	EXPECT_EQ(0, s.error);
	EXPECT_EQ(0, memcmp(self->victim_a.map, self->victim_b.map, 64));
	/* And the queue that was late is as good as new. */
	ASSERT_EQ(0, npu_run_on(self->victim, queue, &good, 1, &s));
	EXPECT_EQ(0, s.error);
}

/* A queue's own timeout counts, be it shorter or longer than the parameter. */
TEST_F_TIMEOUT(timeout, of_a_queue, 60)
{
	static const struct {
		int parameter;
		uint32_t queue;
	} limits[] = { { 60000, 300 }, { 300, 3000 }, { 60000, 1 }, { 500, 0 } };
	struct drm_npu_command c[2] = { npu_nop(), npu_endless(&self->a, &self->b) };
	struct drm_npu_job_status s;
	uint32_t queue;
	int i;

	SKIP_UNWATCHED();
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		uint32_t want = limits[i].queue ?: limits[i].parameter;

		ASSERT_EQ(0, npu_set_job_timeout(limits[i].parameter));
		queue = queue_of(self->fd, limits[i].queue);
		ASSERT_NE(0, queue);
		/* It is the queue's for good. */
		ASSERT_EQ(0, npu_set_job_timeout(60000));
		ASSERT_EQ(0, npu_run_on(self->fd, queue, c, 2, &s));
		EXPECT_EQ(-ETIMEDOUT, s.error);
		EXPECT_EQ(1, s.command);
		EXPECT_EQ(0x0a, s.status);	/* TIMEOUT, §9.1 */
		EXPECT_GE(s.info, want * 1000ull);
	}
	EXPECT_EQ(self->resets, npu_info(self->fd).resets);
}

/* A job may take longer than its queue's timeout, if none of its commands does. */
TEST_F_TIMEOUT(timeout, of_each_command, 120)
{
	struct drm_npu_command c[40];
	struct drm_npu_job_status s;
	double start, one = 0, all = 0;
	uint32_t queue, mib, limit;
	int i, tries;

	SKIP_UNWATCHED();
	for (mib = 16; mib <= 16384 && one < 0.05; mib *= 2) {
		c[0] = npu_long(&self->a, &self->b, mib);
		start = npu_now();
		ASSERT_EQ(0, npu_run_error(self->fd, c, 1));
		one = npu_now() - start;
	}
	for (i = 1; i < ARRAY_SIZE(c); i++)
		c[i] = c[0];
	limit = one * 10 * 1000;
	for (tries = 0; tries < 8; tries++) {
		queue = queue_of(self->fd, limit);
		ASSERT_NE(0, queue);
		start = npu_now();
		ASSERT_EQ(0, npu_run_on(self->fd, queue, c, ARRAY_SIZE(c), &s));
		all = npu_now() - start;
		if (!s.error && all > limit / 1e3)
			break;
		if (!s.error) { /* the one that was measured took longer than most */
			limit = all * 1e3 / 4;
			continue;
		}
		/* On a busy machine one may take so long, and the device says so. */
		ASSERT_EQ(-ETIMEDOUT, s.error);
		ASSERT_GE(s.info, limit * 1000ull);
		limit *= 2;
	}
	ASSERT_EQ(0, s.error);
	TH_LOG("a job of %.1f s, with a timeout of %.1f s", all, limit / 1e3);
	EXPECT_GT(all, limit / 1e3);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * How long a hang costs beyond its timeout. The device says how long the command took, so the
 * rest is what driver and firmware needed to end it and to go on: for the next job of the same
 * queue, and for one of another file that waited all the time.
 */
TEST_F_TIMEOUT(timeout, recovery_time, 120)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b), nop = npu_nop();
	struct drm_npu_sync out = { .handle = npu_syncobj(self->victim) };
	struct drm_npu_sync late = { .handle = npu_syncobj(self->fd) };
	double start, ended, same[11], other[11];
	uint32_t queue = queue_of(self->fd, 200);
	struct drm_npu_job_status s;
	uint64_t seqno;
	int i, n = ARRAY_SIZE(same);

	SKIP_UNWATCHED();
	ASSERT_NE(0, queue);
	for (i = 0; i < n; i++) {
		start = npu_now();
		ASSERT_EQ(0, npu_submit_to(self->fd, queue, &bad, 1, NULL, &late, &seqno));
		ASSERT_EQ(0, npu_wait(self->fd, late.handle, 0));
		ASSERT_EQ(0, npu_run_on(self->fd, queue, &nop, 1, &s));
		ASSERT_EQ(0, s.error);
		ended = npu_now();
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
		ASSERT_EQ(-ETIMEDOUT, s.error);
		same[i] = ended - start - s.info / 1e6;

		start = npu_now();
		ASSERT_EQ(0, npu_submit_to(self->fd, queue, &bad, 1, NULL, &late, &seqno));
		npu_sleep_ms(50);
		ASSERT_EQ(0, npu_submit(self->victim, &nop, 1, NULL, &out, NULL));
		ASSERT_EQ(0, npu_wait(self->victim, out.handle, 0));
		ended = npu_now();
		ASSERT_EQ(0, npu_wait(self->fd, late.handle, 0));
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
		ASSERT_EQ(-ETIMEDOUT, s.error);
		other[i] = ended - start - s.info / 1e6;
	}
	qsort(same, n, sizeof(*same), compare);
	qsort(other, n, sizeof(*other), compare);
	TH_LOG("from a hang's end to the next command done, same queue: median %.2f ms, %.2f to %.2f",
	       same[n / 2] * 1e3, same[0] * 1e3, same[n - 1] * 1e3);
	TH_LOG("from a hang's end to the next command done, another file: median %.2f ms, %.2f to %.2f",
	       other[n / 2] * 1e3, other[0] * 1e3, other[n - 1] * 1e3);
	EXPECT_EQ(self->resets, npu_info(self->fd).resets);
}

#endif

TEST_HARNESS_MAIN
