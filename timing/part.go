// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"cmp"
	"context"
	"slices"

	"npuemu/core/isa"
)

// Part is a part of a program: instructions [First, Last) of its text.
type Part struct{ First, Last int }

// PartReport is what the model says of a part of a program, with everything around it (§13.11).
type PartReport struct {
	Cycles       uint64  // in which one of its instructions works, tails among them
	Share        float64 // of the program's cycles those that are its own: a cycle in which several parts work is divided
	Instructions uint64
	MACs         uint64
	Read         uint64 // bytes from device memory, whole bursts, and from the bus
	Written      uint64 // bytes to them
	Array        uint64 // cycles in which the array works
	Vector       uint64 // likewise the vector engine
	Bound        Bound
}

// Utilization is the share of the array's multiply-accumulates that were used.
func (r *PartReport) Utilization(c Config) float64 { return utilization(r.MACs, r.Cycles, c) }

// Intensity is the multiply-accumulates for each byte of memory; 0 if no byte moves.
func (r *PartReport) Intensity() float64 { return intensity(r.MACs, r.Read+r.Written) }

func utilization(macs, cycles uint64, c Config) float64 {
	return float64(macs) / (float64(max(cycles, 1)) * float64(c.Rows) * float64(c.Cols))
}

func intensity(macs, bytes uint64) float64 {
	if bytes == 0 {
		return 0
	}
	return float64(macs) / float64(bytes)
}

// Parts is Program, and says of each part what it takes. Parts share no instruction; what is in none of them is the last
// report, one more than there are parts.
func Parts(ctx context.Context, p *isa.Program, c Config, onBus uint64, parts []Part) (Report, []PartReport, error) {
	of := slices.Repeat([]int32{int32(len(parts))}, len(p.Text)/isa.Size)
	for i, part := range parts {
		for k := part.First; k < part.Last; k++ {
			of[k] = int32(i)
		}
	}
	seen := make([]seenPart, len(parts)+1)
	r, err := Observe(ctx, p, c, onBus, func(s Span) error {
		if !s.Stall {
			seen[of[s.Index]].add(&s)
		}
		return nil
	})
	if err != nil {
		return Report{}, nil, err
	}
	reports := make([]PartReport, len(seen))
	for i := range seen {
		reports[i] = seen[i].finish(&c)
	}
	shares(seen, reports)
	return r, reports, nil
}

// seenPart is what is kept of a part while the model runs.
type seenPart struct {
	report                PartReport
	works, memory         intervals // anything; transfers
	lostArray, lostVector uint64    // cycles that the scratchpad cost
	lostMemory            uint64
	weights               uint64 // cycles of PRELOAD
	local                 uint64 // bytes of the scratchpad
}

// add counts what an engine did.
func (p *seenPart) add(s *Span) {
	r := &p.report
	r.Instructions++
	r.MACs += s.MACs
	p.local += s.Local
	p.works.add(s.Start, s.Done)
	busy := s.End - s.Start
	switch isa.Class(s.Engine + 1) {
	case isa.ClassLoad:
		r.Read += s.DRAM + s.Bus
	case isa.ClassStore:
		r.Written += s.DRAM + s.Bus
	case isa.ClassMatrix:
		if s.Placing {
			p.weights += busy
			return
		}
		r.Array += busy
		p.lostArray += s.Scratchpad
		return
	case isa.ClassVector:
		r.Vector += busy
		p.lostVector += s.Scratchpad
		return
	}
	if busy > 0 {
		p.memory.add(s.Start, s.End)
		p.lostMemory += s.Scratchpad
	}
}

// finish says what bounds the part: what works longest of its cycles, or latency if nothing works for half of them.
func (p *seenPart) finish(c *Config) PartReport {
	r := &p.report
	r.Cycles = p.works.sum()
	memory := p.memory.sum()
	times := [bounds]uint64{
		ByArray: r.Array - p.lostArray, ByMemory: memory - min(memory, p.lostMemory), ByScratchpad: ceilDiv(p.local, c.ports()), ByVector: r.Vector - p.lostVector,
		ByWeights: p.weights, ByDispatch: r.Instructions * uint64(c.Dispatch),
	}
	for b, t := range times {
		if t > times[r.Bound] {
			r.Bound = Bound(b)
		}
	}
	if 2*times[r.Bound] < r.Cycles {
		r.Bound = ByLatency
	}
	return *r
}

// interval is cycles [from, to).
type interval struct{ from, to uint64 }

// intervals are in order, and none touches another.
type intervals []interval

// add makes x a part of l. It comes at or near the end of l.
func (l *intervals) add(from, to uint64) {
	if from == to {
		return
	}
	i := len(*l)
	for i > 0 && (*l)[i-1].to >= from {
		i--
	}
	j := i
	for j < len(*l) && (*l)[j].from <= to {
		from, to = min(from, (*l)[j].from), max(to, (*l)[j].to)
		j++
	}
	*l = slices.Replace(*l, i, j, interval{from, to})
}

func (l intervals) sum() (n uint64) {
	for _, x := range l {
		n += x.to - x.from
	}
	return n
}

// shares divides each cycle among the parts that work in it.
func shares(seen []seenPart, reports []PartReport) {
	type edge struct {
		at    uint64
		part  int
		begin bool
	}
	var edges []edge
	for i := range seen {
		for _, x := range seen[i].works {
			edges = append(edges, edge{x.from, i, true}, edge{x.to, i, false})
		}
	}
	// The order of what happens in one cycle does not matter, but for the last bits of sums.
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.part, b.part)) })
	began := make([]float64, len(seen))
	var now uint64
	var each float64 // cycles so far of a part that had worked in all of them
	working := 0
	for _, e := range edges {
		if working > 0 {
			each += float64(e.at-now) / float64(working)
		}
		now = e.at
		if e.begin {
			working++
			began[e.part] = each
		} else {
			working--
			reports[e.part].Share += each - began[e.part]
		}
	}
}
