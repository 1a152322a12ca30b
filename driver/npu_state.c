// SPDX-License-Identifier: GPL-2.0-only
/*
 * What device and driver are at, as text: for debugfs, and for a core dump before a reset.
 */

#include <linux/bitfield.h>
#include <linux/devcoredump.h>
#include <linux/timekeeping.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>

#include <drm/drm_debugfs.h>
#include <drm/drm_drv.h>
#include <drm/drm_managed.h>

#include "npu_drv.h"

/* Bounds a core dump: registers, 64 queues and their commands fit; the rest is cut off. */
#define NPU_DUMP_SIZE	(64 * 1024)

static void npu_state_device(struct npu_device *npu, struct drm_printer *p)
{
	drm_printf(p, "arch: %lu.%lu\n",
		   FIELD_GET(NPU_ARCH_VERSION_MAJOR, npu->params.arch_version),
		   FIELD_GET(NPU_ARCH_VERSION_MINOR, npu->params.arch_version));
	drm_printf(p, "firmware: %.32s, interface %lu.%lu, build %lu.%lu.%lu\n", npu->fw_name,
		   FIELD_GET(NPU_FW_VERSION_MAJOR, npu->fw_version),
		   FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version),
		   FIELD_GET(NPU_FW_BUILD_MAJOR, npu->fw_build),
		   FIELD_GET(NPU_FW_BUILD_MINOR, npu->fw_build),
		   FIELD_GET(NPU_FW_BUILD_PATCH, npu->fw_build));
	drm_printf(p, "up: %d\nresets: %d\ntimeouts: %d\n", npu->up, atomic_read(&npu->resets),
		   atomic_read(&npu->timeouts));
}

static void npu_state_fault(struct npu_device *npu, struct drm_printer *p)
{
	struct npu_fault_record record;

	spin_lock(&npu->fault_lock);
	record = npu->fault;
	spin_unlock(&npu->fault_lock);
	drm_printf(p, "faults: %llu\n", record.count);
	if (record.count)
		drm_printf(p, "last fault: %s (0x%02x), info 0x%08x, address 0x%llx\n",
			   npu_status_name(record.code), record.code, record.info, record.addr);
}

static void npu_state_queues(struct npu_device *npu, struct drm_printer *p)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++)
		if (npu->queues[i].allocated)
			npu_queue_print(&npu->queues[i], p);
}

/*
 * Core dump. DRM's printer for core dumps allocates for an item that is cut off at the end, and
 * queues print with their lock held.
 */
struct npu_dump_buffer {
	char *data; /* NPU_DUMP_SIZE bytes */
	size_t used;
};

static void npu_dump_printfn(struct drm_printer *p, struct va_format *vaf)
{
	struct npu_dump_buffer *b = p->arg;

	b->used += scnprintf(b->data + b->used, NPU_DUMP_SIZE - b->used, "%pV", vaf);
}

static void npu_dump_head(struct npu_device *npu, const char *reason, struct drm_printer *p)
{
	struct timespec64 now;

	ktime_get_real_ts64(&now);
	drm_printf(p, "npu core dump 1\nreason: %s\ntime: %lld.%09ld\nkernel: %s\n", reason,
		   (s64)now.tv_sec, now.tv_nsec, init_utsname()->release);
	npu_state_device(npu, p);
	npu_state_fault(npu, p);
}

/*
 * npu_dump notes the state of the device that is about to be reset, and why; user space finds
 * it in /sys/class/devcoredump. A dump that is not published yet stays, and this one is lost.
 * npu_device.lock is held. The fences of jobs may wait for the caller, so nothing is allocated
 * here.
 */
void npu_dump(struct npu_device *npu, const char *reason)
{
	struct npu_dump_buffer buffer = { .data = npu->dump };
	struct drm_printer p = { .printfn = npu_dump_printfn, .arg = &buffer };
	size_t crash;

	lockdep_assert_held(&npu->lock);

	if (npu->dump_size)
		return;
	crash = npu->ops->take_crash ? npu_crash_take(npu) : 0;
	npu_dump_head(npu, reason, &p);
	if (crash)
		npu_crash_print(npu, crash, &p);
	drm_printf(&p, "registers:\n");
	npu->ops->print(npu, &p);
	drm_printf(&p, "queues:\n");
	npu_state_queues(npu, &p);
	npu->dump_size = buffer.used;
	schedule_work(&npu->dump_work);
}

/*
 * npu_dump_crash adds the crash dump of firmware, if there is one, to the core dump that is
 * about to be published, or makes one of it. npu_device.lock is held.
 */
void npu_dump_crash(struct npu_device *npu)
{
	struct npu_dump_buffer buffer = { .data = npu->dump, .used = npu->dump_size };
	struct drm_printer p = { .printfn = npu_dump_printfn, .arg = &buffer };
	size_t crash = npu_crash_take(npu);

	lockdep_assert_held(&npu->lock);

	if (!crash)
		return;
	if (!npu->dump_size)
		npu_dump_head(npu, "firmware crashed", &p);
	npu_crash_print(npu, crash, &p);
	npu->dump_size = buffer.used;
	schedule_work(&npu->dump_work);
}

static void npu_dump_publish(struct work_struct *work)
{
	struct npu_device *npu = container_of(work, struct npu_device, dump_work);
	void *copy = vmalloc(NPU_DUMP_SIZE);
	size_t size;

	if (!copy)
		return;
	mutex_lock(&npu->lock);
	size = npu->dump_size;
	memcpy(copy, npu->dump, size);
	npu->dump_size = 0;
	mutex_unlock(&npu->lock);
	if (size)
		dev_coredumpv(npu->drm.dev, copy, size, GFP_KERNEL);
	else
		vfree(copy);
}

/* debugfs. */

static struct npu_device *npu_seq_device(struct seq_file *m)
{
	struct drm_debugfs_entry *entry = m->private;

	return to_npu(entry->dev);
}

static int npu_debugfs_state(struct seq_file *m, void *data)
{
	struct npu_device *npu = npu_seq_device(m);
	struct drm_printer p = drm_seq_file_printer(m);
	int ret, idx;

	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_wake(npu);
	if (!ret) {
		mutex_lock(&npu->lock);
		npu_state_device(npu, &p);
		npu_state_fault(npu, &p);
		npu->ops->print(npu, &p);
		mutex_unlock(&npu->lock);
		npu_relax(npu);
	}
	drm_dev_exit(idx);
	return ret;
}

static int npu_debugfs_queues(struct seq_file *m, void *data)
{
	struct npu_device *npu = npu_seq_device(m);
	struct drm_printer p = drm_seq_file_printer(m);

	mutex_lock(&npu->lock);
	npu_state_queues(npu, &p);
	mutex_unlock(&npu->lock);
	return 0;
}

static int npu_debugfs_contexts(struct seq_file *m, void *data)
{
	struct npu_device *npu = npu_seq_device(m);
	struct npu_file *file;

	mutex_lock(&npu->files_lock);
	mutex_lock(&npu->lock);
	list_for_each_entry(file, &npu->files, node) {
		seq_printf(m, "client %llu: ", file->client_id);
		if (npu_context_live(npu, &file->context))
			seq_printf(m, "context %u, ", file->context.number);
		seq_printf(m, "%u queues, busy %lld ns\n", file->context.queues,
			   atomic64_read(&file->busy_ns));
	}
	mutex_unlock(&npu->lock);
	mutex_unlock(&npu->files_lock);
	return 0;
}

static const struct drm_debugfs_info npu_debugfs_files[] = {
	{ "state", npu_debugfs_state },
	{ "queues", npu_debugfs_queues },
	{ "contexts", npu_debugfs_contexts },
};

/* npu_state_init makes room for a core dump, and files in debugfs. */
int npu_state_init(struct npu_device *npu)
{
	spin_lock_init(&npu->fault_lock);
	npu->dump = drmm_kzalloc(&npu->drm, NPU_DUMP_SIZE, GFP_KERNEL);
	if (!npu->dump)
		return -ENOMEM;
	INIT_WORK(&npu->dump_work, npu_dump_publish);
	drm_debugfs_add_files(&npu->drm, npu_debugfs_files, ARRAY_SIZE(npu_debugfs_files));
	return 0;
}
