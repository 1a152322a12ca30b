// SPDX-License-Identifier: Apache-2.0

// Package card puts the NPU into a guest: it builds what the guest needs of
// this tree (driver, firmware file, programs, the digits example) and says
// where it goes. The demo and the guest tests share it.
package card

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"npuemu/core/isa"
	"npuemu/firmware"
	"npuemu/tests/guest"
)

// FirmwarePath is where the driver looks for its firmware.
const FirmwarePath = "/lib/firmware/npu/npufw-1.bin"

// Digits is where the digits example lies in the guest.
const Digits = "/digits"

// goPrograms are the guest programs that use package accel: directories of
// tests/guest/programs.
var goPrograms = []string{"devinfo", "digits", "windowless"}

// programs are the guest programs in C, which go to /bin too, with their sources.
// judge shares nothing with the others: it was written from docs/spec and the uAPI
// header alone.
var programs = map[string][]string{
	"uapitest":   {"uapitest.c", "npu.c"},
	"sharetest":  {"sharetest.c", "npu.c"},
	"lifetest":   {"lifetest.c", "npu.c"},
	"healthtest": {"healthtest.c", "npu.c"},
	"aerinject":  {"aerinject.c"},
	"doorbell":   {"doorbell.c", "npu.c"},
	"judge":      {"judge.c"},
}

// Kit is what Build made.
type Kit struct {
	Module   string            // npu.ko, for one kernel
	Warnings []string          // of the module's build with W=1
	Files    map[string]string // guest path → host path: programs, firmware, example
}

// Build builds everything for one kernel of e into dir. tree is the top of the
// source tree. It calls stage before each step, if stage is not nil.
func Build(ctx context.Context, e *guest.Env, kernel, tree, dir string, stage func(string)) (*Kit, error) {
	if stage == nil {
		stage = func(string) {}
	}
	k := &Kit{Files: map[string]string{}}
	var err error
	stage("driver")
	if k.Module, k.Warnings, err = e.BuildModule(ctx, kernel, filepath.Join(tree, "driver"), filepath.Join(dir, "driver")); err != nil {
		return nil, err
	}
	stage("guest programs")
	if err := BuildPrograms(ctx, e, tree, dir, k.Files); err != nil {
		return nil, err
	}
	stage("firmware and NPU program")
	if err := write(filepath.Join(dir, "npufw-1.bin"), firmware.Image(), FirmwarePath, k.Files); err != nil {
		return nil, err
	}
	src := filepath.Join(tree, "examples/digits/digits.npuasm")
	text, err := os.ReadFile(src)
	if err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	p, err := isa.Assemble(src, text)
	if err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	if err := write(filepath.Join(dir, "digits.elf"), p.ELF(), Digits+"/digits.elf", k.Files); err != nil {
		return nil, err
	}
	for _, name := range []string{"weights.bin", "images.bin", "golden.bin"} {
		k.Files[Digits+"/"+name] = filepath.Join(tree, "examples/digits", name)
	}
	return k, nil
}

// BuildPrograms builds the guest programs into dir and adds them to guestFiles.
func BuildPrograms(ctx context.Context, e *guest.Env, tree, dir string, guestFiles map[string]string) error {
	src := filepath.Join(tree, "tests/guest/programs")
	for name, files := range programs {
		out := filepath.Join(dir, name)
		var paths []string
		for _, f := range files {
			paths = append(paths, filepath.Join(src, f))
		}
		err := e.BuildProgram(ctx, out, paths, src, filepath.Join(tree, "driver/uapi"))
		if err != nil {
			return err
		}
		guestFiles["/bin/"+name] = out
	}
	for _, name := range goPrograms {
		out := filepath.Join(dir, name)
		if err := e.BuildGo(ctx, out, tree, "./tests/guest/programs/"+name); err != nil {
			return err
		}
		guestFiles["/bin/"+name] = out
	}
	return nil
}

func write(path string, b []byte, guestPath string, files map[string]string) error {
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("card: %w", err)
	}
	files[guestPath] = path
	return nil
}

// Config returns the guest's configuration: the kit, one card on socket, script.
func (k *Kit) Config(kernel, socket, script string) guest.Config {
	return guest.Config{
		Kernel:  kernel,
		Modules: []string{k.Module},
		Files:   maps.Clone(k.Files),
		Sockets: []string{socket},
		Script:  script,
	}
}
