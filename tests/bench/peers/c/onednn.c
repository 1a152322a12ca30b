// SPDX-License-Identifier: Apache-2.0
//
// onednn: products by oneDNN, for a program that measures beside it. It reads
// lines "KIND M N K THREADS REPEAT" (KIND: s8, u8, f32, bf16), multiplies
// REPEAT times and answers with the seconds of the fastest. Weights are packed
// before, as oneDNN likes them best; activations are plain rows. KIND peak is
// not a product: M·N·K multiplications of VPDPBUSD that wait for nothing. A line
// "conv IN CIN COUT KERNEL STEP GROUPS THREADS REPEAT" is a convolution s8s8s8 of
// a square image in NHWC with bias and scales of channels. "version" answers with the library's version.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(call)                                                                                                    \
	do {                                                                                                           \
		dnnl_status_t s = (call);                                                                              \
		if (s != dnnl_success) {                                                                               \
			printf("error %s: status %d\n", #call, s);                                                     \
			fflush(stdout);                                                                                \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static dnnl_memory_t memory(dnnl_engine_t engine, const_dnnl_memory_desc_t desc)
{
	dnnl_memory_t m;
	void *p;

	CHECK(dnnl_memory_create(&m, desc, engine, DNNL_MEMORY_ALLOCATE));
	CHECK(dnnl_memory_get_data_handle(m, &p));
	for (size_t i = 0; i < dnnl_memory_desc_get_size(desc); i++)
		((uint8_t *)p)[i] = 0x30 + i % 13; // small normal numbers of every type
	return m;
}

// state of the last product asked for, so that asking again costs nothing.
static struct product {
	char kind[8];
	int m, n, k, threads;
	dnnl_primitive_t primitive;
	dnnl_exec_arg_t args[6];
	int count;
} last;

static void forget(void)
{
	if (last.primitive) {
		dnnl_primitive_destroy(last.primitive);
		for (int i = 0; i < last.count; i++)
			dnnl_memory_destroy(last.args[i].memory);
	}
	last.primitive = NULL;
	last.kind[0] = 0;
}

// convolution of an image of in x in, padded by half a window.
static void convolution(dnnl_engine_t engine, int in, int cin, int cout, int kernel, int step, int groups)
{
	int pad = kernel / 2, out = (in + 2 * pad - kernel) / step + 1;
	dnnl_dims_t sm = {1, cin, in, in}, dm = {1, cout, out, out}, bm = {cout}, one = {1};
	dnnl_dims_t wm = {cout, cin, kernel, kernel}, gm = {groups, cout / groups, cin / groups, kernel, kernel};
	dnnl_dims_t strides = {step, step}, dilates = {0, 0}, pads = {pad, pad};
	dnnl_memory_desc_t src, wei, bias, dst, scales, scale;
	dnnl_primitive_attr_t attr;
	dnnl_primitive_desc_t desc;

	forget();
	CHECK(dnnl_memory_desc_create_with_tag(&src, 4, sm, dnnl_s8, dnnl_nhwc));
	CHECK(dnnl_memory_desc_create_with_tag(&wei, groups > 1 ? 5 : 4, groups > 1 ? gm : wm, dnnl_s8, dnnl_format_tag_any));
	CHECK(dnnl_memory_desc_create_with_tag(&bias, 1, bm, dnnl_f32, dnnl_a));
	CHECK(dnnl_memory_desc_create_with_tag(&dst, 4, dm, dnnl_s8, dnnl_nhwc));
	CHECK(dnnl_memory_desc_create_with_tag(&scales, 1, bm, dnnl_f32, dnnl_a));
	CHECK(dnnl_memory_desc_create_with_tag(&scale, 1, one, dnnl_f32, dnnl_a));
	CHECK(dnnl_primitive_attr_create(&attr));
	CHECK(dnnl_primitive_attr_set_scales_mask(attr, DNNL_ARG_WEIGHTS, groups > 1 ? 3 : 1));
	CHECK(dnnl_primitive_attr_set_scales_mask(attr, DNNL_ARG_DST, 0));
	CHECK(dnnl_convolution_forward_primitive_desc_create(&desc, engine, dnnl_forward_inference, dnnl_convolution_direct,
		src, wei, bias, dst, strides, dilates, pads, pads, attr));
	CHECK(dnnl_primitive_create(&last.primitive, desc));
	last.args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory(engine, src)};
	last.args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS,
		memory(engine, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0))};
	last.args[2] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, memory(engine, bias)};
	last.args[3] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory(engine, dst)};
	last.args[4] = (dnnl_exec_arg_t){DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, memory(engine, scales)};
	last.args[5] = (dnnl_exec_arg_t){DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, memory(engine, scale)};
	last.count = 6;
	CHECK(dnnl_primitive_desc_destroy(desc));
	CHECK(dnnl_primitive_attr_destroy(attr));
	CHECK(dnnl_memory_desc_destroy(src));
	CHECK(dnnl_memory_desc_destroy(wei));
	CHECK(dnnl_memory_desc_destroy(bias));
	CHECK(dnnl_memory_desc_destroy(dst));
	CHECK(dnnl_memory_desc_destroy(scales));
	CHECK(dnnl_memory_desc_destroy(scale));
}

static void prepare(dnnl_engine_t engine, const char *kind, int m, int n, int k, int threads)
{
	dnnl_data_type_t src = dnnl_f32, wei = dnnl_f32, dst = dnnl_f32;
	dnnl_memory_desc_t a, b, c;
	dnnl_primitive_desc_t desc;
	dnnl_dims_t am = {m, k}, bm = {k, n}, cm = {m, n};

	if (!strcmp(last.kind, kind) && last.m == m && last.n == n && last.k == k && last.threads == threads)
		return;
	forget();
	if (!strcmp(kind, "s8") || !strcmp(kind, "u8")) {
		src = kind[0] == 's' ? dnnl_s8 : dnnl_u8;
		wei = dnnl_s8;
		dst = dnnl_s32;
	} else if (!strcmp(kind, "bf16")) {
		src = wei = dnnl_bf16;
	}
	CHECK(dnnl_memory_desc_create_with_tag(&a, 2, am, src, dnnl_ab));
	CHECK(dnnl_memory_desc_create_with_tag(&b, 2, bm, wei, dnnl_format_tag_any));
	CHECK(dnnl_memory_desc_create_with_tag(&c, 2, cm, dst, dnnl_ab));
	CHECK(dnnl_matmul_primitive_desc_create(&desc, engine, a, b, NULL, c, NULL));
	CHECK(dnnl_primitive_create(&last.primitive, desc));
	last.args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory(engine, a)};
	last.args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS,
		memory(engine, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0))};
	last.args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory(engine, c)};
	last.count = 3;
	CHECK(dnnl_primitive_desc_destroy(desc));
	CHECK(dnnl_memory_desc_destroy(a));
	CHECK(dnnl_memory_desc_destroy(b));
	CHECK(dnnl_memory_desc_destroy(c));
	snprintf(last.kind, sizeof(last.kind), "%s", kind);
	last.m = m, last.n = n, last.k = k, last.threads = threads;
}

// peak executes count times 24 VPDPBUSD of 64 multiplications.
static void peak(long count)
{
#define ACC(i) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #i "\n\t"
#define ACCS(a, b, c, d, e, f) ACC(a) ACC(b) ACC(c) ACC(d) ACC(e) ACC(f)
	__asm__ volatile("1:\n\t" ACCS(0, 1, 2, 3, 4, 5) ACCS(6, 7, 8, 9, 10, 11) ACCS(12, 13, 14, 15, 16, 17)
				 ACCS(18, 19, 20, 21, 22, 23) "dec %0\n\tjnz 1b"
			 : "+r"(count)
			 :
			 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
			   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	__asm__ volatile("vzeroupper");
}

// work does once what the line asked for.
static void work(dnnl_stream_t stream, long peaks)
{
	if (!peaks) {
		CHECK(dnnl_primitive_execute(last.primitive, stream, last.count, last.args));
		CHECK(dnnl_stream_wait(stream));
		return;
	}
#pragma omp parallel
	peak(peaks / omp_get_num_threads());
}

int main(void)
{
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	char line[256], kind[8];
	int m, n, k, threads, repeat, kernel, step, groups;

	CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
	CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
	while (fgets(line, sizeof(line), stdin)) {
		double least = 1e9;
		long peaks = 0;

		if (!strcmp(line, "version\n")) {
			const dnnl_version_t *v = dnnl_version();

			printf("%d.%d.%d\n", v->major, v->minor, v->patch);
			fflush(stdout);
			continue;
		}
		if (sscanf(line, "conv %d %d %d %d %d %d %d %d", &m, &n, &k, &kernel, &step, &groups, &threads, &repeat) == 8) {
			omp_set_num_threads(threads);
			convolution(engine, m, n, k, kernel, step, groups);
			strcpy(kind, "conv");
		} else if (sscanf(line, "%7s %d %d %d %d %d", kind, &m, &n, &k, &threads, &repeat) != 6) {
			printf("error: %s", line);
			fflush(stdout);
			return 1;
		}
		omp_set_num_threads(threads);
		if (!strcmp(kind, "peak")) {
			peaks = (long)m * n * k / (24 * 64);
		} else if (strcmp(kind, "conv")) {
			prepare(engine, kind, m, n, k, threads);
		}
		for (int i = 0; i < repeat; i++) {
			double from = now(), took;

			work(stream, peaks);
			took = now() - from;
			if (took < least)
				least = took;
		}
		printf("%.9f\n", least);
		fflush(stdout);
	}
	return 0;
}
