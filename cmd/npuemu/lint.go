// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
	"npuemu/vdev"
)

func lintCommand() *cobra.Command {
	var (
		asJSON             bool
		cf                 configFlags
		ins, outs, aliases []string
		given              argumentFlags
	)
	c := &cobra.Command{
		Use:   "lint PROGRAM",
		Short: "Prove a program's tokens, bounds and memory order before it runs",
		Long: "lint goes through a program as the card's sequencer does, every iteration of every loop, and reports what breaks a rule of\n" +
			"docs/spec/isa.md §5.7 whatever memory holds; waits that are never satisfied, token counters that overflow and tokens that\n" +
			"nobody waits for; and accesses of two engines to the same bytes that no token orders (§5.5). PROGRAM is an ELF file, a raw\n" +
			"image, or text (.npuasm); file, line and column are told of text and of ELF files that npuemu asm wrote. - is standard input.\n\n" +
			"--in and --out say what bindings the launch gives, as run has them or by their sizes alone: then lint proves of these that no\n" +
			"iteration leaves them, and that they permit each access (BINDING_BOUNDS, BINDING_ACCESS). A number given to both is bound\n" +
			"for both. --alias N=M says that binding N begins where M does, or with N=M+OFFSET behind that; without, bindings are taken for\n" +
			"different memory. --config and --arch name the card: then lint tells what ISA, array, groups, types and local memory it lacks,\n" +
			"and the first instruction that needs it (§5.3).\n\n" +
			"A program with arguments is proven for those that --arg gives; those that are left out are 0, as of a launch. Without any, only\n" +
			"what is so whatever they are is looked at, and the exit status is 1.\n\n" +
			"What depends on data is not looked at: parameter tables, indices. Sums of integers that could leave 32 bits with the worst of\n" +
			"operands are noted (§6.8.1); a note is no finding. The exit status is 1 if there is a finding, or if a proof was too large to\n" +
			"finish.",
		Example: "  npuemu lint digits.npuasm\n  npuemu lint digits.npuasm --in 0=4120 --in 1=images.bin:64:64 --out 2=3904 --config array.toml\n" +
			"  npuemu lint --json digits.npu | jq '.findings[].rule'",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := loadProgram(c, args[0])
			if err != nil {
				return err
			}
			if p.Args, err = given.of(p); err != nil {
				return err
			}
			var o lint.Options
			if o.Bindings, err = lintBindings(ins, outs, int(p.Bindings)); err != nil {
				return err
			}
			if o.Shares, err = lintShares(aliases, int(p.Bindings)); err != nil {
				return err
			}
			if cf.file != "" || cf.arch != "" {
				cfg, err := cf.load()
				if err != nil {
					return err
				}
				o.Card = lintCard(cfg)
			}
			r := lint.CheckFor(p, o)
			w := c.OutOrStdout()
			if asJSON {
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = printLint(w, args[0], r, int(p.Bindings))
			}
			switch {
			case err != nil:
				return err
			case len(r.Findings) > 0:
				return fmt.Errorf("%s: %d findings", args[0], len(r.Findings))
			case r.Open:
				return fmt.Errorf("%s: not proven: the program has arguments (§5.6.13), and only what is so whatever they are was looked at; give them with --arg", args[0])
			case r.Undecided > 0:
				return fmt.Errorf("%s: not proven: %d accesses were too many to compare", args[0], r.Undecided)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	c.Flags().StringArrayVar(&ins, "in", nil, "`N=SIZE|FILE[:OFFSET:SIZE]` bound for reading; may be repeated")
	c.Flags().StringArrayVar(&outs, "out", nil, "`N=SIZE|FILE:SIZE` bound for writing, FILE is not touched; may be repeated")
	c.Flags().StringArrayVar(&aliases, "alias", nil, "`N=M[+OFFSET]`: binding N is in the memory of M; may be repeated")
	cf.add(c)
	given.add(c)
	return c
}

// lintCard is what the core of a card discovers.
func lintCard(cfg vdev.Config) *lint.Card {
	t := attach.Target(cfg)
	return &lint.Card{Rows: uint16(t.Rows), Cols: uint16(t.Cols), SpadSize: t.SpadSize, AccSize: t.AccSize, Minor: t.Minor, Features: t.Features}
}

// bindingNumber splits N=REST. The program has so many bindings.
func bindingNumber(flag, arg string, bindings int) (n int, rest string, err error) {
	num, rest, found := strings.Cut(arg, "=")
	n, nerr := strconv.Atoi(num)
	if !found || nerr != nil || n < 0 || n >= isa.MaxBindings {
		return 0, "", fmt.Errorf("%s %q: begin with the binding, 0 to %d, and =", flag, arg, isa.MaxBindings-1)
	}
	if n >= bindings {
		return 0, "", fmt.Errorf("%s %q: the program has %d bindings, counted from 0", flag, arg, bindings)
	}
	return n, rest, nil
}

// lintBindings returns what --in and --out say of a program's bindings.
func lintBindings(ins, outs []string, bindings int) ([]lint.Binding, error) {
	var l []lint.Binding
	give := func(flag, arg string, size func(rest string) (uint64, error)) error {
		n, rest, err := bindingNumber(flag, arg, bindings)
		if err != nil {
			return err
		}
		bytes, nerr := strconv.ParseUint(rest, 0, 64)
		if nerr != nil {
			if bytes, err = size(rest); err != nil {
				return fmt.Errorf("%s %q: %w", flag, arg, err)
			}
		}
		for len(l) <= n {
			l = append(l, lint.Binding{})
		}
		b := &l[n]
		switch {
		case bytes == 0:
			return fmt.Errorf("%s %q: a binding has at least one byte", flag, arg)
		case flag == "--in" && b.Read || flag == "--out" && b.Write:
			return fmt.Errorf("%s %q: the binding is given twice", flag, arg)
		case b.Size > 0 && b.Size != bytes:
			return fmt.Errorf("%s %q: --in has %d bytes for this binding; give the same size", flag, arg, b.Size)
		}
		b.Size, b.Read, b.Write = bytes, b.Read || flag == "--in", b.Write || flag == "--out"
		return nil
	}
	for _, arg := range ins {
		if err := give("--in", arg, partSize); err != nil {
			return nil, err
		}
	}
	for _, arg := range outs {
		if err := give("--out", arg, func(rest string) (uint64, error) {
			i := strings.LastIndexByte(rest, ':')
			size, err := strconv.ParseUint(rest[i+1:], 0, 64)
			if i < 1 || err != nil {
				return 0, fmt.Errorf("give a size, or a file and its size, as 2=result.bin:3904")
			}
			return size, nil
		}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// partSize is the size of what readPart reads.
func partSize(arg string) (uint64, error) {
	p, err := parsePart(arg)
	if err != nil {
		return 0, err
	}
	st, err := os.Stat(p.name)
	switch {
	case err != nil:
		return 0, err
	case !st.Mode().IsRegular():
		return 0, fmt.Errorf("%s is no regular file; give a size", p.name)
	case p.size == 0:
		return uint64(st.Size()), nil
	}
	return p.size, p.within(uint64(st.Size()))
}

// lintShares returns what --alias says.
func lintShares(aliases []string, bindings int) ([]lint.Share, error) {
	var l []lint.Share
	for _, arg := range aliases {
		a, rest, err := bindingNumber("--alias", arg, bindings)
		if err != nil {
			return nil, err
		}
		num, off, plus := strings.Cut(rest, "+")
		b, err := strconv.Atoi(num)
		s := lint.Share{A: uint8(a), B: uint8(b)}
		if err == nil && plus {
			s.Offset, err = strconv.ParseUint(off, 0, 40)
		}
		if err != nil || b < 0 || b >= bindings || b == a {
			return nil, fmt.Errorf("--alias %q: name two bindings of the program's %d, as 2=0 or 2=0+4096", arg, bindings)
		}
		if slices.ContainsFunc(l, func(o lint.Share) bool { return o.A == s.A || o.A == s.B || o.B == s.A }) {
			return nil, fmt.Errorf("--alias %q: give all bindings of one memory relative to one that has no --alias, each once", arg)
		}
		l = append(l, s)
	}
	return l, nil
}

// printLint prints r for people: a line for each finding, and one with its remedy. The program has so many bindings.
func printLint(w io.Writer, name string, r lint.Report, bindings int) error {
	for n, f := range slices.Concat(r.Findings, r.Notes) {
		note := ""
		if n >= len(r.Findings) {
			note = "note: "
		}
		if _, err := io.WriteString(w, findingText(name, note, f)); err != nil {
			return err
		}
	}
	if len(r.Findings) == 0 && r.Undecided == 0 && !r.Open {
		with := ""
		if r.Bindings > 0 {
			with += fmt.Sprintf(", with %d of %d bindings", r.Bindings, bindings)
		}
		if r.Card {
			with += ", on this card"
		}
		_, err := fmt.Fprintf(w, "%s: no findings in %d instructions%s\n", name, r.Passed, with)
		return err
	}
	return nil
}

// findingText is two lines about f, of the program of that name.
func findingText(name, note string, f lint.Finding) string {
	where := name
	if at := f.At.At(); at != "" {
		where = at
	}
	what := fmt.Sprintf("instruction %d: %s", f.At.Index, f.At.Instruction)
	if f.At.Index == lint.Descriptor {
		what = "descriptor: " + f.At.Instruction
	}
	return fmt.Sprintf("%s: %s%s: %s (%s, %s)\n\tremedy: %s\n", where, note, what, f.Message, f.Rule, f.Section, f.Remedy)
}
