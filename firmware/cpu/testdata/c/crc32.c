/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 (IEEE 802.3), bit by bit and by table, over a generated buffer. */
#include "program.h"

static uint32_t table[256];

static uint32_t bitwise(const uint8_t *p, unsigned n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static uint32_t by_table(const uint8_t *p, unsigned n)
{
	uint32_t crc = ~0u;

	while (n--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
	return ~crc;
}

unsigned program(uint32_t *out)
{
	static uint8_t buf[4096];
	uint32_t seed = 1;
	unsigned n = 0;

	for (unsigned i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
		table[i] = c;
	}
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = next(&seed) >> 24;

	out[n++] = by_table((const uint8_t *)"123456789", 9);
	out[n++] = bitwise((const uint8_t *)"123456789", 9);
	for (unsigned len = 0; len <= sizeof(buf); len += 511)
		out[n++] = by_table(buf, len);
	out[n++] = bitwise(buf + 1, 1001);
	return n;
}
