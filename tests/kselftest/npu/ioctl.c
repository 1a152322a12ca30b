// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arguments of the driver's ioctls, good and bad ones: whatever the call can
 * see is refused by the call, with the error that <drm/npu_accel.h> names.
 */
#include "npu.h"

FIXTURE(query) {
	struct npu_device dev;
	int fd;
	struct drm_npu_query q;
	uint8_t buffer[512];
};

FIXTURE_SETUP(query)
{
	NPU_SETUP_OPEN();
	self->q = (struct drm_npu_query){ .size = sizeof(self->buffer),
					  .ptr = (uintptr_t)self->buffer };
	memset(self->buffer, 0x5a, sizeof(self->buffer));
}

FIXTURE_TEARDOWN(query)
{
	close(self->fd);
}

TEST_F(query, version)
{
	int major, minor;
	char name[32];

	ASSERT_EQ(0, npu_version(self->fd, &major, &minor, name));
	EXPECT_STREQ("npu", name);
	EXPECT_EQ(1, major);
	EXPECT_GE(minor, 0);
}

TEST_F(query, device_info)
{
	struct drm_npu_device_info info;
	int major, minor;
	char name[32];

	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info)));
	ASSERT_EQ(0, npu_version(self->fd, &major, &minor, name));
	EXPECT_EQ((uint32_t)(major << 16 | minor), info.uapi_version);
	EXPECT_EQ(1, info.arch_version >> 16);
	EXPECT_EQ(1, info.fw_version >> 16);
	EXPECT_EQ(0, info.array_rows % 8);
	EXPECT_EQ(0, info.array_cols % 8);
	EXPECT_GT(info.array_rows, 0);
	EXPECT_GT(info.array_cols, 0);
	EXPECT_GT(info.spad_size, 0);
	EXPECT_GT(info.acc_size, 0);
	EXPECT_GT(info.cores, 0);
	EXPECT_GT(info.queues, 0);
	EXPECT_LE(info.queues_free, info.queues);
	EXPECT_GT(info.dram_size, 0);
	EXPECT_LE(info.dram_free, info.dram_size);
	EXPECT_GT(info.max_commands, 0);
	EXPECT_EQ(64, info.max_bindings);
	EXPECT_GT(info.max_syncs, 0);
	EXPECT_GT(info.vectors, 0);
	EXPECT_GT(info.job_timeout_ms, 0);
	EXPECT_EQ(0, info.firmware[sizeof(info.firmware) - 1]);
	EXPECT_NE(0, info.firmware[0]);
}

TEST_F(query, counters_count)
{
	struct drm_npu_counters a, b;
	struct drm_npu_command nop = npu_nop();

	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_COUNTERS, 0, &a, sizeof(a)));
	ASSERT_EQ(0, npu_run_error(self->fd, &nop, 1));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_COUNTERS, 0, &b, sizeof(b)));
	EXPECT_EQ(a.commands + 1, b.commands);
	EXPECT_EQ(a.errors, b.errors);
	EXPECT_EQ(a.programs, b.programs);
	EXPECT_EQ(a.faults, b.faults);
}

TEST_F(query, only_size)
{
	self->q = (struct drm_npu_query){ .type = DRM_NPU_QUERY_COUNTERS };
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_EQ(sizeof(struct drm_npu_counters), self->q.size);
}

/* A program that knows less than the driver. */
TEST_F(query, short_buffer)
{
	self->q.size = 8;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_EQ(sizeof(struct drm_npu_device_info), self->q.size);
	EXPECT_TRUE(npu_all(self->buffer + 8, sizeof(self->buffer) - 8, 0x5a));
	EXPECT_FALSE(npu_all(self->buffer, 8, 0x5a));
}

/* A program that knows more. */
TEST_F(query, long_buffer)
{
	size_t n = sizeof(struct drm_npu_device_info);

	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_EQ(n, self->q.size);
	EXPECT_TRUE(npu_all(self->buffer + n, sizeof(self->buffer) - n, 0x5a));
}

TEST_F(query, empty_buffer)
{
	self->q.size = 0;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_TRUE(npu_all(self->buffer, sizeof(self->buffer), 0x5a));
}

/* DRM takes what a shorter structure lacks for zero. */
TEST_F(query, short_structure)
{
	self->q = (struct drm_npu_query){ .type = DRM_NPU_QUERY_COUNTERS, .ptr = 8 };
	ASSERT_EQ(0, npu_ioctl(self->fd, _IOWR(DRM_IOCTL_BASE, DRM_COMMAND_BASE + DRM_NPU_QUERY,
					      uint64_t), &self->q));
	EXPECT_EQ(sizeof(struct drm_npu_counters), self->q.size);
}

TEST_F(query, end_of_the_page)
{
	uint8_t *p = mmap(NULL, 2 * NPU_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t n = sizeof(struct drm_npu_device_info);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, munmap(p + NPU_PAGE, NPU_PAGE));
	self->q.size = n;
	self->q.ptr = (uintptr_t)p + NPU_PAGE - n;
	EXPECT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	self->q.size = n;
	self->q.ptr++;
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
}

#define BAD_QUERY(name, error, change)						\
	TEST_F(query, bad_##name)						\
	{									\
		change;								\
		EXPECT_EQ(-(error), npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));	\
		EXPECT_TRUE(npu_all(self->buffer, sizeof(self->buffer), 0x5a));	\
	}

BAD_QUERY(type, EINVAL, self->q.type = 0x100)
BAD_QUERY(type_all_ones, EINVAL, self->q.type = ~0u)
BAD_QUERY(argument_of_info, EINVAL, self->q.arg = 1)
BAD_QUERY(argument_of_counters, EINVAL, self->q.type = DRM_NPU_QUERY_COUNTERS;
	  self->q.arg = ~0ull)
BAD_QUERY(argument_of_telemetry, EINVAL, self->q.type = DRM_NPU_QUERY_TELEMETRY;
	  self->q.arg = 1)
BAD_QUERY(pointer, EFAULT, self->q.ptr = 8)
BAD_QUERY(pointer_to_kernel, EFAULT, self->q.ptr = ~0ull << 40)
BAD_QUERY(pointer_of_counters, EFAULT, self->q.type = DRM_NPU_QUERY_COUNTERS; self->q.ptr = 8)
BAD_QUERY(job_0, ENOENT, self->q.type = DRM_NPU_QUERY_JOB)
BAD_QUERY(job_to_come, ENOENT, self->q.type = DRM_NPU_QUERY_JOB; self->q.arg = 1)
BAD_QUERY(job_all_ones, ENOENT, self->q.type = DRM_NPU_QUERY_JOB; self->q.arg = ~0ull)

/* Device and firmware have telemetry: both are 1.2, and feature bit 4 says so. */
static bool has_telemetry(FIXTURE_DATA(query) *self)
{
	struct drm_npu_device_info info = npu_info(self->fd);

	return info.features & 1 << 4 && info.fw_version >= (1 << 16 | 2);
}

#define SKIP_WITHOUT_TELEMETRY() do {						\
	if (npu_minor(self->fd) < 2)						\
		SKIP(return, "an interface before 1.2 has no telemetry");	\
	if (!has_telemetry(self))						\
		SKIP(return, "the device has no telemetry");			\
	self->q.type = DRM_NPU_QUERY_TELEMETRY;					\
} while (0)

TEST_F(query, telemetry)
{
	struct drm_npu_telemetry a, b;

	SKIP_WITHOUT_TELEMETRY();
	memset(&b, 0xff, sizeof(b));
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_TELEMETRY, 0, &a, sizeof(a)));
	npu_sleep_ms(10);
	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_TELEMETRY, 0, &b, sizeof(b)));
	EXPECT_GE(b.uptime_us, a.uptime_us + 10000);
	EXPECT_GE(b.core_busy_us, a.core_busy_us);
	EXPECT_GE(b.dma_busy_us, a.dma_busy_us);
	EXPECT_LE(b.core_busy_us + b.dma_busy_us, b.uptime_us);
	EXPECT_GE(b.temperature, b.ambient);
	EXPECT_LT(b.temperature, b.threshold_critical);
	EXPECT_LT(b.threshold_1, b.threshold_2);
	EXPECT_LT(b.threshold_2, b.threshold_critical);
	EXPECT_GT(b.clock_khz, 0);
	EXPECT_LE(b.clock_khz, b.max_clock_khz);
	EXPECT_LE(b.core_utilization, 1000);
	EXPECT_LE(b.dma_utilization, 1000);
	EXPECT_LE(b.throttle_level, 2);
}

TEST_F(query, telemetry_short)
{
	struct drm_npu_telemetry t;

	SKIP_WITHOUT_TELEMETRY();
	self->q.size = 8;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_EQ(sizeof(t), self->q.size);
	EXPECT_TRUE(npu_all(self->buffer + 8, sizeof(self->buffer) - 8, 0x5a));
	memcpy(&t.uptime_us, self->buffer, 8);
	EXPECT_NE(0x5a5a5a5a5a5a5a5aull, t.uptime_us);
	self->q.size = 0;
	self->q.ptr = 0;
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_EQ(sizeof(t), self->q.size);
}

TEST_F(query, telemetry_nowhere)
{
	SKIP_WITHOUT_TELEMETRY();
	self->q.ptr = 8;
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
}

/* Whether anything is asked for or not. */
TEST_F(query, no_telemetry)
{
	if (npu_minor(self->fd) < 2 || has_telemetry(self))
		SKIP(return, "the device has telemetry, or the interface is before 1.2");
	self->q.type = DRM_NPU_QUERY_TELEMETRY;
	EXPECT_EQ(-EOPNOTSUPP, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
	EXPECT_TRUE(npu_all(self->buffer, sizeof(self->buffer), 0x5a));
	self->q.ptr = 0;
	EXPECT_EQ(-EOPNOTSUPP, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, &self->q));
}

TEST_F(query, no_structure)
{
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUERY, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_BO_CREATE, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_SUBMIT, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_DESTROY, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_VM_BIND, NULL));
	EXPECT_EQ(-EFAULT, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_MAP, NULL));
}

TEST_F(query, unknown_ioctls)
{
	int i;

	for (i = 0x10; i < DRM_COMMAND_END - DRM_COMMAND_BASE; i++)
		EXPECT_EQ(-EINVAL, npu_ioctl(self->fd,
			  _IOWR(DRM_IOCTL_BASE, DRM_COMMAND_BASE + i, struct drm_npu_submit),
			  &(struct drm_npu_submit){ .flags = 0 }));
}

TEST_F(query, not_a_stream)
{
	char c = 0;

	EXPECT_GT(0, write(self->fd, &c, 1));
	EXPECT_EQ(0, lseek(self->fd, 0, SEEK_CUR));
}

FIXTURE(bo) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct drm_npu_bo_create c;
};

FIXTURE_SETUP(bo)
{
	NPU_SETUP_OPEN();
	self->info = npu_info(self->fd);
	self->c = (struct drm_npu_bo_create){ .size = NPU_PAGE, .placement = NPU_SYSTEM };
}

FIXTURE_TEARDOWN(bo)
{
	close(self->fd);
}

TEST_F(bo, sizes)
{
	static const uint64_t sizes[] = { 1, NPU_PAGE - 1, NPU_PAGE, NPU_PAGE + 1, NPU_MIB };
	uint32_t placement;
	size_t i;

	for (placement = NPU_DEVICE; placement <= NPU_SYSTEM; placement++) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			self->c = (struct drm_npu_bo_create){ .size = sizes[i],
							      .placement = placement };
			ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_BO_CREATE, &self->c));
			EXPECT_EQ((sizes[i] + NPU_PAGE - 1) / NPU_PAGE * NPU_PAGE, self->c.size);
			EXPECT_NE(0, self->c.handle);
			EXPECT_EQ(0, npu_gem_close(self->fd, self->c.handle));
		}
	}
}

TEST_F(bo, closed_once)
{
	ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_BO_CREATE, &self->c));
	EXPECT_EQ(0, npu_gem_close(self->fd, self->c.handle));
	EXPECT_EQ(-EINVAL, npu_gem_close(self->fd, self->c.handle));
	EXPECT_EQ(-EINVAL, npu_gem_close(self->fd, 0));
	EXPECT_EQ(-EINVAL, npu_gem_close(self->fd, ~0u));
}

#define BAD_BO(name, error, change)						\
	TEST_F(bo, bad_##name)							\
	{									\
		change;								\
		EXPECT_EQ(-(error), npu_ioctl(self->fd, DRM_IOCTL_NPU_BO_CREATE, &self->c));	\
		EXPECT_EQ(self->info.dram_free, npu_info(self->fd).dram_free);	\
	}

BAD_BO(size_0, EINVAL, self->c.size = 0)
BAD_BO(size_all_ones, EINVAL, self->c.size = ~0ull)
BAD_BO(size_rounds_to_0, EINVAL, self->c.size = ~0ull - NPU_PAGE + 2)
BAD_BO(size_sign, EINVAL, self->c.size = 1ull << 63)
BAD_BO(size_sign_device, EINVAL, self->c.size = 1ull << 63; self->c.placement = NPU_DEVICE)
BAD_BO(size_over_device, EINVAL, self->c.size = self->info.dram_size + 1;
       self->c.placement = NPU_DEVICE)
BAD_BO(placement_0, EINVAL, self->c.placement = 0)
BAD_BO(placement_3, EINVAL, self->c.placement = 3)
BAD_BO(placement_all_ones, EINVAL, self->c.placement = ~0u)
BAD_BO(flag_0, EINVAL, self->c.flags = 1)
BAD_BO(flag_31, EINVAL, self->c.flags = 1u << 31)
BAD_BO(padding, EINVAL, self->c.pad = 1)
BAD_BO(handle_on_input, EINVAL, self->c.handle = 1)
BAD_BO(offset_on_input, EINVAL, self->c.mmap_offset = NPU_PAGE)

FIXTURE(submit) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct npu_bo a, b;
	struct npu_program program;
	uint32_t binary, timeline;
	struct drm_npu_command c;
	struct drm_npu_binding binding[2];
	struct drm_npu_sync sync;
	struct drm_npu_submit s;
	struct {
		struct drm_npu_command c;
		uint64_t more;
	} longer[2];
};

FIXTURE_SETUP(submit)
{
	NPU_SETUP_OPEN();
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &self->b));
	self->binary = npu_syncobj(self->fd);
	self->timeline = npu_syncobj(self->fd);
	ASSERT_NE(0, self->binary);
	ASSERT_NE(0, self->timeline);
	self->program = npu_copy_program(&self->info, 64);
	memcpy(self->a.map, self->program.bytes, self->program.size);
	self->binding[0] = (struct drm_npu_binding){ self->a.handle, DRM_NPU_BINDING_READ, 0, 64 };
	self->binding[1] = (struct drm_npu_binding){ self->b.handle, DRM_NPU_BINDING_WRITE, 0, 64 };
	self->c = npu_copy(&self->a, &self->b, 8);
	self->sync = (struct drm_npu_sync){ .handle = self->binary };
	self->s = (struct drm_npu_submit){ .commands = NPU_ARRAY(&self->c, 1) };
}

FIXTURE_TEARDOWN(submit)
{
	close(self->fd);
}

static int submit(FIXTURE_DATA(submit) *self)
{
	return npu_ioctl(self->fd, DRM_IOCTL_NPU_SUBMIT, &self->s);
}

/* Makes the command a launch of the program, with two bindings. */
static void launch(FIXTURE_DATA(submit) *self)
{
	self->c = npu_launch(&self->a, self->program.size, self->binding, 2);
}

/* And the device leaves a profile record (1.3) behind what is copied. */
static void profile(FIXTURE_DATA(submit) *self)
{
	launch(self);
	self->c.flags = DRM_NPU_COMMAND_PROFILE;
	self->c.launch.profile_handle = self->b.handle;
	self->c.launch.profile_offset = 64;
}

/* What a driver says of a profile record whose place is wrong: before 1.3 it knows none. */
static int profile_error(FIXTURE_DATA(submit) *self, int error)
{
	if (npu_minor(self->fd) < 3)
		return EINVAL;
	return self->info.features & NPU_TIMING ? error : EOPNOTSUPP;
}

/* Two commands that are longer than any version knows. */
static void longer(FIXTURE_DATA(submit) *self, uint64_t more)
{
	self->longer[0].c = self->c;
	self->longer[1].c = self->c;
	self->longer[1].more = more;
	self->s.commands = NPU_ARRAY(self->longer, 2);
}

#define GOOD_SUBMIT(name, change)						\
	TEST_F(submit, good_##name)						\
	{									\
		struct drm_npu_job_status status = { 0 };			\
										\
		change;								\
		ASSERT_EQ(0, submit(self));					\
		EXPECT_EQ(1, self->s.seqno);					\
		while (status.state == DRM_NPU_JOB_PENDING)			\
			ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, 1, &status,	\
					       sizeof(status)));		\
		EXPECT_EQ(DRM_NPU_JOB_DONE, status.state);			\
		EXPECT_EQ(0, status.error);					\
		EXPECT_EQ(1, status.seqno);					\
	}

GOOD_SUBMIT(copy, (void)0)
GOOD_SUBMIT(nop, self->c = npu_nop())
GOOD_SUBMIT(launch, launch(self))
GOOD_SUBMIT(longer_command, longer(self, 0))
GOOD_SUBMIT(out_sync, self->s.out_syncs = NPU_ARRAY(&self->sync, 1))
GOOD_SUBMIT(out_point, self->sync = ((struct drm_npu_sync){ self->timeline, 0, 7 });
	    self->s.out_syncs = NPU_ARRAY(&self->sync, 1))
GOOD_SUBMIT(in_sync_signalled, npu_signal(self->fd, self->binary, 0);
	    self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
GOOD_SUBMIT(in_point_signalled, npu_signal(self->fd, self->timeline, 9);
	    self->sync = ((struct drm_npu_sync){ self->timeline, 0, 8 });
	    self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
GOOD_SUBMIT(array_that_is_not_used, self->s.in_syncs = ((struct drm_npu_array){ 1, 0, 8 }))
GOOD_SUBMIT(last_byte, self->c.copy.src_offset = NPU_PAGE - 8;
	    self->c.copy.dst_offset = NPU_PAGE - 8)
GOOD_SUBMIT(overlapping_rows, self->c.copy.ny = 65535; self->c.copy.nz = 2)
GOOD_SUBMIT(stride_of_one_row_is_not_used, self->c.copy.src_stride_y = ~0ull;
	    self->c.copy.dst_stride_z = 1ull << 63)

#define BAD_SUBMIT(name, error, change)						\
	TEST_F(submit, bad_##name)						\
	{									\
		struct drm_npu_command nop = npu_nop();				\
		uint64_t seqno;							\
										\
		change;								\
		EXPECT_EQ(-(error), submit(self));				\
		/* It does not count, and harms nothing. */			\
		ASSERT_EQ(0, npu_submit(self->fd, &nop, 1, NULL, NULL, &seqno));	\
		EXPECT_EQ(1, seqno);						\
	}

BAD_SUBMIT(no_commands, EINVAL, self->s.commands.count = 0)
BAD_SUBMIT(too_many_commands, EINVAL, self->s.commands.count = self->info.max_commands + 1)
BAD_SUBMIT(commands_all_ones, EINVAL, self->s.commands.count = ~0u)
BAD_SUBMIT(commands_short, EINVAL, self->s.commands.stride -= 8)
BAD_SUBMIT(commands_without_stride, EINVAL, self->s.commands.stride = 0)
BAD_SUBMIT(commands_at_0, EFAULT, self->s.commands.ptr = 0)
BAD_SUBMIT(commands_nowhere, EFAULT, self->s.commands.ptr = 8)
BAD_SUBMIT(commands_in_kernel, EFAULT, self->s.commands.ptr = ~0ull << 40)
BAD_SUBMIT(longer_command, E2BIG, longer(self, 1))
BAD_SUBMIT(longer_command_high, E2BIG, longer(self, 1ull << 63))
BAD_SUBMIT(flag_0, EINVAL, self->s.flags = 1)
BAD_SUBMIT(flag_31, EINVAL, self->s.flags = 1u << 31)
BAD_SUBMIT(seqno_on_input, EINVAL, self->s.seqno = 1)

BAD_SUBMIT(type_0, EINVAL, self->c.type = 0)
BAD_SUBMIT(type_4, EINVAL, self->c.type = 4)
BAD_SUBMIT(type_all_ones, EINVAL, self->c.type = ~0u)
BAD_SUBMIT(command_flag, EINVAL, self->c.flags = 2)
BAD_SUBMIT(command_by_address_with_handle, EINVAL, self->c.flags = DRM_NPU_COMMAND_VA)
BAD_SUBMIT(nop_by_address, EINVAL, self->c = npu_nop(); self->c.flags = DRM_NPU_COMMAND_VA)
BAD_SUBMIT(nop_with_content, EINVAL, self->c = npu_nop(); self->c.reserved[0] = 1)
BAD_SUBMIT(nop_with_content_at_the_end, EINVAL, self->c = npu_nop();
	   self->c.reserved[8] = 1ull << 63)
BAD_SUBMIT(second_command, EINVAL, longer(self, 0); self->longer[1].c.type = 9)

BAD_SUBMIT(copy_padding, EINVAL, self->c.copy.pad = 1)
BAD_SUBMIT(copy_nx_0, EINVAL, self->c.copy.nx = 0)
BAD_SUBMIT(copy_ny_0, EINVAL, self->c.copy.ny = 0)
BAD_SUBMIT(copy_ny_65536, EINVAL, self->c.copy.ny = 65536)
BAD_SUBMIT(copy_nz_0, EINVAL, self->c.copy.nz = 0)
BAD_SUBMIT(copy_nz_65536, EINVAL, self->c.copy.nz = 65536)
BAD_SUBMIT(copy_source_0, ENOENT, self->c.copy.src_handle = 0)
BAD_SUBMIT(copy_source_unknown, ENOENT, self->c.copy.src_handle = 4711)
BAD_SUBMIT(copy_destination_0, ENOENT, self->c.copy.dst_handle = 0)
BAD_SUBMIT(copy_destination_all_ones, ENOENT, self->c.copy.dst_handle = ~0u)
BAD_SUBMIT(copy_source_end, EINVAL, self->c.copy.src_offset = NPU_PAGE - 7)
BAD_SUBMIT(copy_destination_end, EINVAL, self->c.copy.dst_offset = NPU_PAGE - 7)
BAD_SUBMIT(copy_source_wraps, EINVAL, self->c.copy.src_offset = ~0ull - 3)
BAD_SUBMIT(copy_destination_wraps, EINVAL, self->c.copy.dst_offset = ~0ull)
BAD_SUBMIT(copy_nx_all_ones, EINVAL, self->c.copy.nx = ~0u)
BAD_SUBMIT(copy_last_row, EINVAL, self->c.copy.ny = 2; self->c.copy.src_stride_y = NPU_PAGE - 7)
BAD_SUBMIT(copy_last_plane, EINVAL, self->c.copy.nz = 2; self->c.copy.dst_stride_z = NPU_PAGE - 7)
BAD_SUBMIT(copy_stride_wraps, EINVAL, self->c.copy.ny = 2; self->c.copy.src_stride_y = ~0ull - 7)
BAD_SUBMIT(copy_stride_product, EINVAL, self->c.copy.ny = 3;
	   self->c.copy.dst_stride_y = 1ull << 63)
BAD_SUBMIT(copy_stride_sum, EINVAL, self->c.copy.ny = 2; self->c.copy.nz = 2;
	   self->c.copy.dst_stride_y = 1ull << 63; self->c.copy.dst_stride_z = 1ull << 63)

BAD_SUBMIT(launch_content_behind, EINVAL, launch(self); self->c.reserved[8] = 1)
BAD_SUBMIT(launch_no_program, ENOENT, launch(self); self->c.launch.program_handle = 0)
BAD_SUBMIT(launch_unaligned, EINVAL, launch(self); self->c.launch.program_offset = 32)
BAD_SUBMIT(launch_past_the_end, EINVAL, launch(self); self->c.launch.program_offset = NPU_PAGE - 64)
BAD_SUBMIT(launch_wraps, EINVAL, launch(self); self->c.launch.program_offset = ~0ull - 63)
BAD_SUBMIT(launch_size_all_ones, EINVAL, launch(self); self->c.launch.program_size = ~0u)
BAD_SUBMIT(launch_size_0, EINVAL, launch(self); self->c.launch.program_size = 0)
BAD_SUBMIT(bindings_65, EINVAL, launch(self); self->c.launch.bindings.count = 65)
BAD_SUBMIT(bindings_all_ones, EINVAL, launch(self); self->c.launch.bindings.count = ~0u)
BAD_SUBMIT(bindings_nowhere, EFAULT, launch(self); self->c.launch.bindings.ptr = 8)
BAD_SUBMIT(bindings_short, EINVAL, launch(self); self->c.launch.bindings.stride = 16)
BAD_SUBMIT(binding_of_nothing, ENOENT, launch(self); self->binding[1].handle = 4711)
BAD_SUBMIT(binding_without_access, EINVAL, launch(self); self->binding[0].flags = 0)
BAD_SUBMIT(binding_flag, EINVAL, launch(self); self->binding[0].flags |= 4)
BAD_SUBMIT(binding_size_0, EINVAL, launch(self); self->binding[1].size = 0)
BAD_SUBMIT(binding_past_the_end, EINVAL, launch(self); self->binding[1].size = NPU_PAGE + 1)
BAD_SUBMIT(binding_offset, EINVAL, launch(self); self->binding[1].offset = NPU_PAGE - 63)
BAD_SUBMIT(binding_wraps, EINVAL, launch(self); self->binding[1].offset = ~0ull;
	   self->binding[1].size = 2)
BAD_SUBMIT(binding_size_wraps, EINVAL, launch(self); self->binding[1].offset = 64;
	   self->binding[1].size = ~0ull - 32)

BAD_SUBMIT(profile_without_flag, EINVAL, profile(self); self->c.flags = 0)
BAD_SUBMIT(profile_handle_without_flag, EINVAL, launch(self);
	   self->c.launch.profile_handle = self->b.handle)
BAD_SUBMIT(profile_offset_without_flag, EINVAL, launch(self); self->c.launch.profile_offset = 64)
BAD_SUBMIT(profile_padding, EINVAL, profile(self); self->c.launch.pad = 1)
BAD_SUBMIT(profile_unaligned, EINVAL, profile(self); self->c.launch.profile_offset = 68)
BAD_SUBMIT(profile_with_unknown_flag, EINVAL, profile(self); self->c.flags |= 4)
BAD_SUBMIT(profile_by_address_with_handle, EINVAL, profile(self);
	   self->c.flags |= DRM_NPU_COMMAND_VA)
BAD_SUBMIT(profile_of_a_nop, EINVAL, self->c = npu_nop(); self->c.flags = DRM_NPU_COMMAND_PROFILE)
BAD_SUBMIT(profile_of_a_copy, EINVAL, self->c.flags = DRM_NPU_COMMAND_PROFILE)
BAD_SUBMIT(profile_nowhere, profile_error(self, ENOENT), profile(self);
	   self->c.launch.profile_handle = 0)
BAD_SUBMIT(profile_unknown, profile_error(self, ENOENT), profile(self);
	   self->c.launch.profile_handle = 4711)
BAD_SUBMIT(profile_past_the_end, profile_error(self, EINVAL), profile(self);
	   self->c.launch.profile_offset = NPU_PAGE - 392)
BAD_SUBMIT(profile_wraps, profile_error(self, EINVAL), profile(self);
	   self->c.launch.profile_offset = ~0ull - 7)

BAD_SUBMIT(in_sync_unknown, ENOENT, self->sync.handle = 4711;
	   self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(in_sync_without_fence, EINVAL, self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(in_point_without_fence, EINVAL, self->sync.handle = self->timeline;
	   self->sync.point = 5; self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(in_sync_flag, EINVAL, self->sync.flags = 1;
	   self->s.in_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(in_syncs_nowhere, EFAULT, self->s.in_syncs = NPU_ARRAY(&self->sync, 1);
	   self->s.in_syncs.ptr = 8)
BAD_SUBMIT(in_syncs_too_many, EINVAL, self->s.in_syncs = NPU_ARRAY(&self->sync, 1);
	   self->s.in_syncs.count = self->info.max_syncs + 1)
BAD_SUBMIT(out_sync_unknown, ENOENT, self->sync.handle = ~0u;
	   self->s.out_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(out_sync_flag, EINVAL, self->sync.flags = 1u << 31;
	   self->s.out_syncs = NPU_ARRAY(&self->sync, 1))
BAD_SUBMIT(out_syncs_short, EINVAL, self->s.out_syncs = NPU_ARRAY(&self->sync, 1);
	   self->s.out_syncs.stride = 8)
BAD_SUBMIT(out_syncs_too_many, EINVAL, self->s.out_syncs = NPU_ARRAY(&self->sync, 1);
	   self->s.out_syncs.count = ~0u)

/* In 1.0 the word behind the flags is padding; later it names a queue. */
BAD_SUBMIT(word_behind_flags, npu_minor(self->fd) ? ENOENT : EINVAL,
	   memcpy((char *)&self->s + offsetof(struct drm_npu_submit, flags) + 4,
		  &(uint32_t){ 99 }, 4))

TEST_HARNESS_MAIN
