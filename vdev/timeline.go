// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"encoding/binary"

	"npuemu/dma"
	"npuemu/mmio/npureg"
	"npuemu/queue"
)

// timeline is WAIT (§4.17) and SIGNAL (§4.18): a 64-bit value in memory that only grows.
func (x *executor) timeline(e *queue.Entry) queue.Completion {
	if x.d.cfg.features()&npureg.FeatureTimelines == 0 {
		return queue.Completion{Status: npureg.StatusInvalidOpcode, Info: uint64(e[0])}
	}
	if c, ok := zero(e, [2]int{1, 2}, [2]int{5, 8}, [2]int{0x18, 64}); !ok {
		return c
	}
	le := binary.LittleEndian
	space, addr, value := dma.Space(e[4]&15), le.Uint64(e[0x08:]), le.Uint64(e[0x10:])
	switch {
	case e[4]>>4 != 0 || !x.view.Reaches(space):
		return invalidField(4)
	case addr%8 != 0:
		return invalidField(0x08)
	}
	if err := x.view.Read(dma.Command, space, addr, x.word[:]); err != nil {
		return x.fault(err)
	}
	found := le.Uint64(x.word[:])
	if e[0] == npureg.CmdWait {
		if found < value {
			return queue.Completion{Pending: true, Addr: addr, Want: value, Info: found}
		}
		x.d.count(npureg.CounterWaits, 1)
		return queue.Completion{Info: found}
	}
	if found >= value {
		x.d.count(npureg.CounterSignals, 1)
		return queue.Completion{Result: 1, Info: found} // never back
	}
	le.PutUint64(x.word[:], value)
	if err := x.view.Write(dma.Command, space, addr, x.word[:]); err != nil {
		return x.fault(err)
	}
	x.d.count(npureg.CounterSignals, 1)
	return queue.Completion{Info: found, Signalled: true, Addr: addr}
}
