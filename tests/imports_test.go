// SPDX-License-Identifier: Apache-2.0

// Package tests holds what is checked of the tree as a whole.
package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of the tree each package may import
// (docs/architecture.md). A name ending in /... covers what is below it.
var allowed = map[string][]string{
	"cmd/npuemu": {
		"attach", "vdev", "vdev/gokvm", "vdev/ioat", "vdev/vfiouser", "vdev/vhostuser", "umd",
		"firmware", "firmware/gdb", "firmware/image", "mmio", "mmio/npureg", "internal/control", "internal/outfile", "internal/uds",
		"core/isa", "core/isa/lint", "timing", "timing/timeline", "compiler", "compiler/emit", "compiler/ir", "compiler/model", "compiler/npy", "compiler/ref", "compiler/run",
	},
	"attach":            {"vdev", "vdev/vfiouser", "vdev/local", "umd", "accel", "firmware", "mmio/npureg", "compiler/emit", "compiler/model", "compiler/run"},
	"capi":              {"attach", "vdev", "compiler", "compiler/ir", "compiler/model", "compiler/run", "internal/outfile", "timing", "timing/timeline"},
	"umd":               {"vdev/vfiouser", words, "internal/eventfd"},
	"vdev":              {"vdev/pci", "vdev/vfiouser", "vdev/vhostuser", "firmware", "dma", "queue", "core", "timing", words, "internal/eventfd", "internal/findings"},
	"vdev/ioat":         {"vdev/pci", "vdev/vfiouser", "dma", words, "internal/eventfd", "internal/findings"},
	"vdev/pci":          {"mmio"},
	"vdev/vfiouser":     {"dma/iova", "internal/eventfd", "internal/filemap", "internal/uds", "internal/warnings"},
	"vdev/vhostuser":    {"dma/iova", "internal/eventfd", "internal/filemap", "internal/uds", "internal/warnings"},
	"vdev/local":        {"vdev/vfiouser", "dma/iova", "internal/eventfd", "internal/filemap"},
	"vdev/gokvm":        {"vdev/local", "vdev/vfiouser", "dma/iova", "internal/eventfd"},
	"mmio":              {},
	"mmio/npureg":       {"mmio"},
	"queue":             {words},
	"dma":               {words, "ecc"},
	"dma/iova":          {},
	"ecc":               {},
	"compiler":          {"compiler/emit", "compiler/ir", "compiler/model", "compiler/caffe", "compiler/onnx", "compiler/pass", "compiler/tflite", "compiler/plan", "compiler/ref", "compiler/run", "core/isa", "timing", "timing/timeline"},
	"compiler/emit":     {"core/isa", "timing"},
	"compiler/ir":       {},
	"compiler/model":    {"compiler/ir", "core/isa"},
	"compiler/npy":      {"compiler/ir", "compiler/ref"},
	"compiler/plan":     {"compiler/emit", "compiler/ir", "core/isa", "core/num", "core/systolic", "timing"},
	"compiler/run":      {"compiler/ir", "compiler/model", "compiler/ref", "core/isa"},
	"compiler/onnx":     {"compiler/ir"},
	"compiler/pass":     {"compiler/ir", "compiler/ref", "core/num"},
	"compiler/ref":      {"compiler/ir", "core/num"},
	"compiler/caffe":    {"compiler/ir"},
	"compiler/tflite":   {"compiler/ir"},
	"core":              {"core/hazard", "core/isa", "core/num", "core/systolic", "core/vec", "ecc"},
	"core/vec":          {"core/num"},
	"core/gemm":         {"core/num"},
	"core/hazard":       {"core/isa"},
	"core/isa":          {"core/num", "core/systolic"},
	"core/isa/lint":     {"core/hazard", "core/isa", "core/systolic"},
	"core/num":          {},
	"core/systolic":     {"core/gemm", "core/num"},
	"firmware":          {"firmware/cpu", "firmware/image", words},
	"firmware/cpu":      {},
	"firmware/gdb":      {"firmware", "firmware/cpu", "mmio/npureg"},
	"firmware/image":    {"mmio/npureg"},
	"internal/control":  {"internal/uds"},
	"internal/eventfd":  {},
	"internal/filemap":  {},
	"internal/findings": {},
	"internal/outfile":  {},
	"internal/uds":      {},
	"internal/warnings": {},
	"internal/regen":    {"mmio", "mmio/npureg"},
	"accel":             {},
	"timing":            {"core/isa", "core/num", "core/systolic"},
	"timing/timeline":   {"core/isa", "timing"},

	"examples/mlir":         {},
	"examples/alarm":        {"vdev/vfiouser", "dma/iova", "internal/eventfd"},
	"examples/alarm/server": {"examples/alarm", "vdev/vfiouser", "internal/uds"},
}

// words are what blocks and transports may use to talk of the same things.
const words = "mmio mmio/npureg dma/iova core/isa core/num ecc"

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, "npuemu/")
		rule, known := allowed[name]
		var may []string
		for _, r := range rule {
			may = append(may, strings.Fields(r)...)
		}
		isTest := strings.HasPrefix(name, "tests")
		tool := strings.HasPrefix(name, "firmware/image/") // builds the committed image
		if !known && !isTest && !tool && len(p.Imports) > 0 {
			t.Errorf("package %s has no rule here and in docs/architecture.md", name)
			continue
		}
		seen++
		for _, i := range p.Imports {
			i, ours := strings.CutPrefix(i, "npuemu/")
			if !ours || isTest || tool {
				continue
			}
			if !slices.Contains(may, i) {
				t.Errorf("%s imports %s: only the board introduces blocks to each other (docs/architecture.md)", name, i)
			}
		}
	}
	if seen < len(allowed) {
		t.Errorf("go list names %d packages, the rule %d: one was removed", seen, len(allowed))
	}
}
