// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler/model"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// TestRunFindings: what linter and card find is in the summary, and with --strict in the exit status.
func TestRunFindings(t *testing.T) {
	in, out := file(t, "in", strings.Repeat("x", 64)), filepath.Join(t.TempDir(), "out")
	bindings := []string{"--in", "0=" + in, "--out", "1=" + out + ":64"}
	path := filepath.Join(sockets(t), "s")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", path)
		ended <- err
	}()
	dial(t, path).Close()
	const head = ".isa 1.0\n.spad 4096\n.bindings 2\n"
	for _, tt := range []struct {
		name   string
		text   string
		args   []string
		status int
		lint   string // rules, or - if it did not run
		card   string // identifiers, or - if they are not known
	}{
		{"in order", "load binding=0 local=0 nx=64 signal=0\nstore binding=1 local=0 nx=64 wait=0\nhalt\n", []string{"--strict"}, 0, "", ""},
		{"hazard", "load binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n", nil, 0, "HAZARD", "hazard"},
		{"hazard, strict", "load binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n", []string{"--strict"}, statusFindings, "HAZARD", "hazard"},
		{"hazard, not linted", "load binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n", []string{"--strict", "--no-lint"}, statusFindings, "-", "hazard"},
		{"token", "sync.load signal=3\nhalt\n", []string{"--strict"}, statusFindings, "TOKEN_UNUSED", "token-unused"},
		{"another card", "sync.load signal=3\nhalt\n", []string{"--strict", "--device", "vfio-user:" + path}, statusFindings, "TOKEN_UNUSED", "-"},
		{"another card, not linted", "sync.load signal=3\nhalt\n", []string{"--strict", "--no-lint", "--device", "vfio-user:" + path}, 0, "-", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"run", file(t, "p.npuasm", head+tt.text)}, append(bindings, tt.args...)...)
			stdout, stderr, err := npuemu(t.Context(), append(args, "--json", "--log", "error")...)
			if got := exitStatus(err); got != tt.status {
				t.Errorf("exit status %d, want %d: %v", got, tt.status, err)
			}
			var s runSummary
			if err := json.Unmarshal([]byte(stdout), &s); err != nil {
				t.Fatalf("%v in %s", err, stdout)
			}
			linted, card := "-", "-"
			if s.Lint != nil {
				linted = ""
				for _, f := range s.Lint.Findings {
					linted += f.Rule
					if !strings.Contains(stderr, "p.npuasm:") || !strings.Contains(stderr, f.Rule) {
						t.Errorf("standard error does not tell of %s: %s", f.Rule, stderr)
					}
				}
			}
			if s.Where == "" {
				card = ""
				for _, f := range s.Findings {
					card += f.ID
				}
			}
			if linted != tt.lint || card != tt.card || s.Error != nil {
				t.Errorf("lint %q, card %q, %+v; want %q and %q", linted, card, s.Error, tt.lint, tt.card)
			}
			table, _, err := npuemu(t.Context(), append(args, "--log", "error")...)
			if got := exitStatus(err); got != tt.status {
				t.Errorf("exit status %d of the table, want %d", got, tt.status)
			}
			want := "finding           " + tt.card + ", 1 times: "
			switch tt.card {
			case "":
				want = "findings          none\n"
			case "-":
				want = "findings          in the card's own process"
			}
			if !strings.Contains(table, want) || strings.Contains(table, "\nlint ") != (tt.lint != "-") {
				t.Errorf("no %q in the table, or lint: %s", want, table)
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestRunErrors: a program that fails is told with the instruction, its place, the rule and a remedy, in JSON too.
func TestRunErrors(t *testing.T) {
	in := file(t, "in", strings.Repeat("x", 64))
	const head = ".isa 1.1\n.features control\n.spad 4096\n.acc 4096\n.bindings 1\n"
	for _, tt := range []struct {
		name, text string
		args       []string
		status     string
		at         int
		want       string
	}{
		{"deadlock", "load binding=0 local=0 nx=64\n  matmul k=1 n=1 ifmap=0 acc=0 wait=4:2\nhalt\n", nil, "DEADLOCK", 1,
			"p.npuasm:7:3: instruction 1: matmul  k=1 n=1 ifmap=0 acc=0 wait=4:2: token counter 4 never reaches 2, which this instruction waits for, and no other engine can go on; nothing signals it (DEADLOCK, §5.7)\n\tremedy: signal the token"},
		{"bounds", "loop reg=s0 count=2\nwith offset=s0*64\nload binding=0 local=0 nx=64\nend\nhalt\n", nil, "BINDING_BOUNDS", 2,
			`p.npuasm:8:1: instruction 2: load    binding=0 local=0 nx=64: reads byte 0x40 of binding 0, which has 64 bytes; in this iteration it is "load binding=0 local=0 offset=0x40 nx=64" (BINDING_BOUNDS, §5.7)` + "\n\tremedy: bind more memory"},
		{"access", "store binding=0 local=0 nx=64\nhalt\n", nil, "BINDING_ACCESS", 0, "p.npuasm:6:1: instruction 0: store   binding=0 local=0 nx=64: writes binding 0, which does not permit it (BINDING_ACCESS, §5.7)\n\tremedy: bind it for writing (--out)"},
		{"parameter", "requant n=1 acc=0 out=0 params=64\nhalt\n", nil, "BAD_PARAM", 0, "at scratchpad address 0x40"},
		{"ISA", "halt\n", []string{"--arch", "1.2"}, "BAD_PROGRAM", -1, "p.npuasm:1:1: descriptor: isa_minor: the card refuses isa_minor, which is 1.1 (BAD_PROGRAM, §5.3)\n\tremedy: use a card of a later architecture"},
		{"array", "halt\n", []string{"--config", file(t, "c.toml", "[array]\nrows = 8\n")}, "CONFIG_MISMATCH", -1, "descriptor: array_rows: the card refuses array_rows, which is 32 (CONFIG_MISMATCH, §5.3)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := file(t, "p.npuasm", head+tt.text)
			if _, _, err := npuemu(t.Context(), "asm", src); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{src, strings.TrimSuffix(src, "asm")} { // the file has the lines too
				args := append([]string{"run", name, "--in", "0=" + in, "--log", "error"}, tt.args...)
				_, _, err := npuemu(t.Context(), args...)
				if err == nil || exitStatus(err) != 1 || !strings.Contains(err.Error(), "LAUNCH completed with "+tt.status+" (§9.1): result ") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				stdout, _, err := npuemu(t.Context(), append(args, "--json")...)
				var s runSummary
				if jerr := json.Unmarshal([]byte(stdout), &s); jerr != nil || err == nil {
					t.Fatalf("%v, %v in %q", err, jerr, stdout)
				}
				e := s.Error
				if e == nil || e.Status != tt.status || e.What == nil || e.What.Rule != tt.status || e.What.At.Index != tt.at || e.What.Remedy == "" || s.Counters.Errors != 1 {
					t.Errorf("JSON has %+v", s)
				} else if tt.at >= 0 && (int(e.Result) != tt.at || e.What.At.Line == 0 || e.What.At.Column == 0) {
					t.Errorf("result %d, %+v", e.Result, e.What.At)
				}
				if !slices.ContainsFunc(s.Lint.Findings, func(f lint.Finding) bool { return f.Rule == tt.status }) && tt.status != "BAD_PARAM" {
					t.Errorf("the linter did not see it: %+v", s.Lint.Findings)
				}
			}
		})
	}
	// A run that fails is told so, whatever was found.
	if exitStatus(errors.Join(errors.New("x"), nil)) != 1 || exitStatus(nil) != 0 {
		t.Error("exit status")
	}
}

// TestRunModelFails: a model's program that fails is told in words too, and one that leaves findings as a program's.
func TestRunModelFails(t *testing.T) {
	dir, source, x := doubledFiles(t)
	compiled := filepath.Join(dir, "doubled.npu")
	if _, _, err := npuemu(t.Context(), "compile", source); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(compiled)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(w *isa.Word)) string { // of the last instruction before HALT
		m, err := model.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		text := m.Programs[0].Text
		change((*isa.Word)(text[len(text)-2*isa.Size:]))
		out, err := m.Write()
		if err != nil {
			t.Fatal(err)
		}
		return file(t, "changed.npu", string(out))
	}
	for _, strict := range []bool{false, true} {
		args := []string{"run", changed(func(w *isa.Word) { w[3] = 0x1f }), "--input", x, "--json", "--log", "error"} // signal 15
		want := 0
		if strict {
			args, want = append(args, "--strict"), statusFindings
		}
		out, _, err := npuemu(t.Context(), args...)
		var s modelSummary
		if jerr := json.Unmarshal([]byte(out), &s); jerr != nil || exitStatus(err) != want || len(s.Findings) != 1 || s.Findings[0].ID != "token-unused" {
			t.Errorf("strict %v: %v, %v, findings %+v", strict, err, jerr, s.Findings)
		}
	}
	out, _, err := npuemu(t.Context(), "run", changed(func(w *isa.Word) { w[5] = 1 }), "--input", x, "--json", "--log", "error") // offset
	var s modelSummary
	if jerr := json.Unmarshal([]byte(out), &s); jerr != nil || err == nil || !strings.Contains(err.Error(), "program 1: instruction ") || !strings.Contains(err.Error(), "writes byte 0x1") {
		t.Errorf("%v, %v", err, jerr)
	}
	if s.Error == nil || s.Error.Status != "BINDING_BOUNDS" || s.Error.What == nil || s.Error.What.Remedy == "" || s.Runs != 0 {
		t.Errorf("%+v", s.Error)
	}
}
