// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

var record = flag.String("record", "", "write what QEMU and the card say to each other to this `file`")

// TestRecord makes the session that tests/conformance replays: a guest that
// enumerates the bus, loads the driver, classifies digits, resets the function
// and unloads the driver.
func TestRecord(t *testing.T) {
	if *record == "" {
		t.Skip("only with -record FILE")
	}
	e := guest.Require(t)
	var b bytes.Buffer
	r := devtest.NewRecorder(&b)
	card := vdev.DefaultConfig()
	card.Arch = "1.0" // a session that was recorded once is valid for every later minor
	_, socket := devtest.StartServer(t, card, vfiouser.Config{Trace: r.Trace})
	res, err := guest.Boot(t.Context(), e, kit(t, e, e.Kernels()[0]).Config("", socket, common+
		"load\ndigits "+Digits+" >/dev/null || die digits\necho 1 >$dev/reset || die FLR\nrmmod npu || die rmmod\n"))
	if err != nil || res.Status != 0 {
		t.Fatalf("%v\n%s", err, console(res))
	}
	head := fmt.Sprintf("# QEMU %s, Linux %s; go test ./tests/card -run TestRecord -record FILE\n", res.QEMU, res.Kernel)
	if err := os.WriteFile(*record, append([]byte(head), b.Bytes()...), 0o644); err != nil {
		t.Fatal(err)
	}
}
