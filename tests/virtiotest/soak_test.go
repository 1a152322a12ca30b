// SPDX-License-Identifier: Apache-2.0

package virtiotest

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"npuemu/mmio/npureg"
	"npuemu/tests/usage"
)

var soakCycles = flag.Int("soak", 500, "front ends that come and go without a word in TestSoak")

// TestSoak attaches front ends and closes each at a random point: in the middle of a message, before or after
// the queues start, with a request under way. Nothing of them may stay.
func TestSoak(t *testing.T) {
	d, socket := power(t)
	rng := rand.New(rand.NewPCG(1, 2))
	cycle := func(t *testing.T) {
		switch rng.IntN(4) {
		case 0: // a message that is cut, with its descriptor
			f := Dial(t, socket)
			defer f.Close()
			m := Message(AddMemReg, Version, Slot(MemBase, MemSize, UserBase, 0))
			f.Raw(m[:1+rng.IntN(len(m))], int(f.File.Fd()))
		case 1: // no queue yet
			f := Dial(t, socket)
			defer f.Close()
			f.Negotiate(allFeatures)
			f.BackEnd()
		default:
			n := attach(t, d, socket, allFeatures)
			defer n.Close()
			if rng.IntN(2) == 0 {
				n.must(n.admin, entry{npureg.AdminCreateContext})
			}
			n.Raw(Message(GetVringBase, Version, Pair(0, 0))[:rng.IntN(20)])
		}
	}
	run := func(n int) {
		for range n / 20 {
			ok := t.Run("20 front ends", func(t *testing.T) { // which gives back our own side
				for range 20 {
					cycle(t)
				}
			})
			if !ok {
				t.FailNow()
			}
		}
	}
	run(100) // the runtime's threads and arenas come to stay
	before := usage.Settled(t, nil)
	start := time.Now()
	run(*soakCycles)
	took := time.Since(start)
	after := usage.Settled(t, &before)
	t.Logf("%d cycles in %v; before %+v, after %+v", *soakCycles, took.Round(time.Millisecond), before, after)
	if err := after.Left(before); err != nil {
		t.Error(err)
	}
	n := attach(t, d, socket, allFeatures)
	n.must(n.admin, entry{npureg.AdminCreateContext})
}
