// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// A Finding is one kind of mistake that a guest made, and how often.
type Finding struct {
	ID    string `json:"id"`   // stable identifier
	Rule  string `json:"rule"` // what the specification asks for, with its section
	Count uint64 `json:"count"`
	Last  string `json:"last"` // evidence of the last one
}

// findings collects what the guest did wrong. Its lock is a leaf.
type findings struct {
	log *slog.Logger

	mu    sync.Mutex
	byID  map[string]*Finding // guarded by mu
	quiet map[string]time.Time
}

// findingInterval is how often one kind of finding is logged at most: a guest
// can make them by the million, an operator reads a few.
const findingInterval = time.Second

func newFindings(log *slog.Logger) *findings {
	return &findings{log: log, byID: map[string]*Finding{}, quiet: map[string]time.Time{}}
}

// add counts a finding and logs it unless the same kind was just logged.
func (f *findings) add(id, rule, evidence string) {
	f.mu.Lock()
	x := f.byID[id]
	if x == nil {
		x = &Finding{ID: id, Rule: rule}
		f.byID[id] = x
	}
	x.Count++
	x.Last = evidence
	n := x.Count
	now := time.Now()
	loud := now.Sub(f.quiet[id]) >= findingInterval
	if loud {
		f.quiet[id] = now
	}
	f.mu.Unlock()
	if loud {
		f.log.LogAttrs(context.Background(), slog.LevelWarn, "guest mistake", slog.String("finding", id), slog.String("rule", rule),
			slog.String("evidence", evidence), slog.Uint64("count", n))
	}
}

// list returns the findings, sorted by ID.
func (f *findings) list() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	var l []Finding
	for _, x := range f.byID {
		l = append(l, *x)
	}
	slices.SortFunc(l, func(a, b Finding) int { return cmp.Compare(a.ID, b.ID) })
	return l
}
