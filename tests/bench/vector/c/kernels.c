// SPDX-License-Identifier: Apache-2.0

// What the vector engine computes, in C, for a comparison of speed: loops that
// the compiler vectorizes, intrinsics where it would not. Each line of input is
// the name of a kernel and a number of repetitions; the answer is the time of
// one of the fastest four that follow each other, in seconds. Every kernel has 65536
// elements.

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __AVX512BW__
#include <immintrin.h>
#endif

enum { N = 65536, CHANNELS = 256, ROW = 1024, COPIES = 4 };

static _Alignas(64) int32_t acc[N], acc2[N];
static _Alignas(64) int8_t a8[N], b8[N], out8[N];
static _Alignas(64) float x[N], y[N], gain[ROW], bias[ROW];
static _Alignas(64) uint16_t h[N];
static _Alignas(64) float scale[CHANNELS];
static _Alignas(64) int32_t multiplier[CHANNELS], shift[CHANNELS];
static uint8_t table[256];

static void requant_float(void)
{
	for (int r = 0; r < N; r += CHANNELS)
		for (int c = 0; c < CHANNELS; c++) {
			int v = (int)nearbyintf((float)acc[r + c] * scale[c]) + 3;
			out8[r + c] = v < -128 ? -128 : v > 127 ? 127 : v;
		}
}

#ifdef __AVX512BW__
static __m512i scale_one(__m512i v, int c)
{
	__m512i q = _mm512_load_si512(multiplier + c), s = _mm512_load_si512(shift + c);
	__m512i low = _mm512_set1_epi64(0xffffffff), one = _mm512_set1_epi64(1);
	__m512i even = _mm512_and_si512(s, low), odd = _mm512_srli_epi64(s, 32);
	__m512i pe = _mm512_mul_epi32(v, q);
	__m512i po = _mm512_mul_epi32(_mm512_srli_epi64(v, 32), _mm512_srli_epi64(q, 32));

	pe = _mm512_add_epi64(pe, _mm512_sllv_epi64(one, _mm512_sub_epi64(even, one)));
	po = _mm512_add_epi64(po, _mm512_sllv_epi64(one, _mm512_sub_epi64(odd, one)));
	pe = _mm512_srav_epi64(pe, even);
	po = _mm512_srav_epi64(po, odd);
	return _mm512_mask_blend_epi32(0xaaaa, pe, _mm512_slli_epi64(po, 32));
}

static void requant_fixed(void)
{
	__m512i zero = _mm512_set1_epi32(3);

	for (int r = 0; r < N; r += CHANNELS)
		for (int c = 0; c < CHANNELS; c += 16) {
			__m512i v = scale_one(_mm512_load_si512(acc + r + c), c);

			_mm_store_si128((__m128i *)(out8 + r + c), _mm512_cvtsepi32_epi8(_mm512_add_epi32(v, zero)));
		}
}

static __m512i rescale(__m512i v, __m512i q, int s)
{
	__m512i half = _mm512_set1_epi64(1LL << (s - 1));
	__m512i pe = _mm512_srai_epi64(_mm512_add_epi64(_mm512_mul_epi32(v, q), half), s);
	__m512i po = _mm512_srai_epi64(_mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(v, 32), q), half), s);

	return _mm512_mask_blend_epi32(0xaaaa, pe, _mm512_slli_epi64(po, 32));
}

static void residual_rescaled(void)
{
	__m512i qa = _mm512_set1_epi32(1503238553), qb = _mm512_set1_epi32(1288490188);

	for (int i = 0; i < N; i += 16) {
		__m512i a = _mm512_cvtepi8_epi32(_mm_load_si128((__m128i *)(a8 + i)));
		__m512i b = _mm512_cvtepi8_epi32(_mm_load_si128((__m128i *)(b8 + i)));

		a = rescale(_mm512_slli_epi32(a, 20), qa, 51);
		b = rescale(_mm512_slli_epi32(b, 20), qb, 51);
		_mm_store_si128((__m128i *)(out8 + i), _mm512_cvtsepi32_epi8(_mm512_add_epi32(a, b)));
	}
}
#else
static int32_t multiply(int32_t v, int32_t q, int s)
{
	return (int32_t)(((int64_t)v * q + (1LL << (s - 1))) >> s);
}

static int8_t clamp(int32_t v)
{
	return v < -128 ? -128 : v > 127 ? 127 : v;
}

static void requant_fixed(void)
{
	for (int r = 0; r < N; r += CHANNELS)
		for (int c = 0; c < CHANNELS; c++)
			out8[r + c] = clamp(multiply(acc[r + c], multiplier[c], shift[c]) + 3);
}

static void residual_rescaled(void)
{
	for (int i = 0; i < N; i++)
		out8[i] = clamp(multiply(a8[i] << 20, 1503238553, 51) + multiply(b8[i] << 20, 1288490188, 51));
}
#endif

static void relu(void)
{
	for (int i = 0; i < N; i++)
		a8[i] = a8[i] < 0 ? 0 : a8[i];
}

static void lookup(void)
{
	for (int i = 0; i < N; i++)
		out8[i] = table[(uint8_t)a8[i]];
}

static void residual(void)
{
	for (int i = 0; i < N; i++) {
		int v = a8[i] + b8[i];
		out8[i] = v < -128 ? -128 : v > 127 ? 127 : v;
	}
}

// e^v within a few units of the last place.
static inline float exponential(float v)
{
	v = v < -87 ? -87 : v > 88 ? 88 : v;
	float k = nearbyintf(v * 1.44269504f), r = v - k * 0.693147182f + k * 1.90465421e-9f;
	float p = 0.00836f;
	union {
		int32_t i;
		float f;
	} u = { ((int32_t)k + 127) << 23 };

	p = p * r + 0.041664f;
	p = p * r + 0.16666666f;
	p = p * r + 0.5f;
	p = p * r + 1;
	return (p * r + 1) * u.f;
}

static void softmax(void)
{
	for (int r = 0; r < N; r += ROW) {
		float m = x[r], s = 0;

		for (int i = 0; i < ROW; i++)
			m = x[r + i] > m ? x[r + i] : m;
		for (int i = 0; i < ROW; i++)
			s += y[r + i] = exponential(x[r + i] - m);
		s = 1 / s;
		for (int i = 0; i < ROW; i++)
			y[r + i] *= s;
	}
}

static void layer_norm(void)
{
	for (int r = 0; r < N; r += ROW) {
		float m = 0, v = 0;

		for (int i = 0; i < ROW; i++)
			m += x[r + i];
		m /= ROW;
		for (int i = 0; i < ROW; i++)
			v += (x[r + i] - m) * (x[r + i] - m);
		v = 1 / sqrtf(v / ROW + 1e-5f);
		for (int i = 0; i < ROW; i++)
			y[r + i] = (x[r + i] - m) * v * gain[i] + bias[i];
	}
}

static void rms_norm(void)
{
	for (int r = 0; r < N; r += ROW) {
		float v = 0;

		for (int i = 0; i < ROW; i++)
			v += x[r + i] * x[r + i];
		v = 1 / sqrtf(v / ROW + 1e-5f);
		for (int i = 0; i < ROW; i++)
			y[r + i] = x[r + i] * v * gain[i];
	}
}

static void exponentials(void)
{
	for (int i = 0; i < N; i++)
		y[i] = exponential(x[i]);
}

static void sigmoid(void)
{
	for (int i = 0; i < N; i++)
		y[i] = 1 / (1 + exponential(-x[i]));
}

static void add(void)
{
	for (int i = 0; i < N; i++)
		y[i] = x[i] + y[i];
}

static void quantize(void)
{
	for (int i = 0; i < N; i++) {
		float v = nearbyintf(x[i]);
		out8[i] = v < -128 ? -128 : v > 127 ? 127 : (int8_t)v;
	}
}

static void widen(void)
{
	for (int i = 0; i < N; i++) {
		uint32_t v = (uint32_t)h[i] << 16;
		memcpy(y + i, &v, 4);
	}
}

static void sum(void)
{
	for (int r = 0; r < N; r += ROW) {
		float s = 0;

		for (int i = 0; i < ROW; i++)
			s += x[r + i];
		y[r / ROW] = s;
	}
}

static void copy(void)
{
	memcpy(acc2, acc, sizeof(acc));
	__asm__ volatile("" :: "r"(acc2) : "memory");
}

static const struct {
	const char *name;
	void (*run)(void);
} kernels[] = {
	{ "requant_fixed", requant_fixed }, { "requant_float", requant_float }, { "relu", relu },
	{ "lookup", lookup }, { "residual", residual }, { "residual_rescaled", residual_rescaled },
	{ "softmax", softmax }, { "layer_norm", layer_norm }, { "rms_norm", rms_norm },
	{ "exp", exponentials }, { "sigmoid", sigmoid }, { "add", add }, { "quantize", quantize },
	{ "widen", widen }, { "sum", sum }, { "copy", copy },
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(void)
{
	char name[64];
	int repeat;

	srand(1);
	for (int i = 0; i < N; i++) {
		acc[i] = rand() % 200000 - 100000;
		a8[i] = rand();
		b8[i] = rand();
		x[i] = (float)(rand() % 20001 - 10000) / 1000;
		h[i] = 0x3f80 + rand() % 128;
	}
	for (int i = 0; i < CHANNELS; i++) {
		multiplier[i] = 1 << 30 | (rand() & 0xffffff);
		shift[i] = 41;
		scale[i] = 1.0f / (1000 + i);
		table[i] = rand();
	}
	for (int i = 0; i < ROW; i++) {
		gain[i] = 1 + i * 1e-4f;
		bias[i] = i * 1e-3f;
	}
	while (scanf("%63s %d", name, &repeat) == 2) {
		double best = -1;

		for (size_t k = 0; k < sizeof(kernels) / sizeof(*kernels); k++) {
			if (strcmp(kernels[k].name, name))
				continue;
			for (int i = 0; i < repeat; i++) {
				double from = now();
				for (int n = 0; n < COPIES; n++) {
					kernels[k].run();
					__asm__ volatile("" ::: "memory");
				}
				double took = (now() - from) / COPIES;
				if (best < 0 || took < best)
					best = took;
			}
		}
		printf("%.9f\n", best);
		fflush(stdout);
	}
	return 0;
}
