// SPDX-License-Identifier: Apache-2.0

package card

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
)

// TestARM64Engines runs what compares the core's values on an arm64 processor, where it is plain Go: random programs on core and
// reference, products and images of outside judges, golden digests of conversions, functions and roundings. Only their outcome
// is of this machine, so there is no card.
func TestARM64Engines(t *testing.T) {
	e := guest.RequireArch(t, guest.ARM64)
	files := map[string]string{}
	for _, list := range []string{"docs/spec/numerics.md", "core/testdata/*.json", "core/num/testdata/*.txt"} {
		names, err := filepath.Glob("../../" + list)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: no files, %v", list, err)
		}
		for _, name := range names {
			files["/tree/"+strings.TrimPrefix(name, "../../")] = name
		}
	}
	runs := []struct{ pkg, flags, want string }{
		{"core", "-test.run ^Test(ProductJudges|Judges|ProductsAgainstModel)$", "--- PASS: TestProductJudges"},
		{"core/num", "-test.run ^Test(Golden|True|PairJudges|FunctionsSpecial)$", "--- PASS: TestGolden"},
		{"tests/engines", "-test.run ^TestDifferential$ -time 10s", "--- PASS: TestDifferential"},
	}
	script := "uname -m >$RESULT/uname\n"
	for _, r := range runs {
		name := strings.ReplaceAll(r.pkg, "/", "-")
		test := filepath.Join(t.TempDir(), name)
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", test, "npuemu/"+r.pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		files["/bin/"+name] = test
		script += "stage " + name + "\nmkdir -p /tree/" + r.pkg + " && cd /tree/" + r.pkg + "\n" +
			name + " -test.v '" + strings.ReplaceAll(r.flags, " ", "' '") + "' >$RESULT/" + name + " 2>&1 || tail -n 40 $RESULT/" + name + "\n"
	}
	res, err := guest.Boot(t.Context(), e, guest.Config{Files: files, Script: script, Timeout: 5 * time.Minute})
	guest.Note(t, res, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, console(res))
	}
	if got := string(res.Files["uname"]); got != "aarch64\n" {
		t.Errorf("uname -m: %q", got)
	}
	for _, r := range runs {
		out := string(res.Files[strings.ReplaceAll(r.pkg, "/", "-")])
		if !strings.Contains(out, r.want) || strings.Contains(out, "--- FAIL") || !strings.HasSuffix(out, "PASS\n") {
			t.Errorf("%s on arm64:\n%s", r.pkg, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "programs from seed") || strings.Contains(line, "tier ") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	t.Logf("QEMU %s, Linux %s: %v", res.QEMU, res.Kernel, res.Stages)
}
