// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Serve runs npuemu serve, the given binary, with a card for each of configs,
// which are TOML texts, until their sockets are there. What it says goes to the
// file log. stop ends it with SIGTERM and may be called twice.
func Serve(binary, log string, configs ...string) (sockets []string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		return nil, nil, err
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	args := []string{"serve"}
	for i, text := range configs {
		socket, config := filepath.Join(dir, fmt.Sprintf("npu%d.sock", i)), filepath.Join(dir, fmt.Sprintf("npu%d.toml", i))
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return nil, nil, errors.Join(err, out.Close(), os.RemoveAll(dir))
		}
		sockets = append(sockets, socket)
		args = append(args, "--socket", socket, "--config", config)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, out.Close(), os.RemoveAll(dir))
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		defer os.RemoveAll(dir)
		defer out.Close()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			return errors.Join(errors.New("does not end on SIGTERM"), cmd.Process.Kill(), <-ended)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		there := 0
		for _, socket := range sockets {
			if _, err := os.Stat(socket); err == nil {
				there++
			}
		}
		if there == len(sockets) {
			return sockets, stop, nil
		}
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log) // what there is of it
			return nil, nil, errors.Join(fmt.Errorf("npuemu ended: %w: %s", err, bytes.TrimSpace(text)), stop())
		default:
		}
		if time.Now().After(end) {
			return nil, nil, errors.Join(errors.New("npuemu does not listen after 10 s"), stop())
		}
	}
}
