// SPDX-License-Identifier: GPL-2.0-only
/*
 * Address spaces of files, on a device with an MMU (interface 1.2): what is mapped where, what
 * faults do, and that nobody reaches what is another's.
 */
#include <pthread.h>

#include "npu.h"

#define READ	DRM_NPU_VM_READ
#define WRITE	DRM_NPU_VM_WRITE
#define EXEC	DRM_NPU_VM_EXEC

/* Addresses in the file's part, far apart, with different tables. */
#define A	0x10000000ull
#define B	0x7f0000000000ull
#define C	0x40000000ull

FIXTURE(vm) {
	struct npu_device dev;
	int fd;
	struct drm_npu_device_info info;
	struct drm_npu_vm_info vm;
	struct npu_bo a, b;
	struct drm_npu_vm_op op[3];
	struct drm_npu_vm_bind bind;
};

FIXTURE_SETUP(vm)
{
	int ret;

	NPU_SETUP_OPEN();
	if (npu_minor(self->fd) < 2)
		SKIP(return, "no address spaces before 1.2");
	ret = npu_query(self->fd, DRM_NPU_QUERY_VM, 0, &self->vm, sizeof(self->vm));
	if (ret == -EOPNOTSUPP)
		SKIP(return, "the device has no MMU");
	ASSERT_EQ(0, ret);
	self->info = npu_info(self->fd);
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->a));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &self->b));
	npu_fill(self->a.map, NPU_MIB, 1);
	self->op[0] = (struct drm_npu_vm_op){ DRM_NPU_VM_MAP, READ, self->a.handle, 0, 0, A,
					      NPU_MIB };
	self->op[1] = (struct drm_npu_vm_op){ DRM_NPU_VM_MAP, READ | WRITE, self->b.handle, 0, 0, B,
					      NPU_MIB };
	self->op[2] = (struct drm_npu_vm_op){ DRM_NPU_VM_UNMAP, 0, 0, 0, 0, A, NPU_MIB };
	self->bind = (struct drm_npu_vm_bind){ .ops = NPU_ARRAY(self->op, 2) };
}

FIXTURE_TEARDOWN(vm)
{
	close(self->fd);
}

static int bind(int fd, const struct drm_npu_vm_op *ops, uint32_t n)
{
	struct drm_npu_vm_bind b = { .ops = NPU_ARRAY(ops, n) };

	return npu_ioctl(fd, DRM_IOCTL_NPU_VM_BIND, &b);
}

static int map(int fd, const struct npu_bo *bo, uint64_t address, uint32_t flags)
{
	struct drm_npu_vm_op op = { DRM_NPU_VM_MAP, flags, bo->handle, 0, 0, address, bo->size };

	return bind(fd, &op, 1);
}

static int unmap(int fd, uint64_t address, uint64_t size)
{
	struct drm_npu_vm_op op = { .type = DRM_NPU_VM_UNMAP, .address = address, .size = size };

	return bind(fd, &op, 1);
}

static struct drm_npu_vm_info space_of(int fd)
{
	struct drm_npu_vm_info vm = { 0 };

	if (npu_query(fd, DRM_NPU_QUERY_VM, 0, &vm, sizeof(vm)))
		memset(&vm, 0xff, sizeof(vm));
	return vm;
}

static struct drm_npu_fault fault(int fd)
{
	struct drm_npu_fault f = { 0 };

	if (npu_query(fd, DRM_NPU_QUERY_FAULT, 0, &f, sizeof(f)))
		memset(&f, 0xff, sizeof(f));
	return f;
}

static struct drm_npu_command copy_va(uint64_t src, uint64_t dst, uint32_t n)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY, .flags = DRM_NPU_COMMAND_VA };

	c.copy.src_offset = src;
	c.copy.dst_offset = dst;
	c.copy.nx = n;
	c.copy.ny = 1;
	c.copy.nz = 1;
	return c;
}

static struct drm_npu_command launch_va(uint64_t program, uint32_t size,
					const struct drm_npu_binding *bindings, uint32_t n)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_LAUNCH, .flags = DRM_NPU_COMMAND_VA };

	c.launch.program_offset = program;
	c.launch.program_size = size;
	c.launch.bindings = NPU_ARRAY(bindings, n);
	return c;
}

TEST_F(vm, info)
{
	EXPECT_GT(self->vm.start, 0);
	EXPECT_GT(self->vm.end, self->vm.start);
	EXPECT_EQ(NPU_PAGE, self->vm.page_size);
	EXPECT_EQ(2 * NPU_MIB, self->vm.large_page_size);
	EXPECT_GT(self->vm.max_ops, 1);
	EXPECT_GT(self->vm.max_mappings, self->vm.max_ops);
	EXPECT_EQ(0, self->vm.mappings);
	EXPECT_EQ(0, self->vm.table_bytes);
}

/* What the calls cannot see the device does. */
TEST_F(vm, map_copy_unmap)
{
	struct drm_npu_command c = copy_va(A + 5, B + 77, NPU_MIB - 100);
	uint64_t before;

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	EXPECT_EQ(2, space_of(self->fd).mappings);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map + 5, self->b.map + 77, NPU_MIB - 100));
	EXPECT_TRUE(npu_all(self->b.map, 77, 0));
	before = space_of(self->fd).table_bytes;
	EXPECT_EQ(0, unmap(self->fd, A, NPU_MIB));
	EXPECT_EQ(1, space_of(self->fd).mappings);
	EXPECT_LT(space_of(self->fd).table_bytes, before);
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
	/* Again, elsewhere, and larger pages' neighbours. */
	EXPECT_EQ(0, map(self->fd, &self->a, A + 0x1ff000, READ));
	c = copy_va(A + 0x1ff000, B, NPU_MIB);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

/* A part of a BO, and the same memory in many places. */
TEST_F(vm, parts_and_aliases)
{
	struct drm_npu_vm_op op = { DRM_NPU_VM_MAP, READ, self->a.handle, 0, 3 * NPU_PAGE, C,
				    2 * NPU_PAGE };
	struct drm_npu_command c;
	int i;

	for (i = 0; i < 20; i++) {
		op.address = C + ((uint64_t)i << 30);
		ASSERT_EQ(0, bind(self->fd, &op, 1));
	}
	ASSERT_EQ(0, map(self->fd, &self->b, B, WRITE));
	for (i = 0; i < 20; i++) {
		c = copy_va(C + ((uint64_t)i << 30), B + i * 2 * NPU_PAGE, 2 * NPU_PAGE);
		EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
		EXPECT_EQ(0, memcmp(self->a.map + 3 * NPU_PAGE, self->b.map + i * 2 * NPU_PAGE,
				    2 * NPU_PAGE));
	}
	c = copy_va(C, B, 2 * NPU_PAGE + 1);
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(C + 2 * NPU_PAGE, fault(self->fd).address);
}

/* First and last page that a file can map. */
TEST_F(vm, ends)
{
	struct drm_npu_command c = copy_va(self->vm.start, self->vm.end - NPU_MIB, NPU_MIB);

	self->op[0].address = self->vm.start;
	self->op[1].address = self->vm.end - NPU_MIB;
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	/* All of it at once. */
	EXPECT_EQ(0, unmap(self->fd, self->vm.start, self->vm.end - self->vm.start));
	EXPECT_EQ(0, space_of(self->fd).mappings);
}

TEST_F(vm, launch)
{
	struct npu_program p = npu_copy_program(&self->info, 1000);
	struct drm_npu_binding bindings[] = {
		{ 0, DRM_NPU_BINDING_READ, A + 4096, 1000 },
		{ 0, DRM_NPU_BINDING_WRITE, B + 8192, 1000 },
	};
	struct drm_npu_command c = launch_va(C, p.size, bindings, 2);
	struct drm_npu_job_status s;
	struct npu_bo text;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_PAGE, &text));
	if (!text.map)
		ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &text));
	memcpy(text.map, p.bytes, p.size);
	ASSERT_EQ(0, map(self->fd, &text, C, EXEC));
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	ASSERT_EQ(0, npu_run(self->fd, &c, 1, &s));
	EXPECT_EQ(DRM_NPU_JOB_DONE, s.state);
	EXPECT_EQ(3, s.result);
	EXPECT_EQ(0, memcmp(self->a.map + 4096, self->b.map + 8192, 1000));
	EXPECT_TRUE(npu_all(self->b.map, 8192, 0));
	/* A program that is not there, one that cannot be executed, a binding that is not. */
	c = launch_va(C + NPU_PAGE, p.size, bindings, 2);
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(DRM_NPU_ACCESS_EXECUTE, fault(self->fd).access);
	EXPECT_EQ(DRM_NPU_FAULT_NOT_PRESENT, fault(self->fd).reason);
	c = launch_va(B, p.size, bindings, 2);
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(DRM_NPU_FAULT_PERMISSION, fault(self->fd).reason);
	bindings[1].offset = A;
	c = launch_va(C, p.size, bindings, 2);
	ASSERT_EQ(0, npu_run(self->fd, &c, 1, &s));
	EXPECT_EQ(-EFAULT, s.error);
	EXPECT_EQ(1, s.result);
	EXPECT_EQ(A, s.info);
	EXPECT_EQ(DRM_NPU_FAULT_PERMISSION, fault(self->fd).reason);
	EXPECT_EQ(DRM_NPU_ACCESS_WRITE, fault(self->fd).access);
	EXPECT_EQ(3, fault(self->fd).engine);
	EXPECT_EQ(3, fault(self->fd).count);
}

/* As many mappings as there can be, all of one page; a call that wants more does nothing. */
TEST_F_TIMEOUT(vm, as_many_as_there_can_be, 900)
{
	uint32_t max = self->vm.max_mappings, n, i, done;
	struct drm_npu_vm_op *op = calloc(self->vm.max_ops, sizeof(*op));

	ASSERT_NE(NULL, op);
	for (done = 0; done < max - 1; done += n) {
		n = max - 1 - done < self->vm.max_ops ? max - 1 - done : self->vm.max_ops;
		for (i = 0; i < n; i++)
			op[i] = (struct drm_npu_vm_op){
				DRM_NPU_VM_MAP, READ, self->a.handle, 0, 0,
				A + (uint64_t)(done + i) * NPU_PAGE, NPU_PAGE
			};
		ASSERT_EQ(0, bind(self->fd, op, n));
	}
	for (i = 0; i < 2; i++) {
		op[i] = op[0];
		op[i].address = A + (uint64_t)(max + i) * NPU_PAGE;
	}
	EXPECT_EQ(-ENOSPC, bind(self->fd, op, 2));
	EXPECT_EQ(max - 1, space_of(self->fd).mappings);
	EXPECT_EQ(0, bind(self->fd, op, 1));
	EXPECT_EQ(-ENOSPC, bind(self->fd, op + 1, 1));
	EXPECT_EQ(max, space_of(self->fd).mappings);
	EXPECT_EQ(0, unmap(self->fd, A, NPU_PAGE));
	EXPECT_EQ(0, bind(self->fd, op + 1, 1));
	EXPECT_EQ(0, unmap(self->fd, self->vm.start, self->vm.end - self->vm.start));
	EXPECT_EQ(0, space_of(self->fd).mappings);
	free(op);
}

#define GOOD_BIND(name, change)							\
	TEST_F(vm, good_##name)							\
	{									\
		change;								\
		EXPECT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_VM_BIND, &self->bind));	\
	}

GOOD_BIND(nothing, self->bind.ops.count = 0)
GOOD_BIND(map_unmap, self->bind.ops.count = 3)
GOOD_BIND(unmap_and_map_again, self->op[1] = self->op[2]; self->op[2] = self->op[0];
	  self->bind.ops.count = 3)
GOOD_BIND(last_page, self->op[0].offset = NPU_MIB - NPU_PAGE; self->op[0].size = NPU_PAGE)
GOOD_BIND(one_after_the_other, self->op[1].address = A + NPU_MIB)
GOOD_BIND(all_access, self->op[0].flags = READ | WRITE | EXEC)

/* Nothing of a call that fails is done. */
#define BAD_BIND(name, error, change)						\
	TEST_F(vm, bad_##name)							\
	{									\
		change;								\
		EXPECT_EQ(-(error), npu_ioctl(self->fd, DRM_IOCTL_NPU_VM_BIND, &self->bind));	\
		EXPECT_EQ(0, space_of(self->fd).mappings);			\
		EXPECT_EQ(0, map(self->fd, &self->a, A, READ));			\
		EXPECT_EQ(0, map(self->fd, &self->b, B, READ));			\
	}

BAD_BIND(flags, EINVAL, self->bind.flags = 1)
BAD_BIND(flags_high, EINVAL, self->bind.flags = 1ull << 63)
BAD_BIND(ops_too_many, EINVAL, self->bind.ops.count = self->vm.max_ops + 1)
BAD_BIND(ops_all_ones, EINVAL, self->bind.ops.count = ~0u)
BAD_BIND(ops_short, EINVAL, self->bind.ops.stride -= 8)
BAD_BIND(ops_nowhere, EFAULT, self->bind.ops.ptr = 8)
BAD_BIND(ops_longer, E2BIG, self->bind.ops.stride = 2 * sizeof(self->op[0]);
	 self->bind.ops.count = 1)
BAD_BIND(type_0, EINVAL, self->op[1].type = 0)
BAD_BIND(type_3, EINVAL, self->op[1].type = 3)
BAD_BIND(no_access, EINVAL, self->op[1].flags = 0)
BAD_BIND(access, EINVAL, self->op[1].flags = 8 | READ)
BAD_BIND(padding, EINVAL, self->op[1].pad = 1)
BAD_BIND(size_0, EINVAL, self->op[1].size = 0)
BAD_BIND(size_odd, EINVAL, self->op[1].size = NPU_PAGE + 64)
BAD_BIND(size_over_bo, EINVAL, self->op[1].size = NPU_MIB + NPU_PAGE)
BAD_BIND(size_all_ones, EINVAL, self->op[1].size = ~0ull << 12)
BAD_BIND(offset_odd, EINVAL, self->op[1].offset = 64; self->op[1].size = NPU_PAGE)
BAD_BIND(offset_end, EINVAL, self->op[1].offset = NPU_PAGE)
BAD_BIND(offset_wraps, EINVAL, self->op[1].offset = ~0ull << 12)
BAD_BIND(address_odd, EINVAL, self->op[1].address = B + 512)
BAD_BIND(address_0, EINVAL, self->op[1].address = 0)
BAD_BIND(address_before_start, EINVAL, self->op[1].address = self->vm.start - NPU_PAGE)
BAD_BIND(address_drivers, EINVAL, self->op[1].address = self->vm.end)
BAD_BIND(address_into_drivers, EINVAL, self->op[1].address = self->vm.end - NPU_PAGE)
BAD_BIND(address_all_ones, EINVAL, self->op[1].address = ~0ull << 12)
BAD_BIND(handle_0, ENOENT, self->op[1].handle = 0)
BAD_BIND(handle_unknown, ENOENT, self->op[1].handle = 4711)
BAD_BIND(overlap, EEXIST, self->op[1].address = A + NPU_MIB - NPU_PAGE)
BAD_BIND(overlap_before, EEXIST, self->op[1].address = A - NPU_MIB + NPU_PAGE)
BAD_BIND(same_place, EEXIST, self->op[1].address = A)
BAD_BIND(unmap_nothing, ENOENT, self->op[1] = self->op[2]; self->op[1].address = C)
BAD_BIND(unmap_begin, EINVAL, self->op[1] = self->op[2]; self->op[1].size = NPU_PAGE)
BAD_BIND(unmap_end, EINVAL, self->op[1] = self->op[2]; self->op[1].address += NPU_PAGE)
BAD_BIND(unmap_flags, EINVAL, self->op[1] = self->op[2]; self->op[1].flags = READ)
BAD_BIND(unmap_handle, EINVAL, self->op[1] = self->op[2]; self->op[1].handle = 1)
BAD_BIND(unmap_offset, EINVAL, self->op[1] = self->op[2]; self->op[1].offset = NPU_PAGE)
BAD_BIND(unmap_drivers, EINVAL, self->op[1] = self->op[2]; self->op[1].size = ~0ull << 12)
BAD_BIND(third_after_unmap, ENOENT, self->op[1] = self->op[2]; self->op[2].address = C;
	 self->bind.ops.count = 3)

/* What was there before a call that fails is there after it, for the device too. */
TEST_F(vm, all_or_nothing)
{
	struct drm_npu_command c = copy_va(A, B, NPU_MIB);
	struct drm_npu_vm_op op[3];

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	op[0] = self->op[2];
	op[1] = self->op[0];
	op[1].address = C;
	op[2] = self->op[0];
	op[2].address = B;
	EXPECT_EQ(-EEXIST, bind(self->fd, op, 3));
	EXPECT_EQ(2, space_of(self->fd).mappings);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	c = copy_va(C, B, 1);
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
}

/* Unmapped and mapped in one call: other memory at the same place. */
TEST_F(vm, replace)
{
	struct drm_npu_command c = copy_va(A, B, NPU_MIB);
	struct npu_bo other;
	struct drm_npu_vm_op op[2];

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_MIB, &other));
	memset(other.map, 0x77, NPU_MIB);
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	op[0] = self->op[2];
	op[1] = self->op[0];
	op[1].handle = other.handle;
	EXPECT_EQ(0, bind(self->fd, op, 2));
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_TRUE(npu_all(self->b.map, NPU_MIB, 0x77));
}

/* Tables come and go with what needs them. */
TEST_F(vm, tables)
{
	struct drm_npu_vm_op op = { DRM_NPU_VM_MAP, READ, self->a.handle, 0, 0, 0, NPU_PAGE };
	uint64_t before;
	int i, round;

	ASSERT_EQ(0, map(self->fd, &self->b, B, WRITE));
	before = space_of(self->fd).table_bytes;
	for (round = 0; round < 3; round++) {
		for (i = 1; i <= 40; i++) {
			op.address = (uint64_t)i << 39 | (uint64_t)i << 30;
			ASSERT_EQ(0, bind(self->fd, &op, 1));
		}
		EXPECT_EQ(before + 40 * 3 * NPU_PAGE, space_of(self->fd).table_bytes);
		EXPECT_EQ(0, unmap(self->fd, 1ull << 39, 40ull << 39 | 1ull << 39));
		EXPECT_EQ(before, space_of(self->fd).table_bytes);
	}
}

TEST_F(vm, as_many_operations_as_allowed)
{
	struct drm_npu_vm_op *op = calloc(self->vm.max_ops, sizeof(*op));
	struct drm_npu_command c;
	uint32_t i;

	ASSERT_NE(NULL, op);
	for (i = 0; i < self->vm.max_ops; i++)	/* pages in reverse order */
		op[i] = (struct drm_npu_vm_op){ DRM_NPU_VM_MAP, READ, self->a.handle, 0,
						(255 - i % 256) * NPU_PAGE, A + i * NPU_PAGE,
						NPU_PAGE };
	ASSERT_EQ(0, bind(self->fd, op, self->vm.max_ops));
	ASSERT_EQ(0, map(self->fd, &self->b, B, WRITE));
	c = copy_va(A, B, 256 * NPU_PAGE);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	for (i = 0; i < 256; i++)
		EXPECT_EQ(0, memcmp(self->a.map + (255 - i) * NPU_PAGE, self->b.map + i * NPU_PAGE,
				    NPU_PAGE));
	free(op);
}

/* A mapping outlives the handle, and ends with UNMAP. */
TEST_F(vm, mapping_holds_its_bo)
{
	struct drm_npu_command c = copy_va(A, B, NPU_MIB);
	uint64_t free_before = npu_info(self->fd).dram_free;
	struct npu_bo device;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, 4 * NPU_MIB, &device));
	ASSERT_EQ(0, map(self->fd, &device, A, READ | WRITE));
	ASSERT_EQ(0, map(self->fd, &self->b, B, READ | WRITE));
	npu_bo_destroy(self->fd, &device);
	EXPECT_EQ(free_before - 4 * NPU_MIB, npu_info(self->fd).dram_free);
	memset(self->b.map, 0x31, NPU_MIB);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_TRUE(npu_all(self->b.map, NPU_MIB, 0));
	EXPECT_EQ(0, unmap(self->fd, A, 4 * NPU_MIB));
	EXPECT_EQ(free_before, npu_info(self->fd).dram_free);
}

/* Commands by handle and by address in one job. */
TEST_F(vm, both_kinds)
{
	struct npu_bo device;
	struct drm_npu_command c[2];

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_MIB, &device));
	ASSERT_EQ(0, map(self->fd, &device, A, READ));
	ASSERT_EQ(0, map(self->fd, &self->b, B, WRITE));
	c[0] = npu_copy(&self->a, &device, NPU_MIB);
	c[1] = copy_va(A, B, NPU_MIB);
	EXPECT_EQ(0, npu_run_error(self->fd, c, 2));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
}

TEST_F(vm, handle_with_address)
{
	struct drm_npu_command c = copy_va(A, B, 8);
	struct drm_npu_command nop = npu_nop();
	struct npu_program p = npu_copy_program(&self->info, 64);
	struct drm_npu_binding b[] = {
		{ self->a.handle, DRM_NPU_BINDING_READ, A, 64 },
		{ 0, DRM_NPU_BINDING_WRITE, B, 64 },
	};

	c.copy.src_handle = self->a.handle;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	c.copy.src_handle = 0;
	c.copy.dst_handle = self->a.handle;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	c = launch_va(C, p.size, b, 2);
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	b[0].handle = 0;
	b[1].size = 0;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	c.launch.program_handle = self->a.handle;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &c, 1, NULL, NULL, NULL));
	nop.flags = DRM_NPU_COMMAND_VA;
	EXPECT_EQ(-EINVAL, npu_submit(self->fd, &nop, 1, NULL, NULL, NULL));
	EXPECT_EQ(0, fault(self->fd).count);
}

/* Faults: the job says EFAULT and where, the record why, and the file goes on. */

#define FAULT(name, source, destination, where, want_access, want_reason, want_status)	\
	TEST_F(vm, fault_##name)						\
	{									\
		struct drm_npu_command good = copy_va(A, B, NPU_MIB), c[3];	\
		struct drm_npu_job_status s;					\
		struct drm_npu_fault f;						\
		int i;								\
										\
		ASSERT_EQ(0, bind(self->fd, self->op, 2));			\
		for (i = 1; i <= 3; i++) {					\
			c[0] = npu_nop();					\
			c[1] = copy_va(source, destination, 2 * NPU_PAGE);	\
			c[2] = npu_nop();					\
			ASSERT_EQ(0, npu_run(self->fd, c, 3, &s));		\
			EXPECT_EQ(DRM_NPU_JOB_FAILED, s.state);			\
			EXPECT_EQ(-EFAULT, s.error);				\
			EXPECT_EQ(1, s.command);				\
			EXPECT_EQ(want_status, s.status);			\
			EXPECT_EQ(where, s.info);				\
			f = fault(self->fd);					\
			EXPECT_EQ(i, f.count);					\
			EXPECT_EQ(where, f.address);				\
			EXPECT_EQ(s.seqno, f.seqno);				\
			EXPECT_EQ(1, f.command);				\
			EXPECT_EQ(0, f.queue);					\
			EXPECT_EQ(want_status, f.status);			\
			EXPECT_EQ(want_access, f.access);			\
			EXPECT_EQ(want_reason, f.reason);			\
			EXPECT_EQ(1, f.engine);					\
			memset(self->b.map, 0, NPU_MIB);			\
			ASSERT_EQ(0, npu_run_error(self->fd, &good, 1));	\
			EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));	\
		}								\
		EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);	\
	}

FAULT(nothing_to_read, C, B, C, DRM_NPU_ACCESS_READ, DRM_NPU_FAULT_NOT_PRESENT, 0x13)
FAULT(nothing_to_write, A, C + 7, C + 7, DRM_NPU_ACCESS_WRITE, DRM_NPU_FAULT_NOT_PRESENT, 0x13)
FAULT(end_of_mapping, A + NPU_MIB - NPU_PAGE, B, A + NPU_MIB, DRM_NPU_ACCESS_READ,
      DRM_NPU_FAULT_NOT_PRESENT, 0x13)
FAULT(write_of_read_only, B, A, A, DRM_NPU_ACCESS_WRITE, DRM_NPU_FAULT_PERMISSION, 0x13)
FAULT(null, 0, B, 0, DRM_NPU_ACCESS_READ, DRM_NPU_FAULT_NOT_PRESENT, 0x13)
FAULT(no_address, 1ull << 48, B, 1ull << 48, DRM_NPU_ACCESS_READ, DRM_NPU_FAULT_RANGE, 0x13)
FAULT(sign, ~0ull << 40, B, ~0ull << 40, DRM_NPU_ACCESS_READ, DRM_NPU_FAULT_RANGE, 0x13)

TEST_F(vm, no_fault_yet)
{
	struct drm_npu_fault f;

	ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_FAULT, 0, &f, sizeof(f)));
	EXPECT_TRUE(npu_all((uint8_t *)&f, sizeof(f), 0));
	EXPECT_EQ(-EINVAL, npu_query(self->fd, DRM_NPU_QUERY_FAULT, 1, &f, sizeof(f)));
	EXPECT_EQ(-EINVAL, npu_query(self->fd, DRM_NPU_QUERY_VM, 1, &f, sizeof(f)));
}

/* What was copied before the address that faulted is there. */
TEST_F(vm, fault_is_precise)
{
	struct drm_npu_command c = copy_va(A, B + NPU_MIB - 3 * NPU_PAGE, 4 * NPU_PAGE);
	struct drm_npu_job_status s;

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	ASSERT_EQ(0, npu_run(self->fd, &c, 1, &s));
	EXPECT_EQ(-EFAULT, s.error);
	EXPECT_EQ(B + NPU_MIB, s.info);
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map + NPU_MIB - 3 * NPU_PAGE, 3 * NPU_PAGE));
}

/* Jobs behind one that faults: those that wait run, in order. */
TEST_F_TIMEOUT(vm, fault_with_jobs_behind, 60)
{
	struct drm_npu_command bad = copy_va(C, B, 8), good = copy_va(A, B, NPU_MIB);
	struct drm_npu_sync first = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_sync second = { .handle = npu_syncobj(self->fd) };
	struct drm_npu_job_status s;
	uint64_t seqno;
	int i;

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, npu_submit(self->fd, &bad, 1, NULL, &first, NULL));
		ASSERT_EQ(0, npu_submit(self->fd, &good, 1, &first, &second, &seqno));
		ASSERT_EQ(0, npu_wait(self->fd, second.handle, 0));
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno, &s, sizeof(s)));
		EXPECT_EQ(0, s.error);
	}
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	EXPECT_EQ(20, fault(self->fd).count);
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

/* The queues of a file stop together, and go on together. */
TEST_F_TIMEOUT(vm, fault_with_other_queues, 60)
{
	struct drm_npu_command bad = copy_va(C, B, 8), good = copy_va(A, B, 64), slow;
	struct drm_npu_queue_create q[2] = { 0 };
	struct drm_npu_sync out[2];
	struct drm_npu_submit s;
	struct drm_npu_job_status status;
	uint64_t seqno[2];
	int i, round;

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_QUEUE_CREATE, &q[i]));
		out[i] = (struct drm_npu_sync){ .handle = npu_syncobj(self->fd) };
	}
	slow = npu_long(&self->a, &self->b, 20);
	for (round = 0; round < 5; round++) {
		struct drm_npu_command *c[] = { &slow, &bad };

		for (i = 0; i < 2; i++) {
			s = (struct drm_npu_submit){ .commands = NPU_ARRAY(c[i], 1),
						     .out_syncs = NPU_ARRAY(&out[i], 1),
						     .queue = q[i].queue };
			ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_SUBMIT, &s));
			seqno[i] = s.seqno;
		}
		for (i = 0; i < 2; i++)
			ASSERT_EQ(0, npu_wait(self->fd, out[i].handle, 0));
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno[1], &status,
				       sizeof(status)));
		EXPECT_EQ(-EFAULT, status.error);
		EXPECT_EQ(q[1].queue, fault(self->fd).queue);
		ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, seqno[0], &status,
				       sizeof(status)));
		EXPECT_EQ(0, status.error);
		for (i = 0; i < 2; i++) {
			s = (struct drm_npu_submit){ .commands = NPU_ARRAY(&good, 1),
						     .out_syncs = NPU_ARRAY(&out[i], 1),
						     .queue = q[i].queue };
			ASSERT_EQ(0, npu_ioctl(self->fd, DRM_IOCTL_NPU_SUBMIT, &s));
			ASSERT_EQ(0, npu_wait(self->fd, out[i].handle, 0));
			ASSERT_EQ(0, npu_query(self->fd, DRM_NPU_QUERY_JOB, s.seqno, &status,
					       sizeof(status)));
			EXPECT_EQ(0, status.error);
		}
	}
}

/* Another file has the same addresses, and other memory there, or none. */
TEST_F(vm, files_do_not_share)
{
	struct drm_npu_command c = copy_va(A, B, NPU_PAGE);
	int other = npu_reopen(&self->dev);
	struct npu_bo out, in;

	ASSERT_GE(other, 0);
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(-EFAULT, npu_run_error(other, &c, 1));
	ASSERT_EQ(0, npu_bo_create(other, NPU_SYSTEM, NPU_MIB, &in));
	ASSERT_EQ(0, npu_bo_create(other, NPU_SYSTEM, NPU_MIB, &out));
	memset(in.map, 0x12, NPU_MIB);
	ASSERT_EQ(0, map(other, &in, A, READ));
	ASSERT_EQ(0, map(other, &out, B, WRITE));
	ASSERT_EQ(0, npu_run_error(other, &c, 1));
	EXPECT_TRUE(npu_all(out.map, NPU_PAGE, 0x12));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_PAGE));
	EXPECT_EQ(0, fault(self->fd).count);
	EXPECT_EQ(1, fault(other).count);
	close(other);
}

/* A hostile process tries addresses of all kinds, all the time. Never returns. */
static void trespass(const struct npu_device *dev, int ready)
{
	int fd = npu_reopen(dev), i;
	struct drm_npu_job_status s;
	struct drm_npu_command c;
	uint64_t rnd = 1;
	struct npu_bo bo;

	if (fd < 0 || npu_bo_create(fd, NPU_SYSTEM, NPU_MIB, &bo) ||
	    map(fd, &bo, C, READ | WRITE))
		_exit(1);
	for (i = 0;; i++) {
		uint64_t address;

		rnd = rnd * 6364136223846793005ull + 1442695040888963407ull;
		address = rnd >> (rnd >> 59);
		if (i % 4 == 0)
			address = i % 8 ? A : B;	/* what the other maps */
		if (i % 2)
			c = copy_va(address, C, NPU_PAGE);
		else
			c = copy_va(C, address, NPU_PAGE);
		if (npu_run(fd, &c, 1, &s))
			_exit(2);
		if (s.error >= 0 && address - C >= NPU_MIB)
			_exit(3);
		if (i == 10 && write(ready, "x", 1) != 1)
			_exit(4);
	}
}

TEST_F_TIMEOUT(vm, hostile_neighbour, 120)
{
	struct npu_program p = npu_copy_program(&self->info, 4096);
	struct drm_npu_binding bindings[] = {
		{ 0, DRM_NPU_BINDING_READ, A, 4096 },
		{ 0, DRM_NPU_BINDING_WRITE, B, 4096 },
	};
	struct drm_npu_command c[2];
	struct npu_bo text;
	int ready[2], i;
	pid_t pid;
	char x;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, NPU_PAGE, &text));
	memcpy(text.map, p.bytes, p.size);
	ASSERT_EQ(0, map(self->fd, &text, C, EXEC));
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid)
		trespass(&self->dev, ready[1]);
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &x, 1));
	for (i = 0; i < 60; i++) {
		npu_fill(self->a.map, NPU_MIB, i);
		memset(self->b.map, 0, NPU_MIB);
		c[0] = launch_va(C, p.size, bindings, 2);
		c[1] = copy_va(A + 4096, B + 4096, NPU_MIB - 4096);
		ASSERT_EQ(0, npu_run_error(self->fd, c, 2));
		ASSERT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	}
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
	EXPECT_EQ(0, fault(self->fd).count);
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
}

/*
 * Memory is taken away under commands that write to it, and given to others at once: nothing
 * arrives there any more.
 */
TEST_F_TIMEOUT(vm, unmap_under_load, 120)
{
	struct drm_npu_command c = copy_va(A, C, NPU_MIB);
	struct drm_npu_sync out = { .handle = npu_syncobj(self->fd) };
	int other = npu_reopen(&self->dev), i, k;
	struct npu_bo target, theirs[4];

	ASSERT_GE(other, 0);
	memset(self->a.map, 0xee, NPU_MIB);
	ASSERT_EQ(0, map(self->fd, &self->a, A, READ));
	c.copy.ny = 2000;
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, npu_bo_create(self->fd, i % 2 ? NPU_SYSTEM : NPU_DEVICE, NPU_MIB,
					   &target));
		ASSERT_EQ(0, map(self->fd, &target, C, WRITE));
		npu_bo_destroy(self->fd, &target);
		ASSERT_EQ(0, npu_submit(self->fd, &c, 1, NULL, &out, NULL));
		npu_sleep_ms(20);
		ASSERT_EQ(0, unmap(self->fd, C, NPU_MIB));
		for (k = 0; k < 4; k++) {
			ASSERT_EQ(0, npu_bo_create(other, i % 2 ? NPU_SYSTEM : NPU_DEVICE, NPU_MIB,
						   &theirs[k]));
			if (theirs[k].map)
				EXPECT_TRUE(npu_all(theirs[k].map, NPU_MIB, 0));
		}
		ASSERT_EQ(0, npu_wait(self->fd, out.handle, 0));
		for (k = 0; k < 4; k++) {
			if (theirs[k].map)
				EXPECT_TRUE(npu_all(theirs[k].map, NPU_MIB, 0));
			npu_bo_destroy(other, &theirs[k]);
		}
	}
	/* Some ended before they could fault; they wrote while they were allowed to. */
	EXPECT_GT(fault(self->fd).count, 0);
	EXPECT_EQ(self->info.resets, npu_info(self->fd).resets);
	close(other);
}

struct binder {
	int fd, error;
	const struct npu_bo *bo;
	uint64_t address;
};

static void *bind_often(void *arg)
{
	struct binder *b = arg;
	int i;

	for (i = 0; i < 100 && !b->error; i++) {
		b->error = map(b->fd, b->bo, b->address, READ);
		if (!b->error)
			b->error = unmap(b->fd, b->address, b->bo->size);
	}
	return NULL;
}

/* Threads bind in one file while its jobs run. */
TEST_F_TIMEOUT(vm, threads, 120)
{
	struct drm_npu_command c = copy_va(A, B, NPU_MIB);
	struct binder b[3];
	pthread_t thread[3];
	int i;

	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	for (i = 0; i < 3; i++) {
		b[i] = (struct binder){ self->fd, 0, &self->a, C + i * 16 * NPU_MIB };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, bind_often, &b[i]));
	}
	for (i = 0; i < 30; i++) {
		npu_fill(self->a.map, NPU_PAGE, i);
		EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
		EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_PAGE));
	}
	for (i = 0; i < 3; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, b[i].error);
	}
	EXPECT_EQ(2, space_of(self->fd).mappings);
}

#define NAMED	64

struct closer {
	int fd, binds, error;
	const struct npu_bo *a;
	uint32_t handles[NAMED];
	pthread_barrier_t start;
};

/*
 * Unmapping keeps the address space busy, and who comes meanwhile waits for it, between looking
 * a handle up and mapping what it names. This thread goes on first, if it may.
 */
static void *bind_and_close(void *arg)
{
	const struct sched_param first = { .sched_priority = 1 };
	struct closer *c = arg;
	int i;

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	pthread_barrier_wait(&c->start);
	for (i = 0; i < c->binds && !c->error; i++) {
		c->error = map(c->fd, c->a, C, READ);
		if (!c->error)
			c->error = unmap(c->fd, C, NPU_MIB);
	}
	for (i = 0; i < NAMED && !c->error; i++)
		c->error = npu_gem_close(c->fd, c->handles[i]);
	return NULL;
}

/* Handles that are closed while a job names them for the first time leave nothing behind. */
TEST_F_TIMEOUT(vm, closed_at_first_use, 120)
{
	struct drm_npu_command nop = npu_nop(), copy[NAMED];
	uint64_t free_before;
	int cut_short = 0, i, k;

	if (self->info.max_commands < NAMED)
		SKIP(return, "jobs are too short");
	ASSERT_EQ(0, npu_run_error(self->fd, &nop, 1));
	free_before = npu_info(self->fd).dram_free;
	for (i = 0; i < 20; i++) {
		struct closer c = { .fd = self->fd, .binds = 1 + i % 8, .a = &self->a };
		pthread_t thread;
		int ret;

		for (k = 0; k < NAMED; k++) {
			struct npu_bo bo;

			ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, NPU_PAGE, &bo));
			if (bo.map)
				munmap(bo.map, bo.size);
			c.handles[k] = bo.handle;
			copy[k] = npu_copy(&bo, &self->b, 64);
		}
		ASSERT_EQ(0, pthread_barrier_init(&c.start, NULL, 2));
		ASSERT_EQ(0, pthread_create(&thread, NULL, bind_and_close, &c));
		pthread_barrier_wait(&c.start);
		ret = npu_run_error(self->fd, copy, NAMED);
		pthread_join(thread, NULL);
		pthread_barrier_destroy(&c.start);
		EXPECT_EQ(0, c.error);
		EXPECT_TRUE(ret == 0 || ret == -ENOENT);
		cut_short += !!ret;
	}
	TH_LOG("%d of 20 jobs found a handle closed", cut_short);
	/* The kernel frees a job a little after telling of its end. */
	for (i = 0; i < 100 && npu_info(self->fd).dram_free != free_before; i++)
		npu_sleep_ms(20);
	EXPECT_EQ(free_before, npu_info(self->fd).dram_free);
}

/* Host memory need not be in one piece; this is more than Linux gives in one. */
TEST_F_TIMEOUT(vm, large_system_bo, 120)
{
	const uint64_t size = 48 * NPU_MIB;
	struct drm_npu_command c[2];
	struct npu_bo big, device;
	uint8_t *page = malloc(NPU_PAGE);
	uint64_t at;

	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_SYSTEM, size, &big));
	ASSERT_EQ(0, npu_bo_create(self->fd, NPU_DEVICE, size, &device));
	EXPECT_TRUE(npu_all(big.map, size, 0));
	for (at = 0; at < size; at += NPU_PAGE)
		npu_fill(big.map + at, 64, at);
	c[0] = npu_copy(&big, &device, size);
	c[1] = npu_copy(&device, &big, size - NPU_PAGE);	/* one page further on */
	c[1].copy.dst_offset = NPU_PAGE;
	ASSERT_EQ(0, npu_run_error(self->fd, c, 2));
	for (at = NPU_PAGE; at < size; at += NPU_PAGE) {
		npu_fill(page, 64, at - NPU_PAGE);
		if (memcmp(page, big.map + at, 64))
			break;
	}
	EXPECT_EQ(size, at);
	/* And at an address of its own, not aligned to large pages. */
	ASSERT_EQ(0, map(self->fd, &big, A + NPU_PAGE, READ));
	ASSERT_EQ(0, map(self->fd, &self->b, B, WRITE));
	c[0] = copy_va(A + NPU_PAGE + size - NPU_MIB, B, NPU_MIB);
	EXPECT_EQ(0, npu_run_error(self->fd, c, 1));
	EXPECT_EQ(0, memcmp(big.map + size - NPU_MIB, self->b.map, NPU_MIB));
	free(page);
}

/* Mappings survive a reset of the device. */
TEST_F_TIMEOUT(vm, reset, 120)
{
	struct drm_npu_command c = copy_va(A, B, NPU_MIB);
	char path[PATH_MAX + 16];

	if (strcmp(self->dev.bus, "pci"))
		SKIP(return, "no PCI function");
	ASSERT_EQ(0, bind(self->fd, self->op, 2));
	ASSERT_EQ(0, npu_run_error(self->fd, &c, 1));
	snprintf(path, sizeof(path), "%s/reset", self->dev.sysfs);
	if (npu_write_file(path, "1"))
		SKIP(return, "the function cannot be reset");
	memset(self->b.map, 0, NPU_MIB);
	EXPECT_EQ(0, npu_run_error(self->fd, &c, 1));
	EXPECT_EQ(0, memcmp(self->a.map, self->b.map, NPU_MIB));
	EXPECT_EQ(0, unmap(self->fd, A, NPU_MIB));
	EXPECT_EQ(-EFAULT, npu_run_error(self->fd, &c, 1));
}

/* A file that is closed with everything mapped leaves nothing behind. */
TEST_F_TIMEOUT(vm, dead_process, 60)
{
	struct drm_npu_command c = copy_va(C, C, NPU_MIB);
	uint64_t dram = npu_info(self->fd).dram_free;
	int i, k, ready[2];
	struct npu_bo bo;
	pid_t pid;
	char x;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		if (!pid) {
			int fd = npu_reopen(&self->dev);

			if (fd < 0 || npu_bo_create(fd, NPU_DEVICE, 4 * NPU_MIB, &bo))
				_exit(1);
			for (k = 0; k < 16; k++)
				if (map(fd, &bo, C + k * 0x4000000000ull, READ | WRITE))
					_exit(2);
			c.copy.ny = 1000;
			if (npu_submit(fd, &c, 1, NULL, NULL, NULL) ||
			    write(ready[1], "x", 1) != 1)
				_exit(3);
			pause();
		}
		close(ready[1]);
		EXPECT_EQ(1, read(ready[0], &x, 1));
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, npu_reap(pid));
		close(ready[0]);
		EXPECT_EQ(dram, npu_info(self->fd).dram_free);
	}
	EXPECT_EQ(self->info.queues_free, npu_info(self->fd).queues_free);
}

/* Without an MMU the calls say so. */
TEST(without_mmu)
{
	struct drm_npu_vm_bind b = { .flags = 0 };
	struct drm_npu_command c = copy_va(A, B, 8);
	struct drm_npu_vm_info info;
	struct drm_npu_fault f;
	struct npu_device dev;
	int fd = npu_open(&dev);

	if (fd < 0 || npu_minor(fd) < 2)
		SKIP(return, "no device of driver " DRM_NPU_NAME ", interface 1.2");
	if (npu_query(fd, DRM_NPU_QUERY_VM, 0, &info, sizeof(info)) != -EOPNOTSUPP)
		SKIP(return, "the device has an MMU");
	EXPECT_EQ(-EOPNOTSUPP, npu_query(fd, DRM_NPU_QUERY_FAULT, 0, &f, sizeof(f)));
	EXPECT_EQ(-EOPNOTSUPP, npu_ioctl(fd, DRM_IOCTL_NPU_VM_BIND, &b));
	EXPECT_EQ(-EOPNOTSUPP, npu_submit(fd, &c, 1, NULL, NULL, NULL));
	close(fd);
}

TEST_HARNESS_MAIN
