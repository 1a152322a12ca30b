// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/systolic"
)

// head and head11 are a program's directives; its instructions start in line 6.
const head11 = ".isa 1.1\n.array 16, 24\n.spad 4096\n.acc 2048\n.features gemm, control\n"

const head = ".isa 1.0\n.array 16, 24\n.spad 4096\n.acc 2048\n.bindings 2\n"

func TestAssemble(t *testing.T) {
	// in is one line; want is the canonical text of its instruction.
	tests := []struct{ name, in, want string }{
		{"defaults", "load binding=0 local=0 nx=1", "load    binding=0 local=0 nx=1"},
		{"any order", "load nx=1 signal=3 local=0 binding=0", "load    binding=0 local=0 nx=1 signal=3"},
		{"flag between operands", "fill acc_mem nx=4 local=0", "fill    local=0 nx=4 acc_mem"},
		{"spaces", "fill\tlocal = 0  nx= 4 ", "fill    local=0 nx=4"},
		{"comment", "sync.load wait=1 ; wait=2", "sync.load wait=1"},
		{"other comment", "sync.load# wait=2", "sync.load"},
		{"hexadecimal", "fill local=0xA0 nx=0X1f", "fill    local=0xa0 nx=31"},
		{"leading zero is decimal", "fill local=0 nx=010", "fill    local=0 nx=10"},
		{"negative byte", "fill local=0 nx=1 value=-2", "fill    value=254 local=0 nx=1"},
		{"count", "sync.store wait=2:3 signal=4:1", "sync.store wait=2:3 signal=4"},
		{"expression", "fill local=2*(3+4)-1 nx=1", "fill    local=0xd nx=1"},
		{"precedence", "fill local=1+2*3<<1 nx=1", "fill    local=0xe nx=1"},
		{"left to right", "fill local=100-10-1 nx=64/4/2", "fill    local=0x59 nx=8"},
		{"remainder and shift", "fill local=17%5 nx=256>>4", "fill    local=0x2 nx=16"},
		{"unary", "fill local=--5 nx=-(1-3)", "fill    local=0x5 nx=2"},
		{"token expression", "sync.load wait=7+1:1<<1", "sync.load wait=8:2"},
		{"name", "fill local=BASE nx=ROW*2", "fill    local=0x100 nx=32"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Assemble("t.npu", []byte(head+".equ ROW, 16\n.equ BASE, ROW << 4\n"+tt.in+"\nhalt\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := (*Word)(p.Text).String(); got != tt.want {
				t.Errorf("assembled\n  %s\nwant\n  %s", got, tt.want)
			}
		})
	}
}

// A program of ISA 1.1 says so, and what its instructions need.
func TestAssembleFeatures(t *testing.T) {
	p, err := Assemble("t.npu", []byte(head11+"operands a_stride=3 b_stride=1 acc_stride=4 b_type=int4\ngemm m=2 n=1 k=3 a=0 b=0 acc=0\nhalt\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Minor != 1 || p.Features != FeatureGEMM|FeatureControl {
		t.Errorf("ISA 1.%d, features %#x; want 1.1 with GEMM and CONTROL", p.Minor, p.Features)
	}
	roundTrip(t, p)
}

func TestAssembleProgram(t *testing.T) {
	p, err := Assemble("t.npu", []byte(head+"\r\n  halt ; done\r\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testProgram(), p, cmp.Transformer("image", (*Program).Image)); diff != "" {
		t.Errorf("Assemble (-want +got):\n%s", diff)
	}
	p, err = Assemble("t.npu", []byte(".isa 1.0\nhalt"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != 32 || p.Cols != 32 {
		t.Errorf("default array %d×%d, want 32×32", p.Rows, p.Cols)
	}
}

func TestAssembleErrors(t *testing.T) {
	body := func(line string) string { return head + line + "\nhalt\n" }
	tests := []struct{ name, src, want string }{
		{"instruction", body("lod binding=0"), "t:6:1: unknown instruction lod; did you mean load?"},
		{"case", body("HALT"), "t:6:1: unknown instruction HALT; did you mean halt?"},
		{"neighbours exchanged", body("laod binding=0 local=0 nx=1"), "t:6:1: unknown instruction laod; did you mean load?"},
		{"operand exchanged", body("bias n=1 bias=0 acc=0 strdie=4"), "t:6:23: bias has no operand strdie; known are wait, signal, n, acc_stride, bias, acc, m"},
		{"short operand exchanged", body("fill local=0 xn=1"), "t:6:14: fill has no operand xn; did you mean nx?"},
		{"setup operand exchanged", head11 + "operands a_tpye=int8\nhalt\n", "t:6:10: operands has no operand a_tpye; did you mean a_type?"},
		{"type exchanged", head11 + "operands a_type=itn8\nhalt\n", "t:6:17: \"itn8\" is no a_type; did you mean int8?"},
		{"label exchanged", body("here: fill local=0 nx=hree"), "t:6:23: hree is not defined; did you mean here?"},
		{"macro exchanged", body(".macro tile\nsync.load\n.endm\nitle"), "t:9:1: unknown instruction itle; did you mean tile?"},
		{"group exchanged", ".isa 1.1\n.features gmem\nhalt\n", `t:2:11: "gmem" is no group of instructions; did you mean gemm?`},
		{"instruction far off", body("frobnicate"), "t:6:1: unknown instruction frobnicate; known are halt, loop, end, scalar, with, sync.load, sync.store, sync.matrix, sync.vector, load, store, stamp, preload, matmul, operands, window, gemm, conv, blocks, sparse, fill, bias, requant, element, table, reduce, norm, image, pool, resize, shape, transpose, gather, scatter, quantize, scales, addq"},
		{"operand", body("fill local=0 nx=1 strid=4"), "t:6:19: fill has no operand strid; did you mean stride?"},
		{"operand of another", body("bias n=1 bias=0 acc=0 k=3"), "t:6:23: bias has no operand k; known are wait, signal, n, acc_stride, bias, acc, m"},
		{"operand of sync", body("sync.load nx=3"), "t:6:11: sync.load has no operand nx; known are wait, signal"},
		{"flag", body("matmul k=1 n=1 ifmap=0 acc=0 acumulate"), "t:6:30: matmul has no flag acumulate; did you mean accumulate?"},
		{"flag with value", body("fill local=0 nx=4 acc_mem=1"), "t:6:19: acc_mem is a flag; write it without a value"},
		{"operand without value", body("fill local=0 nx"), "t:6:14: nx needs a value; write nx=value"},
		{"missing operand", body("  fill local=0"), "t:6:3: fill needs nx; write nx=value"},
		{"twice", body("fill local=0 nx=4 nx=4"), "t:6:19: nx is given twice; remove one"},
		{"too large", body("matmul k=1 n=1 ifmap=0 acc=0 mx=65536"), "t:6:33: mx=65536 does not fit; it is from 0 to 65535"},
		{"negative", body("fill local=-1 nx=4"), "t:6:12: local=-1 does not fit; it is from 0 to 4294967295"},
		{"offset", body("load binding=0 local=0 nx=1 offset=1<<40"), "t:6:36: offset=1099511627776 does not fit; it is from 0 to 1099511627775"},
		{"signed", body("requant n=1 acc=0 out=0 params=0 lo=128"), "t:6:37: lo=128 does not fit; it is from -128 to 127"},
		{"zero", body("fill local=0 nx=0"), "t:6:14: nx is 0; it must be at least 1 (BAD_OPERAND, §5.7)"},
		{"stride left out", body("fill local=0 nx=4 ny=2"), "t:6:1: stride is 0, rows would overlap; it must be at least nx = 4 (BAD_OPERAND, §5.7)"},
		{"alignment", body("fill local=2 nx=4 acc_mem"), "t:6:6: local is 2; it must be a multiple of 4 (BAD_OPERAND, §5.7)"},
		{"shape", body("preload k=17 n=1 weights=0 stride=1"), "t:6:9: k is 17; the array has 16 rows (ARRAY_SHAPE, §5.7)"},
		{"bounds", body("fill local=4090 nx=8"), "t:6:6: local reaches address 0x1000; the program has 4096 bytes of scratchpad (LOCAL_BOUNDS, §5.7)"},
		{"binding", body("load binding=2 local=0 nx=1"), "t:6:6: binding is 2; there are 2 bindings, counted from 0 (BINDING_INDEX, §5.7)"},
		{"token", body("sync.load wait=16"), "t:6:16: wait is 16; it must be from 0 to 15"},
		{"token count", body("sync.load wait=1:0"), "t:6:18: count of wait is 0; it must be from 1 to 15"},
		{"halt waits", head + "halt wait=1\n", "t:6:6: halt neither waits nor signals; it ends the program when all engines are idle"},
		{"name", body(".equ WIDTH, 4\nfill local=0 nx=WIDHT"), "t:7:17: WIDHT is not defined; did you mean WIDTH?"},
		{"no names", body("fill local=0 nx=W"), "t:6:17: W is not defined; define it before with .equ"},
		{"name twice", body(".equ A, 1\n.equ A, 2"), "t:7:6: A is already defined; a name has one value"},
		{"number", body("fill local=0 nx=12z"), `t:6:17: "12z" is not a number below 2^63; numbers are decimal or 0x…`},
		{"number too large", body("fill local=0 nx=9223372036854775808"), `t:6:17: "9223372036854775808" is not a number below 2^63; numbers are decimal or 0x…`},
		{"division", body("fill local=0 nx=4/(2-2)"), "t:6:18: division by zero"},
		{"shift", body("fill local=0 nx=1<<64"), "t:6:18: shift by 64; a shift is from 0 to 63"},
		{"overflow", body("fill local=0 nx=(1<<62)*2"), "t:6:24: the value of 4611686018427387904 * 2 does not fit in 64 bits"},
		{"parenthesis", body("fill local=0 nx=(1"), `t:6:19: found "end of line"; the parenthesis is not closed`},
		{"no value", body("fill local= nx=1"), "t:6:13: nx is not defined; define it before with .equ"},
		{"nothing", body("fill local="), `t:6:12: found "end of line"; a number, a name or ( was expected`},
		{"character", body("fill local=0 nx=1 $"), "t:6:19: unexpected character '$'; a comment starts with ; or #"},
		{"comma", body("fill local=0, nx=1"), `t:6:13: found ","; operands are name=value or a flag`},
		{"number first", body("12"), `t:6:1: found "12"; a line starts with an instruction or a directive`},
		{"directive", body(".bindngs 3"), "t:6:1: unknown directive .bindngs; did you mean .bindings?"},
		{"directive twice", body(".spad 1"), "t:6:1: .spad was given in line 3; write it once"},
		{"directive late", ".isa 1.0\nhalt\n.spad 5\n", "t:3:1: .spad after an instruction; directives that describe the program come first"},
		{"directive tail", ".isa 1.0\n.spad 5 6\nhalt\n", `t:2:9: found "6"; the directive ends here`},
		{"array", ".isa 1.0\n.array 32, 12\nhalt\n", "t:2:12: an array cannot have 12 rows or columns; both are multiples of 8 from 8 to 256 (§5.1)"},
		{"array comma", ".isa 1.0\n.array 32\nhalt\n", `t:2:10: found "end of line"; write .array rows, columns`},
		{"bindings", ".isa 1.0\n.bindings 65\nhalt\n", "t:2:11: .bindings is 65; it must be from 0 to 64"},
		{"no version", "halt\n", "t:1:1: the text does not start with .isa; write .isa 1.3 first"},
		{"version", ".isa 1.4\nhalt\n", "t:1:6: ISA 1.4 is not known; this assembler knows 1.3"},
		{"version form", ".isa one\nhalt\n", `t:1:6: found "one"; write the version, as in .isa 1.3`},
		{"features in ISA 1.0", ".isa 1.0\n.features gemm\nhalt\n", "t:2:1: ISA 1.0 has no features; write .isa 1.1"},
		{"later features in ISA 1.0", ".isa 1.0\n.features gemm, addq, pool\nhalt\n", "t:2:1: ISA 1.0 has no features; write .isa 1.3"},
		{"feature", ".isa 1.1\n.features gem\nhalt\n", `t:2:11: "gem" is no group of instructions; did you mean gemm?`},
		{"feature of a later ISA", ".isa 1.1\n.features gemm, pool\nhalt\n", "t:2:17: ISA 1.1 has no group pool; write .isa 1.2"},
		{"feature twice", ".isa 1.1\n.features gemm gemm\nhalt\n", `t:2:16: found "gemm"; the directive ends here`},
		{"no feature", body("gemm m=1 n=1 k=1 a=0 b=0 acc=0"), "t:6:1: gemm needs a feature; write .features gemm behind .isa 1.1"},
		{"no feature of ISA 1.1", ".isa 1.1\ngemm m=1 n=1 k=1 a=0 b=0 acc=0\nhalt\n", "t:2:1: gemm needs a feature; write .features gemm behind .isa 1.1"},
		{"no feature of ISA 1.3", ".isa 1.3\ngemm m=1 n=1 k=1 a=0 b=0 acc=0\nhalt\n", "t:2:1: gemm needs a feature; write .features gemm behind .isa 1.3"},
		{"another feature", ".isa 1.2\n.features pool\ngemm m=1 n=1 k=1 a=0 b=0 acc=0\nhalt\n", "t:3:1: gemm needs a feature; write gemm among the .features in line 2"},
		{"a feature of a later ISA besides", ".isa 1.1\n.features gemm\npool op=max n=1 x=0 out=0\nhalt\n",
			"t:3:1: pool needs a feature; write .isa 1.2, and pool among the .features in line 2"},
		{"type", head11 + "operands a_type=int9\nhalt\n", "t:6:17: \"int9\" is no a_type; did you mean int8?"},
		{"type combination", head11 + "operands a_type=int4\nhalt\n", "t:6:10: a_type is int4; activations are int8, uint8 or int16, or with feature float fp32, bf16, fp16, e4m3 or e5m2 (BAD_OPERAND, §5.7)"},
		{"type without its feature", head11 + "operands a_type=bf16 b_type=bf16\nhalt\n", "t:6:10: a_type is bf16; activations are int8, uint8 or int16, or with feature float fp32, bf16, fp16, e4m3 or e5m2 (BAD_OPERAND, §5.7)"},
		{"register", head11 + "loop reg=16 count=1\nend\nhalt\n", `t:6:10: found "16"; registers are s0 to s15`},
		{"register number", head11 + "loop reg=s16 count=1\nend\nhalt\n", `t:6:10: found "s16"; registers are s0 to s15`},
		{"register with zeroes", head11 + "loop reg=s01 count=1\nend\nhalt\n", `t:6:10: found "s01"; registers are s0 to s15`},
		{"operation", head11 + "scalar op=ad rd=s1 immediate\nhalt\n", `t:6:11: "ad" is no op; did you mean add?`},
		{"loop waits", head11 + "loop reg=s1 count=1 wait=1\nend\nhalt\n", "t:6:21: loop neither waits nor signals; the sequencer executes it"},
		{"loop without count", head11 + "loop reg=s1\nend\nhalt\n", "t:6:1: count is 0; it must be at least 1 (BAD_OPERAND, §5.7)"},
		{"end without loop", head11 + "end\nhalt\n", "t:6:1: END without LOOP (BAD_CONTROL, §5.7)"},
		{"loop without end", head11 + "loop reg=s1 count=1\nhalt\n", "t:7:1: HALT in a loop; an END is missing (BAD_CONTROL, §5.7)"},
		{"with of another field", head11 + "with lokal=s1\nfill local=0 nx=1\nhalt\n", "t:6:6: fill has no unsigned operand lokal of two bytes or more; did you mean local?"},
		{"with of a byte", head11 + "with value=s1\nfill local=0 nx=1\nhalt\n", "t:6:6: fill has no unsigned operand value of two bytes or more; known are local, nx, ny, stride"},
		{"with before end", head11 + "loop reg=s1 count=1\nwith if=s1\nend\nhalt\n", "t:7:1: with stands before end; it changes an instruction that an engine executes (BAD_CONTROL, §5.7)"},
		{"with two conditions", head11 + "with if=s1 ifnot=s2\nfill local=0 nx=1\nhalt\n", "t:6:12: there is a condition already; write another with for the second"},
		{"with five terms", head11 + "with nx=s1 nx=s1 nx=s1 nx=s1 nx=s1\nfill local=0 nx=1\nhalt\n", "t:6:30: more than 4 terms; write another with for the others"},
		{"with a large factor", head11 + "with nx=s1*(1<<31)\nfill local=0 nx=1\nhalt\n", "t:6:12: 2147483648 does not fit in 32 bits with a sign"},
		{"with a number", head11 + "with nx=5\nfill local=0 nx=1\nhalt\n", `t:6:9: found "5"; registers are s0 to s15`},
		{"with a word", head11 + "with 5\nfill local=0 nx=1\nhalt\n", `t:6:6: found "5"; with takes field=register*factor, if=register and ifnot=register`},
		{"bounds in the last iteration", head11 + "loop reg=s1 count=5\nwith local=s1*1000\nfill local=0 nx=100\nend\nhalt\n",
			"t:8:1: local reaches address 0x1000; the program has 4096 bytes of scratchpad (LOCAL_BOUNDS, §5.7)"},
		{"rounding without its feature", head11 + "requant n=1 acc=0 out=0 params=0 rounding=two\nhalt\n",
			"t:6:34: rounding needs a feature; write vector among the .features in line 5"},
		{"setup", head11 + "gemm m=2 n=1 k=3 a=0 b=0 acc=0\nhalt\n", "t:6:1: a_stride is 0 in OPERANDS, rows would overlap; this instruction needs at least 3 (BAD_SETUP, §5.7)"},
		{"no halt", head + "sync.load\n\n; end\n", "t:6:1: the program does not end with halt (NO_HALT, §5.7); add a halt as its last instruction"},
		{"empty", "", "t:1:1: the program does not end with halt (NO_HALT, §5.7); add a halt as its last instruction"},
		{"after halt", head + "halt\nsync.load\n", "t:7:1: sync.load is never reached: the program halts in line 6; remove one of the two"},
		{"several", body("lod\nfill local=0\nfill nx=1 nx=2"), "t:6:1: unknown instruction lod; did you mean load?\n" +
			"t:7:1: fill needs nx; write nx=value\nt:8:11: nx is given twice; remove one\nt:8:1: fill needs local; write local=value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Assemble("t", []byte(tt.src))
			var list SyntaxErrors
			if !errors.As(err, &list) {
				t.Fatalf("Assemble = %v, want SyntaxErrors", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// What follows from a line that was refused is not reported; what does not is.
func TestAssembleFollowing(t *testing.T) {
	const gemm = "gemm m=2 n=1 k=3 a=0 b=0 acc=0\nhalt\n"
	const isa13 = ".isa 1.3\n.features gemm, control, pool, gather, addq\n.spad 4096\n.acc 4096\n"
	for _, tt := range []struct{ name, src, want string }{
		{"a setup's type", head11 + "operands a_type=int9 a_stride=4 b_stride=4 acc_stride=16\n" + gemm, `t:6:17: "int9" is no a_type; did you mean int8?`},
		{"a setup's rule", head11 + "operands b_zero=500 a_stride=4 b_stride=4 acc_stride=16\n" + gemm, "t:6:10: b_zero is 500; the zero point of int8 is from -128 to 127 (BAD_OPERAND, §5.7)"},
		{"a setup's name", head11 + "operand a_stride=4\n" + gemm, "t:6:1: unknown instruction operand; did you mean operands?"},
		{"a setup's value", head11 + ".equ W, 1 +\noperands a_stride=W acc_stride=16\n" + gemm, `t:6:12: found "end of line"; a number, a name or ( was expected`},
		{"addresses that a setup's strides make", head11 + "operands a_stride=4000 b_stride=1 acc_stride=4 a_type=int9\ngemm m=2 n=1 k=3 a=4000 b=0 acc=0\nhalt\n", `t:6:55: "int9" is no a_type; did you mean int8?`},
		{"a field that is wrong with any setup", head11 + "operands a_type=int9\ngemm m=0 n=1 k=3 a=0 b=0 acc=0\nhalt\n",
			"t:6:17: \"int9\" is no a_type; did you mean int8?\nt:7:6: m is 0; it must be at least 1 (BAD_OPERAND, §5.7)"},
		{"a setup that is given again", head11 + "operands a_type=int9\noperands b_stride=4 acc_stride=16\n" + gemm,
			"t:6:17: \"int9\" is no a_type; did you mean int8?\nt:8:1: a_stride is 0 in OPERANDS, rows would overlap; this instruction needs at least 3 (BAD_SETUP, §5.7)"},
		{"another setup", head11 + "window kernel_h=0\n" + gemm,
			"t:6:8: kernel_h is 0; it must be at least 1 (BAD_OPERAND, §5.7)\nt:7:1: a_stride is 0 in OPERANDS, rows would overlap; this instruction needs at least 3 (BAD_SETUP, §5.7)"},
		{"window", head11 + "operands a_stride=1 b_stride=1 acc_stride=4\nwindow kernel=3\nconv in_h=1 in_w=1 out_h=9 out_w=9 cin=1 cout=1 a=0 b=0 acc=0 line=1\nhalt\n",
			"t:7:8: window has no operand kernel; did you mean kernel_h?"},
		{"image", isa13 + "image type=int8 out_type=int7\npool op=max n=8 x=0 out=0\nhalt\n", `t:5:26: "int7" is no out_type; did you mean int8?`},
		{"shape", isa13 + "shape n4=1\ntranspose size=1 x=0 out=0\nhalt\n", "t:5:7: shape has no operand n4; known are wait, signal, n0, n1, n2, n3, out0, out1, out2, out3"},
		{"scales", isa13 + "scales rounding=three lo=0 hi=1 scale=1\naddq op=add type=int8 x=0 y=64 out=128 n=64\nhalt\n", `t:5:17: "three" is no rounding; known are one, two, float`},
		{"scratchpad", ".isa 1.0\n.spad 0x1g\nfill local=0 nx=8\nhalt\n", `t:2:7: "0x1g" is not a number below 2^63; numbers are decimal or 0x…`},
		{"allocation", ".isa 1.0\n.alloc A, 8 8\nfill local=A nx=8\nhalt\n", `t:2:13: found "8"; the directive ends here`},
		{"bindings", ".isa 1.0\n.spad 8\n.bindings two\nload binding=1 local=0 nx=8\nhalt\n", "t:3:11: two is not defined; define it before with .equ"},
		{"array", ".isa 1.0\n.spad 4096\n.array 64 64\npreload k=64 n=64 weights=0 stride=64\nhalt\n", `t:3:11: found "64"; write .array rows, columns`},
		{"features", ".isa 1.1\n.features gem\nloop reg=s0 count=1\nend\nhalt\n", `t:2:11: "gem" is no group of instructions; did you mean gemm?`},
		{"version", ".isa 1.9\n.features gemm\noperands\nhalt\n", "t:1:6: ISA 1.9 is not known; this assembler knows 1.3"},
		{"halt", head + "hlat\n", "t:6:1: unknown instruction hlat; did you mean halt?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Assemble("t", []byte(tt.src))
			var list SyntaxErrors
			if !errors.As(err, &list) {
				t.Fatalf("Assemble = %v, want SyntaxErrors", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAssembleErrorLimit(t *testing.T) {
	_, err := Assemble("t", []byte(head+strings.Repeat("lod\n", 1000)))
	var list SyntaxErrors
	if !errors.As(err, &list) || len(list) != maxErrors+1 {
		t.Errorf("%d mistakes reported, want %d and the notice", len(list), maxErrors)
	}
	deep := head + "fill local=0 nx=" + strings.Repeat("(", 1<<20) + "1"
	if _, err := Assemble("t", []byte(deep)); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("deep nesting: %.100v", err)
	}
}

// The programs in §5.8 assemble as they are printed.
func TestSpecificationPrograms(t *testing.T) {
	page, err := os.ReadFile("../../docs/spec/isa.md")
	if err != nil {
		t.Fatal(err)
	}
	var programs []string
	for line := range strings.Lines(string(page)) {
		code, ok := strings.CutPrefix(line, "    ")
		if ok && strings.HasPrefix(code, ".isa") {
			programs = append(programs, "")
		}
		if n := len(programs); ok && n > 0 {
			programs[n-1] += code
		}
	}
	if len(programs) < 3 {
		t.Fatalf("%d programs, want three", len(programs))
	}
	for _, src := range programs {
		p, err := Assemble("isa.md", []byte(src))
		if err != nil {
			t.Fatalf("%v in\n%s", err, src)
		}
		if n := len(p.Text) / Size; n < 5 {
			t.Errorf("%d instructions, want the whole program", n)
		}
	}
}

// randomWord returns an instruction that breaks no rule of l. Values come from
// a small pool, so that few tries are needed.
func randomWord(rng *rand.Rand, l Limits) Word {
	for {
		op := &operations[rng.IntN(len(operations))]
		if op.opcode.Class() == ClassControl { // TestRoundTripControl
			continue
		}
		w := Word{byte(op.opcode)}
		for i := range op.operands {
			o := &op.operands[i]
			v := int64(rng.IntN(12)) << rng.IntN(6)
			if !o.required && rng.IntN(3) == 0 {
				v = o.def
			}
			if o.choices != nil {
				v = int64(o.choices[rng.IntN(len(o.choices))].value)
			} else if o.form != count && rng.IntN(4) == 0 {
				v = rng.Int64()
			}
			o.put(&w, v)
		}
		for _, f := range op.flags {
			if rng.IntN(2) == 0 {
				w[1] |= f.bit
			}
		}
		if op.opcode == OpConv && rng.IntN(2) == 0 { // lines need a stride that few draws give
			w.put16(4, 1)
		}
		for _, b := range []int{2, 3} {
			if n := byte(rng.IntN(16)); n > 0 {
				w[b] = n<<4 | byte(rng.IntN(16))
			}
		}
		if i, v := Decode(&w); v == nil && i.Check(l) == nil {
			return w
		}
	}
}

// roundTrip fails unless p's text assembles to p again, and prints the same.
func roundTrip(t *testing.T, p *Program) {
	t.Helper()
	text := Disassemble(p)
	back, err := Assemble("t", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !bytes.Equal(back.Image(), p.Image()) {
		t.Errorf("other bytes from\n%s", text)
	}
	if diff := cmp.Diff(text, Disassemble(back)); diff != "" {
		t.Errorf("other text (-first +second):\n%s", diff)
	}
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 13))
	p := testProgram()
	p.SpadSize, p.AccSize = 1<<31, 1<<31
	p.Minor, p.Features = Minor, Features
	p.Text = nil
	l := p.Limits()
	seen := map[byte]int{}
	for range 15000 {
		w := randomWord(rng, l)
		seen[w[0]]++
		i, v := Decode(&w)
		if v != nil {
			t.Fatal(v)
		}
		if o, ok := i.(Operands); ok { // strides that most GEMMs and CONVs can live with
			o.AStride, o.BStride, o.AccStride, o.TransposeA = 512, 1024, 2048, false
			i, w = o, o.Encode()
		}
		if o, ok := i.(Window); ok {
			o.Groups = 1 + o.Groups%2
			i, w = o, o.Encode()
		}
		if o, ok := i.(Image); ok { // strides that most POOLs and RESIZEs can live with
			o.XPixel, o.OutPixel, o.XLine, o.OutLine, o.XAcc, o.OutAcc = 1024, 1024, 1<<21, 1<<21, false, true
			o.InW, o.InH, o.OutW, o.OutH, o.OutType = 1+o.InW%8, 1+o.InH%8, 1+o.OutW%8, 1+o.OutH%8, systolic.FP32
			i, w = o, o.Encode()
		}
		switch i.(type) { // what most GEMMs and CONVs cannot live with
		case Blocks:
			i = Blocks{}
			w = i.Encode()
		case Sparse:
			i = Sparse{}
			w = i.Encode()
		}
		if again := i.Encode(); again != w {
			t.Errorf("%v: encodes as % x, was % x", &w, again, w)
		}
		l.Setup.Apply(i)
		p.Text = append(p.Text, w[:]...)
	}
	p.Text = append(p.Text, Text(Halt{})...)
	roundTrip(t, p)
	for i := range operations {
		if op := &operations[i]; op.opcode.Class() != ClassControl && seen[byte(op.opcode)] < 10 {
			t.Errorf("%s: only %d instructions", op.name, seen[byte(op.opcode)])
		}
	}
}

// Whatever the bytes are, they disassemble; and if they are a program that
// breaks no rule, then to text that gives the same bytes.
func FuzzDisassemble(f *testing.F) {
	for _, e := range encodings {
		w := e.in.Encode()
		f.Add(w[:])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p := testProgram()
		p.Minor, p.Features = Minor, Features
		p.Text = nil
		l := p.Limits()
		for len(text) >= Size {
			w := (*Word)(text)
			text = text[Size:]
			i, v := Decode(w)
			if v == nil {
				if again := i.Encode(); again != *w {
					t.Errorf("% x decodes and encodes as % x", *w, again)
				}
			}
			if v != nil || i.Check(l) != nil || i == (Halt{}) {
				if line := w.String(); strings.Contains(line, "\n") || v != nil && line[0] != ';' {
					t.Errorf("% x prints as %q", *w, line)
				}
				continue
			}
			l.Setup.Apply(i)
			p.Text = append(p.Text, w[:]...)
		}
		p.Text = append(p.Text, Text(Halt{})...)
		if v, _ := p.Check(); v == nil {
			roundTrip(t, p)
		}
	})
}

// Whatever the text is, it assembles or is refused with positions in it.
func FuzzAssemble(f *testing.F) {
	f.Add(head + "halt\n")
	for _, e := range encodings {
		f.Add(head + ".equ A, (1 + 2) * 3 << 4 % 5 - -6 >> 1\n" + e.text + "\nhalt ; end\n")
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, err := Assemble("t", []byte(src))
		if err == nil {
			roundTrip(t, p)
			return
		}
		var list SyntaxErrors
		if !errors.As(err, &list) || len(list) == 0 {
			t.Fatalf("Assemble = %v, want SyntaxErrors", err)
		}
		lines := strings.Split(src, "\n")
		for _, e := range list {
			if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 {
				t.Errorf("%v: no such place", e)
			}
		}
	})
}
