// SPDX-License-Identifier: GPL-2.0-only
/*
 * Jobs that do not end: the driver ends them, and everything else goes on. The
 * job is a copy of 4 PiB, the time limit the module's parameter.
 */
#include "npu.h"

#define LIMIT_MS	1000

FIXTURE(timeout) {
	struct npu_device dev;
	int fd, victim;
	struct npu_bo a, b, victim_a, victim_b;
	char limit[16];
	uint32_t resets;
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
	EXPECT_EQ(self->resets + 1, npu_info(self->fd).resets);
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

/* Jobs behind it run afterwards. */
TEST_F_TIMEOUT(timeout, later_jobs_run, 60)
{
	struct drm_npu_command bad = npu_endless(&self->a, &self->b);
	struct drm_npu_command good = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t first, seqno;
	int i;

	ASSERT_EQ(0, npu_submit(self->fd, &bad, 1, NULL, NULL, &first));
	for (i = 1; i <= 5; i++) {
		out.point = i;
		ASSERT_EQ(0, npu_submit(self->fd, &good, 1, NULL, &out, &seqno));
	}
	ASSERT_EQ(0, npu_wait(self->fd, out.handle, 5));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first, &s, sizeof(s)));
	EXPECT_EQ(-ETIMEDOUT, s.error);
	for (i = 1; i <= 5; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, first + i, &s, sizeof(s)));
		EXPECT_NE(DRM_NPU_JOB_PENDING, s.state);
		/* Those that were on the device with it may have ended with it. */
		EXPECT_TRUE(s.error == 0 || s.error == -ECANCELED);
	}
	EXPECT_EQ(0, npu_run_error(self->fd, &good, 1));
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
	EXPECT_LE(count[1], 4);
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
	EXPECT_EQ(self->resets + 10, npu_info(self->fd).resets);
	TH_LOG("from a job that was ended to the next that is done: %.0f ms at most", worst * 1000);
}

TEST_HARNESS_MAIN
