/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User interface of the NPU driver, version 1.3.
 *
 * The driver owns /dev/accel/accelN. A program opens it, creates buffer objects
 * (BOs), submits jobs that name BOs by handle, and waits on DRM syncobjs with
 * DRM_IOCTL_SYNCOBJ_WAIT or DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT. BOs are released
 * with DRM_IOCTL_GEM_CLOSE. "§" refers to the hardware specification.
 *
 * Rules for every structure here:
 *  - Fields called flags, pad or reserved are zero, or the call fails with
 *    EINVAL. Unions are zero behind the member that is used.
 *  - Each field says its direction: in, out, or in/out. Fields that are only
 *    out are zero on input.
 *  - DRM_IOCTL_VERSION returns the version of this interface. A new minor only
 *    appends fields and values; zero in an appended field means the old
 *    behaviour.
 *
 * Every open file has a device context of its own, made with its first queue,
 * and as many queues as it creates. A program that names none has the implicit
 * queue 0, which is made at its first use. All of them go away when the file is
 * closed; so do jobs that have not completed by then.
 *
 * BOs are shared between processes, and with other drivers, as dma-bufs:
 * DRM_IOCTL_PRIME_HANDLE_TO_FD and DRM_IOCTL_PRIME_FD_TO_HANDLE, see
 * &struct drm_npu_bo_create.
 *
 * /proc/PID/fdinfo/FD tells what a file uses, as the kernel's
 * drm-usage-stats.rst says: drm-engine-npu is the time for which the device
 * executed jobs of the file, DRM_NPU_QUEUE_USER aside; the memory regions are
 * "device" and "system". npu-timeouts is the number of its jobs that did not end
 * in time.
 *
 * A command that takes too long (&drm_npu_queue_create.timeout_ms) is ended. Its
 * job ends with ETIMEDOUT, and jobs of the same queue that were on the device
 * behind it end with ECANCELED, for they may need what it did not do; jobs that
 * still wait run. Jobs of other queues and files go on, and the device is not
 * reset.
 *
 * A reset of the device, which is the last resort for one that does not answer,
 * ends with ECANCELED the jobs that may have started: the first one of each
 * queue. Jobs behind it have not started, and run after the reset.
 *
 * When the device is gone, by removal or because it answers no more, the calls
 * here fail with ENODEV, jobs end with ENODEV or ECANCELED, and their syncobjs
 * are signalled. After removal mappings of BOs, those of dma-bufs too, fault
 * with SIGBUS; until then device memory reads all-ones.
 *
 * If &drm_npu_device_info.features has the MMU (bit 1), and firmware is 1.2 or
 * later, every file has an address space of its own, and nothing else can be
 * reached by its commands: see &struct drm_npu_vm_bind. DRM_NPU_QUERY_VM says
 * whether it is so.
 *
 * The module cannot be unloaded (EWOULDBLOCK) while a file, a mapping or a dma-buf
 * of it is open, nor while the fence of a job that ran is kept anywhere, for
 * instance in a sync file or in a syncobj that was passed on.
 *
 * New in 1.1: DRM_IOCTL_NPU_QUEUE_CREATE, DRM_IOCTL_NPU_QUEUE_DESTROY,
 * drm_npu_submit.queue, dma-bufs, fdinfo.
 *
 * New in 1.2: drm_npu_queue_create.timeout_ms (was padding) and weight, the limits
 * of these in drm_npu_device_info, and timeouts that end one job alone;
 * &struct drm_npu_counters from shadow_doorbells on, DRM_NPU_QUERY_TELEMETRY;
 * DRM_IOCTL_NPU_VM_BIND, DRM_NPU_COMMAND_VA, DRM_NPU_QUERY_VM, DRM_NPU_QUERY_FAULT,
 * DRM_NPU_QUEUE_USER, DRM_IOCTL_NPU_QUEUE_MAP; BOs of host memory are as large as
 * that is.
 *
 * New in 1.3: &drm_npu_job_status.cycles and time, DRM_NPU_COMMAND_PROFILE.
 */
#ifndef _UAPI_NPU_ACCEL_H_
#define _UAPI_NPU_ACCEL_H_

#include <drm/drm.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* Version of this interface, as DRM_IOCTL_VERSION returns it. */
#define DRM_NPU_VERSION_MAJOR	1
#define DRM_NPU_VERSION_MINOR	3

/* Value of drm_version.name. */
#define DRM_NPU_NAME		"npu"

#define DRM_NPU_QUERY		0x00
#define DRM_NPU_BO_CREATE	0x01
#define DRM_NPU_SUBMIT		0x02
#define DRM_NPU_QUEUE_CREATE	0x03
#define DRM_NPU_QUEUE_DESTROY	0x04
#define DRM_NPU_VM_BIND		0x05
#define DRM_NPU_QUEUE_MAP	0x06

/**
 * struct drm_npu_array - an array in the caller's memory
 *
 * Elements may be longer than the driver knows, if what follows is zero
 * (otherwise E2BIG), and may not be shorter than in version 1.0 (EINVAL).
 */
struct drm_npu_array {
	/** @stride: in: bytes from one element to the next, sizeof() the element. */
	__u32 stride;

	/** @count: in: number of elements; with 0 the other fields are not used. */
	__u32 count;

	/** @ptr: in: address of the first element. */
	__u64 ptr;
};

/** enum drm_npu_query_type - what DRM_IOCTL_NPU_QUERY returns */
enum drm_npu_query_type {
	/** @DRM_NPU_QUERY_DEVICE_INFO: &struct drm_npu_device_info */
	DRM_NPU_QUERY_DEVICE_INFO = 0,

	/** @DRM_NPU_QUERY_COUNTERS: &struct drm_npu_counters */
	DRM_NPU_QUERY_COUNTERS = 1,

	/** @DRM_NPU_QUERY_JOB: &struct drm_npu_job_status */
	DRM_NPU_QUERY_JOB = 2,

	/** @DRM_NPU_QUERY_VM: &struct drm_npu_vm_info (1.2) */
	DRM_NPU_QUERY_VM = 3,

	/** @DRM_NPU_QUERY_FAULT: &struct drm_npu_fault (1.2) */
	DRM_NPU_QUERY_FAULT = 4,

	/** @DRM_NPU_QUERY_TELEMETRY: &struct drm_npu_telemetry */
	DRM_NPU_QUERY_TELEMETRY = 5,
};

/**
 * struct drm_npu_query - argument of DRM_IOCTL_NPU_QUERY
 *
 * Errors: EINVAL unknown type; ENOENT no such job; EIO, ETIMEDOUT the device
 * does not answer; EOPNOTSUPP it does not know what is asked for.
 */
struct drm_npu_query {
	/** @type: in: one of &enum drm_npu_query_type. */
	__u32 type;

	/**
	 * @size: in/out: bytes at @ptr. The driver writes at most that many, and
	 * sets it to the size of the structure it knows.
	 */
	__u32 size;

	/** @arg: in: seqno of the job with DRM_NPU_QUERY_JOB, otherwise 0. */
	__u64 arg;

	/** @ptr: in: where the structure goes; with 0 only @size is returned. */
	__u64 ptr;
};

/** struct drm_npu_device_info - what the device is; constant except where noted */
struct drm_npu_device_info {
	/** @uapi_version: out: this interface; major in bits 31:16, minor in 15:0. */
	__u32 uapi_version;

	/** @arch_version: out: hardware architecture; major, minor likewise. */
	__u32 arch_version;

	/** @fw_version: out: firmware interface; major, minor likewise. */
	__u32 fw_version;

	/** @fw_build: out: major in bits 31:24, minor in 23:16, patch in 15:0. */
	__u32 fw_build;

	/** @features: out: feature bits of the hardware (§2.1). */
	__u64 features;

	/** @array_rows: out: rows of the weight array. */
	__u32 array_rows;

	/** @array_cols: out: columns of the weight array. */
	__u32 array_cols;

	/** @spad_size: out: scratchpad, bytes. */
	__u32 spad_size;

	/** @acc_size: out: accumulators, bytes. */
	__u32 acc_size;

	/** @cores: out: compute cores. */
	__u32 cores;

	/** @dma_channels: out: channels that execute copies. */
	__u32 dma_channels;

	/**
	 * @queues: out: queues that can exist at the same time, of all files. A
	 * device with fewer contexts than that serves fewer files, and says so
	 * with EBUSY.
	 */
	__u32 queues;

	/** @queues_free: out: how many of them are free at the moment. */
	__u32 queues_free;

	/** @dram_size: out: device memory, bytes. */
	__u64 dram_size;

	/** @dram_free: out: bytes of it that no BO uses at the moment. */
	__u64 dram_free;

	/** @max_commands: out: commands that a job can have. */
	__u32 max_commands;

	/** @max_bindings: out: bindings that a launch can have. */
	__u32 max_bindings;

	/** @max_syncs: out: elements that each array of syncs can have. */
	__u32 max_syncs;

	/** @vectors: out: interrupt vectors in use; 1 for a virtio device. */
	__u32 vectors;

	/**
	 * @job_timeout_ms: out: the timeout of queues that choose none, see
	 * &drm_npu_queue_create.timeout_ms. For queues that are still to come.
	 */
	__u32 job_timeout_ms;

	/**
	 * @resets: out: resets since the driver was loaded. Device memory keeps
	 * its content over all of them; jobs that were running have failed.
	 * Suspending the system is none: it waits for the jobs that run. Nor is
	 * a timeout, while the device answers.
	 */
	__u32 resets;

	/** @firmware: out: name of the firmware, padded with NUL. */
	char firmware[32];

	/**
	 * @priorities: out: classes of priority; 1 if the device has no
	 * priorities. This and what follows is new in 1.2.
	 */
	__u32 priorities;

	/** @max_weight: out: of a queue; 1 if the device has no weights. */
	__u32 max_weight;

	/**
	 * @max_timeout_ms: out: of a queue; 0 if the device does not watch
	 * commands: then the driver does, see &drm_npu_queue_create.timeout_ms.
	 */
	__u32 max_timeout_ms;

	/** @timeouts: out: jobs that did not end in time since the driver was loaded. */
	__u32 timeouts;
};

/**
 * struct drm_npu_counters - of all users of the device, since its last reset
 *
 * What a device or its firmware does not count is 0: before architecture 1.2 and
 * firmware interface 1.2 all from @tlb_hits on, and @shadow_doorbells in 1.0.
 */
struct drm_npu_counters {
	/** @commands: out: commands completed. */
	__u64 commands;

	/** @errors: out: commands completed with an error. */
	__u64 errors;

	/** @programs: out: programs completed. */
	__u64 programs;

	/** @instructions: out: instructions executed. */
	__u64 instructions;

	/** @macs: out: int8 multiply-accumulates. */
	__u64 macs;

	/** @dma_read: out: bytes read by programs and copies. */
	__u64 dma_read;

	/** @dma_written: out: bytes written by programs and copies. */
	__u64 dma_written;

	/** @interrupts: out: interrupts raised. */
	__u64 interrupts;

	/** @doorbells: out: doorbells received. */
	__u64 doorbells;

	/** @faults: out: fault records. */
	__u64 faults;

	/** @copies: out: COPY commands. */
	__u64 copies;

	/** @admin: out: admin commands. */
	__u64 admin;

	/** @shadow_doorbells: out: indices found in memory (§4.11). */
	__u64 shadow_doorbells;

	/** @tlb_hits: out: translations found in the device's TLB (§11). */
	__u64 tlb_hits;

	/** @tlb_misses: out: translations that read page tables. */
	__u64 tlb_misses;

	/** @translation_faults: out: faults of the device MMU. */
	__u64 translation_faults;

	/** @waits: out: WAIT commands that succeeded. */
	__u64 waits;

	/** @signals: out: SIGNAL commands that succeeded. */
	__u64 signals;

	/** @timeouts: out: commands that firmware ended for their queue's timeout. */
	__u64 timeouts;

	/** @coalesced: out: completions without an interrupt of their own. */
	__u64 coalesced;

	/** @ecc_corrected: out: memory errors that were corrected (§12.2). */
	__u64 ecc_corrected;

	/** @ecc_uncorrected: out: memory errors that were not. */
	__u64 ecc_uncorrected;

	/** @engine_resets: out: resets of single engines (§12.6). */
	__u64 engine_resets;
};

/**
 * struct drm_npu_telemetry - how the device is (§12.4)
 *
 * EOPNOTSUPP if device or firmware have no telemetry: both are 1.2, and
 * &drm_npu_device_info.features has bit 4, RAS. The query wakes a device that
 * sleeps; hwmon, which has the temperatures too, does not.
 */
struct drm_npu_telemetry {
	/** @uptime_us: out: microseconds since power-on, over all resets. */
	__u64 uptime_us;

	/** @core_busy_us: out: of these, the time in which the core worked. */
	__u64 core_busy_us;

	/** @dma_busy_us: out: likewise of the DMA channel. */
	__u64 dma_busy_us;

	/** @temperature: out: m°C. */
	__s32 temperature;

	/** @ambient: out: around the card, m°C. */
	__s32 ambient;

	/** @clock_khz: out: clock, pauses for throttling included. */
	__u32 clock_khz;

	/** @max_clock_khz: out: highest clock. */
	__u32 max_clock_khz;

	/** @core_utilization: out: of late, in thousandths. */
	__u32 core_utilization;

	/** @dma_utilization: out: likewise of the DMA channel. */
	__u32 dma_utilization;

	/** @throttle_level: out: 0 not throttled, 1, 2, or 3: no command starts (§12.5). */
	__u32 throttle_level;

	/** @threshold_1: out: of level 1, m°C. */
	__s32 threshold_1;

	/** @threshold_2: out: of level 2. */
	__s32 threshold_2;

	/** @threshold_critical: out: of level 3. */
	__s32 threshold_critical;
};

/** enum drm_npu_job_state - state of a job */
enum drm_npu_job_state {
	/** @DRM_NPU_JOB_PENDING: waits, or runs */
	DRM_NPU_JOB_PENDING = 0,

	/** @DRM_NPU_JOB_DONE: all commands succeeded */
	DRM_NPU_JOB_DONE = 1,

	/** @DRM_NPU_JOB_FAILED: &drm_npu_job_status.error says how */
	DRM_NPU_JOB_FAILED = 2,
};

/**
 * struct drm_npu_job_status - what became of a job of this file
 *
 * The last 64 jobs of a file can be queried. The status is complete before the
 * job's syncobjs are signalled. Waiting on a syncobj succeeds for failed jobs
 * too, as it does everywhere in DRM.
 */
struct drm_npu_job_status {
	/** @seqno: out: the job. */
	__u64 seqno;

	/** @state: out: one of &enum drm_npu_job_state. */
	__u32 state;

	/**
	 * @error: out: 0, or a negative error number: EINVAL a wrong command or
	 * program, EFAULT an access that is not allowed or not possible, EIO any
	 * other failure, such as memory with an error (status POISON, §12.2),
	 * ETIMEDOUT a command of the job took too long, ECANCELED a reset of the
	 * device, a job before it in its queue that took too long, or the end of its
	 * queue ended it, ENODEV the device is gone.
	 */
	__s32 error;

	/**
	 * @command: out: index of the command that failed first, or of the last
	 * command. Commands behind a failed one are executed all the same. With
	 * ETIMEDOUT the one that took too long, and with a fault of the address
	 * space (&struct drm_npu_fault) the one that faulted, behind which none
	 * is executed.
	 */
	__u32 command;

	/** @status: out: its status code (§9.1); 0 if the device gave none. */
	__u32 status;

	/**
	 * @result: out: of that command (§4.9, §4.10): for a launch the number of
	 * instructions executed, or the index of the instruction that failed.
	 */
	__u32 result;

	/** @pad: out: 0. */
	__u32 pad;

	/**
	 * @info: out: of that command: for a launch the number of
	 * multiply-accumulates, or the detail of the error (§5.7); for a copy
	 * the number of bytes, or the address; for one that the device ended
	 * because it took too long (§4.14) the time, in µs.
	 */
	__u64 info;

	/**
	 * @cycles: out: of the commands of the job that completed, together, as
	 * the device counts them (§13.8.2); of a command at most 2³² - 1. 0 if it
	 * does not: see @time. This and what follows is new in 1.3.
	 */
	__u64 cycles;

	/**
	 * @time: out: model time, in cycles since the last reset of the device, at
	 * the end of the last command that completed. 0 if there is none: the
	 * device's time mode is fast (§13.8.1), &drm_npu_device_info.features lacks
	 * bit 13, TIMING, or no command was executed.
	 */
	__u64 time;
};

/** struct drm_npu_vm_info - address space of this file */
struct drm_npu_vm_info {
	/** @start: out: first virtual address that DRM_IOCTL_NPU_VM_BIND takes. */
	__u64 start;

	/** @end: out: first one behind those. */
	__u64 end;

	/** @page_size: out: bytes; what is mapped is a multiple of them. */
	__u32 page_size;

	/**
	 * @large_page_size: out: bytes. Of memory that is contiguous and, like
	 * the address, a multiple of them, the device needs fewer translations.
	 */
	__u32 large_page_size;

	/** @max_ops: out: elements that &drm_npu_vm_bind.ops can have. */
	__u32 max_ops;

	/** @max_mappings: out: mappings that a file can have. */
	__u32 max_mappings;

	/** @mappings: out: those that it has at the moment. */
	__u32 mappings;

	/** @pad: out: 0. */
	__u32 pad;

	/** @table_bytes: out: memory that the page tables take at the moment. */
	__u64 table_bytes;
};

/** enum drm_npu_access - what an access was (§11.5) */
enum drm_npu_access {
	/** @DRM_NPU_ACCESS_READ: it read */
	DRM_NPU_ACCESS_READ = 1,

	/** @DRM_NPU_ACCESS_WRITE: it wrote */
	DRM_NPU_ACCESS_WRITE = 2,

	/** @DRM_NPU_ACCESS_EXECUTE: it fetched a program */
	DRM_NPU_ACCESS_EXECUTE = 3,
};

/** enum drm_npu_fault_reason - why an access was refused (§11.5) */
enum drm_npu_fault_reason {
	/** @DRM_NPU_FAULT_NOT_PRESENT: nothing is mapped there */
	DRM_NPU_FAULT_NOT_PRESENT = 1,

	/** @DRM_NPU_FAULT_PERMISSION: it is mapped without this access */
	DRM_NPU_FAULT_PERMISSION = 2,

	/** @DRM_NPU_FAULT_RESERVED: the page tables are wrong */
	DRM_NPU_FAULT_RESERVED = 3,

	/** @DRM_NPU_FAULT_TABLE: the page tables cannot be read */
	DRM_NPU_FAULT_TABLE = 4,

	/** @DRM_NPU_FAULT_TARGET: what is mapped there failed */
	DRM_NPU_FAULT_TARGET = 5,

	/** @DRM_NPU_FAULT_RANGE: it is no virtual address */
	DRM_NPU_FAULT_RANGE = 6,
};

/**
 * struct drm_npu_fault - the last access of this file that was refused
 *
 * Commands of a file that access what is not mapped fault, and only they: what
 * came before is done, nothing behind it is. The job fails with EFAULT, and
 * &drm_npu_job_status.info is the address; commands behind it are not executed.
 * Other jobs of the file are held up until its context was made again, with what
 * it has mapped; nothing of them is lost or done twice. Nothing is to be done for
 * that. Jobs of other files do not notice. The record is there before the job's
 * syncobjs are signalled.
 */
struct drm_npu_fault {
	/** @count: out: faults of the file; 0 if there was none, as is all else. */
	__u64 count;

	/** @address: out: first virtual address that was refused. */
	__u64 address;

	/** @seqno: out: of the job. */
	__u64 seqno;

	/** @command: out: index of the command in it. */
	__u32 command;

	/** @queue: out: queue of the file. */
	__u32 queue;

	/** @entry: out: ring entry of the command. */
	__u32 entry;

	/** @status: out: status code of the command (§9.1). */
	__u32 status;

	/** @access: out: one of &enum drm_npu_access. */
	__u32 access;

	/** @reason: out: one of &enum drm_npu_fault_reason. */
	__u32 reason;

	/** @engine: out: 0 command processor, 1 DMA, 2 core load, 3 core store. */
	__u32 engine;

	/** @pad: out: 0. */
	__u32 pad;
};

/** enum drm_npu_placement - where a BO lives */
enum drm_npu_placement {
	/**
	 * @DRM_NPU_PLACEMENT_DEVICE: device memory. Mapped write-combining: write
	 * it in order, avoid reading it. Kept over resets and suspend, not over
	 * hibernation, which the driver refuses. A mapping keeps the device from
	 * sleeping.
	 */
	DRM_NPU_PLACEMENT_DEVICE = 1,

	/**
	 * @DRM_NPU_PLACEMENT_SYSTEM: memory of the host, reached by DMA. Mapped
	 * cached. Without an MMU in the device it is contiguous on the bus, so
	 * if there is no IOMMU either large ones may fail.
	 */
	DRM_NPU_PLACEMENT_SYSTEM = 2,
};

/**
 * struct drm_npu_bo_create - argument of DRM_IOCTL_NPU_BO_CREATE
 *
 * A BO belongs to the file that created it, and to whoever is given it as a
 * dma-buf. A new BO is zero. It lives until its handles and dma-bufs are closed,
 * its mappings are gone and the jobs that use it have ended.
 *
 * DRM_IOCTL_PRIME_HANDLE_TO_FD exports it. The dma-buf can be mapped and, by a
 * file of the same device, imported. Other drivers can import
 * DRM_NPU_PLACEMENT_SYSTEM; device memory they are refused (EOPNOTSUPP), since it
 * is reached through the device's own window only.
 *
 * DRM_IOCTL_PRIME_FD_TO_HANDLE also takes dma-bufs of other drivers. Without an
 * MMU in the device they must be contiguous on the bus, as behind an IOMMU all
 * are; EINVAL otherwise. Such a BO is in DRM_NPU_PLACEMENT_SYSTEM, and is mapped
 * through its dma-buf.
 *
 * The fence of every job is in the reservation of the BOs that it uses, where
 * poll() of a dma-buf and other drivers find it. For BOs that are or were shared
 * as dma-bufs a job waits for the fences it finds there, those of writers if it
 * reads and all if it writes. Other BOs are ordered by syncobjs and queues only.
 *
 * Errors: EINVAL size 0 or more than the device can address, unknown placement;
 * ENOSPC device memory is full or fragmented; ENOMEM. Without a window the file's queue
 * zeroes the BO, so the errors of DRM_IOCTL_NPU_SUBMIT are possible too.
 */
struct drm_npu_bo_create {
	/** @size: in/out: bytes; rounded up to whole pages. */
	__u64 size;

	/** @placement: in: one of &enum drm_npu_placement. */
	__u32 placement;

	/** @flags: in: 0. */
	__u32 flags;

	/** @handle: out: the BO's handle in this file. */
	__u32 handle;

	/** @pad: 0. */
	__u32 pad;

	/**
	 * @mmap_offset: out: offset for mmap() of the file; MAP_SHARED only. 0 for
	 * device memory that the host has no window to: a virtio device may have none. Then
	 * data moves by copies from and to DRM_NPU_PLACEMENT_SYSTEM.
	 */
	__u64 mmap_offset;
};

/* The program may read the binding. */
#define DRM_NPU_BINDING_READ	0x1
/* The program may write the binding. */
#define DRM_NPU_BINDING_WRITE	0x2

/** struct drm_npu_binding - memory that a program can reach (§5.2) */
struct drm_npu_binding {
	/** @handle: in: BO. */
	__u32 handle;

	/** @flags: in: DRM_NPU_BINDING_READ, DRM_NPU_BINDING_WRITE, or both. */
	__u32 flags;

	/** @offset: in: first byte in the BO. */
	__u64 offset;

	/** @size: in: bytes, at least 1; offset + size within the BO. */
	__u64 size;
};

/**
 * struct drm_npu_launch - run a program (§4.9)
 *
 * With DRM_NPU_COMMAND_VA handles are 0 and offsets virtual addresses, here and in
 * the bindings. The program needs EXEC, what bindings name READ or WRITE.
 */
struct drm_npu_launch {
	/** @program_handle: in: BO that holds descriptor and text (§5.3). */
	__u32 program_handle;

	/** @program_size: in: bytes of descriptor and text. */
	__u32 program_size;

	/** @program_offset: in: byte offset in the BO, a multiple of 64. */
	__u64 program_offset;

	/** @bindings: in: of &struct drm_npu_binding, at most max_bindings. */
	struct drm_npu_array bindings;

	/**
	 * @profile_handle: in: BO of the profile record; 0 without
	 * DRM_NPU_COMMAND_PROFILE. This and what follows is new in 1.3.
	 */
	__u32 profile_handle;

	/** @pad: 0. */
	__u32 pad;

	/**
	 * @profile_offset: in: byte offset in the BO, a multiple of 8, of
	 * DRM_NPU_PROFILE_SIZE bytes within it; 0 without DRM_NPU_COMMAND_PROFILE.
	 */
	__u64 profile_offset;
};

/**
 * struct drm_npu_copy - copy nz planes of ny rows of nx bytes (§7.4)
 *
 * The first byte of row y of plane z is at offset + z * stride_z + y * stride_y.
 * All rows are within the BOs. With DRM_NPU_COMMAND_VA handles are 0 and offsets
 * virtual addresses; the source needs READ, the destination WRITE.
 */
struct drm_npu_copy {
	/** @src_handle: in: BO that is read. */
	__u32 src_handle;

	/** @dst_handle: in: BO that is written. */
	__u32 dst_handle;

	/** @src_offset: in: bytes. */
	__u64 src_offset;

	/** @dst_offset: in: bytes. */
	__u64 dst_offset;

	/** @nx: in: bytes of a row, at least 1. */
	__u32 nx;

	/** @ny: in: rows of a plane, 1 to 65535. */
	__u32 ny;

	/** @nz: in: planes, 1 to 65535. */
	__u32 nz;

	/** @pad: 0. */
	__u32 pad;

	/** @src_stride_y: in: bytes between rows of the source. */
	__u64 src_stride_y;

	/** @src_stride_z: in: bytes between planes of the source. */
	__u64 src_stride_z;

	/** @dst_stride_y: in: bytes between rows of the destination. */
	__u64 dst_stride_y;

	/** @dst_stride_z: in: bytes between planes of the destination. */
	__u64 dst_stride_z;
};

/** enum drm_npu_command_type - what a command does */
enum drm_npu_command_type {
	/** @DRM_NPU_COMMAND_NOP: nothing */
	DRM_NPU_COMMAND_NOP = 1,

	/** @DRM_NPU_COMMAND_COPY: &struct drm_npu_copy */
	DRM_NPU_COMMAND_COPY = 2,

	/** @DRM_NPU_COMMAND_LAUNCH: &struct drm_npu_launch */
	DRM_NPU_COMMAND_LAUNCH = 3,
};

/*
 * Flag of a COPY or LAUNCH: memory is named by virtual address, not by handle. What
 * is mapped where the device says when the command runs, so wrong addresses are
 * errors of the job (&struct drm_npu_fault). Such a command keeps nothing alive and
 * does not wait for fences of dma-bufs. EOPNOTSUPP without an MMU (1.2).
 */
#define DRM_NPU_COMMAND_VA	0x1

/*
 * Flag of a LAUNCH: the device writes the profile record of §13.8.4, what its engines
 * did and waited for, before the job is done. A program that fails leaves none. The
 * record is written like a binding with DRM_NPU_BINDING_WRITE; with DRM_NPU_COMMAND_VA
 * its memory needs WRITE. EOPNOTSUPP without TIMING, bit 13 of
 * &drm_npu_device_info.features (1.3).
 */
#define DRM_NPU_COMMAND_PROFILE	0x2

/* Bytes of a profile record. */
#define DRM_NPU_PROFILE_SIZE	400

/** struct drm_npu_command - one command of a job */
struct drm_npu_command {
	/** @type: in: one of &enum drm_npu_command_type. */
	__u32 type;

	/** @flags: in: 0, DRM_NPU_COMMAND_VA, DRM_NPU_COMMAND_PROFILE, or both. */
	__u32 flags;

	union {
		/** @copy: in: with DRM_NPU_COMMAND_COPY. */
		struct drm_npu_copy copy;

		/** @launch: in: with DRM_NPU_COMMAND_LAUNCH. */
		struct drm_npu_launch launch;

		/** @reserved: size of the union in version 1.0. */
		__u64 reserved[9];
	};
};

/** struct drm_npu_sync - a syncobj that a job waits for or signals */
struct drm_npu_sync {
	/** @handle: in: syncobj of this file. */
	__u32 handle;

	/** @flags: in: 0. */
	__u32 flags;

	/** @point: in: timeline point; 0 for a binary syncobj. */
	__u64 point;
};

/**
 * enum drm_npu_priority - priority of a queue
 *
 * Values between these are valid too. Between two commands the device chooses one
 * of the highest priority that it has, except that every priority gets at least
 * one command in 67 (§4.12).
 */
enum drm_npu_priority {
	/** @DRM_NPU_PRIORITY_DEFAULT: that of queue 0, and the lowest */
	DRM_NPU_PRIORITY_DEFAULT = 0,

	/** @DRM_NPU_PRIORITY_MAX: the highest */
	DRM_NPU_PRIORITY_MAX = 3,
};

/*
 * Flag of DRM_IOCTL_NPU_QUEUE_CREATE: the process drives the queue by itself, see
 * &struct drm_npu_queue_map. Jobs cannot be submitted to it (EINVAL). PCI devices with
 * an MMU have such queues (1.2).
 */
#define DRM_NPU_QUEUE_USER	0x1

/**
 * struct drm_npu_queue_create - argument of DRM_IOCTL_NPU_QUEUE_CREATE
 *
 * Makes a queue on the device. Its jobs execute one after the other in order;
 * jobs of different queues, of the same file too, are ordered by syncobjs only.
 *
 * Errors: EINVAL unknown priority, weight or timeout out of range, or a field that
 * must be 0 is not; EACCES a priority above the default, or a timeout above
 * job_timeout_ms, without CAP_SYS_NICE; EOPNOTSUPP a priority above the default, a
 * weight above 1, a timeout, or DRM_NPU_QUEUE_USER, on a device that has none (§2.1);
 * EBUSY all queues or contexts of the device are in use; EIO the device did not come
 * back from a reset.
 */
struct drm_npu_queue_create {
	/** @priority: in: 0 to DRM_NPU_PRIORITY_MAX. */
	__u32 priority;

	/** @flags: in: 0, or DRM_NPU_QUEUE_USER. */
	__u32 flags;

	/** @queue: out: number of the queue in this file, from 1. */
	__u32 queue;

	/**
	 * @timeout_ms: in: milliseconds that a command of the queue may take, from
	 * its start to its end, up to max_timeout_ms; 0 for job_timeout_ms, as in
	 * queue 0. What other queues do in between does not count. (Was padding
	 * before 1.2.)
	 *
	 * A device that does not watch commands (max_timeout_ms is 0) has the
	 * driver do so: there job_timeout_ms is what a job may take from when it
	 * is the first of its queue on the device, the commands of other queues
	 * between its own included.
	 */
	__u32 timeout_ms;

	/**
	 * @weight: in: commands in a row that the queue may have before it is the
	 * turn of the next one of its priority (§4.12), up to max_weight; 0 for 1.
	 */
	__u32 weight;

	/** @pad: in: 0. */
	__u32 pad;
};

/**
 * struct drm_npu_queue_destroy - argument of DRM_IOCTL_NPU_QUEUE_DESTROY
 *
 * Jobs that wait for a fence are given up to a second to start; then all that
 * have not completed end with ECANCELED. The command that executes is stopped, in
 * the middle of what it does (§4.6). When the call returns all of the queue's
 * syncobjs are signalled, and the status of its jobs is known.
 *
 * Errors: EINVAL @pad is not 0; ENOENT no such queue, also for 0.
 */
struct drm_npu_queue_destroy {
	/** @queue: in: what DRM_IOCTL_NPU_QUEUE_CREATE returned. */
	__u32 queue;

	/** @pad: in: 0. */
	__u32 pad;
};

/** enum drm_npu_vm_op_type - what an operation on the address space does */
enum drm_npu_vm_op_type {
	/** @DRM_NPU_VM_MAP: map a part of a BO */
	DRM_NPU_VM_MAP = 1,

	/** @DRM_NPU_VM_UNMAP: take all mappings in a range away */
	DRM_NPU_VM_UNMAP = 2,
};

/* The device may read it. */
#define DRM_NPU_VM_READ		0x1
/* The device may write it. */
#define DRM_NPU_VM_WRITE	0x2
/* Programs may be launched from it. */
#define DRM_NPU_VM_EXEC		0x4

/** struct drm_npu_vm_op - an operation on the address space */
struct drm_npu_vm_op {
	/** @type: in: one of &enum drm_npu_vm_op_type. */
	__u32 type;

	/**
	 * @flags: in: MAP: DRM_NPU_VM_READ, DRM_NPU_VM_WRITE, DRM_NPU_VM_EXEC, at
	 * least one of them; none implies another. UNMAP: 0.
	 */
	__u32 flags;

	/** @handle: in: MAP: BO. UNMAP: 0. */
	__u32 handle;

	/** @pad: in: 0. */
	__u32 pad;

	/** @offset: in: MAP: first byte in the BO, a multiple of page_size. UNMAP: 0. */
	__u64 offset;

	/** @address: in: first virtual address, a multiple of page_size. */
	__u64 address;

	/** @size: in: bytes, a multiple of page_size, at least one. */
	__u64 size;
};

/**
 * struct drm_npu_vm_bind - argument of DRM_IOCTL_NPU_VM_BIND
 *
 * An address space has two parts. In that from &drm_npu_vm_info.start to
 * &drm_npu_vm_info.end the file maps what it wants where it wants, for commands
 * with DRM_NPU_COMMAND_VA. Behind it the driver maps the BOs that other commands name
 * by handle, while they have one.
 *
 * The operations are done in the order of the array: all, or on an error none. What
 * is mapped is so for commands that start after the call. A mapping holds its BO.
 * UNMAP takes mappings away whole: each that it touches lies in its range. MAP does
 * not replace: UNMAP what is there first, in the same call if that suits.
 *
 * UNMAP does not wait for jobs. When the call returns the device accesses nothing by
 * these mappings any more. A command that is in flight and does, or wants to, faults,
 * as it may between an UNMAP and a MAP of one call; it is not taken back.
 *
 * Mappings outlive faults and resets. They end with UNMAP or with the file; closing
 * the handle does not end them.
 *
 * Errors: EINVAL unknown type or flags, a field that must be 0 is not, address or
 * size not in the file's part or no multiple of the page, offset + size not in the
 * BO, UNMAP of a part of a mapping, more than max_ops operations; ENOENT no such BO,
 * or UNMAP where nothing is mapped; EEXIST MAP where something is; ENOSPC more than
 * max_mappings; EFAULT, E2BIG as for every array; EOPNOTSUPP the device has no MMU;
 * ENOMEM.
 */
struct drm_npu_vm_bind {
	/** @ops: in: of &struct drm_npu_vm_op, at most max_ops; none is no error. */
	struct drm_npu_array ops;

	/** @flags: in: 0. */
	__u64 flags;
};

/* Status code, which no command has (§9.1), of the entry that ends a completion ring. */
#define DRM_NPU_STATUS_QUEUE_ENDED	0x7fff

/**
 * struct drm_npu_queue_map - argument of DRM_IOCTL_NPU_QUEUE_MAP
 *
 * Where a queue made with DRM_NPU_QUEUE_USER is for mmap() of the file, MAP_SHARED. The
 * process writes entries of 64 bytes (§4.2) into the submission ring, makes them
 * visible, and writes the new tail, 32 bits, to SQ_TAIL of the doorbell page (§4.3). It
 * finds completions by their phase, and writes CQ_HEAD when it has consumed some. There
 * are no interrupts for it, and no shadow line. Commands name virtual addresses, space
 * 2, alone, which VM_BIND mapped; the hardware refuses all else.
 *
 * A command that takes longer than the queue's timeout_ms ends as TIMEOUT, a WAIT as
 * WAIT_TIMEOUT, and the queue is suspended (§4.14): destroy it, and create another.
 *
 * The queue ends when a command of the file faults, when it has broken a rule (§9.2),
 * and with a reset of the device or its sleep. Then the completion behind those that
 * the device posted has status code DRM_NPU_STATUS_QUEUE_ENDED and command_id 0xffff,
 * doorbells lead nowhere, and this call says EIO. What was submitted and has no
 * completion may have been executed in part. Destroy the queue, and create another.
 *
 * Mappings end, and fault with SIGBUS, when the queue is destroyed or the device is
 * removed. A queue keeps the device from sleeping while it is idle.
 *
 * Errors: EINVAL the queue was made without DRM_NPU_QUEUE_USER, or a field that must
 * be 0 is not; ENOENT no such queue; EIO it has ended. Of mmap(): EINVAL other
 * offsets, larger sizes; EACCES a completion ring that can be written.
 */
struct drm_npu_queue_map {
	/** @queue: in: what DRM_IOCTL_NPU_QUEUE_CREATE returned. */
	__u32 queue;

	/** @flags: in: 0. */
	__u32 flags;

	/** @entries: out: of each ring; of submissions one less can wait (§4.1). */
	__u32 entries;

	/** @pad: 0. */
	__u32 pad;

	/** @sq_offset: out: submission ring: offset for mmap(). */
	__u64 sq_offset;

	/** @sq_size: out: bytes that can be mapped there. */
	__u64 sq_size;

	/** @cq_offset: out: completion ring, which can only be read, likewise. */
	__u64 cq_offset;

	/** @cq_size: out: bytes. */
	__u64 cq_size;

	/** @doorbell_offset: out: doorbell page (§4.3), which reads as 0, likewise. */
	__u64 doorbell_offset;

	/** @doorbell_size: out: bytes. */
	__u64 doorbell_size;
};

/**
 * struct drm_npu_submit - argument of DRM_IOCTL_NPU_SUBMIT
 *
 * A job starts when the fences in @in_syncs are signalled (failed ones count
 * as signalled). Its commands, and the jobs of a queue, execute one after the
 * other in order; jobs of different queues are ordered by syncobjs only. BOs
 * stay alive while the job needs them.
 *
 * The call checks everything that it can before the job exists: EINVAL for a
 * value out of range, ENOENT for an unknown BO, syncobj or queue, EFAULT for an
 * unreadable array. What only the device can see, such as a wrong program, is
 * an error of the job. EBUSY: queue 0 is still to be made, and all queues or
 * contexts of the device are in use. EIO: the device did not come back from a
 * reset; ENODEV: it is gone.
 */
struct drm_npu_submit {
	/** @commands: in: of &struct drm_npu_command, 1 to max_commands. */
	struct drm_npu_array commands;

	/** @in_syncs: in: of &struct drm_npu_sync, at most max_syncs. */
	struct drm_npu_array in_syncs;

	/**
	 * @out_syncs: in: of &struct drm_npu_sync, at most max_syncs. A binary
	 * syncobj's fence is replaced, a timeline gets @point.
	 */
	struct drm_npu_array out_syncs;

	/** @flags: in: 0. */
	__u32 flags;

	/** @queue: in: queue of this file, or 0 for the implicit one (was padding in 1.0). */
	__u32 queue;

	/** @seqno: out: number of the job in this file, of all queues, from 1. */
	__u64 seqno;
};

#define DRM_IOCTL_NPU_QUERY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_NPU_QUERY, struct drm_npu_query)
#define DRM_IOCTL_NPU_BO_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_NPU_BO_CREATE, struct drm_npu_bo_create)
#define DRM_IOCTL_NPU_SUBMIT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_NPU_SUBMIT, struct drm_npu_submit)
#define DRM_IOCTL_NPU_QUEUE_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_NPU_QUEUE_CREATE, struct drm_npu_queue_create)
#define DRM_IOCTL_NPU_QUEUE_DESTROY \
	DRM_IOW(DRM_COMMAND_BASE + DRM_NPU_QUEUE_DESTROY, struct drm_npu_queue_destroy)

#define DRM_IOCTL_NPU_QUEUE_MAP \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_NPU_QUEUE_MAP, struct drm_npu_queue_map)
#define DRM_IOCTL_NPU_VM_BIND \
	DRM_IOW(DRM_COMMAND_BASE + DRM_NPU_VM_BIND, struct drm_npu_vm_bind)

#if defined(__cplusplus)
}
#endif

#endif /* _UAPI_NPU_ACCEL_H_ */
