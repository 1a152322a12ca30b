// SPDX-License-Identifier: Apache-2.0

// Package doorbell measures what a doorbell costs, in a register and in memory (§4.11):
//
//	go test -run '^$' -bench . ./tests/bench/doorbell
//
// The guest's side is TestShadowDoorbells in tests/card.
package doorbell
