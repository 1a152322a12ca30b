// SPDX-License-Identifier: Apache-2.0

// Command regen writes what follows from mmio/npureg: the C headers of driver
// and firmware, the register page of the specification, and the user library's
// names of status codes. Run it from the top of the tree (make generate); with -check
// it writes nothing and fails if a file differs.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"

	"npuemu/mmio"
	"npuemu/mmio/npureg"
)

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	files := map[string][]byte{
		"driver/npu_regs.h":       driverHeader(),
		"firmware/src/npu_regs.h": firmwareHeader(),
		"docs/spec/registers.md":  page(),
		"accel/zstatus.go":        statusNames(),
	}
	for name, want := range files {
		have, err := os.ReadFile(name)
		if err == nil && bytes.Equal(have, want) {
			continue
		}
		if *check {
			fmt.Fprintf(os.Stderr, "regen: %s differs from mmio/npureg: run make generate\n", name)
			os.Exit(1)
		}
		if err := os.WriteFile(name, want, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "regen:", err)
			os.Exit(1)
		}
		fmt.Println("wrote", name)
	}
}

const generated = "Generated from mmio/npureg by make generate; do not edit."

func driverHeader() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */\n/* %s */\n", generated)
	b.WriteString("#ifndef NPU_REGS_H\n#define NPU_REGS_H\n\n#include <linux/bits.h>\n")
	for _, g := range npureg.Groups() {
		group(&b, g)
	}
	b.WriteString("\n/* Host registers: byte offsets in BAR0 and fields (§2.1). */\n")
	for _, r := range npureg.Host() {
		define(&b, "NPU_"+r.Name, fmt.Sprintf("0x%03x", r.Off))
		for _, f := range r.Fields {
			mask := fmt.Sprintf("GENMASK(%d, %d)", f.Shift+f.Width-1, f.Shift)
			if f.Width == 1 {
				mask = fmt.Sprintf("BIT(%d)", f.Shift)
			}
			define(&b, "NPU_"+r.Name+"_"+f.Name, mask)
		}
	}
	b.WriteString("\n#endif /* NPU_REGS_H */\n")
	return b.Bytes()
}

func firmwareHeader() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "/* SPDX-License-Identifier: Apache-2.0 */\n/* %s */\n", generated)
	b.WriteString("#ifndef NPU_REGS_H\n#define NPU_REGS_H\n")
	for _, g := range append(npureg.Groups(), npureg.CPGroups()...) {
		group(&b, g)
	}
	b.WriteString("\n/* Host registers: byte offsets and fields (§2.1). */\n")
	plain(&b, npureg.Host())
	b.WriteString("\n/* Control-processor registers: byte offsets and fields (§2.2). */\n")
	plain(&b, npureg.CP())
	b.WriteString("\n#endif /* NPU_REGS_H */\n")
	return b.Bytes()
}

// plain writes registers with shift and mask, for C without kernel macros.
func plain(b *bytes.Buffer, table []mmio.Register) {
	for _, r := range table {
		define(b, "NPU_"+r.Name, fmt.Sprintf("0x%03x", r.Off))
		for _, f := range r.Fields {
			define(b, "NPU_"+r.Name+"_"+f.Name+"_SHIFT", fmt.Sprint(f.Shift))
			define(b, "NPU_"+r.Name+"_"+f.Name+"_MASK", fmt.Sprintf("0x%08xu", uint32((uint64(1)<<f.Width-1)<<f.Shift)))
		}
	}
}

func group(b *bytes.Buffer, g npureg.Group) {
	fmt.Fprintf(b, "\n/* %s */\n", g.Doc)
	for _, v := range g.Values {
		define(b, g.Prefix+v.Name, fmt.Sprintf("0x%x", v.Value))
	}
}

func define(b *bytes.Buffer, name, value string) {
	tabs := max(1, (48-len("#define ")-len(name)+7)/8)
	fmt.Fprintf(b, "#define %s%s%s\n", name, strings.Repeat("\t", tabs), value)
}

// statusNames is the user library's table of status codes: it imports nothing of the device.
func statusNames() []byte {
	var b bytes.Buffer
	b.WriteString("// SPDX-License-Identifier: Apache-2.0\n// Code generated from mmio/npureg by make generate; DO NOT EDIT.\n\npackage accel\n\n")
	b.WriteString("// statusNames are the status codes of §9.1.\nvar statusNames = map[Status]string{\n")
	for _, v := range npureg.Statuses() {
		fmt.Fprintf(&b, "\t0x%02x: %q,\n", v.Value, v.Name)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func page() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!-- %s -->\n# §2 Registers\n\n", generated)
	b.WriteString("All registers are 32 bits wide. Access: RO read-only, RW stored, W1C write one to clear, W1S write one to set,\n" +
		"WO write-only (reads 0); bits outside the named fields, or outside the mask that stands behind the access, ignore writes. Reset `–` means that the value depends on the configuration or on\n" +
		"state. Access rules: §1.3.\n\n## §2.1 Host registers (BAR0)\n\n")
	table(&b, npureg.Host())
	b.WriteString("\nDoorbell pages: §4.3.\n\n## §2.2 Control-processor registers\n\nOffsets from 0x40000000 (§3.6).\n\n")
	table(&b, npureg.CP())
	return b.Bytes()
}

func table(b *bytes.Buffer, regs []mmio.Register) {
	b.WriteString("| Offset | Name | Access | Reset | Meaning | Section |\n|---|---|---|---|---|---|\n")
	for _, r := range regs {
		fmt.Fprintf(b, "| 0x%03x | `%s` | %s | %s | %s", r.Off, r.Name, access(r), reset(r), r.Doc)
		for _, f := range r.Fields {
			bits := fmt.Sprintf("%d:%d", f.Shift+f.Width-1, f.Shift)
			if f.Width == 1 {
				bits = fmt.Sprint(f.Shift)
			}
			fmt.Fprintf(b, "<br>%s `%s`: %s", bits, f.Name, f.Doc)
		}
		fmt.Fprintf(b, " | %s |\n", r.Spec)
	}
}

func access(r mmio.Register) string {
	// Without fields, a mask that is not whole says how wide the register is.
	if m := r.RW; m != 0 && m != ^uint32(0) && len(r.Fields) == 0 {
		if r.WO {
			return fmt.Sprintf("WO 0x%x", m)
		}
		return fmt.Sprintf("RW 0x%x", m)
	}
	switch {
	case r.WO:
		return "WO"
	case r.W1C != 0:
		return "W1C"
	case r.W1S != 0:
		return "W1S"
	case r.RW != 0:
		return "RW"
	}
	return "RO"
}

func reset(r mmio.Register) string {
	if r.Reset == 0 && access(r) == "RO" {
		return "–"
	}
	return fmt.Sprintf("0x%x", r.Reset)
}
