// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"npuemu/tests/guest"
	"npuemu/tests/guest/ktap"
)

// A goTest is a test or subtest of Go, or a package (name "").
type goTest struct {
	pkg, name string
	result    string // pass, fail, skip, or "" as long as it runs
	seconds   float64
	output    strings.Builder
	attrs     map[string]string
	kernels   []string
	retried   []string
	programs  []string // files of guest.AttrKTAP
	parent    bool     // has subtests
	order     int
}

// maxOutput is how much of a test's output is kept: a console with a crash in it is
// some 100 KiB.
const maxOutput = 512 << 10

type recorder struct {
	tests map[[2]string]*goTest
}

func newRecorder() *recorder { return &recorder{tests: map[[2]string]*goTest{}} }

func (r *recorder) test(pkg, name string) *goTest {
	k := [2]string{pkg, name}
	t := r.tests[k]
	if t == nil {
		t = &goTest{pkg: pkg, name: name, attrs: map[string]string{}, order: len(r.tests)}
		r.tests[k] = t
		if p := above(r.tests, t); p != nil {
			p.parent = true
		}
	}
	return t
}

// above returns the test that t is a subtest of, or nil. A name may have a slash of its own: not each of its beginnings is a test.
func above(tests map[[2]string]*goTest, t *goTest) *goTest {
	for i := strings.LastIndex(t.name, "/"); i >= 0; i = strings.LastIndex(t.name[:i], "/") {
		if p := tests[[2]string{t.pkg, t.name[:i]}]; p != nil {
			return p
		}
	}
	return nil
}

func (r *recorder) event(e event) {
	pkg := cmp.Or(e.Package, e.ImportPath)
	if pkg == "" {
		return
	}
	if e.Action == "build-output" || e.Action == "build-fail" {
		pkg, _, _ = strings.Cut(pkg, " ") // "npuemu/tests/card [npuemu/tests/card.test]"
	}
	t := r.test(pkg, e.Test)
	switch e.Action {
	case "output", "build-output":
		if t.output.Len() < maxOutput {
			t.output.WriteString(e.Output)
		}
	case "attr":
		if e.Key == guest.AttrCause && t.attrs[e.Key] == guest.CauseCrash {
			break // what it led to
		}
		t.attrs[e.Key] = e.Value
		switch e.Key {
		case guest.AttrKernel:
			if !slices.Contains(t.kernels, e.Value) {
				t.kernels = append(t.kernels, e.Value)
			}
		case guest.AttrRetried:
			t.retried = append(t.retried, e.Value)
		case guest.AttrKTAP:
			t.programs = append(t.programs, e.Value)
		}
	case "pass", "fail", "skip":
		t.result, t.seconds = e.Action, e.Elapsed
	}
}

// A suite is a row of the table.
type suite struct {
	name, kernel string
	seconds      float64
	tests        []*ktap.Test
	retried      []string
	causes       []string // of failures; guest.Cause…, or "" for a test's own
	output       string   // of what failed
}

func (s *suite) count(v ktap.Verdict) (n int) {
	ktap.Leaves(s.tests, func(_ string, t *ktap.Test) {
		if t.Verdict() == v {
			n++
		}
	})
	return n
}

// suites sums up what happened. load reads a file of guest.AttrKTAP.
func (r *recorder) suites(load func(name string) (string, error)) []*suite {
	all := slices.SortedFunc(maps.Values(r.tests), func(a, b *goTest) int { return cmp.Compare(a.order, b.order) })
	failedBelow := map[*goTest]bool{}
	broken := map[string]bool{} // packages with a failed test
	for _, t := range all {
		if t.name != "" && t.result == "" && r.test(t.pkg, "").result != "" {
			t.result = "fail" // the test binary died
			t.output.WriteString("the test did not end\n")
		}
		if t.name == "" || t.result != "fail" {
			continue
		}
		broken[t.pkg] = true
		for p := above(r.tests, t); p != nil; p = above(r.tests, p) {
			failedBelow[p] = true
		}
	}
	own := ownSeconds(all, r.tests)
	var list []*suite
	byKey := map[[2]string]*suite{}
	for _, t := range all {
		failed := t.result == "fail"
		switch {
		case t.name == "" && (!failed || broken[t.pkg]):
			continue // a package that is its tests' sum
		case t.parent && (!failed || failedBelow[t]):
			continue // likewise
		}
		name, rest, _ := strings.Cut(cmp.Or(t.name, t.pkg), "/")
		if t.name == "" {
			name, rest = t.pkg, ""
		}
		kernel := cmp.Or(strings.Join(t.kernels, ", "), "-")
		key := [2]string{t.pkg + "." + name, kernel}
		s := byKey[key]
		if s == nil {
			s = &suite{name: name, kernel: kernel}
			byKey[key] = s
			list = append(list, s)
		}
		s.seconds += own[t]
		s.retried = append(s.retried, t.retried...)
		row := &ktap.Test{Name: cmp.Or(rest, name), OK: !failed}
		if t.result == "skip" {
			row.Directive, row.Reason = ktap.Skip, skipReason(t.output.String())
		}
		if failed {
			s.causes = append(s.causes, t.attrs[guest.AttrCause])
			s.output += t.output.String()
		}
		row.Children, row.Diagnostics = programRows(t.programs, load)
		if len(row.Diagnostics) > 0 && !failed { // the Go test should have seen it
			row.OK = false
			s.causes = append(s.causes, "")
		}
		s.tests = append(s.tests, row)
	}
	return list
}

// programRows returns what the programs reported whose results are in files, and what is wrong with these files. Rows of
// several programs are below a row for each.
func programRows(files []string, load func(name string) (string, error)) (rows []*ktap.Test, problems []string) {
	for _, file := range files {
		text, err := load(file)
		wrong := []string{fmt.Sprint(err)}
		var tests []*ktap.Test
		if err == nil {
			tests, wrong = ktap.Parse(text)
		}
		problems = append(problems, wrong...)
		if len(files) == 1 {
			return tests, problems
		}
		program := &ktap.Test{Name: strings.TrimSuffix(file, ".ktap"), OK: len(wrong) == 0, Children: tests}
		ktap.Leaves(tests, func(_ string, t *ktap.Test) { program.OK = program.OK && t.Verdict() != ktap.Failed })
		rows = append(rows, program)
	}
	return rows, problems
}

// ownSeconds gives every test without subtests its time. What a parent spent outside its subtests, such as
// a boot whose results they look at, goes to the first of them.
func ownSeconds(all []*goTest, tests map[[2]string]*goTest) map[*goTest]float64 {
	own := map[*goTest]float64{}
	first := map[*goTest]*goTest{} // subtest
	for _, t := range all {
		own[t] += t.seconds
	}
	for _, t := range all {
		if p := above(tests, t); p != nil {
			own[p] -= t.seconds
			if first[p] == nil {
				first[p] = t
			}
		}
	}
	for _, t := range all {
		for to := first[t]; to != nil; to = first[to] {
			if first[to] == nil && own[t] > 0 { // subtests that ran at once took more together
				own[to] += own[t]
				own[t] = 0
			}
		}
	}
	return own
}

// skipReason finds what t.Skip said: "    file_test.go:12: reason".
func skipReason(output string) string {
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); strings.Contains(line, "_test.go:") || strings.Contains(line, ".go:") {
			if _, reason, ok := strings.Cut(line, ": "); ok {
				return reason
			}
		}
	}
	return ""
}

// exitStatus says what a CI job should make of it.
func exitStatus(suites []*suite) int {
	if len(suites) == 0 {
		return exitNothing
	}
	causes := map[string]bool{}
	ran := false
	for _, s := range suites {
		for _, c := range s.causes {
			causes[c] = true
		}
		ran = ran || s.count(ktap.Passed)+s.count(ktap.Known)+s.count(ktap.Failed) > 0
	}
	switch {
	case causes[guest.CauseCrash]:
		return exitCrash
	case causes[""]:
		return exitFailed
	case causes[guest.CauseDevice]:
		return exitDevice
	case causes[guest.CauseInfrastructure]:
		return exitInfrastructure
	case !ran:
		return exitNothing
	}
	return exitOK
}

func printTable(out io.Writer, suites []*suite, whole time.Duration) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tkernel\tpassed\tfailed\tskipped\tseconds\t")
	var passed, failed, skipped int
	for _, s := range suites {
		p, f, k := s.count(ktap.Passed), s.count(ktap.Failed), s.count(ktap.Skipped)+s.count(ktap.Known)
		passed, failed, skipped = passed+p, failed+f, skipped+k
		mark := ""
		if f > 0 {
			mark = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%.1f\t%s\n", s.name, s.kernel, p, f, k, s.seconds, mark)
	}
	fmt.Fprintf(w, "all\t\t%d\t%d\t%d\t%.1f\t\n", passed, failed, skipped, whole.Seconds())
	_ = w.Flush() // as the other lines: nobody could be told

	for _, s := range suites {
		ktap.Leaves(s.tests, func(path string, t *ktap.Test) {
			switch t.Verdict() {
			case ktap.Failed:
				fmt.Fprintf(out, "failed: %s (%s): %s\n", s.name, s.kernel, path)
			case ktap.Known:
				fmt.Fprintf(out, "known to fail: %s (%s): %s: %s\n", s.name, s.kernel, path, t.Reason)
			}
		})
		for _, r := range s.retried {
			fmt.Fprintf(out, "booted twice, the machine's fault: %s (%s): %s\n", s.name, s.kernel, r)
		}
	}
}

// writeKTAP writes one document: a test for each suite and kernel, its tests below.
func writeKTAP(w io.Writer, suites []*suite) error {
	var tests []*ktap.Test
	for _, s := range suites {
		t := &ktap.Test{Name: s.name + " " + s.kernel, OK: s.count(ktap.Failed) == 0, Children: s.tests,
			Diagnostics: []string{fmt.Sprintf("seconds: %.1f", s.seconds)}}
		for _, r := range s.retried {
			t.Diagnostics = append(t.Diagnostics, "retried: "+r)
		}
		tests = append(tests, t)
	}
	return ktap.Write(w, tests)
}

type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Output     string          `xml:"system-out,omitempty"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes what CI services read. JUnit has no known failures: they are skipped.
func writeJUnit(w io.Writer, suites []*suite) error {
	var all junitSuites
	for _, s := range suites {
		j := junitSuite{
			Name: s.name, Time: fmt.Sprintf("%.3f", s.seconds), Output: clean(s.output),
			Properties: []junitProperty{{"kernel", s.kernel}},
		}
		for _, r := range s.retried {
			j.Properties = append(j.Properties, junitProperty{"retried", clean(r)})
		}
		ktap.Leaves(s.tests, func(path string, t *ktap.Test) {
			c := junitCase{Class: s.name, Name: clean(path)}
			j.Tests++
			switch t.Verdict() {
			case ktap.Failed:
				j.Failures++
				c.Failure = &junitMessage{clean(t.Reason), clean(strings.Join(t.Diagnostics, "\n"))}
			case ktap.Skipped, ktap.Known:
				j.Skipped++
				c.Skipped = &junitMessage{Message: clean(strings.TrimSpace(t.Directive + " " + t.Reason))}
			}
			j.Cases = append(j.Cases, c)
		})
		all.Suites = append(all.Suites, j)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// clean leaves out what XML cannot hold: a console has control characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
