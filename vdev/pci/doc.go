// SPDX-License-Identifier: Apache-2.0

// Package pci models one PCI Express endpoint function as the PCI Express Base
// Specification 6.0 describes it; section numbers in this package are of that
// document. It has a type 0 header with 64-bit memory BARs, the Power
// Management, PCI Express, MSI-X and MSI capabilities, and the Advanced Error
// Reporting, Device Serial Number and Resizable BAR extended capabilities; a physical function
// also has ARI and SR-IOV, and a virtual function has less of everything (sriov.go).
//
// Configuration space:
//
//	0x000  header: BAR0/1, BAR2/3 and BAR4/5 are 64-bit pairs; no ROM; interrupt pin INTA
//	0x040  Power Management (§7.5.2): D0 and D3hot, No_Soft_Reset set, no PME
//	0x050  PCI Express (§7.5.3): endpoint, Function Level Reset, 5 GT/s ×16
//	0x090  MSI-X (§7.7.2): table and pending bits in BAR4
//	0x0a0  MSI (§7.7.1): 64-bit address, per-vector masking
//	0x100  Advanced Error Reporting (§7.8.4), version 2, without ECRC
//	0x148  Device Serial Number (§7.9.3)
//	0x160  Resizable BAR (§7.8.6)
//	0x180  ARI (§7.8.7); in a virtual function at 0x100, as the only extended capability
//	0x190  SR-IOV (§9.3.3)
//
// A [Config] without MSI-X or MSI has no such capability and a list without it; INTx
// is always there. [Function.Raise] sends a vector by what is on.
//
// [Function] is the configuration space. The board serves BAR0 and BAR2
// itself, and hands accesses to BAR4 to the function's [MSIX]. A transport
// changes nothing of this: it forwards configuration accesses and resets to the
// Function and attaches a [Signaler] to each interrupt that it can deliver, of its
// [MSIX], [MSI] and [INTx].
//
// Locks: Device.mu of the caller guards a Function. Interrupts have a lock of their
// own, the last one in the lock order, so that any goroutine may raise a vector.
//
// Left out: I/O and 32-bit BARs, expansion ROM, D1 and D2, PME, VPD,
// error messages to the root complex (no transport carries them), and
// everything that a link would do: link registers show a trained link and
// writes to them have no effect.
package pci
