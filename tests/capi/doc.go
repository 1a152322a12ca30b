// SPDX-License-Identifier: Apache-2.0

// Package capi tests libnpuemu: it builds the library, and programs in C against it, and runs them; and the Python
// package, with the standard library alone.
package capi
