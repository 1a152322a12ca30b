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
	"time"
)

const usage = `usage: summary [--out DIR] [--] ARGUMENT...

Runs "go test -json ARGUMENT..." and ends with a table of the results.

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
	flag.CommandLine.Init("summary", flag.ContinueOnError)
	if err := flag.CommandLine.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(exitOK)
	} else if err != nil || flag.NArg() == 0 {
		if err == nil {
			fmt.Fprint(os.Stderr, "summary: no packages: name those of go test\n"+usage)
		}
		os.Exit(exitUsage)
	}
	status, err := run(*out, flag.Args())
	if err != nil {
		fmt.Fprintf(os.Stderr, "summary: %v\n", err)
		status = exitFailed
	}
	os.Exit(status)
}

func run(out string, args []string) (int, error) {
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
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), "NPUEMU_RESULTS="+programs)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := newRecorder()
	readErr := read(pipe, os.Stdout, r.event)
	waitErr := cmd.Wait() // its status is in the events, except for what no package is to blame for
	whole := time.Since(start)
	if readErr != nil {
		return 0, readErr
	}
	suites := r.suites(func(name string) (string, error) {
		text, err := os.ReadFile(filepath.Join(programs, filepath.Base(name)))
		return string(text), err
	})
	if err := writeFile(filepath.Join(out, "results.ktap"), func(w io.Writer) error { return writeKTAP(w, suites) }); err != nil {
		return 0, err
	}
	if err := writeFile(filepath.Join(out, "results.xml"), func(w io.Writer) error { return writeJUnit(w, suites) }); err != nil {
		return 0, err
	}
	printTable(os.Stdout, suites, whole)
	fmt.Printf("results: %s\n", out)
	status := exitStatus(suites)
	if exited := (*exec.ExitError)(nil); waitErr != nil && (status == exitOK || status == exitNothing || !errors.As(waitErr, &exited)) {
		return exitFailed, fmt.Errorf("go test: %w", waitErr)
	}
	return status, nil
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

// read hands every event to f, and shows output on w. What is no event is shown too.
func read(r io.Reader, w io.Writer, f func(event)) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				e = event{Action: "output", Output: string(line)}
			}
			if e.Action == "output" || e.Action == "build-output" {
				fmt.Fprint(w, e.Output)
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
