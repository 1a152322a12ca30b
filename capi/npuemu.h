/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libnpuemu: models on a virtual NPU, from C and whatever calls C (docs/capi.md).
 *
 * Every function but the first three returns an enum npuemu_status. If that is not NPUEMU_OK, nothing was done,
 * outputs are as they were, and npuemu_error() says why.
 *
 * Functions may be called from any thread. A device does one thing at a time: calls that need it wait for each
 * other. Handles are numbers that are never used twice; one that is wrong or closed is NPUEMU_ERR_HANDLE.
 * Nothing that the caller passes is kept after a call, but where it says so. Text is UTF-8.
 *
 * Structures begin with their size, which the caller sets to sizeof. Fields that are called reserved, and bytes
 * beyond what the library knows, must be 0, so that a program that was built for a newer header either needs
 * nothing new or is told.
 */
#ifndef NPUEMU_H
#define NPUEMU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The interface: a program needs a library of the same major, and of the same minor or a later one. */
#define NPUEMU_ABI_MAJOR 1
#define NPUEMU_ABI_MINOR 2

enum npuemu_status {
	NPUEMU_OK = 0,
	NPUEMU_ERR_ARGUMENT = 1, /* NULL, a reserved field, an option that there is not */
	NPUEMU_ERR_HANDLE = 2,   /* closed, never given out, or of another kind */
	NPUEMU_ERR_FILE = 3,     /* cannot be read or written */
	NPUEMU_ERR_MODEL = 4,    /* the model is damaged, not supported, or for another card */
	NPUEMU_ERR_CONFIG = 5,   /* the card's configuration breaks a rule */
	NPUEMU_ERR_DEVICE = 6,   /* the card cannot be opened, or failed */
	NPUEMU_ERR_BUFFER = 7,   /* count, size or type of buffers is not the model's */
	NPUEMU_ERR_CANCELED = 8, /* by the progress function, or because the device was closed meanwhile */
	NPUEMU_ERR_TIMEOUT = 9,
	NPUEMU_ERR_FORKED = 10,  /* the process was forked: nothing works in the child until it executes a program */
	NPUEMU_ERR_INTERNAL = 11 /* a mistake of the library: please report the text */
};

/* Types of elements; the numbers do not change. */
enum npuemu_dtype {
	NPUEMU_ANY = 0, /* in struct npuemu_buffer: do not compare */
	NPUEMU_INT4 = 1, /* two in a byte, the first in bits 3:0 */
	NPUEMU_UINT4 = 2, /* likewise */
	NPUEMU_INT8 = 3,
	NPUEMU_UINT8 = 4,
	NPUEMU_INT16 = 5,
	NPUEMU_UINT16 = 6,
	NPUEMU_INT32 = 7,
	NPUEMU_UINT32 = 8,
	NPUEMU_INT64 = 9,
	NPUEMU_UINT64 = 10,
	NPUEMU_BOOL = 11, /* a byte, 0 or 1 */
	NPUEMU_FLOAT16 = 12,
	NPUEMU_BFLOAT16 = 13,
	NPUEMU_FLOAT8E4M3 = 14,
	NPUEMU_FLOAT8E5M2 = 15,
	NPUEMU_FLOAT32 = 16,
	NPUEMU_FLOAT64 = 17
};

/* Handles. 0 is none. */
typedef uint64_t npuemu_device;
typedef uint64_t npuemu_model;

/*
 * Called now and then, every 50 ms or so, on the thread that made the call, while that waits: done of total steps
 * are over. Anything but 0 cancels the call. It may call npuemu_error and functions on other devices.
 */
typedef int32_t (*npuemu_progress)(void *user, uint64_t done, uint64_t total);

/* NPUEMU_ABI_MAJOR << 16 | NPUEMU_ABI_MINOR of the library. */
uint32_t npuemu_abi(void);

/* The version of npuemu; static. */
const char *npuemu_version(void);

/*
 * What the last call on this thread that failed has to say: rule and remedy, in at most 4095 bytes. Empty if none
 * failed. Good until the next failure on this thread.
 */
const char *npuemu_error(void);

struct npuemu_open {
	uint32_t size;          /* sizeof(struct npuemu_open) */
	uint32_t reserved0;
	const char *target;     /* in-process (or NULL), vfio-user:SOCKET, /dev/accel/accelN */
	const char *config;     /* TOML text of npuemu serve --config, of a card in process and for compiling; NULL: defaults */
	const char *time;       /* fast, timed, paced or paced:FACTOR, in process; NULL: what config says, or fast */
	const char *cp_trace;   /* in process: file for the control processor's instructions, at most 64 MiB; or NULL */
	uint64_t memory;        /* most bytes of models and tensors, but on /dev/accel; 0: 4 GiB. Only what is used is taken */
	uint64_t timeout_ms;    /* 0: 10 s */
	uint64_t reserved[4];
};

/*
 * Opens a card, and boots it if it is in process or on a socket. options may be NULL. A card is opened again, and
 * its models are put there again, when a run failed or was cancelled; counters then begin at 0.
 */
int32_t npuemu_open(const struct npuemu_open *options, npuemu_device *device);

/*
 * Closes a device and its models. A run in progress ends with NPUEMU_ERR_CANCELED first. The handle is closed
 * whatever is returned.
 */
int32_t npuemu_close(npuemu_device device);

struct npuemu_load {
	uint32_t size;
	uint32_t reserved0;
	const char *path;         /* of the model, if data is NULL; otherwise NULL, or a name for errors and for the
	                             directory of ONNX's external data */
	const char *format;       /* onnx, tflite, caffe, npuir or npu; NULL: the extension of path says it */
	const void *data;         /* the model itself */
	uint64_t data_size;
	const char *weights_path; /* of caffe; NULL: path with the extension .caffemodel */
	const void *weights;
	uint64_t weights_size;
	const char *options;      /* JSON, {"dims": {"batch": 4}, "shapes": {"x": [1, 3, 8, 8]}, "float": "bf16"}: sizes that
	                             the model leaves open (ONNX), and of inputs (ONNX, TensorFlow Lite), and what
	                             products of fp32 are made of: fp32, bf16 or fp16; or NULL */
	npuemu_progress progress; /* or NULL. A compilation that is cancelled ends in the background */
	void *user;
	uint64_t timeout_ms;      /* 0: none */
	uint64_t reserved[4];
};

/* Compiles a model for the device's configuration, unless it is compiled (npu), and puts it into the card's reach. */
int32_t npuemu_load(npuemu_device device, const struct npuemu_load *source, npuemu_model *model);

/* Takes a model away. It waits for a run of it. */
int32_t npuemu_unload(npuemu_model model);

/*
 * Compiles a model, for the configuration that config is the TOML text of, without a device. *compiled, of *size
 * bytes, is the content of an .npu file (docs/spec/model.md), for npuemu_free.
 */
int32_t npuemu_compile(const char *config, const struct npuemu_load *source, void **compiled, uint64_t *size);

struct npuemu_tensor {
	uint32_t size;
	uint32_t dtype;    /* enum npuemu_dtype */
	char name[512];    /* one that is longer is cut; the report has all of it */
	uint64_t bytes;    /* of its elements, dense, row-major, little-endian */
	uint32_t rank;
	uint32_t reserved0;
	uint64_t shape[64];
	uint64_t reserved[4];
};

/* How many inputs and outputs a model has; either pointer may be NULL. */
int32_t npuemu_tensors(npuemu_model model, uint32_t *inputs, uint32_t *outputs);

/* Describes input or output number index. */
int32_t npuemu_input(npuemu_model model, uint32_t index, struct npuemu_tensor *tensor);
int32_t npuemu_output(npuemu_model model, uint32_t index, struct npuemu_tensor *tensor);

/* A tensor's elements in the caller's memory. */
struct npuemu_buffer {
	void *data;     /* outputs only: NULL if it is not wanted */
	uint64_t size;  /* bytes: exactly the tensor's */
	uint32_t dtype; /* compared with the tensor's, unless it is NPUEMU_ANY */
	uint32_t reserved;
};

struct npuemu_run {
	uint32_t size;
	uint32_t reserved0;
	const struct npuemu_buffer *inputs;  /* as many as the model has, in its order; only read */
	const struct npuemu_buffer *outputs; /* likewise; written when the run succeeded. May be NULL with 0 outputs */
	uint32_t input_count;
	uint32_t output_count;               /* all, or 0 */
	npuemu_progress progress;            /* or NULL */
	void *user;
	uint64_t timeout_ms;                 /* 0: none */
	uint64_t reserved[4];

	/*
	 * Since interface 1.2: where to put what the card said of each program, as JSON text of *launches_size bytes and
	 * a 0 behind them, for npuemu_free; docs/capi.md says what is in it. Both or neither may be NULL.
	 */
	char **launches;
	uint64_t *launches_size;
};

/* What the card counted (docs/spec/queues.md §4.7), and times of this process. */
struct npuemu_counters {
	uint32_t size;
	uint32_t reserved0;
	uint64_t programs;      /* that ended, by any user of the card */
	uint64_t errors;        /* commands that failed */
	uint64_t instructions;
	uint64_t macs;          /* multiply-accumulates */
	uint64_t bytes_read;    /* by DMA */
	uint64_t bytes_written;
	uint64_t cycles;        /* model time (§13.8); 0 in mode fast; on /dev/accel of own runs */
	uint64_t device_ns;     /* from submission to completion; of a run only */
	uint64_t host_ns;       /* of operators that ran on the host; of a run only */
	uint64_t host_operators; /* of a run only */
	uint64_t reserved[4];
};

/*
 * Runs a model once. counters, which may be NULL, gets what was counted in this run. A run in which the card did
 * not count exactly the model's programs, instructions and products fails.
 */
int32_t npuemu_run(npuemu_model model, const struct npuemu_run *run, struct npuemu_counters *counters);

/* The card's counters since it was opened. */
int32_t npuemu_device_counters(npuemu_device device, struct npuemu_counters *counters);

/*
 * What became of each operator, as JSON text of *size bytes and a 0 behind them, for npuemu_free; docs/capi.md says
 * what is in it. The first call for a model runs the timing model over its programs.
 */
int32_t npuemu_report(npuemu_model model, char **json, uint64_t *size);

/* Since interface 1.1. */
struct npuemu_timeline {
	uint32_t size;
	uint32_t reserved0;
	const char *path;         /* of the JSON file, which is there whole or not at all */
	uint64_t limit;           /* instructions that are shown one by one; 0: 250000 */
	uint64_t on_bus;          /* a bit for each binding (docs/spec/model.md) that is memory on the bus; 0: all is device memory, as
	                             in the report */
	npuemu_progress progress; /* or NULL */
	void *user;
	uint64_t timeout_ms;      /* 0: none */
	uint64_t reserved[4];
};

/*
 * Writes when each engine does what, by the timing model, and what it waits for, as JSON that Perfetto and
 * chrome://tracing show (docs/spec/timing.md §13.10). It needs no run, and the card nothing of it. *merged, which may be NULL, is how
 * many instructions are in blocks because of the limit. Since interface 1.1.
 */
int32_t npuemu_timeline(npuemu_model model, const struct npuemu_timeline *options, uint64_t *merged);

/* The mistakes that a card in process found in how it is used, as JSON, likewise; [] of other cards. */
int32_t npuemu_findings(npuemu_device device, char **json, uint64_t *size);

/* Gives back what npuemu_compile, npuemu_run, npuemu_report and npuemu_findings returned; NULL is allowed. */
void npuemu_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif
