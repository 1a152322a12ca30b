// SPDX-License-Identifier: Apache-2.0

// Package warnings limits how much a peer can make a server log.
package warnings

import (
	"sync"
	"time"
)

// A peer may cause Burst warnings at once, then one in Every.
const (
	Burst = 16
	Every = time.Second
)

// Limiter is a bucket of Burst tokens that gets one every Every. The zero value is
// full. It is safe for concurrent use.
type Limiter struct {
	mu      sync.Mutex
	spent   int       // tokens that are missing; guarded by mu
	last    time.Time // when a token was last added; guarded by mu
	dropped int       // guarded by mu
}

// Allow reports whether something may be logged now, and how much was not since
// the last time.
func (l *Limiter) Allow(now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(now.Sub(l.last) / Every); n > 0 {
		l.spent = max(0, l.spent-min(n, Burst))
		l.last = now
	}
	if l.spent == Burst {
		l.dropped++
		return false, 0
	}
	l.spent++
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}
