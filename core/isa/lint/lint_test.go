// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

func assemble(t testing.TB, name, text string) *isa.Program {
	t.Helper()
	p, err := isa.AssembleFiles(name, []byte(text), os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Programs that are right: all of the tree, and patterns that look wrong.
func TestNothing(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".npuasm" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		for _, f := range lint.Check(assemble(t, path, string(text))).Findings {
			t.Errorf("%s: %v %v: %s", path, f.At, f.Rule, f.Message)
		}
		return nil
	})
	if err != nil || n < 2 {
		t.Errorf("%d programs, want those of the tree: %v", n, err)
	}
	page, err := os.ReadFile("../../../docs/spec/isa.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := strings.Split(string(page), "\n    .isa ")[1:]
	open := 0
	for _, text := range programs {
		var lines []string
		for line := range strings.Lines(".isa " + text) {
			if strings.HasPrefix(line, ".isa") || strings.HasPrefix(line, "    ") {
				lines = append(lines, strings.TrimPrefix(line, "    "))
			} else if strings.TrimSpace(line) != "" {
				break
			}
		}
		p := assemble(t, "isa.md", strings.Join(lines, ""))
		all := []*[isa.Arguments]int32{nil}
		if p.Open() {
			open++
			all = []*[isa.Arguments]int32{{}, {1}, {2, 1}, {128}, {128, -1}}
			if r := lint.Check(p); !r.Open || len(r.Findings) > 0 {
				t.Errorf("a program of §5.8 without its arguments: %+v", r)
			}
			p.Args = &[isa.Arguments]int32{129}
			if r := lint.Check(p); len(r.Findings) != 2 || r.Findings[0].Rule != "LOCAL_BOUNDS" {
				t.Errorf("a program of §5.8 with too many rows: %+v", r)
			}
		}
		for _, p.Args = range all {
			if r := lint.Check(p); r.Open || len(r.Findings) > 0 {
				t.Errorf("a program of §5.8, arguments %v: %+v", p.Args, r)
			}
		}
	}
	if open == 0 {
		t.Error("no program of §5.8 has arguments")
	}
	for name, text := range map[string]string{
		"two buffers in turn": `
			loop reg=s0 count=1000
			with if=s1
			sync.load wait=1
			with if=s1
			sync.load wait=1
			load binding=0 local=0 nx=64 signal=0
			load binding=0 local=64 nx=64 signal=0
			sync.matrix wait=0
			preload k=1 n=8 weights=0 signal=1
			sync.matrix wait=0
			preload k=1 n=8 weights=64 signal=1
			scalar op=move rd=s1 imm=1 immediate
			end
			sync.load wait=1:2`,
		"one signal for two engines":      "load binding=0 local=0 nx=64 signal=0:2\npreload k=1 n=8 weights=0 wait=0\nelement op=move type=int8 out_type=int8 x=0 out=64 n=8 wait=0",
		"two engines that one waits for":  "load binding=0 local=0 nx=64 signal=0\nfill local=64 nx=64 signal=0\npreload k=2 n=8 weights=0 stride=64 wait=0:2",
		"columns of the same rows":        "load binding=0 local=0 nx=16 ny=8 stride_y=16 local_stride=32\nfill local=16 nx=16 ny=8 stride=32",
		"a token again, behind the first": "load binding=0 local=0 nx=64 signal=0\nfill local=0 nx=64 wait=0 signal=1:2\nsync.load wait=1\nsync.store wait=1\nload binding=0 local=0 nx=64 signal=0\nstore binding=1 local=0 nx=64 wait=0",
		"through a third engine":          "load binding=0 local=0 nx=64 signal=0\nsync.matrix wait=0 signal=1\nstore binding=1 local=0 nx=64 wait=1",
		"readers":                         "load binding=0 local=0 nx=64 signal=0:3\nstore binding=1 local=0 nx=64 wait=0\npreload k=1 n=8 weights=0 wait=0\nelement op=move type=int8 out_type=int8 x=0 out=64 n=8 wait=0",
		"left out by a condition":         "load binding=0 local=0 nx=64\nwith if=s3\nfill local=0 nx=64",
	} {
		if f := lint.Check(assemble(t, name, head+text+"\nhalt\n")).Findings; len(f) > 0 {
			t.Errorf("%s: %v %s: %s", name, f[0].At, f[0].Rule, f[0].Message)
		}
	}
}

// head is what programs begin with; their instructions start in line 6.
const head = ".isa 1.1\n.features gemm, control, vector\n.spad 4096\n.acc 4096\n.bindings 2\n"

func TestFindings(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"read after write", "load binding=0 local=0 nx=64\nstore binding=1 local=32 nx=64",
			"HAZARD t:7 1 t:6 0: read after write: reads scratchpad address 0x20, which instruction 0 (load) of t:6 writes; no token orders the two"},
		{"write after read", "load binding=0 local=0 nx=64 signal=0\nstore binding=1 local=32 nx=64 wait=0\nfill local=95 nx=1",
			"HAZARD t:8 2 t:7 1: write after read: writes scratchpad address 0x5f, which instruction 1 (store) of t:7 reads; no token orders the two"},
		{"write after write", "fill local=0 nx=8 acc_mem\nmatmul k=1 n=1 ifmap=0 acc=4",
			"HAZARD t:7 1 t:6 0: write after write: writes accumulators address 0x4, which instruction 0 (fill) of t:6 writes; no token orders the two"},
		{"in memory", "store binding=1 local=0 nx=64\nload binding=1 local=64 offset=60 nx=64",
			"HAZARD t:7 1 t:6 0: read after write: reads binding 1 address 0x3c, which instruction 0 (store) of t:6 writes; no token orders the two"},
		{"zero points", "operands per_channel b_zeros=100 a_stride=1 b_stride=8 acc_stride=32\nfill local=107 nx=1\ngemm m=1 n=8 k=1 a=0 b=8 acc=0",
			"HAZARD t:8 2 t:7 1: read after write: reads scratchpad address 0x6b, which instruction 1 (fill) of t:7 writes; no token orders the two"},
		{"in an iteration", "loop reg=s0 count=100\nwith local=s0*8\nload binding=0 local=0 nx=8\nend\nfill local=795 nx=8",
			"HAZARD t:10 4 t:8 2: write after write: writes scratchpad address 0x31b, which instruction 2 (load) of t:8 writes; no token orders the two"},
		{"of the next iteration", "loop reg=s0 count=3\nload binding=0 local=0 nx=8 signal=0\npreload k=1 n=8 weights=0 wait=0\nend",
			"HAZARD t:7 1 t:8 2: write after read: writes scratchpad address 0x0, which instruction 2 (preload) of t:8 reads; no token orders the two"},
		{"wait without signal", "sync.matrix wait=5:2",
			"DEADLOCK t:6 0 -: waits for 2 of token 5 for ever, of which there are 0; nothing signals it"},
		{"too few", "loop reg=s0 count=3\nsync.load signal=1\nsync.matrix wait=1:2\nend",
			"DEADLOCK t:8 2 t:7 1: waits for 2 of token 1 for ever, of which there are 1; instruction 1 (sync.load) of t:7 signals it"},
		{"in a circle", "sync.load wait=1 signal=0\nsync.matrix wait=0 signal=1",
			"DEADLOCK t:6 0 t:7 1: waits for 1 of token 1 for ever, of which there are 0; instruction 1 (sync.matrix) of t:7 signals it, and the matrix engine waits at instruction 1\n" +
				"DEADLOCK t:7 1 t:6 0: waits for 1 of token 0 for ever, of which there are 0; instruction 0 (sync.load) of t:6 signals it, and the load engine waits at instruction 0"},
		{"left over", "sync.load signal=3:4\nsync.matrix wait=3:3",
			"TOKEN_UNUSED t:6 0 t:7 1: 1 of token 3 that it signals nobody waits for; the last that waits for token 3 in the text is instruction 1 (sync.matrix) of t:7"},
		{"overflow", "loop reg=s0 count=300\nsync.load signal=3\nend\nloop reg=s0 count=300\nsync.store wait=3\nend",
			"TOKEN_OVERFLOW t:7 1 t:10 4: signals token 3 more than 255 times ahead of who waits for it, instruction 4 (sync.store) of t:10"},
		{"overflow if an engine is slow", "loop reg=s0 count=300\nsync.load signal=3\nsync.store wait=3\nend",
			"TOKEN_OVERFLOW t:7 1 t:8 2: signals token 3 more than 255 times ahead of who waits for it, instruction 2 (sync.store) of t:8"},
		{"two that wait", "loop reg=s0 count=2\nsync.load signal=0:2\nsync.matrix wait=0\nsync.vector wait=0\nend",
			"TOKEN_RACE t:8 2 t:9 3: instruction 3 (sync.vector) of t:9 also waits for token 0; which of the two gets the earlier signal, only their time decides"},
		{"two that signal", "sync.load signal=0\nsync.store signal=0\nsync.matrix wait=0\nsync.matrix wait=0",
			"TOKEN_RACE t:7 1 t:6 0: token 0 is also signalled by instruction 0 (sync.load) of t:6; which of the two a wait for it sees first, only their time decides"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines []string
			for _, f := range lint.Check(assemble(t, "t", head+tt.in+"\nhalt\n")).Findings {
				other := "-"
				if f.Other != nil {
					other = fmt.Sprintf("%s:%d %d", f.Other.File, f.Other.Line, f.Other.Index)
				}
				lines = append(lines, fmt.Sprintf("%s %s:%d %d %s: %s", f.Rule, f.At.File, f.At.Line, f.At.Index, other, f.Message))
				if f.Remedy == "" || f.Section == "" {
					t.Errorf("no remedy or section in %+v", f)
				}
			}
			if diff := cmp.Diff(tt.want, strings.Join(lines, "\n")); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// What the assembler refuses reaches the linter from other tools.
func TestRules(t *testing.T) {
	limits := isa.Descriptor{Minor: 1, Rows: 32, Cols: 32, SpadSize: 4096, AccSize: 4096, Bindings: 1, Features: isa.FeaturesOf(1)}
	with := isa.With{Terms: [4]isa.Term{{Field: 8, Reg: 0, Times: 1000}}}
	for _, tt := range []struct {
		rule string
		at   int
		text []isa.Instruction
	}{
		{"NO_HALT", 1, []isa.Instruction{isa.Sync{Engine: isa.ClassLoad}}},
		{"LOCAL_BOUNDS", 2, []isa.Instruction{isa.Loop{Reg: 0, Count: 6, Step: 1}, with, isa.Fill{NX: 100, NY: 1}, isa.End{}, isa.Halt{}}},
		{"BINDING_INDEX", 0, []isa.Instruction{isa.Load{Binding: 1, NX: 4, NY: 1, NZ: 1}, isa.Halt{}}},
		{"BAD_CONTROL", 0, []isa.Instruction{isa.End{}, isa.Halt{}}},
		{"BUDGET", 2, []isa.Instruction{isa.Loop{Count: 1 << 24, Step: 1}, isa.Sync{Engine: isa.ClassLoad}, isa.End{}, isa.Halt{}}},
		{"BAD_SETUP", 0, []isa.Instruction{isa.Gemm{M: 2, N: 1, K: 1}, isa.Halt{}}},
	} {
		f := lint.Check(&isa.Program{Descriptor: limits, Text: isa.Text(tt.text...)}).Findings
		if len(f) != 1 || f[0].Rule != tt.rule || tt.rule != "BUDGET" && f[0].At.Index != tt.at || f[0].Remedy == "" {
			t.Errorf("%s at %d: %+v", tt.rule, tt.at, f)
		}
	}
}

// A long loop needs no more memory than a short one.
func TestLong(t *testing.T) {
	p := assemble(t, "t", head+"loop reg=s0 count=20000\nload binding=0 local=0 nx=64 signal=0\nsync.load wait=1\npreload k=1 n=8 weights=0 wait=0 signal=1\nend\nhalt\n")
	r := lint.Check(p)
	if len(r.Findings) > 0 || r.Undecided > 0 || r.Passed != 60000 {
		t.Errorf("%+v", r)
	}
}

// Instructions of the vector engine's second class are the vector engine's.
func TestSecondClass(t *testing.T) {
	const head = ".isa 1.3\n.features addq, control\n.spad 4096\n.bindings 2\n"
	const addq = "addq op=add type=uint8 x=0 y=64 out=128 n=64"
	for _, tt := range []struct{ name, in, rule, message string }{
		{"hazard", "load binding=0 local=0 nx=64\n" + addq, "HAZARD", "read after write: reads scratchpad address 0x0"},
		{"circle", addq + " wait=1 signal=0\nsync.load wait=0 signal=1", "DEADLOCK", "instruction 1 (sync.load) of t:6 signals it, and the load engine waits at instruction 1"},
		{"the other way round", "sync.load wait=0 signal=1\n" + addq + " wait=1 signal=0", "DEADLOCK", "instruction 1 (addq) of t:6 signals it, and the vector engine waits at instruction 1"},
		{"overflow", "loop reg=s0 count=300\nsync.load signal=3\nend\nloop reg=s0 count=300\n" + addq + " wait=3\nend", "TOKEN_OVERFLOW", "instruction 4 (addq) of t:9"},
	} {
		f := lint.Check(assemble(t, "t", head+tt.in+"\nhalt\n")).Findings
		if !slices.ContainsFunc(f, func(f lint.Finding) bool { return f.Rule == tt.rule && strings.Contains(f.Message, tt.message) }) {
			t.Errorf("%s: %+v, want %s: %s", tt.name, f, tt.rule, tt.message)
		}
	}
}

// The table of §6.8.1: one product more than it has is noted, its numbers are not.
func TestSums(t *testing.T) {
	const head = ".isa 1.1\n.features gemm, float\n.spad 0x8000000\n.acc 4096\n"
	notes := func(text string) []lint.Finding {
		r := lint.Check(assemble(t, "t", head+text+"\nhalt\n"))
		if len(r.Findings) > 0 {
			t.Fatalf("%s: %+v", text, r.Findings)
		}
		return r.Notes
	}
	for _, tt := range []struct {
		types string
		most  int
	}{
		{"a_type=int8 b_type=int4", 2097151}, {"a_type=int8 b_type=int8", 131071}, {"a_type=int8 b_type=uint8", 65793},
		{"a_type=int8 a_zero=-128 b_type=int4 b_zero=127", 62381}, {"a_type=int8 a_zero=-128 b_type=int8 b_zero=127", 33025},
		{"a_type=uint8 b_type=int4", 1052688}, {"a_type=uint8 b_type=int8", 65793}, {"a_type=uint8 b_type=uint8", 33025},
		{"a_type=uint8 b_type=int4 b_zero=127", 62381}, {"a_type=uint8 b_type=int8 b_zero=127", 33025},
		{"a_type=int16 b_type=int4", 8191}, {"a_type=int16 b_type=int8", 511}, {"a_type=int16 b_type=uint8", 257},
		{"a_type=int16 a_zero=-32768 b_type=int4 b_zero=127", 242}, {"a_type=int16 a_zero=-32768 b_type=int8 b_zero=127", 128},
		{"a_type=int16 a_zero=-32768 b_type=int8 b_zeros=0 per_channel", 128},
	} {
		for k := tt.most; k <= tt.most+1; k++ {
			n := notes(fmt.Sprintf("operands %s a_stride=2 b_stride=1 acc_stride=4\ngemm m=1 n=1 k=%d a=0 b=0 acc=0", tt.types, k))
			if len(n) != k-tt.most {
				t.Errorf("%s, %d products: %v", tt.types, k, n)
			}
			if len(n) > 0 && (n[0].Rule != "SUM_RANGE" || n[0].At.Index != 1 || !strings.Contains(n[0].Message, fmt.Sprintf("of up to %d it cannot", tt.most))) {
				t.Errorf("%s: %+v", tt.types, n[0])
			}
		}
	}
	const int16 = "operands a_type=int16 b_type=int8 a_stride=1024 b_stride=64 acc_stride=4\n"
	for _, tt := range []struct {
		name, text string
		notes      int
	}{
		{"accumulated", int16 + "gemm m=1 n=1 k=300 a=0 b=0 acc=0\ngemm m=1 n=1 k=212 a=0 b=0 acc=0 accumulate", 1},
		{"accumulated, few enough", int16 + "gemm m=1 n=1 k=300 a=0 b=0 acc=0\ngemm m=1 n=1 k=211 a=0 b=0 acc=0 accumulate", 0},
		{"anew", int16 + "gemm m=1 n=1 k=300 a=0 b=0 acc=0\ngemm m=1 n=1 k=300 a=0 b=0 acc=0", 0},
		{"elsewhere", int16 + "gemm m=1 n=1 k=300 a=0 b=0 acc=0\ngemm m=1 n=1 k=300 a=0 b=0 acc=4 accumulate", 0},
		{"convolution", int16 + "window kernel_h=3 kernel_w=3\nconv in_h=3 in_w=3 out_h=1 out_w=1 cin=57 cout=1 a=0 b=0 acc=0 line=4096", 1},
		{"groups", int16 + "window kernel_h=3 kernel_w=3 groups=57\nconv in_h=3 in_w=3 out_h=1 out_w=1 cin=57 cout=57 a=0 b=0 acc=0 line=4096", 0},
		{"floating point", "operands a_type=fp32 b_type=fp32 a_stride=4 b_stride=4 acc_stride=4\ngemm m=1 n=1 k=1000000 a=0 b=0 acc=0", 0},
		{"matmul", "matmul k=32 n=32 ifmap=0 acc=0 mx=1", 0},
	} {
		if n := notes(tt.text); len(n) != tt.notes {
			t.Errorf("%s: %v, want %d notes", tt.name, n, tt.notes)
		}
	}
}
