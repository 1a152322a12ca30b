// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"fmt"
	"os"
	"sort"
	"testing"
)

// TestProbe prints what the cases of NPUEMU_ONNX_NODES give.
func TestProbe(t *testing.T) {
	dir := os.Getenv("NPUEMU_ONNX_NODES")
	if dir == "" {
		t.Skip("NPUEMU_ONNX_NODES is not set; make operators sets it")
	}
	results, err := RunAll(dir, Reference)
	if err != nil {
		t.Fatal(err)
	}
	count := map[Status]int{}
	reasons := map[string]int{}
	for _, r := range results {
		count[r.Status]++
		if r.Status != Pass {
			fmt.Printf("%s %s: %.180s\n", r.Status, r.Name, r.Detail)
		}
		_ = reasons
	}
	keys := []string{}
	for k, n := range count {
		keys = append(keys, fmt.Sprintf("%s %d", k, n))
	}
	sort.Strings(keys)
	fmt.Println(keys)
	t.Log(keys)
}
