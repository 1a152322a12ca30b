// SPDX-License-Identifier: Apache-2.0

package cpu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	programRAM     = 256 << 10 // as testdata/c/link.ld says
	programHandler = 0x1000    // a ROM with the trap handler: wfi
)

// load returns a hart that is about to run a testdata program, and its memory.
// The ECALL at the program's end leaves it Waiting.
func load(tb testing.TB, name string) (*Core, []byte) {
	tb.Helper()
	image, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		tb.Fatal(err)
	}
	mem := make([]byte, programRAM)
	copy(mem, image)
	c, err := New(Config{
		Regions: []Region{
			{Base: testRAM, Mem: mem, Exec: true},
			{Base: programHandler, Mem: binary.LittleEndian.AppendUint32(nil, wfi), Exec: true, ReadOnly: true},
		},
		ResetPC: testRAM,
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.csr.mtvec = programHandler
	return c, mem
}

// TestPrograms compares C programs run here with the same programs compiled for
// the machine that made the test data. How
// the run is sliced must not show.
func TestPrograms(t *testing.T) {
	for _, name := range []string{"crc32", "matmul", "quicksort", "strings"} {
		for _, slice := range []int{1 << 30, 1, 7} {
			t.Run(fmt.Sprintf("%s/%d", name, slice), func(t *testing.T) {
				want, err := os.ReadFile(filepath.Join("testdata", name+".want"))
				if err != nil {
					t.Fatal(err)
				}
				c, mem := load(t, name)
				steps := 0
				for st := Running; st != Waiting; {
					var n int
					if n, st = c.Run(slice); n > slice {
						t.Fatalf("Run(%d) did %d steps", slice, n)
					}
					if steps += n; steps > 20_000_000 {
						t.Fatalf("no end after %d steps, pc %#x", steps, c.PC())
					}
				}
				t.Logf("%d steps", steps)
				if c.csr.mcause != causeECallM {
					t.Fatalf("ended by mcause %d at %#x, want ECALL", c.csr.mcause, c.csr.mepc)
				}
				var got strings.Builder
				results := mem[c.Reg(11)-testRAM:]
				for i := range c.Reg(10) {
					fmt.Fprintf(&got, "%08x\n", binary.LittleEndian.Uint32(results[4*i:]))
				}
				if diff := cmp.Diff(string(want), got.String()); diff != "" {
					t.Errorf("results (-native +here):\n%s", diff)
				}
			})
		}
	}
}

// BenchmarkMIPS reports millions of retired instructions per second.
func BenchmarkMIPS(b *testing.B) {
	for _, name := range []string{"crc32", "matmul", "quicksort", "strings"} {
		b.Run(name, func(b *testing.B) {
			c, _ := load(b, name)
			start := c.Steps()
			for b.Loop() {
				c.SetPC(testRAM)
				c.Run(1 << 30)
			}
			if c.csr.mcause != causeECallM {
				b.Fatalf("ended by mcause %d at %#x, want ECALL", c.csr.mcause, c.csr.mepc)
			}
			b.ReportMetric(float64(c.Steps()-start)/1e6/b.Elapsed().Seconds(), "MIPS")
		})
	}
}
