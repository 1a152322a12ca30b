// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/tests/guest/ktap"
)

// ev is a line of go test -json: action, test, and pairs of further fields.
func ev(action, test string, fields ...string) string {
	m := map[string]any{"Package": "npuemu/tests/card", "Action": action}
	if test != "" {
		m["Test"] = test
	}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i]] = fields[i+1]
		if fields[i] == "Elapsed" {
			m[fields[i]] = json.Number(fields[i+1])
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// summarize runs lines through the whole of it.
func summarize(t *testing.T, files map[string]string, lines ...string) ([]*suite, string) {
	t.Helper()
	r := newRecorder()
	if err := read(strings.NewReader(strings.Join(lines, "")), r.event); err != nil {
		t.Fatal(err)
	}
	suites := r.suites(func(name string) (string, error) {
		if text, ok := files[name]; ok {
			return text, nil
		}
		return "", errors.New("no such file")
	})
	var table bytes.Buffer
	printTable(&table, suites, 90*time.Second)
	for _, write := range []func(io.Writer, []*suite) error{writeKTAP, writeJUnit} {
		var b strings.Builder
		if err := write(&b, suites); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(b.String(), "<") {
			var v junitSuites
			if err := xml.Unmarshal([]byte(b.String()), &v); err != nil {
				t.Errorf("JUnit: %v\n%s", err, b.String())
			}
		} else if _, problems := ktap.Parse(b.String()); len(suites) > 0 && len(problems) > 0 {
			t.Errorf("KTAP: %v\n%s", problems, b.String())
		}
	}
	return suites, table.String()
}

// squeeze makes runs of blanks one blank.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func TestTable(t *testing.T) {
	files := map[string]string{
		"good.ktap":  "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no device\nnot ok 3 c # TODO bug\n",
		"short.ktap": "1..3\nok 1 a\n",
		"bad.ktap":   "1..2\n  1..2\n  ok 1 x\n  not ok 2 y\nnot ok 1 group\nok 2 b\n",
	}
	suites, table := summarize(t, files,
		ev("start", ""),
		ev("run", "TestA"), ev("run", "TestA/7.3"), ev("attr", "TestA/7.3", "Key", "kernel", "Value", "7.3.4"),
		ev("pass", "TestA/7.3", "Elapsed", "1.25"),
		ev("run", "TestA/6.12"), ev("attr", "TestA/6.12", "Key", "kernel", "Value", "6.12.1"),
		ev("attr", "TestA/6.12", "Key", "retried", "Value", "guest died before /init"),
		ev("pass", "TestA/6.12", "Elapsed", "2"), ev("pass", "TestA", "Elapsed", "3.25"),
		ev("run", "TestK"), ev("attr", "TestK", "Key", "kernel", "Value", "7.3.4"), ev("attr", "TestK", "Key", "ktap", "Value", "good.ktap"),
		ev("pass", "TestK", "Elapsed", "4"),
		ev("run", "TestTwo"), ev("attr", "TestTwo", "Key", "ktap", "Value", "good.ktap"), ev("attr", "TestTwo", "Key", "ktap", "Value", "bad.ktap"),
		ev("fail", "TestTwo", "Elapsed", "4"),
		ev("run", "TestBad"), ev("attr", "TestBad", "Key", "ktap", "Value", "bad.ktap"), ev("fail", "TestBad", "Elapsed", "5"),
		ev("run", "TestShort"), ev("attr", "TestShort", "Key", "ktap", "Value", "short.ktap"), ev("pass", "TestShort", "Elapsed", "6"),
		ev("run", "TestNone"), ev("attr", "TestNone", "Key", "ktap", "Value", "none.ktap"), ev("pass", "TestNone", "Elapsed", "0"),
		ev("run", "TestSkip"), ev("output", "TestSkip", "Output", "    x_test.go:7: no QEMU\n"), ev("skip", "TestSkip", "Elapsed", "0"),
		ev("run", "TestParent"), ev("run", "TestParent/ok"), ev("pass", "TestParent/ok", "Elapsed", "1"), ev("fail", "TestParent", "Elapsed", "1"),
		ev("run", "TestBoot"), ev("run", "TestBoot/7.3"), ev("run", "TestBoot/7.3/a"), ev("pass", "TestBoot/7.3/a", "Elapsed", "0.5"), ev("run", "TestBoot/7.3/b"),
		ev("pass", "TestBoot/7.3/b", "Elapsed", "1"), ev("pass", "TestBoot/7.3", "Elapsed", "9"), ev("pass", "TestBoot", "Elapsed", "10"),
		ev("run", "TestSlash"), ev("run", "TestSlash/plain/7.3"), ev("run", "TestSlash/plain/7.3/a"), ev("pass", "TestSlash/plain/7.3/a", "Elapsed", "1"),
		ev("pass", "TestSlash/plain/7.3", "Elapsed", "2"), ev("pass", "TestSlash", "Elapsed", "3"), // t.Run("plain/7.3", …)
		ev("fail", "", "Elapsed", "30"),
	)
	want := `suite kernel passed failed skipped seconds
TestA 7.3.4 1 0 0 1.2
TestA 6.12.1 1 0 0 2.0
TestK 7.3.4 1 0 2 4.0
TestTwo - 3 1 2 4.0 FAILED
TestBad - 2 1 0 5.0 FAILED
TestShort - 1 1 0 6.0 FAILED
TestNone - 0 1 0 0.0 FAILED
TestSkip - 0 0 1 0.0
TestParent - 1 1 0 1.0 FAILED
TestBoot - 2 0 0 10.0
TestSlash - 1 0 0 3.0
all 13 5 5 90.0
booted twice, the machine's fault: TestA (6.12.1): guest died before /init
known to fail: TestK (7.3.4): TestK/c: bug
known to fail: TestTwo (-): TestTwo/good/c: bug
failed: TestTwo (-): TestTwo/bad/group/y
failed: TestBad (-): TestBad/group/y
failed: TestShort (-): TestShort
failed: TestNone (-): TestNone
failed: TestParent (-): TestParent`
	if diff := cmp.Diff(want, squeeze(table)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	var b strings.Builder
	if err := writeJUnit(&b, suites); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		`<testsuite name="TestK" tests="3" failures="0" skipped="2" time="4.000">`, `<skipped message="SKIP no device">`,
		`<skipped message="TODO bug">`, `<skipped message="SKIP no QEMU">`, `<property name="retried" value="guest died before /init">`,
	} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("JUnit has no %s\n%s", s, b.String())
		}
	}
}

func TestExitStatus(t *testing.T) {
	fail := func(test, cause string) string {
		s := ev("run", test)
		if cause != "" {
			s += ev("attr", test, "Key", "cause", "Value", cause)
		}
		return s + ev("fail", test, "Elapsed", "1")
	}
	pass := ev("run", "TestGood") + ev("pass", "TestGood", "Elapsed", "1")
	end := ev("fail", "", "Elapsed", "1")
	for _, tt := range []struct {
		name  string
		lines []string
		want  int
	}{
		{"all well", []string{pass, ev("pass", "", "Elapsed", "1")}, exitOK},
		{"no tests", []string{ev("pass", "", "Elapsed", "1")}, exitNothing},
		{"all skipped", []string{ev("run", "TestS"), ev("skip", "TestS"), ev("pass", "")}, exitNothing},
		{"a failure", []string{pass, fail("TestF", ""), end}, exitFailed},
		{"a finding", []string{pass, fail("TestF", "device"), end}, exitDevice},
		{"a finding and a failure", []string{fail("TestF", "device"), fail("TestG", ""), end}, exitFailed},
		{"a crash", []string{fail("TestF", "crash"), fail("TestG", ""), end}, exitCrash},
		{"no machine", []string{pass, fail("TestF", "infrastructure"), end}, exitInfrastructure},
		{"no machine and a failure", []string{fail("TestF", "infrastructure"), fail("TestG", ""), end}, exitFailed},
		{"does not build", []string{ev("build-output", "", "Output", "x.go:1: no\n"), ev("build-fail", ""), end}, exitFailed},
		{"died in the middle", []string{pass, ev("run", "TestF"), end}, exitFailed},
		{"no JSON", []string{"go: cannot find module\n"}, exitNothing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			suites, table := summarize(t, nil, tt.lines...)
			if got := exitStatus(suites); got != tt.want {
				t.Errorf("status %d, want %d\n%s", got, tt.want, table)
			}
		})
	}
}

func TestJobs(t *testing.T) {
	got := jobs([]string{"-count=1", "./a", "+", "+", "-run", "X", "./b", "+"})
	if diff := cmp.Diff([][]string{{"-count=1", "./a"}, {"-run", "X", "./b"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestScreen: of jobs that run at once, tests are shown one after the other.
func TestScreen(t *testing.T) {
	a, b := newRecorder(), newRecorder()
	out := func(test, text string) event {
		return event{Action: "output", Package: "p", Test: test, Output: text + "\n"}
	}
	script := []struct {
		job *recorder
		e   event
	}{
		{a, out("TestA", "a1")}, {b, out("TestB", "b1")}, {a, out("TestA/sub", "a2")}, {b, out("", "of b")},
		{a, event{Action: "pass", Package: "p", Test: "TestA/sub"}}, {b, out("TestB", "b2")},
		{a, event{Action: "pass", Package: "p", Test: "TestA"}}, {b, event{Action: "fail", Package: "p"}}, {a, out("", "of a")},
	}
	for _, tt := range []struct {
		whole bool
		want  string
	}{{true, "of b a1 a2 b1 b2 of a"}, {false, "a1 b1 a2 of b b2 of a"}} {
		var w strings.Builder
		s := &screen{w: &w, whole: tt.whole}
		for _, step := range script {
			s.event(step.job, step.e)
		}
		if got := strings.Join(strings.Fields(w.String()), " "); got != tt.want {
			t.Errorf("whole %t: %q, want %q", tt.whole, got, tt.want)
		}
	}
}

// FuzzEvents: no output of a test is too odd for the files.
func FuzzEvents(f *testing.F) {
	f.Add("TestA/b", "kernel", "7.3\x00\x1b[0m", "1..1\n  ok 1 a\nnot ok 1 b # SKIP\n")
	f.Fuzz(func(t *testing.T, name, key, value, text string) {
		summarize(t, map[string]string{value: text}, ev("run", name), ev("attr", name, "Key", key, "Value", value),
			ev("attr", name, "Key", "ktap", "Value", value), ev("output", name, "Output", text), ev("fail", name, "Elapsed", "1"), ev("fail", "", "Elapsed", "1"))
	})
}
