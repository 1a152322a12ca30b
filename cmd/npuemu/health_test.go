// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/internal/control"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// TestControlHealth: what the operator does to a card's health, by the control socket, and what it is refused.
func TestControlHealth(t *testing.T) {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, old, ctl := filepath.Join(dir, "s"), filepath.Join(dir, "o"), filepath.Join(dir, "c")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", socket, "--socket", old, "--control", ctl,
			"--config", file(t, "new.toml", ""), "--config", file(t, "old.toml", "arch = \"1.1\"\n"))
		ended <- err
	}()
	c := dial(t, socket)
	defer c.Close()
	run := func(args ...string) (string, error) {
		out, _, err := npuemu(t.Context(), append([]string{"ctl", "--control", ctl}, args...)...)
		return out, err
	}
	status := func() (s vdev.Status) {
		t.Helper()
		out, err := run("status")
		if jerr := json.Unmarshal([]byte(out), &s); err != nil || jerr != nil {
			t.Fatalf("status: %v, %v\n%s", err, jerr, out)
		}
		return s
	}
	for _, args := range [][]string{
		{"ecc-inject", "corrected", "--address", "0x1000"},
		{"ecc-inject", "uncorrected", "--memory", "dram", "--address", "4096"},
		{"ecc-inject", "uncorrected", "--memory", "scratchpad", "--address", "0"},
		{"thermal", "--ambient", "50", "--temperature", "96.5"},
	} {
		if out, err := run(args...); err != nil || strings.TrimSpace(out) != "{}" {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
	if h := status().Health; h.Corrected != 1 || h.Uncorrected != 2 || h.Poisoned != 1 || h.Ambient != 50 || h.Temperature != 96.5 || h.Throttle != 2 || h.Records != 4 {
		t.Errorf("health %+v", h)
	}
	if _, err := run("thermal", "--model"); err != nil || status().Health.Throttle != 0 {
		t.Errorf("thermal --model: %v, %+v", err, status().Health)
	}
	if _, err := run("remove"); err != nil || !status().Removed {
		t.Errorf("remove: %v", err)
	}
	p := make([]byte, 4)
	if err := c.ReadRegion(vfiouser.RegionConfig, 0, p); err != nil || string(p) != "\xff\xff\xff\xff" {
		t.Errorf("vendor % x, %v", p, err)
	}
	c.Close()
	if _, err := vfiouser.Dial(socket); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("a client of a card that is removed: %v", err)
	}
	if _, err := run("insert"); err != nil || status().Removed {
		t.Errorf("insert: %v", err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no kind", []string{"ecc-inject", "--address", "0"}, "accepts 1 arg"},
		{"no address", []string{"ecc-inject", "corrected"}, `required flag(s) "address" not set`},
		{"kind", []string{"ecc-inject", "soft", "--address", "0"}, "use one of corrected, uncorrected"},
		{"memory", []string{"ecc-inject", "corrected", "--memory", "flash", "--address", "0"}, "use one of dram, scratchpad"},
		{"address beyond", []string{"ecc-inject", "corrected", "--address", "0x4000000"}, "dram has 0x4000000 bytes"},
		{"address is no number", []string{"ecc-inject", "corrected", "--address", "here"}, `"here" is not an address`},
		{"negative address", []string{"ecc-inject", "corrected", "--address=-1"}, `"-1" is not an address`},
		{"old card, memory error", []string{"--card", "1", "ecc-inject", "corrected", "--address", "0"}, "architecture 1.1 has no RAS (§12): serve the card with --arch 1.2"},
		{"old card, temperature", []string{"--card", "1", "thermal", "--ambient", "0"}, "architecture 1.1 has no RAS"},
		{"nothing to set", []string{"thermal"}, "nothing to set"},
		{"both", []string{"thermal", "--temperature", "1", "--model"}, "exclude each other"},
		{"too cold", []string{"thermal", "--ambient=-41"}, "use -40 to 150"},
		{"too hot", []string{"thermal", "--temperature", "1e300"}, "use -40 to 150"},
		{"not a temperature", []string{"thermal", "--ambient", "warm"}, "invalid argument"},
		{"firmware is not there", []string{"firmware-crash", "trap"}, "there is nothing to crash"},
		{"firmware is not there to hang", []string{"firmware-crash", "hang"}, "there is nothing to crash"},
		{"how", []string{"firmware-crash", "melt"}, "use one of trap, hang"},
		{"not removed", []string{"insert"}, "the card is not removed"},
		{"no such card", []string{"--card", "2", "remove"}, "this server has 0 to 1"},
	} {
		if _, err := run(tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
	for _, tt := range []struct{ command, args, want string }{
		{"ecc-inject", `{"address":-1}`, "cannot unmarshal number -1"},
		{"ecc-inject", `{"place":1}`, "unknown field"},
		{"thermal", `{"ambient":"x"}`, "cannot unmarshal string"},
		{"remove", `{"force":true}`, "unknown field"},
		{"firmware-crash", `[]`, "cannot unmarshal array"},
	} {
		if _, err := control.Call(t.Context(), ctl, tt.command, json.RawMessage(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v, want an error that says %q", tt.command, tt.args, err, tt.want)
		}
	}
	if _, err := run("--card", "1", "remove"); err != nil { // an old card can be pulled out too
		t.Error(err)
	}
	if _, err := run("--card", "1", "remove"); err == nil || !strings.Contains(err.Error(), "removed already") {
		t.Errorf("a second removal: %v", err)
	}
	if _, err := run("--card", "1", "aer-inject", "bad-tlp"); err == nil || !strings.Contains(err.Error(), "the card is removed: insert it first") {
		t.Errorf("an error of a removed card: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
