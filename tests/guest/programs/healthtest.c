/* SPDX-License-Identifier: Apache-2.0 */
/*
 * healthtest checks what a driver's user sees of the device's health (§12): telemetry, hwmon, memory
 * errors, throttling, firmware that crashes. It prints KTAP and exits with 0 if no test failed.
 *
 * usage: healthtest [-p]    -p: the function sleeps when it is idle, so this is checked too
 *
 * The test wants the device for itself, and root. A line "operator: WHAT" asks whoever runs the guest to
 * do it: hot (96 °C), critical (106 °C), cool (the model's temperature), corrected and uncorrected (memory error at
 * 32 MiB in device memory of 64 MiB), trap and hang (firmware).
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "npu.h"

#define WAIT_MS		60000
#define PATIENCE	300 /* tenths of a second */
#define PAGE		4096
#define MIB		(1 << 20)
#define BAD		(32 * MIB) /* address of memory errors */
#define DRIVERS		(1ULL << 47) /* where the driver maps buffers if the device has an MMU */
#define POISON		0x15

#define DEVICE		DRM_NPU_PLACEMENT_DEVICE
#define SYSTEM		DRM_NPU_PLACEMENT_SYSTEM

static int fd = -1;

static void row_value(long long want, long long got, const char *name)
{
	if (!row(want == got, "%s", name))
		printf("# got %lld, want %lld\n", got, want);
}

static void operator(const char *what)
{
	printf("operator: %s\n", what);
	fflush(stdout);
}

/* Reads a file of the sensors; LLONG_MIN + errno if that fails. */
#define NO_VALUE(error)	(-1000000000LL - (error))

static int read_sensor(const char *name, char *text, size_t size)
{
	char path[256];
	struct stat st;
	glob_t found;
	int file, n;

	if (fstat(fd, &st))
		return -errno;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device/hwmon/hwmon*/%s",
		 major(st.st_rdev), minor(st.st_rdev), name);
	if (glob(path, 0, NULL, &found) || found.gl_pathc != 1)
		return -ENOENT;
	file = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
	globfree(&found);
	if (file < 0)
		return -errno;
	n = read(file, text, size - 1);
	if (n < 0)
		n = -errno;
	close(file);
	if (n > 0)
		text[n] = 0;
	return n;
}

static long long sensor(const char *name)
{
	char text[64] = "";
	int ret = read_sensor(name, text, sizeof(text));

	return ret < 0 ? NO_VALUE(-ret) : atoll(text);
}

static bool sensor_says(const char *name, const char *want)
{
	char text[64] = "";

	return read_sensor(name, text, sizeof(text)) > 0 && !strcmp(text, want);
}

static bool sensor_becomes(const char *name, long long want)
{
	int i;

	for (i = 0; i < PATIENCE && sensor(name) != want; i++)
		usleep(100000);
	return sensor(name) == want;
}

static struct drm_npu_telemetry telemetry(void)
{
	struct drm_npu_telemetry t;
	int ret = npu_query(fd, DRM_NPU_QUERY_TELEMETRY, 0, &t, sizeof(t));

	if (ret)
		bail("telemetry", ret);
	return t;
}

static struct drm_npu_counters counters(void)
{
	struct drm_npu_counters c;
	int ret = npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &c, sizeof(c));

	if (ret)
		bail("counters", ret);
	return c;
}

/* Jobs. */

static struct drm_npu_command copy(const struct npu_bo *src, uint64_t at, const struct npu_bo *dst,
				   uint64_t to, uint32_t nx, uint32_t ny)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY };

	c.copy.src_handle = src->handle;
	c.copy.src_offset = at;
	c.copy.dst_handle = dst->handle;
	c.copy.dst_offset = to;
	c.copy.nx = nx;
	c.copy.ny = ny;
	c.copy.nz = 1;
	return c;
}

static int run(const struct drm_npu_command *command, struct drm_npu_job_status *status)
{
	return npu_run(fd, command, 1, WAIT_MS, status);
}

/* Submits to a queue of a file; the sync objects may be 0. Returns the job's number. */
static uint64_t submit_to(int file, uint32_t queue, const struct drm_npu_command *commands,
			  uint32_t count, uint32_t in, uint32_t out)
{
	struct drm_npu_sync wait = { .handle = in }, signal = { .handle = out };
	struct drm_npu_submit args = {
		.commands = { sizeof(*commands), count, (uintptr_t)commands },
		.in_syncs = { sizeof(wait), in != 0, (uintptr_t)&wait },
		.out_syncs = { sizeof(signal), out != 0, (uintptr_t)&signal },
		.queue = queue,
	};
	int ret = npu_ioctl(file, DRM_IOCTL_NPU_SUBMIT, &args);

	if (ret)
		bail("submit", ret);
	return args.seqno;
}

static uint64_t submit(uint32_t queue, const struct drm_npu_command *command, uint32_t in,
		       uint32_t out)
{
	return submit_to(fd, queue, command, 1, in, out);
}

static void destroy_queue(uint32_t queue)
{
	struct drm_npu_queue_destroy args = { .queue = queue };

	npu_ioctl(fd, DRM_IOCTL_NPU_QUEUE_DESTROY, &args);
}

static int status_of(uint64_t seqno, struct drm_npu_job_status *status)
{
	return npu_query(fd, DRM_NPU_QUERY_JOB, seqno, status, sizeof(*status));
}

/* Telemetry. */

static void test_telemetry(void)
{
	struct drm_npu_telemetry a = telemetry(), b;
	struct drm_npu_telemetry small;

	usleep(20000);
	b = telemetry();
	row(b.uptime_us >= a.uptime_us + 20000, "telemetry: the card's time goes on");
	row(a.temperature >= a.ambient && a.temperature < a.threshold_1, "telemetry: %d m°C",
	    a.temperature);
	row_value(35000, a.ambient, "telemetry: ambient temperature");
	row(a.threshold_1 == 85000 && a.threshold_2 == 95000 && a.threshold_critical == 105000,
	    "telemetry: thresholds");
	row(a.clock_khz && a.clock_khz == a.max_clock_khz && !a.throttle_level,
	    "telemetry: full speed, %u kHz", a.clock_khz);
	row(a.core_utilization <= 1000 && a.dma_utilization <= 1000, "telemetry: utilization");
	memset(&small, 0xff, sizeof(small));
	row(!npu_query(fd, DRM_NPU_QUERY_TELEMETRY, 0, &small, 8) && small.uptime_us >= b.uptime_us &&
	    small.core_busy_us == UINT64_MAX, "telemetry: a part of it");
	row_value(-EINVAL, npu_query(fd, DRM_NPU_QUERY_TELEMETRY, 1, &small, sizeof(small)),
		  "telemetry: takes no argument");
}

static void test_counters(const struct npu_bo *device, const struct npu_bo *system)
{
	struct drm_npu_command c = copy(system, 0, device, 0, MIB, 1);
	struct drm_npu_counters before = counters(), after;
	struct drm_npu_telemetry t = telemetry();
	struct drm_npu_job_status status;

	row_value(0, run(&c, &status), "counters: a job");
	after = counters();
	row(after.copies == before.copies + 1, "counters: one copy more");
	row(!after.ecc_corrected && !after.ecc_uncorrected && !after.engine_resets &&
	    !after.timeouts && !after.translation_faults, "counters: nothing is wrong");
	row(telemetry().dma_busy_us > t.dma_busy_us, "counters: the DMA channel has worked");
}

static void test_hwmon(void)
{
	row(sensor_says("name", "npu\n") && sensor_says("temp1_label", "npu\n") &&
	    sensor_says("temp2_label", "ambient\n"), "hwmon: names");
	row(llabs(sensor("temp1_input") - telemetry().temperature) < 2000, "hwmon: temperature");
	row_value(35000, sensor("temp2_input"), "hwmon: ambient temperature");
	row_value(85000, sensor("temp1_max"), "hwmon: max");
	row_value(82000, sensor("temp1_max_hyst"), "hwmon: hysteresis of max");
	row_value(105000, sensor("temp1_crit"), "hwmon: crit");
	row_value(102000, sensor("temp1_crit_hyst"), "hwmon: hysteresis of crit");
	row(!sensor("temp1_max_alarm") && !sensor("temp1_crit_alarm"), "hwmon: no alarm");
}

/* Throttling. */

static void test_throttling(const struct npu_bo *device, const struct npu_bo *system)
{
	struct drm_npu_command c = copy(system, 0, device, 0, MIB, 1);
	uint32_t before = get_info(fd).resets, done = make_syncobj(fd);
	struct drm_npu_job_status status;
	struct drm_npu_telemetry t;
	uint64_t seqno;

	operator("hot");
	row(sensor_becomes("temp1_max_alarm", 1), "throttling: alarm");
	row_value(96000, sensor("temp1_input"), "throttling: temperature");
	row_value(0, sensor("temp1_crit_alarm"), "throttling: not critical");
	t = telemetry();
	row_value(2, t.throttle_level, "throttling: level 2");
	row_value(t.max_clock_khz / 4, t.clock_khz, "throttling: a quarter of the clock");
	row_value(0, run(&c, &status), "throttling: jobs run");

	operator("critical");
	row(sensor_becomes("temp1_crit_alarm", 1), "critical: alarm");
	seqno = submit(0, &c, 0, done);
	usleep(500000);
	row(!status_of(seqno, &status) && status.state == DRM_NPU_JOB_PENDING,
	    "critical: no job runs");
	row_value(3, telemetry().throttle_level, "critical: firmware answers");
	operator("cool");
	row(!npu_wait(fd, done, 0, WAIT_MS) && !status_of(seqno, &status) &&
	    status.state == DRM_NPU_JOB_DONE, "critical: it runs when the card is cool");
	row(sensor_becomes("temp1_max_alarm", 0), "critical: alarms end");
	row_value(before, get_info(fd).resets, "critical: no reset");
	npu_syncobj_destroy(fd, done);
}

/* Memory errors. */

static void test_memory(const struct npu_bo *device, const struct npu_bo *system)
{
	/* The buffer has most of device memory, so the address is somewhere in it. */
	struct drm_npu_command all = copy(device, 0, system, 0, MIB, device->size / MIB);
	struct drm_npu_command clean = copy(system, 0, device, 0, MIB, device->size / MIB);
	struct drm_npu_job_status status;
	uint64_t errors, where;
	int i;

	all.copy.src_stride_y = MIB;
	clean.copy.dst_stride_y = MIB;
	errors = counters().ecc_corrected;
	operator("corrected");
	for (i = 0; i < PATIENCE && counters().ecc_corrected == errors; i++)
		usleep(100000);
	row_value(errors + 1, counters().ecc_corrected, "memory: a corrected error is counted");
	row_value(0, run(&all, &status), "memory: and harms nobody");

	errors = counters().ecc_uncorrected;
	operator("uncorrected");
	for (i = 0; i < PATIENCE && counters().ecc_uncorrected == errors; i++)
		usleep(100000);
	row_value(errors + 1, counters().ecc_uncorrected, "memory: an uncorrected error is counted");
	row_value(-EIO, run(&all, &status), "memory: a job that reads it fails");
	/* Where the driver maps a buffer is its own affair, but it keeps the page. */
	where = status.info >= DRIVERS ? status.info % MIB : status.info - BAD;
	row(status.status == POISON && !where, "memory: with POISON and the address");
	if (status.status != POISON || where)
		printf("# status 0x%x, info 0x%llx\n", status.status,
		       (unsigned long long)status.info);
	row_value(0, run(&clean, &status), "memory: overwriting works");
	row_value(0, run(&all, &status), "memory: then it can be read again");
}

/* Firmware. */

/* Over virtio a command that does not end in two seconds needs a second reset: nothing is busy. */
static void test_crash(const char *how, bool busy, const struct npu_bo *device,
		       const struct npu_bo *system)
{
	struct drm_npu_command endless = copy(device, 0, system, MIB, MIB, 65535);
	struct drm_npu_command quick = copy(system, 0, device, MIB, MIB, 1);
	struct drm_npu_command there = copy(system, 0, device, 0, MIB, 1);
	struct drm_npu_command back = copy(device, 0, system, 0, MIB, 1);
	uint32_t before = get_info(fd).resets, last = make_syncobj(fd), later = make_syncobj(fd);
	uint32_t queue = make_queue(fd);
	struct drm_npu_job_status status;
	uint64_t jobs[8], waits;
	double start;
	int done = 0;
	int i, ret;

	memset(system->map, 0x3c, MIB);
	system->map[MIB] = 0;
	row(!run(&there, &status), "%s: a job before", how);
	endless.copy.nz = 65535;
	for (i = 0; i < 8; i++)
		jobs[i] = submit(0, i || !busy ? &quick : &endless, 0, i == 7 ? last : 0);
	waits = submit(queue, &back, last, later);
	for (i = 0; i < PATIENCE && busy && *(volatile uint8_t *)&system->map[MIB] != 0x3c; i++)
		usleep(100000);
	row(i < PATIENCE, "%s: a job on the device", how);
	if (!busy) { /* a reset may end any job that has started */
		ret = npu_wait(fd, later, 0, WAIT_MS);
		if (ret)
			bail("jobs before", ret);
	}
	start = npu_now();
	operator(how);
	for (i = 0; i < PATIENCE && get_info(fd).resets == before; i++)
		usleep(100000);
	row(get_info(fd).resets == before + 1, "%s: the driver resets the device once", how);
	printf("# after %.1f s\n", npu_now() - start);
	ret = npu_wait(fd, last, 0, WAIT_MS);
	if (!ret)
		ret = status_of(jobs[0], &status);
	row(!ret && status.error == (busy ? -ECANCELED : 0), "%s: the job on the device ends", how);
	for (i = 1; i < 8 && !ret; i++) {
		ret = status_of(jobs[i], &status);
		done += status.state == DRM_NPU_JOB_DONE;
	}
	row(!ret && done == 7, "%s: those behind it run", how);
	memset(system->map, 0, MIB);
	ret = npu_wait(fd, later, 0, WAIT_MS);
	if (!ret)
		ret = status_of(waits, &status);
	row(!ret && status.state == DRM_NPU_JOB_DONE, "%s: %s", how,
	    busy ? "one that waited runs afterwards" : "what was done stays done");
	if (ret || status.error)
		printf("# %d, error %d\n", ret, status.error);
	row(!run(&back, &status), "%s: a job after", how);
	row(system->map[0] == 0x3c && system->map[MIB - 1] == 0x3c, "%s: device memory is kept", how);
	row(telemetry().uptime_us > 0 && get_info(fd).resets == before + 1, "%s: firmware answers", how);
	destroy_queue(queue);
	npu_syncobj_destroy(fd, last);
	npu_syncobj_destroy(fd, later);
}

#define INNOCENT_COMMANDS	100
#define INNOCENT_SECONDS	2.5

/* Firmware dies under a job of another file: its context is innocent, and the job ends as if nothing had been. */
static void test_innocent(const char *how)
{
	static struct drm_npu_command work[INNOCENT_COMMANDS];
	uint32_t before = get_info(fd).resets, last, rows = 256;
	struct drm_npu_job_status status, behind;
	struct drm_npu_telemetry t;
	struct npu_bo device, system;
	uint64_t job, next;
	int other, ret, i;
	double start;

	other = npu_open();
	if (other < 0)
		bail("open again", other);
	device = make_bo(other, DEVICE, 2 * MIB);
	system = make_bo(other, SYSTEM, 2 * MIB);
	last = make_syncobj(other);
	memset(system.map, 0x3c, MIB);
	memset(system.map + MIB, 0, MIB);
	memset(device.map, 0, 2 * MIB);

	/* Commands of equal length, the last of which brings what is looked for. */
	work[0] = copy(&device, 0, &device, MIB, MIB, rows);
	start = npu_now();
	row(!npu_run(other, work, 1, WAIT_MS, &status), "innocent, %s: a job before", how);
	rows = INNOCENT_SECONDS / INNOCENT_COMMANDS / (npu_now() - start) * rows;
	rows = rows < 1 ? 1 : rows > 65535 ? 65535 : rows;
	for (i = 0; i < INNOCENT_COMMANDS; i++)
		work[i] = copy(&device, 0, &device, MIB, MIB, rows);
	work[0] = copy(&system, 0, &system, MIB, 1, 1);
	work[INNOCENT_COMMANDS - 1] = copy(&system, 0, &system, MIB, MIB, 1);

	start = npu_now();
	job = submit_to(other, 0, work, INNOCENT_COMMANDS, 0, 0);
	next = submit_to(other, 0, work, 1, 0, last);
	for (i = 0; i < PATIENCE * 100 && *(volatile uint8_t *)&system.map[MIB] != 0x3c; i++)
		usleep(1000);
	operator(how);
	for (i = 0; i < PATIENCE * 100; i++) {
		ret = npu_query(fd, DRM_NPU_QUERY_TELEMETRY, 0, &t, sizeof(t));
		if (ret)
			break;
		usleep(1000);
	}
	ret = npu_query(other, DRM_NPU_QUERY_JOB, job, &status, sizeof(status));
	row(i < PATIENCE * 100 && !ret && status.state == DRM_NPU_JOB_PENDING,
	    "innocent, %s: its job is on the device when firmware dies", how);
	ret = npu_wait(other, last, 0, WAIT_MS);
	if (!ret)
		ret = npu_query(other, DRM_NPU_QUERY_JOB, job, &status, sizeof(status));
	if (!ret)
		ret = npu_query(other, DRM_NPU_QUERY_JOB, next, &behind, sizeof(behind));
	row(!ret && status.state == DRM_NPU_JOB_DONE && !status.error,
	    "innocent, %s: the job succeeds", how);
	row(!memcmp(system.map, system.map + MIB, MIB), "innocent, %s: and all of it was done", how);
	row(!ret && behind.state == DRM_NPU_JOB_DONE && !behind.error,
	    "innocent, %s: so does the one behind it", how);
	printf("# job of %u rows, error %d at command %u, all after %.1f s\n", rows, status.error,
	       status.command, npu_now() - start);
	for (i = 0; i < PATIENCE && get_info(fd).resets == before; i++)
		usleep(100000);
	row(get_info(fd).resets == before + 1, "innocent, %s: the driver resets the device once", how);
	row(!npu_run(other, work, 1, WAIT_MS, &status), "innocent, %s: a job after", how);
	npu_syncobj_destroy(other, last);
	npu_bo_destroy(other, &device);
	npu_bo_destroy(other, &system);
	close(other);
}

/* Sleep. */

static void test_sleep(void)
{
	bool read = false;
	int i;

	/* Who looks five times a second must not keep it awake. It may fall asleep before a look. */
	for (i = 0; i < PATIENCE && !is_suspended(fd); i++) {
		read |= sensor("temp1_input") > 0;
		usleep(200000);
	}
	row(is_suspended(fd) && read, "sleep: reading sensors does not keep the card awake");
	row_value(NO_VALUE(ENODATA), sensor("temp1_input"), "sleep: no temperature then");
	row(is_suspended(fd), "sleep: and nobody wakes it");
	row(telemetry().uptime_us > 0 && !is_suspended(fd), "sleep: a query does");
	row(sensor("temp1_input") > 0, "sleep: and the sensor is back");

	for (i = 0; i < PATIENCE && !is_suspended(fd); i++)
		usleep(100000);
	operator("hot");
	usleep(2000000);
	row(is_suspended(fd), "sleep: nor does a change of temperature");
	row_value(2, telemetry().throttle_level, "sleep: which is known afterwards");
	operator("cool");
	row(sensor_becomes("temp1_max_alarm", 0) || is_suspended(fd), "sleep: cool");
}

int main(int argc, char **argv)
{
	bool sleeps = argc == 2 && !strcmp(argv[1], "-p");
	struct npu_bo device, system;
	int ret;

	if (argc > 1 && !sleeps) {
		fprintf(stderr, "usage: healthtest [-p]\n");
		return 2;
	}
	printf("KTAP version 1\n");
	fd = npu_open();
	if (fd < 0)
		bail("open /dev/accel/*", fd);
	ret = npu_bo_create(fd, DEVICE, 48 * MIB, &device); /* a mapping would keep the card awake */
	if (ret)
		bail("buffer object", ret);
	system = make_bo(fd, SYSTEM, 2 * MIB);
	test_telemetry();
	test_counters(&device, &system);
	test_hwmon();
	test_throttling(&device, &system);
	test_memory(&device, &system);
	test_crash("trap", sleeps, &device, &system);
	test_crash("hang", sleeps, &device, &system);
	test_innocent("trap");
	if (sleeps)
		test_sleep();
	npu_bo_destroy(fd, &device);
	npu_bo_destroy(fd, &system);
	return end_rows();
}
