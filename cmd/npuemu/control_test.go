// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// TestControl injects an error into a card that is served, by the operator's road, and looks for it on
// the guest's.
func TestControl(t *testing.T) {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, ctl := filepath.Join(dir, "s"), filepath.Join(dir, "c")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", socket, "--control", ctl)
		ended <- err
	}()
	c := dial(t, socket)
	defer c.Close()

	// The host wants to hear of fatal errors.
	if err := c.WriteRegion(vfiouser.RegionConfig, 0x58, []byte{4, 0}); err != nil {
		t.Fatal(err)
	}
	out, _, err := npuemu(t.Context(), "ctl", "--control", ctl, "aer-inject", "malformed-tlp", "--header", "0x60000001, 0xff,1,0x80")
	if err != nil || !strings.Contains(out, `"ERR_FATAL"`) {
		t.Errorf("aer-inject: %q, %v", out, err)
	}
	p := make([]byte, 0x10)
	if err := c.ReadRegion(vfiouser.RegionConfig, 0x11c, p); err != nil {
		t.Fatal(err)
	}
	if string(p) != "\x01\x00\x00\x60\xff\x00\x00\x00\x01\x00\x00\x00\x80\x00\x00\x00" {
		t.Errorf("header log % x", p)
	}
	out, _, err = npuemu(t.Context(), "ctl", "status", "--control", ctl)
	var s vdev.Status
	if jerr := json.Unmarshal([]byte(out), &s); err != nil || jerr != nil {
		t.Fatalf("status: %v, %v\n%s", err, jerr, out)
	}
	if s.Uncorrectable != 1<<18 || s.FirstError != 18 || s.Messages.Fatal != 1 || s.PowerState != "D0" || s.Interrupts != "INTx" {
		t.Errorf("status %+v", s)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no socket", []string{"status"}, `required flag(s) "control" not set`},
		{"no server", []string{"--control", ctl + "x", "status"}, "is the server running"},
		{"no such function", []string{"--control", ctl, "--function", "1", "status"}, "card 0 has 0 to 0"},
		{"no such card", []string{"--control", ctl, "--card", "1", "status"}, "this server has 0 to 0, in the order of --socket"},
		{"negative function", []string{"--control", ctl, "--function", "-1", "aer-inject", "bad-tlp"}, "card 0 has 0 to 0"},
		{"no such error", []string{"--control", ctl, "aer-inject", "rain"}, `there is no error "rain": use one of`},
		{"header without a packet", []string{"--control", ctl, "aer-inject", "bad-tlp", "--header", "1"}, "about no packet"},
		{"header too long", []string{"--control", ctl, "aer-inject", "poisoned-tlp", "--header", "1,2,3,4,5"}, "1 to 4 doublewords"},
		{"header is no number", []string{"--control", ctl, "aer-inject", "poisoned-tlp", "--header", "1,x"}, `"x" is not a doubleword`},
		{"header beyond 32 bits", []string{"--control", ctl, "aer-inject", "poisoned-tlp", "--header", "0x100000000"}, "is not a doubleword"},
		{"no error", []string{"--control", ctl, "aer-inject"}, "accepts 1 arg"},
	} {
		if _, _, err := npuemu(t.Context(), append([]string{"ctl"}, tt.args...)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
	if _, _, err := npuemu(t.Context(), "serve", "--socket", socket+"2", "--control", ctl); err == nil || !strings.Contains(err.Error(), "another server is live") {
		t.Errorf("a second server on the control socket: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ctl); err == nil {
		t.Error("the control socket was left behind")
	}
}

// TestServeVFs serves a physical and two virtual functions, each on its socket.
func TestServeVFs(t *testing.T) {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, ctl := filepath.Join(dir, "s"), filepath.Join(dir, "c")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", socket, "--control", ctl, "--config", file(t, "c.toml", "[sriov]\nvfs = 2\n"))
		ended <- err
	}()
	pf, vf := dial(t, socket), dial(t, socket+".vf1")
	defer pf.Close()
	defer vf.Close()
	vendor := func() string {
		p := make([]byte, 2)
		if err := vf.ReadRegion(vfiouser.RegionConfig, 0, p); err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	for _, tt := range []struct{ number, want string }{{"\x01\x00", "\xff\xff"}, {"\x02\x00", "\xf4\x1a"}} {
		for _, w := range []struct {
			off uint64
			v   string
		}{{0x198, "\x00\x00"}, {0x1a0, tt.number}, {0x198, "\x09\x00"}} {
			if err := pf.WriteRegion(vfiouser.RegionConfig, w.off, []byte(w.v)); err != nil {
				t.Fatal(err)
			}
		}
		if v := vendor(); v != tt.want {
			t.Errorf("NumVFs %q: function 2 has vendor %q, want %q", tt.number, v, tt.want)
		}
	}
	if out, _, err := npuemu(t.Context(), "ctl", "--control", ctl, "--function", "2", "status"); err != nil || !strings.Contains(out, "vf-absent") {
		t.Errorf("status of function 2: %v\n%s", err, out)
	}
	if _, _, err := npuemu(t.Context(), "ctl", "--control", ctl, "--function", "3", "status"); err == nil || !strings.Contains(err.Error(), "card 0 has 0 to 2") {
		t.Errorf("status of function 3: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
