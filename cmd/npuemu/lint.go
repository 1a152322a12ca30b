// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"npuemu/core/isa/lint"
)

func lintCommand() *cobra.Command {
	var (
		asJSON bool
		cf     configFlags
	)
	c := &cobra.Command{
		Use:   "lint PROGRAM",
		Short: "Prove a program's tokens, bounds and memory order before it runs",
		Long: "lint goes through a program as the card's sequencer does, every iteration of every loop, and reports what breaks a rule of\n" +
			"docs/spec/isa.md §5.7 whatever memory holds; waits that are never satisfied, token counters that overflow and tokens that\n" +
			"nobody waits for; and accesses of two engines to the same bytes that no token orders (§5.5). PROGRAM is an ELF file, a raw\n" +
			"image, or text (.npuasm); lines are told of ELF files that npuemu asm wrote. - is standard input.\n\n" +
			"Bindings are taken for different memory. What depends on data or on a launch is not looked at: parameter tables, size\n" +
			"and access of bindings. Sums of integers that could leave 32 bits with the worst of operands are noted (§6.8.1); a note is no\n" +
			"finding. With --config or --arch also what a card of that configuration would refuse is a finding (§5.3). The exit status is 1 if there is a finding, or if a proof was too large to finish.",
		Example: "  npuemu lint digits.npuasm\n  npuemu lint --json digits.npu | jq '.findings[].rule'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := loadProgram(c, args[0])
			if err != nil {
				return err
			}
			r := lint.Check(p)
			if v, at, err := cf.refuses(c, p); err != nil {
				return err
			} else if v != nil {
				r.Findings = append(r.Findings, lint.Refused(p, v, at))
			}
			w := c.OutOrStdout()
			if asJSON {
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = printLint(w, args[0], r)
			}
			switch {
			case err != nil:
				return err
			case len(r.Findings) > 0:
				return fmt.Errorf("%s: %d findings", args[0], len(r.Findings))
			case r.Undecided > 0:
				return fmt.Errorf("%s: not proven: %d accesses were too many to compare", args[0], r.Undecided)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	cf.add(c)
	return c
}

// printLint prints r for people: a line for each finding, and one with its remedy.
func printLint(w io.Writer, name string, r lint.Report) error {
	for n, f := range slices.Concat(r.Findings, r.Notes) {
		where, note := name, ""
		if f.At.File != "" {
			where = fmt.Sprintf("%s:%d", f.At.File, f.At.Line)
		}
		if n >= len(r.Findings) {
			note = "note: "
		}
		if _, err := fmt.Fprintf(w, "%s: %sinstruction %d: %s: %s (%s, %s)\n\tremedy: %s\n", where, note, f.At.Index, f.At.Instruction, f.Message, f.Rule, f.Section, f.Remedy); err != nil {
			return err
		}
	}
	if len(r.Findings) == 0 && r.Undecided == 0 {
		_, err := fmt.Fprintf(w, "%s: no findings in %d instructions\n", name, r.Passed)
		return err
	}
	return nil
}
