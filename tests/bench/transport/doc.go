// SPDX-License-Identifier: Apache-2.0

// Package transport measures the transports side by side with a peer (`make
// bench-transport`). docs/performance.md says what each row means, and keeps the results.
package transport
