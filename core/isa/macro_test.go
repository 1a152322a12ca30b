// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// textFiles reads files from a map.
func textFiles(m map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if s, ok := m[name]; ok {
			return []byte(s), nil
		}
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
}

// instructions is the disassembly of p without its directives.
func instructions(p *Program) string {
	_, text, _ := strings.Cut(Disassemble(p), "\n\n")
	return text
}

func TestTextThatMakesText(t *testing.T) {
	files := textFiles(map[string]string{"lib/a.inc": ".equ A, 7\n.include \"b.inc\"\n", "lib/b.inc": ".equ B, A+1\n"})
	tests := []struct{ name, in, want string }{
		{"repetition", ".rept 3, i\nfill local=i*16 nx=16\n.endr", "fill    local=0 nx=16\nfill    local=0x10 nx=16\nfill    local=0x20 nx=16\n"},
		{"none", ".rept 0\nnonsense\n.endr", ""},
		{"inside each other", ".rept 2, y\n.rept 2, x\nfill local=y*2+x nx=1\n.endr\n.endr",
			"fill    local=0 nx=1\nfill    local=0x1 nx=1\nfill    local=0x2 nx=1\nfill    local=0x3 nx=1\n"},
		{"macro", ".macro clear at, n=4\nfill local=\\at nx=\\n\n.endm\nclear 8\nclear 8, 2\nclear n=3 , at=1+1\n",
			"fill    local=0x8 nx=4\nfill    local=0x8 nx=2\nfill    local=0x2 nx=3\n"},
		{"precedence of an argument", ".macro clear at\nfill local=\\at*2 nx=1\n.endm\nclear 1+2", "fill    local=0x6 nx=1\n"},
		{"arguments that are words", ".macro t op, tok, flag\n\\op local=0 nx=4 wait=\\tok \\flag\n.endm\nt fill, 2:3, acc_mem", "fill    local=0 nx=4 acc_mem wait=2:3\n"},
		{"names of a macro are its own", ".equ X, 1\n.macro m v\n.equ X, \\v+1\nfill local=X nx=1\n.endm\nm X\nm X\nfill local=X nx=1",
			"fill    local=0x2 nx=1\nfill    local=0x2 nx=1\nfill    local=0x1 nx=1\n"},
		{"macro in a macro", ".macro in a\nfill local=\\a nx=1\n.endm\n.macro out a\nin \\a\nin \\a+1\n.endm\nout 4", "fill    local=0x4 nx=1\nfill    local=0x5 nx=1\n"},
		{"files", ".include \"lib/a.inc\"\nfill local=A nx=B", "fill    local=0x7 nx=8\n"},
		{"allocation", ".alloc IN, 3\n.alloc OUT, 5, 16\nfill local=OUT nx=sizeof(OUT)\nfill local=IN nx=sizeof(IN)", "fill    local=0x10 nx=5\nfill    local=0 nx=3\n"},
		{"accumulators", ".alloc_acc P, 5\n.alloc_acc Q, 4\nfill local=Q nx=4 acc_mem", "fill    local=0x8 nx=4 acc_mem\n"},
		{"functions", "fill local=min(3, 2, 1+3)+max(1, 5)+align(9, 8)+ceildiv(9, 8) nx=1", "fill    local=0x19 nx=1\n"},
		{"label", "a:\nfill local=0 nx=1\nb: fill local=b nx=1", "a:\nfill    local=0 nx=1\nb:\nfill    local=0x1 nx=1\n"},
		{"labels of repetitions", ".rept 2\na: sync.load\n.endr", "a.1:\nsync.load\na.2:\nsync.load\n"},
		{"words in comments", ".rept 1 ; .endr\n; .endr\n  .endr2: sync.load\n.endr", "sync.load\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := AssembleFiles("t", []byte(head+tt.in+"\nhalt\n"), files)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want+"halt\n", instructions(p)); diff != "" {
				t.Errorf("instructions (-want +got):\n%s", diff)
			}
			roundTrip(t, p)
		})
	}
}

// Memory that .alloc gives out is what the program asks for where it does not say.
func TestAllocSizes(t *testing.T) {
	p, err := Assemble("t", []byte(".isa 1.0\n.alloc A, 100\n.alloc B, 10, 64\n.alloc_acc C, 20\nhalt\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.SpadSize != 138 || p.AccSize != 20 {
		t.Errorf("scratchpad of %d, accumulators of %d bytes, want 138 and 20", p.SpadSize, p.AccSize)
	}
}

func TestTextThatMakesTextErrors(t *testing.T) {
	files := textFiles(map[string]string{"bad.inc": "\nlod\n", "self.inc": ".include \"self.inc\"\n"})
	tests := []struct{ name, in, want string }{
		{"in a macro", ".macro m\nlod\n.endm\nm", "t:7:1: unknown instruction lod; did you mean load?\n\tin macro m, t:9"},
		{"in a macro of a repetition", ".macro m a\nfill local=\\a nx=0\n.endm\n.rept 1\nm 3\n.endr",
			"t:7:15: nx is 0; it must be at least 1 (BAD_OPERAND, §5.7)\n\tin macro m, t:10\n\tin repetition 0, t:9"},
		{"in a file", ".include \"bad.inc\"", "bad.inc:2:1: unknown instruction lod; did you mean load?\n\tincluded, t:6"},
		{"no file", ".include \"none.inc\"", "t:6:10: open none.inc: file does not exist"},
		{"no name of a file", ".include none", `t:6:10: found "none"; write .include "FILE"`},
		{"name without end", ".include \"none", `t:6:10: the name in quotes does not end in this line; write a " behind it`},
		{"file in itself", ".include \"self.inc\"", "self.inc:1:1: more than 32 macros, repetitions and files inside each other; does self.inc include itself?"},
		{"macro in itself", ".macro m\nm\n.endm\nm", "t:7:1: more than 32 macros, repetitions and files inside each other; does m use itself?"},
		{"macro without end", ".macro m\nhalt", "t:6:1: .macro has no .endm"},
		{"repetition without end", ".rept 2\n.rept 2\n.endr", "t:6:1: .rept has no .endr"},
		{"end without macro", ".endm", "t:6:1: .endm without .macro"},
		{"end without repetition", ".endr", "t:6:1: .endr without .rept"},
		{"unknown macro", ".macro clear\n.endm\ncler", "t:8:1: unknown instruction cler; did you mean clear?"},
		{"macro of an instruction's name", ".macro load\n.endm", "t:6:8: load is an instruction; give the macro another name"},
		{"macro twice", ".macro m\n.endm\n.macro m\n.endm", "t:8:8: macro m is already defined"},
		{"parameter twice", ".macro m a, a\n.endm", `t:6:13: found "a"; a parameter has a name of its own`},
		{"parameter unknown", ".macro m at\n.endm\nm ta=3", "t:8:3: m has no parameter ta; did you mean at?"},
		{"parameter missing", ".macro m at\n.endm\nm", "t:8:1: m needs at; write at=value"},
		{"parameter given twice", ".macro m at\n.endm\nm 1, at=2", "t:8:6: at is given twice; remove one"},
		{"too many arguments", ".macro m at\n.endm\nm 1, 2", "t:8:6: m takes 1 arguments"},
		{"argument without value", ".macro m at\n.endm\nm at=", `t:8:3: at has no value`},
		{"parameter in no macro", "fill local=\\a nx=1", "t:6:12: \\a stands in no macro"},
		{"parameter of no macro", ".macro m at\nfill local=\\ad nx=1\n.endm\nm 1", "t:7:12: \\ad is no parameter of the macro; known are at\n\tin macro m, t:9"},
		{"name of a macro outside", ".macro m\n.equ INSIDE, 1\n.endm\nm\nfill local=INSIDE nx=1", "t:10:12: INSIDE is not defined; define it before with .equ"},
		{"label twice", "a: sync.load\na: sync.load", "t:7:1: a is already defined; a name has one value"},
		{"label before a repetition", "a: .rept 1\n", "t:6:4: .rept stands first in its line; put the label in a line before"},
		{"allocation too large", ".alloc A, 4000\n.alloc B, 100", "t:7:8: B needs 100 bytes at 0xfa0; there are 4096 in all, make .spad larger"},
		{"alignment", ".alloc A, 4, 3", "t:6:11: the alignment is 3; it is a power of two"},
		{"alignment of accumulators", ".alloc_acc A, 4, 2", "t:6:18: the alignment is 2; it must be from 4 to 2147483648"},
		{"size of what was not allocated", ".equ A, 1\nfill local=0 nx=sizeof(A)", `t:7:24: "A" was not allocated; sizeof takes a name of .alloc or .alloc_acc`},
		{"function", "fill local=0 nx=mim(1, 2)", "t:6:17: there is no function mim; did you mean min?"},
		{"arguments of a function", "fill local=0 nx=align(1)", "t:6:17: align has 1 arguments; it takes 2"},
		{"alignment by 0", "fill local=0 nx=align(1, 0)", "t:6:17: align(1, 0): the first is at least 0, the second at least 1, and their sum fits in 64 bits"},
		{"repetition of text", ".rept x\n.endr", "t:6:7: x is not defined; define it before with .equ"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := AssembleFiles("t", []byte(head+tt.in+"\nhalt\n"), files)
			var list SyntaxErrors
			if !errors.As(err, &list) {
				t.Fatalf("AssembleFiles = %v, want SyntaxErrors", err)
			}
			got := list[0].Error()
			if strings.Contains(tt.want, "does ") { // the way there is long
				got, _, _ = strings.Cut(got, "\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// A text of few lines cannot make the assembler work for ever.
func TestTextBombs(t *testing.T) {
	bomb := head + strings.Repeat(".rept 1000\n", 9) + strings.Repeat(".endr\n", 9) + "halt\n"
	_, err := Assemble("t", []byte(bomb))
	if err == nil || !strings.Contains(err.Error(), "more than 1048576 lines") {
		t.Errorf("nine repetitions inside each other: %.200v", err)
	}
}

const debugText = ".isa 1.0\n.macro m\nin: sync.load\n.endm\nstart: sync.load\nm\nlast: halt\n"

// The file keeps lines and labels, and a stock readelf and objdump can read it.
func TestELFDebug(t *testing.T) {
	p, err := Assemble("prog.npuasm", []byte(debugText))
	if err != nil {
		t.Fatal(err)
	}
	b := p.ELF()
	back, err := ReadELF(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, back); diff != "" {
		t.Errorf("program (-written +read):\n%s", diff)
	}
	if file, line, ok := back.Debug.At(1); file != "prog.npuasm" || line != 3 || !ok {
		t.Errorf("instruction 1 is of %s:%d, want prog.npuasm:3", file, line)
	}
	for i, want := range []int{8, 5, 7} {
		if got := back.Debug.Column(i); got != want {
			t.Errorf("instruction %d is in column %d, want %d", i, got, want)
		}
	}
	name := filepath.Join(t.TempDir(), "prog.npu")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	tool := func(want []string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("no %s: %v", args[0], err)
		}
		cmd := exec.Command(args[0], append(args[1:], name)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		for _, w := range append(want, ".npu.desc", ".note.npu", ".npu.lines") {
			if !strings.Contains(string(out), w) {
				t.Errorf("%v does not tell of %q:\n%s", args, w, out)
			}
		}
		for _, bad := range []string{"arning", "rror:", "corrupt", "nvalid"} {
			if strings.Contains(string(out), bad) {
				t.Errorf("%v complains:\n%s", args, out)
			}
		}
	}
	tool([]string{"EXEC", ".text", "start", "in.1", "last", "LOAD", "NOTE", "NPU "}, "readelf", "-a", "-W")
	tool([]string{"NPUP", "elf64-little", "prog.npuasm"}, "objdump", "-s")
}

// What a file says of lines is looked at before it is believed.
func TestELFBadDebug(t *testing.T) {
	p, err := Assemble("p", []byte(debugText))
	if err != nil {
		t.Fatal(err)
	}
	good := p.ELF()
	at := bytes.Index(good, p.Debug.encode())
	for _, tt := range []struct {
		name string
		off  int
		to   byte
		want string
	}{
		{"more lines than instructions", 4, 9, ".npu.lines: has 9 lines"},
		{"file that is not there", 8, 7, "line 0 is of file 7; there are 1"},
		{"more files than names", 0, 2, "has 1 file names; it says 2"},
		{"name without end", len(p.Debug.encode()) - 1, 'x', "the last file name has no end"},
	} {
		b := bytes.Clone(good)
		b[at+tt.off] = tt.to
		if _, err := ReadELF(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	b := bytes.Clone(good)
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(f.Sections, func(s *elf.Section) bool { return s.Name == columnsName })
	const sizeAt = 32 // in a section's header
	b[binary.LittleEndian.Uint64(b[40:])+uint64(n*elfSectSize+sizeAt)] -= 4
	if _, err := ReadELF(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), ".npu.columns: has 8 bytes for 3 lines") {
		t.Errorf("too few columns: %v", err)
	}
}
