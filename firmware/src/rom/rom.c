/* SPDX-License-Identifier: Apache-2.0 */
/* Boot ROM: waits for START, loads and checks the image, enters it (§3.2 to §3.5). */
#include "../npu_cp.h"

#define IMAGE_ALIGN	64u
#define PIECE		4096u	/* a copy of the payload ends where a page of the image ends */
#define ROM_RESERVED	4096u	/* the ROM's stack, at the end of SRAM */
#define LOADABLE	(NPU_CP_SRAM_SIZE - ROM_RESERVED)

struct header {
	uint32_t magic;
	uint16_t header_major, header_minor;
	uint32_t header_size;
	uint32_t payload_size;
	uint32_t load_address;
	uint32_t entry;
	uint32_t payload_crc32;
	uint16_t interface_major, interface_minor;
	uint32_t build;
	uint16_t arch_major, arch_minor;
	uint32_t reserved[5];
	uint32_t header_crc32;
};

_Static_assert(sizeof(struct header) == 64, "image header");
_Static_assert(offsetof(struct header, header_crc32) == 0x3c, "image header");

void rom_main(void) __attribute__((noreturn));
void enter(uint32_t entry) __attribute__((noreturn));

/* fail ends the boot: the write of FAILED halts the processor. */
static void __attribute__((noreturn)) fail(uint32_t error, uint32_t detail)
{
	cp_write(NPU_CP_FW_ERROR_DETAIL, detail);
	boot_status(NPU_BOOT_STATE_FAILED, error);
	for (;;)
		wait_for_interrupt();
}

/* CRC-32 of IEEE 802.3, reflected, four bits a step. */
static uint32_t crc32(const void *p, uint32_t n)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	const uint8_t *b = p;
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *b++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

/* fetch copies bytes [off, off + size) of the image. */
static void fetch(uint64_t image, uint32_t off, void *local, uint32_t size)
{
	if (image + off < image || mover_copy(NPU_CP_MOVER_READ, image + off, local, size) != NPU_CP_MOVER_IDLE)
		fail(NPU_BOOT_ERROR_FETCH, off);
}

/* check_header follows the order of §3.5 from magic to "size against payload". */
static void check_header(const struct header *h, uint32_t image_size)
{
	uint32_t crc = crc32(h, offsetof(struct header, header_crc32));
	uint32_t arch = host_read(NPU_ARCH_VERSION);
	uint32_t load = h->load_address - NPU_CP_SRAM_BASE; /* offset in SRAM; large if it is not in SRAM */

	if (h->magic != 0x4655504e)
		fail(NPU_BOOT_ERROR_MAGIC, h->magic);
	if (h->header_crc32 != crc)
		fail(NPU_BOOT_ERROR_HEADER_CRC, crc);
	if (h->header_major != 1)
		fail(NPU_BOOT_ERROR_HEADER, offsetof(struct header, header_major));
	if (h->header_size != sizeof(*h))
		fail(NPU_BOOT_ERROR_HEADER, offsetof(struct header, header_size));
	for (int i = 0; i < 5; i++)
		if (h->reserved[i])
			fail(NPU_BOOT_ERROR_HEADER, offsetof(struct header, reserved));
	if (h->interface_major != NPU_FIRMWARE_MAJOR)
		fail(NPU_BOOT_ERROR_INTERFACE, (uint32_t)h->interface_major << 16 | h->interface_minor);
	if (h->arch_major != FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch) ||
	    h->arch_minor > FIELD_GET(NPU_ARCH_VERSION_MINOR, arch))
		fail(NPU_BOOT_ERROR_ARCH, (uint32_t)h->arch_major << 16 | h->arch_minor);
	if (h->payload_size < 4 || h->payload_size % 4)
		fail(NPU_BOOT_ERROR_RANGE, offsetof(struct header, payload_size));
	if (load % 4 || load > LOADABLE || h->payload_size > LOADABLE - load)
		fail(NPU_BOOT_ERROR_RANGE, offsetof(struct header, load_address));
	if (h->entry % 2 || h->entry - h->load_address >= h->payload_size)
		fail(NPU_BOOT_ERROR_RANGE, offsetof(struct header, entry));
	if (image_size - sizeof(*h) != h->payload_size)
		fail(NPU_BOOT_ERROR_SIZE, image_size);
}

static void load(void)
{
	uint64_t image = host_read64(NPU_IMAGE_ADDR_LO);
	uint32_t size = host_read(NPU_IMAGE_SIZE);
	struct header h;
	uint32_t crc;

	if (size < sizeof(h) + 4 || size > sizeof(h) + NPU_CP_SRAM_SIZE)
		fail(NPU_BOOT_ERROR_SIZE, size);
	if (image % IMAGE_ALIGN)
		fail(NPU_BOOT_ERROR_FETCH, 0);
	fetch(image, 0, &h, sizeof(h));
	check_header(&h, size);

	uint8_t *payload = (uint8_t *)(uintptr_t)h.load_address;

	for (uint32_t off = sizeof(h), n; off < size; off += n) {
		n = PIECE - off % PIECE;
		if (n > size - off)
			n = size - off;
		fetch(image, off, payload + (off - sizeof(h)), n);
	}
	crc = crc32(payload, h.payload_size);
	if (crc != h.payload_crc32)
		fail(NPU_BOOT_ERROR_PAYLOAD_CRC, crc);

	boot_status(NPU_BOOT_STATE_STARTING, NPU_BOOT_ERROR_NONE);
	enter(h.entry);
}

void rom_main(void)
{
	cp_write(NPU_CP_IRQ_ENABLE, NPU_CP_IRQ_PENDING_BOOT_MASK);
	__asm__ volatile("csrw mie, %0" ::"r"(MIE_MEIE));
	/* START in state FAILED resets the processor: the request is here already. */
	if (!(cp_read(NPU_CP_IRQ_PENDING) & NPU_CP_IRQ_PENDING_BOOT_MASK))
		boot_status(NPU_BOOT_STATE_WAITING, NPU_BOOT_ERROR_NONE);
	while (!(cp_read(NPU_CP_IRQ_PENDING) & NPU_CP_IRQ_PENDING_BOOT_MASK))
		wait_for_interrupt();
	cp_write(NPU_CP_IRQ_CLEAR, NPU_CP_IRQ_PENDING_BOOT_MASK);
	cp_write(NPU_CP_IRQ_ENABLE, 0);
	load();
	__builtin_unreachable();
}
