// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a guest test says of itself as attributes (Attr), for the table
// that tests/guest/summary makes.
const (
	AttrKernel  = "kernel"  // release of the guest's kernel
	AttrCause   = "cause"   // why the test failed: a Cause… below
	AttrRetried = "retried" // why a first attempt to boot was given up
	AttrKTAP    = "ktap"    // file with the results of a program in the guest; a test may have several
)

// Causes of a failure that is not a test's own. Without one it is.
const (
	CauseDevice         = "device"         // the device found a mistake of the driver's
	CauseCrash          = "crash"          // the guest's kernel died or complained of itself
	CauseInfrastructure = "infrastructure" // the guest died before /init, twice
)

// ResultsDir is the environment variable that names the directory for files of
// AttrKTAP. Without it they are not written.
const ResultsDir = "NPUEMU_RESULTS"

// Attr is tb.Attr, which Go has from 1.25 on; built with an older one, the table does
// without.
func Attr(tb testing.TB, key, value string) {
	if a, ok := tb.(interface{ Attr(key, value string) }); ok {
		a.Attr(key, value)
	}
}

// Note records what is known of a boot as attributes of the test. res and err are what
// Boot returned.
func Note(tb testing.TB, res *Result, err error) {
	if errors.Is(err, errBeforeInit) {
		Attr(tb, AttrCause, CauseInfrastructure)
	}
	if res == nil {
		return
	}
	Attr(tb, AttrKernel, res.Kernel)
	if res.Retried != "" {
		first, _, _ := strings.Cut(res.Retried, "\n")
		Attr(tb, AttrRetried, first)
	}
}

// SaveKTAP keeps what a program in the guest printed, whatever it is, as results of
// the test. Each call makes a file of its own, named after the test and from the
// second on with a number.
func SaveKTAP(tb testing.TB, text []byte) {
	tb.Helper()
	dir := os.Getenv(ResultsDir)
	if dir == "" {
		return
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		tb.Fatalf("guest: %v", err)
	}
	base := strings.NewReplacer("/", "-", "+", "-").Replace(tb.Name())
	name := base + ".ktap"
	f, err := create(dir, name)
	for n := 2; errors.Is(err, fs.ErrExist); n++ {
		name = fmt.Sprintf("%s-%d.ktap", base, n)
		f, err = create(dir, name)
	}
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		tb.Fatalf("guest: %v", err)
	}
	Attr(tb, AttrKTAP, name)
}

// create makes a file that is not there yet.
func create(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}
