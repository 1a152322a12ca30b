// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// What tokens leave without an order is noted while a program runs, and changes
// nothing else; what they order is not. The linter says the same of the text.
func TestHazards(t *testing.T) {
	head := ".isa 1.2\n.features gemm, control, vector\n.array 16, 16\n.spad 4096\n.acc 4096\n.bindings 2\n"
	tests := []struct{ name, in, want string }{
		{"ordered", "load binding=0 local=0 nx=64 signal=0\nstore binding=1 local=0 nx=64 wait=0", ""},
		{"read after write", "load binding=0 local=0 nx=64\nstore binding=1 local=32 nx=64", "instruction 1 reads scratchpad 0x20, which instruction 0 writes"},
		{"accumulators", "fill local=0 nx=8 acc_mem\nmatmul k=1 n=1 ifmap=0 acc=4", "instruction 1 writes accumulators 0x4, which instruction 0 writes"},
		{"memory behind two bindings", "load binding=0 local=0 nx=64\nstore binding=1 offset=0 local=64 nx=64", "instruction 1 writes memory 0x1020, which instruction 0 reads"},
		{"token", "loop reg=s0 count=2\nsync.load signal=0:2\nsync.matrix wait=0\nsync.vector wait=0\nend", "instructions 3 and 2 wait for token 0 in no order"},
		{"again in a loop", "loop reg=s0 count=50\nload binding=0 local=0 nx=8\nstore binding=1 offset=512 local=0 nx=8\nend",
			"instruction 2 reads scratchpad 0x0, which instruction 1 writes; instruction 1 writes scratchpad 0x0, which instruction 2 reads"},
		{"planes at the same place, then one", "loop reg=s0 start=1 step=-1 count=2\nwith nz=s0*1\nload binding=0 local=0 nx=4 ny=2 nz=1 stride_y=8 local_stride=8\nend\nsync.load signal=0\nstore binding=1 local=0 nx=4 wait=0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := isa.Assemble("t", []byte(head+tt.in+"\nhalt\n"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := core.New(core.Config{Rows: 16, Cols: 16, SpadSize: 4096, AccSize: 4096, ISAMinor: isa.Minor, Features: isa.Features})
			if err != nil {
				t.Fatal(err)
			}
			// The second begins 32 bytes behind the first.
			bindings := []core.Binding{{Addr: 0x1000, Size: 1024, Read: true}, {Addr: 0x1020, Size: 1024, Write: true}}
			for range 2 { // nothing is left of the run before
				if _, err := c.Run(t.Context(), p.Image(), bindings, nowhere{}); err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, h := range c.Hazards() {
					got = append(got, h.String())
				}
				if strings.Join(got, "; ") != tt.want {
					t.Errorf("hazards %q, want %q", got, tt.want)
				}
			}
			image := p.Image()
			image[len(image)-1]++ // another CRC
			if _, err := c.Run(t.Context(), image, bindings, nowhere{}); err == nil || len(c.Hazards()) > 0 {
				t.Errorf("a program that does not begin: %v, hazards %v of another", err, c.Hazards())
			}
			if f := lint.Check(p).Findings; tt.name != "memory behind two bindings" && len(f) > 0 != (tt.want != "") {
				t.Errorf("the linter has %d findings: %+v", len(f), f)
			}
		})
	}
}

// Tokens that are left at HALT are told, each time the program runs; those of a program that fails are not.
func TestUnused(t *testing.T) {
	const head = ".isa 1.1\n.features control\n.array 16, 16\n.spad 64\n.bindings 1\n"
	for _, tt := range []struct{ name, in, want string }{
		{"none", "sync.load signal=3\nsync.store wait=3", ""},
		{"one", "sync.load signal=3:4\nsync.store wait=3:3", "1 of token 3 left at HALT, first signalled by instruction 0"},
		{"the first of them", "sync.load signal=3:4\nsync.store wait=3:4\nsync.load signal=3\nsync.load signal=3", "2 of token 3 left at HALT, first signalled by instruction 2"},
		{"several", "sync.load signal=0\nloop reg=s0 count=15\nsync.vector signal=15:15\nend",
			"1 of token 0 left at HALT, first signalled by instruction 0; 225 of token 15 left at HALT, first signalled by instruction 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := core.New(core.Config{Rows: 16, Cols: 16, SpadSize: 4096, AccSize: 4096, ISAMinor: isa.Minor, Features: isa.Features})
			if err != nil {
				t.Fatal(err)
			}
			run := func(text string) (got []string, err error) {
				p, err := isa.Assemble("t", []byte(head+text+"\nhalt\n"))
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.Run(t.Context(), p.Image(), []core.Binding{{Size: 64, Read: true}}, nowhere{})
				for _, u := range c.Unused() {
					got = append(got, u.String())
				}
				return got, err
			}
			for n := range 4 { // then it is known, and is not followed
				if got, err := run(tt.in); err != nil || strings.Join(got, "; ") != tt.want {
					t.Errorf("run %d: %q, %v; want %q", n, got, err, tt.want)
				}
				if got, err := run("sync.load signal=1\nstore binding=0 local=0 nx=4"); err == nil || got != nil {
					t.Errorf("a program that fails: %q, %v", got, err)
				}
				p, _ := isa.Assemble("t", []byte(head+tt.in+"\nhalt\n"))
				left := 0
				for _, f := range lint.Check(p).Findings {
					if f.Rule == "TOKEN_UNUSED" {
						left++
					}
				}
				if got, _ := run(tt.in); len(got) != left {
					t.Errorf("the linter has %d, the core %q", left, got)
				}
			}
		})
	}
}

// nowhere is memory that holds nothing.
type nowhere struct{}

func (nowhere) Load(core.Binding, uint64, []byte) error  { return nil }
func (nowhere) Store(core.Binding, uint64, []byte) error { return nil }

// rounds is a program of n rounds of load, product and store with two buffers in
// turn, each engine held back by tokens.
func rounds(n int) string {
	return fmt.Sprintf(`.isa 1.1
.features control
.array 16, 16
.spad 8192
.acc 8192
.bindings 2
sync.matrix signal=1:2
sync.store signal=3:2
loop reg=s0 count=%d
scalar op=and rd=s1 ra=s0 imm=1 immediate
with local=s1*1024
load binding=0 local=0 nx=1024 wait=1 signal=0
sync.matrix wait=0
with weights=s1*1024
preload k=16 n=16 weights=0 stride=16 wait=3
with ifmap=s1*1024 acc=s1*2048
matmul k=16 n=16 ifmap=256 acc=0 mx=32 stride_x=16 acc_stride=64 signal=1
sync.matrix signal=2
with local=s1*2048
store binding=1 local=0 nx=2048 acc_mem wait=2 signal=3
end
sync.load wait=1:2
sync.matrix wait=3:2
halt
`, n)
}

// BenchmarkHazards is a program of small instructions: 6 of engines in a round, as it comes the first time and as it comes
// again, when it is known (known.go). What of the first is the tracker's, core/hazard's BenchmarkTracker says, for the same
// instructions.
func BenchmarkHazards(b *testing.B) {
	p, err := isa.Assemble("b", []byte(rounds(1000)))
	if err != nil {
		b.Fatal(err)
	}
	if f := lint.Check(p).Findings; len(f) > 0 {
		b.Fatalf("%+v", f[0])
	}
	for _, again := range []bool{false, true} {
		name := "first"
		if again {
			name = "again"
		}
		b.Run(name, func(b *testing.B) {
			c, err := core.New(core.Config{Rows: 16, Cols: 16, SpadSize: 8192, AccSize: 8192, ISAMinor: isa.Minor, Features: isa.Features})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			bindings := []core.Binding{{Addr: 0, Size: 1 << 20, Read: true}, {Addr: 1 << 30, Size: 1 << 20, Write: true}}
			image, spad := p.Image(), uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				if !again {
					spad = (spad + 1) % 4096
					binary.LittleEndian.PutUint32(image[0x1c:], 4096+spad)
				}
				if _, err := c.Run(b.Context(), image, bindings, nowhere{}); err != nil {
					b.Fatal(err)
				}
				if len(c.Hazards()) > 0 {
					b.Fatal(c.Hazards())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/6004, "ns/instruction")
		})
	}
}
