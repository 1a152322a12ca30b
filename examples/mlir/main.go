// SPDX-License-Identifier: Apache-2.0

// Command mlir translates MLIR's linalg dialect, as stock mlir-opt prints it, to npuemu's two textual inputs: tensors to the compiler's graph (-graph, docs/compiler.md), and
// memrefs in tiles to assembler text (-tiles, docs/spec/isa.md §5.8). It links neither MLIR nor npuemu: text is the interface on both sides. docs/mlir.md explains it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mlir:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("mlir", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: mlir-opt … --mlir-print-op-generic | mlir -tiles|-graph [-function NAME] [-array ROWSxCOLS] >FILE\n\nTranslates a function of the module on standard input.\n\n")
		flags.PrintDefaults()
	}
	toTiles := flags.Bool("tiles", false, "translate memrefs in tiles to assembler text, for npuemu asm")
	toGraph := flags.Bool("graph", false, "translate tensors to the compiler's graph, for npuemu compile")
	name := flags.String("function", "main", "the `function` to translate")
	array := flags.String("array", "32x32", "`rows` × columns of the array, for -tiles")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var rows, cols int
	if n, err := fmt.Sscanf(*array, "%dx%d", &rows, &cols); n != 2 || err != nil || rows < 8 || rows > 256 || cols < 8 || cols > 256 {
		return fmt.Errorf("-array %s: 8x8 to 256x256 wanted", *array)
	}
	if *toTiles == *toGraph || flags.NArg() > 0 {
		return fmt.Errorf("one of -tiles and -graph is wanted, and the module on standard input")
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	functions, err := parse(string(text))
	if err != nil {
		return err
	}
	f := functions[*name]
	if f == nil {
		return fmt.Errorf("the module has no function %q", *name)
	}
	translated := ""
	if *toTiles {
		translated, err = tiles(f, rows, cols)
	} else {
		translated, err = graph(f)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, translated)
	return err
}
