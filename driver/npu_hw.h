/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Structures in memory that driver and device share, §4 and §7.3 of the
 * hardware specification. Registers and codes are in npu_regs.h.
 */
#ifndef NPU_HW_H
#define NPU_HW_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#include "npu_regs.h"

#define NPU_SPACE_BUS			0 /* §7.1 */
#define NPU_SPACE_DEVICE		1
#define NPU_SPACE_VIRTUAL		2

#define NPU_BINDING_READ		BIT(0) /* §7.3 */
#define NPU_BINDING_WRITE		BIT(1)
#define NPU_BINDING_SPACE		GENMASK(7, 4)

#define NPU_SPACES_FIRST		GENMASK(3, 0) /* source, or program */
#define NPU_SPACES_SECOND		GENMASK(7, 4) /* destination, or binding table */

#define NPU_CQE_PHASE			BIT(0) /* §4.2 */
#define NPU_CQE_STATUS			GENMASK(15, 1)

#define NPU_RING_ALIGN			64 /* §4.1 */
#define NPU_PROGRAM_ALIGN		64 /* §4.9 */
#define NPU_PROGRAM_MIN			(64 + 32) /* §5.3: descriptor and one instruction */
#define NPU_PROFILE_ALIGN		8 /* §13.8.4 */

#define NPU_LOG_COUNTERS		2 /* §4.7 */
#define NPU_LOG_FAULTS			3 /* §11.6 */
#define NPU_LOG_TELEMETRY		4 /* §12 */
#define NPU_LOG_ERRORS			5
#define NPU_LOG_FIRMWARE		6
#define NPU_LOG_CRASH			7
#define NPU_IDENTIFY_SIZE		256 /* §4.5 */
#define NPU_IDENTIFY_VERSION		0x04
#define NPU_IDENTIFY_BUILD		0x08
#define NPU_IDENTIFY_NAME		0x20
#define NPU_IDENTIFY_NAME_SIZE		32

/* Submission entry. */
struct npu_sqe {
	u8 opcode;
	u8 flags;
	__le16 command_id;
	__le32 spaces; /* COPY; 0 for the others */
	union {
		struct {
			__le64 address;
			__le32 size;
			__le32 page; /* GET_LOG_PAGE */
			__le32 cursor; /* of pages 5 to 8; otherwise 0 */
		} buffer; /* IDENTIFY, GET_LOG_PAGE */
		struct {
			__le32 number;
		} destroy; /* DESTROY_CONTEXT, DESTROY_QUEUE */
		struct {
			__le64 root;
			__le32 flags;
		} create_context; /* 0 without MMU */
		struct {
			__le64 address;
			__le64 size;
			__le32 context;
		} invalidate;
		struct {
			__le64 sq;
			__le64 cq;
			__le16 number;
			__le16 vector;
			__le16 sq_entries;
			__le16 cq_entries;
			__le32 context;
			u8 priority; /* these and timeout: §4.12, §4.14; from 1.2 on */
			u8 weight;
			__le16 flags;
			__le64 shadow; /* §4.11; from firmware interface 1.1 on */
			__le32 timeout; /* ms */
		} create_queue;
		struct {
			__le64 program;
			__le64 table;
			__le32 bindings;
			__le32 spaces;
			__le32 program_size;
			__le32 profile_space; /* these: §13.8.4; with NPU_LAUNCH_PROFILE */
			__le64 profile;
		} launch;
		struct {
			__le64 src;
			__le64 dst;
			__le32 nx;
			__le16 ny;
			__le16 nz;
			__le64 src_stride_y;
			__le64 src_stride_z;
			__le64 dst_stride_y;
			__le64 dst_stride_z;
		} copy;
	};
};

static_assert(offsetof(struct npu_sqe, launch.profile) == 0x28);
static_assert(sizeof(struct npu_sqe) == NPU_SQ_ENTRY_SIZE);

/* Completion entry. */
struct npu_cqe {
	__le32 result;
	__le32 cycles; /* this and time: §13.8.3 */
	__le64 info;
	__le64 time;
	__le16 sq_head;
	__le16 queue;
	__le16 command_id;
	__le16 status;
};

static_assert(sizeof(struct npu_cqe) == NPU_CQ_ENTRY_SIZE);

/* Shadow line, §4.11. */
struct npu_shadow {
	__le32 sq_tail;
	__le32 cq_head;
	__le32 ring; /* written by the device */
	__le32 reserved[13];
};

static_assert(sizeof(struct npu_shadow) == NPU_SHADOW_SIZE);

/* Entry of log page 8, §4.19. */
struct npu_queue_status {
	__le16 queue;
	u8 state;
	u8 flags;
	u8 priority;
	u8 weight;
	__le16 owner;
	__le16 sq_head;
	__le16 sq_tail;
	__le16 cq_head;
	__le16 cq_tail;
	__le64 commands;
	__le32 errors;
	__le32 timeouts;
	__le32 context;
	__le32 timeout;
	__le64 timeline;
	__le64 wanted;
	__le64 found;
};

static_assert(sizeof(struct npu_queue_status) == NPU_QUEUE_STATUS_SIZE);

#define NPU_QUEUE_STATE_ENABLED		1
#define NPU_QUEUE_STATE_ERROR		3

/* Head of the fault log, §11.6. */
struct npu_fault_log {
	__le32 total;
	__le32 count;
	__le32 size;
	__le32 reserved;
};

static_assert(sizeof(struct npu_fault_log) == NPU_FAULT_LOG_HEADER);

/* Its record. */
struct npu_fault_entry {
	__le32 number;
	__le16 status;
	u8 reason;
	u8 access;
	__le16 context;
	__le16 queue;
	__le16 index;
	__le16 command_id;
	u8 engine;
	u8 level;
	u8 space;
	u8 reserved[5];
	__le64 va;
	__le64 entry;
	__le64 address;
};

static_assert(sizeof(struct npu_fault_entry) == NPU_FAULT_LOG_RECORD);

/* Entry of a binding table. */
struct npu_hw_binding {
	__le64 address;
	__le64 size;
	__le32 flags;
	__le32 reserved[3];
};

static_assert(sizeof(struct npu_hw_binding) == NPU_BINDING_SIZE);

/* Head of log pages 5 and 6, §12.3. */
struct npu_log_head {
	__le32 next;
	__le32 count;
	__le32 oldest;
	__le32 size;
	__le64 now;
	__le64 reserved;
};

static_assert(sizeof(struct npu_log_head) == NPU_LOG_HEADER_SIZE);

/* Record of the error log, §12.3. */
struct npu_error_record {
	__le32 number;
	u8 kind;
	u8 unit;
	__le16 flags;
	__le64 time;
	__le64 address;
	__le16 queue;
	__le16 command_id;
	__le16 context;
	__le16 detail;
};

static_assert(sizeof(struct npu_error_record) == NPU_ERROR_RECORD_SIZE);

/* Line of the firmware log, §12.7. */
struct npu_log_line {
	__le32 number;
	u8 level;
	u8 length;
	__le16 reserved;
	__le64 time;
	char text[112];
};

static_assert(sizeof(struct npu_log_line) == NPU_LOG_FW_ENTRY_SIZE);

/* What every crash dump begins with, §12.8. */
struct npu_crash_dump {
	__le32 magic;
	__le32 version;
	__le32 size;
	__le32 number;
	__le32 boot_status;
	__le32 error_detail;
	__le32 fw_version;
	__le32 fw_build;
	__le64 time;
	__le32 arch_version;
	__le32 queues;
	__le32 log_offset;
	__le32 log_size;
	__le64 reserved0;
	__le32 csrs[9]; /* pc, mstatus, mie, mip, mtvec, mscratch, mepc, mcause, mtval */
	__le32 reserved1[7];
	__le32 regs[32];
};

static_assert(offsetof(struct npu_crash_dump, csrs) == NPU_CRASH_DUMP_CSRS);
static_assert(offsetof(struct npu_crash_dump, regs) == NPU_CRASH_DUMP_REGS);
static_assert(sizeof(struct npu_crash_dump) == NPU_CRASH_DUMP_STACK);

#endif /* NPU_HW_H */
