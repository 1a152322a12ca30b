/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layouts of images.bin, weights.bin and golden.bin, and of the bindings of
 * digits.npuasm; README.md explains them. All fields are little-endian.
 */
#ifndef DIGITS_H
#define DIGITS_H

#include <stdint.h>

/* Each file: this header, then count * record_size bytes; images.bin then has
 * count label bytes. */
struct digits_header {
	char magic[4];
	uint32_t version;	/* DIGITS_VERSION */
	uint32_t header_size;	/* 64 */
	uint32_t count;		/* images, or 1 for the weights */
	uint32_t record_size;
	uint8_t zero[44];
};

#define DIGITS_VERSION		1
#define DIGITS_MAGIC_IMAGES	"DIGI"
#define DIGITS_MAGIC_WEIGHTS	"DIGW"
#define DIGITS_MAGIC_GOLDEN	"DIGG"

#define DIGITS_CLASSES		10
#define DIGITS_IMAGE_SIZE	64

/* Bindings of digits.npuasm, and the bytes that it touches of each */
#define DIGITS_BINDING_WEIGHTS	0	/* read, DIGITS_WEIGHTS_SIZE */
#define DIGITS_BINDING_IMAGE	1	/* read, DIGITS_IMAGE_SIZE */
#define DIGITS_BINDING_RECORD	2	/* write, sizeof(struct digits_record) */

#define DIGITS_WEIGHTS_SIZE	4120

/* One record of golden.bin, which is what the program writes for an image.
 * The accumulators include the bias; the class is the index of the largest
 * acc3, the lowest such index if there are several. */
struct digits_record {
	int32_t acc1[8][8][8];	/* [y][x][channel] */
	int8_t out1[8][8][8];
	int32_t acc2[4][4][16];
	int8_t out2[4][4][16];
	int32_t acc3[DIGITS_CLASSES];
	int8_t out3[DIGITS_CLASSES];
	uint8_t zero[14];
};

/* Array sizes below are -1, which does not compile, if a layout is not as said. */
typedef char digits_header_is_64_bytes[sizeof(struct digits_header) == 64 ? 1 : -1];
typedef char digits_record_is_3904_bytes[sizeof(struct digits_record) == 3904 ? 1 : -1];

#endif
