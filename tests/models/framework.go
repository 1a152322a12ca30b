// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// framework is ONNX Runtime in a process of its own, which runs a model when told so.
type framework struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	version string
}

func startFramework(ctx context.Context, python, dir string, threads int) (*framework, error) {
	cmd := exec.CommandContext(ctx, python, sources+"/framework.py", dir, strconv.Itoa(threads))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &framework{cmd: cmd, in: in, out: bufio.NewScanner(out)}, cmd.Start()
}

func (f *framework) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(f.in, command); err != nil {
		return "", fmt.Errorf("framework: %w", err)
	}
	if !f.out.Scan() {
		return "", fmt.Errorf("framework: no answer to %q: %w", command, f.cmd.Wait())
	}
	return f.out.Text(), nil
}

// load makes name the model that run runs.
func (f *framework) load(name string) (err error) {
	f.version, err = f.ask("load " + name)
	return err
}

// run runs the model's first sample and returns what it took, by the framework's own clock.
func (f *framework) run() (time.Duration, error) {
	s, err := f.ask("run")
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(ns), err
}

func (f *framework) close() error {
	if err := f.in.Close(); err != nil {
		return err
	}
	return f.cmd.Wait()
}
