// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/compiler"
	"npuemu/compiler/ir"
)

const add = `graph "add"
input %x: int32[4]
node "sum" npu.element(%x, %x) -> (%y: int32[4]) {op="add"}
output %y
`

// slow takes seconds.
func slow() string {
	var b strings.Builder
	b.WriteString("graph \"slow\"\ninput %x0: float32[1, 512, 512]\n")
	for i := range 300 {
		fmt.Fprintf(&b, "node \"n%d\" npu.gemm(%%x%d, %%x0) -> (%%x%d: float32[1, 512, 512]) {rounding=\"none\"}\n", i, i, i+1)
	}
	b.WriteString("output %x300\n")
	return b.String()
}

func graph(text string) source {
	return source{Source: compiler.Source{Format: "npuir", Data: []byte(text)}}
}

func quiet(int, int) {}

// open opens a device that ends with the test.
func open(t *testing.T, o deviceOptions) *device {
	t.Helper()
	d, err := openDevice(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func load(t *testing.T, d *device, text string) *loaded {
	t.Helper()
	h, err := d.load(t.Context(), graph(text), quiet)
	if err != nil {
		t.Fatal(err)
	}
	l, err := find[*loaded](&objects, h)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// twice runs l on n and compares.
func twice(ctx context.Context, l *loaded, n uint32) error {
	in, out := make([]byte, 16), make([]byte, 16)
	binary.LittleEndian.PutUint32(in[4:], n)
	r, err := l.run(ctx, []buffer{{in, ir.Int32}}, []buffer{{out, ir.Int32}}, quiet)
	if err != nil {
		return err
	}
	want := make([]byte, 16)
	binary.LittleEndian.PutUint32(want[4:], 2*n)
	if !bytes.Equal(out, want) || r.Counters.Programs != 1 {
		return fmt.Errorf("%d: % x, %+v", n, out, r.Counters)
	}
	return nil
}

func statusOf(err error) int32 {
	var f failure
	if errors.As(err, &f) {
		return f.status
	}
	return statusInternal
}

// Whatever is done with a device at the same time, results are right, and what fails says that its object is gone.
func TestConcurrent(t *testing.T) {
	d := open(t, deviceOptions{})
	l := load(t, d, add)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			for k := range 20 {
				err := twice(d.ctx, l, uint32(100*i+k))
				switch k % 4 {
				case 0:
					_, e := l.describe()
					err = errors.Join(err, e)
				case 1:
					_, e := d.counters()
					err = errors.Join(err, e)
				case 2:
					_, e := d.findings()
					err = errors.Join(err, e)
				case 3:
					var own uint64
					var e error
					if own, e = d.load(d.ctx, graph(add), quiet); e == nil {
						o, _ := find[*loaded](&objects, own)
						e = errors.Join(twice(d.ctx, o, 7), o.unload())
					}
					err = errors.Join(err, e)
				}
				if s := statusOf(err); err != nil && s != statusCanceled && s != statusHandle {
					t.Errorf("%d, %d: %v", i, k, err)
				}
				if i == 0 && k == 15 {
					if err := d.close(); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	close(start)
	wg.Wait()
	if len(objects.of) != 0 {
		t.Errorf("%d handles are left", len(objects.of))
	}
}

// After a run that was cancelled, a timeout, or the end of a card, models are there again, also with one processor for all.
func TestOpenedAgain(t *testing.T) {
	testOpenedAgain(t)
	t.Run("one processor", func(t *testing.T) {
		before := runtime.GOMAXPROCS(1)
		defer runtime.GOMAXPROCS(before)
		testOpenedAgain(t)
	})
}

func testOpenedAgain(t *testing.T) {
	t.Helper()
	d := open(t, deviceOptions{})
	l, s := load(t, d, add), load(t, d, slow())
	input := []buffer{{make([]byte, 512*512*4), ir.Invalid}}
	for _, tt := range []struct {
		name   string
		ms     uint64
		cancel error
		want   int32
	}{
		{"timeout", 30, nil, statusTimeout},
		{"cancelled", 0, errCanceled, statusCanceled},
	} {
		ctx, cancel := limited(d.ctx, tt.ms)
		if tt.cancel != nil {
			time.AfterFunc(20*time.Millisecond, func() { cancel(tt.cancel) })
		}
		if _, err := s.run(ctx, input, nil, quiet); statusOf(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
		cancel(nil)
		if err := twice(d.ctx, l, 5); err != nil {
			t.Errorf("after %s: %v", tt.name, err)
		}
	}
	c, err := d.counters()
	if err != nil || c.Programs != 1 {
		t.Errorf("the card counted %d programs since it was opened, %v", c.Programs, err)
	}
	if err := l.unload(); err != nil {
		t.Error(err)
	}
	if err := twice(d.ctx, l, 5); statusOf(err) != statusHandle {
		t.Errorf("a run of what was unloaded: %v", err)
	}
	if err := l.unload(); statusOf(err) != statusHandle {
		t.Errorf("a second unload: %v", err)
	}
}

// A time line that is cancelled leaves nothing, and the old one where there was one.
func TestTimeLine(t *testing.T) {
	d := open(t, deviceOptions{})
	l := load(t, d, add)
	name := filepath.Join(t.TempDir(), "t.json")
	if merged, err := l.timeLine(t.Context(), name, compiler.TimeLine{}); err != nil || merged != 0 {
		t.Fatalf("%d, %v", merged, err)
	}
	whole, err := os.ReadFile(name)
	if err != nil || !json.Valid(whole) {
		t.Fatalf("%s, %v", whole, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCanceled)
	if _, err := l.timeLine(ctx, name, compiler.TimeLine{}); statusOf(err) != statusCanceled {
		t.Errorf("cancelled: %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("the old one is %s, %v", b, err)
	}
	if files, err := os.ReadDir(filepath.Dir(name)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// A panic is an error of the call, and the device goes on.
func TestPanic(t *testing.T) {
	d := open(t, deviceOptions{})
	l := load(t, d, add)
	err := wait(nil, nil, func(func(int, int)) error {
		return d.use(d.ctx, func() error { panic("why") })
	})
	if statusOf(err) != statusInternal || !strings.Contains(err.Error(), "why") || !strings.Contains(err.Error(), "device_test.go") {
		t.Errorf("%v", err)
	}
	if err := twice(d.ctx, l, 5); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// Names that are too long are cut where a character ends.
func TestWhole(t *testing.T) {
	for _, tt := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aéb", 2, "a"}, {"aéb", 3, "aé"}, {"é", 1, ""}, {"\x80\x80", 1, ""}} {
		if got := whole(tt.s, tt.n); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.s, tt.n, got, tt.want)
		}
	}
}
