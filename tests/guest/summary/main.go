// SPDX-License-Identifier: Apache-2.0

// Command summary runs go test for the tests that boot guests, shows what it
// prints, and ends with one table: suite, kernel, passed, failed, skipped,
// seconds. A suite is a Go test of the top level; where it ran a program that
// reports KTAP in the guest, that program's rows are what is counted. All of it
// is kept as one KTAP file and as JUnit XML.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"npuemu/tests/guest"
)

const usage = `usage: summary [--out DIR] [-j N] [--] ARGUMENT... [+ ARGUMENT...]...

Runs "go test -json ARGUMENT..." for each list of arguments, and ends with one table of all results.

  -j N        run so many of the lists at once [1]
  --out DIR   where results.ktap, results.xml and ktap/, the programs' own results,
              go [build/results]; what an earlier run left there is removed

Exit status: 0 all passed, 1 a test failed, 2 only because the device found mistakes of
the driver, 3 a guest's kernel crashed or complained of itself, 4 nothing ran, 75 only
because guests died before their first process: try again. 64 for a wrong command line.
`

// Exit statuses; what is worse wins.
const (
	exitOK             = 0
	exitFailed         = 1
	exitDevice         = 2
	exitCrash          = 3
	exitNothing        = 4
	exitUsage          = 64
	exitInfrastructure = 75
)

func main() {
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	out := flag.String("out", "build/results", "")
	atOnce := flag.Int("j", 1, "")
	flag.CommandLine.Init("summary", flag.ContinueOnError)
	if err := flag.CommandLine.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(exitOK)
	} else if err != nil || flag.NArg() == 0 || *atOnce < 1 {
		if err == nil {
			fmt.Fprint(os.Stderr, "summary: packages for go test are wanted, and -j of at least 1\n"+usage)
		}
		os.Exit(exitUsage)
	}
	status, err := run(*out, *atOnce, jobs(flag.Args()))
	if err != nil {
		fmt.Fprintf(os.Stderr, "summary: %v\n", err)
		status = exitFailed
	}
	os.Exit(status)
}

// jobs splits arguments at "+".
func jobs(args []string) [][]string {
	list := [][]string{nil}
	for _, a := range args {
		if a == "+" {
			list = append(list, nil)
			continue
		}
		list[len(list)-1] = append(list[len(list)-1], a)
	}
	return slices.DeleteFunc(list, func(l []string) bool { return len(l) == 0 })
}

func run(out string, atOnce int, jobs [][]string) (int, error) {
	out, err := filepath.Abs(out)
	if err != nil {
		return 0, err
	}
	programs := filepath.Join(out, "ktap")
	for _, name := range []string{"ktap", "results.ktap", "results.xml"} {
		if err := os.RemoveAll(filepath.Join(out, name)); err != nil {
			return 0, err
		}
	}
	if err := os.MkdirAll(programs, 0o777); err != nil {
		return 0, err
	}
	start := time.Now()
	recorders := make([]*recorder, len(jobs))
	errs := make([]error, len(jobs))
	screen := &screen{w: os.Stdout, whole: min(atOnce, len(jobs)) > 1}
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, args := range jobs {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			recorders[i], errs[i] = goTests(programs, args, screen)
			<-slots
		}()
	}
	wg.Wait()
	whole := time.Since(start)
	var suites []*suite
	for _, r := range recorders {
		suites = append(suites, r.suites(func(name string) (string, error) {
			text, err := os.ReadFile(filepath.Join(programs, filepath.Base(name)))
			return string(text), err
		})...)
	}
	if err := writeFile(filepath.Join(out, "results.ktap"), func(w io.Writer) error { return writeKTAP(w, suites) }); err != nil {
		return 0, err
	}
	if err := writeFile(filepath.Join(out, "results.xml"), func(w io.Writer) error { return writeJUnit(w, suites) }); err != nil {
		return 0, err
	}
	printTable(os.Stdout, suites, whole)
	fmt.Printf("results: %s\n", out)
	status := exitStatus(suites)
	if err := errors.Join(errs...); err != nil && (status == exitOK || status == exitNothing) {
		return exitFailed, err
	}
	return status, nil
}

// goTests runs go test, with programs as the directory for their results. The error says that it failed, which
// the events say too, except for what no package is to blame for.
func goTests(programs string, args []string, s *screen) (*recorder, error) {
	r := newRecorder()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), guest.ResultsDir+"="+programs)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	err = read(pipe, func(e event) { s.event(r, e); r.event(e) })
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return r, fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return r, nil
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	return errors.Join(write(w), w.Flush(), f.Close())
}

// An event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64
	Output     string
	Key, Value string
}

// A screen shows output as it comes, or where several jobs run at once, that of a test when it ends.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	whole bool
	held  map[screenKey]*strings.Builder
}

type screenKey struct {
	job       *recorder
	pkg, test string
}

func (s *screen) event(job *recorder, e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, sub, _ := strings.Cut(e.Test, "/")
	key := screenKey{job, e.Package, name}
	switch e.Action {
	case "output", "build-output":
		if !s.whole || name == "" {
			fmt.Fprint(s.w, e.Output)
			return
		}
		if s.held == nil {
			s.held = map[screenKey]*strings.Builder{}
		}
		if s.held[key] == nil {
			s.held[key] = &strings.Builder{}
		}
		s.held[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		for k, text := range s.held {
			if sub == "" && k.job == job && k.pkg == e.Package && (k.test == name || name == "") { // all that a package left
				fmt.Fprint(s.w, text.String())
				delete(s.held, k)
			}
		}
	}
}

// read hands every event to f. A line that is none becomes output.
func read(r io.Reader, f func(event)) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				e = event{Action: "output", Output: string(line)}
			}
			f(e)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
