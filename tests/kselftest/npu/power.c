// SPDX-License-Identifier: GPL-2.0-only
/*
 * Suspend and resume of the system: the kernel's own test modes, which stop at a
 * step and come back after five seconds, and suspend to idle with the clock as
 * alarm. Files, buffers and jobs survive it.
 */
#include "npu.h"

FIXTURE(power) {
	struct npu_device dev;
	int fd;
	struct npu_bo a, b, device;
};

FIXTURE_SETUP(power)
{
	char states[64] = "";

	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 1)
		SKIP(return, "the driver has no suspend in 1.0");
	npu_read_file("/sys/power/state", states, sizeof(states));
	if (!strstr(states, "freeze") || access("/sys/power/state", W_OK))
		SKIP(return, "no suspend to idle");
	npu_write_file("/sys/power/mem_sleep", "s2idle");
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &self->device));
}

FIXTURE_TEARDOWN_PARENT(power)
{
	npu_write_file("/sys/power/pm_test", "none");
}

/* Suspends as far as this step of pm_test, or skips. */
#define SUSPEND(step) do {							\
	if (npu_write_file("/sys/power/pm_test", step))				\
		SKIP(return, "no pm_test");					\
	npu_write_file("/sys/module/suspend/parameters/pm_test_delay", "1");	\
	ASSERT_EQ(0, npu_write_file("/sys/power/state", "freeze"));		\
} while (0)

TEST_F_TIMEOUT(power, freezer, 60)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 64);

	SUSPEND("freezer");
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
}

TEST_F_TIMEOUT(power, devices, 60)
{
	struct drm_npu_command c[2];
	uint32_t resets = npu_info(self->fd).resets;

	npu_fill(self->a.map, NPU_MIB, 11);
	c[0] = npu_copy(&self->a, &self->device, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->fd, c, 1));
	SUSPEND("devices");
	c[1] = npu_copy(&self->device, &self->b, NPU_MIB);
	ASSERT_EQ(0, npu_run_error(self->fd, c + 1, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	EXPECT_EQ(resets, npu_info(self->fd).resets);
}

/* It waits for the jobs that run; those behind them run afterwards. */
TEST_F_TIMEOUT(power, devices_with_jobs, 90)
{
	struct drm_npu_command c = npu_long(&self->a, &self->b, 64);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t seqno = 0;
	int i;

	for (i = 1; i <= 10; i++) {
		out.point = i;
		ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, &seqno));
	}
	SUSPEND("devices");
	ASSERT_EQ(0, npu_wait_ms(self->fd, out.handle, 10, 60000));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno - i, &s, sizeof(s)));
		EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	}
}

TEST_F_TIMEOUT(power, twice, 90)
{
	struct drm_npu_command c = npu_copy(&self->a, &self->b, 64);

	SUSPEND("devices");
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	SUSPEND("devices");
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
}

/* All the way down, woken by the clock after two seconds. */
TEST_F_TIMEOUT(power, suspend_to_idle, 90)
{
	const char *alarm = "/sys/class/rtc/rtc0/wakealarm";
	struct drm_npu_command c = npu_copy(&self->a, &self->b, NPU_MIB);

	if (access(alarm, W_OK))
		SKIP(return, "no clock that could wake it");
	npu_write_file("/sys/power/pm_test", "none");
	npu_write_file(alarm, "0");
	ASSERT_EQ(0, npu_write_file(alarm, "+2"));
	npu_fill(self->a.map, NPU_MIB, 12);
	ASSERT_EQ(0, npu_write_file("/sys/power/state", "freeze"));
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

TEST_HARNESS_MAIN
