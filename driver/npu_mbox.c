// SPDX-License-Identifier: GPL-2.0-only
/*
 * Admin queue: commands that firmware executes, §4.4 to §4.7. One command is in
 * flight at a time.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>

#include <drm/drm_managed.h>

#include "npu_drv.h"

static const struct {
	const char *name;
	int error;
} npu_statuses[] = {
	[NPU_STATUS_SUCCESS] = { "SUCCESS", 0 },
	[NPU_STATUS_INVALID_OPCODE] = { "INVALID_OPCODE", -EINVAL },
	[NPU_STATUS_INVALID_FIELD] = { "INVALID_FIELD", -EINVAL },
	[NPU_STATUS_INVALID_CONTEXT] = { "INVALID_CONTEXT", -EINVAL },
	[NPU_STATUS_INVALID_QUEUE] = { "INVALID_QUEUE", -EINVAL },
	[NPU_STATUS_QUEUE_EXISTS] = { "QUEUE_EXISTS", -EEXIST },
	[NPU_STATUS_BUSY] = { "BUSY", -EBUSY },
	[NPU_STATUS_NO_RESOURCE] = { "NO_RESOURCE", -EBUSY },
	[NPU_STATUS_INVALID_LOG_PAGE] = { "INVALID_LOG_PAGE", -EINVAL },
	[NPU_STATUS_ABORTED] = { "ABORTED", -ECANCELED },
	[NPU_STATUS_TIMEOUT] = { "TIMEOUT", -ETIMEDOUT },
	[NPU_STATUS_WAIT_TIMEOUT] = { "WAIT_TIMEOUT", -ETIMEDOUT },
	[NPU_STATUS_ENGINE_RESET] = { "ENGINE_RESET", -EIO },
	[NPU_STATUS_BUS_FAULT] = { "BUS_FAULT", -EFAULT },
	[NPU_STATUS_DEVICE_FAULT] = { "DEVICE_FAULT", -EFAULT },
	[NPU_STATUS_INVALID_BINDING] = { "INVALID_BINDING", -EINVAL },
	[NPU_STATUS_TRANSLATION_FAULT] = { "TRANSLATION_FAULT", -EFAULT },
	[NPU_STATUS_CONTEXT_FAULTED] = { "CONTEXT_FAULTED", -EFAULT },
	[NPU_STATUS_POISON] = { "POISON", -EIO },
	[NPU_STATUS_INVALID_DOORBELL] = { "INVALID_DOORBELL", -EIO },
	[NPU_STATUS_QUEUE_DISABLED] = { "QUEUE_DISABLED", -EIO },
	[NPU_STATUS_FIRMWARE_TRAP] = { "FIRMWARE_TRAP", -EIO },
	[NPU_STATUS_WATCHDOG] = { "WATCHDOG", -EIO },
	[NPU_STATUS_BAD_PROGRAM] = { "BAD_PROGRAM", -EINVAL },
	[NPU_STATUS_CONFIG_MISMATCH] = { "CONFIG_MISMATCH", -EINVAL },
	[NPU_STATUS_ILLEGAL_INSTRUCTION] = { "ILLEGAL_INSTRUCTION", -EINVAL },
	[NPU_STATUS_RESERVED_FIELD] = { "RESERVED_FIELD", -EINVAL },
	[NPU_STATUS_BAD_OPERAND] = { "BAD_OPERAND", -EINVAL },
	[NPU_STATUS_ARRAY_SHAPE] = { "ARRAY_SHAPE", -EINVAL },
	[NPU_STATUS_LOCAL_BOUNDS] = { "LOCAL_BOUNDS", -EFAULT },
	[NPU_STATUS_BINDING_INDEX] = { "BINDING_INDEX", -EFAULT },
	[NPU_STATUS_BINDING_ACCESS] = { "BINDING_ACCESS", -EFAULT },
	[NPU_STATUS_BINDING_BOUNDS] = { "BINDING_BOUNDS", -EFAULT },
	[NPU_STATUS_BAD_PARAM] = { "BAD_PARAM", -EINVAL },
	[NPU_STATUS_MEMORY_FAULT] = { "MEMORY_FAULT", -EFAULT },
	[NPU_STATUS_TOKEN_OVERFLOW] = { "TOKEN_OVERFLOW", -EINVAL },
	[NPU_STATUS_DEADLOCK] = { "DEADLOCK", -EINVAL },
	[NPU_STATUS_NO_HALT] = { "NO_HALT", -EINVAL },
	[NPU_STATUS_BAD_SETUP] = { "BAD_SETUP", -EINVAL },
	[NPU_STATUS_BAD_CONTROL] = { "BAD_CONTROL", -EINVAL },
	[NPU_STATUS_BUDGET] = { "BUDGET", -EINVAL },
};

/* npu_status_name returns the name of a status code, §9.1. */
const char *npu_status_name(u32 status)
{
	if (status < ARRAY_SIZE(npu_statuses) && npu_statuses[status].name)
		return npu_statuses[status].name;
	return "unknown";
}

/* npu_status_errno returns what a status code is for user space. */
int npu_status_errno(u32 status)
{
	if (status < ARRAY_SIZE(npu_statuses) && npu_statuses[status].name)
		return npu_statuses[status].error;
	return -EIO;
}

int npu_mbox_init(struct npu_device *npu)
{
	struct npu_mbox *mbox = &npu->mbox;
	int ret;

	ret = drmm_mutex_init(&npu->drm, &mbox->lock);
	if (ret)
		return ret;
	init_waitqueue_head(&mbox->wait);

	mbox->buffer = dmam_alloc_coherent(npu->drm.dev, PAGE_SIZE, &mbox->buffer_addr, GFP_KERNEL);
	return mbox->buffer ? 0 : -ENOMEM;
}

/* npu_mbox_enable lets commands through to a device that serves them. */
void npu_mbox_enable(struct npu_device *npu)
{
	mutex_lock(&npu->mbox.lock);
	WRITE_ONCE(npu->mbox.dead, false);
	npu->mbox.enabled = true;
	mutex_unlock(&npu->mbox.lock);
}

/* npu_mbox_disable waits for a running command; later ones fail with -EIO. */
void npu_mbox_disable(struct npu_device *npu)
{
	mutex_lock(&npu->mbox.lock);
	npu->mbox.enabled = false;
	mutex_unlock(&npu->mbox.lock);
}

/* npu_mbox_abort ends the wait for a completion that will not come: firmware is dead. */
void npu_mbox_abort(struct npu_device *npu)
{
	WRITE_ONCE(npu->mbox.dead, true);
	wake_up_all(&npu->mbox.wait);
}

static int npu_mbox_exec_locked(struct npu_device *npu, struct npu_sqe *sqe,
				struct npu_reply *reply, unsigned int timeout_ms)
{
	struct npu_mbox *mbox = &npu->mbox;
	struct npu_cqe cqe;
	u16 status;
	int ret;

	lockdep_assert_held(&mbox->lock);

	if (!mbox->enabled || READ_ONCE(mbox->dead))
		return -EIO;

	sqe->command_id = cpu_to_le16(mbox->command_id++);
	ret = npu->ops->admin(npu, sqe, &cqe, timeout_ms);
	if (ret) {
		mbox->enabled = false;
		drm_err(&npu->drm, "admin command 0x%02x has no answer within %u ms: %d\n",
			sqe->opcode, timeout_ms, ret);
		return ret;
	}
	if (cqe.command_id != sqe->command_id) {
		mbox->enabled = false;
		drm_err(&npu->drm, "admin completion for command %u, expected %u\n",
			le16_to_cpu(cqe.command_id), le16_to_cpu(sqe->command_id));
		return -EIO;
	}
	reply->result = le32_to_cpu(cqe.result);
	reply->info = le64_to_cpu(cqe.info);
	status = FIELD_GET(NPU_CQE_STATUS, le16_to_cpu(cqe.status));
	if (status)
		drm_dbg(&npu->drm, "admin command 0x%02x: status %s (0x%02x), info 0x%llx\n",
			sqe->opcode, npu_status_name(status), status, reply->info);
	return npu_status_errno(status);
}

/**
 * npu_mbox_exec - execute an admin command
 * @npu: device
 * @sqe: command; command_id is filled in here
 * @reply: result and info of the completion
 * @timeout_ms: how long to wait for it
 *
 * Return: 0; -ETIMEDOUT or -EIO when firmware does not answer properly, then the
 * queue stays disabled until the device is reset; otherwise the status as errno.
 */
int npu_mbox_exec(struct npu_device *npu, struct npu_sqe *sqe, struct npu_reply *reply,
		  unsigned int timeout_ms)
{
	int ret;

	mutex_lock(&npu->mbox.lock);
	ret = npu_mbox_exec_locked(npu, sqe, reply, timeout_ms);
	mutex_unlock(&npu->mbox.lock);
	return ret;
}

/**
 * npu_mbox_read - read a structure of firmware
 * @npu: device
 * @opcode: NPU_ADMIN_IDENTIFY or NPU_ADMIN_GET_LOG_PAGE
 * @page: log page; 0 with IDENTIFY
 * @to: receives @size bytes, zero behind what firmware wrote
 * @size: at most PAGE_SIZE
 * @timeout_ms: how long to wait for it
 *
 * Return: as npu_mbox_exec().
 */
int npu_mbox_read(struct npu_device *npu, u8 opcode, u32 page, void *to, size_t size,
		  unsigned int timeout_ms)
{
	struct npu_mbox *mbox = &npu->mbox;
	struct npu_sqe sqe = {
		.opcode = opcode,
		.buffer.address = cpu_to_le64(mbox->buffer_addr),
		.buffer.size = cpu_to_le32(size),
		.buffer.page = cpu_to_le32(page),
	};
	struct npu_reply reply;
	int ret;

	mutex_lock(&mbox->lock);
	memset(mbox->buffer, 0, size);
	ret = npu_mbox_exec_locked(npu, &sqe, &reply, timeout_ms);
	if (!ret)
		memcpy(to, mbox->buffer, size);
	mutex_unlock(&mbox->lock);
	return ret;
}

/**
 * npu_mbox_read_log - read a log page from a cursor on
 * @npu: device
 * @page: one of those with a cursor
 * @cursor: what is wanted first
 * @to: receives what firmware wrote
 * @size: at most PAGE_SIZE
 *
 * Return: the number of bytes written, or an error as npu_mbox_exec().
 */
int npu_mbox_read_log(struct npu_device *npu, u32 page, u32 cursor, void *to, size_t size)
{
	struct npu_mbox *mbox = &npu->mbox;
	struct npu_sqe sqe = {
		.opcode = NPU_ADMIN_GET_LOG_PAGE,
		.buffer.address = cpu_to_le64(mbox->buffer_addr),
		.buffer.size = cpu_to_le32(size),
		.buffer.page = cpu_to_le32(page),
		.buffer.cursor = cpu_to_le32(cursor),
	};
	struct npu_reply reply;
	int ret;

	mutex_lock(&mbox->lock);
	ret = npu_mbox_exec_locked(npu, &sqe, &reply, NPU_MBOX_TIMEOUT_MS);
	if (!ret) {
		ret = min(reply.result, size);
		memcpy(to, mbox->buffer, ret);
	}
	mutex_unlock(&mbox->lock);
	return ret;
}
