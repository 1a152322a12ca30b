// SPDX-License-Identifier: Apache-2.0
//
// A vfio-user client that measures. It connects to several servers and takes turns: a
// burst with one, then the same with the next, so that what the machine does meanwhile hits
// all alike. Client and server share one processor (method A), and during a burst both run
// under SCHED_FIFO where that is allowed (method B), which keeps other processes out.
//
//   client [-f] -c CPU -r ROUNDS -m MODE NAME=PID=SOCKET...
//
// Modes: read, write (one 4-byte access and its reply at a time), posted and posted16 (writes
// without a reply, 1 and 16 to a send), reads16 (16 reads in one send, then their replies),
// multi (REGION_WRITE_MULTI of 200 writes, without a reply). A line for each burst:
//
//   MODE NAME OPS MEAN P50 P99        nanoseconds; P50 and P99 are 0 unless each operation waits
//   MODE NAME refused ERRNO

#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 1, REGION_READ = 9, REGION_WRITE = 10, WRITE_MULTI = 15 };
enum { NO_REPLY = 1 << 4, ERROR = 1 << 5 };
enum { MAX_SERVERS = 8, OPS = 5000, WARM = 2000, BATCH = 16, MULTI = 200, MULTI_MSGS = 100 };

struct header {
	uint16_t id, command;
	uint32_t size, flags, err;
};

struct access {
	struct header h;
	uint64_t off;
	uint32_t region, count;
	uint32_t data;
} __attribute__((packed));

enum { ACCESS = 32 }; // bytes of a read; a 4-byte write and the reply to a read have 4 more

struct multi {
	struct header h;
	uint64_t count;
	struct {
		uint64_t off;
		uint32_t region, count;
		uint64_t data;
	} w[MULTI];
} __attribute__((packed));

struct server {
	const char *name;
	int pid, fd;
} servers[MAX_SERVERS];

static int fifo, cpu;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void transmit(int fd, const void *p, size_t n)
{
	while (n > 0) {
		ssize_t m = send(fd, p, n, MSG_NOSIGNAL);
		if (m < 0)
			err(1, "send");
		p = (const char *)p + m;
		n -= m;
	}
}

static void receive(int fd, void *p, size_t n)
{
	while (n > 0) {
		ssize_t m = recv(fd, p, n, 0);
		if (m <= 0)
			err(1, "receive");
		p = (char *)p + m;
		n -= m;
	}
}

static void take_on(int pid, int policy)
{
	struct sched_param p = { .sched_priority = policy == SCHED_FIFO ? 1 : 0 };
	char path[64];
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *d = opendir(path);
	if (!d)
		err(1, "%s", path);
	for (struct dirent *e; (e = readdir(d));) {
		int tid = atoi(e->d_name);
		if (tid == 0)
			continue;
		if (sched_setaffinity(tid, sizeof set, &set) && errno != ESRCH)
			err(1, "affinity of thread %d", tid);
		if (fifo && sched_setscheduler(tid, policy, &p) && errno != ESRCH)
			err(1, "scheduler of thread %d", tid);
	}
	closedir(d);
}

static void negotiate(struct server *s)
{
	static const char json[] =
		"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"write_multiple\":true}}";
	char buf[4096];
	struct header h = { .command = VERSION, .size = sizeof h + 4 + sizeof json };
	memcpy(buf, &h, sizeof h);
	memset(buf + sizeof h, 0, 4);
	memcpy(buf + sizeof h + 4, json, sizeof json);
	transmit(s->fd, buf, h.size);
	receive(s->fd, &h, sizeof h);
	if (h.size < sizeof h || h.size > sizeof buf)
		errx(1, "%s: VERSION reply of %u bytes", s->name, h.size);
	receive(s->fd, buf, h.size - sizeof h);
	if (h.flags & ERROR)
		errx(1, "%s refuses VERSION", s->name);
}

// wait_for waits for n bytes of replies, of which the first begins with a header, and returns its errno.
static uint32_t wait_for(int fd, size_t n)
{
	char buf[4096];
	size_t got = 0;
	struct header h;
	do {
		ssize_t m = recv(fd, buf + got, sizeof buf - got, 0);
		if (m <= 0)
			err(1, "receive");
		got += m;
		memcpy(&h, buf, sizeof h);
		if (got >= sizeof h && h.flags & ERROR)
			return h.err ? h.err : EIO;
	} while (got < n);
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

// fence returns when the server has done everything before it.
static void fence(int fd)
{
	struct access a = { .h = { .command = REGION_READ, .size = ACCESS }, .count = 4 };
	transmit(fd, &a, ACCESS);
	if (wait_for(fd, ACCESS + 4))
		errx(1, "a read is refused");
}

// burst measures n operations.
static void burst(struct server *s, const char *mode, int n, int print)
{
	static uint32_t lat[OPS];
	int read = !strcmp(mode, "read"), ops = n;
	uint32_t e = 0;
	struct access a = { .h = { .command = REGION_READ, .size = ACCESS }, .count = 4, .data = 1 };
	uint64_t start = now(), last = start, t;
	if (read || !strcmp(mode, "write")) {
		size_t size = ACCESS, reply = ACCESS + 4;
		if (!read) {
			a.h.command = REGION_WRITE;
			a.h.size = size = ACCESS + 4;
			reply = ACCESS;
		}
		for (int i = 0; i < n; i++, last = t) {
			transmit(s->fd, &a, size);
			e |= wait_for(s->fd, reply);
			t = now();
			lat[i] = t - last;
		}
	} else if (!strncmp(mode, "posted", 6)) {
		int batch = strcmp(mode, "posted") ? BATCH : 1;
		struct access m[BATCH];
		a.h.command = REGION_WRITE;
		a.h.size = sizeof a;
		a.h.flags = NO_REPLY;
		for (int i = 0; i < BATCH; i++)
			m[i] = a;
		for (int i = 0; i < n; i++)
			transmit(s->fd, m, batch * sizeof a);
		fence(s->fd);
		ops = n * batch;
	} else if (!strcmp(mode, "reads16")) {
		char m[BATCH * ACCESS];
		for (int i = 0; i < BATCH; i++)
			memcpy(m + i * ACCESS, &a, ACCESS);
		for (int i = 0; i < n; i++) {
			transmit(s->fd, m, sizeof m);
			e |= wait_for(s->fd, BATCH * (ACCESS + 4));
		}
		ops = n * BATCH;
	} else {
		static struct multi m;
		m.h = (struct header){ .command = WRITE_MULTI, .size = sizeof m };
		m.count = MULTI;
		for (int i = 0; i < MULTI; i++)
			m.w[i].count = 4;
		transmit(s->fd, &m, sizeof m); // this one with a reply: is it served at all?
		if ((e = wait_for(s->fd, sizeof(struct header) + 8))) {
			if (print)
				printf("%s %s refused %u\n", mode, s->name, e);
			return;
		}
		m.h.flags = NO_REPLY;
		start = now();
		for (int i = 0; i < n; i++)
			transmit(s->fd, &m, sizeof m);
		fence(s->fd);
		ops = n * MULTI;
	}
	uint64_t total = now() - start;
	if (e)
		errx(1, "%s refuses %s: errno %u", s->name, mode, e);
	if (!print)
		return;
	uint32_t p50 = 0, p99 = 0;
	if (ops == n && strncmp(mode, "posted", 6)) {
		qsort(lat, n, sizeof lat[0], compare);
		p50 = lat[n / 2];
		p99 = lat[n * 99 / 100];
	}
	printf("%s %s %d %.1f %u %u\n", mode, s->name, ops, (double)total / ops, p50, p99);
}

int main(int argc, char **argv)
{
	int rounds = 1, n = 0, o;
	const char *mode = "read";
	while ((o = getopt(argc, argv, "fc:r:m:")) != -1)
		switch (o) {
		case 'f': fifo = 1; break;
		case 'c': cpu = atoi(optarg); break;
		case 'r': rounds = atoi(optarg); break;
		case 'm': mode = optarg; break;
		default: errx(2, "usage: client [-f] -c CPU -r ROUNDS -m MODE NAME=PID=SOCKET...");
		}
	for (; optind < argc && n < MAX_SERVERS; optind++, n++) {
		struct server *s = &servers[n];
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		s->name = strtok(argv[optind], "=");
		s->pid = atoi(strtok(NULL, "="));
		strncpy(a.sun_path, strtok(NULL, "="), sizeof a.sun_path - 1);
		s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof a))
			err(1, "%s", a.sun_path);
		negotiate(s);
	}
	int ops = !strcmp(mode, "multi") ? MULTI_MSGS : !strcmp(mode, "posted16") || !strcmp(mode, "reads16") ? OPS / 4 : OPS;
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < n; i++) {
			struct server *s = &servers[(i + r) % n];
			take_on(s->pid, SCHED_FIFO);
			take_on(getpid(), SCHED_FIFO);
			burst(s, mode, strcmp(mode, "multi") ? WARM : 5, 0);
			burst(s, mode, ops, 1);
			take_on(getpid(), SCHED_OTHER);
			take_on(s->pid, SCHED_OTHER);
		}
	return 0;
}
