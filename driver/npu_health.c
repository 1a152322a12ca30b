// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device says of its health, §12: error log and firmware log for the kernel's log,
 * telemetry, crash dumps of firmware.
 */

#include <linux/bitfield.h>
#include <linux/debugfs.h>

#include <drm/drm_debugfs.h>
#include <drm/drm_drv.h>
#include <drm/drm_managed.h>

#include "npu_drv.h"

/* Firmware interface that has the log pages of §12. */
#define NPU_FW_MINOR_RAS	2

/* What one GET_LOG_PAGE returns at most (§4.7), and how many are made for one log. */
#define NPU_LOG_PAGE_SIZE	4096
#define NPU_LOG_PAGES		8

/* The longest crash dump: 255 queues and 8 KiB of log (§12.8). */
#define NPU_CRASH_SIZE_MAX	(16 * 1024)

/* npu_has_ras says whether there is anything to ask; firmware has identified itself. */
bool npu_has_ras(struct npu_device *npu)
{
	return npu->params.features & NPU_FEATURES_LO_RAS &&
	       FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version) >= NPU_FW_MINOR_RAS;
}

static const char *npu_unit_name(u8 unit)
{
	static const char * const names[] = {
		[NPU_UNIT_DRAM] = "device memory",
		[NPU_UNIT_SCRATCHPAD] = "scratchpad",
		[NPU_UNIT_CORE] = "core",
		[NPU_UNIT_DMA] = "DMA channel",
		[NPU_UNIT_CP] = "control processor",
		[NPU_UNIT_THERMAL] = "temperature sensor",
	};

	return unit < ARRAY_SIZE(names) ? names[unit] : "unknown unit";
}

static const char *npu_error_name(u8 kind)
{
	static const char * const names[] = {
		[NPU_ERROR_CORRECTED] = "CORRECTED",
		[NPU_ERROR_UNCORRECTED] = "UNCORRECTED",
		[NPU_ERROR_POISON] = "POISON",
		[NPU_ERROR_THERMAL] = "THERMAL",
		[NPU_ERROR_ENGINE_RESET] = "ENGINE_RESET",
		[NPU_ERROR_FIRMWARE] = "FIRMWARE",
	};

	return kind < ARRAY_SIZE(names) && names[kind] ? names[kind] : "unknown";
}

/* Logs. */

/*
 * Calls fn, if it is not NULL, for each entry of a log page (§12.3) from *cursor on; entries
 * have size bytes or more. Then *cursor is that of the next entry. Returns 0 or an error;
 * npu_health.lock is held, the device awake.
 */
static int npu_log_read(struct npu_device *npu, u32 page, u32 *cursor, size_t size,
			void (*fn)(struct npu_device *npu, const void *entry, void *arg), void *arg)
{
	const struct npu_log_head *head = npu->health.page;
	u32 count, oldest, next, stride, i, pages = 0;
	int ret;

	lockdep_assert_held(&npu->health.lock);

	do {
		ret = npu_mbox_read_log(npu, page, *cursor, npu->health.page, NPU_LOG_PAGE_SIZE);
		if (ret < 0)
			return ret;
		if (ret < (int)sizeof(*head))
			return -EIO;
		next = le32_to_cpu(head->next);
		oldest = le32_to_cpu(head->oldest);
		stride = le32_to_cpu(head->size);
		if (stride < size)
			return -EIO;
		count = min(le32_to_cpu(head->count), ((u32)ret - (u32)sizeof(*head)) / stride);
		if (oldest > *cursor)
			*cursor = oldest;
		for (i = 0; i < count && fn; i++)
			fn(npu, npu->health.page + sizeof(*head) + i * stride, arg);
		*cursor += count;
	} while (fn && count && *cursor != next && ++pages < NPU_LOG_PAGES);
	if (!fn)
		*cursor = next;
	return 0;
}

/* Tells the kernel's log of a record of the error log. */
static void npu_error_report(struct npu_device *npu, const void *entry, void *arg)
{
	const struct npu_error_record *r = entry;
	struct device *dev = npu->drm.dev;
	const char *unit = npu_unit_name(r->unit);
	u64 address = le64_to_cpu(r->address);
	u16 detail = le16_to_cpu(r->detail);

	switch (r->kind) {
	case NPU_ERROR_CORRECTED:
		dev_warn_ratelimited(dev, "memory error in the %s at 0x%llx, corrected\n", unit,
				     address);
		break;
	case NPU_ERROR_UNCORRECTED:
		dev_err_ratelimited(dev,
				    "memory error in the %s at 0x%llx, not corrected: commands that read the 64 bytes there fail\n",
				    unit, address);
		break;
	case NPU_ERROR_POISON:
		dev_err_ratelimited(dev,
				    "queue %u, command %u: read the %s at 0x%llx, where a memory error was\n",
				    le16_to_cpu(r->queue), le16_to_cpu(r->command_id), unit,
				    address);
		break;
	case NPU_ERROR_THERMAL:
		if (detail)
			dev_warn_ratelimited(dev, "too hot, %lld m°C: throttled, level %u of %u\n",
					     (s64)address, detail, NPU_THERMAL_LEVEL_CRITICAL);
		else
			dev_info_ratelimited(dev, "%lld m°C: no longer throttled\n", (s64)address);
		npu_hwmon_throttled(npu);
		break;
	case NPU_ERROR_FIRMWARE: /* told when it was found dead */
		break;
	default:
		dev_info_ratelimited(dev, "error log: %s (%u), %s, address 0x%llx, detail %u\n",
				     npu_error_name(r->kind), r->kind, unit, address, detail);
	}
}

/* Passes a line of firmware on, with its level. */
static void npu_line_report(struct npu_device *npu, const void *entry, void *arg)
{
	static DEFINE_RATELIMIT_STATE(limit, 5 * HZ, NPU_LOG_FW_ENTRIES);
	const struct npu_log_line *line = entry;
	int length = min_t(int, line->length, sizeof(line->text));
	struct device *dev = npu->drm.dev;

	if (line->level > LOGLEVEL_WARNING) {
		drm_dbg(&npu->drm, "firmware: %*pE\n", length, line->text);
		return;
	}
	if (!__ratelimit(&limit))
		return;
	if (line->level == LOGLEVEL_WARNING)
		dev_warn(dev, "firmware: %*pE\n", length, line->text);
	else
		dev_err(dev, "firmware: %*pE\n", length, line->text);
}

/* Tells of what is new; the device is awake. */
static int npu_health_tell(struct npu_device *npu)
{
	struct npu_health *h = &npu->health;
	u32 before, generation = READ_ONCE(npu->generation);
	int ret;

	lockdep_assert_held(&h->lock);

	/* What was before the driver is in debugfs. */
	ret = npu_log_read(npu, NPU_LOG_ERRORS, &h->next_error, sizeof(struct npu_error_record),
			   h->started ? npu_error_report : NULL, NULL);
	if (ret)
		return ret;
	h->started = true;

	if (h->generation != generation) {
		h->generation = generation;
		h->next_line = 1;
	}
	before = h->next_line;
	ret = npu_log_read(npu, NPU_LOG_FIRMWARE, &h->next_line, sizeof(struct npu_log_line),
			   npu_line_report, NULL);
	if (!ret && h->next_line - before > NPU_LOG_FW_ENTRIES)
		drm_info(&npu->drm, "firmware: %u lines were lost\n",
			 h->next_line - before - NPU_LOG_FW_ENTRIES);
	return ret;
}

static void npu_health_work(struct work_struct *work)
{
	struct npu_device *npu = container_of(work, struct npu_device, health.work);
	int ret, idx;

	if (!npu_enter(npu, &idx))
		return;
	if (!npu_wake(npu)) {
		mutex_lock(&npu->health.lock);
		ret = npu_health_tell(npu);
		mutex_unlock(&npu->health.lock);
		npu_relax(npu);
		if (ret == -ETIMEDOUT)
			npu_schedule_recovery(npu, NPU_RECOVER_RESET);
	}
	drm_dev_exit(idx);
}

/* npu_health_check lets the kernel's log have what is new in the device's logs, soon. */
void npu_health_check(struct npu_device *npu)
{
	if (npu_has_ras(npu))
		schedule_work(&npu->health.work);
}

/* Telemetry. */

/* npu_telemetry_read reads the NPU_SENSOR_COUNT values of log page 4; the device is awake. */
int npu_telemetry_read(struct npu_device *npu, s64 *values)
{
	__le64 page[NPU_SENSOR_COUNT];
	int ret, i;

	ret = npu_mbox_read(npu, NPU_ADMIN_GET_LOG_PAGE, NPU_LOG_TELEMETRY, page, sizeof(page),
			    NPU_MBOX_TIMEOUT_MS);
	if (ret == -ETIMEDOUT)
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
	for (i = 0; i < NPU_SENSOR_COUNT && !ret; i++)
		values[i] = le64_to_cpu(page[i]);
	if (npu->ops->silent_errors)
		npu_health_check(npu);
	return ret;
}

/* npu_query_telemetry answers DRM_NPU_QUERY_TELEMETRY of a device with RAS. */
int npu_query_telemetry(struct npu_device *npu, struct drm_npu_telemetry *telemetry)
{
	s64 v[NPU_SENSOR_COUNT];
	int ret;

	ret = npu_wake(npu);
	if (ret)
		return ret;
	ret = npu_telemetry_read(npu, v);
	npu_relax(npu);
	if (ret)
		return ret;
	*telemetry = (struct drm_npu_telemetry){
		.uptime_us = v[NPU_SENSOR_UPTIME],
		.temperature = v[NPU_SENSOR_TEMPERATURE],
		.ambient = v[NPU_SENSOR_AMBIENT],
		.clock_khz = v[NPU_SENSOR_CLOCK],
		.max_clock_khz = v[NPU_SENSOR_MAX_CLOCK],
		.core_utilization = v[NPU_SENSOR_CORE_UTILIZATION],
		.dma_utilization = v[NPU_SENSOR_DMA_UTILIZATION],
		.core_busy_us = v[NPU_SENSOR_CORE_BUSY],
		.dma_busy_us = v[NPU_SENSOR_DMA_BUSY],
		.throttle_level = v[NPU_SENSOR_THROTTLE],
		.threshold_1 = v[NPU_SENSOR_THERMAL_1],
		.threshold_2 = v[NPU_SENSOR_THERMAL_2],
		.threshold_critical = v[NPU_SENSOR_THERMAL_CRITICAL],
	};
	return 0;
}

/* Crash dumps. */

/* Reads the crash dump by log page 7; returns its size, or 0 without a new one. */
static size_t npu_crash_read(struct npu_device *npu)
{
	struct npu_health *h = &npu->health;
	struct npu_crash_dump *dump = h->crash;
	bool known = h->crash_known;
	size_t size = 0;
	u32 number;
	int ret;

	while (size < NPU_CRASH_SIZE_MAX) {
		ret = npu_mbox_read_log(npu, NPU_LOG_CRASH, size, h->crash + size,
					min(NPU_LOG_PAGE_SIZE, NPU_CRASH_SIZE_MAX - size));
		if (ret < 0)
			return 0;
		if (ret == 0)
			break;
		size += ret;
	}
	number = size >= sizeof(*dump) ? le32_to_cpu(dump->number) : 0;
	if (known && number == h->crash_number)
		return 0;
	h->crash_known = true;
	h->crash_number = number;
	return known ? size : 0; /* one from before the driver may have been seen by another */
}

/*
 * npu_crash_take gets the crash dump that firmware left, for npu_crash_print(); each is got
 * once. Returns its size, or 0 without one. npu_device.lock is held. Nothing is allocated.
 */
size_t npu_crash_take(struct npu_device *npu)
{
	struct npu_crash_dump *dump = npu->health.crash;
	size_t size;

	lockdep_assert_held(&npu->lock);

	if (!(npu->params.features & NPU_FEATURES_LO_RAS))
		return 0;
	if (npu->ops->take_crash)
		size = npu->ops->take_crash(npu, dump, NPU_CRASH_SIZE_MAX);
	else
		size = npu_has_ras(npu) ? npu_crash_read(npu) : 0;
	if (size < sizeof(*dump) || le32_to_cpu(dump->magic) != NPU_CRASH_DUMP_MAGIC)
		return 0;
	return size;
}

static void npu_line_print(const struct npu_log_line *line, struct drm_printer *p)
{
	u64 time = le64_to_cpu(line->time);

	drm_printf(p, "  [%5llu.%06llu] <%u> %*pE\n", time / USEC_PER_SEC, time % USEC_PER_SEC,
		   line->level, min_t(int, line->length, sizeof(line->text)), line->text);
}

/* Prints the lines of the log in a crash dump, the oldest first (§12.7). */
static void npu_crash_print_log(const struct npu_log_line *lines, u32 count,
				struct drm_printer *p)
{
	u32 newest = 0, i;

	for (i = 0; i < count; i++)
		newest = max(newest, le32_to_cpu(lines[i].number));
	for (i = 0; i < count && newest; i++) {
		const struct npu_log_line *line = &lines[(newest + 1 + i) % count];

		if (line->number)
			npu_line_print(line, p);
	}
}

/* npu_crash_print prints what the crash dump that npu_crash_take() got says, then its bytes. */
void npu_crash_print(struct npu_device *npu, size_t size, struct drm_printer *p)
{
	static const char * const csrs[] = {
		"pc", "mstatus", "mie", "mip", "mtvec", "mscratch", "mepc", "mcause", "mtval",
	};
	const struct npu_crash_dump *dump = npu->health.crash;
	u32 status = le32_to_cpu(dump->boot_status), version = le32_to_cpu(dump->fw_version);
	u32 build = le32_to_cpu(dump->fw_build), error = FIELD_GET(NPU_BOOT_STATUS_ERROR, status);
	u32 log = le32_to_cpu(dump->log_offset), log_size = le32_to_cpu(dump->log_size);
	u64 time = le64_to_cpu(dump->time);
	size_t i;

	drm_printf(p, "firmware crash: number %u, error %s (%u), detail 0x%08x, after %llu us\n",
		   le32_to_cpu(dump->number), npu_boot_error_name(error), error,
		   le32_to_cpu(dump->error_detail), time);
	drm_printf(p, "  interface %lu.%lu, build %lu.%lu.%lu\n",
		   FIELD_GET(NPU_FW_VERSION_MAJOR, version),
		   FIELD_GET(NPU_FW_VERSION_MINOR, version), FIELD_GET(NPU_FW_BUILD_MAJOR, build),
		   FIELD_GET(NPU_FW_BUILD_MINOR, build), FIELD_GET(NPU_FW_BUILD_PATCH, build));
	for (i = 0; i < ARRAY_SIZE(csrs); i++)
		drm_printf(p, "  %-8s 0x%08x\n", csrs[i], le32_to_cpu(dump->csrs[i]));
	for (i = 0; i < ARRAY_SIZE(dump->regs); i += 4)
		drm_printf(p, "  x%-2zu 0x%08x 0x%08x 0x%08x 0x%08x\n", i,
			   le32_to_cpu(dump->regs[i]), le32_to_cpu(dump->regs[i + 1]),
			   le32_to_cpu(dump->regs[i + 2]), le32_to_cpu(dump->regs[i + 3]));
	drm_printf(p, "firmware log:\n");
	if (log <= size && log_size <= size - log && IS_ALIGNED(log, sizeof(u64)))
		npu_crash_print_log((const void *)dump + log,
				    log_size / sizeof(struct npu_log_line), p);
	drm_printf(p, "crash dump: %zu bytes\n", size);
	for (i = 0; i < size; i += 64)
		drm_printf(p, "  %04zx %*phN\n", i, (int)min(size - i, 64UL), (const u8 *)dump + i);
}

/* debugfs. */

static void npu_error_show(struct npu_device *npu, const void *entry, void *m)
{
	const struct npu_error_record *r = entry;
	u64 time = le64_to_cpu(r->time);

	seq_printf(m, "%u: [%5llu.%06llu] %s, %s, address 0x%llx, detail %u",
		   le32_to_cpu(r->number), time / USEC_PER_SEC, time % USEC_PER_SEC,
		   npu_error_name(r->kind), npu_unit_name(r->unit), le64_to_cpu(r->address),
		   le16_to_cpu(r->detail));
	if (le16_to_cpu(r->flags) & NPU_ERROR_FLAG_COMMAND)
		seq_printf(m, ", queue %u, command %u, context %u", le16_to_cpu(r->queue),
			   le16_to_cpu(r->command_id), le16_to_cpu(r->context));
	seq_puts(m, "\n");
}

static void npu_line_show(struct npu_device *npu, const void *entry, void *m)
{
	struct drm_printer p = drm_seq_file_printer(m);

	npu_line_print(entry, &p);
}

static int npu_show_telemetry(struct seq_file *m, struct npu_device *npu)
{
	static const char * const names[] = {
		[NPU_SENSOR_UPTIME] = "uptime us",
		[NPU_SENSOR_TEMPERATURE] = "temperature m°C",
		[NPU_SENSOR_AMBIENT] = "ambient m°C",
		[NPU_SENSOR_CLOCK] = "clock kHz",
		[NPU_SENSOR_MAX_CLOCK] = "highest clock kHz",
		[NPU_SENSOR_CORE_UTILIZATION] = "core utilization permille",
		[NPU_SENSOR_DMA_UTILIZATION] = "dma utilization permille",
		[NPU_SENSOR_CORE_BUSY] = "core busy us",
		[NPU_SENSOR_DMA_BUSY] = "dma busy us",
		[NPU_SENSOR_THROTTLE] = "throttle level",
		[NPU_SENSOR_POWER] = "power state",
		[NPU_SENSOR_THERMAL_1] = "threshold 1 m°C",
		[NPU_SENSOR_THERMAL_2] = "threshold 2 m°C",
		[NPU_SENSOR_THERMAL_CRITICAL] = "threshold critical m°C",
	};
	s64 values[NPU_SENSOR_COUNT];
	int ret, i;

	static_assert(ARRAY_SIZE(names) == NPU_SENSOR_COUNT);
	ret = npu_telemetry_read(npu, values);
	for (i = 0; i < NPU_SENSOR_COUNT && !ret; i++)
		seq_printf(m, "%s: %lld\n", names[i], values[i]);
	return ret;
}

static int npu_show_errors(struct seq_file *m, struct npu_device *npu)
{
	u32 cursor = 0;

	return npu_log_read(npu, NPU_LOG_ERRORS, &cursor, sizeof(struct npu_error_record),
			    npu_error_show, m);
}

static int npu_show_firmware_log(struct seq_file *m, struct npu_device *npu)
{
	u32 cursor = 1;

	return npu_log_read(npu, NPU_LOG_FIRMWARE, &cursor, sizeof(struct npu_log_line),
			    npu_line_show, m);
}

static int npu_debugfs_health(struct seq_file *m, void *data)
{
	struct drm_debugfs_entry *entry = m->private;
	int (*show)(struct seq_file *m, struct npu_device *npu) = entry->file.data;
	struct npu_device *npu = to_npu(entry->dev);
	int ret, idx;

	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_has_ras(npu) ? npu_wake(npu) : -EOPNOTSUPP;
	if (!ret) {
		mutex_lock(&npu->health.lock);
		ret = show(m, npu);
		mutex_unlock(&npu->health.lock);
		npu_relax(npu);
	}
	drm_dev_exit(idx);
	return ret;
}

static const struct drm_debugfs_info npu_debugfs_files[] = {
	{ "telemetry", npu_debugfs_health, 0, npu_show_telemetry },
	{ "errors", npu_debugfs_health, 0, npu_show_errors },
	{ "firmware_log", npu_debugfs_health, 0, npu_show_firmware_log },
};

/* npu_health_init makes room, and files in debugfs; npu_params is complete. */
int npu_health_init(struct npu_device *npu)
{
	struct npu_health *h = &npu->health;
	int ret;

	INIT_WORK(&h->work, npu_health_work);
	ret = drmm_mutex_init(&npu->drm, &h->lock);
	if (ret || !(npu->params.features & NPU_FEATURES_LO_RAS))
		return ret;
	h->page = drmm_kmalloc(&npu->drm, NPU_LOG_PAGE_SIZE, GFP_KERNEL);
	h->crash = drmm_kmalloc(&npu->drm, NPU_CRASH_SIZE_MAX, GFP_KERNEL);
	if (!h->page || !h->crash)
		return -ENOMEM;
	drm_debugfs_add_files(&npu->drm, npu_debugfs_files, ARRAY_SIZE(npu_debugfs_files));
	return 0;
}
