// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device counts of jobs (interface 1.3): cycles and model time in their status,
 * profile records of launches. A device in time mode fast counts no cycles.
 */
#include "npu.h"

#define MARK	0x5a

/* Addresses in the file's part. */
#define TEXT	0x10000000ull
#define DATA	0x7f0000000000ull
#define CONST	0x40000000ull

FIXTURE(profile) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct npu_program program;
	struct npu_bo a, b, text;
	struct drm_npu_binding binding[2];
	struct drm_npu_command launch;
};

FIXTURE_SETUP(profile)
{
	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 3)
		SKIP(return, "jobs have no cycles before 1.3");
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->text));
	npu_fill(self->a.map, NPU_MIB, 1);
	memset(self->b.map, MARK, NPU_MIB);
	self->program = npu_copy_program(&self->info, 1000);
	memcpy(self->text.map, self->program.bytes, self->program.size);
	self->binding[0] = (struct drm_npu_binding){ self->a.handle, DRM_NPU_BINDING_READ, 0,
						     1000 };
	self->binding[1] = (struct drm_npu_binding){ self->b.handle, DRM_NPU_BINDING_WRITE, 0,
						     1000 };
	self->launch = npu_launch(&self->text, self->program.size, self->binding, 2);
}

FIXTURE_TEARDOWN(profile)
{
	close(self->fd);
}

/* Makes the launch leave a record. */
static void ask(FIXTURE_DATA(profile) *self, const struct npu_bo *bo, uint64_t offset)
{
	self->launch.flags |= DRM_NPU_COMMAND_PROFILE;
	self->launch.launch.profile_handle = bo->handle;
	self->launch.launch.profile_offset = offset;
}

static uint32_t word(const uint8_t *record, size_t offset)
{
	uint32_t v;

	memcpy(&v, record + offset, sizeof(v));
	return v;
}

static uint64_t quad(const uint8_t *record, size_t offset)
{
	return word(record, offset) | (uint64_t)word(record, offset + 4) << 32;
}

/* Whether a record (§13.8.4) is that of the program, whose job has this status. */
static bool record_fits(const uint8_t *record, const struct drm_npu_job_status *s)
{
	bool timed = word(record, 4) & 1;
	uint64_t began = quad(record, 0x08), cycles = quad(record, 0x10);

	if (word(record, 0) != DRM_NPU_PROFILE_SIZE || word(record, 4) & ~1u ||
	    quad(record, 0x18) != 3 || quad(record, 0x20) ||
	    quad(record, 0x28) != 1000 || quad(record, 0x30) != 1000 ||
	    quad(record, 0x50) != 1 || quad(record, 0xa0) != 1 || quad(record, 0xf0))
		return false;
	if (!timed)
		return !began && !cycles && !quad(record, 0x58) && !s->cycles && !s->time;
	return cycles && cycles < s->cycles && quad(record, 0x58) && quad(record, 0xa8) &&
	       began + s->cycles == s->time;
}

/* The same job takes the same cycles, and time is their sum. */
TEST_F(profile, cycles)
{
	struct drm_npu_command c[3] = { npu_nop(), npu_copy(&self->a, &self->b, 4096), npu_nop() };
	struct drm_npu_job_status s[4];
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, npu_run(self->fd, c, 3, &s[i]));
	ASSERT_EQ(0, npu_run(self->fd, c, 1, &s[3]));
	if (!s[0].time) {
		for (i = 0; i < 4; i++)
			EXPECT_EQ(0, s[i].time | s[i].cycles);
		return;
	}
	EXPECT_NE(0, self->info.features & NPU_TIMING);
	EXPECT_GE(s[0].time, s[0].cycles);
	EXPECT_GT(s[0].cycles, 3 * s[3].cycles);
	for (i = 1; i < 4; i++) {
		EXPECT_EQ(s[i - 1].time + s[i].cycles, s[i].time);
		if (i < 3)
			EXPECT_EQ(s[0].cycles, s[i].cycles);
	}
}

/* A program that knows less of the status than the driver. */
TEST_F(profile, short_status)
{
	struct drm_npu_command nop = npu_nop();
	struct drm_npu_query q = { .type = DRM_NPU_QUERY_JOB, .arg = 1 };
	struct drm_npu_job_status s;
	uint8_t buffer[sizeof(s)];

	memset(buffer, MARK, sizeof(buffer));
	ASSERT_EQ(0, npu_run(self->fd, &nop, 1, &s));
	q.size = offsetof(struct drm_npu_job_status, cycles);
	q.ptr = (uintptr_t)buffer;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &q));
	EXPECT_EQ(sizeof(s), q.size);
	EXPECT_EQ(0, memcmp(&s, buffer, offsetof(struct drm_npu_job_status, cycles)));
	EXPECT_TRUE(npu_all(buffer + q.size - 16, 16, MARK));
}

/* A job that failed has the cycles of its commands all the same. */
TEST_F(profile, cycles_of_a_failed_job)
{
	struct drm_npu_command c[2] = { npu_nop(), self->launch };
	struct drm_npu_job_status nop, s;

	ASSERT_EQ(0, npu_run(self->fd, c, 1, &nop));
	c[1].launch.bindings.count = 1;		/* needs 2 */
	ASSERT_EQ(0, npu_run(self->fd, c, 2, &s));
	EXPECT_EQ(-EINVAL, s.error);
	EXPECT_EQ(2 * nop.cycles, s.cycles);
	EXPECT_EQ(nop.time + s.cycles, s.time);
}

TEST_F(profile, record)
{
	struct drm_npu_job_status s;

	if (!(self->info.features & NPU_TIMING))
		SKIP(return, "the device has no profile records");
	ask(self, &self->b, 4096 + 8);
	ASSERT_EQ(0, npu_run(self->fd, &self->launch, 1, &s));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_TRUE(record_fits(self->b.map + 4096 + 8, &s));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, 1000));
	EXPECT_TRUE(npu_all(self->b.map + 1000, 4096 + 8 - 1000, MARK));
	EXPECT_TRUE(npu_all(self->b.map + 4096 + 8 + DRM_NPU_PROFILE_SIZE, 4096, MARK));
	/* The last bytes of a BO will do. */
	ask(self, &self->b, NPU_MIB - DRM_NPU_PROFILE_SIZE);
	ASSERT_EQ(0, npu_run(self->fd, &self->launch, 1, &s));
	EXPECT_TRUE(record_fits(self->b.map + NPU_MIB - DRM_NPU_PROFILE_SIZE, &s));
}

/* Each launch of a job has its own, also in device memory. */
TEST_F(profile, records_in_device_memory)
{
	struct drm_npu_command c[3];
	struct drm_npu_job_status s, both;
	struct npu_bo device;

	if (!(self->info.features & NPU_TIMING))
		SKIP(return, "the device has no profile records");
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_PAGE, &device));
	ask(self, &device, 0);
	c[0] = self->launch;
	ask(self, &device, 2048);
	c[1] = self->launch;
	ASSERT_EQ(0, npu_run(self->fd, c, 2, &both));
	c[2] = npu_copy(&device, &self->b, NPU_PAGE);
	ASSERT_EQ(0, npu_run_error(self->fd, &c[2], 1));
	s = both;
	s.cycles /= 2;
	EXPECT_TRUE(record_fits(self->b.map + 2048, &s));
	s.time -= s.cycles;
	EXPECT_TRUE(record_fits(self->b.map, &s));
}

TEST_F(profile, none_of_a_failed_program)
{
	struct drm_npu_job_status s;

	if (!(self->info.features & NPU_TIMING))
		SKIP(return, "the device has no profile records");
	ask(self, &self->b, 4096);
	self->launch.launch.bindings.count = 1;
	ASSERT_EQ(0, npu_run(self->fd, &self->launch, 1, &s));
	EXPECT_EQ(-EINVAL, s.error);
	EXPECT_TRUE(npu_all(self->b.map, NPU_MIB, MARK));
}

TEST_F(profile, without_timing)
{
	if (self->info.features & NPU_TIMING)
		SKIP(return, "the device has profile records");
	ask(self, &self->b, 4096);
	EXPECT_EQ(-EOPNOTSUPP, npu_submit(self->fd, &self->launch, 1, NULL, NULL, NULL));
	self->launch.launch.profile_offset = 4;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &self->launch, 1, NULL, NULL, NULL));
}

/* By virtual address, and where nothing can be written: the program has run then. */
TEST_F(profile, by_address)
{
	struct drm_npu_vm_op op[] = {
		{ DRM_NPU_VM_MAP, DRM_NPU_VM_EXEC, self->text.handle, 0, 0, TEXT, NPU_PAGE },
		{ DRM_NPU_VM_MAP, DRM_NPU_VM_READ | DRM_NPU_VM_WRITE, self->b.handle, 0, 0, DATA,
		  NPU_MIB },
		{ DRM_NPU_VM_MAP, DRM_NPU_VM_READ, self->a.handle, 0, 0, CONST, NPU_MIB },
	};
	struct drm_npu_vm_bind bind = { .ops = NPU_ARRAY(op, 3) };
	static const struct {
		uint64_t at;
		int error;
	} rows[] = {
		{ CONST + 4096, -EFAULT },		/* not for writing */
		{ DATA - 400, -EFAULT },		/* nothing is there */
		{ DATA + NPU_MIB - 8, -EFAULT },	/* in part */
		{ ~0ull - 7, -EINVAL },			/* no such addresses */
	};
	struct drm_npu_job_status s;
	struct drm_npu_fault f;
	size_t i;
	int ret;

	if (!(self->info.features & NPU_TIMING))
		SKIP(return, "the device has no profile records");
	ret = npu_ioctl(self->fd, DRM_IOCTL_NPU_VM_BIND, &bind);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the device has no MMU");
	ASSERT_EQ(0, ret);
	self->launch.flags = DRM_NPU_COMMAND_VA | DRM_NPU_COMMAND_PROFILE;
	self->launch.launch.program_handle = 0;
	self->launch.launch.program_offset = TEXT;
	self->launch.launch.profile_offset = DATA + 4096;
	self->binding[0].handle = 0;
	self->binding[0].offset = CONST;
	self->binding[1].handle = 0;
	self->binding[1].offset = DATA;
	ASSERT_EQ(0, npu_run(self->fd, &self->launch, 1, &s));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_TRUE(record_fits(self->b.map + 4096, &s));
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		memset(self->b.map, MARK, 1000);
		self->launch.launch.profile_offset = rows[i].at;
		EXPECT_EQ(rows[i].error, npu_run_error(self->fd, &self->launch, 1));
		EXPECT_EQ(rows[i].error == -EINVAL, npu_all(self->b.map, 1000, MARK));
	}
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_FAULT, 0, &f, sizeof(f)));
	EXPECT_EQ(3, f.count);
	EXPECT_EQ(DATA + NPU_MIB, f.address);
	EXPECT_EQ(DRM_NPU_ACCESS_WRITE, f.access);
	self->launch.launch.profile_handle = self->b.handle;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &self->launch, 1, NULL, NULL, NULL));
}

TEST_HARNESS_MAIN
