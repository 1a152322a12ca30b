// SPDX-License-Identifier: Apache-2.0
/*
 * Wrong calls of libnpuemu, each of which has to be an error with a text, and many threads. It prints what is not so,
 * and then exits with 1.
 *
 * usage: bad MODEL COMPILED        a model of one int8 input and output, and the same compiled
 */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npuemu.h"

static int bad;
static npuemu_device device;
static npuemu_model model;
static struct npuemu_tensor in = { .size = sizeof in }, out = { .size = sizeof out };
static char *input, *want;

#define CHECK(ok)                                                                  \
	do {                                                                       \
		if (!(ok)) {                                                       \
			printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #ok, npuemu_error()); \
			bad = 1;                                                   \
		}                                                                  \
	} while (0)

/* FAILS checks status and text of a call. */
#define FAILS(status, text, call)                                                                                     \
	do {                                                                                                          \
		int32_t got_ = (call);                                                                                \
		if (got_ != (status) || !strstr(npuemu_error(), text)) {                                              \
			printf("%s:%d: %s: status %d, not %d; %s\n", __FILE__, __LINE__, #call, got_, status, npuemu_error()); \
			bad = 1;                                                                                      \
		}                                                                                                     \
	} while (0)

static int32_t run_of(npuemu_model m, void *i, uint64_t isize, uint32_t itype, void *o, uint64_t osize, uint32_t otype)
{
	struct npuemu_buffer from = { i, isize, itype, 0 }, to = { o, osize, otype, 0 };
	struct npuemu_run run = { .size = sizeof run, .inputs = &from, .input_count = 1, .outputs = &to, .output_count = 1 };

	return npuemu_run(m, &run, NULL);
}

static void structures(void)
{
	struct npuemu_open open = { .size = sizeof open };
	struct npuemu_load load = { .size = sizeof load };
	struct npuemu_run run = { .size = sizeof run };
	struct npuemu_counters counters = { .size = 8 };
	struct npuemu_tensor tensor = { .size = 0 };
	struct { struct npuemu_open o; uint64_t more[2]; } newer = { .o = { .size = sizeof newer } };
	npuemu_device d = 7;
	npuemu_model m = 7;
	uint64_t size;
	char *json;

	FAILS(NPUEMU_ERR_ARGUMENT, "device is NULL", npuemu_open(NULL, NULL));
	open.size = 4;
	FAILS(NPUEMU_ERR_ARGUMENT, "npuemu_open.size is 4", npuemu_open(&open, &d));
	open.size = sizeof open;
	open.reserved[2] = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "reserved field", npuemu_open(&open, &d));
	open.reserved[2] = 0;
	open.reserved0 = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "reserved field", npuemu_open(&open, &d));
	newer.more[1] = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "use a newer library", npuemu_open(&newer.o, &d));
	CHECK(d == 7);
	newer.more[1] = 0;
	CHECK(npuemu_open(&newer.o, &d) == NPUEMU_OK && npuemu_close(d) == NPUEMU_OK);
	open.reserved0 = 0;
	open.target = "gpu";
	FAILS(NPUEMU_ERR_DEVICE, "use in-process", npuemu_open(&open, &d));
	open.target = NULL;
	open.config = "[array]\nrows = 7\n";
	FAILS(NPUEMU_ERR_CONFIG, "multiple of 8", npuemu_open(&open, &d));
	open.config = "no = toml";
	FAILS(NPUEMU_ERR_CONFIG, "configuration", npuemu_open(&open, &d));

	FAILS(NPUEMU_ERR_ARGUMENT, "struct npuemu_load is NULL", npuemu_load(device, NULL, &m));
	FAILS(NPUEMU_ERR_ARGUMENT, "model is NULL", npuemu_load(device, &load, NULL));
	FAILS(NPUEMU_ERR_ARGUMENT, "a model is needed", npuemu_load(device, &load, &m));
	load.data = "x";
	load.data_size = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "what is the format", npuemu_load(device, &load, &m));
	load.format = "onnx";
	FAILS(NPUEMU_ERR_MODEL, "not a valid ONNX file", npuemu_load(device, &load, &m));
	load.options = "{\"shape\": {}}";
	FAILS(NPUEMU_ERR_ARGUMENT, "unknown field", npuemu_load(device, &load, &m));
	load.options = "{";
	FAILS(NPUEMU_ERR_ARGUMENT, "options", npuemu_load(device, &load, &m));
	load.options = "{\"float\": \"int8\"}";
	FAILS(NPUEMU_ERR_ARGUMENT, "bf16, fp16, fp32", npuemu_load(device, &load, &m));
	load.options = NULL;
	load.data = NULL;
	FAILS(NPUEMU_ERR_ARGUMENT, "data is NULL and has 1 bytes", npuemu_load(device, &load, &m));
	load.data = "x";
	load.data_size = UINT64_MAX;
	FAILS(NPUEMU_ERR_ARGUMENT, "the most is", npuemu_load(device, &load, &m));
	load.data = NULL;
	load.data_size = 0;
	load.path = "/no/such/model.onnx";
	FAILS(NPUEMU_ERR_FILE, "/no/such/model.onnx", npuemu_load(device, &load, &m));
	CHECK(m == 7);

	FAILS(NPUEMU_ERR_ARGUMENT, "struct npuemu_run is NULL", npuemu_run(model, NULL, NULL));
	run.input_count = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "inputs is NULL", npuemu_run(model, &run, NULL));
	run.input_count = 0;
	FAILS(NPUEMU_ERR_BUFFER, "0 inputs are given", npuemu_run(model, &run, NULL));
	FAILS(NPUEMU_ERR_ARGUMENT, "npuemu_counters.size is 8", npuemu_device_counters(device, &counters));
	FAILS(NPUEMU_ERR_ARGUMENT, "npuemu_tensor.size is 0", npuemu_input(model, 0, &tensor));
	tensor.size = sizeof tensor;
	FAILS(NPUEMU_ERR_ARGUMENT, "input 1; the model has 1", npuemu_input(model, 1, &tensor));
	FAILS(NPUEMU_ERR_ARGUMENT, "output 4294967295", npuemu_output(model, UINT32_MAX, &tensor));
	FAILS(NPUEMU_ERR_ARGUMENT, "struct npuemu_tensor is NULL", npuemu_output(model, 0, NULL));
	FAILS(NPUEMU_ERR_ARGUMENT, "json is NULL", npuemu_report(model, NULL, &size));
	FAILS(NPUEMU_ERR_ARGUMENT, "size is NULL", npuemu_findings(device, &json, NULL));
	CHECK(npuemu_tensors(model, NULL, NULL) == NPUEMU_OK);
	npuemu_free(NULL);
}

static void buffers(void)
{
	char *o = malloc(out.bytes);

	FAILS(NPUEMU_ERR_BUFFER, "bytes; int8", run_of(model, input, in.bytes - 1, NPUEMU_ANY, o, out.bytes, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "bytes; int8", run_of(model, input, in.bytes, NPUEMU_ANY, o, out.bytes - 1, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "is given as float32; it is int8", run_of(model, input, in.bytes, NPUEMU_FLOAT32, o, out.bytes, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "is given as uint8; it is int8", run_of(model, input, in.bytes, NPUEMU_INT8, o, out.bytes, NPUEMU_UINT8));
	FAILS(NPUEMU_ERR_BUFFER, "dtype 99", run_of(model, input, in.bytes, 99, o, out.bytes, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "input 0", run_of(model, NULL, in.bytes, NPUEMU_ANY, o, out.bytes, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "has 0 bytes", run_of(model, NULL, 0, NPUEMU_ANY, o, out.bytes, NPUEMU_ANY));
	FAILS(NPUEMU_ERR_BUFFER, "output 0", run_of(model, input, in.bytes, NPUEMU_ANY, o, UINT64_MAX, NPUEMU_ANY));
	CHECK(run_of(model, input, in.bytes, NPUEMU_INT8, NULL, 0, NPUEMU_ANY) == NPUEMU_OK); /* not wanted */
	CHECK(run_of(model, input, in.bytes, in.dtype, o, out.bytes, out.dtype) == NPUEMU_OK && !memcmp(o, want, out.bytes));
	free(o);
}

/* A run says what the card said of each program, to who asks; a program that was built for interface 1.1 does not. */
static void launched(void)
{
	struct npuemu_buffer from = { input, in.bytes, in.dtype, 0 };
	uint64_t size = 7;
	char *json = NULL;
	struct npuemu_run run = { .size = sizeof run, .inputs = &from, .input_count = 1, .launches = &json };

	FAILS(NPUEMU_ERR_ARGUMENT, "launches_size is NULL", npuemu_run(model, &run, NULL));
	run.launches = NULL;
	run.launches_size = &size;
	FAILS(NPUEMU_ERR_ARGUMENT, "launches is NULL", npuemu_run(model, &run, NULL));
	run.launches = &json;
	run.input_count = 0;
	FAILS(NPUEMU_ERR_BUFFER, "0 inputs are given", npuemu_run(model, &run, NULL));
	CHECK(json == NULL && size == 7);
	run.input_count = 1;
	run.size = offsetof(struct npuemu_run, launches);
	CHECK(npuemu_run(model, &run, NULL) == NPUEMU_OK && json == NULL && size == 7);
	run.size = sizeof run;
	CHECK(npuemu_run(model, &run, NULL) == NPUEMU_OK);
	CHECK(json && strlen(json) == size && strstr(json, "{\"launches\":[{\"program\":0,\"cycles\":0,\"profile\":{\"timed\":false") == json);
	CHECK(json && strstr(json, "\"engine\":\"matrix\"") && strstr(json, "\"untimed\":\"the card's time mode is fast"));
	npuemu_free(json);
	run.size = offsetof(struct npuemu_run, launches) - 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "npuemu_run.size is", npuemu_run(model, &run, NULL));
}

static void handles(void)
{
	struct npuemu_counters c = { .size = sizeof c };
	struct npuemu_load load = { .size = sizeof load };
	npuemu_device d;
	npuemu_model m;
	uint32_t n;

	for (uint64_t h = 0; h < 16; h++) {
		FAILS(NPUEMU_ERR_HANDLE, "never given out", npuemu_close(h));
		FAILS(NPUEMU_ERR_HANDLE, "never given out", npuemu_unload(~h));
	}
	FAILS(NPUEMU_ERR_HANDLE, "is a model's; give that of a device", npuemu_device_counters(model, &c));
	FAILS(NPUEMU_ERR_HANDLE, "is a device's; give that of a model", npuemu_tensors(device, &n, &n));
	FAILS(NPUEMU_ERR_HANDLE, "is a model's", npuemu_close(model));
	FAILS(NPUEMU_ERR_HANDLE, "is a device's", npuemu_unload(device));
	load.path = "unused";
	CHECK(npuemu_open(NULL, &d) == NPUEMU_OK && npuemu_close(d) == NPUEMU_OK);
	FAILS(NPUEMU_ERR_HANDLE, "closed", npuemu_close(d));
	FAILS(NPUEMU_ERR_HANDLE, "closed", npuemu_load(d, &load, &m));
	FAILS(NPUEMU_ERR_HANDLE, "closed", npuemu_device_counters(d, &c));
}

/* Every beginning of a compiled model is refused. */
static void truncated(const char *bytes, size_t n)
{
	struct npuemu_load load = { .size = sizeof load, .data = bytes, .format = "npu" };
	npuemu_model m;

	for (size_t i = 1; i < n; i += 1 + n / 200) {
		load.data_size = i;
		FAILS(NPUEMU_ERR_MODEL, "npuemu: ", npuemu_load(device, &load, &m));
	}
	load.data_size = n;
	CHECK(npuemu_load(device, &load, &m) == NPUEMU_OK && npuemu_unload(m) == NPUEMU_OK);
	FAILS(NPUEMU_ERR_HANDLE, "closed", npuemu_unload(m));
}

/* Threads share the model; each thread's error is its own. */
static void *work(void *arg)
{
	char *o = malloc(out.bytes), text[64];

	for (int i = 0; i < 10; i++) {
		memset(o, 0, out.bytes);
		CHECK(run_of(model, input, in.bytes, in.dtype, o, out.bytes, out.dtype) == NPUEMU_OK && !memcmp(o, want, out.bytes));
		snprintf(text, sizeof text, "handle %#lx was never", (long)arg);
		FAILS(NPUEMU_ERR_HANDLE, text, npuemu_unload((long)arg));
		npuemu_device d;
		CHECK(npuemu_open(NULL, &d) == NPUEMU_OK);
		CHECK(strstr(npuemu_error(), text) != NULL);
		CHECK(npuemu_close(d) == NPUEMU_OK);
	}
	free(o);
	return NULL;
}

/* A time line is there whole, or not at all. */
static void timelines(const char *compiled)
{
	struct npuemu_timeline t = { .size = sizeof t };
	char name[4096], start[17] = "";
	uint64_t merged = 7;
	FILE *f;

	snprintf(name, sizeof name, "%s.json", compiled);
	FAILS(NPUEMU_ERR_ARGUMENT, "struct npuemu_timeline is NULL", npuemu_timeline(model, NULL, &merged));
	FAILS(NPUEMU_ERR_ARGUMENT, "path is NULL", npuemu_timeline(model, &t, &merged));
	t.path = name;
	t.size = 8;
	FAILS(NPUEMU_ERR_ARGUMENT, "npuemu_timeline.size is 8", npuemu_timeline(model, &t, &merged));
	t.size = sizeof t;
	t.reserved[0] = 1;
	FAILS(NPUEMU_ERR_ARGUMENT, "reserved field", npuemu_timeline(model, &t, &merged));
	t.reserved[0] = 0;
	t.on_bus = 1 << 4;
	FAILS(NPUEMU_ERR_ARGUMENT, "on_bus is 0x10, and the model has 4 bindings", npuemu_timeline(model, &t, &merged));
	t.on_bus = 0;
	FAILS(NPUEMU_ERR_HANDLE, "is a device's", npuemu_timeline(device, &t, &merged));
	CHECK(access(name, F_OK) != 0);
	t.path = "/no/such/folder/t.json";
	FAILS(NPUEMU_ERR_FILE, "time line: create /no/such/folder/t.json", npuemu_timeline(model, &t, &merged));
	t.path = "/dev/full";
	FAILS(NPUEMU_ERR_FILE, "no space left", npuemu_timeline(model, &t, &merged));
	CHECK(merged == 7);
	t.path = name;
	CHECK(npuemu_timeline(model, &t, &merged) == NPUEMU_OK && merged == 0);
	t.limit = 1;
	t.on_bus = 0xf;
	CHECK(npuemu_timeline(model, &t, &merged) == NPUEMU_OK && merged > 10);
	CHECK(npuemu_timeline(model, &t, NULL) == NPUEMU_OK);
	f = fopen(name, "r");
	CHECK(f && fread(start, 1, 16, f) == 16 && !strcmp(start, "{\"traceEvents\":["));
	if (f)
		fclose(f);
}

static int32_t stop(void *user, uint64_t done, uint64_t total)
{
	(void)done, (void)total;
	return ++*(int *)user > 1;
}

/* A run that takes seconds is cancelled, and runs out of time; the device goes on. */
static void ends(void)
{
	static char text[1 << 16];
	char *p = text + sprintf(text, "graph \"slow\"\ninput %%x0: float32[1, 512, 512]\n");
	int calls = 0;

	for (int i = 0; i < 300; i++)
		p += sprintf(p, "node \"n%d\" npu.gemm(%%x%d, %%x0) -> (%%x%d: float32[1, 512, 512]) {rounding=\"none\"}\n", i, i, i + 1);
	sprintf(p, "output %%x300\n");
	struct npuemu_load load = { .size = sizeof load, .data = text, .data_size = strlen(text), .format = "npuir" };
	struct npuemu_buffer from = { calloc(1, 512 * 512 * 4), 512 * 512 * 4, NPUEMU_FLOAT32, 0 };
	struct npuemu_run run = { .size = sizeof run, .inputs = &from, .input_count = 1, .timeout_ms = 20 };
	npuemu_model m;

	CHECK(npuemu_load(device, &load, &m) == NPUEMU_OK);
	FAILS(NPUEMU_ERR_TIMEOUT, "no result within 20ms", npuemu_run(m, &run, NULL));
	run.timeout_ms = 0;
	run.progress = stop;
	run.user = &calls;
	FAILS(NPUEMU_ERR_CANCELED, "cancelled by the progress function", npuemu_run(m, &run, NULL));
	CHECK(calls == 2);
	buffers();
	free(from.data);
}

static char *slurp(const char *name, size_t *n)
{
	FILE *f = fopen(name, "rb");
	char *p = malloc(1 << 24);

	if (!f || !p)
		abort();
	*n = fread(p, 1, 1 << 24, f);
	fclose(f);
	return p;
}

int main(int argc, char **argv)
{
	pthread_t threads[8];
	size_t n;
	char *compiled;

	if (argc != 3)
		return 1;
	struct npuemu_load load = { .size = sizeof load, .path = argv[1] };
	compiled = slurp(argv[2], &n);
	if (npuemu_open(NULL, &device) || npuemu_load(device, &load, &model) || npuemu_input(model, 0, &in) || npuemu_output(model, 0, &out)) {
		printf("%s\n", npuemu_error());
		return 1;
	}
	input = malloc(in.bytes);
	want = malloc(out.bytes);
	for (size_t i = 0; i < in.bytes; i++)
		input[i] = (char)(i * 37);
	CHECK(run_of(model, input, in.bytes, in.dtype, want, out.bytes, out.dtype) == NPUEMU_OK);

	structures();
	buffers();
	launched();
	handles();
	truncated(compiled, n);
	timelines(argv[2]);
	for (long i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, work, (void *)(i + 1));
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	ends();

	fflush(stdout);
	pid_t child = fork();
	if (child == 0) { /* must fail, and not hang */
		alarm(20);
		_exit(npuemu_close(device) != NPUEMU_ERR_FORKED || !strstr(npuemu_error(), "fork"));
	}
	int status = 1;
	CHECK(waitpid(child, &status, 0) == child && status == 0);

	CHECK(npuemu_close(device) == NPUEMU_OK);
	FAILS(NPUEMU_ERR_HANDLE, "closed", run_of(model, input, in.bytes, in.dtype, want, out.bytes, out.dtype));
	return bad;
}
