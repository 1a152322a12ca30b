// SPDX-License-Identifier: Apache-2.0

// Package findings collects what a guest did wrong: one record for each kind of mistake, and a log line at most
// once a second for each.
package findings

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

// List collects what the guest did wrong. Any goroutine may use it; its lock is a leaf.
type List struct {
	log *slog.Logger

	mu    sync.Mutex
	byID  map[string]*Finding // guarded by mu
	quiet map[string]time.Time
}

// interval is how often one kind of finding is logged at most: a guest
// can make them by the million, an operator reads a few.
const interval = time.Second

// New returns an empty list that logs to log.
func New(log *slog.Logger) *List {
	return &List{log: log, byID: map[string]*Finding{}, quiet: map[string]time.Time{}}
}

// Add counts a finding and logs it unless the same kind was just logged.
func (f *List) Add(id, rule, evidence string) {
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
	loud := now.Sub(f.quiet[id]) >= interval
	if loud {
		f.quiet[id] = now
	}
	f.mu.Unlock()
	if loud {
		f.log.LogAttrs(context.Background(), slog.LevelWarn, "guest mistake", slog.String("finding", id), slog.String("rule", rule),
			slog.String("evidence", evidence), slog.Uint64("count", n))
	}
}

// All returns the findings, sorted by ID.
func (f *List) All() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	var l []Finding
	for _, x := range f.byID {
		l = append(l, *x)
	}
	slices.SortFunc(l, func(a, b Finding) int { return cmp.Compare(a.ID, b.ID) })
	return l
}
