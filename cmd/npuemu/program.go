// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/core/isa"
	"npuemu/internal/outfile"
)

func asmCommand() *cobra.Command {
	var (
		out string
		cf  configFlags
	)
	c := &cobra.Command{
		Use:   "asm FILE",
		Short: "Assemble a program into an ELF file",
		Long: "asm translates text in the syntax of docs/spec/isa.md §5.8 into the ELF file of §5.3.1, with labels and lines for\n" +
			"npuemu lint and readelf. Files that .include names are relative to the file that includes them. FILE - is standard input.\n" +
			"With --config or --arch it is an error if a card of that configuration would refuse the program (§5.3).",
		Example: "  npuemu asm digits.npuasm            # writes digits.npu\n  npuemu asm -o prog.npu - < prog.npuasm",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := readInput(c, args[0])
			if err != nil {
				return err
			}
			p, err := isa.AssembleFiles(args[0], src, os.ReadFile)
			if err != nil {
				return fmt.Errorf("%s does not assemble:\n%w", args[0], err)
			}
			if v, at, err := cf.refuses(c, p); err != nil {
				return err
			} else if v != nil {
				return refused(args[0], p, v, at)
			}
			name := out
			if name == "" {
				if args[0] == "-" {
					return fmt.Errorf("give -o FILE when the source is standard input")
				}
				name = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".npu"
			}
			return writeOutput(c, name, p.ELF())
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "output `file`, - for standard output (default: FILE with the extension .npu)")
	cf.add(c)
	return c
}

// refuses reports why the card that --config and --arch describe refuses p, and which instruction needs what it lacks; without
// the two there is no such card.
func (f *configFlags) refuses(c *cobra.Command, p *isa.Program) (*isa.Violation, int, error) {
	if !c.Flags().Changed("config") && !c.Flags().Changed("arch") {
		return nil, 0, nil
	}
	cfg, err := f.load()
	if err != nil {
		return nil, 0, err
	}
	minor, groups := cfg.ISA()
	v, at := p.Refused(minor, isa.Limits{
		Rows: uint16(cfg.Array.Rows), Cols: uint16(cfg.Array.Cols), SpadSize: uint32(cfg.Array.Scratchpad), AccSize: uint32(cfg.Array.Accumulators),
		Bindings: -1, Features: groups,
	})
	return v, at, nil
}

// refused is the error that a card refuses the program of that name for v, at instruction index.
func refused(name string, p *isa.Program, v *isa.Violation, index int) error {
	if file, line, ok := p.Debug.At(index); ok {
		name = fmt.Sprintf("%s:%d", file, line)
	}
	return fmt.Errorf("%s: the card refuses the program at instruction %d, %v: %w", name, index, (*isa.Word)(p.Text[index*isa.Size:]), v)
}

func disasmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "disasm FILE",
		Short: "Print a program as assembler text",
		Long:  "disasm prints an ELF program, or a raw program image (§5.3), in the syntax of §5.8. FILE - is standard input.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := loadProgram(c, args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), isa.Disassemble(p))
			return err
		},
	}
}

func readInput(c *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.InOrStdin())
	}
	return os.ReadFile(name)
}

func writeOutput(c *cobra.Command, name string, b []byte) error {
	return writeAll(c.OutOrStdout(), []output{{name, b}})
}

// output is content for the file of that name, or for standard output: -.
type output struct {
	name    string
	content []byte
}

// writeAll writes all files, or if one cannot be written none; standard output is w.
func writeAll(w io.Writer, l []output) (err error) {
	var files []*outfile.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Discard())
		}
	}()
	for _, o := range l {
		if o.name == "-" {
			continue
		}
		f, err := outfile.Create(o.name)
		if err != nil {
			return err
		}
		files = append(files, f)
		if _, err := f.Write(o.content); err != nil {
			return err
		}
	}
	for _, o := range l {
		if o.name != "-" {
			continue
		}
		if _, err := w.Write(o.content); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := f.Commit(); err != nil {
			return err
		}
	}
	return nil
}
