// SPDX-License-Identifier: Apache-2.0

// Command capi is libnpuemu, a library for C and whatever calls C (npuemu.h, docs/capi.md): go build
// -buildmode=c-shared, as make lib does. It is the only package with cgo; without a C compiler it is an empty program.
//
// C sees npuemu.h and the functions of shim.c, which copy and check structures, keep the error text of each thread and
// refuse to work in the child of a fork, where the Go runtime is dead. They call the exported functions of export.go,
// which hold no pointer of C beyond a call, but for memory that npuemu_free takes back, and give no pointer of Go away.
// What they call (device.go, model.go) has no C in it. Objects are known to C by numbers (handles.go).
//
// Locks: a device's turn, a channel, is held by whoever uses its card; the handles' lock is a leaf.
package main

func main() {}
