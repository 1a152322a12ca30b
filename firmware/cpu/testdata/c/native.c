/* SPDX-License-Identifier: Apache-2.0 */
/* Prints a program's results as the development machine computes them. */
#include <stdio.h>
#include "program.h"

int main(void)
{
	static uint32_t out[PROGRAM_MAX];
	unsigned n = program(out);

	for (unsigned i = 0; i < n; i++)
		printf("%08x\n", (unsigned)out[i]);
	return n > PROGRAM_MAX;
}
