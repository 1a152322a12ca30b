// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"path/filepath"
	"testing"
)

// A FIFO or a device is written to, and stays what it is.
func TestTraceFile(t *testing.T) {
	f, err := NewTraceFile("/dev/null", 10)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.Write(make([]byte, 20)); err != nil {
			t.Error(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat("/dev/null"); err != nil || st.Mode().IsRegular() {
		t.Errorf("/dev/null is %v, %v", st.Mode(), err)
	}
	path := filepath.Join(t.TempDir(), "t")
	if f, err = NewTraceFile(path, 10); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"12345678\n", "a\n", "a line that is longer\n", "b\n"} {
		if _, err := f.Write([]byte(s)); err != nil {
			t.Error(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	now, _ := os.ReadFile(path)
	before, _ := os.ReadFile(path + ".1")
	if string(now) != "b\n" || string(before) != "a line that is longer\n" {
		t.Errorf("%q and before %q", now, before)
	}
}
