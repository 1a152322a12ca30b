/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digits classifies the held-out images of examples/digits on the NPU, one
 * launch an image, and compares every byte that the device wrote with the
 * golden data. Weights and program are in device memory, images and results in
 * memory of the host, so both kinds of DMA take part.
 *
 * usage: digits DIR
 *
 * DIR holds weights.bin, images.bin, golden.bin and digits.elf. Prints one JSON
 * object. Exits with 0 only if all bytes are equal, the accuracy is at least
 * 96 %, and the device's own counters say that it ran one program an image.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "npu.h"

#define ACCURACY	0.96
#define TIMEOUT_MS	120000	/* of one job; interpreted guests are slow */
#define UNWRITTEN	0xa5	/* results before the device writes them */

static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "digits: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

static void check(int ret, const char *what)
{
	if (ret < 0)
		die("%s: %s", what, strerror(-ret));
}

struct data {
	uint8_t *records;
	size_t count;
	size_t record_size;
	size_t rest;	/* bytes behind the records */
};

static struct data read_data(const char *dir, const char *name, const char *magic,
			     size_t record_size)
{
	const struct digits_header *header;
	struct data data;
	char path[4096];
	void *file;
	size_t size;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	check(npu_read_file(path, &file, &size), path);
	header = file;
	if (size < sizeof(*header) || memcmp(header->magic, magic, 4) ||
	    header->version != DIGITS_VERSION || header->header_size != sizeof(*header))
		die("%s: not a %s file of version %d", path, magic, DIGITS_VERSION);
	if (header->record_size != record_size ||
	    header->count > (size - sizeof(*header)) / record_size)
		die("%s: %u records of %u bytes, want records of %zu", path, header->count,
		    header->record_size, record_size);
	data.records = (uint8_t *)file + sizeof(*header);
	data.count = header->count;
	data.record_size = record_size;
	data.rest = size - sizeof(*header) - data.count * record_size;
	return data;
}

static struct npu_bo create(int fd, uint32_t placement, size_t size, const void *content)
{
	struct npu_bo bo;

	check(npu_bo_create(fd, placement, size, &bo), "create buffer object");
	check(npu_bo_map(fd, &bo), "map buffer object");
	if (content)
		memcpy(bo.map, content, size);
	return bo;
}

/* Runs the program on count images from first on, as one job. */
static void classify(int fd, const struct npu_bo *program, uint32_t program_size,
		     const struct npu_bo *weights, const struct npu_bo *images,
		     const struct npu_bo *results, size_t first, size_t count)
{
	struct drm_npu_command *commands = calloc(count, sizeof(*commands));
	struct drm_npu_binding (*bindings)[3] = calloc(count, sizeof(*bindings));
	struct drm_npu_job_status status;
	size_t i;
	int ret;

	if (!commands || !bindings)
		die("out of memory");
	for (i = 0; i < count; i++) {
		struct drm_npu_binding *b = bindings[i];

		b[DIGITS_BINDING_WEIGHTS] = (struct drm_npu_binding){
			weights->handle, DRM_NPU_BINDING_READ, 0, DIGITS_WEIGHTS_SIZE,
		};
		b[DIGITS_BINDING_IMAGE] = (struct drm_npu_binding){
			images->handle, DRM_NPU_BINDING_READ,
			(first + i) * DIGITS_IMAGE_SIZE, DIGITS_IMAGE_SIZE,
		};
		b[DIGITS_BINDING_RECORD] = (struct drm_npu_binding){
			results->handle, DRM_NPU_BINDING_WRITE,
			(first + i) * sizeof(struct digits_record), sizeof(struct digits_record),
		};
		commands[i] = npu_launch(program, 0, program_size, b, 3);
	}
	ret = npu_run(fd, commands, count, TIMEOUT_MS, &status);
	if (ret && status.status)
		die("image %zu: device status 0x%02x, instruction %u, info 0x%llx",
		    first + status.command, status.status, status.result,
		    (unsigned long long)status.info);
	check(ret, "job");
	free(commands);
	free(bindings);
}

static int class_of(const struct digits_record *record)
{
	int i, best = 0;

	for (i = 1; i < DIGITS_CLASSES; i++)
		if (record->acc3[i] > record->acc3[best])
			best = i;
	return best;
}

int main(int argc, char **argv)
{
	struct data weights, images, golden;
	struct npu_bo weights_bo, images_bo, results_bo, program_bo;
	struct drm_npu_counters before, after;
	struct drm_npu_device_info info;
	struct npu_program program;
	struct npu_version version;
	size_t i, n, size, mismatched = 0, first = 0, correct = 0;
	const uint8_t *labels;
	const char *why;
	char path[4096];
	double seconds;
	int fd, ok;

	if (argc != 2) {
		fprintf(stderr, "usage: digits DIR\n");
		return 2;
	}
	weights = read_data(argv[1], "weights.bin", DIGITS_MAGIC_WEIGHTS, DIGITS_WEIGHTS_SIZE);
	images = read_data(argv[1], "images.bin", DIGITS_MAGIC_IMAGES, DIGITS_IMAGE_SIZE);
	golden = read_data(argv[1], "golden.bin", DIGITS_MAGIC_GOLDEN,
			   sizeof(struct digits_record));
	n = images.count;
	if (!n || weights.count != 1 || golden.count != n || images.rest != n)
		die("%zu images with %zu labels, %zu golden records", n, images.rest, golden.count);
	labels = images.records + n * images.record_size;
	snprintf(path, sizeof(path), "%s/digits.elf", argv[1]);
	if (npu_program_load(path, &program, &why))
		die("%s: %s", path, why);

	fd = npu_open();
	check(fd, "open /dev/accel/*");
	check(npu_get_version(fd, &version), "version");
	check(npu_query(fd, DRM_NPU_QUERY_DEVICE_INFO, 0, &info, sizeof(info)), "device info");

	size = n * sizeof(struct digits_record);
	weights_bo = create(fd, DRM_NPU_PLACEMENT_DEVICE, DIGITS_WEIGHTS_SIZE, weights.records);
	program_bo = create(fd, DRM_NPU_PLACEMENT_DEVICE, program.size, program.data);
	images_bo = create(fd, DRM_NPU_PLACEMENT_SYSTEM, n * DIGITS_IMAGE_SIZE, images.records);
	results_bo = create(fd, DRM_NPU_PLACEMENT_SYSTEM, size, NULL);
	memset(results_bo.map, UNWRITTEN, size);

	check(npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &before, sizeof(before)), "counters");
	seconds = npu_now();
	for (i = 0; i < n; i += info.max_commands)
		classify(fd, &program_bo, program.size, &weights_bo, &images_bo, &results_bo, i,
			 n - i < info.max_commands ? n - i : info.max_commands);
	seconds = npu_now() - seconds;
	check(npu_query(fd, DRM_NPU_QUERY_COUNTERS, 0, &after, sizeof(after)), "counters");

	for (i = size; i-- > 0;)
		if (results_bo.map[i] != golden.records[i]) {
			mismatched++;
			first = i;
		}
	for (i = 0; i < n; i++)
		correct += class_of((struct digits_record *)results_bo.map + i) == labels[i];
	ok = !mismatched && correct >= ACCURACY * n && after.programs - before.programs >= n;

	printf("{");
	npu_print_device(&version, &info);
	printf(", \"images\": %zu, \"correct\": %zu, \"accuracy\": %.4f, ", n, correct,
	       (double)correct / n);
	printf("\"compared_bytes\": %zu, \"mismatched_bytes\": %zu, \"first_mismatch\": ", size,
	       mismatched);
	if (mismatched)
		printf("{\"image\": %zu, \"offset\": %zu, \"got\": %u, \"want\": %u}",
		       first / sizeof(struct digits_record), first % sizeof(struct digits_record),
		       results_bo.map[first], golden.records[first]);
	else
		printf("null");
	printf(", \"seconds\": %.3f, \"images_per_second\": %.1f, \"counters\": ", seconds,
	       n / seconds);
	npu_print_counters(&before, &after);
	printf(", \"ok\": %s}\n", ok ? "true" : "false");

	npu_bo_destroy(fd, &results_bo);
	npu_bo_destroy(fd, &images_bo);
	npu_bo_destroy(fd, &program_bo);
	npu_bo_destroy(fd, &weights_bo);
	free(program.data);
	return ok ? 0 : 1;
}
