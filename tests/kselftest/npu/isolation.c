// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes that share a device: none reaches what is another's, none is
 * disturbed by what another does wrong, and a file survives fork and exec.
 */
#include "npu.h"

FIXTURE(isolation) {
	struct npu_device dev;
	int fd, other;
	struct drm_npu_device_info info;
	struct npu_bo a, b, secret;
};

FIXTURE_SETUP(isolation)
{
	NPU_SETUP_OPEN();
	self->other = npu_reopen(&self->dev);
	ASSERT_GE(self->other, 0);
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	/* A handle that self->fd does not have. */
	do {
		ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, NPU_PAGE, &self->secret));
	} while (self->secret.handle <= self->b.handle);
	memset(self->secret.map, 0x5e, NPU_PAGE);
}

FIXTURE_TEARDOWN(isolation)
{
	close(self->fd);
	close(self->other);
}

TEST_F(isolation, handles)
{
	struct drm_npu_command c = npu_copy(&self->secret, &self->b, 8);

	EXPECT_EQ(-ENOENT, npu_run_error(self->fd, &c, 1));
	c = npu_copy(&self->a, &self->secret, 8);
	EXPECT_EQ(-ENOENT, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(-EINVAL, npu_gem_close(self->fd, self->secret.handle));
	EXPECT_TRUE(npu_all(self->secret.map, NPU_PAGE, 0x5e));
	EXPECT_TRUE(npu_all(self->b.map, NPU_PAGE, 0));
}

/* The same number is another BO in another file. */
TEST_F(isolation, equal_handles)
{
	struct npu_bo first, second;
	struct drm_npu_command c;
	int fd = npu_reopen(&self->dev), fd2 = npu_reopen(&self->dev);

	ASSERT_GE(fd, 0);
	ASSERT_GE(fd2, 0);
	ASSERT_EQ(0, npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &first));
	ASSERT_EQ(0, npu_bo_create(fd2, NPU_SYSTEM, NPU_PAGE, &second));
	ASSERT_EQ(first.handle, second.handle);
	memset(first.map, 0x10, NPU_PAGE / 2);
	memset(second.map, 0x20, NPU_PAGE / 2);
	c = npu_copy(&first, &first, NPU_PAGE / 2);
	c.copy.dst_offset = NPU_PAGE / 2;
	EXPECT_EQ(0, npu_run_error(fd, &c, 1));
	EXPECT_TRUE(npu_all(first.map, NPU_PAGE, 0x10));
	EXPECT_TRUE(npu_all(second.map + NPU_PAGE / 2, NPU_PAGE / 2, 0));
	close(fd);
	close(fd2);
}

TEST_F(isolation, mmap_offsets)
{
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   self->secret.offset));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(isolation, syncobjs)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_sync foreign;

	do {
		foreign = (struct drm_npu_sync){ .handle = npu_syncobj(self->other) };
	} while (foreign.handle < 10);
	EXPECT_EQ(-ENOENT, npu_submit(self->fd, &nop, 1, NULL, &foreign, NULL));
	npu_signal(self->other, foreign.handle, 0);
	EXPECT_EQ(-ENOENT, npu_submit(self->fd, &nop, 1, &foreign, NULL, NULL));
}

TEST_F(isolation, jobs)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_job_status s;
	int i;

	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, npu_run_error(self->other, &nop, 1));
	EXPECT_EQ(0, npu_query(self->other, DRM_NPU_QUERY_JOB, 5, &s, sizeof(s)));
	EXPECT_EQ(-ENOENT, npu_query(self->fd, DRM_NPU_QUERY_JOB, 5, &s, sizeof(s)));
}

/* Programs see nothing that an earlier one left in local memory (§5.1). */
TEST_F(isolation, local_memory)
{
	struct npu_bo text, data, theirs;
	struct npu_program p = { .size = 0 };
	uint32_t n = self->info.spad_size;
	struct drm_npu_binding b = { .flags = DRM_NPU_BINDING_WRITE, .size = n };
	struct drm_npu_command c;

	/* The other fills the scratchpad with what it wants to keep. */
	ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, NPU_PAGE, &text));
	ASSERT_EQ(0, npu_bo_create(self->other, NPU_SYSTEM, n, &theirs));
	memset(theirs.map, 0x99, n);
	npu_move(&p, NPU_LOAD, 0, n);
	npu_instruction(&p, NPU_HALT);
	npu_finish(&p, &self->info, n, 1);
	memcpy(text.map, p.bytes, p.size);
	b.handle = theirs.handle;
	b.flags = DRM_NPU_BINDING_READ;
	c = npu_launch(&text, p.size, &b, 1);
	ASSERT_EQ(0, npu_run_error(self->other, &c, 1));

	/* We store it without having written it. */
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &text));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, n, &data));
	memset(data.map, 0xff, n);
	p = (struct npu_program){ .size = 0 };
	npu_move(&p, NPU_STORE, 0, n);
	npu_instruction(&p, NPU_HALT);
	npu_finish(&p, &self->info, n, 1);
	memcpy(text.map, p.bytes, p.size);
	b.handle = data.handle;
	b.flags = DRM_NPU_BINDING_WRITE;
	c = npu_launch(&text, p.size, &b, 1);
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_TRUE(npu_all(data.map, n, 0));
}

/* A hostile process: wrong programs, wrong bindings, copies of its own. Never returns. */
static void misbehave(const struct npu_device *dev, int ready)
{
	int fd = npu_reopen(dev), i;
	struct drm_npu_command c;
	struct npu_bo text, data;
	struct drm_npu_binding b;

	if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &text) ||
	    npu_bo_create(fd, NPU_SYSTEM, NPU_PAGE, &data))
		_exit(1);
	b = (struct drm_npu_binding){ data.handle, DRM_NPU_BINDING_READ, 0, 1 };
	for (i = 0;; i++) {
		struct npu_program p = { .size = 0 };
		struct drm_npu_device_info info = npu_info(fd);

		npu_move(&p, i % 3 ? NPU_STORE : NPU_LOAD, i % 2, 64 << i % 20);
		npu_fill(npu_instruction(&p, NPU_STORE) + 1, i % 32, i);
		npu_instruction(&p, NPU_HALT);
		npu_finish(&p, &info, info.spad_size, 1);
		if (i % 7 == 0)
			p.bytes[i % 64] ^= 1;
		memcpy(text.map, p.bytes, p.size);
		c = npu_launch(&text, p.size, &b, 1);
		if (npu_run_error(fd, &c, 1) >= 0)
			_exit(2);
		if (i == 10 && write(ready, "x", 1) != 1)
			_exit(3);
	}
}

TEST_F_TIMEOUT(isolation, others_errors, 120)
{
	struct drm_npu_command c[2];
	int ready[2], i;
	uint32_t resets = self->info.resets;
	pid_t pid;
	char x;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid)
		misbehave(&self->dev, ready[1]);
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &x, 1));
	for (i = 0; i < 100; i++) {
		npu_fill(self->a.map, NPU_PAGE, i);
		c[0] = npu_copy(&self->a, &self->b, NPU_PAGE);
		c[1] = npu_nop();
		ASSERT_EQ(0, npu_run_error(self->fd, c, 2));
		ASSERT_EQ(0, memcmp(self->a.map, self->b.map, NPU_PAGE));
	}
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
	EXPECT_EQ(resets, npu_info(self->fd).resets);
}

/* Processes that die in the middle of their jobs, again and again. */
TEST_F_TIMEOUT(isolation, others_deaths, 120)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, NPU_PAGE);
	int i, j, ready[2];
	pid_t pid;
	char x;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		if (!pid) {
			int fd = npu_reopen(&self->dev);
			struct npu_bo src, dst;
			struct drm_npu_command slow;

			if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &src) ||
			    npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &dst))
				_exit(1);
			slow = npu_long(&src, &dst, 32);
			for (j = 0; j < 8; j++)
				if (npu_submit(fd, &slow, 1, NULL, NULL, NULL))
					_exit(2);
			if (write(ready[1], "x", 1) != 1)
				_exit(3);
			pause();
		}
		close(ready[1]);
		EXPECT_EQ(1, read(ready[0], &x, 1));
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
		close(ready[0]);
		npu_fill(self->a.map, NPU_PAGE, i);
		ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
		ASSERT_EQ(0, memcmp(self->a.map, self->b.map, NPU_PAGE));
	}
	EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);
}

/* A child uses the file it inherited, and does not end it. */
TEST_F(isolation, fork)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_job_status s;
	pid_t pid;

	npu_fill(self->a.map, 64, 3);
	pid = fork();
	if (!pid)
		_exit(npu_run_error(self->fd, &c, 1) ? 1 : 0);
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
	/* Jobs, and their numbers, are the file's. */
	EXPECT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, 1, &s, sizeof(s)));
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, 2, &s, sizeof(s)));
}

/* The parent closes, the child goes on; then everything is free. */
TEST_F(isolation, fork_then_close)
{
	struct drm_npu_command nop = npu_nop();
	uint32_t queues = npu_info(self->other).queues_free;
	int fd = npu_reopen(&self->dev), go[2];
	pid_t pid;
	char x;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, npu_run_error(fd, &nop, 1));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	if (!pid)
		_exit(read(go[0], &x, 1) != 1 || npu_run_error(fd, &nop, 1));
	close(fd);
	EXPECT_EQ(queues - 1, npu_info(self->other).queues_free);
	EXPECT_EQ(1, write(go[1], "x", 1));
	EXPECT_EQ(0, npu_reap(pid));
	EXPECT_EQ(queues, npu_info(self->other).queues_free);
}

/* With a job in flight the process becomes another program. */
TEST_F(isolation, exec)
{
	uint32_t queues = npu_info(self->other).queues_free;
	uint64_t dram = npu_info(self->other).dram_free;
	int inherit, out[2], n;
	char text[16] = "";
	pid_t pid;

	for (inherit = 0; inherit < 2; inherit++) {
		ASSERT_EQ(0, pipe(out));
		pid = fork();
		if (!pid) {
			int fd = open(self->dev.node, O_RDWR | (inherit ? 0 : O_CLOEXEC));
			struct npu_bo src, dst;
			struct drm_npu_command slow;

			if (fd < 0 || npu_bo_create(fd, NPU_DEVICE, NPU_MIB, &src) ||
			    npu_bo_create(fd, NPU_DEVICE, NPU_MIB, &dst))
				_exit(1);
			slow = npu_long(&src, &dst, 64);
			if (npu_submit(fd, &slow, 1, NULL, NULL, NULL))
				_exit(2);
			snprintf(text, sizeof(text), "%d", fd);
			dup2(out[1], 1);
			execl("/bin/sh", "sh", "-c",
			      "[ -e /proc/self/fd/$0 ] && echo open || echo closed", text, NULL);
			_exit(3);
		}
		close(out[1]);
		EXPECT_EQ(0, npu_reap(pid));
		n = read(out[0], text, sizeof(text) - 1);
		ASSERT_GT(n, 0);
		text[n - 1] = 0;
		EXPECT_STREQ(inherit ? "open" : "closed", text);
		close(out[0]);
		EXPECT_EQ(queues, npu_info(self->other).queues_free);
		EXPECT_EQ(dram, npu_info(self->other).dram_free);
	}
}

TEST_HARNESS_MAIN
