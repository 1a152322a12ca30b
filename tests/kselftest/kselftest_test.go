// SPDX-License-Identifier: Apache-2.0

package kselftest

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/tests/guest/ktap"
)

func results(text string) []*ktap.Test {
	files := map[string][]byte{}
	for _, p := range Programs {
		files[p+".ktap"] = []byte("TAP version 13\n1..1\nok 1 fine\n")
	}
	files["ioctl.ktap"] = []byte(text)
	return Results(files)
}

func verdicts(tests []*ktap.Test) (passed, failed, known int) {
	ktap.Leaves(tests, func(_ string, t *ktap.Test) {
		switch t.Verdict() {
		case ktap.Passed:
			passed++
		case ktap.Failed:
			failed++
		case ktap.Known:
			known++
		}
	})
	return passed, failed, known
}

func TestExpect(t *testing.T) {
	const text = "TAP version 13\n1..3\nok 1 a.b\nnot ok 2 c.d\nnot ok 3 e.f\n"
	for _, tt := range []struct {
		name, expectations string
		failed, known      int
		wrong              []string
	}{
		{"none", "# nothing\n\n", 2, 0, nil},
		{"one", "fails * * ioctl/c.d a bug of ours\n", 1, 1, nil},
		{"both", "fails 7.3 pci ioctl/c.d a bug\nflaky * pci ioctl/e.f slow\n", 0, 2, nil},
		{"another kernel", "fails 6.12 * ioctl/c.d a bug\nfails 7 * ioctl/c.d as 7.3\n", 1, 1, nil},
		{"no part of a number", "fails 7.3.4+deb1 * ioctl/c.d a bug\n", 2, 0, nil},
		{"another bus", "fails * virtio ioctl/c.d a bug\n", 2, 0, nil},
		{"passes", "fails * * ioctl/a.b a bug\n", 2, 0, []string{"ioctl/a.b: passes by now; take it out"}},
		{"may pass", "flaky * * ioctl/a.b a bug\n", 2, 0, nil},
		{"gone", "fails * * ioctl/x a bug\n", 2, 0, []string{"ioctl/x: no such row"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := results(text)
			wrong, err := expect(tt.expectations, r, "7.3.4+deb13-amd64", "pci")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.wrong, wrong); diff != "" {
				t.Errorf("wrong (-want +got):\n%s", diff)
			}
			passed, failed, known := verdicts(r)
			if passed != len(Programs) || failed != tt.failed || known != tt.known {
				t.Errorf("%d passed, %d failed, %d known; want %d, %d, %d", passed, failed, known, len(Programs), tt.failed, tt.known)
			}
		})
	}
	for _, bad := range []string{"fails * * ioctl/a.b\n", "fail * * ioctl/a.b x\n", "x\n"} {
		if _, err := expect(bad, results(text), "7.3.4", "pci"); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if _, err := Expect(results(text), "7.3.4", "pci"); err != nil {
		t.Error(err)
	}
}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		failed     int
	}{
		{"all well", "TAP version 13\n1..1\nok 1 a\n", 0},
		{"crashed before a line", "", 1},
		{"crashed in the middle", "TAP version 13\n1..2\nok 1 a\n", 1},
		{"no device", "TAP version 13\n1..1\nok 1 a # SKIP no device\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := results(tt.text)
			if _, failed, _ := verdicts(r); failed != tt.failed {
				t.Errorf("%d failed, want %d", failed, tt.failed)
			}
		})
	}
	if _, failed, _ := verdicts(Results(nil)); failed != len(Programs) {
		t.Errorf("without any output %d failed, want %d", failed, len(Programs))
	}
}

// TestMakefile: Programs are those of the Makefile.
func TestMakefile(t *testing.T) {
	b, err := os.ReadFile("npu/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(b), "TEST_GEN_PROGS :=")
	list, _, _ = strings.Cut(list, "\n")
	want := map[string]bool{}
	for _, p := range strings.Fields(list) {
		want[p] = true
	}
	got := map[string]bool{}
	for _, p := range Programs {
		got[p] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("programs (-Makefile +Programs):\n%s", diff)
	}
}
