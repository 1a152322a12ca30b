// SPDX-License-Identifier: Apache-2.0

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// The text of a thread's last failure is memory of the thread, and no _Thread_local variable: cgo compiles those for
// the static block, which a library that is loaded late finds full.
#define TEXT 4096
static pthread_key_t last_error;
static volatile int forked;

static void child(void) { forked = 1; }

__attribute__((constructor)) static void begin(void)
{
	if (pthread_key_create(&last_error, free) || pthread_atfork(NULL, NULL, child))
		abort(); // no memory, at the start of a process
}

// capi_fail notes text of n bytes, cut where a character begins, and returns status.
int32_t capi_fail(int32_t status, const char *text, size_t n)
{
	char *to = pthread_getspecific(last_error);

	if (!to) {
		to = malloc(TEXT);
		if (!to || pthread_setspecific(last_error, to)) {
			free(to);
			return status;
		}
	}
	if (n > TEXT - 1) {
		n = TEXT - 1;
		while (n > 0 && (text[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(to, text, n);
	to[n] = 0;
	return status;
}

// capi_copy is memory for npuemu_free; NULL if there is none.
void *capi_copy(const void *from, size_t n)
{
	void *to = malloc(n);

	return to ? memcpy(to, from, n) : NULL;
}

static int32_t fail(int32_t status, const char *format, const char *what, uint64_t a, uint64_t b)
{
	char text[256];

	snprintf(text, sizeof text, format, what, (unsigned long long)a, (unsigned long long)b);
	return capi_fail(status, text, strlen(text));
}

// capi_progress calls a function of C for Go, which cannot.
int32_t capi_progress(npuemu_progress f, void *user, uint64_t done, uint64_t total) { return f(user, done, total); }

static int32_t alive(void)
{
	if (!forked)
		return NPUEMU_OK;
	return fail(NPUEMU_ERR_FORKED, "%s", "npuemu: this process is the child of a fork, where the library does not work: fork before it is loaded, execute a program, "
		    "or start processes with Python's method spawn", 0, 0);
}

static int zero(const unsigned char *p, size_t n)
{
	while (n > 0)
		if (p[--n])
			return 0;
	return 1;
}

// take copies a caller's structure to one of n bytes, of which the first version had least.
static int32_t take(void *to, size_t n, size_t least, const void *from, const char *name)
{
	uint32_t size;

	if (!from)
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s is NULL", name, 0, 0);
	memcpy(&size, from, sizeof size);
	if (size < least)
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s.size is %llu, and its first version had %llu: set it to sizeof", name, size, least);
	if (size > n && !zero((const unsigned char *)from + n, size - n))
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s has %llu bytes, of which this library knows %llu, and those behind are not 0: use a newer library",
			    name, size, n);
	memset(to, 0, n);
	memcpy(to, from, size < n ? size : n);
	return NPUEMU_OK;
}

// room checks a structure that the library fills in.
static int32_t room(const void *p, size_t least, const char *name)
{
	uint32_t size;

	if (!p)
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s is NULL", name, 0, 0);
	memcpy(&size, p, sizeof size);
	if (size < least)
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s.size is %llu, and its first version had %llu: set it to sizeof", name, size, least);
	return NPUEMU_OK;
}

// give fills a caller's structure, whose size stays, from one of n bytes.
static void give(void *to, const void *from, size_t n)
{
	uint32_t size;

	memcpy(&size, to, sizeof size);
	memset(to, 0, size);
	memcpy(to, from, size < n ? size : n);
	memcpy(to, &size, sizeof size);
}

static int32_t reserved(const uint64_t *r, uint32_t r0, const char *name)
{
	if (r0 || !zero((const unsigned char *)r, 4 * sizeof *r))
		return fail(NPUEMU_ERR_ARGUMENT, "npuemu: a reserved field of %s is not 0", name, 0, 0);
	return NPUEMU_OK;
}

static int32_t needed(const void *p, const char *name)
{
	return p ? NPUEMU_OK : fail(NPUEMU_ERR_ARGUMENT, "npuemu: %s is NULL", name, 0, 0);
}

// TRY returns what fails.
#define TRY(call)                 \
	do {                      \
		int32_t s_ = (call); \
		if (s_)           \
			return s_; \
	} while (0)

// TAKE copies the caller's structure p to v, and checks it; TAKE_OF one whose first version had least bytes.
#define TAKE(v, p, type) TAKE_OF(v, p, type, sizeof(v))
#define TAKE_OF(v, p, type, least)                                        \
	do {                                                              \
		TRY(take(&(v), sizeof(v), (least), (p), "struct " type)); \
		TRY(reserved((v).reserved, (v).reserved0, "struct " type)); \
	} while (0)

uint32_t npuemu_abi(void) { return (uint32_t)NPUEMU_ABI_MAJOR << 16 | NPUEMU_ABI_MINOR; }

const char *npuemu_version(void) { return forked ? "" : capiVersion(); }

const char *npuemu_error(void)
{
	const char *text = pthread_getspecific(last_error);

	return text ? text : "";
}

int32_t npuemu_open(const struct npuemu_open *options, npuemu_device *device)
{
	struct npuemu_open o = { .size = sizeof o };

	TRY(alive());
	TRY(needed(device, "device"));
	if (options)
		TAKE(o, options, "npuemu_open");
	return capiOpen(&o, device);
}

int32_t npuemu_close(npuemu_device device)
{
	TRY(alive());
	return capiClose(device);
}

int32_t npuemu_load(npuemu_device device, const struct npuemu_load *source, npuemu_model *model)
{
	struct npuemu_load o;

	TRY(alive());
	TRY(needed(model, "model"));
	TAKE(o, source, "npuemu_load");
	return capiLoad(device, &o, model);
}

int32_t npuemu_unload(npuemu_model model)
{
	TRY(alive());
	return capiUnload(model);
}

int32_t npuemu_compile(const char *config, const struct npuemu_load *source, void **compiled, uint64_t *size)
{
	struct npuemu_load o;

	TRY(alive());
	TRY(needed(compiled, "compiled"));
	TRY(needed(size, "size"));
	TAKE(o, source, "npuemu_load");
	return capiCompile((char *)config, &o, compiled, size);
}

int32_t npuemu_tensors(npuemu_model model, uint32_t *inputs, uint32_t *outputs)
{
	uint32_t in, out;

	TRY(alive());
	TRY(capiTensors(model, &in, &out));
	if (inputs)
		*inputs = in;
	if (outputs)
		*outputs = out;
	return NPUEMU_OK;
}

static int32_t tensor(npuemu_model model, int output, uint32_t index, struct npuemu_tensor *t)
{
	struct npuemu_tensor o = { 0 };

	TRY(alive());
	TRY(room(t, sizeof o, "struct npuemu_tensor"));
	TRY(capiTensor(model, output, index, &o));
	give(t, &o, sizeof o);
	return NPUEMU_OK;
}

int32_t npuemu_input(npuemu_model model, uint32_t index, struct npuemu_tensor *t) { return tensor(model, 0, index, t); }

int32_t npuemu_output(npuemu_model model, uint32_t index, struct npuemu_tensor *t) { return tensor(model, 1, index, t); }

static int32_t buffers(const struct npuemu_buffer *b, uint32_t n, const char *name)
{
	if (n > 0)
		TRY(needed(b, name));
	for (uint32_t i = 0; i < n; i++)
		if (b[i].reserved)
			return fail(NPUEMU_ERR_ARGUMENT, "npuemu: a reserved field of %s[%llu] is not 0", name, i, 0);
	return NPUEMU_OK;
}

int32_t npuemu_run(npuemu_model model, const struct npuemu_run *run, struct npuemu_counters *counters)
{
	struct npuemu_counters c = { 0 };
	struct npuemu_run o;

	TRY(alive());
	TAKE_OF(o, run, "npuemu_run", offsetof(struct npuemu_run, launches));
	if (o.launches)
		TRY(needed(o.launches_size, "launches_size"));
	else if (o.launches_size)
		TRY(needed(o.launches, "launches"));
	TRY(buffers(o.inputs, o.input_count, "inputs"));
	TRY(buffers(o.outputs, o.output_count, "outputs"));
	if (counters)
		TRY(room(counters, sizeof c, "struct npuemu_counters"));
	TRY(capiRun(model, &o, &c));
	if (counters)
		give(counters, &c, sizeof c);
	return NPUEMU_OK;
}

int32_t npuemu_device_counters(npuemu_device device, struct npuemu_counters *counters)
{
	struct npuemu_counters c = { 0 };

	TRY(alive());
	TRY(room(counters, sizeof c, "struct npuemu_counters"));
	TRY(capiCounters(device, &c));
	give(counters, &c, sizeof c);
	return NPUEMU_OK;
}

int32_t npuemu_report(npuemu_model model, char **json, uint64_t *size)
{
	TRY(alive());
	TRY(needed(json, "json"));
	TRY(needed(size, "size"));
	return capiReport(model, json, size);
}

int32_t npuemu_timeline(npuemu_model model, const struct npuemu_timeline *options, uint64_t *merged)
{
	struct npuemu_timeline o;
	uint64_t n;

	TRY(alive());
	TAKE(o, options, "npuemu_timeline");
	TRY(needed(o.path, "path"));
	TRY(capiTimeline(model, &o, &n));
	if (merged)
		*merged = n;
	return NPUEMU_OK;
}

int32_t npuemu_findings(npuemu_device device, char **json, uint64_t *size)
{
	TRY(alive());
	TRY(needed(json, "json"));
	TRY(needed(size, "size"));
	return capiFindings(device, json, size);
}

void npuemu_free(void *memory) { free(memory); }
