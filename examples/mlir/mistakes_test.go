// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestMistakes: what cannot be translated is refused, with the line and what is wanted.
func TestMistakes(t *testing.T) {
	const (
		tileFile  = "linear.generic"
		graphFile = "digits.generic"
	)
	for _, row := range []struct {
		name, file, old, new, want string
	}{
		{"pretty form", tileFile, `"builtin.module"() ({`, `module {`, "line 6: a string wanted"},
		{"cut off", tileFile, `"func.return"`, "\x00", "line 70: a string wanted"},
		{"no end of a string", tileFile, `sym_name = "linear"`, `sym_name = "linear`, "a string has no end"},
		{"number of results", tileFile, `%10 = `, `%10:0 = `, "number of results"},
		{"types missing", tileFile, `(%9, %10) : (memref<32xi32, strided<[1], offset: ?>>, memref<32xi32, 1>)`, `(%9, %10) : ()`, "2 operands, 0 types"},
		{"unknown operation", tileFile, `"linalg.matmul"(`, `"linalg.batch_matmul"(`, "linalg.batch_matmul: no instruction does this; tile or rewrite it"},
		{"argument of unknown size", tileFile, `%arg0: memref<96x256xi8>`, `%arg0: memref<?x256xi8>`, "argument 0: type memref<?x256xi8>: sizes have to be known"},
		{"tile larger than the array", tileFile, `static_sizes = array<i64: 32, 32>, static_strides = array<i64: 1, 1>}> : (memref<32x256xi8, 1>, index) -> memref<32x32xi8, strided<[256, 1], offset: ?>, 1>`,
			`static_sizes = array<i64: 32, 64>, static_strides = array<i64: 1, 1>}> : (memref<32x256xi8, 1>, index) -> memref<32x64xi8, strided<[256, 1], offset: ?>, 1>`, "[32 64] × [32 32] is not [32 32]"},
		{"space 3", tileFile, `() -> memref<32xi32, 1>`, `() -> memref<32xi32, 3>`, "memory spaces are 0, 1 (the scratchpad) and 2 (the accumulators)"},
		{"sums in the scratchpad", tileFile, `() -> memref<32x32xi32, 2>`, `() -> memref<32x32xi32, 1>`, "operand 1 is in the scratchpad, of [32 32] i32 with strides [32 1]; the instruction wants it in the accumulators"},
		{"bytes in the accumulators", tileFile, `() -> memref<32x256xi8, 1>`, `() -> memref<32x256xi8, 2>`, "elements of i8; the scratchpad holds i8 and i32, the accumulators i32"},
		{"buffer outside", tileFile, `() -> memref<32x256xi8, 1>`, `() -> memref<32x256xi8>`, "a buffer outside"},
		{"two roundings", tileFile, `double_round = false`, `double_round = true`, "the body is not tosa.apply_scale with double_round = false"},
		{"other arithmetic", tileFile, `"arith.maxsi"`, `"arith.maxui"`, "the body is not tosa.apply_scale"},
		{"no clamp", tileFile, `"arith.minsi"`, `"arith.maxsi"`, "the body is not tosa.apply_scale"},
		{"bound beyond int8", tileFile, `value = 127 : i32`, `value = 255 : i32`, "both bounds have to be constants of int8"},
		{"one scale", tileFile, `"tosa.apply_scale"(%arg8, %arg9, %arg10)`, `"tosa.apply_scale"(%arg8, %5, %arg10)`, "multipliers of i32 and shifts of i8, one for each column"},
		{"multiplier and shift changed places", tileFile, `"tosa.apply_scale"(%arg8, %arg9, %arg10)`, `"tosa.apply_scale"(%arg8, %arg10, %arg9)`, "memref<32xi32, 1>; multipliers are i32 and shifts i8"},
		{"scales from outside", tileFile, `"linalg.generic"(%11, %17, %18, %19)`, `"linalg.generic"(%11, %14, %18, %19)`, "have to be copied to allocations of their own in memory space 1"},
		{"bias as scales", tileFile, `"linalg.generic"(%11, %17, %18, %19)`, `"linalg.generic"(%11, %10, %18, %19)`, "of [32] i32 with strides [2]; the instruction wants it"},
		{"transposed", tileFile, `indexing_maps = [#map3, #map4, #map4, #map3]`, `indexing_maps = [#map3, #map4, #map4, #map1]`, "the indexing maps are not the identity"},
		{"columns broadcast", tileFile, `dimensions = array<i64: 0>`, `dimensions = array<i64: 1>`, "BIAS repeats a row"},
		{"step 0", tileFile, `value = 32 : index`, `value = 0 : index`, "a step above 0"},
		{"endless", tileFile, `value = 96 : index`, `value = 96000000 : index`, "more than 65536 instructions; use larger tiles"},
		{"constant of other size", graphFile, `dense<[101, -11`, `dense<[-11`, "the constant has 9 numbers, its type 10"},
		{"constant that is none", graphFile, `dense<[101, -11`, `dense<[101, x`, `"x" is not an i32`},
		{"hexadecimal of other size", graphFile, `dense<"0x23`, `dense<"0x`, "the constant does not have 2560 bytes"},
		{"floating point", graphFile, `%arg0: tensor<1x8x8x1xi8>`, `%arg0: tensor<1x8x8x1xf32>`, "argument 0: tensor<1x8x8x1xf32>: a tensor of i8 or i32"},
		{"padding of ones", graphFile, `value = 0 : i8`, `value = 1 : i8`, "padding of zeros is wanted"},
		{"sums without a start", graphFile, `(%28, %3, %30)`, `(%28, %3, %29)`, "sums start at linalg.fill of 0 or at linalg.broadcast"},
		{"operation without a node", graphFile, `"tensor.collapse_shape"`, `"tensor.reshape"`, "tensor.reshape: no operation of the graph does this"},
		{"no such function", graphFile, `sym_name = "digits"`, `sym_name = "other"`, `no function "digits"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := string(read(t, "testdata/"+row.file))
			if !strings.Contains(text, row.old) {
				t.Fatalf("%s does not contain %q", row.file, row.old)
			}
			args := []string{"-tiles", "-function", "linear"}
			if row.file == graphFile {
				args = []string{"-graph", "-function", "digits"}
			}
			var out strings.Builder
			err := run(args, strings.NewReader(strings.Replace(text, row.old, row.new, 1)), &out)
			if err == nil || !strings.Contains(err.Error(), row.want) || out.Len() > 0 {
				t.Errorf("error %v and %d bytes of output, want one with %q and none", err, out.Len(), row.want)
			}
		})
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "one of -tiles and -graph"},
		{[]string{"-tiles", "-graph"}, "one of -tiles and -graph"},
		{[]string{"-tiles", "file"}, "one of -tiles and -graph"},
		{[]string{"-tiles", "-array", "4x4"}, "-array 4x4: 8x8 to 256x256"},
		{[]string{"-tiles", "-array", "32"}, "-array 32: 8x8 to 256x256"},
	} {
		if err := run(row.args, strings.NewReader(""), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: error %v, want %q", row.args, err, row.want)
		}
	}
}

// FuzzTranslate: no text makes the translator crash.
func FuzzTranslate(f *testing.F) {
	for _, name := range []string{"linear.generic", "digits.generic"} {
		f.Add(string(read(f, "testdata/"+name)))
	}
	f.Fuzz(func(_ *testing.T, text string) {
		functions, err := parse(text)
		if err != nil {
			return
		}
		for _, function := range functions {
			_, _ = tiles(function, 32, 32) // an error is as good as a result here
			_, _ = graph(function)
		}
	})
}
