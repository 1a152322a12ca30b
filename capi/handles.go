// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
)

// firstHandle is far from the numbers that a variable which nobody set has.
const firstHandle = 0x4e50_0000_0000_0001

// handles gives objects numbers. A number is never given twice.
type handles struct {
	mu   sync.Mutex
	next uint64
	of   map[uint64]any
}

// add gives v a number.
func (h *handles) add(v any) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.next, h.of = firstHandle, map[uint64]any{}
	}
	n := h.next
	h.next++
	h.of[n] = v
	return n
}

// remove takes a number back; false if it is not given.
func (h *handles) remove(n uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.of[n]
	delete(h.of, n)
	return ok
}

// kind is the object that a handle is for, as errors call it.
func kind(v any) string {
	if _, ok := v.(*device); ok {
		return "device"
	}
	return "model"
}

// find returns the object of type T with number n.
func find[T interface{ *device | *loaded }](h *handles, n uint64) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, there := h.of[n]
	t, ok := v.(T)
	switch {
	case ok:
		return t, nil
	case there:
		return nil, failure{statusHandle, fmt.Errorf("handle %#x is a %s's; give that of a %s", n, kind(v), kind(t))}
	case n >= firstHandle && n < h.next:
		return nil, failure{statusHandle, fmt.Errorf("handle %#x is closed", n)}
	}
	return nil, failure{statusHandle, fmt.Errorf("handle %#x was never given out", n)}
}
