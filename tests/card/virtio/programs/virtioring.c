// SPDX-License-Identifier: Apache-2.0
/*
 * virtioring - a driver of the paravirtual NPU (docs/spec/virtio-npu.md) in user
 * space: PCI capabilities, features, virtqueues, requests, and two resets. The
 * function must be unbound from virtio-pci.
 *
 * usage: virtioring /sys/bus/pci/devices/ADDRESS
 *
 * It prints a line "name value" for each thing that it finds, and exits with 0
 * if all of it is as the specification says.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ENTRIES 8
#define PAGE 4096

/* Configuration types of virtio's PCI capabilities, and the common structure. */
enum { COMMON = 1, NOTIFY, ISR, DEVICE, SHMEM = 8 };
enum { DEVICE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_SELECT = 8, DRIVER_FEATURE = 12, NUM_QUEUES = 18, STATUS = 20,
	QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_ENABLE = 28, QUEUE_NOTIFY = 30, QUEUE_DESC = 32, QUEUE_AVAIL = 40, QUEUE_USED = 48 };

static char *dir;
static volatile uint8_t *common, *notify, *device, *window;
static uint32_t notify_step;
static uint64_t window_size;

struct queue {
	uint8_t *page; /* descriptors at 0, available ring at 256, used ring at 512, buffers from 1024 */
	uint64_t phys;
	uint16_t next;
	volatile uint16_t *bell;
};

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("error ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	exit(1);
}

static void read_file(const char *name, void *p, size_t n)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, p, n) != (ssize_t)n)
		die("cannot read %s", path);
	close(fd);
}

static volatile uint8_t *map_bar(int bar, uint64_t off, uint64_t size)
{
	char path[256];
	void *p;
	int fd;

	snprintf(path, sizeof(path), "%s/resource%d", dir, bar);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		die("cannot open %s", path);
	p = mmap(NULL, (off & (PAGE - 1)) + size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, off & ~(uint64_t)(PAGE - 1));
	if (p == MAP_FAILED)
		die("cannot map %s", path);
	close(fd);
	return (uint8_t *)p + (off & (PAGE - 1));
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

/* page returns a zeroed page that stays where it is, and its physical address. */
static uint8_t *page(uint64_t *phys)
{
	uint64_t entry;
	uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (p == MAP_FAILED)
		die("no memory");
	memset(p, 0, PAGE);
	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8 || !(entry >> 63))
		die("no physical address");
	close(fd);
	*phys = (entry & ((1ull << 55) - 1)) * PAGE;
	return p;
}

static void find_capabilities(void)
{
	uint8_t c[256];
	unsigned at;

	read_file("config", c, sizeof(c));
	for (at = c[0x34]; at; at = c[at + 1]) {
		uint64_t off, size;

		if (c[at] != 9)
			continue;
		off = get32(c + at + 8);
		size = get32(c + at + 12);
		switch (c[at + 3]) {
		case COMMON:
			common = map_bar(c[at + 4], off, size);
			break;
		case NOTIFY:
			notify = map_bar(c[at + 4], off, size);
			notify_step = get32(c + at + 16);
			break;
		case DEVICE:
			device = map_bar(c[at + 4], off, size);
			break;
		case SHMEM:
			off |= (uint64_t)get32(c + at + 16) << 32;
			size |= (uint64_t)get32(c + at + 20) << 32;
			printf("shmem-id %u\nshmem-bar %u\nshmem-size %llu\n", c[at + 5], c[at + 4], (unsigned long long)size);
			window_size = size;
			window = map_bar(c[at + 4], off, size);
			break;
		}
	}
	if (!common || !notify || !device || !window)
		die("a capability is missing");
}

#define R8(off) (*(volatile uint8_t *)(common + (off)))
#define R16(off) (*(volatile uint16_t *)(common + (off)))
#define R32(off) (*(volatile uint32_t *)(common + (off)))

static void write64(int off, uint64_t v)
{
	R32(off) = v;
	R32(off + 4) = v >> 32;
}

static void reset(void)
{
	R8(STATUS) = 0;
	while (R8(STATUS))
		;
}

/* setup is a driver's probe (VIRTIO 1.3 §3.1.1) with the first n queues. */
static void setup(struct queue *q, int n)
{
	uint64_t want = 1ull << 32 | 1 << 29 | 1 << 28, offered;
	int i;

	reset();
	R8(STATUS) = 1 | 2;
	R32(DEVICE_SELECT) = 0;
	offered = R32(DEVICE_FEATURE);
	R32(DEVICE_SELECT) = 1;
	offered |= (uint64_t)R32(DEVICE_FEATURE) << 32;
	printf("features 0x%llx\n", (unsigned long long)offered);
	R32(DRIVER_SELECT) = 0;
	R32(DRIVER_FEATURE) = want & offered;
	R32(DRIVER_SELECT) = 1;
	R32(DRIVER_FEATURE) = (want & offered) >> 32;
	R8(STATUS) = 1 | 2 | 8;
	if (!(R8(STATUS) & 8))
		die("features are refused");
	for (i = 0; i < n; i++) {
		memset(q[i].page, 0, PAGE);
		q[i].next = 0;
		R16(QUEUE_SELECT) = i;
		if (R16(QUEUE_SIZE) < ENTRIES)
			die("queue %d has %d entries", i, R16(QUEUE_SIZE));
		R16(QUEUE_SIZE) = ENTRIES;
		write64(QUEUE_DESC, q[i].phys);
		write64(QUEUE_AVAIL, q[i].phys + 256);
		write64(QUEUE_USED, q[i].phys + 512);
		q[i].bell = (volatile uint16_t *)(notify + R16(QUEUE_NOTIFY) * notify_step);
		R16(QUEUE_ENABLE) = 1;
	}
	R8(STATUS) = 1 | 2 | 8 | 4;
}

/* request makes one request, waits for its answer, and returns its status. */
static unsigned request(struct queue *q, int index, const uint8_t entry[64], uint8_t answer[32])
{
	struct { uint64_t addr; uint32_t len; uint16_t flags, next; } *d = (void *)q->page;
	volatile uint16_t *avail = (uint16_t *)(q->page + 256), *used = (uint16_t *)(q->page + 512);
	int wait;

	memcpy(q->page + 1024, entry, 64);
	memset(q->page + 2048, 0xff, 32);
	d[0].addr = q->phys + 1024;
	d[0].len = 64;
	d[0].flags = 1;
	d[0].next = 1;
	d[1].addr = q->phys + 2048;
	d[1].len = 32;
	d[1].flags = 2;
	avail[2 + q->next % ENTRIES] = 0;
	__sync_synchronize();
	avail[1] = ++q->next;
	__sync_synchronize();
	*q->bell = index;
	for (wait = 0; used[1] != q->next; wait++) {
		if (wait == 20000)
			die("no answer in queue %d", index);
		usleep(1000);
	}
	memcpy(answer, q->page + 2048, 32);
	return (answer[0x1e] | answer[0x1f] << 8) >> 1;
}

static unsigned command(struct queue *q, int index, uint8_t opcode, int at, uint32_t value, uint32_t *result)
{
	uint8_t e[64] = { opcode }, c[32];
	unsigned status;

	memcpy(e + at, &value, 4);
	status = request(q, index, e, c);
	*result = get32(c);
	return status;
}

static void work(struct queue *q)
{
	uint8_t e[64] = { 0x20 }, c[32], *host;
	uint64_t phys;
	uint32_t context, v, config[18];
	unsigned i;

	if (command(&q[0], 0, 0x10, 8, 0, &context))
		die("CREATE_CONTEXT fails");
	printf("context %u\n", context);
	memcpy(e + 0x18, "\1", 1);
	memcpy(e + 0x20, &context, 4);
	v = request(&q[0], 0, e, c);
	if (v)
		die("CREATE_QUEUE: status %u, field %u", v, get32(c + 8));
	for (i = 0; i < 100; i++)
		if (command(&q[2], 2, 0x01, 8, 0, &v))
			die("NOP %u fails", i);
	printf("nops %u\n", i);

	/* The guest writes device memory through the window, the device copies it to guest memory. */
	for (i = 0; i < PAGE / 4; i++)
		((volatile uint32_t *)(window + PAGE))[i] = i * 0x01010101u;
	host = page(&phys);
	memset(e, 0, sizeof(e));
	e[0] = 0x02;
	e[4] = 1; /* from device memory to the bus */
	v = PAGE;
	memcpy(e + 0x08, &v, 4);
	memcpy(e + 0x10, &phys, 8);
	memcpy(e + 0x18, &v, 4);
	e[0x1c] = e[0x1e] = 1;
	v = request(&q[2], 2, e, c);
	if (v)
		die("COPY: status %u, info 0x%x%08x", v, get32(c + 12), get32(c + 8));
	for (i = 0; i < PAGE / 4; i++)
		if (get32(host + 4 * i) != i * 0x01010101u)
			die("word %u of the copy is 0x%x", i, get32(host + 4 * i));
	printf("copy %u\n", PAGE);
	munmap(host, PAGE);

	for (i = 0; i < 18; i++) {
		config[i] = ((volatile uint32_t *)device)[i];
		printf("config-%02x 0x%x\n", 4 * i, config[i]);
	}
}

int main(int argc, char **argv)
{
	struct queue q[3];
	int i;

	if (argc != 2)
		return 2;
	dir = argv[1];
	setvbuf(stdout, NULL, _IOLBF, 0);
	find_capabilities();
	printf("queues %u\n", R16(NUM_QUEUES));
	for (i = 0; i < 3; i++)
		q[i].page = page(&q[i].phys);
	for (i = 0; i < 2; i++) {
		setup(q, 3);
		work(q);
		printf("lives %d\n", i + 1);
	}
	reset();
	printf("end reset\n");
	return 0;
}
