// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// tests/firmware-compilers puts another compiler's images in place of the committed ones, for all tests of a run. This
// one sees that they are there.
func TestOtherCompiler(t *testing.T) {
	dir := os.Getenv("NPUEMU_OTHER_FIRMWARE")
	if dir == "" {
		t.Skip("the images are the committed ones (make firmware-compilers)")
	}
	for name, have := range map[string][]byte{"npu_rom.bin": []byte(rom), "npu_fw.bin": Image()} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s is not what is in %s: %v", name, dir, err)
		}
	}
}
