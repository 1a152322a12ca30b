// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// countedAlike are the counters that the commands alone decide. The others count what a transport's own driver does besides:
// doorbells, interrupts, and fetches of rings and images over the bus.
var countedAlike = map[string]int{
	"COMMANDS": npureg.CounterCommands, "ERRORS": npureg.CounterErrors, "PROGRAMS": npureg.CounterPrograms, "INSTRUCTIONS": npureg.CounterInstructions,
	"MACS": npureg.CounterMACs, "FAULTS": npureg.CounterFaults, "COPIES": npureg.CounterCopies, "ADMIN": npureg.CounterAdmin,
	"TLB_HITS": npureg.CounterTLBHits, "TLB_MISSES": npureg.CounterTLBMisses, "TRANSLATION_FAULTS": npureg.CounterTranslationFaults,
}

// TestTransportsAgree runs the same programs over every transport: results, memory, counters and findings are the same.
func TestTransportsAgree(t *testing.T) {
	if devtest.InUse() != devtest.VFIOUser {
		t.Skip("this is another run")
	}
	var first []string
	for i, transport := range devtest.Transports() {
		t.Run(transport, func(t *testing.T) { // one may not be there, and skips
			got := transcript(t, transport)
			if i == 0 {
				first = got
				t.Logf("%d lines", len(first))
			}
			if diff := cmp.Diff(first, got); diff != "" {
				t.Errorf("-%s +%s:\n%s", devtest.Transports()[0], transport, diff)
			}
		})
	}
}

// transcript is what a driver and the operator see of a card over a transport.
func transcript(t *testing.T, transport string) (lines []string) {
	h := devtest.NewOver(t, transport, config())
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	h.Bring(firmware.Image())
	context := h.CreateContext()
	note("context %d", context)
	h.CreateQueue(1, context, 1, 8)
	h.CreateQueue(2, context, 2, 16)
	h.CreateQueue(3, context, 3, 8) // a virtqueue keeps its memory
	h.DestroyQueue(3)

	const base = devtest.MemBase + devtest.MemSize/2 // a place that no transport's rings take
	h.Rewind(base)
	good := h.Launch(program(t, "halt\n"))
	for _, tt := range commandMistakes(t, h, good) {
		note("%s: %v", tt.name, h.Do(1, tt.e))
		note("and then: %v", h.Do(1, good))
	}

	h.Rewind(base)
	src, s := h.Alloc(1 << 16)
	dst, d := h.Alloc(1 << 16)
	rng := rand.New(rand.NewPCG(11, 12))
	for i := range s {
		s[i] = byte(rng.Uint32())
	}
	for range 60 { // rows and planes that overlap, in both directions
		spaces := rng.IntN(4)
		from, to := src, dst
		if spaces&1 != 0 {
			from = uint64(rng.IntN(1 << 15))
		}
		if spaces&2 != 0 {
			to = uint64(rng.IntN(1 << 15))
		}
		e := copyEntry(uint8(spaces&1), uint8(spaces>>1), from, to, uint32(1+rng.IntN(100)), uint16(1+rng.IntN(9)), uint16(1+rng.IntN(5)),
			uint64(rng.IntN(200)), uint64(rng.IntN(2000)), uint64(rng.IntN(200)), uint64(rng.IntN(2000)))
		queue := 1 + rng.IntN(2)
		note("copy in queue %d: %v", queue, h.Do(queue, e))
	}
	note("guest memory %x", sha256.Sum256(d))
	if c := h.Do(1, copyEntry(1, 0, 0, dst, 1<<16, 1, 1)); c.Status != npureg.StatusSuccess {
		t.Errorf("%s: reading device memory: %v", transport, c)
	}
	note("device memory %x", sha256.Sum256(d))

	for i, f := range faults() {
		h.Rewind(base)
		p := newProcess(h, 3, i%2 == 1)
		note("%s: %v", f.name, h.Do(3, nop()))
		h.Submit(3, f.e(t, p))
		note("%s: %v", f.name, h.Wait(3))
		p.end()
	}
	_, log := h.FaultLog()
	for _, f := range log {
		f.Index, f.ID = 0, 0 // over virtio they are the device's own
		note("fault %+v", f)
	}

	for range 40 { // opcodes and fields of no sense
		var e devtest.Entry
		for k := range e {
			e[k] = byte(rng.Uint32())
		}
		e[0] = byte(rng.IntN(8))
		note("noise: %v", h.Do(2, e))
	}
	for _, e := range []devtest.Entry{{0x77}, {npureg.AdminDestroyContext, 8: 9}, {npureg.AdminDestroyQueue, 8: 7}, {npureg.AdminDestroyContext, 8: byte(context)}} {
		note("admin: %v", h.Admin(e))
	}
	h.DestroyQueue(2)
	h.DestroyQueue(1)
	note("admin: %v", h.Admin(devtest.Entry{npureg.AdminDestroyContext, 8: byte(context)}))

	// Firmware counts a command after it has posted its completion.
	becomes(func() uint64 { return h.Dev.Counter(npureg.CounterAdmin) }, uint64(13+4*len(log)))
	for _, name := range slices.Sorted(maps.Keys(countedAlike)) {
		note("%s %d", name, h.Dev.Counter(countedAlike[name]))
	}
	for _, f := range h.Dev.Findings() {
		note("finding %s", f.ID)
	}
	return lines
}
