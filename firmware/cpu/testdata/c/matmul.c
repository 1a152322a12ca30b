/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: int32, int8 into int32, 64-bit sums, divisions. */
#include "program.h"

#define N 24

unsigned program(uint32_t *out)
{
	static int32_t a[N][N], b[N][N];
	static int8_t p[N][N], q[N][N];
	uint32_t seed = 7, sum32 = 0, sum8 = 0;
	int64_t wide = 0;
	unsigned n = 0;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = next(&seed);
			b[i][j] = next(&seed);
			p[i][j] = next(&seed) >> 24;
			q[i][j] = next(&seed) >> 24;
		}
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			uint32_t s = 0;
			int32_t t = 0;

			for (int k = 0; k < N; k++) {
				s += (uint32_t)a[i][k] * (uint32_t)b[k][j];
				t += p[i][k] * q[k][j];
				wide += (int64_t)a[i][k] * b[k][j] >> 16;
			}
			sum32 = sum32 * 31 + s;
			sum8 = sum8 * 31 + (uint32_t)t;
			if (i == j)
				out[n++] = (uint32_t)t;
		}
	out[n++] = sum32;
	out[n++] = sum8;
	out[n++] = (uint32_t)wide;
	out[n++] = (uint32_t)(wide >> 32);
	for (int i = 0; i < N - 1; i++) {
		int32_t d = a[i][0] >> (i & 31);

		if (d == 0)
			d = 3;
		out[n++] = (uint32_t)(b[i][1] / d);
		out[n++] = (uint32_t)(b[i][1] % d);
		out[n++] = (uint32_t)b[i][2] / (uint32_t)d;
		out[n++] = (uint32_t)((int32_t)(wide >> 20) / d);
		out[n++] = (uint32_t)(((uint64_t)(uint32_t)a[i][3] * (uint32_t)b[i][3]) >> 32);
	}
	return n;
}
