/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uapitest checks the driver's user interface, right and wrong uses of it. It
 * prints KTAP and exits with 0 if no test failed.
 *
 * usage: uapitest [-r] [-t]
 *   -r  also reset the PCI function through sysfs, idle and busy, and switch bus
 *       mastering off under a job (needs root)
 *   -t  also let a job run into its timeout (needs root)
 *
 * The tests want the device for themselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npu.h"

#define WAIT_MS		60000
#define PAGE		4096
#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

#define DEVICE		DRM_NPU_PLACEMENT_DEVICE
#define SYSTEM		DRM_NPU_PLACEMENT_SYSTEM
#define READ		DRM_NPU_BINDING_READ
#define WRITE		DRM_NPU_BINDING_WRITE

static int fd = -1;
static struct drm_npu_device_info info;

/* Reporting. */

static bool row_status(const struct drm_npu_job_status *s, int error, uint32_t command,
		       uint32_t status, uint32_t result, uint64_t detail, const char *name)
{
	bool passed = row(s->state == (error ? DRM_NPU_JOB_FAILED : DRM_NPU_JOB_DONE) &&
			  s->error == error && s->command == command && s->status == status &&
			  s->result == result && s->info == detail, "job: %s", name);

	if (!passed)
		printf("# got state %u, error %d, command %u, status 0x%02x, result %u, info 0x%llx\n"
		       "# want error %d, command %u, status 0x%02x, result %u, info 0x%llx\n",
		       s->state, s->error, s->command, s->status, s->result,
		       (unsigned long long)s->info, error, command, status, result,
		       (unsigned long long)detail);
	return passed;
}

/* Helpers. */

static struct drm_npu_command copy(const struct npu_bo *src, const struct npu_bo *dst, uint32_t n)
{
	struct drm_npu_command c = { .type = DRM_NPU_COMMAND_COPY };

	c.copy.src_handle = src->handle;
	c.copy.dst_handle = dst->handle;
	c.copy.nx = n;
	c.copy.ny = 1;
	c.copy.nz = 1;
	return c;
}

/* A copy that moves nx * ny * nz bytes over and over through small BOs. */
static struct drm_npu_command long_copy(const struct npu_bo *src, const struct npu_bo *dst,
					uint32_t ny, uint32_t nz)
{
	struct drm_npu_command c = copy(src, dst, 1 << 20);

	c.copy.ny = ny;
	c.copy.nz = nz;
	return c;
}

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

static void fill_random(uint8_t *p, size_t n)
{
	while (n--)
		*p++ = random_below(256);
}

static bool all_bytes(const uint8_t *p, size_t n, uint8_t value)
{
	while (n--)
		if (*p++ != value)
			return false;
	return true;
}

/* Programs: descriptor (§5.3) and instructions (§5.4, §5.6) by hand. */

struct image {
	uint8_t bytes[64 + 8 * 32];
	uint32_t size;
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = v;
	p[1] = v >> 8;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;
	int bit;

	while (n--) {
		crc ^= *p++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static uint8_t *add_instruction(struct image *image, uint8_t opcode)
{
	uint8_t *p = image->bytes + image->size;

	image->size += 32;
	p[0] = opcode;
	return p;
}

static void add_halt(struct image *image)
{
	add_instruction(image, 0x01);
}

/* LOAD or STORE of n bytes at local address 0. */
static uint8_t *add_move(struct image *image, uint8_t opcode, uint8_t binding, uint32_t offset,
			 uint32_t n)
{
	uint8_t *p = add_instruction(image, opcode);

	p[4] = binding;
	put16(p + 6, 1);
	put32(p + 12, offset);
	put32(p + 16, n);
	put16(p + 28, 1);
	return p;
}

#define LOAD	0x10
#define STORE	0x20

static struct image new_image(void)
{
	return (struct image){ .size = 64 };
}

/* Writes the descriptor, which covers what was added. */
static void finish_image(struct image *image, uint32_t bindings)
{
	uint8_t *p = image->bytes;

	memcpy(p, "NPUP", 4);
	put16(p + 0x04, 1);
	put32(p + 0x08, 64);
	put32(p + 0x0c, 64);
	put32(p + 0x10, image->size - 64);
	put32(p + 0x14, crc32(p + 64, image->size - 64));
	put16(p + 0x18, info.array_rows);
	put16(p + 0x1a, info.array_cols);
	put32(p + 0x1c, PAGE);
	put32(p + 0x20, 0);
	put16(p + 0x24, bindings);
}

/* Loads n bytes from binding 0 and stores them to binding 1. */
static struct image copy_image(uint32_t load_offset, uint32_t n)
{
	struct image image = new_image();

	add_move(&image, LOAD, 0, load_offset, n)[3] = 0x10;	/* signal token 0 */
	add_move(&image, STORE, 1, 0, n)[2] = 0x10;		/* wait for it */
	add_halt(&image);
	finish_image(&image, 2);
	return image;
}

/* Queries. */

static void test_version(void)
{
	struct npu_version version;
	int ret = npu_get_version(fd, &version);

	row(!ret && !strcmp(version.name, "npu") && version.major == 1 && version.minor == 3,
	    "version: npu 1.3");
}

static void test_query(void)
{
	static const struct {
		const char *name;
		struct drm_npu_query query;
		int want;
	} rows[] = {
		{ "unknown type", { .type = 0x100 }, -EINVAL },
		{ "argument where none belongs", { .type = DRM_NPU_QUERY_DEVICE_INFO, .arg = 1 },
		  -EINVAL },
		{ "bad pointer", { .type = DRM_NPU_QUERY_DEVICE_INFO, .size = 64, .ptr = 8 },
		  -EFAULT },
		{ "job 0", { .type = DRM_NPU_QUERY_JOB, .size = 0, .ptr = 8 }, -ENOENT },
		{ "job of the future", { .type = DRM_NPU_QUERY_JOB, .size = 0, .ptr = 8, .arg = 1000 },
		  -ENOENT },
	};
	struct drm_npu_query query = { .type = DRM_NPU_QUERY_COUNTERS };
	struct drm_npu_counters before = { 0 }, after = { 0 };
	struct drm_npu_job_status status;
	uint8_t buffer[sizeof(info) + 16];
	size_t i;
	int ret;

	for (i = 0; i < ARRAY_LEN(rows); i++) {
		query = rows[i].query;
		row_error(rows[i].want, npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &query), "query",
			  rows[i].name);
	}

	query = (struct drm_npu_query){ .type = DRM_NPU_QUERY_COUNTERS };
	ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &query);
	row(!ret && query.size == sizeof(before), "query: size without pointer");

	memset(buffer, 0x55, sizeof(buffer));
	query = (struct drm_npu_query){ .size = 8, .ptr = (uintptr_t)buffer };
	ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &query);
	row(!ret && query.size == sizeof(info) && !memcmp(buffer, &info, 8) &&
	    all_bytes(buffer + 8, sizeof(buffer) - 8, 0x55), "query: short buffer gets its part");
	query = (struct drm_npu_query){ .size = sizeof(buffer), .ptr = (uintptr_t)buffer };
	ret = npu_ioctl(fd, DRM_IOCTL_NPU_QUERY, &query);
	row(!ret && query.size == sizeof(info) && !memcmp(buffer, &info, 32) &&
	    all_bytes(buffer + sizeof(info), 16, 0x55), "query: long buffer keeps its end");

	row(info.uapi_version == 0x10003 && info.arch_version >> 16 == 1 &&
	    info.fw_version >> 16 == 1 && info.array_rows && info.array_cols && info.spad_size &&
	    info.queues && info.queues_free && info.dram_size && info.dram_free &&
	    info.dram_free <= info.dram_size && info.max_commands && info.max_bindings == 64 &&
	    info.vectors && info.firmware[0], "query: device info is plausible");

	ret = npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &before, sizeof(before));
	if (!ret)
		ret = npu_run(fd, &nop, 1, WAIT_MS, &status);
	if (!ret)
		ret = npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &after, sizeof(after));
	row(!ret && after.commands == before.commands + 1 && after.interrupts > before.interrupts &&
	    after.doorbells > before.doorbells && after.admin > before.admin,
	    "query: counters count a command");
}

/* Buffer objects. */

static void test_bo_errors(void)
{
	const struct {
		const char *name;
		struct drm_npu_bo_create args;
		int want;
	} rows[] = {
		{ "size 0", { .size = 0, .placement = SYSTEM }, -EINVAL },
		{ "size that rounds up to 0", { .size = ~0ull, .placement = DEVICE }, -EINVAL },
		{ "more than device memory", { .size = info.dram_size + 1, .placement = DEVICE },
		  -EINVAL },
		{ "more than memory", { .size = 1ull << 50, .placement = SYSTEM }, -EINVAL },
		{ "no placement", { .size = PAGE }, -EINVAL },
		{ "two placements", { .size = PAGE, .placement = 3 }, -EINVAL },
		{ "unknown flag", { .size = PAGE, .placement = SYSTEM, .flags = 1 }, -EINVAL },
		{ "padding", { .size = PAGE, .placement = SYSTEM, .pad = 1 }, -EINVAL },
		{ "handle on input", { .size = PAGE, .placement = SYSTEM, .handle = 1 }, -EINVAL },
		{ "offset on input", { .size = PAGE, .placement = SYSTEM, .mmap_offset = 1 },
		  -EINVAL },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(rows); i++) {
		struct drm_npu_bo_create args = rows[i].args;

		row_error(rows[i].want, npu_ioctl(fd, DRM_IOCTL_NPU_BO_CREATE, &args), "bo",
			  rows[i].name);
	}
}

static void test_bo_use(uint32_t placement, const char *name)
{
	struct drm_gem_close gem_close;
	struct npu_bo bo, again;
	bool zero;
	void *map;
	int ret;

	bo = make_bo(fd, placement, 1);
	row(bo.size == PAGE, "bo: %s: one byte becomes a page", name);
	npu_bo_destroy(fd, &bo);

	bo = make_bo(fd, placement, 64 * PAGE);
	zero = all_bytes(bo.map, bo.size, 0);
	memset(bo.map, 0xff, bo.size);
	row(zero && all_bytes(bo.map, bo.size, 0xff), "bo: %s: zero at first, then holds data", name);
	map = mmap(NULL, bo.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, bo.mmap_offset);
	row(map == MAP_FAILED && errno == EINVAL, "bo: %s: no private mapping", name);
	map = mmap(NULL, bo.size + PAGE, PROT_READ, MAP_SHARED, fd, bo.mmap_offset);
	row(map == MAP_FAILED, "bo: %s: no mapping beyond its end", name);
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, bo.mmap_offset);
	row(map != MAP_FAILED && all_bytes(map, PAGE, 0xff), "bo: %s: mapped in part", name);
	if (map != MAP_FAILED)
		munmap(map, PAGE);

	gem_close = (struct drm_gem_close){ .handle = bo.handle };
	ret = npu_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &gem_close);
	row(!ret && npu_ioctl(fd, DRM_IOCTL_GEM_CLOSE, &gem_close) == -EINVAL,
	    "bo: %s: closed once", name);
	bo.map[0] = 1;
	row(bo.map[0] == 1 && bo.map[1] == 0xff, "bo: %s: a mapping outlives the handle", name);
	munmap(bo.map, bo.size);

	again = make_bo(fd, placement, 64 * PAGE);
	row(all_bytes(again.map, again.size, 0), "bo: %s: reused memory is zero", name);
	npu_bo_destroy(fd, &again);
}

static void test_bo_many(void)
{
	uint64_t before = get_info(fd).dram_free;
	static struct npu_bo bos[512];
	bool distinct = true;
	uint64_t total = 0;
	size_t i, n;
	int ret = 0;

	for (i = 0; i < ARRAY_LEN(bos); i++) {
		bos[i] = make_bo(fd, i % 2 ? SYSTEM : DEVICE, PAGE);
		memcpy(bos[i].map, &i, sizeof(i));
	}
	for (i = 0; i < ARRAY_LEN(bos); i++)
		distinct &= !memcmp(bos[i].map, &i, sizeof(i));
	row(distinct, "bo: %zu at once, all distinct", ARRAY_LEN(bos));
	row(get_info(fd).dram_free == before - ARRAY_LEN(bos) / 2 * PAGE,
	    "bo: free device memory is accounted");
	for (i = 0; i < ARRAY_LEN(bos); i++)
		npu_bo_destroy(fd, &bos[i]);
	row(get_info(fd).dram_free == before, "bo: closing gives the memory back");

	for (n = 0; n < ARRAY_LEN(bos) && !ret; n++) {
		ret = npu_bo_create(fd, DEVICE, (before / 8 | (PAGE - 1)) + 1, &bos[n]);
		total += bos[n].size;
	}
	row_error(-ENOSPC, ret, "bo", "device memory runs out");
	row(total <= before, "bo: no more device memory than there is");
	for (i = 0; i < n; i++)
		npu_bo_destroy(fd, &bos[i]);
	row(get_info(fd).dram_free == before, "bo: all of it comes back");
}

static void test_bo_foreign(void)
{
	int other = npu_open();
	struct npu_bo bo = make_bo(other, SYSTEM, PAGE);
	struct drm_npu_command c = copy(&bo, &bo, 8);
	void *map;

	c.copy.dst_offset = 8;
	row_error(-ENOENT, npu_submit(fd, &c, 1, NULL, 0, NULL, 0, NULL), "bo",
		  "a handle of another file is unknown");
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, bo.mmap_offset);
	row(map == MAP_FAILED && errno == EACCES, "bo: an offset of another file is refused");
	npu_bo_destroy(other, &bo);
	close(other);
}

/* Submit: what the call itself refuses. */

static struct drm_npu_array one_sync(const struct drm_npu_sync *sync)
{
	return (struct drm_npu_array){ sizeof(*sync), 1, (uintptr_t)sync };
}

static void test_submit_errors(void)
{
	struct npu_bo bo = make_bo(fd, SYSTEM, PAGE);
	struct drm_npu_command base = copy(&bo, &bo, 8), c = base;
	struct drm_npu_submit s, good = {
		.commands = { sizeof(c), 1, (uintptr_t)&c },
	};
	struct drm_npu_sync sync = { 0 }, unknown = { .handle = 4711 }, flagged = { .flags = 1 };
	static struct drm_npu_command many[1024];
	struct { struct drm_npu_command c; uint64_t more; } longer = { 0 };

	base.copy.dst_offset = 64;
	sync.handle = make_syncobj(fd);
	flagged.handle = sync.handle;

#define ROW(name, want, change) do {						\
		c = base;							\
		s = good;							\
		change;								\
		row_error(want, npu_ioctl(fd, DRM_IOCTL_NPU_SUBMIT, &s), "submit", name); \
	} while (0)

	ROW("no command", -EINVAL, s.commands.count = 0);
	ROW("too many commands", -EINVAL, s.commands.count = info.max_commands + 1;
	    s.commands.ptr = (uintptr_t)many);
	ROW("commands too short", -EINVAL, s.commands.stride -= 8);
	ROW("commands longer than a page", -EINVAL, s.commands.stride = 2 * PAGE);
	ROW("commands nowhere", -EFAULT, s.commands.ptr = 8);
	ROW("flags", -EINVAL, s.flags = 1);
	ROW("queue that is not there", -ENOENT, s.queue = 1);
	ROW("seqno on input", -EINVAL, s.seqno = 1);
	ROW("command type 0", -EINVAL, c.type = 0);
	ROW("command type unknown", -EINVAL, c.type = 4);
	ROW("command flags", -EINVAL, c.flags = 2);
	ROW("command by address with a handle", -EINVAL, c.flags = DRM_NPU_COMMAND_VA);
	ROW("NOP with content", -EINVAL, c = nop; c.reserved[8] = 1);
	ROW("newer command with content", -E2BIG, longer.c = nop; longer.more = 1;
	    s.commands.stride = sizeof(longer); s.commands.ptr = (uintptr_t)&longer);

	ROW("copy: padding", -EINVAL, c.copy.pad = 1);
	ROW("copy: nx 0", -EINVAL, c.copy.nx = 0);
	ROW("copy: ny 0", -EINVAL, c.copy.ny = 0);
	ROW("copy: nz 0", -EINVAL, c.copy.nz = 0);
	ROW("copy: ny 65536", -EINVAL, c.copy.ny = 65536);
	ROW("copy: nz 65536", -EINVAL, c.copy.nz = 65536);
	ROW("copy: no source", -ENOENT, c.copy.src_handle = 0);
	ROW("copy: no destination", -ENOENT, c.copy.dst_handle = 4711);
	ROW("copy: source past the end", -EINVAL, c.copy.src_offset = PAGE - 7);
	ROW("copy: destination past the end", -EINVAL, c.copy.dst_offset = PAGE - 7);
	ROW("copy: offset overflows", -EINVAL, c.copy.src_offset = ~0ull);
	ROW("copy: last row past the end", -EINVAL, c.copy.ny = 3; c.copy.src_stride_y = 2045);
	ROW("copy: last plane past the end", -EINVAL, c.copy.nz = 3; c.copy.dst_stride_z = 2030);
	ROW("copy: stride product overflows", -EINVAL, c.copy.ny = 3;
	    c.copy.src_stride_y = 1ull << 63);
	ROW("copy: stride sum overflows", -EINVAL, c.copy.ny = 2; c.copy.nz = 2;
	    c.copy.src_stride_y = c.copy.src_stride_z = 1ull << 63);

	ROW("in sync: unknown", -ENOENT, s.in_syncs = one_sync(&unknown));
	ROW("in sync: without fence", -EINVAL, s.in_syncs = one_sync(&sync));
	ROW("in sync: flags", -EINVAL, s.in_syncs = one_sync(&flagged));
	ROW("out sync: unknown", -ENOENT, s.out_syncs = one_sync(&unknown));
	ROW("out sync: flags", -EINVAL, s.out_syncs = one_sync(&flagged));
	ROW("out sync: too many", -EINVAL, s.out_syncs = one_sync(&sync);
	    s.out_syncs.count = info.max_syncs + 1);
	ROW("out sync: too short", -EINVAL, s.out_syncs = one_sync(&sync);
	    s.out_syncs.stride = 8);
	ROW("a good one", 0, (void)0);
	ROW("newer command, zero behind", 0, longer.c = nop; longer.more = 0;
	    s.commands.stride = sizeof(longer); s.commands.ptr = (uintptr_t)&longer);
#undef ROW
	npu_syncobj_destroy(fd, sync.handle);
	npu_bo_destroy(fd, &bo);
}

static void test_launch_errors(void)
{
	struct npu_bo bo = make_bo(fd, DEVICE, PAGE);
	struct drm_npu_binding good = { bo.handle, READ, 0, PAGE }, b;
	struct image image = copy_image(0, 64);
	static struct drm_npu_binding many[65];
	struct drm_npu_command c;

#define ROW(name, want, change) do {						\
		b = good;							\
		c = npu_launch(&bo, 0, image.size, &b, 1);			\
		change;								\
		row_error(want, npu_submit(fd, &c, 1, NULL, 0, NULL, 0, NULL), "launch", name); \
	} while (0)

	ROW("content behind the launch", -EINVAL, c.reserved[8] = 1);
	ROW("program not aligned", -EINVAL, c.launch.program_offset = 32);
	ROW("program too short", -EINVAL, c.launch.program_size = 64);
	ROW("program past the end", -EINVAL, c.launch.program_offset = PAGE - 64);
	ROW("program offset overflows", -EINVAL, c.launch.program_offset = -64ull);
	ROW("no program", -ENOENT, c.launch.program_handle = 4711);
	ROW("too many bindings", -EINVAL, c.launch.bindings.count = 65;
	    c.launch.bindings.ptr = (uintptr_t)many);
	ROW("bindings nowhere", -EFAULT, c.launch.bindings.ptr = 8);
	ROW("binding without access", -EINVAL, b.flags = 0);
	ROW("binding with unknown flag", -EINVAL, b.flags = READ | 4);
	ROW("binding without object", -ENOENT, b.handle = 4711);
	ROW("binding of size 0", -EINVAL, b.size = 0);
	ROW("binding past the end", -EINVAL, b.offset = 1);
	ROW("binding offset overflows", -EINVAL, b.offset = ~0ull; b.size = 2);
	ROW("binding size overflows", -EINVAL, b.offset = 1; b.size = ~0ull);
#undef ROW
	npu_bo_destroy(fd, &bo);
}

/* Jobs. */

static void test_jobs(void)
{
	static struct drm_npu_command many[1024];
	struct drm_npu_job_status status;
	uint64_t first, seqno = 0;
	uint32_t i;
	int ret;

	ret = npu_run(fd, &nop, 1, WAIT_MS, &status);
	row(!ret && status.state == DRM_NPU_JOB_DONE, "job: NOP");
	first = status.seqno;
	for (i = 0; i < info.max_commands; i++)
		many[i] = nop;
	npu_run(fd, many, info.max_commands, WAIT_MS, &status);
	row_status(&status, 0, info.max_commands - 1, 0, 0, 0, "as many commands as allowed");
	row(status.seqno == first + 1, "job: seqnos count by one");

	/* Far more than the ring holds. */
	for (i = 0, ret = 0; i < 20 && !ret; i++)
		ret = npu_submit(fd, many, info.max_commands, NULL, 0, NULL, 0, &seqno);
	row(!ret && seqno == first + 21, "job: 20 full jobs at once");
	for (i = 0; i < 60; i++)
		ret |= npu_run(fd, &nop, 1, WAIT_MS, &status);
	row(!ret, "job: 60 more, which end after them");
	row(!npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status)) &&
	    status.state == DRM_NPU_JOB_DONE && status.seqno == seqno,
	    "job: an older status is still there");
	row_error(-ENOENT, npu_query(fd, DRM_NPU_QUERY_JOB, first, &status, sizeof(status)), "job",
		  "a status older than 64 jobs is not");
}

static void test_sync(void)
{
	uint32_t timeline = make_syncobj(fd), binary = make_syncobj(fd);
	struct npu_bo a = make_bo(fd, SYSTEM, 1 << 20), b = make_bo(fd, DEVICE, 1 << 20);
	struct drm_npu_command slow = long_copy(&a, &b, 512, 1), c;
	struct drm_npu_sync out[2] = { { timeline, 0, 1 }, { binary, 0, 0 } };
	struct drm_npu_sync in = { timeline, 0, 1 }, next = { timeline, 0, 2 };
	struct drm_npu_sync unknown = { timeline, 0, 99 };
	struct drm_npu_job_status status;
	struct drm_syncobj_timeline_array query = {
		.handles = (uintptr_t)&timeline, .count_handles = 1,
	};
	uint64_t point = 0, seqno = 0;
	int other, ret;

	query.points = (uintptr_t)&point;
	ret = npu_submit(fd, &slow, 1, NULL, 0, out, 2, &seqno);
	row_error(0, ret, "sync", "one job signals a timeline point and a binary syncobj");
	row(!npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status)) &&
	    status.seqno == seqno, "sync: a status exists while the job runs");
	row_error(-EINVAL, npu_submit(fd, &nop, 1, &unknown, 1, NULL, 0, NULL), "sync",
		  "a point that nobody will signal");
	row_error(0, npu_submit(fd, &nop, 1, &in, 1, &next, 1, NULL), "sync",
		  "a job that waits for point 1 signals point 2");
	row_error(0, npu_wait(fd, timeline, 2, WAIT_MS), "sync", "wait for point 2");
	row_error(0, npu_wait(fd, timeline, 1, 0), "sync", "point 1 came before it");
	row_error(0, npu_wait(fd, binary, 0, 0), "sync", "the binary syncobj too");
	ret = npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_QUERY, &query);
	row(!ret && point == 2, "sync: the timeline is at 2");
	row_error(-EINVAL, npu_wait(fd, timeline, 3, 0), "sync", "waiting for a point without fence");

	/* Between two files the syncobj is all that orders. */
	other = npu_open();
	if (other < 0)
		bail("open", other);
	{
		struct drm_syncobj_handle to = { .handle = binary }, from = { 0 };
		struct npu_bo d = make_bo(other, SYSTEM, 1 << 20);
		struct drm_npu_sync theirs, mine = { binary, 0, 0 };

		ret = npu_ioctl(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &to);
		from.fd = to.fd;
		if (!ret)
			ret = npu_ioctl(other, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &from);
		theirs = (struct drm_npu_sync){ from.handle, 0, 0 };
		if (!ret)
			ret = npu_submit(fd, &slow, 1, NULL, 0, &mine, 1, &seqno);
		c = copy(&d, &d, 8);
		c.copy.dst_offset = 8;
		if (!ret)
			ret = npu_submit(other, &c, 1, &theirs, 1, &theirs, 1, NULL);
		if (!ret)
			ret = npu_wait(other, theirs.handle, 0, WAIT_MS);
		if (!ret)
			ret = npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status));
		row(!ret && status.state == DRM_NPU_JOB_DONE, "sync: a job waits for another file's");
		close(to.fd);
		npu_bo_destroy(other, &d);
	}
	close(other);
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
	npu_syncobj_destroy(fd, timeline);
	npu_syncobj_destroy(fd, binary);
}

/* Copies. */

struct shape {
	uint64_t offset, stride_y, stride_z;
};

static uint64_t at(const struct shape *s, uint32_t y, uint32_t z)
{
	return s->offset + z * s->stride_z + y * s->stride_y;
}

/* A shape whose rows do not overlap, within half a mebibyte. */
static struct shape random_shape(uint32_t nx, uint32_t ny, uint32_t nz)
{
	struct shape s;

	s.stride_y = nx + random_below(40);
	s.stride_z = s.stride_y * ny + random_below(100);
	s.offset = random_below((512 << 10) - s.stride_z * nz);
	return s;
}

static bool copy_matches(const struct npu_bo *src, const struct npu_bo *dst, uint8_t *model)
{
	uint32_t nx = 1 + random_below(200), ny = 1 + random_below(20), nz = 1 + random_below(10);
	struct shape from = random_shape(nx, ny, nz), to = random_shape(nx, ny, nz);
	struct drm_npu_command c = copy(src, dst, nx);
	struct drm_npu_job_status status;
	uint32_t y, z;
	int ret;

	c.copy.src_offset = from.offset;
	c.copy.src_stride_y = from.stride_y;
	c.copy.src_stride_z = from.stride_z;
	c.copy.dst_offset = to.offset;
	c.copy.dst_stride_y = to.stride_y;
	c.copy.dst_stride_z = to.stride_z;
	c.copy.ny = ny;
	c.copy.nz = nz;

	memcpy(model, dst->map, dst->size);
	for (z = 0; z < nz; z++)
		for (y = 0; y < ny; y++)
			memcpy(model + at(&to, y, z), src->map + at(&from, y, z), nx);
	ret = npu_run(fd, &c, 1, WAIT_MS, &status);
	if (ret || status.info != (uint64_t)nx * ny * nz || memcmp(model, dst->map, dst->size)) {
		printf("# %ux%ux%u: %d, info %llu\n", nx, ny, nz, ret,
		       (unsigned long long)status.info);
		return false;
	}
	return true;
}

static void test_copy(void)
{
	static const char * const names[] = { "", "device", "system" };
	uint8_t *model = malloc(1 << 20);
	uint32_t from, to;
	int i;

	if (!model)
		bail("memory", -ENOMEM);
	for (from = DEVICE; from <= SYSTEM; from++)
		for (to = DEVICE; to <= SYSTEM; to++) {
			struct npu_bo src = make_bo(fd, from, 512 << 10);
			struct npu_bo dst = make_bo(fd, to, 512 << 10);
			bool good = true;

			fill_random(src.map, src.size);
			fill_random(dst.map, dst.size);
			for (i = 0; i < 8 && good; i++)
				good = copy_matches(&src, &dst, model);
			row(good, "copy: %s to %s, random shapes", names[from], names[to]);
			npu_bo_destroy(fd, &src);
			npu_bo_destroy(fd, &dst);
		}
	free(model);
}

static void test_copy_special(void)
{
	struct npu_bo a = make_bo(fd, SYSTEM, 3 << 20), b = make_bo(fd, DEVICE, 3 << 20);
	struct npu_bo d = make_bo(fd, SYSTEM, 3 << 20);
	struct drm_npu_command chain[2] = { copy(&a, &b, 3 << 20), copy(&b, &d, 3 << 20) }, c;
	struct drm_npu_job_status status;
	int ret;

	fill_random(a.map, a.size);
	ret = npu_run(fd, chain, 2, WAIT_MS, &status);
	row(!ret && !memcmp(a.map, d.map, a.size), "copy: 3 MiB to the device and back in one job");

	/* Rows of the destination overlap: the last one wins (§7.4). */
	memset(d.map, 0, PAGE);
	c = copy(&a, &d, 8);
	c.copy.ny = 4;
	c.copy.src_stride_y = 100;
	ret = npu_run(fd, &c, 1, WAIT_MS, &status);
	row(!ret && !memcmp(d.map, a.map + 300, 8) && all_bytes(d.map + 8, PAGE - 8, 0),
	    "copy: overlapping rows, the last wins");
	/* Source stride 0 repeats a row. */
	c = copy(&a, &d, 8);
	c.copy.ny = 4;
	c.copy.dst_stride_y = 16;
	ret = npu_run(fd, &c, 1, WAIT_MS, &status);
	row(!ret && !memcmp(d.map + 48, a.map, 8) && all_bytes(d.map + 56, 8, 0),
	    "copy: source stride 0 repeats a row");
	/* A byte at the very end of both. */
	c = copy(&a, &b, 1);
	c.copy.src_offset = a.size - 1;
	c.copy.dst_offset = b.size - 1;
	b.map[b.size - 1] = ~a.map[a.size - 1];
	ret = npu_run(fd, &c, 1, WAIT_MS, &status);
	row(!ret && b.map[b.size - 1] == a.map[a.size - 1], "copy: the last byte");

	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
	npu_bo_destroy(fd, &d);
}

/* Programs. */

#define N 1000	/* bytes that the test programs move */

struct launch_test {
	struct npu_bo program, in, out;
};

/* Runs image with binding 0 = in (read) and binding 1 = out (access as given, size bytes). */
static struct drm_npu_job_status launch(struct launch_test *t, const struct image *image,
					uint32_t out_access, uint64_t out_size)
{
	struct drm_npu_binding bindings[2] = {
		{ t->in.handle, READ, 0, PAGE }, { t->out.handle, out_access, 0, out_size },
	};
	struct drm_npu_command c = npu_launch(&t->program, 128, image->size, bindings, 2);
	struct drm_npu_job_status status;

	memcpy(t->program.map + 128, image->bytes, image->size);
	memset(t->out.map, 0, t->out.size);
	npu_run(fd, &c, 1, WAIT_MS, &status);
	return status;
}

static void test_programs(uint32_t placement, const char *where)
{
	struct launch_test t = {
		make_bo(fd, placement, PAGE), make_bo(fd, SYSTEM, PAGE), make_bo(fd, DEVICE, PAGE),
	};
	struct drm_npu_job_status s;
	struct image image, good = copy_image(0, N);

	fill_random(t.in.map, t.in.size);
	s = launch(&t, &good, WRITE, PAGE);
	row(s.state == DRM_NPU_JOB_DONE && s.result == 3 && !s.info &&
	    !memcmp(t.in.map, t.out.map, N) && all_bytes(t.out.map + N, PAGE - N, 0),
	    "program: in %s memory, loads and stores", where);
	if (s.state != DRM_NPU_JOB_DONE)
		printf("# status 0x%02x, result %u, info 0x%llx\n", s.status, s.result,
		       (unsigned long long)s.info);

	s = launch(&t, &good, READ, PAGE);
	row_status(&s, -EFAULT, 0, 0x48, 1, 1, "store to a binding that is read-only");
	row(all_bytes(t.out.map, PAGE, 0), "job: and it stored nothing");
	s = launch(&t, &good, WRITE, N - 1);
	row_status(&s, -EFAULT, 0, 0x49, 1, N - 1, "store past the end of a binding");
	image = copy_image(PAGE, N);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EFAULT, 0, 0x49, 0, PAGE, "load behind a binding");

	image = new_image();
	add_move(&image, LOAD, 2, 0, N);
	add_halt(&image);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EFAULT, 0, 0x47, 0, 2, "binding that was not given");

	image = new_image();
	add_move(&image, LOAD, 0, 0, PAGE + 1);
	add_halt(&image);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EFAULT, 0, 0x46, 0, PAGE, "load past the end of the scratchpad");

	image = new_image();
	add_move(&image, LOAD, 0, 0, 16);
	add_instruction(&image, 0x77);
	add_halt(&image);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x42, 1, 0x77, "illegal instruction");

	image = new_image();
	add_instruction(&image, 0x01)[31] = 1;
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x43, 0, 31, "reserved byte of an instruction");

	image = new_image();
	add_move(&image, LOAD, 0, 0, 0);
	add_halt(&image);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x44, 0, 16, "load of no bytes");

	image = new_image();
	add_move(&image, LOAD, 0, 0, 16)[2] = 0x13; /* token 3 never comes */
	add_halt(&image);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x4d, 0, 3, "deadlock");

	image = new_image();
	add_move(&image, LOAD, 0, 0, 16);
	finish_image(&image, 2);
	s = launch(&t, &image, WRITE, PAGE);
	row(s.error == -EINVAL && s.status == 0x4e, "job: program without halt");

	image = good;
	image.bytes[0] = 'X';
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x40, 0, 0x00, "no program");
	image = good;
	image.bytes[0x14] ^= 1;
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x40, 0, 0x14, "program with a wrong checksum");
	image = good;
	put16(image.bytes + 0x18, info.array_rows + 1);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x41, 0, 0x18, "program for another array");
	image = good;
	put16(image.bytes + 0x24, 3);
	s = launch(&t, &image, WRITE, PAGE);
	row_status(&s, -EINVAL, 0, 0x40, 0, 0x24, "program that needs more bindings");

	s = launch(&t, &good, WRITE, PAGE);
	row(s.state == DRM_NPU_JOB_DONE && !memcmp(t.in.map, t.out.map, N),
	    "program: a good one works after all these");

	npu_bo_destroy(fd, &t.program);
	npu_bo_destroy(fd, &t.in);
	npu_bo_destroy(fd, &t.out);
}

static void test_partial_failure(void)
{
	struct npu_bo program = make_bo(fd, DEVICE, PAGE);
	struct npu_bo a = make_bo(fd, SYSTEM, PAGE), b = make_bo(fd, SYSTEM, PAGE);
	struct drm_npu_command c[3] = {
		nop, npu_launch(&program, 0, 96, NULL, 0), copy(&a, &b, PAGE),
	};
	struct drm_npu_job_status s;

	memcpy(program.map, "junk", 4);
	fill_random(a.map, a.size);
	npu_run(fd, c, 3, WAIT_MS, &s);
	row_status(&s, -EINVAL, 1, 0x40, 0, 0, "the first failing command is named");
	row(!memcmp(a.map, b.map, PAGE), "job: commands behind it are executed");
	npu_run(fd, &c[2], 1, WAIT_MS, &s);
	row_status(&s, 0, 0, 0, 0, PAGE, "the next job is not affected");
	npu_bo_destroy(fd, &program);
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
}

/* Processes and files. */

static bool child_succeeded(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

static int copy_loop(uint32_t seed)
{
	struct npu_bo a, b, c;
	struct drm_npu_command chain[2];
	struct drm_npu_job_status status;
	int i, ret = 0;

	random_state = seed;
	fd = npu_open();
	if (fd < 0)
		return 1;
	a = make_bo(fd, SYSTEM, 64 << 10);
	b = make_bo(fd, DEVICE, 64 << 10);
	c = make_bo(fd, SYSTEM, 64 << 10);
	chain[0] = copy(&a, &b, 64 << 10);
	chain[1] = copy(&b, &c, 64 << 10);
	for (i = 0; i < 30 && !ret; i++) {
		fill_random(a.map, a.size);
		ret = npu_run(fd, chain, 2, WAIT_MS, &status);
		if (!ret && memcmp(a.map, c.map, a.size))
			ret = -EIO;
	}
	return ret ? 1 : 0;
}

static void test_two_processes(void)
{
	pid_t pids[2];
	int i;
	bool good = true;

	if (get_info(fd).queues_free < 2) {
		row(true, "process: two at once # SKIP the device has too few queues");
		return;
	}
	for (i = 0; i < 2; i++) {
		pids[i] = fork();
		if (!pids[i])
			_exit(copy_loop(100 + i));
	}
	for (i = 0; i < 2; i++)
		good &= child_succeeded(pids[i]);
	row(good, "process: two at once copy their own data");
}

/* Opens the device and submits jobs of about 4 GiB each without waiting for them. */
static int start_long_jobs(void)
{
	struct npu_bo a, b;
	struct drm_npu_command c;
	int i, ret, file = npu_open();

	if (file < 0)
		return file;
	a = make_bo(file, SYSTEM, 1 << 20);
	b = make_bo(file, DEVICE, 1 << 20);
	c = long_copy(&a, &b, 4096, 1);
	for (i = 0; i < 3; i++) {
		ret = npu_submit(file, &c, 1, NULL, 0, NULL, 0, NULL);
		if (ret) {
			close(file);
			return ret;
		}
	}
	munmap(a.map, a.size);
	munmap(b.map, b.size);
	return file;
}

/* Whether everything that dead files had has come back, and the device works. */
static bool recovered(const struct drm_npu_device_info *before)
{
	struct drm_npu_job_status status;
	struct drm_npu_device_info now;
	int i;

	for (i = 0; i < 600; i++) {
		now = get_info(fd);
		if (now.dram_free == before->dram_free && now.queues_free == before->queues_free)
			break;
		usleep(100000);
	}
	if (now.dram_free != before->dram_free || now.queues_free != before->queues_free) {
		printf("# free DRAM %llu, was %llu; free queues %u, were %u\n",
		       (unsigned long long)now.dram_free, (unsigned long long)before->dram_free,
		       now.queues_free, before->queues_free);
		return false;
	}
	return !npu_run(fd, &nop, 1, WAIT_MS, &status);
}

static void test_close_busy(void)
{
	struct drm_npu_device_info before = get_info(fd);
	int file = start_long_jobs();

	if (!row(file >= 0, "process: long jobs start"))
		return;
	close(file);
	row(recovered(&before), "process: close with jobs in flight");
}

static void test_kill_busy(void)
{
	struct drm_npu_device_info before = get_info(fd);
	int pipes[2], status;
	char ready = 0;
	pid_t pid;

	if (pipe(pipes))
		bail("pipe", -errno);
	pid = fork();
	if (!pid) {
		if (start_long_jobs() >= 0)
			ready = 1;
		if (write(pipes[1], &ready, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	if (read(pipes[0], &ready, 1) != 1)
		ready = 0;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(pipes[0]);
	close(pipes[1]);
	row(ready && WIFSIGNALED(status) && recovered(&before),
	    "process: kill -9 with jobs in flight");
}

static void test_queues(void)
{
	struct drm_npu_device_info before = get_info(fd);
	struct drm_npu_job_status status;
	static int files[1024];
	uint32_t i, n = 0;
	int ret = 0;

	while (n < ARRAY_LEN(files) && !ret) {
		files[n] = npu_open();
		if (files[n] < 0)
			break;
		ret = npu_run(files[n++], &nop, 1, WAIT_MS, &status);
	}
	row_error(-EBUSY, ret, "queue", "the last file finds none");
	row(n == before.queues_free + 1, "queue: %u files have one", n - 1);
	row(!get_info(fd).queues_free, "queue: none is free");
	row_error(0, npu_run(fd, &nop, 1, WAIT_MS, &status), "queue", "the first one still works");
	close(files[0]);
	row_error(0, npu_run(files[n - 1], &nop, 1, WAIT_MS, &status), "queue",
		  "one that is given back can be had");
	for (i = 1; i < n; i++)
		close(files[i]);
	row(recovered(&before), "queue: all come back");
}

/* Resets. */

static bool write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	bool good;

	if (file < 0)
		return false;
	good = write(file, text, strlen(text)) == (ssize_t)strlen(text);
	close(file);
	return good;
}

static bool reset_function(void)
{
	char path[128];
	struct stat st;

	if (fstat(fd, &st))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device/reset", major(st.st_rdev),
		 minor(st.st_rdev));
	return write_file(path, "1");
}

/* Waits for a job that a reset ends; returns its error, or 1 if there is none to be had. */
static int await_error(uint64_t seqno)
{
	struct drm_npu_job_status status;
	int i;

	for (i = 0; i < WAIT_MS / 100; i++) {
		if (npu_query(fd, DRM_NPU_QUERY_JOB, seqno, &status, sizeof(status)))
			return 1;
		if (status.state != DRM_NPU_JOB_PENDING)
			return status.error;
		usleep(100000);
	}
	return 1;
}

static void test_reset_idle(void)
{
	uint32_t resets = get_info(fd).resets;
	struct npu_bo bo = make_bo(fd, DEVICE, PAGE), back = make_bo(fd, SYSTEM, PAGE);
	struct drm_npu_command c = copy(&bo, &back, PAGE);
	struct drm_npu_job_status status;

	fill_random(bo.map, bo.size);
	npu_run(fd, &nop, 1, WAIT_MS, &status);
	row(reset_function(), "reset: of the idle function");
	row(get_info(fd).resets == resets + 1, "reset: is counted");
	row_error(0, npu_run(fd, &c, 1, WAIT_MS, &status), "reset", "an open file goes on");
	row(!memcmp(bo.map, back.map, PAGE), "reset: device memory is kept");
	npu_bo_destroy(fd, &bo);
	npu_bo_destroy(fd, &back);
}

static void test_reset_busy(void)
{
	struct npu_bo a = make_bo(fd, SYSTEM, 1 << 20), b = make_bo(fd, DEVICE, 1 << 20);
	struct drm_npu_command endless = long_copy(&a, &b, 65535, 65535);
	struct drm_npu_sync sync = { make_syncobj(fd), 0, 0 };
	struct drm_npu_job_status status;
	uint64_t seqno = 0;

	npu_submit(fd, &endless, 1, NULL, 0, &sync, 1, &seqno);
	usleep(100000);
	row(reset_function(), "reset: of the busy function");
	row_error(-ECANCELED, await_error(seqno), "reset", "the running job is cancelled");
	row_error(0, npu_wait(fd, sync.handle, 0, WAIT_MS), "reset", "its syncobj is signalled");
	row_error(0, npu_run(fd, &nop, 1, WAIT_MS, &status), "reset", "the file goes on");
	npu_syncobj_destroy(fd, sync.handle);
	npu_bo_destroy(fd, &a);
	npu_bo_destroy(fd, &b);
}

/* Sets or clears Bus Master Enable in the command register of config space. */
static bool set_bus_master(bool on)
{
	char path[128];
	struct stat st;
	uint8_t command;
	int file;
	bool good;

	if (fstat(fd, &st))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device/config", major(st.st_rdev),
		 minor(st.st_rdev));
	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		return false;
	good = pread(file, &command, 1, 4) == 1;
	command = on ? command | 4 : command & ~4;
	good &= pwrite(file, &command, 1, 4) == 1;
	close(file);
	return good;
}

/* A ring that the device cannot read stops its queue (§9.2); the driver brings it back. */
static void test_queue_fault(void)
{
	struct drm_npu_sync sync = { make_syncobj(fd), 0, 0 };
	struct drm_npu_job_status status;
	bool off = true, on = true;
	uint64_t seqno = 0;
	int error, ret, i;

	npu_run(fd, &nop, 1, WAIT_MS, &status);
	/*
	 * Nothing tells that the device looked: neither memory nor an interrupt comes through. A
	 * device that came to it too late executes the job.
	 */
	for (i = 0, error = 0; i < 4 && !error; i++) {
		off &= set_bus_master(false);
		ret = npu_submit(fd, &nop, 1, NULL, 0, &sync, 1, &seqno);
		usleep(1000000u << i);
		on &= set_bus_master(true) && !ret;
		error = await_error(seqno);
	}
	row(off, "fault: bus mastering goes off");
	row(on, "fault: a job is submitted before it comes back");
	if (!row(error == -EIO || error == -ECANCELED, "fault: the job fails"))
		printf("# got %d\n", error);
	row_error(0, npu_wait(fd, sync.handle, 0, WAIT_MS), "fault", "its syncobj is signalled");
	row_error(0, npu_run(fd, &nop, 1, WAIT_MS, &status), "fault", "the file goes on");
	npu_syncobj_destroy(fd, sync.handle);
}

#define TIMEOUT_FILE "/sys/module/npu/parameters/job_timeout_ms"

static void test_timeout(void)
{
	struct drm_npu_device_info before = get_info(fd);
	struct npu_bo a, b;
	struct drm_npu_command endless;
	struct drm_npu_sync sync = { 0 };
	struct drm_npu_job_status status;
	int first = fd, ret;
	uint64_t seqno = 0;
	char old[16];

	snprintf(old, sizeof(old), "%u", before.job_timeout_ms);
	if (!row(write_file(TIMEOUT_FILE, "1000"), "timeout: can be set"))
		return;
	fd = npu_open();
	if (fd < 0)
		bail("open", fd);
	a = make_bo(fd, SYSTEM, 1 << 20);
	b = make_bo(fd, DEVICE, 1 << 20);
	endless = long_copy(&a, &b, 65535, 65535);
	sync.handle = make_syncobj(fd);
	ret = npu_submit(fd, &endless, 1, NULL, 0, &sync, 1, &seqno);
	if (!ret)
		ret = npu_submit(fd, &nop, 1, NULL, 0, &sync, 1, NULL);
	row_error(0, ret, "timeout", "an endless job starts, another waits behind it");
	row_error(0, npu_wait(fd, sync.handle, 0, WAIT_MS), "timeout", "both end");
	row_error(-ETIMEDOUT, await_error(seqno), "timeout", "the endless one has timed out");
	row_error(-ECANCELED, await_error(seqno + 1), "timeout", "the one behind it is cancelled");
	row(get_info(fd).resets == before.resets, "timeout: the device was not reset");
	row(get_info(fd).timeouts == before.timeouts + 1, "timeout: it is counted");
	row_error(0, npu_run(fd, &nop, 1, WAIT_MS, &status), "timeout", "the file goes on");
	row_error(0, npu_run(first, &nop, 1, WAIT_MS, &status), "timeout", "so does another");
	write_file(TIMEOUT_FILE, old);
	close(fd);
	fd = first;
}

int main(int argc, char **argv)
{
	bool resets = false, timeouts = false;
	int option;

	while ((option = getopt(argc, argv, "rt")) != -1) {
		if (option != 'r' && option != 't') {
			fprintf(stderr, "usage: uapitest [-r] [-t]\n");
			return 2;
		}
		resets |= option == 'r';
		timeouts |= option == 't';
	}

	printf("KTAP version 1\n");
	fd = npu_open();
	if (fd < 0)
		bail("open /dev/accel/*", fd);
	info = get_info(fd);

	test_version();
	test_query();
	test_bo_errors();
	test_bo_use(DEVICE, "device");
	test_bo_use(SYSTEM, "system");
	test_bo_many();
	test_bo_foreign();
	test_submit_errors();
	test_launch_errors();
	test_jobs();
	test_sync();
	test_copy();
	test_copy_special();
	test_programs(DEVICE, "device");
	test_programs(SYSTEM, "system");
	test_partial_failure();
	test_two_processes();
	test_close_busy();
	test_kill_busy();
	test_queues();
	if (resets) {
		test_reset_idle();
		test_reset_busy();
		test_queue_fault();
	}
	if (timeouts)
		test_timeout();

	return end_rows();
}
