/* SPDX-License-Identifier: Apache-2.0 */
/* Quicksort through a comparison function pointer, recursive. */
#include "program.h"

typedef int (*compare)(const int32_t *, const int32_t *);

static int ascending(const int32_t *a, const int32_t *b)
{
	return (*a > *b) - (*a < *b);
}

static int by_low_half(const int32_t *a, const int32_t *b)
{
	uint16_t x = (uint16_t)*a, y = (uint16_t)*b;

	return x != y ? (x > y) - (x < y) : ascending(a, b);
}

static void sort(int32_t *v, int lo, int hi, compare less)
{
	while (lo < hi) {
		int32_t pivot = v[lo + (hi - lo) / 2];
		int i = lo, j = hi;

		while (i <= j) {
			while (less(&v[i], &pivot) < 0)
				i++;
			while (less(&v[j], &pivot) > 0)
				j--;
			if (i <= j) {
				int32_t t = v[i];

				v[i++] = v[j];
				v[j--] = t;
			}
		}
		if (j - lo < hi - i) {
			sort(v, lo, j, less);
			lo = i;
		} else {
			sort(v, i, hi, less);
			hi = j;
		}
	}
}

unsigned program(uint32_t *out)
{
	static const compare order[] = { ascending, by_low_half };
	static int32_t v[2000];
	uint32_t seed = 99;
	unsigned n = 0;

	for (unsigned k = 0; k < 2; k++) {
		uint32_t sum = 0;
		int sorted = 1;

		for (unsigned i = 0; i < 2000; i++)
			v[i] = (int32_t)next(&seed) >> (i % 3 * 8);
		sort(v, 0, 1999, order[k]);
		for (unsigned i = 0; i < 2000; i++) {
			sum = sum * 33 + (uint32_t)v[i];
			if (i && order[k](&v[i - 1], &v[i]) > 0)
				sorted = 0;
			if (i % 250 == 0)
				out[n++] = (uint32_t)v[i];
		}
		out[n++] = sum;
		out[n++] = (uint32_t)sorted;
	}
	return n;
}
