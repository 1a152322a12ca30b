// SPDX-License-Identifier: Apache-2.0
/*
 * judge [SEED [PROGRAMS]] - does the card do what docs/spec says, seen through
 * the driver's interface?
 *
 * It was written from docs/spec and npu_accel.h alone and shares no code with
 * the driver, the device, the assembler or the other guest programs: its own
 * encoder of the instructions (§5.6), its own model of them in plain C (§6).
 * Random matrix products and convolutions run with all their buffers in either
 * placement and are compared byte for byte; wrong programs must end as §5.7
 * says; syncobjs must order jobs of two files and of two processes.
 *
 * Output is KTAP. Exit status: 0 all passed, 1 some failed, 2 could not start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <npu_accel.h>

#define DEVICE		"/dev/accel/accel0"
#define BATCH		10	/* random programs of one test */
#define WAIT_NS		60000000000ll

/* --- results ------------------------------------------------------------- */

static int tests, failures;
static bool failed;	/* the test that runs has failed */
static uint64_t rng;	/* never 0 */
static struct drm_npu_device_info dev;

#define CHECK(cond, ...) ({				\
	bool good_ = (cond);				\
	if (!good_) {					\
		printf("# line %d: ", __LINE__);	\
		printf(__VA_ARGS__);			\
		putchar('\n');				\
		failed = true;				\
	}						\
	good_; })

static void result(const char *name)
{
	printf("%sok %d - %s\n", failed ? "not " : "", ++tests, name);
	fflush(stdout);
	failures += failed;
	failed = false;
}

static void __attribute__((noreturn)) bail(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(2);
}

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1dull;
}

/* range returns a number from lo to hi. */
static int range(int lo, int hi)
{
	return lo + (int)((rnd() >> 20) % (uint64_t)(hi - lo + 1));
}

static int min(int a, int b)
{
	return a < b ? a : b;
}

/* --- the driver's interface ------------------------------------------------ */

struct bo {
	uint32_t handle;
	size_t size;
	uint8_t *p;
};

static int call(int fd, unsigned long request, void *arg)
{
	int r;

	do
		r = ioctl(fd, request, arg);
	while (r < 0 && (errno == EINTR || errno == EAGAIN));
	return r < 0 ? -errno : 0;
}

static int open_device(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		bail(DEVICE);
	return fd;
}

static struct bo bo_new(int fd, size_t size, int placement)
{
	struct drm_npu_bo_create c = { .size = size, .placement = placement };
	struct bo b;
	int r = call(fd, DRM_IOCTL_NPU_BO_CREATE, &c);

	if (r) {
		errno = -r;
		bail("BO_CREATE");
	}
	b.handle = c.handle;
	b.size = c.size;
	b.p = mmap(NULL, c.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, c.mmap_offset);
	if (b.p == MAP_FAILED)
		bail("mmap of a BO");
	return b;
}

static void bo_free(int fd, struct bo *b)
{
	struct drm_gem_close c = { .handle = b->handle };

	munmap(b->p, b->size);
	if (call(fd, DRM_IOCTL_GEM_CLOSE, &c))
		bail("GEM_CLOSE");
}

static int placement(void)
{
	return rnd() >> 63 ? DRM_NPU_PLACEMENT_DEVICE : DRM_NPU_PLACEMENT_SYSTEM;
}

static uint32_t sync_new(int fd)
{
	struct drm_syncobj_create c = { 0 };

	if (call(fd, DRM_IOCTL_SYNCOBJ_CREATE, &c))
		bail("SYNCOBJ_CREATE");
	return c.handle;
}

static void sync_free(int fd, uint32_t handle)
{
	struct drm_syncobj_destroy d = { .handle = handle };

	if (call(fd, DRM_IOCTL_SYNCOBJ_DESTROY, &d))
		bail("SYNCOBJ_DESTROY");
}

/* sync_wait waits up to ns for a syncobj, or for a point of a timeline; 0 or -ETIME. */
static int sync_wait(int fd, uint32_t handle, uint64_t point, int64_t ns)
{
	struct timespec now;
	int64_t until;

	clock_gettime(CLOCK_MONOTONIC, &now);
	until = now.tv_sec * 1000000000ll + now.tv_nsec + ns;
	if (point) {
		struct drm_syncobj_timeline_wait w = {
			.handles = (uintptr_t)&handle, .points = (uintptr_t)&point,
			.count_handles = 1, .timeout_nsec = until,
		};

		return call(fd, DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, &w);
	}
	struct drm_syncobj_wait w = {
		.handles = (uintptr_t)&handle, .count_handles = 1, .timeout_nsec = until,
	};

	return call(fd, DRM_IOCTL_SYNCOBJ_WAIT, &w);
}

static int sync_export(int fd, uint32_t handle)
{
	struct drm_syncobj_handle h = { .handle = handle };

	if (call(fd, DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD, &h))
		bail("SYNCOBJ_HANDLE_TO_FD");
	return h.fd;
}

static uint32_t sync_import(int fd, int sfd)
{
	struct drm_syncobj_handle h = { .fd = sfd };

	if (call(fd, DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE, &h))
		bail("SYNCOBJ_FD_TO_HANDLE");
	return h.handle;
}

/* submit has the job wait for in, which may be NULL, and signal nout syncobjs. */
static int submit(int fd, struct drm_npu_command *cmd, int n, const struct drm_npu_sync *in,
		  const struct drm_npu_sync *out, int nout, uint64_t *seqno)
{
	struct drm_npu_submit s = { .commands = { sizeof(*cmd), n, (uintptr_t)cmd } };
	int r;

	if (in)
		s.in_syncs = (struct drm_npu_array){ sizeof(*in), 1, (uintptr_t)in };
	if (nout)
		s.out_syncs = (struct drm_npu_array){ sizeof(*out), nout, (uintptr_t)out };
	r = call(fd, DRM_IOCTL_NPU_SUBMIT, &s);
	*seqno = s.seqno;
	return r;
}

static struct drm_npu_job_status job(int fd, uint64_t seqno)
{
	struct drm_npu_job_status s = { 0 };
	struct drm_npu_query q = {
		.type = DRM_NPU_QUERY_JOB, .size = sizeof(s), .arg = seqno, .ptr = (uintptr_t)&s,
	};
	int r = call(fd, DRM_IOCTL_NPU_QUERY, &q);

	CHECK(r == 0, "QUERY_JOB %llu: %s", (unsigned long long)seqno, strerror(-r));
	return s;
}

/* run executes a job of n commands and returns what became of it. */
static struct drm_npu_job_status run(int fd, struct drm_npu_command *cmd, int n)
{
	struct drm_npu_sync out = { .handle = sync_new(fd) };
	struct drm_npu_job_status s = { .state = DRM_NPU_JOB_PENDING };
	uint64_t seqno;
	int r = submit(fd, cmd, n, NULL, &out, 1, &seqno);

	if (CHECK(r == 0, "SUBMIT: %s", strerror(-r))) {
		r = sync_wait(fd, out.handle, 0, WAIT_NS);
		CHECK(r == 0, "SYNCOBJ_WAIT: %s", strerror(-r));
		s = job(fd, seqno);
		CHECK(s.seqno == seqno, "QUERY_JOB is of job %llu, not of %llu",
		      (unsigned long long)s.seqno, (unsigned long long)seqno);
	}
	sync_free(fd, out.handle);
	return s;
}

static struct drm_npu_command copy_command(const struct bo *dst, uint64_t doff, const struct bo *src, uint64_t soff,
					   uint32_t n)
{
	return (struct drm_npu_command){
		.type = DRM_NPU_COMMAND_COPY,
		.copy = { .src_handle = src->handle, .dst_handle = dst->handle,
			  .src_offset = soff, .dst_offset = doff, .nx = n, .ny = 1, .nz = 1 },
	};
}

static struct drm_npu_command launch_command(const struct bo *prog, uint32_t size, struct drm_npu_binding *b, int n)
{
	return (struct drm_npu_command){
		.type = DRM_NPU_COMMAND_LAUNCH,
		.launch = { .program_handle = prog->handle, .program_size = size,
			    .bindings = { sizeof(*b), n, (uintptr_t)b } },
	};
}

/* --- encoder, §5.3, §5.4, §5.6 --------------------------------------------- */

enum { HALT = 0x01, LOAD = 0x10, SYNC_LOAD = 0x1f, STORE = 0x20, PRELOAD = 0x30, MATMUL = 0x31,
       SYNC_MATRIX = 0x3f, BIAS = 0x41, REQUANT = 0x42, SYNC_VECTOR = 0x4f };

#define MAX_TEXT	4096

struct prog {
	uint8_t image[64 + 32 * MAX_TEXT];
	int n;		/* instructions */
	uint64_t macs;
};

/* put stores the low size bytes of v at p. */
static void put(uint8_t *p, int size, uint64_t v)
{
	for (int i = 0; i < size; i++)
		p[i] = v >> 8 * i;
}

/* ins appends an instruction. A token is given as TOKEN(t), or 0 for none. */
#define TOKEN(t) ((t) | 1 << 4)
static uint8_t *ins(struct prog *p, int op, int flags, int wait, int signal)
{
	uint8_t *i = p->image + 64 + 32 * p->n++;

	if (p->n > MAX_TEXT) {
		errno = E2BIG;
		bail("program");
	}
	memset(i, 0, 32);
	i[0] = op;
	i[1] = flags;
	i[2] = wait;
	i[3] = signal;
	return i;
}

/* move appends LOAD or STORE of ny rows of nx bytes. */
static void move(struct prog *p, int op, int acc, int binding, uint32_t local, uint32_t local_stride, uint32_t offset,
		 uint32_t nx, uint32_t ny, uint32_t stride_y, int wait, int signal)
{
	uint8_t *i = ins(p, op, acc, wait, signal);

	put(i + 4, 1, binding);
	put(i + 6, 2, ny);
	put(i + 8, 4, local);
	put(i + 12, 4, offset);
	put(i + 16, 4, nx);
	put(i + 20, 4, stride_y);
	put(i + 28, 2, 1);
	put(i + 30, 2, local_stride);
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
	uint32_t c = ~0u;

	while (n--) {
		c ^= *p++;
		for (int k = 0; k < 8; k++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
	}
	return ~c;
}

/* finish writes the descriptor and returns the size of the image. */
static uint32_t finish(struct prog *p, uint32_t spad, uint32_t acc, int bindings)
{
	uint8_t *d = p->image;

	memset(d, 0, 64);
	memcpy(d, "NPUP", 4);
	put(d + 0x04, 2, 1);
	put(d + 0x08, 4, 64);
	put(d + 0x0c, 4, 64);
	put(d + 0x10, 4, 32 * p->n);
	put(d + 0x14, 4, crc32(d + 64, 32 * p->n));
	put(d + 0x18, 2, dev.array_rows);
	put(d + 0x1a, 2, dev.array_cols);
	put(d + 0x1c, 4, spad);
	put(d + 0x20, 4, acc);
	put(d + 0x24, 2, bindings);
	return 64 + 32 * p->n;
}

/* --- a layer: convolution, bias, requantization ------------------------------ */

/*
 * A layer takes h × w × c activations and kh × kw × c × n weights to oh × ow × n
 * results. A matrix product is the layer with h = kh = kw = stride = 1: w is M,
 * c is K.
 */
struct layer {
	int h, w, c, kh, kw, n, stride, oh, ow;
	bool bias, per_channel, big;
	int zero, lo, hi;
	/* byte offsets in the input: activations, weights, bias, parameters, size */
	uint32_t x_at, w_at, b_at, q_at, in_size;
	/* byte offsets in the output: int32 accumulators, int8 results, size */
	uint32_t acc_at, y_at, out_size;
	/* local memory */
	uint32_t y_local, spad, acc_stride, acc;
};

/* layer_random chooses a layer that fits the device. */
static struct layer layer_random(bool conv)
{
	struct layer l;
	int R = dev.array_rows, C = dev.array_cols, m;

	do {
		l = (struct layer){ .stride = 1 };
		if (conv) {
			l.kh = range(1, 4);
			l.kw = range(1, 4);
			l.stride = range(1, 3);
			l.oh = range(1, 9);
			l.ow = range(1, 9);
			l.h = (l.oh - 1) * l.stride + l.kh + range(0, 1);
			l.w = (l.ow - 1) * l.stride + l.kw + range(0, 1);
			l.c = range(0, 3) ? range(1, min(R, 16)) : range(1, R + R / 2);
			l.n = range(0, 3) ? range(1, min(C, 24)) : range(1, C + C / 2);
		} else {
			l.kh = l.kw = l.h = l.oh = 1;
			l.w = l.ow = range(1, 70);
			l.c = range(0, 1) ? range(1, R) : range(1, 3 * R);
			l.n = range(0, 1) ? range(1, C) : range(1, 2 * C);
		}
		l.bias = range(0, 2);
		l.per_channel = range(0, 1);
		l.big = !range(0, 3);
		l.zero = range(0, 1) ? 0 : range(-128, 127);
		l.lo = range(0, 2) ? -128 : range(-128, 127);
		l.hi = range(0, 2) ? 127 : range(l.lo, 127);
		m = l.oh * l.ow;
		l.w_at = l.h * l.w * l.c;
		l.b_at = (l.w_at + l.kh * l.kw * l.c * l.n + 3) & ~3;
		l.q_at = l.b_at + 4 * l.n;
		l.in_size = l.q_at + 8 * (l.per_channel ? l.n : 1);
		l.acc_at = 0;
		l.y_at = 4 * m * l.n;
		l.out_size = 5 * m * l.n;
		l.y_local = l.in_size;
		l.spad = l.in_size + m * l.n;
		l.acc_stride = 4 * (min(l.n, C) + range(0, 3));
		l.acc = m * l.acc_stride;
	} while (l.spad > dev.spad_size || l.acc > dev.acc_size || l.acc_stride > 65535);
	return l;
}

/* layer_data fills the input: activations, weights, bias, parameters. */
static void layer_data(const struct layer *l, uint8_t *in)
{
	for (uint32_t i = 0; i < l->b_at; i++)
		in[i] = range(0, 9) ? rnd() >> 40 : (range(0, 1) ? 0x80 : 0x7f);
	for (int i = 0; i < l->n; i++)
		put(in + l->b_at + 4 * i, 4, l->big ? rnd() >> 32 : (uint64_t)range(-30000, 30000));
	for (int i = 0; i < (l->per_channel ? l->n : 1); i++) {
		uint8_t *q = in + l->q_at + 8 * i;
		int shift = l->big ? range(28, 62) : range(0, 3) ? range(36, 46) : range(1, 8);
		uint32_t mul = shift <= 8 ? (uint32_t)range(0, 3) : (uint32_t)(rnd() >> 33);

		memset(q, 0, 8);
		put(q, 4, mul);
		q[4] = shift;
	}
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

/* layer_model computes the output, §6.2 and §6.3, from nothing but C arithmetic. */
static void layer_model(const struct layer *l, const uint8_t *in, uint8_t *out)
{
	for (int y = 0; y < l->oh; y++)
		for (int x = 0; x < l->ow; x++)
			for (int n = 0; n < l->n; n++) {
				uint32_t sum = l->bias ? get32(in + l->b_at + 4 * n) : 0;
				const uint8_t *q = in + l->q_at + (l->per_channel ? 8 * n : 0);
				int at = (y * l->ow + x) * l->n + n;
				__int128 r;

				for (int ky = 0; ky < l->kh; ky++)
					for (int kx = 0; kx < l->kw; kx++)
						for (int c = 0; c < l->c; c++) {
							int a = (int8_t)in[((y * l->stride + ky) * l->w + x * l->stride + kx) * l->c + c];
							int w = (int8_t)in[l->w_at + ((ky * l->kw + kx) * l->c + c) * l->n + n];

							sum += (uint32_t)(a * w);
						}
				put(out + l->acc_at + 4 * at, 4, sum);
				r = (__int128)(int32_t)sum * (int32_t)get32(q);
				r = (r + ((__int128)1 << (q[4] - 1))) >> q[4];
				r += l->zero;
				r = r < l->lo ? l->lo : r > l->hi ? l->hi : r;
				out[l->y_at + at] = (uint8_t)(int8_t)r;
			}
}

/* tokens of a layer's program */
enum { T_ARRAY_DATA, T_VECTOR_DATA, T_BIASED, T_SUMMED, T_READY, T_STORED };

/*
 * layer_program loads everything and then makes the output columns in pieces as
 * wide as the array: bias, one MATMUL for each kernel position and piece of the
 * channels, REQUANT into its columns of the result, STORE of the accumulators.
 * Bindings: 0 input, 1 output.
 */
static uint32_t layer_program(const struct layer *l, struct prog *p)
{
	int R = dev.array_rows, C = dev.array_cols, m = l->oh * l->ow;
	uint8_t *i;

	p->n = 0;
	p->macs = 0;
	move(p, LOAD, 0, 0, 0, 0, 0, l->b_at, 1, 0, 0, TOKEN(T_ARRAY_DATA));
	move(p, LOAD, 0, 0, l->b_at, 0, l->b_at, l->in_size - l->b_at, 1, 0, 0, TOKEN(T_VECTOR_DATA));
	i = ins(p, SYNC_MATRIX, 0, TOKEN(T_ARRAY_DATA), 0);
	i = ins(p, SYNC_VECTOR, 0, TOKEN(T_VECTOR_DATA), 0);
	for (int n0 = 0; n0 < l->n; n0 += C) {
		int nn = min(C, l->n - n0);
		bool first = true;
		/* a second piece overwrites accumulators that the first STORE reads */
		int free = n0 ? TOKEN(T_STORED) : 0;

		if (l->bias) {
			i = ins(p, BIAS, 0, free, TOKEN(T_BIASED));
			put(i + 4, 2, nn);
			put(i + 6, 2, l->acc_stride);
			put(i + 8, 4, l->b_at + 4 * n0);
			put(i + 16, 4, m);
		} else {
			ins(p, SYNC_VECTOR, 0, free, TOKEN(T_BIASED));
		}
		for (int k = 0; k < l->kh * l->kw; k++)
			for (int c0 = 0; c0 < l->c; c0 += R) {
				int cc = min(R, l->c - c0);
				bool last = k == l->kh * l->kw - 1 && c0 + R >= l->c;

				i = ins(p, PRELOAD, 0, 0, 0);
				put(i + 4, 2, cc);
				put(i + 6, 2, nn);
				put(i + 8, 4, l->w_at + (k * l->c + c0) * l->n + n0);
				put(i + 12, 4, l->n);
				i = ins(p, MATMUL, !first || l->bias, first ? TOKEN(T_BIASED) : 0, last ? TOKEN(T_SUMMED) : 0);
				put(i + 4, 2, cc);
				put(i + 6, 2, nn);
				put(i + 8, 4, (k / l->kw * l->w + k % l->kw) * l->c + c0);
				put(i + 16, 2, l->ow);
				put(i + 18, 2, l->oh);
				put(i + 20, 2, l->stride * l->c);
				put(i + 22, 2, l->acc_stride);
				put(i + 24, 4, l->stride * l->w * l->c);
				first = false;
				p->macs += (uint64_t)m * cc * nn;
			}
		i = ins(p, REQUANT, l->per_channel, TOKEN(T_SUMMED), TOKEN(T_READY));
		put(i + 4, 2, nn);
		put(i + 6, 2, l->acc_stride);
		put(i + 12, 4, l->y_local + n0);
		put(i + 16, 4, l->q_at + (l->per_channel ? 8 * n0 : 0));
		put(i + 20, 2, l->ow);
		put(i + 22, 2, l->oh);
		put(i + 24, 2, l->n);
		put(i + 26, 2, l->ow * l->n);
		put(i + 28, 1, l->zero);
		put(i + 29, 1, l->lo);
		put(i + 30, 1, l->hi);
		move(p, STORE, 1, 1, 0, l->acc_stride, l->acc_at + 4 * n0, 4 * nn, m, 4 * l->n, TOKEN(T_READY), TOKEN(T_STORED));
	}
	move(p, STORE, 0, 1, l->y_local, 0, l->y_at, m * l->n, 1, 0, 0, 0);
	ins(p, HALT, 0, 0, 0);
	return finish(p, l->spad, l->acc, 2);
}

/*
 * layer_run makes one random layer, runs it with its buffers wherever they may
 * be, sometimes by way of copies in the same job, and compares.
 */
static void layer_run(int fd, bool conv, int number)
{
	static struct prog p;
	struct layer l = layer_random(conv);
	uint32_t size = layer_program(&l, &p), skip = 64 * range(0, 3), at = range(0, 70);
	struct bo prog = bo_new(fd, skip + size, placement());
	struct bo in = bo_new(fd, at + l.in_size, placement());
	struct bo out = bo_new(fd, at + l.out_size, placement());
	struct bo from = in, to = out;
	struct drm_npu_binding b[] = {
		{ in.handle, DRM_NPU_BINDING_READ, at, l.in_size },
		{ out.handle, DRM_NPU_BINDING_WRITE, at, l.out_size },
	};
	struct drm_npu_command cmd[3];
	struct drm_npu_job_status s;
	bool copies = range(0, 1);
	uint8_t *data = malloc(l.in_size), *want = malloc(l.out_size), *got = malloc(l.out_size);
	int n = 0, launch;

	if (!data || !want || !got)
		bail("malloc");
	layer_data(&l, data);
	layer_model(&l, data, want);
	memcpy(prog.p + skip, p.image, size);
	if (copies) {
		from = bo_new(fd, l.in_size, placement());
		to = bo_new(fd, l.out_size, placement());
		memcpy(from.p, data, l.in_size);
		cmd[n++] = copy_command(&in, at, &from, 0, l.in_size);
	} else {
		memcpy(in.p + at, data, l.in_size);
	}
	launch = n;
	cmd[n] = launch_command(&prog, size, b, 2);
	cmd[n++].launch.program_offset = skip;
	if (copies)
		cmd[n++] = copy_command(&to, 0, &out, at, l.out_size);
	s = run(fd, cmd, n);
	CHECK(s.state == DRM_NPU_JOB_DONE && s.error == 0 && s.status == 0,
	      "program %d: state %u, error %d, command %u, status %#x, result %u, info %#llx",
	      number, s.state, s.error, s.command, s.status, s.result, (unsigned long long)s.info);
	CHECK(s.command == (uint32_t)n - 1, "program %d: the status is of command %u, the last is %d", number, s.command, n - 1);
	if (launch == n - 1)
		CHECK(s.result == (uint32_t)p.n && s.info == p.macs, "program %d: %u instructions, %llu MACs; want %d, %llu", number,
		      s.result, (unsigned long long)s.info, p.n, (unsigned long long)p.macs);
	else
		CHECK(s.info == l.out_size, "program %d: copied %llu bytes of %u", number, (unsigned long long)s.info, l.out_size);
	memcpy(got, copies ? to.p : out.p + at, l.out_size);
	for (uint32_t i = 0; i < l.out_size; i++)
		if (!CHECK(got[i] == want[i],
			   "program %d (%s %dx%dx%d kernel %dx%d stride %d, %d out): byte %u of %u is %#x, want %#x",
			   number, conv ? "convolution" : "matmul", l.h, l.w, l.c, l.kh, l.kw, l.stride, l.n,
			   i, l.out_size, got[i], want[i]))
			break;
	free(data);
	free(want);
	free(got);
	bo_free(fd, &prog);
	bo_free(fd, &in);
	bo_free(fd, &out);
	if (copies) {
		bo_free(fd, &from);
		bo_free(fd, &to);
	}
}

static void layers(int fd, int programs)
{
	for (int i = 0; i < programs; i++) {
		layer_run(fd, i / BATCH % 2, i);
		if (i % BATCH == BATCH - 1 || i == programs - 1) {
			char name[64];

			snprintf(name, sizeof(name), "%s %d to %d", i / BATCH % 2 ? "convolutions" : "matrix products",
				 i / BATCH * BATCH, i);
			result(name);
		}
	}
}

/* --- wrong programs, §5.7 ------------------------------------------------------ */

#define SPAD	4096	/* local memory of the wrong programs */
#define ACC	1024

/*
 * Each of these writes the wrong program and returns what is expected. Binding 0
 * is readable, binding 1 writable, both BOUND bytes; there is no binding 2.
 */
#define BOUND	256

struct wrong {
	const char *name;
	void (*make)(struct prog *p);
	uint32_t status, result;
	uint64_t info;
	int error;	/* 0: the interface does not say which */
};

static void wrong_opcode(struct prog *p)
{
	ins(p, SYNC_LOAD, 0, 0, 0);
	ins(p, 0, 0, 0, 0);
}

static void wrong_reserved(struct prog *p)
{
	ins(p, SYNC_VECTOR, 0, 0, 0)[17] = 1;
	ins(p, HALT, 0, 0, 0);
}

static void wrong_token(struct prog *p)
{
	ins(p, SYNC_VECTOR, 0, 0, 5);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_operand(struct prog *p)
{
	move(p, LOAD, 0, 0, 0, 15, 0, 16, 2, 16, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_shape(struct prog *p)
{
	uint8_t *i = ins(p, PRELOAD, 0, 0, 0);

	put(i + 4, 2, 1);
	put(i + 6, 2, dev.array_cols + 1);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_local(struct prog *p)
{
	ins(p, SYNC_LOAD, 0, 0, 0);
	move(p, LOAD, 0, 0, SPAD - 40, 16, 0, 16, 3, 16, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_acc(struct prog *p)
{
	move(p, STORE, 1, 1, ACC, 0, 0, 4, 1, 0, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_binding(struct prog *p)
{
	move(p, LOAD, 0, 2, 0, 0, 0, 4, 1, 0, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_access(struct prog *p)
{
	move(p, STORE, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_bounds(struct prog *p)
{
	move(p, LOAD, 0, 0, 0, 16, 0, 16, 4, 90, 0, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_param(struct prog *p)
{
	uint8_t *i = ins(p, REQUANT, 0, 0, 0);

	put(i + 4, 2, 1);
	put(i + 16, 4, 64);
	put(i + 20, 2, 1);
	put(i + 22, 2, 1);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_overflow(struct prog *p)
{
	for (int i = 0; i < 18; i++)
		ins(p, SYNC_LOAD, 0, 0, 9 | 15 << 4);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_deadlock(struct prog *p)
{
	ins(p, SYNC_LOAD, 0, 0, TOKEN(4));
	ins(p, SYNC_MATRIX, 0, 4 | 2 << 4, 0);
	ins(p, HALT, 0, 0, 0);
}

static void wrong_end(struct prog *p)
{
	for (int i = 0; i < 5; i++)
		ins(p, SYNC_LOAD, 0, 0, 0);
}

static const struct wrong wrongs[] = {
	{ "ILLEGAL_INSTRUCTION", wrong_opcode, 0x42, 1, 0, -EINVAL },
	{ "RESERVED_FIELD", wrong_reserved, 0x43, 0, 17, -EINVAL },
	{ "RESERVED_FIELD of a token without count", wrong_token, 0x43, 0, 3, -EINVAL },
	{ "BAD_OPERAND", wrong_operand, 0x44, 0, 30, -EINVAL },
	{ "ARRAY_SHAPE", wrong_shape, 0x45, 0, 6, -EINVAL },
	{ "LOCAL_BOUNDS of the scratchpad", wrong_local, 0x46, 1, SPAD, 0 },
	{ "LOCAL_BOUNDS of the accumulators", wrong_acc, 0x46, 0, ACC, 0 },
	{ "BINDING_INDEX", wrong_binding, 0x47, 0, 2, 0 },
	{ "BINDING_ACCESS", wrong_access, 0x48, 0, 0, -EFAULT },
	{ "BINDING_BOUNDS", wrong_bounds, 0x49, 0, 270, -EFAULT },
	{ "BAD_PARAM", wrong_param, 0x4a, 0, 64, -EINVAL },
	{ "TOKEN_OVERFLOW", wrong_overflow, 0x4c, 17, 9, -EINVAL },
	{ "DEADLOCK", wrong_deadlock, 0x4d, 1, 4, -EINVAL },
	{ "NO_HALT", wrong_end, 0x4e, 5, 0, -EINVAL },
};

#define WRONGS	((int)(sizeof(wrongs) / sizeof(wrongs[0])))

/* expect_failure checks a status that belongs to command 0 of a job. */
static void expect_failure(struct drm_npu_job_status s, uint32_t status, uint32_t result, uint64_t info, int error)
{
	CHECK(s.state == DRM_NPU_JOB_FAILED && s.command == 0, "state %u of command %u", s.state, s.command);
	CHECK(s.status == status && s.result == result && s.info == info,
	      "status %#x, result %u, info %#llx; want %#x, %u, %#llx", s.status, s.result, (unsigned long long)s.info,
	      status, result, (unsigned long long)info);
	if (error)
		CHECK(s.error == error, "error %d, want %d", s.error, error);
	else
		CHECK(s.error == -EINVAL || s.error == -EFAULT, "error %d, want %d or %d", s.error, -EINVAL, -EFAULT);
}

/*
 * wrong_run runs a wrong program, and a copy behind it in the same job: that
 * must be executed all the same.
 */
static void wrong_run(int fd, const struct wrong *w)
{
	static struct prog p;
	struct bo prog = bo_new(fd, sizeof(p.image), placement());
	struct bo a = bo_new(fd, BOUND, placement()), b = bo_new(fd, BOUND, placement());
	struct drm_npu_binding bind[] = {
		{ a.handle, DRM_NPU_BINDING_READ, 0, BOUND },
		{ b.handle, DRM_NPU_BINDING_WRITE, 0, BOUND },
	};
	struct drm_npu_command cmd[2];
	uint32_t size, mark = rnd() >> 32;

	p.n = 0;
	w->make(&p);
	size = finish(&p, SPAD, ACC, 2);
	memcpy(prog.p, p.image, size);
	memcpy(a.p + 100, &mark, 4);
	cmd[0] = launch_command(&prog, size, bind, 2);
	cmd[1] = copy_command(&b, 200, &a, 100, 4);
	expect_failure(run(fd, cmd, 2), w->status, w->result, w->info, w->error);
	CHECK(!memcmp(b.p + 200, &mark, 4), "the command behind was not executed");
	bo_free(fd, &prog);
	bo_free(fd, &a);
	bo_free(fd, &b);
	result(w->name);
}

/* descriptors: what §5.3 refuses */
static void wrong_descriptors(int fd)
{
	static const struct {
		int at, size;
		uint32_t value, status;
	} t[] = {
		{ 0x00, 1, 'X', 0x40 }, { 0x04, 2, 2, 0x40 }, { 0x14, 4, 1, 0x40 }, { 0x24, 2, 1, 0x40 },
		{ 0x26, 1, 1, 0x40 }, { 0x18, 2, 24, 0x41 }, { 0x20, 4, 0x7ffffffc, 0x41 }, { 0x28, 1, 1, 0x41 },
	};
	static struct prog p;
	struct bo prog = bo_new(fd, 4096, placement());

	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		struct drm_npu_command cmd;
		uint32_t size, value = t[i].value;

		if (t[i].at == 0x18 && dev.array_rows == value)
			value = 8;
		p.n = 0;
		ins(&p, HALT, 0, 0, 0);
		size = finish(&p, SPAD, ACC, 0);
		put(p.image + t[i].at, t[i].size, value);
		memcpy(prog.p, p.image, size);
		cmd = launch_command(&prog, size, NULL, 0);
		expect_failure(run(fd, &cmd, 1), t[i].status, 0, t[i].at, -EINVAL);
	}
	bo_free(fd, &prog);
	result("descriptors that are refused");
}

/* --- order of jobs ---------------------------------------------------------------- */

/* long_program keeps the array busy for a while: about LONG_MACS, if they fit into the text. */
#define LONG_MACS 50000000ull
static uint32_t long_program(struct prog *p)
{
	int rows = min(dev.acc_size / (4 * dev.array_cols), 65535);
	uint64_t macs = (uint64_t)rows * dev.array_rows * dev.array_cols;

	p->n = 0;
	while (p->n < MAX_TEXT - 1 && p->n * macs < LONG_MACS) {
		uint8_t *i = ins(p, MATMUL, 1, 0, 0);

		put(i + 4, 2, dev.array_rows);
		put(i + 6, 2, dev.array_cols);
		put(i + 16, 2, rows);
		put(i + 18, 2, 1);
		put(i + 22, 2, 4 * dev.array_cols);
	}
	ins(p, HALT, 0, 0, 0);
	return finish(p, dev.array_rows, rows * 4 * dev.array_cols, 0);
}

/*
 * slow submits a long job. It has many commands, because the device serves the
 * queues by turns, a command each (§4.1): a job of another file that does not
 * wait for this one is done after the first. The program's BO is closed at once,
 * since the job keeps it alive.
 */
#define SLOW_COMMANDS 24
static uint64_t slow(int fd, const struct drm_npu_sync *in, const struct drm_npu_sync *out)
{
	static struct prog p;
	uint32_t size = long_program(&p);
	struct bo prog = bo_new(fd, size, placement());
	struct drm_npu_command cmd[SLOW_COMMANDS];
	uint64_t seqno;
	int r;

	for (int i = 0; i < SLOW_COMMANDS; i++)
		cmd[i] = launch_command(&prog, size, NULL, 0);
	memcpy(prog.p, p.image, size);
	r = submit(fd, cmd, SLOW_COMMANDS, in, out, 1, &seqno);
	CHECK(r == 0, "SUBMIT: %s", strerror(-r));
	bo_free(fd, &prog);
	return seqno;
}

/* quick submits a NOP that signals nout syncobjs. */
static uint64_t quick(int fd, const struct drm_npu_sync *in, const struct drm_npu_sync *out, int nout)
{
	struct drm_npu_command cmd = { .type = DRM_NPU_COMMAND_NOP };
	uint64_t seqno;
	int r = submit(fd, &cmd, 1, in, out, nout, &seqno);

	CHECK(r == 0, "SUBMIT: %s", strerror(-r));
	return seqno;
}

/*
 * two_files: a NOP of another file waits for a long job. When the NOP's syncobj
 * is signalled the long job must be done; and while the long job runs the NOP
 * must not be.
 */
static void two_files(int fd)
{
	int other = open_device();
	struct drm_npu_sync first = { .handle = sync_new(fd) };
	struct drm_npu_sync out = { .handle = sync_new(other) }, in;
	uint64_t a, b;
	bool saw_wait = false;
	int sfd, r = -ETIME;

	in = (struct drm_npu_sync){ 0 };
	a = slow(fd, NULL, &first);
	sfd = sync_export(fd, first.handle);
	in.handle = sync_import(other, sfd);
	close(sfd);
	b = quick(other, &in, &out, 1);
	for (int i = 0; i < 100000 && r == -ETIME; i++) {
		/* in this order: if the first is not signalled now, the second was not before */
		bool early = sync_wait(other, out.handle, 0, 0) == 0;
		bool running = sync_wait(fd, first.handle, 0, 0) == -ETIME;

		CHECK(!(early && running), "the job that waits is done before the one that it waits for");
		saw_wait |= running;
		r = early ? 0 : sync_wait(other, out.handle, 0, 1000000);
		if (failed)
			break;
	}
	CHECK(r == 0, "SYNCOBJ_WAIT: %s", strerror(-r));
	CHECK(job(fd, a).state == DRM_NPU_JOB_DONE, "the long job is not done");
	CHECK(job(other, b).state == DRM_NPU_JOB_DONE, "the job that waited is not done");
	if (!saw_wait)
		printf("# the long job was done before the other was looked at\n");
	sync_free(fd, first.handle);
	close(other);
	result("a job waits for a job of another file");
}

/*
 * two_processes: parent and child pass a timeline to and fro. Odd points are
 * signalled by jobs of the parent, even ones by jobs of the child, each waiting
 * for the point before.
 */
static void two_processes(int fd)
{
	enum { POINTS = 12 };
	uint32_t line = sync_new(fd);
	int sfd = sync_export(fd, line), status = 0, r;
	int tochild[2], toparent[2];
	char c = 0;
	pid_t child;

	if (pipe(tochild) || pipe(toparent))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (child < 0)
		bail("fork");
	if (!child) {
		int own = open_device();
		uint32_t mine = sync_import(own, sfd), done = sync_new(own);

		for (int point = 2; point <= POINTS; point += 2) {
			struct drm_npu_sync in = { .handle = mine, .point = point - 1 };
			struct drm_npu_sync out[] = { { .handle = mine, .point = point }, { .handle = done } };

			if (read(tochild[0], &c, 1) != 1)
				_exit(3);
			quick(own, &in, out, 2);
			r = sync_wait(own, done, 0, WAIT_NS);
			CHECK(r == 0, "child: SYNCOBJ_WAIT: %s", strerror(-r));
			CHECK(sync_wait(own, mine, point - 1, 0) == 0, "the child's job ran before point %d", point - 1);
			if (write(toparent[1], &c, 1) != 1)
				_exit(3);
		}
		r = sync_wait(own, mine, POINTS, WAIT_NS);
		CHECK(r == 0, "child: TIMELINE_WAIT: %s", strerror(-r));
		fflush(stdout);
		_exit(failed);
	}
	for (int point = 1; point < POINTS; point += 2) {
		struct drm_npu_sync in = { .handle = line, .point = point - 1 };
		struct drm_npu_sync out = { .handle = line, .point = point };

		slow(fd, point > 1 ? &in : NULL, &out);
		if (write(tochild[1], &c, 1) != 1 || read(toparent[0], &c, 1) != 1) {
			CHECK(false, "the child is gone");
			break;
		}
	}
	r = sync_wait(fd, line, POINTS, WAIT_NS);
	CHECK(r == 0, "TIMELINE_WAIT: %s", strerror(-r));
	if (waitpid(child, &status, 0) != child || status)
		CHECK(false, "the child's status is %#x", status);
	close(sfd);
	for (int i = 0; i < 2; i++) {
		close(tochild[i]);
		close(toparent[i]);
	}
	sync_free(fd, line);
	result("a timeline goes to and fro between two processes");
}

/* failed_fence: the syncobj of a failed job is signalled, and lets the next one run. */
static void failed_fence(int fd)
{
	static struct prog p;
	int other = open_device(), sfd, r;
	struct bo prog = bo_new(fd, 4096, placement());
	struct drm_npu_sync first = { .handle = sync_new(fd) }, in = { 0 }, out = { .handle = sync_new(other) };
	struct drm_npu_command cmd;
	uint64_t a, b;
	uint32_t size;

	p.n = 0;
	wrong_opcode(&p);
	size = finish(&p, SPAD, ACC, 0);
	memcpy(prog.p, p.image, size);
	cmd = launch_command(&prog, size, NULL, 0);
	r = submit(fd, &cmd, 1, NULL, &first, 1, &a);
	CHECK(r == 0, "SUBMIT: %s", strerror(-r));
	sfd = sync_export(fd, first.handle);
	in.handle = sync_import(other, sfd);
	close(sfd);
	b = quick(other, &in, &out, 1);
	r = sync_wait(other, out.handle, 0, WAIT_NS);
	CHECK(r == 0, "SYNCOBJ_WAIT: %s", strerror(-r));
	CHECK(job(fd, a).state == DRM_NPU_JOB_FAILED, "the wrong job did not fail");
	CHECK(job(other, b).state == DRM_NPU_JOB_DONE, "the job behind it failed");
	bo_free(fd, &prog);
	sync_free(fd, first.handle);
	close(other);
	result("the fence of a failed job is signalled");
}

/* in_order: the jobs of one file execute in order; seqnos count from 1. */
static void in_order(void)
{
	enum { JOBS = 20 };
	int fd = open_device();
	struct bo a = bo_new(fd, 4096, DRM_NPU_PLACEMENT_SYSTEM), b = bo_new(fd, 4096, DRM_NPU_PLACEMENT_DEVICE);
	struct drm_npu_sync out = { .handle = sync_new(fd) };
	int r;

	a.p[0] = 1;
	for (int i = 0; i < JOBS; i++) {
		/* each job moves the byte one further, through the other BO */
		struct drm_npu_command cmd[] = { copy_command(&b, i, &a, i, 1), copy_command(&a, i + 1, &b, i, 1) };
		uint64_t seqno;

		r = submit(fd, cmd, 2, NULL, &out, 1, &seqno);
		CHECK(r == 0, "SUBMIT: %s", strerror(-r));
		CHECK(seqno == (uint64_t)i + 1, "seqno %llu of job %d", (unsigned long long)seqno, i + 1);
	}
	r = sync_wait(fd, out.handle, 0, WAIT_NS);
	CHECK(r == 0, "SYNCOBJ_WAIT: %s", strerror(-r));
	CHECK(a.p[JOBS] == 1 && a.p[JOBS + 1] == 0, "the byte did not arrive");
	close(fd);
	result("jobs of a file execute in order");
}

/* refused: what SUBMIT refuses before a job exists. */
static void refused(int fd)
{
	struct bo b = bo_new(fd, 4096, DRM_NPU_PLACEMENT_SYSTEM);
	struct drm_npu_command cmd = copy_command(&b, 0, &b, 2048, 16), c;
	struct drm_npu_binding bind = { b.handle, DRM_NPU_BINDING_READ, 0, 4096 };
	struct drm_npu_sync s = { .handle = 0x7fffffff };
	uint64_t seqno;
	int r;

#define REFUSED(want) CHECK(r == (want), "SUBMIT: %d, want %d", r, want)
	c = cmd;
	c.type = 9;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	c = cmd;
	c.flags = 1;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	c = cmd;
	c.copy.nx = 4096;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	c = cmd;
	c.copy.src_handle = 0x7fffffff;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-ENOENT);
	r = submit(fd, &cmd, 0, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	r = submit(fd, &cmd, 1, &s, NULL, 0, &seqno);
	REFUSED(-ENOENT);
	r = submit(fd, &cmd, 1, NULL, &s, 1, &seqno);
	REFUSED(-ENOENT);
	c = launch_command(&b, 96, &bind, 1);
	bind.size = 4097;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	bind.size = 4096;
	bind.flags = 4;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	c = launch_command(&b, 96, NULL, 0);
	c.launch.program_offset = 32;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	c.launch.program_offset = 4096 - 64;
	r = submit(fd, &c, 1, NULL, NULL, 0, &seqno);
	REFUSED(-EINVAL);
	bo_free(fd, &b);
	result("SUBMIT refuses what is out of range or unknown");
}

int main(int argc, char **argv)
{
	char name[32] = "";
	struct drm_version v = { .name_len = sizeof(name) - 1, .name = name };
	struct drm_npu_query q = { .type = DRM_NPU_QUERY_DEVICE_INFO, .size = sizeof(dev), .ptr = (uintptr_t)&dev };
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
	int programs = argc > 2 ? atoi(argv[2]) : 240;
	int fd = open_device();

	rng = seed * 0x9e3779b97f4a7c15ull | 1;
	printf("KTAP version 1\n# seed %llu, %d programs: judge %llu %d\n1..%d\n", (unsigned long long)seed, programs,
	       (unsigned long long)seed, programs, 1 + (programs + BATCH - 1) / BATCH + WRONGS + 6);
	if (call(fd, DRM_IOCTL_VERSION, &v))
		bail("DRM_IOCTL_VERSION");
	CHECK(!strcmp(name, DRM_NPU_NAME) && v.version_major == DRM_NPU_VERSION_MAJOR && v.version_minor >= DRM_NPU_VERSION_MINOR,
	      "the driver is %s %d.%d", name, v.version_major, v.version_minor);
	if (call(fd, DRM_IOCTL_NPU_QUERY, &q))
		bail("QUERY_DEVICE_INFO");
	CHECK(q.size >= sizeof(dev), "size %u of the device's description", q.size);
	CHECK(dev.arch_version >> 16 == 1, "architecture %#x", dev.arch_version);
	printf("# array %ux%u, scratchpad %u, accumulators %u\n", dev.array_rows, dev.array_cols, dev.spad_size, dev.acc_size);
	result("driver and device");

	layers(fd, programs);
	for (int i = 0; i < WRONGS; i++)
		wrong_run(fd, &wrongs[i]);
	wrong_descriptors(fd);
	two_files(fd);
	two_processes(fd);
	failed_fence(fd);
	in_order();
	refused(fd);

	if (failures)
		printf("# %d of %d failed; again with: judge %llu %d\n", failures, tests, (unsigned long long)seed, programs);
	return failures ? 1 : 0;
}
