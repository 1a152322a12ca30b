// SPDX-License-Identifier: Apache-2.0

package gdb

import (
	"fmt"
	"strings"

	"npuemu/firmware/cpu"
	"npuemu/mmio/npureg"
)

// Register numbers: x0 to x31, pc, and from 65 up the CSRs by their numbers, as GDB numbers them itself.
const (
	regPC    = 32
	regCount = 33 // in packets g and G
	regCSR   = 65
)

var registers = [regCount]string{
	"zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
	"s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6", "pc",
}

// csrs are the CSRs of the hart that hold something; those that only ever read 0 are left out.
var csrs = []struct {
	name   string
	number cpu.CSR
}{
	{"mstatus", cpu.Mstatus}, {"misa", cpu.Misa}, {"mie", cpu.Mie}, {"mtvec", cpu.Mtvec}, {"mscratch", cpu.Mscratch},
	{"mepc", cpu.Mepc}, {"mcause", cpu.Mcause}, {"mtval", cpu.Mtval}, {"mip", cpu.Mip}, {"mcycle", cpu.Mcycle},
	{"mcycleh", cpu.Mcycleh}, {"minstret", cpu.Minstret}, {"minstreth", cpu.Minstreth}, {"mhartid", cpu.Mhartid},
}

// targetXML is the target description.
func targetXML() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">` +
		"<architecture>riscv:rv32</architecture><feature name=\"org.gnu.gdb.riscv.cpu\">\n")
	for i, name := range registers {
		kind := map[string]string{"ra": "code_ptr", "pc": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr"}[name]
		if kind == "" {
			kind = "int"
		}
		fmt.Fprintf(&b, "<reg name=%q bitsize=\"32\" regnum=\"%d\" type=%q/>\n", name, i, kind)
	}
	b.WriteString("</feature><feature name=\"org.gnu.gdb.riscv.csr\">\n")
	for _, c := range csrs {
		fmt.Fprintf(&b, "<reg name=%q bitsize=\"32\" regnum=\"%d\" type=\"int\" group=\"csr\"/>\n", c.name, regCSR+int(c.number))
	}
	b.WriteString("</feature></target>\n")
	return b.String()
}

// memoryXML is the memory map (§3.6). GDB takes what is not in it for no memory, and rom for what it must not write.
func memoryXML() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" "http://sourceware.org/gdb/gdb-memory-map.dtd"><memory-map>` + "\n")
	for _, m := range []struct {
		kind       string
		base, size uint32
	}{
		{"rom", npureg.CPROMBase, npureg.CPROMSize},
		{"ram", npureg.CPSRAMBase, npureg.CPSRAMSize},
		{"ram", npureg.CPRegBase, npureg.CPRegSize},
		{"rom", npureg.CPHostBase, npureg.HostBankSize},
	} {
		fmt.Fprintf(&b, "<memory type=%q start=\"%#x\" length=\"%#x\"/>\n", m.kind, m.base, m.size)
	}
	b.WriteString("</memory-map>\n")
	return b.String()
}
