/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdint.h>

/* The most values that program may return. */
#define PROGRAM_MAX 256

/* program stores its results to out and returns how many there are. */
unsigned program(uint32_t *out);

/* next steps a linear congruential generator; its high bits are the good ones. */
static inline uint32_t next(uint32_t *seed)
{
	return *seed = *seed * 1664525u + 1013904223u;
}

#endif
