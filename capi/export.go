// SPDX-License-Identifier: Apache-2.0

package main

// #cgo CFLAGS: -Wall -Werror
// #include "npuemu.h"
// void *capi_copy(const void *from, size_t n);
// int32_t capi_fail(int32_t status, const char *text, size_t n);
// int32_t capi_progress(npuemu_progress f, void *user, uint64_t done, uint64_t total);
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
	"unsafe"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/run"
)

// version is set by the linker (make lib).
var version = "unknown"

// versionC stays.
var versionC = (*C.char)(copied([]byte(version + "\x00")))

// copied is a copy of b for npuemu_free; b is not empty. It panics without memory, as Go does.
func copied(b []byte) unsafe.Pointer {
	p := C.capi_copy(unsafe.Pointer(&b[0]), C.size_t(len(b)))
	if p == nil {
		panic("no memory")
	}
	return p
}

// dtypes are enum npuemu_dtype.
var dtypes = [...]C.uint32_t{
	ir.Invalid: C.NPUEMU_ANY, ir.Int4: C.NPUEMU_INT4, ir.Uint4: C.NPUEMU_UINT4, ir.Int8: C.NPUEMU_INT8, ir.Uint8: C.NPUEMU_UINT8, ir.Int16: C.NPUEMU_INT16,
	ir.Uint16: C.NPUEMU_UINT16, ir.Int32: C.NPUEMU_INT32, ir.Uint32: C.NPUEMU_UINT32, ir.Int64: C.NPUEMU_INT64, ir.Uint64: C.NPUEMU_UINT64,
	ir.Bool: C.NPUEMU_BOOL, ir.Float16: C.NPUEMU_FLOAT16, ir.BFloat16: C.NPUEMU_BFLOAT16, ir.Float8E4M3: C.NPUEMU_FLOAT8E4M3,
	ir.Float8E5M2: C.NPUEMU_FLOAT8E5M2, ir.Float32: C.NPUEMU_FLOAT32, ir.Float64: C.NPUEMU_FLOAT64,
}

// finish returns the status of err and notes its text. It is called in the goroutine of the export, on the thread of the
// caller.
func finish(err error) C.int32_t {
	if err == nil {
		return C.NPUEMU_OK
	}
	var f failure
	status := C.int32_t(C.NPUEMU_ERR_INTERNAL)
	if errors.As(err, &f) {
		status = C.int32_t(f.status)
	}
	text := "npuemu: " + err.Error()
	return C.capi_fail(status, (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text)))
}

// text is a string of C; NULL is empty.
func text(p *C.char) string {
	if p == nil {
		return ""
	}
	return C.GoString(p)
}

// content copies memory of C. A size without memory, or the other way round, is an error.
func content(name string, p unsafe.Pointer, size C.uint64_t) ([]byte, error) {
	switch {
	case p == nil && size == 0:
		return nil, nil
	case p == nil:
		return nil, failure{statusArgument, fmt.Errorf("%s is NULL and has %d bytes", name, size)}
	case size > 1<<40:
		return nil, failure{statusArgument, fmt.Errorf("%s has %d bytes; the most is 2⁴⁰", name, size)}
	}
	return append([]byte{}, unsafe.Slice((*byte)(p), int(size))...), nil
}

// progressOf is a function of C.
func progressOf(f C.npuemu_progress, user unsafe.Pointer) func(done, total uint64) bool {
	if f == nil {
		return nil
	}
	return func(done, total uint64) bool {
		return C.capi_progress(f, user, C.uint64_t(done), C.uint64_t(total)) != 0
	}
}

//export capiVersion
func capiVersion() *C.char { return versionC }

//export capiOpen
func capiOpen(o *C.struct_npuemu_open, out *C.uint64_t) C.int32_t {
	options := deviceOptions{
		target: text(o.target), config: text(o.config), time: text(o.time), trace: text(o.cp_trace), memory: uint64(o.memory),
		timeout: time.Duration(min(uint64(o.timeout_ms), 1<<40)) * time.Millisecond,
	}
	return finish(wait(nil, nil, func(func(int, int)) error {
		d, err := openDevice(options)
		if err == nil {
			*out = C.uint64_t(objects.add(d))
		}
		return err
	}))
}

//export capiClose
func capiClose(handle C.uint64_t) C.int32_t {
	d, err := find[*device](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	if !objects.remove(uint64(handle)) {
		return finish(failure{statusHandle, fmt.Errorf("handle %#x is closed", uint64(handle))})
	}
	return finish(wait(nil, nil, func(func(int, int)) error { return d.close() }))
}

// sourceOf reads what a model is.
func sourceOf(o *C.struct_npuemu_load) (s source, err error) {
	s = source{Source: compiler.Source{Path: text(o.path), Format: text(o.format), WeightsPath: text(o.weights_path)}, options: text(o.options)}
	var weights error
	s.Data, err = content("data", o.data, o.data_size)
	s.Weights, weights = content("weights", o.weights, o.weights_size)
	return s, errors.Join(err, weights)
}

//export capiLoad
func capiLoad(handle C.uint64_t, o *C.struct_npuemu_load, out *C.uint64_t) C.int32_t {
	d, err := find[*device](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	s, err := sourceOf(o)
	if err != nil {
		return finish(err)
	}
	ctx, cancel := limited(d.ctx, uint64(o.timeout_ms))
	defer cancel(nil)
	return finish(wait(cancel, progressOf(o.progress, o.user), func(note func(int, int)) error {
		n, err := d.load(ctx, s, note)
		if err == nil {
			*out = C.uint64_t(n)
		}
		return err
	}))
}

//export capiUnload
func capiUnload(handle C.uint64_t) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	return finish(wait(nil, nil, func(func(int, int)) error { return l.unload() }))
}

//export capiCompile
func capiCompile(config *C.char, o *C.struct_npuemu_load, out *unsafe.Pointer, size *C.uint64_t) C.int32_t {
	s, err := sourceOf(o)
	if err != nil {
		return finish(err)
	}
	ctx, cancel := limited(context.Background(), uint64(o.timeout_ms))
	defer cancel(nil)
	cfg := text(config)
	return finish(wait(cancel, progressOf(o.progress, o.user), func(note func(int, int)) error {
		b, err := compile(ctx, cfg, s, note)
		if err == nil {
			*out, *size = copied(b), C.uint64_t(len(b))
		}
		return err
	}))
}

//export capiTensors
func capiTensors(handle C.uint64_t, inputs, outputs *C.uint32_t) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err == nil {
		*inputs, *outputs = C.uint32_t(len(l.m.Inputs)), C.uint32_t(len(l.m.Outputs))
	}
	return finish(err)
}

//export capiTensor
func capiTensor(handle C.uint64_t, output C.int, index C.uint32_t, out *C.struct_npuemu_tensor) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	kind, tensors := "input", l.m.Inputs
	if output != 0 {
		kind, tensors = "output", l.m.Outputs
	}
	if uint64(index) >= uint64(len(tensors)) {
		return finish(failure{statusArgument, fmt.Errorf("%s %d; the model has %d", kind, index, len(tensors))})
	}
	t := &tensors[index]
	for i, c := range []byte(whole(t.Name, len(out.name)-1)) {
		out.name[i] = C.char(c)
	}
	out.dtype, out.bytes, out.rank = dtypes[t.TypeOf()], C.uint64_t(t.Bytes()), C.uint32_t(len(t.Shape))
	for i, n := range t.Shape {
		out.shape[i] = C.uint64_t(n)
	}
	return finish(nil)
}

// whole is as many whole characters of s as have n bytes at most.
func whole(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// buffersOf are the caller's, as many as n.
func buffersOf(p *C.struct_npuemu_buffer, n C.uint32_t, kind string) ([]buffer, error) {
	var l []buffer
	for i, b := range unsafe.Slice(p, int(n)) {
		typ := ir.Invalid
		for t, d := range dtypes {
			if d == b.dtype {
				typ = ir.Type(t)
			}
		}
		if typ == ir.Invalid && b.dtype != C.NPUEMU_ANY {
			return nil, failure{statusBuffer, fmt.Errorf("%s %d has dtype %d, which is none", kind, i, b.dtype)}
		}
		if b.data == nil && b.size != 0 || b.size > 1<<40 {
			return nil, failure{statusBuffer, fmt.Errorf("%s %d is %p and has %d bytes", kind, i, b.data, b.size)}
		}
		c := buffer{typ: typ}
		if b.data != nil {
			c.data = unsafe.Slice((*byte)(b.data), int(b.size))
		}
		l = append(l, c)
	}
	return l, nil
}

//export capiRun
func capiRun(handle C.uint64_t, o *C.struct_npuemu_run, out *C.struct_npuemu_counters) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	inputs, err := buffersOf(o.inputs, o.input_count, "input")
	if err != nil {
		return finish(err)
	}
	outputs, err := buffersOf(o.outputs, o.output_count, "output")
	if err != nil {
		return finish(err)
	}
	ctx, cancel := limited(l.d.ctx, uint64(o.timeout_ms))
	defer cancel(nil)
	return finish(wait(cancel, progressOf(o.progress, o.user), func(note func(int, int)) error {
		r, err := l.run(ctx, inputs, outputs, note)
		if err != nil {
			return err
		}
		*out = countersOf(r.Counters)
		out.device_ns, out.host_ns, out.host_operators = C.uint64_t(r.Device), C.uint64_t(r.Host), C.uint64_t(l.hosts())
		if o.launches == nil {
			return nil
		}
		b, err := launches(r)
		if err == nil {
			giveText(b, o.launches, o.launches_size)
		}
		return err
	}))
}

func countersOf(c run.Counters) C.struct_npuemu_counters {
	return C.struct_npuemu_counters{
		programs: C.uint64_t(c.Programs), errors: C.uint64_t(c.Errors), instructions: C.uint64_t(c.Instructions), macs: C.uint64_t(c.MACs),
		bytes_read: C.uint64_t(c.BytesRead), bytes_written: C.uint64_t(c.BytesWritten), cycles: C.uint64_t(c.Cycles),
	}
}

//export capiCounters
func capiCounters(handle C.uint64_t, out *C.struct_npuemu_counters) C.int32_t {
	d, err := find[*device](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	return finish(wait(nil, nil, func(func(int, int)) error {
		c, err := d.counters()
		if err == nil {
			*out = countersOf(c)
		}
		return err
	}))
}

// giveText copies b for C, with a 0 behind it.
func giveText(b []byte, out **C.char, size *C.uint64_t) {
	*out, *size = (*C.char)(copied(append(b[:len(b):len(b)], 0))), C.uint64_t(len(b))
}

//export capiReport
func capiReport(handle C.uint64_t, out **C.char, size *C.uint64_t) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	return finish(wait(nil, nil, func(func(int, int)) error {
		b, err := l.describe()
		if err == nil {
			giveText(b, out, size)
		}
		return err
	}))
}

//export capiTimeline
func capiTimeline(handle C.uint64_t, o *C.struct_npuemu_timeline, merged *C.uint64_t) C.int32_t {
	l, err := find[*loaded](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	t := compiler.TimeLine{OnBus: uint64(o.on_bus), Limit: uint64(o.limit)}
	path := text(o.path)
	ctx, cancel := limited(l.d.ctx, uint64(o.timeout_ms))
	defer cancel(nil)
	return finish(wait(cancel, progressOf(o.progress, o.user), func(note func(int, int)) error {
		t.Progress = note
		n, err := l.timeLine(ctx, path, t)
		*merged = C.uint64_t(n)
		return err
	}))
}

//export capiFindings
func capiFindings(handle C.uint64_t, out **C.char, size *C.uint64_t) C.int32_t {
	d, err := find[*device](&objects, uint64(handle))
	if err != nil {
		return finish(err)
	}
	return finish(wait(nil, nil, func(func(int, int)) error {
		f, err := d.findings()
		if err != nil {
			return err
		}
		b, err := json.Marshal(f)
		if err == nil {
			giveText(b, out, size)
		}
		return err
	}))
}
