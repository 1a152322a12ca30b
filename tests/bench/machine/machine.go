// SPDX-License-Identifier: Apache-2.0

// Package machine says what a benchmark ran on, since no figure means anything without it.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// kinds are the instructions that decide which kernels run, ours and others'.
var kinds = []string{"avx2", "avx_vnni", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "avx512_fp16", "amx_int8"}

// Processor is what the system says of its processors: number, name, family and model, and the instructions that matter.
func Processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Sprintf("%d processors, %s", runtime.NumCPU(), runtime.GOARCH)
	}
	return describe(string(b), runtime.NumCPU())
}

// Has reports whether the processors have a feature, by its name in /proc/cpuinfo.
func Has(feature string) bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && slices.Contains(strings.Fields(first(string(b))["flags"]), feature)
}

// Load is the machine's load average of the last minute.
func Load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}

// first are the fields of the first processor of cpuinfo.
func first(cpuinfo string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(cpuinfo) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			break
		}
		fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return fields
}

func describe(cpuinfo string, n int) string {
	f := first(cpuinfo)
	s := fmt.Sprintf("%d processors", n)
	if f["model name"] != "" {
		s += " of " + f["model name"]
	}
	if f["cpu family"] != "" {
		s += fmt.Sprintf(" (family %s, model %s)", f["cpu family"], f["model"])
	}
	var has []string
	for _, k := range kinds {
		// The system writes avx512vbmi.
		if flags := strings.Fields(f["flags"]); slices.Contains(flags, k) || slices.Contains(flags, strings.ReplaceAll(k, "512_v", "512v")) {
			has = append(has, k)
		}
	}
	if len(has) > 0 {
		s += ", " + strings.Join(has, " ")
	}
	return s
}
