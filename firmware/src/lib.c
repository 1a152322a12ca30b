/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two functions that a freestanding compiler may call by itself. The
 * barrier keeps it from recognising the loop and calling the function again.
 */
#include <stddef.h>

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memset(void *dst, int c, size_t n);

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	unsigned char *d = dst;
	const unsigned char *s = src;

	while (n--) {
		*d++ = *s++;
		__asm__ volatile("");
	}
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	unsigned char *d = dst;

	while (n--) {
		*d++ = (unsigned char)c;
		__asm__ volatile("");
	}
	return dst;
}
