// SPDX-License-Identifier: Apache-2.0

// Command gen writes the assembly of package gemm: micro-kernels and packing
// for AVX-512 VNNI, micro-kernels for AVX2. It is a module of its own so that
// the product does not depend on the generator's libraries. It writes to the
// directory that is its argument, or to package gemm: make generate-gemm.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// g collects the functions of the file.
var g = build.NewContext()

// begin starts a leaf function whose pointers do not escape.
func begin(name, signature, doc string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Pragma("noescape")
	g.Doc(strings.Split(doc, "\n")...)
}

func param(name string) reg.GPVirtual { return g.Load(g.Param(name), g.GP64()).(reg.GPVirtual) }

// onStack is a parameter of 64 bits where the caller left it, for want of a register.
func onStack(name string) operand.Mem {
	p, err := g.Param(name).Resolve()
	if err != nil {
		fail(err)
	}
	return p.Addr
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

func indexed(base, index reg.Register, scale uint8, disp int) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

// imm is an immediate operand: of 8 bits, or else of 32.
func imm(x uint64) operand.Constant {
	if x < 256 {
		return operand.U8(x)
	}
	return operand.U32(uint32(x))
}

func main() {
	out := ".."
	if len(os.Args) > 1 {
		out = os.Args[1]
	}
	g.ConstraintExpr("amd64")

	vnni()
	fma512()
	packA512()
	packLines512()
	packB512()
	packColumns512()
	sum512()
	widen512()
	channels512()
	quads512()
	line512()
	madd256()
	fma256()

	file, err := g.Result()
	if err != nil {
		build.LogError(log.Default(), err, 0)
		os.Exit(1)
	}
	if err := pass.Compile.Execute(file); err != nil {
		fail(err)
	}
	cfg := printer.Config{Name: "core/gemm/gen", Pkg: "gemm"}
	for name, p := range map[string]printer.Printer{
		"zkernels_amd64.s":  printer.NewGoAsm(cfg),
		"zkernels_amd64.go": printer.NewStubs(cfg),
	} {
		text, err := p.Print(file)
		if err != nil {
			fail(err)
		}
		text = append([]byte("// SPDX-License-Identifier: Apache-2.0\n\n"), bytes.TrimLeft(text, "\n")...)
		if err := os.WriteFile(filepath.Join(out, name), text, 0o644); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "gen:", err)
	os.Exit(1)
}
