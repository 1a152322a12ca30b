// SPDX-License-Identifier: Apache-2.0

// Command mkimage puts the header of docs/spec/boot.md §3.3 in front of a
// payload that is linked to the start of SRAM and entered there.
package main

import (
	"flag"
	"fmt"
	"os"

	"npuemu/firmware/image"
	"npuemu/mmio/npureg"
)

func main() {
	build := flag.String("build", "", "firmware's own version, major.minor.patch")
	out := flag.String("o", "", "file to write")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: mkimage -build VERSION -o IMAGE PAYLOAD")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *out == "" || *build == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*build, *out, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(build, out, in string) error {
	version, err := image.ParseBuild(build)
	if err != nil {
		return err
	}
	payload, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	for len(payload)%4 != 0 {
		payload = append(payload, 0)
	}
	b, err := image.New(image.Header{
		LoadAddress: npureg.CPSRAMBase, Entry: npureg.CPSRAMBase, Build: version,
		InterfaceMajor: npureg.FirmwareMajor, InterfaceMinor: npureg.FirmwareMinor, ArchMajor: npureg.ArchMajor, // minor 0: it looks at FEATURES
	}, payload)
	if err != nil {
		return err
	}
	return os.WriteFile(out, b, 0o644)
}
