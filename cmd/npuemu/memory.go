// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/umd"
)

// memoryFlag is --memory: what the user-mode driver has for programs and their bindings, in MiB.
type memoryFlag struct {
	mib int64
	c   *cobra.Command
}

// mostMemory is what --memory may say: 1 TiB, which an address space of 48 bits has room for.
const mostMemory = 1 << 20

func (f *memoryFlag) add(c *cobra.Command) {
	f.c = c
	c.Flags().Int64Var(&f.mib, "memory", umd.DefaultMemory>>20, fmt.Sprintf("memory for programs, constants and tensors in `MiB`, 1 to %d, of a card that is not behind a kernel driver", mostMemory))
}

func (f *memoryFlag) check(device string) error {
	if f.mib < 1 || f.mib > mostMemory {
		return fmt.Errorf("--memory %d: use 1 to %d MiB", f.mib, mostMemory)
	}
	if strings.HasPrefix(device, "/") && f.c.Flags().Changed("memory") {
		return fmt.Errorf("--memory is for cards that this process drives: behind %s a kernel driver gives out memory", device)
	}
	return nil
}

func (f *memoryFlag) bytes() uint64 { return uint64(f.mib) << 20 }
