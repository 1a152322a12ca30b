// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// attrs notes what a test says of itself.
type attrs struct {
	testing.TB
	said []string
}

func (a *attrs) Attr(key, value string) { a.said = append(a.said, key+" "+value) }

// TestSaveKTAP: a test that runs several programs keeps the results of each.
func TestSaveKTAP(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ktap")
	t.Setenv(ResultsDir, dir)
	t.Run("a/b", func(t *testing.T) {
		a := &attrs{TB: t}
		for _, text := range []string{"one", "two", "three"} {
			SaveKTAP(a, []byte(text))
		}
		names := []string{"TestSaveKTAP-a-b.ktap", "TestSaveKTAP-a-b-2.ktap", "TestSaveKTAP-a-b-3.ktap"}
		var want []string
		for i, name := range names {
			want = append(want, AttrKTAP+" "+name)
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(text) != []string{"one", "two", "three"}[i] {
				t.Errorf("%s: %q, %v", name, text, err)
			}
		}
		if diff := cmp.Diff(want, a.said); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
	})
}
