// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues that a process drives itself (interface 1.2): it writes commands into the ring, rings
 * the doorbell and finds completions, without a call. What it does wrong is its own affair.
 */
#include <setjmp.h>

#include "npu.h"

#define A	0x10000000ull
#define B	0x20000000ull

#define NOP	0x01
#define COPY	0x02
#define WAIT	0x04
#define SIGNAL	0x05

#define VIRTUAL	2	/* address space, §7.1 */

/* Rings and doorbell of a queue, as the process sees them. */
struct ring {
	uint32_t queue;
	struct drm_npu_queue_map map;
	volatile uint8_t *sq;
	const volatile uint8_t *cq;
	volatile uint32_t *doorbell;
	uint32_t tail, head;
	uint16_t phase, id;
};

/* Completion, §4.2. */
struct completion {
	uint32_t result;
	uint64_t info;
	uint16_t id;
	uint16_t status;
};

FIXTURE(user) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct npu_bo a, b;
	struct ring r;
};

static int map_bo(int fd, const struct npu_bo *bo, uint64_t address)
{
	struct drm_npu_vm_op op = { DRM_NPU_VM_MAP, DRM_NPU_VM_READ | DRM_NPU_VM_WRITE, bo->handle,
				    0, 0, address, bo->size };
	struct drm_npu_vm_bind b = { .ops = NPU_ARRAY(&op, 1) };

	return npu_ioctl(fd, DRM_IOCTL_NPU_VM_BIND, &b);
}

static int query_map(int fd, uint32_t queue, struct drm_npu_queue_map *map)
{
	*map = (struct drm_npu_queue_map){ .queue = queue };
	return npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_MAP, map);
}

/* Makes a queue and maps it; a command may take ms, or job_timeout_ms if that is 0. */
static int ring_create_timeout(int fd, struct ring *r, uint32_t ms)
{
	struct drm_npu_queue_create c = { .flags = DRM_NPU_QUEUE_USER, .timeout_ms = ms };
	int ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_CREATE, &c);

	memset(r, 0, sizeof(*r));
	if (ret)
		return ret;
	r->queue = c.queue;
	r->phase = 1;
	ret = query_map(fd, r->queue, &r->map);
	if (ret)
		return ret;
	r->sq = mmap(NULL, r->map.sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     r->map.sq_offset);
	r->cq = mmap(NULL, r->map.cq_size, PROT_READ, MAP_SHARED, fd, r->map.cq_offset);
	r->doorbell = mmap(NULL, r->map.doorbell_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   r->map.doorbell_offset);
	return r->sq == MAP_FAILED || r->cq == MAP_FAILED || r->doorbell == MAP_FAILED ? -errno : 0;
}

static int ring_create(int fd, struct ring *r)
{
	return ring_create_timeout(fd, r, 0);
}

static void ring_unmap(struct ring *r)
{
	munmap((void *)r->sq, r->map.sq_size);
	munmap((void *)r->cq, r->map.cq_size);
	munmap((void *)r->doorbell, r->map.doorbell_size);
}

static int ring_destroy(int fd, struct ring *r)
{
	struct drm_npu_queue_destroy d = { .queue = r->queue };

	ring_unmap(r);
	return npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &d);
}

static uint16_t ring_push(struct ring *r, const uint8_t entry[64])
{
	uint8_t e[64];

	memcpy(e, entry, 64);
	npu_put(e + 2, ++r->id, 2);
	memcpy((void *)(r->sq + 64 * r->tail), e, 64);
	r->tail = (r->tail + 1) % r->map.entries;
	return r->id;
}

static void ring_ring(struct ring *r)
{
	__sync_synchronize();
	r->doorbell[0] = r->tail;
}

/* Takes the next completion, or returns -ETIME. */
static int ring_pop(struct ring *r, struct completion *c, int ms)
{
	const volatile uint8_t *e = r->cq + 32 * r->head;
	double end = npu_now() + ms / 1e3;
	uint16_t status;

	while (((status = *(volatile uint16_t *)(e + 0x1e)) & 1) != r->phase)
		if (npu_now() > end)
			return -ETIME;
	__sync_synchronize();
	c->result = *(volatile uint32_t *)e;
	c->info = *(volatile uint64_t *)(e + 8);
	c->id = *(volatile uint16_t *)(e + 0x1c);
	c->status = status >> 1;
	if (++r->head == r->map.entries) {
		r->head = 0;
		r->phase ^= 1;
	}
	r->doorbell[1] = r->head;
	return 0;
}

static void put_copy(uint8_t e[64], uint32_t spaces, uint64_t src, uint64_t dst, uint32_t n)
{
	memset(e, 0, 64);
	e[0] = COPY;
	npu_put(e + 4, spaces, 4);
	npu_put(e + 8, src, 8);
	npu_put(e + 0x10, dst, 8);
	npu_put(e + 0x18, n, 4);
	npu_put(e + 0x1c, 1, 2);
	npu_put(e + 0x1e, 1, 2);
}

/* Runs one copy; its status, or a negative error number. */
static int ring_copy(struct ring *r, uint32_t spaces, uint64_t src, uint64_t dst, uint32_t n,
		     struct completion *c)
{
	uint8_t e[64];
	int ret;

	put_copy(e, spaces, src, dst, n);
	ring_push(r, e);
	ring_ring(r);
	ret = ring_pop(r, c, NPU_WAIT_MS);
	return ret ?: c->status;
}

#define SPACES	(VIRTUAL | VIRTUAL << 4)

FIXTURE_SETUP(user)
{
	struct drm_npu_vm_info vm;
	int ret;

	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 2)
		SKIP(return, "no queues for processes before 1.2");
	if (npu_query(self->fd, DRM_NPU_QUERY_VM, 0, &vm, sizeof(vm)))
		SKIP(return, "the device has no MMU");
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, map_bo(self->fd, &self->a, A));
	ASSERT_EQ(0, map_bo(self->fd, &self->b, B));
	npu_fill(self->a.map, NPU_MIB, 1);
	ret = ring_create(self->fd, &self->r);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the device has no queues for processes");
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN(user)
{
	close(self->fd);
}

TEST_F(user, copy)
{
	struct completion c;

	EXPECT_EQ(0, ring_copy(&self->r, SPACES, A, B, NPU_MIB, &c));
	EXPECT_EQ(NPU_MIB, c.info);
	EXPECT_EQ(self->r.id, c.id);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	EXPECT_EQ(0, *self->r.doorbell);
	EXPECT_EQ(0, ring_destroy(self->fd, &self->r));
	EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);
}

/* Around the ring, several times, as full as it can be. */
TEST_F_TIMEOUT(user, around, 120)
{
	uint8_t nop[64] = { NOP };
	struct completion c;
	uint32_t i, k;

	for (k = 0; k < 5; k++) {
		for (i = 0; i < self->r.map.entries - 1; i++)
			ring_push(&self->r, nop);
		ring_ring(&self->r);
		for (i = 0; i < self->r.map.entries - 1; i++) {
			ASSERT_EQ(0, ring_pop(&self->r, &c, NPU_WAIT_MS));
			ASSERT_EQ(0, c.status);
			ASSERT_EQ((uint16_t)(k * (self->r.map.entries - 1) + i + 1), c.id);
		}
	}
}

/* Beside jobs of the same file, and of others. */
TEST_F(user, beside_jobs)
{
	struct drm_npu_command job = npu_copy(&self->a, &self->b, 64);
	struct drm_npu_submit s = { .commands = NPU_ARRAY(&job, 1), .queue = self->r.queue };
	int other = npu_reopen(&self->dev), i;
	struct drm_npu_command nop = npu_nop();
	struct completion c;

	ASSERT_GE(other, 0);
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, ring_copy(&self->r, SPACES, A, B + 64, 64, &c));
		ASSERT_EQ(0, npu_run_error(self->fd, &job, 1));
		ASSERT_EQ(0, npu_run_error(other, &nop, 1));
	}
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map + 64, 64));
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_SUBMIT, &s));
	close(other);
}

/* Only virtual addresses: the bus and device memory are refused, and nothing is copied. */
TEST_F(user, other_spaces)
{
	static const uint32_t spaces[] = { 0, 1, VIRTUAL, VIRTUAL << 4, 0x11, VIRTUAL << 4 | 1 };
	struct completion c;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(spaces); i++) {
		EXPECT_EQ(0x02, ring_copy(&self->r, spaces[i], A, B, 64, &c));
		EXPECT_EQ(4, c.info);
	}
	EXPECT_TRUE(npu_all(self->b.map, 64, 0));
	EXPECT_EQ(0, ring_copy(&self->r, SPACES, A, B, 64, &c));
}

TEST_F(user, wrong_commands)
{
	struct completion c;
	uint8_t e[64];
	int op;

	for (op = 0x10; op < 0x40; op++) {	/* admin's among them */
		memset(e, 0xff, 64);
		e[0] = op;
		ring_push(&self->r, e);
		ring_ring(&self->r);
		ASSERT_EQ(0, ring_pop(&self->r, &c, NPU_WAIT_MS));
		EXPECT_EQ(0x01, c.status);
	}
	EXPECT_EQ(0, ring_copy(&self->r, SPACES, A, B, 64, &c));
}

#define ENDED(r)									\
	do {										\
		struct drm_npu_queue_map m;						\
		struct completion e;							\
											\
		ASSERT_EQ(0, ring_pop(r, &e, NPU_WAIT_MS));				\
		EXPECT_EQ(DRM_NPU_STATUS_QUEUE_ENDED, e.status);			\
		EXPECT_EQ(0xffff, e.id);						\
		EXPECT_EQ(-EIO, query_map(self->fd, (r)->queue, &m));			\
		(r)->doorbell[0] = 1;	/* leads nowhere */				\
		EXPECT_EQ(0, ring_destroy(self->fd, r));				\
	} while (0)

/* A fault ends the queue, and the record says whose and where. */
TEST_F(user, fault)
{
	struct drm_npu_fault f;
	struct completion c;
	int i;

	for (i = 1; i <= 4; i++) {
		ASSERT_EQ(0, ring_copy(&self->r, SPACES, A, B, 64, &c));
		ASSERT_EQ(0x13, ring_copy(&self->r, SPACES, A, B + NPU_MIB, 64, &c));
		EXPECT_EQ(B + NPU_MIB, c.info);
		ENDED(&self->r);
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_FAULT, 0, &f, sizeof(f)));
		EXPECT_EQ(i, f.count);
		EXPECT_EQ(B + NPU_MIB, f.address);
		EXPECT_EQ(DRM_NPU_ACCESS_WRITE, f.access);
		EXPECT_EQ(DRM_NPU_FAULT_NOT_PRESENT, f.reason);
		EXPECT_EQ(0, f.seqno);
		EXPECT_EQ(2, f.command);
		EXPECT_EQ(1, f.entry);
		ASSERT_EQ(0, ring_create(self->fd, &self->r));
	}
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

/* A queue that is made at once after a fault is in the context that comes. */
TEST_F(user, another_after_a_fault)
{
	struct completion c;
	struct ring next;
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0x13, ring_copy(&self->r, SPACES, A, B + NPU_MIB, 64, &c));
		ASSERT_EQ(0, ring_create(self->fd, &next));
		ASSERT_EQ(0, ring_copy(&next, SPACES, A, B, 64, &c));
		ENDED(&self->r);
		self->r = next;
	}
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 64));
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

/* Indices that lie end the queue, and no other. */
TEST_F(user, doorbells_that_lie)
{
	static const struct { int which; uint32_t value; } lies[] = {
		{ 0, 4096 }, { 0, ~0u }, { 1, 200 }, { 1, ~0u },
	};
	struct drm_npu_command job = npu_copy(&self->a, &self->b, 64);
	struct completion c;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		ASSERT_EQ(0, ring_copy(&self->r, SPACES, A, B, 64, &c));
		self->r.doorbell[lies[i].which] = lies[i].value;
		ENDED(&self->r);
		EXPECT_EQ(0, npu_run_error(self->fd, &job, 1));
		ASSERT_EQ(0, ring_create(self->fd, &self->r));
	}
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

/* WAIT or SIGNAL of the 64-bit value at address, §4.17. */
static void ring_timeline(struct ring *r, uint8_t opcode, uint64_t address, uint64_t value)
{
	uint8_t e[64] = { opcode };

	npu_put(e + 4, VIRTUAL, 4);
	npu_put(e + 8, address, 8);
	npu_put(e + 0x10, value, 8);
	ring_push(r, e);
}

/* Reads what the kernel logs from now on, without waiting; or a negative error number. */
static int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd < 0 ? -errno : fd;
}

/* Waits until the kernel has logged a line with both texts. */
static bool kmsg_has(int fd, const char *one, const char *two)
{
	double end = npu_now() + NPU_WAIT_MS / 1e3;
	char line[1024];

	do {
		ssize_t n = read(fd, line, sizeof(line) - 1);

		if (n > 0) {
			line[n] = 0;
			if (strstr(line, one) && strstr(line, two))
				return true;
		} else if (n < 0 && errno == EAGAIN) {
			npu_sleep_ms(10);
		} else if (n == 0 || errno != EPIPE) {
			return false;	/* EPIPE: lines were lost */
		}
	} while (npu_now() < end);
	return false;
}

/*
 * Two queues that wait for each other: the completion says so, and the kernel's log, which has
 * firmware's words, too. A third queue works on.
 */
TEST_F_TIMEOUT(user, deadlock, 60)
{
	struct drm_npu_command job = npu_copy(&self->a, &self->b, 64);
	struct ring r[2];
	struct completion c;
	uint32_t free_before;
	char address[32];
	int log, i;

	if (!self->info.max_timeout_ms)
		SKIP(return, "the device does not watch commands");
	ASSERT_EQ(0, npu_run_error(self->fd, &job, 1));
	free_before = npu_info(self->fd).queues_free;
	log = kmsg_open();
	ASSERT_GE(log, 0);
	memset(self->b.map, 0, 4096);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, ring_create_timeout(self->fd, &r[i], 300 + 700 * i));
	for (i = 0; i < 2; i++) {
		ring_timeline(&r[i], WAIT, B + 64 * i, 1);
		ring_timeline(&r[i], SIGNAL, B + 64 * !i, 1);
		ring_ring(&r[i]);
	}
	ASSERT_EQ(0, ring_copy(&self->r, SPACES, A, B + 4096, 64, &c));
	ASSERT_EQ(0, ring_pop(&r[0], &c, NPU_WAIT_MS));
	EXPECT_EQ(0x0b, c.status);	/* WAIT_TIMEOUT */
	EXPECT_EQ(2, c.result);		/* queues */
	EXPECT_EQ(0, c.info);		/* the value found */
	snprintf(address, sizeof(address), "0x%llx", B);
	EXPECT_TRUE(kmsg_has(log, "deadlock: queue ", address));
	EXPECT_EQ(0, npu_run_error(self->fd, &job, 1));
	ASSERT_EQ(0, ring_copy(&self->r, SPACES, A, B + 8192, 64, &c));
	/* The second's time ends, too; whoever destroys them frees them. */
	ASSERT_EQ(0, ring_pop(&r[1], &c, NPU_WAIT_MS));
	EXPECT_EQ(0x0b, c.status);
	EXPECT_EQ(2, c.result);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, ring_destroy(self->fd, &r[i]));
	EXPECT_EQ(free_before, npu_info(self->fd).queues_free);
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
	close(log);
}

/* A reset is seen, behind what had completed. */
TEST_F_TIMEOUT(user, reset, 60)
{
	uint8_t nop[64] = { NOP };
	char path[PATH_MAX + 16];
	struct completion c;
	int i;

	snprintf(path, sizeof(path), "%s/reset", self->dev.sysfs);
	for (i = 0; i < 3; i++)
		ring_push(&self->r, nop);
	ring_ring(&self->r);
	ASSERT_EQ(0, ring_pop(&self->r, &c, NPU_WAIT_MS));
	npu_sleep_ms(100);
	if (npu_write_file(path, "1"))
		SKIP(return, "the function cannot be reset");
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, ring_pop(&self->r, &c, NPU_WAIT_MS));
		EXPECT_EQ(0, c.status);
	}
	ENDED(&self->r);
	ASSERT_EQ(0, ring_create(self->fd, &self->r));
	EXPECT_EQ(0, ring_copy(&self->r, SPACES, A, B, 64, &c));
}

static sigjmp_buf jump;

static void jump_out(int sig)
{
	siglongjmp(jump, sig);
}

/* The signal that reading a byte raises, or 0. */
static int touch(const volatile void *p)
{
	int sig = sigsetjmp(jump, 1);

	if (!sig) {
		signal(SIGBUS, jump_out);
		(void)*(const volatile uint8_t *)p;
	}
	signal(SIGBUS, SIG_DFL);
	return sig;
}

/* Mappings end with the queue, though another queue takes its place. */
TEST_F(user, mappings_end)
{
	struct drm_npu_queue_destroy d = { .queue = self->r.queue };
	struct ring old = self->r, theirs;
	struct drm_npu_queue_map m;
	int other = npu_reopen(&self->dev);

	ASSERT_GE(other, 0);
	EXPECT_EQ(0, touch(old.sq));
	EXPECT_EQ(0, touch(old.cq));
	EXPECT_EQ(0, touch(old.doorbell));
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &d));
	EXPECT_EQ(SIGBUS, touch(old.sq));
	EXPECT_EQ(SIGBUS, touch(old.cq));
	EXPECT_EQ(SIGBUS, touch(old.doorbell));
	EXPECT_EQ(-ENOENT, query_map(self->fd, d.queue, &m));
	ASSERT_EQ(0, ring_create(other, &theirs));
	EXPECT_EQ(old.map.sq_offset, theirs.map.sq_offset);	/* the same place */
	EXPECT_EQ(0, touch(theirs.sq));
	EXPECT_EQ(SIGBUS, touch(old.sq));
	EXPECT_EQ(SIGBUS, touch(old.doorbell));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   theirs.map.sq_offset));
	close(other);
}

TEST_F(user, mapped_wrongly)
{
	const struct drm_npu_queue_map *m = &self->r.map;
	struct drm_npu_queue_create q = { 0 };
	struct drm_npu_queue_map wrong;
	int other = npu_reopen(&self->dev);

	ASSERT_GE(other, 0);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, m->cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd,
				   m->cq_offset));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect((void *)self->r.cq, m->cq_size, PROT_READ | PROT_WRITE));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, m->sq_size, PROT_READ, MAP_PRIVATE, self->fd,
				   m->sq_offset));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, m->sq_size + NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   m->sq_offset));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 2 * NPU_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				   self->fd, m->doorbell_offset));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   m->sq_offset + NPU_PAGE));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, self->fd,
				   m->doorbell_offset + (1 << 18)));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ, MAP_SHARED, other, m->sq_offset));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPU_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, other,
				   m->doorbell_offset));
	EXPECT_EQ(MAP_FAILED, mremap((void *)self->r.sq, m->sq_size, 2 * m->sq_size,
				     MREMAP_MAYMOVE));

	EXPECT_EQ(-ENOENT, query_map(self->fd, 0, &wrong));
	EXPECT_EQ(-ENOENT, query_map(self->fd, 4711, &wrong));
	EXPECT_EQ(-ENOENT, query_map(other, self->r.queue, &wrong));
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &q));
	EXPECT_EQ(-EINVAL, query_map(self->fd, q.queue, &wrong));
	wrong = (struct drm_npu_queue_map){ .queue = self->r.queue, .flags = 1 };
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_MAP, &wrong));
	wrong = (struct drm_npu_queue_map){ .queue = self->r.queue, .entries = 1 };
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_MAP, &wrong));
#define BAD_MAP(field) do {									\
		wrong = (struct drm_npu_queue_map){ .queue = self->r.queue, .field = 1 };	\
		EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_MAP, &wrong));	\
	} while (0)
	BAD_MAP(pad);
	BAD_MAP(sq_offset);
	BAD_MAP(sq_size);
	BAD_MAP(cq_offset);
	BAD_MAP(cq_size);
	BAD_MAP(doorbell_offset);
	BAD_MAP(doorbell_size);
	q = (struct drm_npu_queue_create){ .flags = 2 };
	EXPECT_EQ(-EINVAL, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &q));
	close(other);
}

/* A process that dies with its queue full of work leaves nothing. */
TEST_F_TIMEOUT(user, dead_process, 60)
{
	int i, k, ready[2];
	uint8_t e[64];
	pid_t pid;
	char x;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		if (!pid) {
			int fd = npu_reopen(&self->dev);
			struct npu_bo bo;
			struct ring r;

			if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &bo) ||
			    map_bo(fd, &bo, A) || ring_create(fd, &r))
				_exit(1);
			put_copy(e, SPACES, A, A, NPU_MIB);
			npu_put(e + 0x1c, 60000, 2);	/* rows */
			for (k = 0; k < 100; k++)
				ring_push(&r, e);
			ring_ring(&r);
			if (write(ready[1], "x", 1) != 1)
				_exit(2);
			pause();
		}
		close(ready[1]);
		EXPECT_EQ(1, read(ready[0], &x, 1));
		npu_sleep_ms(20);
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
		close(ready[0]);
	}
	/* Ours is the one. */
	EXPECT_EQ(self->info.queues_free - 1, npu_info(self->fd).queues_free);
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

TEST_HARNESS_MAIN
