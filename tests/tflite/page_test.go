// SPDX-License-Identifier: Apache-2.0

package tflite

import (
	"fmt"
	"path"
	"strings"
)

// pageOf is docs/tflite.md.
func pageOf(results []result) string {
	equal := 0
	for _, r := range results {
		if r.pass() {
			equal++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# TensorFlow Lite models of public test suites

Written by `+"`make test-tflite`"+`; do not edit. The models are those that tflite-micro's examples and integration tests use and the LiteRT
interpreter runs, by the hashes of `+"`tests/tflite/models.txt`"+`; they are fetched, not part of this tree. Each runs in the
interpreter of the wheel that `+"`tests/tflite/requirements.txt`"+` pins, with its reference kernels (BUILTIN_REF) and no delegate, and on a card in
process, on the same pseudo-random inputs, some runs one after the other so that variables keep their values. A run is
equal if every output is, to the bit. Cycles are the timing model's (spec/timing.md) of one run on the default array.

**%d of %d models are equal**, with every operator on the device, as its counters prove.

| Model | Operators | Runs equal | Operations on the device | On the host | Cycles |
|---|---|---|---|---|---|
`, equal, len(results))
	for _, r := range results {
		equal, host := fmt.Sprintf("%d of %d", r.equal, r.runs), "none"
		if r.err != nil {
			equal = "refused: " + r.err.Error()
		}
		if len(r.hosts) > 0 {
			host = strings.Join(r.hosts, ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %d |\n", strings.TrimSuffix(path.Base(r.name), ".tflite"), r.operators, equal, r.device, host, r.cycles)
	}
	b.WriteString(`
Of the suites' other models, audio_preprocessor (the SignalWindow and further custom operators) and person_detect_vela (a program for
another accelerator) are refused by name; the interpreter does not run them either. keyword_scrambled_8bit has an SVDF with a state of int8,
which tflite-micro computes and LiteRT does not know: it reads the state as int16. The models in floating point, hello_world_float and
trained_lstm, have no bits to compare.
`)
	return b.String()
}
