/* SPDX-License-Identifier: Apache-2.0 */
/*
 * triple runs a program on the NPU with nothing but the driver's interface, npu_accel.h:
 * 64 numbers go in, three times each comes out.
 *
 * usage: triple /dev/accel/accelN triple.npu
 *
 * It exits with 0 if all results are right. README.md beside it says how to build it.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "npu_accel.h"

#define COUNT		64
#define ELF_MACHINE	0x4e50		/* §5.3.1 of the specification */
#define TIMEOUT_NS	20000000000LL

/* A buffer object and its memory. */
struct buffer {
	uint32_t handle;
	uint64_t size;
	void *mem;
};

static void fail(const char *what)
{
	fprintf(stderr, "triple: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* An ioctl that a signal interrupted is made again. */
static void call(int fd, unsigned long request, void *arg, const char *what)
{
	while (ioctl(fd, request, arg))
		if (errno != EINTR)
			fail(what);
}

/* Opens the device, if it belongs to the driver whose interface this is. */
static int open_device(const char *path)
{
	char name[16] = "";
	struct drm_version version = { .name = name, .name_len = sizeof(name) - 1 };
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail(path);
	call(fd, DRM_IOCTL_VERSION, &version, path);
	if (strcmp(name, DRM_NPU_NAME) || version.version_major != DRM_NPU_VERSION_MAJOR) {
		fprintf(stderr, "triple: %s: driver %s %d.%d, need " DRM_NPU_NAME " %d.x\n", path,
			name, version.version_major, version.version_minor, DRM_NPU_VERSION_MAJOR);
		exit(1);
	}
	return fd;
}

static struct buffer make_buffer(int fd, uint64_t size)
{
	struct drm_npu_bo_create create = { .size = size, .placement = DRM_NPU_PLACEMENT_SYSTEM };
	struct buffer b;

	call(fd, DRM_IOCTL_NPU_BO_CREATE, &create, "make a buffer");
	b.handle = create.handle;
	b.size = create.size;	/* whole pages */
	b.mem = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, create.mmap_offset);
	if (b.mem == MAP_FAILED)
		fail("map a buffer");
	return b;
}

static void free_buffer(int fd, struct buffer *b)
{
	struct drm_gem_close close = { .handle = b->handle };

	munmap(b->mem, b->size);
	call(fd, DRM_IOCTL_GEM_CLOSE, &close, "close a buffer");
}

/* Puts the program, which is the PT_LOAD segment of an ELF file, into a buffer. */
static struct buffer load_program(int fd, const char *path, uint32_t *size)
{
	FILE *file = fopen(path, "rb");
	struct buffer b;
	Elf64_Ehdr e;
	Elf64_Phdr p = { .p_type = PT_NULL };
	int i;

	if (!file)
		fail(path);
	if (fread(&e, sizeof(e), 1, file) != 1 || memcmp(e.e_ident, ELFMAG, SELFMAG) ||
	    e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_machine != ELF_MACHINE)
		goto bad;
	for (i = 0; i < e.e_phnum && p.p_type != PT_LOAD; i++)
		if (fseek(file, (long)(e.e_phoff + i * sizeof(p)), SEEK_SET) ||
		    fread(&p, sizeof(p), 1, file) != 1)
			goto bad;
	if (p.p_type != PT_LOAD || p.p_filesz == 0 || p.p_filesz > 1 << 20)
		goto bad;
	b = make_buffer(fd, p.p_filesz);
	if (fseek(file, (long)p.p_offset, SEEK_SET) || fread(b.mem, p.p_filesz, 1, file) != 1)
		goto bad;
	fclose(file);
	*size = (uint32_t)p.p_filesz;
	return b;
bad:
	fprintf(stderr, "triple: %s: not a program for the NPU; make one with npuemu asm\n", path);
	exit(1);
}

/* Runs one launch on the file's own queue, and waits for its end. */
static void run(int fd, struct drm_npu_command *command)
{
	struct drm_syncobj_create done = { 0 };
	struct drm_npu_sync out = { 0 };
	struct drm_npu_submit submit = {
		.commands = { sizeof(*command), 1, (uintptr_t)command },
		.out_syncs = { sizeof(out), 1, (uintptr_t)&out },
	};
	struct drm_syncobj_wait wait = { .handles = (uintptr_t)&out.handle, .count_handles = 1 };
	struct drm_npu_job_status status;
	struct drm_npu_query query = {
		.type = DRM_NPU_QUERY_JOB, .size = sizeof(status), .ptr = (uintptr_t)&status,
	};
	struct timespec now;

	call(fd, DRM_IOCTL_SYNCOBJ_CREATE, &done, "make a syncobj");
	out.handle = done.handle;
	call(fd, DRM_IOCTL_NPU_SUBMIT, &submit, "submit");
	clock_gettime(CLOCK_MONOTONIC, &now);
	wait.timeout_nsec = now.tv_sec * 1000000000LL + now.tv_nsec + TIMEOUT_NS;
	call(fd, DRM_IOCTL_SYNCOBJ_WAIT, &wait, "wait");

	/* The fence tells that the job has ended, its status how. */
	query.arg = submit.seqno;
	call(fd, DRM_IOCTL_NPU_QUERY, &query, "status of the job");
	if (status.error) {
		fprintf(stderr, "triple: the job failed: %s; status 0x%02x, instruction %u, info 0x%llx\n",
			strerror(-status.error), status.status, status.result, (unsigned long long)status.info);
		exit(1);
	}
	printf("%u instructions, %llu multiply-accumulates\n", status.result, (unsigned long long)status.info);
}

int main(int argc, char **argv)
{
	struct drm_npu_command command = { .type = DRM_NPU_COMMAND_LAUNCH };
	struct drm_npu_counters counters;
	struct drm_npu_query query = {
		.type = DRM_NPU_QUERY_COUNTERS, .size = sizeof(counters), .ptr = (uintptr_t)&counters,
	};
	struct buffer program, x, y;
	int fd, i, wrong = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: triple /dev/accel/accelN triple.npu\n");
		return 2;
	}
	fd = open_device(argv[1]);
	program = load_program(fd, argv[2], &command.launch.program_size);
	x = make_buffer(fd, COUNT);
	y = make_buffer(fd, COUNT * sizeof(int32_t));
	for (i = 0; i < COUNT; i++)
		((int8_t *)x.mem)[i] = (int8_t)(i * 4 - 128);

	struct drm_npu_binding bindings[] = {
		{ x.handle, DRM_NPU_BINDING_READ, 0, COUNT },
		{ y.handle, DRM_NPU_BINDING_WRITE, 0, COUNT * sizeof(int32_t) },
	};
	command.launch.program_handle = program.handle;
	command.launch.bindings = (struct drm_npu_array){ sizeof(bindings[0]), 2, (uintptr_t)bindings };
	run(fd, &command);

	for (i = 0; i < COUNT; i++)
		wrong += ((int32_t *)y.mem)[i] != 3 * ((int8_t *)x.mem)[i];
	call(fd, DRM_IOCTL_NPU_QUERY, &query, "counters");
	printf("%d of %d results are wrong; the device has run %llu programs, read %llu bytes, written %llu\n",
	       wrong, COUNT, (unsigned long long)counters.programs,
	       (unsigned long long)counters.dma_read, (unsigned long long)counters.dma_written);
	free_buffer(fd, &y);
	free_buffer(fd, &x);
	free_buffer(fd, &program);
	close(fd);
	return wrong != 0;
}
