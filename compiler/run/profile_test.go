// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/run"
)

// TestParseProfile reads a record (§13.8.4) whose every field is another number, and some that are none.
func TestParseProfile(t *testing.T) {
	le := binary.LittleEndian
	record := func(size int) []byte {
		b := le.AppendUint32(nil, uint32(size))
		b = le.AppendUint32(b, 1)
		for v := uint64(1); len(b) < size; v++ {
			b = le.AppendUint64(b, v)
		}
		return b
	}
	want := &run.Profile{Timed: true, Began: 1, Cycles: 2, Instructions: 3, MACs: 4, Loaded: 5, Stored: 6, DRAM: 7, Bus: 8}
	for i := range want.Engines {
		n := 10 + 10*uint64(i)
		want.Engines[i] = run.EngineProfile{
			Engine: run.Engines[i], Instructions: n, Busy: n + 1,
			Stalls: run.Stalls{Load: n + 2, Store: n + 3, Matrix: n + 4, Vector: n + 5, Dispatch: n + 6, Weights: n + 7, Memory: n + 8, Scratchpad: n + 9},
		}
	}
	for _, size := range []int{400, 480} { // a later card's may be longer
		got, err := run.ParseProfile(record(size))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%d bytes: %v (-want +got):\n%s", size, err, diff)
		}
	}
	untimed := record(400)
	untimed[4] = 0
	if got, err := run.ParseProfile(untimed); err != nil || got.Timed {
		t.Errorf("a record without model time: %+v, %v", got, err)
	}
	short := record(400)
	le.PutUint32(short, 392)
	for name, b := range map[string][]byte{"nothing": nil, "three bytes": {144, 1, 0}, "cut": record(400)[:399], "shorter than a record": short, "never written": make([]byte, 400)} {
		if got, err := run.ParseProfile(b); err == nil || !strings.Contains(err.Error(), "§13.8.4") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
