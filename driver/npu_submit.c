// SPDX-License-Identifier: GPL-2.0-only
/*
 * Submission: what user space gives is checked and turned into jobs of submission entries
 * (§4.9, §4.10) and binding tables (§7.3).
 */

#include <linux/bitfield.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-resv.h>
#include <linux/overflow.h>
#include <linux/sort.h>
#include <linux/uaccess.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_syncobj.h>

#include "npu_job.h"

static_assert(DRM_NPU_PROFILE_SIZE == NPU_PROFILE_SIZE);

/* The BOs of a job, each once, with their reservations locked. */
struct npu_reservation {
	struct npu_use *uses;
	struct drm_gem_object **objs;
	u32 count;
	struct ww_acquire_ctx ctx;
};

/* What a command names: by handle, or by virtual address. */
struct npu_operand {
	struct npu_bo *bo; /* NULL: by address */
	u64 address; /* of the BO's first byte; 0 without one */
	u32 space;
};

/* A syncobj to be signalled, with what that needs allocated. */
struct npu_out_sync {
	struct drm_syncobj *syncobj;
	struct dma_fence_chain *chain; /* NULL for binary */
	u64 point;
};

/**
 * npu_array_copy - copy an array from user space
 * @drm: for debug messages
 * @array: where it is
 * @size: of one element here
 * @max: elements
 *
 * Return: the elements, to be freed with kvfree(); NULL for none; -EINVAL,
 * -E2BIG, -EFAULT, -ENOMEM.
 */
void *npu_array_copy(struct drm_device *drm, const struct drm_npu_array *array, size_t size,
		     u32 max)
{
	void *elements;
	u32 i;
	int ret;

	if (!array->count)
		return NULL;
	if (array->count > max || array->stride < size || array->stride > PAGE_SIZE) {
		drm_dbg(drm, "array: %u elements of %u bytes, allowed are %u of %zu\n",
			array->count, array->stride, max, size);
		return ERR_PTR(-EINVAL);
	}
	elements = kvmalloc_array(array->count, size, GFP_KERNEL);
	if (!elements)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < array->count; i++) {
		ret = copy_struct_from_user(elements + i * size, size,
					    u64_to_user_ptr(array->ptr) + (size_t)i * array->stride,
					    array->stride);
		if (ret) {
			kvfree(elements);
			return ERR_PTR(ret);
		}
	}
	return elements;
}

/*
 * Looks an operand up, and maps it if the device has an MMU. The command keeps what it refers
 * to; command->uses has room.
 */
static int npu_command_operand(struct npu_command *command, struct drm_file *filp, u32 flags,
			       u32 handle, bool write, struct npu_operand *operand)
{
	struct npu_file *file = filp->driver_priv;
	struct drm_gem_object *obj;
	struct npu_mapping *m;

	*operand = (struct npu_operand){ .space = NPU_SPACE_VIRTUAL };
	if (flags & DRM_NPU_COMMAND_VA) {
		if (!handle && file->npu->mmu)
			return 0;
		drm_dbg(&file->npu->drm, "command by address: handle %u, which is 0, or no MMU\n",
			handle);
		return handle ? -EINVAL : -EOPNOTSUPP;
	}
	obj = drm_gem_object_lookup(filp, handle);
	if (!obj) {
		drm_dbg(&file->npu->drm, "no buffer object %u\n", handle);
		return -ENOENT;
	}
	operand->bo = to_npu_bo(obj);
	command->uses[command->use_count++] = (struct npu_use){ obj, write };
	if (file->npu->mmu) {
		m = npu_vm_use(&file->vm, filp, handle, operand->bo);
		if (IS_ERR(m))
			return PTR_ERR(m);
		command->uses[command->use_count - 1].mapping = m;
		operand->address = m->node.start;
	} else {
		operand->address = operand->bo->address;
		operand->space = operand->bo->placement == DRM_NPU_PLACEMENT_DEVICE ?
				 NPU_SPACE_DEVICE : NPU_SPACE_BUS;
	}
	return 0;
}

/* What is named by address the device checks. */
static bool npu_operand_contains(const struct npu_operand *operand, u64 offset, u64 size)
{
	struct npu_bo *bo = operand->bo;

	return !bo || (size && offset < bo->base.size && size <= bo->base.size - offset);
}

/* Whether all rows of one side of a copy are in the BO. */
static bool npu_copy_fits(const struct npu_operand *operand, u64 offset,
			  const struct drm_npu_copy *copy, u64 stride_y, u64 stride_z)
{
	u64 y, z, span;

	if (!operand->bo)
		return true;
	if (check_mul_overflow(stride_y, (u64)copy->ny - 1, &y) ||
	    check_mul_overflow(stride_z, (u64)copy->nz - 1, &z) ||
	    check_add_overflow(y, z, &span) || check_add_overflow(span, (u64)copy->nx, &span))
		return false;
	return npu_operand_contains(operand, offset, span);
}

static int npu_command_copy(struct drm_device *drm, struct drm_file *filp,
			    struct npu_command *command, u32 flags,
			    const struct drm_npu_copy *copy)
{
	struct npu_sqe *sqe = &command->sqe;
	struct npu_operand src, dst;
	int ret;

	if (copy->pad || !copy->nx || !copy->ny || copy->ny > U16_MAX || !copy->nz ||
	    copy->nz > U16_MAX) {
		drm_dbg(drm, "copy: pad or shape %u, %u, %u\n", copy->nx, copy->ny, copy->nz);
		return -EINVAL;
	}
	command->uses = kcalloc(2, sizeof(*command->uses), GFP_KERNEL);
	if (!command->uses)
		return -ENOMEM;
	ret = npu_command_operand(command, filp, flags, copy->src_handle, false, &src);
	if (!ret)
		ret = npu_command_operand(command, filp, flags, copy->dst_handle, true, &dst);
	if (ret)
		return ret;
	if (!npu_copy_fits(&src, copy->src_offset, copy, copy->src_stride_y, copy->src_stride_z) ||
	    !npu_copy_fits(&dst, copy->dst_offset, copy, copy->dst_stride_y, copy->dst_stride_z)) {
		drm_dbg(drm, "copy: rows outside the buffer object\n");
		return -EINVAL;
	}

	sqe->opcode = NPU_CMD_COPY;
	sqe->spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, src.space) |
				  FIELD_PREP(NPU_SPACES_SECOND, dst.space));
	sqe->copy.src = cpu_to_le64(src.address + copy->src_offset);
	sqe->copy.dst = cpu_to_le64(dst.address + copy->dst_offset);
	sqe->copy.nx = cpu_to_le32(copy->nx);
	sqe->copy.ny = cpu_to_le16(copy->ny);
	sqe->copy.nz = cpu_to_le16(copy->nz);
	sqe->copy.src_stride_y = cpu_to_le64(copy->src_stride_y);
	sqe->copy.src_stride_z = cpu_to_le64(copy->src_stride_z);
	sqe->copy.dst_stride_y = cpu_to_le64(copy->dst_stride_y);
	sqe->copy.dst_stride_z = cpu_to_le64(copy->dst_stride_z);
	return 0;
}

static int npu_command_bindings(struct drm_device *drm, struct drm_file *filp,
				struct npu_command *command, u32 flags,
				const struct drm_npu_binding *bindings, u32 count)
{
	struct npu_file *file = filp->driver_priv;
	struct npu_slot *slot = npu_slot_get(&file->vm);
	u32 i;
	int ret;

	if (IS_ERR(slot))
		return PTR_ERR(slot);
	command->slot = slot;
	for (i = 0; i < count; i++) {
		const struct drm_npu_binding *binding = &bindings[i];
		struct npu_operand to;
		u32 access;

		if (!binding->flags ||
		    binding->flags & ~(DRM_NPU_BINDING_READ | DRM_NPU_BINDING_WRITE)) {
			drm_dbg(drm, "binding %u: flags 0x%x\n", i, binding->flags);
			return -EINVAL;
		}
		ret = npu_command_operand(command, filp, flags, binding->handle,
					  binding->flags & DRM_NPU_BINDING_WRITE, &to);
		if (ret)
			return ret;
		if (!binding->size || !npu_operand_contains(&to, binding->offset, binding->size)) {
			drm_dbg(drm, "binding %u: not in its buffer object\n", i);
			return -EINVAL;
		}
		access = FIELD_PREP(NPU_BINDING_SPACE, to.space);
		if (binding->flags & DRM_NPU_BINDING_READ)
			access |= NPU_BINDING_READ;
		if (binding->flags & DRM_NPU_BINDING_WRITE)
			access |= NPU_BINDING_WRITE;
		slot->table[i] = (struct npu_hw_binding){
			.address = cpu_to_le64(to.address + binding->offset),
			.size = cpu_to_le64(binding->size),
			.flags = cpu_to_le32(access),
		};
	}
	return 0;
}

/* Tells where a launch shall leave its profile record. */
static int npu_command_profile(struct drm_device *drm, struct drm_file *filp,
			       struct npu_command *command, u32 flags,
			       const struct drm_npu_launch *launch)
{
	struct npu_sqe *sqe = &command->sqe;
	struct npu_operand record;
	int ret;

	if (!(to_npu(drm)->params.features & NPU_FEATURES_LO_TIMING)) {
		drm_dbg(drm, "launch: the device has no profile records\n");
		return -EOPNOTSUPP;
	}
	ret = npu_command_operand(command, filp, flags, launch->profile_handle, true, &record);
	if (ret)
		return ret;
	if (!npu_operand_contains(&record, launch->profile_offset, NPU_PROFILE_SIZE)) {
		drm_dbg(drm, "launch: profile record outside its buffer object\n");
		return -EINVAL;
	}
	sqe->flags = NPU_LAUNCH_PROFILE;
	sqe->launch.profile_space = cpu_to_le32(record.space);
	sqe->launch.profile = cpu_to_le64(record.address + launch->profile_offset);
	return 0;
}

/* What is wrong with a launch by itself. */
static bool npu_launch_valid(struct drm_device *drm, u32 flags, const struct drm_npu_launch *launch)
{
	if (!IS_ALIGNED(launch->program_offset, NPU_PROGRAM_ALIGN) ||
	    launch->program_size < NPU_PROGRAM_MIN) {
		drm_dbg(drm, "launch: program of %u bytes at offset %llu\n", launch->program_size,
			launch->program_offset);
		return false;
	}
	if (launch->pad || !IS_ALIGNED(launch->profile_offset, NPU_PROFILE_ALIGN) ||
	    (!(flags & DRM_NPU_COMMAND_PROFILE) &&
	     (launch->profile_handle || launch->profile_offset))) {
		drm_dbg(drm, "launch: pad, or profile record at offset %llu of %u, flags 0x%x\n",
			launch->profile_offset, launch->profile_handle, flags);
		return false;
	}
	return true;
}

static int npu_command_launch(struct drm_device *drm, struct drm_file *filp,
			      struct npu_command *command, u32 flags,
			      const struct drm_npu_launch *launch)
{
	struct npu_sqe *sqe = &command->sqe;
	struct drm_npu_binding *bindings;
	u32 count = launch->bindings.count;
	struct npu_operand program;
	int ret;

	if (!npu_launch_valid(drm, flags, launch))
		return -EINVAL;
	bindings = npu_array_copy(drm, &launch->bindings, sizeof(*bindings), NPU_MAX_BINDINGS);
	if (IS_ERR(bindings))
		return PTR_ERR(bindings);

	command->uses = kcalloc(2 + count, sizeof(*command->uses), GFP_KERNEL);
	if (!command->uses) {
		ret = -ENOMEM;
		goto out;
	}
	ret = npu_command_operand(command, filp, flags, launch->program_handle, false, &program);
	if (ret)
		goto out;
	if (!npu_operand_contains(&program, launch->program_offset, launch->program_size)) {
		drm_dbg(drm, "launch: program outside its buffer object\n");
		ret = -EINVAL;
		goto out;
	}
	if (count)
		ret = npu_command_bindings(drm, filp, command, flags, bindings, count);
	if (!ret && flags & DRM_NPU_COMMAND_PROFILE)
		ret = npu_command_profile(drm, filp, command, flags, launch);
	if (ret)
		goto out;

	sqe->opcode = NPU_CMD_LAUNCH;
	sqe->launch.program = cpu_to_le64(program.address + launch->program_offset);
	sqe->launch.table = cpu_to_le64(count ? command->slot->address : 0);
	sqe->launch.bindings = cpu_to_le32(count);
	sqe->launch.spaces =
		cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, program.space) |
			    FIELD_PREP(NPU_SPACES_SECOND,
				       to_npu(drm)->mmu ? NPU_SPACE_VIRTUAL : NPU_SPACE_BUS));
	sqe->launch.program_size = cpu_to_le32(launch->program_size);
out:
	kvfree(bindings);
	return ret;
}

/* Checks one command and fills in everything but its command_id. */
static int npu_command_init(struct drm_device *drm, struct drm_file *filp,
			    struct npu_command *command, const struct drm_npu_command *from)
{
	const void *unused = &from->reserved;
	u32 known = DRM_NPU_COMMAND_VA;
	size_t used;

	switch (from->type) {
	case DRM_NPU_COMMAND_NOP:
		used = 0;
		known = 0;
		break;
	case DRM_NPU_COMMAND_COPY:
		used = sizeof(from->copy);
		break;
	case DRM_NPU_COMMAND_LAUNCH:
		used = sizeof(from->launch);
		known |= DRM_NPU_COMMAND_PROFILE;
		break;
	default:
		drm_dbg(drm, "command of unknown type %u\n", from->type);
		return -EINVAL;
	}
	if (from->flags & ~known || memchr_inv(unused + used, 0, sizeof(from->reserved) - used)) {
		drm_dbg(drm, "command: flags 0x%x, or reserved bytes are not zero\n", from->flags);
		return -EINVAL;
	}

	switch (from->type) {
	case DRM_NPU_COMMAND_COPY:
		return npu_command_copy(drm, filp, command, from->flags, &from->copy);
	case DRM_NPU_COMMAND_LAUNCH:
		return npu_command_launch(drm, filp, command, from->flags, &from->launch);
	default:
		command->sqe.opcode = NPU_CMD_NOP;
		return 0;
	}
}

/* Makes a job that the scheduler does not know yet. */
static struct npu_job *npu_job_create(struct npu_device *npu, struct drm_file *filp,
				      const struct drm_npu_array *array)
{
	struct drm_npu_command *commands;
	struct npu_job *job;
	u32 i;
	int ret = 0;

	if (!array->count) {
		drm_dbg(&npu->drm, "a job has at least one command\n");
		return ERR_PTR(-EINVAL);
	}
	commands = npu_array_copy(&npu->drm, array, sizeof(*commands), npu->params.max_commands);
	if (IS_ERR(commands))
		return ERR_CAST(commands);

	job = npu_job_alloc(npu, filp, array->count);
	if (!job) {
		ret = -ENOMEM;
		goto out;
	}
	for (i = 0; i < array->count && !ret; i++)
		ret = npu_command_init(&npu->drm, filp, &job->commands[i], &commands[i]);
	if (ret)
		npu_job_free(job);
out:
	kvfree(commands);
	return ret ? ERR_PTR(ret) : job;
}

static struct drm_npu_sync *npu_syncs_copy(struct drm_device *drm,
					   const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_array_copy(drm, array, sizeof(*syncs), NPU_MAX_SYNCS);
	u32 i;

	if (IS_ERR(syncs))
		return syncs;
	for (i = 0; i < array->count; i++)
		if (syncs[i].flags) {
			drm_dbg(drm, "sync %u: flags 0x%x\n", i, syncs[i].flags);
			kvfree(syncs);
			return ERR_PTR(-EINVAL);
		}
	return syncs;
}

static int npu_job_add_in_syncs(struct npu_job *job, struct drm_file *filp,
				const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_syncs_copy(&job->npu->drm, array);
	struct dma_fence *fence;
	int ret = 0;
	u32 i;

	if (IS_ERR(syncs))
		return PTR_ERR(syncs);
	for (i = 0; i < array->count && !ret; i++) {
		ret = drm_syncobj_find_fence(filp, syncs[i].handle, syncs[i].point, 0, &fence);
		if (ret) {
			drm_dbg(&job->npu->drm, "in sync %u: no fence in syncobj %u at %llu\n", i,
				syncs[i].handle, syncs[i].point);
			break;
		}
		ret = drm_sched_job_add_dependency(&job->base, fence);
	}
	kvfree(syncs);
	return ret;
}

static void npu_out_syncs_free(struct npu_out_sync *outs, u32 count)
{
	u32 i;

	for (i = 0; i < count && outs[i].syncobj; i++) {
		dma_fence_chain_free(outs[i].chain);
		drm_syncobj_put(outs[i].syncobj);
	}
	kvfree(outs);
}

static struct npu_out_sync *npu_out_syncs_create(struct drm_device *drm, struct drm_file *filp,
						 const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_syncs_copy(drm, array);
	struct npu_out_sync *outs;
	int ret = 0;
	u32 i;

	if (IS_ERR_OR_NULL(syncs))
		return ERR_CAST(syncs);
	outs = kvcalloc(array->count, sizeof(*outs), GFP_KERNEL);
	if (!outs) {
		kvfree(syncs);
		return ERR_PTR(-ENOMEM);
	}
	for (i = 0; i < array->count && !ret; i++) {
		outs[i].syncobj = drm_syncobj_find(filp, syncs[i].handle);
		outs[i].point = syncs[i].point;
		if (!outs[i].syncobj) {
			drm_dbg(drm, "out sync %u: no syncobj %u\n", i, syncs[i].handle);
			ret = -ENOENT;
			break;
		}
		if (outs[i].point) {
			outs[i].chain = dma_fence_chain_alloc();
			if (!outs[i].chain)
				ret = -ENOMEM;
		}
	}
	kvfree(syncs);
	if (ret) {
		npu_out_syncs_free(outs, array->count);
		return ERR_PTR(ret);
	}
	return outs;
}

/*
 * Gives the job to a queue of its file, and prepares it for the scheduler. Called with
 * npu_file.lock held.
 */
static int npu_job_attach(struct npu_job *job, struct drm_file *filp, u32 queue)
{
	struct npu_file *file = job->file;
	struct npu_queue *q;

	q = npu_file_queue(file, queue);
	if (IS_ERR(q))
		return PTR_ERR(q);
	if (q->own) {
		drm_dbg(&job->npu->drm, "queue %u takes no jobs\n", queue);
		return -EINVAL;
	}
	job->queue = q;
	return drm_sched_job_init(&job->base, &job->queue->entity, job->count, file,
				  filp->client_id);
}

static int npu_use_compare(const void *a, const void *b)
{
	const struct npu_use *left = a, *right = b;

	return left->obj < right->obj ? -1 : left->obj > right->obj;
}

static void npu_reservation_unlock(struct npu_reservation *r)
{
	if (r->count)
		drm_gem_unlock_reservations(r->objs, r->count, &r->ctx);
	kvfree(r->objs);
	kvfree(r->uses);
}

/* Adds what the job has to wait for, and makes room for its fence. */
static int npu_reservation_prepare(struct npu_reservation *r, struct npu_job *job)
{
	int ret = 0;
	u32 i;

	for (i = 0; i < r->count && !ret; i++) {
		ret = dma_resv_reserve_fences(r->objs[i]->resv, 1);
		if (!ret && READ_ONCE(to_npu_bo(r->objs[i])->shared))
			ret = drm_sched_job_add_implicit_dependencies(&job->base, r->objs[i],
								      r->uses[i].write);
	}
	return ret;
}

/* Locks what the job needs; the job is prepared for the scheduler. */
static int npu_reservation_lock(struct npu_reservation *r, struct npu_job *job)
{
	u32 i, total = 0, count = 0;
	int ret;

	*r = (struct npu_reservation){};
	for (i = 0; i < job->count; i++)
		total += job->commands[i].use_count;
	if (!total)
		return 0;
	r->uses = kvmalloc_array(total, sizeof(*r->uses), GFP_KERNEL);
	r->objs = kvmalloc_array(total, sizeof(*r->objs), GFP_KERNEL);
	if (!r->uses || !r->objs) {
		ret = -ENOMEM;
		goto err;
	}
	for (i = 0; i < job->count; i++) {
		const struct npu_command *command = &job->commands[i];

		memcpy(r->uses + count, command->uses, command->use_count * sizeof(*r->uses));
		count += command->use_count;
	}
	sort(r->uses, total, sizeof(*r->uses), npu_use_compare, NULL);
	for (i = count = 0; i < total; i++) {
		if (count && r->objs[count - 1] == r->uses[i].obj) {
			r->uses[count - 1].write |= r->uses[i].write;
			continue;
		}
		r->objs[count] = r->uses[i].obj;
		r->uses[count++] = r->uses[i];
	}

	ret = drm_gem_lock_reservations(r->objs, count, &r->ctx);
	if (ret)
		goto err;
	r->count = count;
	ret = npu_reservation_prepare(r, job);
	if (!ret)
		return 0;
err:
	npu_reservation_unlock(r);
	return ret;
}

/* Hands the job to the scheduler; from here on it belongs to it. */
static u64 npu_job_push(struct npu_job *job, struct npu_reservation *r, struct npu_out_sync *outs,
			u32 count)
{
	struct dma_fence *fence;
	u64 seqno;
	u32 i;

	lockdep_assert_held(&job->file->lock);

	drm_sched_job_arm(&job->base);
	fence = &job->base.s_fence->finished;

	seqno = npu_job_number(job);
	for (i = 0; i < r->count; i++)
		dma_resv_add_fence(r->objs[i]->resv, fence,
				   r->uses[i].write ? DMA_RESV_USAGE_WRITE : DMA_RESV_USAGE_READ);
	for (i = 0; i < count; i++) {
		if (outs[i].chain) {
			drm_syncobj_add_point(outs[i].syncobj, outs[i].chain, fence, outs[i].point);
			outs[i].chain = NULL; /* the syncobj owns it */
		} else {
			drm_syncobj_replace_fence(outs[i].syncobj, fence);
		}
	}
	atomic_inc(&job->queue->jobs);
	npu_stay_awake(job->npu); /* until it is freed */
	drm_sched_entity_push_job(&job->base);
	return seqno;
}

static int npu_submit(struct npu_device *npu, struct drm_npu_submit *args, struct drm_file *filp)
{
	struct npu_file *file = filp->driver_priv;
	struct npu_reservation r;
	struct npu_out_sync *outs;
	struct npu_job *job;
	int ret;

	ret = npu_vm_start(&file->vm);
	if (ret)
		return ret;
	outs = npu_out_syncs_create(&npu->drm, filp, &args->out_syncs);
	if (IS_ERR(outs))
		return PTR_ERR(outs);
	job = npu_job_create(npu, filp, &args->commands);
	if (IS_ERR(job)) {
		ret = PTR_ERR(job);
		goto out;
	}

	mutex_lock(&file->lock);
	ret = npu_job_attach(job, filp, args->queue);
	if (ret)
		goto err_unlock;
	ret = npu_job_add_in_syncs(job, filp, &args->in_syncs);
	if (!ret)
		ret = npu_reservation_lock(&r, job);
	if (ret) {
		drm_sched_job_cleanup(&job->base);
		goto err_unlock;
	}
	args->seqno = npu_job_push(job, &r, outs, args->out_syncs.count);
	npu_reservation_unlock(&r);
	mutex_unlock(&file->lock);
	goto out;

err_unlock:
	mutex_unlock(&file->lock);
	npu_job_free(job);
out:
	npu_out_syncs_free(outs, args->out_syncs.count);
	return ret;
}

/* Copies a page of zeros over and over, on the file's queue. */
static int npu_job_copy_zeros(struct npu_device *npu, struct drm_file *filp,
			      const struct npu_operand *src, const struct npu_operand *dst,
			      u64 size)
{
	struct npu_file *file = filp->driver_priv;
	u64 rows = size >> PAGE_SHIFT, done = 0;
	struct dma_fence *fence;
	struct npu_job *job;
	int ret = 0;

	while (done < rows && !ret) {
		u32 ny = min(rows - done, (u64)U16_MAX);
		struct npu_sqe *sqe;

		job = npu_job_alloc(npu, filp, 1);
		if (!job)
			return -ENOMEM;
		sqe = &job->commands[0].sqe;
		sqe->opcode = NPU_CMD_COPY;
		sqe->spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, src->space) |
					  FIELD_PREP(NPU_SPACES_SECOND, dst->space));
		sqe->copy.src = cpu_to_le64(src->address);
		sqe->copy.dst = cpu_to_le64(dst->address + (done << PAGE_SHIFT));
		sqe->copy.nx = cpu_to_le32(PAGE_SIZE);
		sqe->copy.ny = cpu_to_le16(ny);
		sqe->copy.nz = cpu_to_le16(1);
		sqe->copy.dst_stride_y = cpu_to_le64(PAGE_SIZE);

		mutex_lock(&file->lock);
		ret = npu_job_attach(job, filp, 0);
		if (ret) {
			mutex_unlock(&file->lock);
			npu_job_free(job);
			return ret;
		}
		drm_sched_job_arm(&job->base);
		fence = dma_fence_get(&job->base.s_fence->finished);
		atomic_inc(&job->queue->jobs);
		npu_stay_awake(npu);
		drm_sched_entity_push_job(&job->base); /* with seqno 0 nobody can ask for it */
		mutex_unlock(&file->lock);
		dma_fence_wait(fence, false);
		ret = dma_fence_get_status(fence);
		dma_fence_put(fence);
		ret = ret < 0 ? -EIO : 0;
		done += ny;
	}
	return ret;
}

/*
 * npu_job_clear zeroes device memory that the host cannot reach, and that no BO has yet. size
 * is a multiple of the page size, the device is awake.
 */
int npu_job_clear(struct npu_device *npu, struct drm_file *filp, u64 address, u64 size)
{
	struct npu_operand src = { .address = npu->zeros_addr, .space = NPU_SPACE_BUS };
	struct npu_operand dst = { .address = address, .space = NPU_SPACE_DEVICE };
	struct npu_file *file = filp->driver_priv;
	struct npu_mapping *from, *to;
	int ret;

	if (!npu->mmu)
		return npu_job_copy_zeros(npu, filp, &src, &dst, size);

	ret = npu_vm_start(&file->vm);
	if (ret)
		return ret;
	from = npu_vm_use_memory(&file->vm, src.space, src.address, PAGE_SIZE, NPU_PAGE_READ);
	if (IS_ERR(from))
		return PTR_ERR(from);
	to = npu_vm_use_memory(&file->vm, dst.space, dst.address, size, NPU_PAGE_WRITE);
	if (IS_ERR(to)) {
		npu_vm_put(from);
		return PTR_ERR(to);
	}
	src = (struct npu_operand){ .address = from->node.start, .space = NPU_SPACE_VIRTUAL };
	dst = (struct npu_operand){ .address = to->node.start, .space = NPU_SPACE_VIRTUAL };
	ret = npu_job_copy_zeros(npu, filp, &src, &dst, size);
	npu_vm_put(from);
	npu_vm_put(to);
	flush_work(&npu->vm_work); /* if ret is not 0 the memory is free at once */
	return ret;
}

int npu_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_submit *args = data;
	int ret, idx;

	if (args->flags || args->seqno) {
		drm_dbg(drm, "reserved or out field is not zero\n");
		return -EINVAL;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	ret = npu_wake(to_npu(drm));
	if (!ret) {
		ret = npu_submit(to_npu(drm), args, filp);
		npu_relax(to_npu(drm));
	}
	drm_dev_exit(idx);
	return ret;
}
