// SPDX-License-Identifier: Apache-2.0

package warnings

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1000, 0)
	for i := range Burst {
		if ok, dropped := l.Allow(now); !ok || dropped != 0 {
			t.Fatalf("warning %d: %v, %d", i, ok, dropped)
		}
	}
	for range 5 {
		if ok, _ := l.Allow(now); ok {
			t.Error("more than the burst")
		}
	}
	now = now.Add(Every)
	if ok, dropped := l.Allow(now); !ok || dropped != 5 {
		t.Errorf("after a while: %v, %d dropped; want 5", ok, dropped)
	}
	if ok, _ := l.Allow(now); ok {
		t.Error("a second one after one interval")
	}
	now = now.Add(time.Hour)
	for i := range Burst {
		if ok, _ := l.Allow(now); !ok {
			t.Errorf("warning %d after an hour", i)
		}
	}
	if ok, _ := l.Allow(now); ok {
		t.Error("an hour makes more than the burst")
	}
}
