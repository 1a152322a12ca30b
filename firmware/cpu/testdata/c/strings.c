/* SPDX-License-Identifier: Apache-2.0 */
/* String work: copy, compare, search, parse, format, reverse; and atomics. */
#include "program.h"

static unsigned length(const char *s)
{
	unsigned n = 0;

	while (s[n])
		n++;
	return n;
}

static int differ(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (uint8_t)*a - (uint8_t)*b;
}

static int find(const char *s, const char *what)
{
	for (int i = 0; s[i]; i++) {
		int k = 0;

		while (what[k] && s[i + k] == what[k])
			k++;
		if (!what[k])
			return i;
	}
	return -1;
}

static char *format(char *p, int32_t v, unsigned base)
{
	char digits[33];
	uint32_t u = v < 0 && base == 10 ? -(uint32_t)v : (uint32_t)v;
	int n = 0;

	if (v < 0 && base == 10)
		*p++ = '-';
	do {
		digits[n++] = "0123456789abcdef"[u % base];
		u /= base;
	} while (u);
	while (n)
		*p++ = digits[--n];
	*p = 0;
	return p;
}

static int32_t parse(const char *s)
{
	int negative = *s == '-';
	uint32_t v = 0;

	for (s += negative; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + (uint32_t)(*s - '0');
	return (int32_t)(negative ? -v : v);
}

static uint32_t hash(const char *s)
{
	uint32_t h = 2166136261u;

	while (*s)
		h = (h ^ (uint8_t)*s++) * 16777619u;
	return h;
}

unsigned program(uint32_t *out)
{
	static const char text[] = "queue head, queue tail, phase bit: \xe2\x86\x92 doorbell rings twice";
	static uint32_t shared;
	char buf[128], *p;
	uint32_t seed = 5;
	unsigned n = 0;

	out[n++] = length(text);
	out[n++] = hash(text);
	out[n++] = (uint32_t)find(text, "tail");
	out[n++] = (uint32_t)find(text, "twice");
	out[n++] = (uint32_t)find(text, "mask");
	out[n++] = (uint32_t)differ("abc", "abd");
	out[n++] = (uint32_t)differ("\xff", "a");
	out[n++] = (uint32_t)differ(text, text);
	for (int i = 0; i < 24; i++) {
		int32_t v = (int32_t)next(&seed) >> i;

		p = format(buf, v, 10);
		*p++ = '/';
		p = format(p, v, 16);
		*p++ = '/';
		format(p, v, 2);
		out[n++] = hash(buf);
		out[n++] = (uint32_t)parse(buf);
		for (int a = 0, b = (int)length(buf) - 1; a < b; a++, b--) {
			char t = buf[a];

			buf[a] = buf[b];
			buf[b] = t;
		}
		out[n++] = hash(buf);
		__atomic_fetch_add(&shared, (uint32_t)v, __ATOMIC_SEQ_CST);
		out[n++] = __atomic_exchange_n(&shared, shared ^ 0x5a5a, __ATOMIC_ACQ_REL);
		uint32_t want = i & 1 ? shared : shared + 1;
		out[n++] = __atomic_compare_exchange_n(&shared, &want, 17u * (uint32_t)i, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
		out[n++] = want;
	}
	return n;
}
