// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command devinfo prints what the driver says of the device, as one JSON object.
//
//	devinfo [/dev/accel/accelN]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"npuemu/accel"
)

func main() {
	if len(os.Args) > 2 {
		fmt.Fprintln(os.Stderr, "usage: devinfo [/dev/accel/accelN]")
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "devinfo:", err)
		os.Exit(1)
	}
}

func run(path []string) (err error) {
	open := accel.Open
	if len(path) == 1 {
		open = func() (*accel.Device, error) { return accel.OpenPath(path[0]) }
	}
	d, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var report struct {
		Device   accel.Info     `json:"device"`
		Counters accel.Counters `json:"counters"`
	}
	if report.Device, err = d.Info(); err != nil {
		return err
	}
	if report.Counters, err = d.Counters(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}
