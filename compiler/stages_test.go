// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/core/isa"
)

func stage(t *testing.T, m *model.Model, name string) string {
	t.Helper()
	var b strings.Builder
	if err := compiler.DumpStage(&b, m, name); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestStages: the back end's decisions for a matrix that does not fit, an operation behind it, and one of the host.
func TestStages(t *testing.T) {
	weights := base64.StdEncoding.EncodeToString(make([]byte, 64*64))
	text := fmt.Sprintf("graph \"g\"\ninput %%x: int8[1, 300, 64]\nconst %%w: int8[1, 64, 64] = %q\n"+
		"node \"mul\" npu.gemm(%%x, %%w) -> (%%m: int8[1, 300, 64]) {rounding=\"fp32\", scales=floats[0.01]}\n"+
		"node \"wide\" npu.cast(%%m) -> (%%y: int64[1, 300, 64])\noutput %%m\noutput %%y\n", weights)
	g, err := compiler.Source{Data: []byte(text), Format: "npuir"}.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, emit.Target{Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features})
	if err != nil {
		t.Fatal(err)
	}
	places := stage(t, m, "places")
	for _, want := range []string{
		`binding 0 "constants": 4104 bytes, read`, `binding 2 "x": 19200 bytes, read`, `binding 3 "m": 19200 bytes, written`,
		`input "x": int8[1 300 64]: 19200 bytes at 0x0 of binding 2`, `node "mul" (npu.gemm): "m": int8[1 300 64]: 19200 bytes at 0x0 of binding 3`,
		`output "y": int64[1 300 64]: 153600 bytes at 0x0 of binding 4`,
	} {
		if !strings.Contains(places, want+"\n") {
			t.Errorf("places do not say %q:\n%s", want, places)
		}
	}
	// Each element of the result is in a tile, and the tiles are more than one.
	tiles := strings.Split(strings.TrimSpace(stage(t, m, "tile")), "\n")
	if len(tiles) < 3 || !strings.HasPrefix(tiles[0], `node "mul" (npu.gemm): program 0, instructions 0 to `) {
		t.Fatalf("the tiles are %q", tiles)
	}
	bytes := 0
	for i, line := range tiles[1:] {
		var k, rows, n int
		_, counts, _ := strings.Cut(line, "], ")
		if _, err := fmt.Sscanf(line, "  tile %d: \"m\" [0 ", &k); err != nil || k != i {
			t.Errorf("tile %d is %q", i, line)
		}
		if _, err := fmt.Sscanf(counts, "%d rows of %d bytes, by instruction", &rows, &n); err != nil {
			t.Errorf("tile %d is %q: %v", i, line, err)
		}
		bytes += rows * n
	}
	if bytes != 300*64 {
		t.Errorf("the tiles have %d bytes, the tensor %d", bytes, 300*64)
	}
	if !strings.Contains(tiles[1], `"m" [0 0 0] to `) || !strings.Contains(strings.Join(tiles, "\n"), "to [0 299 63], ") {
		t.Errorf("the first and the last element are in no tile:\n%s", strings.Join(tiles, "\n"))
	}
	// Every instruction is there, with its engine.
	schedule := stage(t, m, "schedule")
	count := 0
	for i := range len(m.Programs[0].Text) / isa.Size {
		if strings.Contains(schedule, fmt.Sprintf("\n  %6d ", i)) {
			count++
		}
	}
	if count != len(m.Programs[0].Text)/isa.Size {
		t.Errorf("%d of %d instructions are in the schedule", count, len(m.Programs[0].Text)/isa.Size)
	}
	for _, want := range []string{"step 0: program 0\nnode \"mul\"", " load    load ", " matrix  ", " store   store ", "step 1: node \"wide\" on the host\n", "signal="} {
		if !strings.Contains(schedule, want) {
			t.Errorf("the schedule lacks %q:\n%s", want, schedule)
		}
	}
	if again := stage(t, m, "schedule"); again != schedule {
		t.Error("the schedule is another the second time")
	}
	if err := compiler.DumpStage(&strings.Builder{}, m, "lower"); err == nil || !strings.Contains(err.Error(), "there are places, tile, schedule") {
		t.Errorf("a stage that there is not: %v", err)
	}
}

// TestStageOfChain: what is computed together is one group of tiles.
func TestStageOfChain(t *testing.T) {
	const text = "graph \"g\"\ninput %x: float32[300]\nnode \"a\" Exp(%x) -> (%a: invalid[])\nnode \"b\" Neg(%a) -> (%b: invalid[])\noutput %b\n"
	g, err := compiler.Source{Data: []byte(text), Format: "npuir"}.Load(func(string, *ir.Graph) {})
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, emit.Target{Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features})
	if err != nil {
		t.Fatal(err)
	}
	if s := stage(t, m, "tile"); !strings.HasPrefix(s, `node "b" (npu.element) + "a" (npu.element): program 0`) {
		t.Error(s)
	}
	if s := stage(t, m, "places"); !strings.Contains(s, "node \"a\" (npu.element): in local memory alone\n") {
		t.Error(s)
	}
}
