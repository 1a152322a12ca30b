// SPDX-License-Identifier: Apache-2.0
/*
 * A model on a virtual NPU from C, with npuemu.h and nothing else (docs/capi.md):
 *
 *   cc -Wall -o classify classify.c -I../../build -L../../build -lnpuemu -Wl,-rpath,'$ORIGIN/../../build'
 *   ./classify model.tflite input.bin [output.bin]
 *
 * The input is a file of raw elements. What the card counted goes to standard output; the exit status is 1 if
 * anything failed, and 2 if an operator ran on the host.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "npuemu.h"

static int failed(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, npuemu_error());
	return 1;
}

static void print(const char *kind, const struct npuemu_tensor *t)
{
	printf("%s %s: type %" PRIu32 ", %" PRIu64 " bytes, shape", kind, t->name, t->dtype, t->bytes);
	for (uint32_t i = 0; i < t->rank; i++)
		printf(" %" PRIu64, t->shape[i]);
	printf("\n");
}

/* Reads size bytes, which is all there has to be. */
static void *slurp(const char *name, size_t size)
{
	FILE *f = fopen(name, "rb");
	char *p = malloc(size + 1);

	if (!f || !p || fread(p, 1, size + 1, f) != size) {
		fprintf(stderr, "%s: not a file of %zu bytes\n", name, size);
		exit(1);
	}
	fclose(f);
	return p;
}

static int32_t progress(void *user, uint64_t done, uint64_t total)
{
	(void)user;
	fprintf(stderr, "step %" PRIu64 " of %" PRIu64 "\n", done, total);
	return 0; /* anything else would cancel */
}

static int classify(npuemu_model model, const char *input, const char *output)
{
	struct npuemu_tensor in = { .size = sizeof in }, out = { .size = sizeof out };
	struct npuemu_counters counters = { .size = sizeof counters };
	uint64_t size;
	char *report;

	if (npuemu_input(model, 0, &in) || npuemu_output(model, 0, &out))
		return failed("tensors");
	print("input", &in);
	print("output", &out);

	struct npuemu_buffer from = { .data = slurp(input, in.bytes), .size = in.bytes, .dtype = in.dtype };
	struct npuemu_buffer to = { .data = calloc(1, out.bytes), .size = out.bytes, .dtype = out.dtype };
	struct npuemu_run run = {
		.size = sizeof run, .inputs = &from, .input_count = 1, .outputs = &to, .output_count = 1,
		.progress = progress, .timeout_ms = 60000,
	};

	if (npuemu_run(model, &run, &counters))
		return failed("run");
	printf("the card counted %" PRIu64 " programs, %" PRIu64 " instructions, %" PRIu64 " multiply-accumulates\n",
	       counters.programs, counters.instructions, counters.macs);
	printf("%" PRIu64 " bytes read, %" PRIu64 " written, %.6f s\n",
	       counters.bytes_read, counters.bytes_written, 1e-9 * (double)counters.device_ns);
	if (output) {
		FILE *f = fopen(output, "wb");

		if (!f || fwrite(to.data, 1, to.size, f) != to.size || fclose(f)) {
			perror(output);
			return 1;
		}
	}
	if (npuemu_report(model, &report, &size))
		return failed("report");
	printf("%s\n", report);
	npuemu_free(report);
	free(from.data);
	free(to.data);
	return counters.host_operators ? 2 : 0;
}

int main(int argc, char **argv)
{
	struct npuemu_load load = { .size = sizeof load };
	npuemu_device device;
	npuemu_model model;
	int status;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: classify MODEL INPUT [OUTPUT]\n");
		return 1;
	}
	if (npuemu_abi() >> 16 != NPUEMU_ABI_MAJOR || npuemu_abi() < (NPUEMU_ABI_MAJOR << 16 | NPUEMU_ABI_MINOR)) {
		fprintf(stderr, "libnpuemu %s has another interface\n", npuemu_version());
		return 1;
	}
	if (npuemu_open(NULL, &device))
		return failed("open");
	load.path = argv[1];
	status = npuemu_load(device, &load, &model) ? failed(argv[1]) : classify(model, argv[2], argc > 3 ? argv[3] : NULL);
	if (npuemu_close(device))
		return failed("close");
	return status;
}
