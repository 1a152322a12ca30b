// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"testing"

	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// BenchmarkCheck is what the linter costs an instruction that the program passes: small tiles in a loop, two buffers in turn.
func BenchmarkCheck(b *testing.B) {
	p := assemble(b, "b", `.isa 1.1
.features control
.array 16, 16
.spad 8192
.acc 8192
.bindings 2
sync.matrix signal=1:2
sync.store signal=3:2
loop reg=s0 count=10000
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
`)
	o := lint.Options{
		Bindings: []lint.Binding{{Size: 1024, Read: true}, {Size: 2048, Write: true}},
		Card:     &lint.Card{Rows: 16, Cols: 16, SpadSize: 8192, AccSize: 8192, Minor: isa.Minor, Features: isa.Features},
	}
	passed := uint64(0)
	for b.Loop() {
		r := lint.CheckFor(p, o)
		if len(r.Findings) > 0 || r.Undecided > 0 {
			b.Fatalf("%+v", r)
		}
		passed += r.Passed
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(passed), "ns/instruction")
}
