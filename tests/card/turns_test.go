// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"strings"
	"testing"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// A turn is one card of a guest that has several, and what its script does while the driver is bound to that card alone. A
// boot costs more processor time than most of what is looked at after it.
type turn struct {
	name   string
	card   vdev.Config
	script string // $dev is the card, $RESULT a directory of its own, $n its number; loads the driver and unloads it
}

// inTurn is what scripts of turns begin with: load binds the driver to $dev, and to nothing else.
const inTurn = `
echo 0 >/sys/bus/pci/drivers_autoprobe
load() {
	modprobe npu || die "modprobe npu: $?"
	echo ${dev##*/} >/sys/bus/pci/drivers/npu/bind || die "bind ${dev##*/}"
	for i in $(seq 50); do [ -e /dev/accel/accel0 ] && return; sleep 0.1; done
	die "no /dev/accel/accel0"
}
all=$RESULT
set -- $(grep -l 0x10f0 /sys/bus/pci/devices/*/device)
`

// bootTurns boots one guest with the cards of turns, in whose order they are taken, and has a subtest for each: check gets the
// boot with the files of that turn, and its card. The script ends with the first turn that fails.
func bootTurns(t *testing.T, e *guest.Env, kernel string, turns []turn, check func(*testing.T, int, *guest.Result, *vdev.Device), change ...func(*guest.Config)) {
	t.Helper()
	var sockets []string
	var devices []*vdev.Device
	var script strings.Builder
	script.WriteString(inTurn)
	for i, turn := range turns {
		d, socket := devtest.Start(t, turn.card)
		devices, sockets = append(devices, d), append(sockets, socket)
		fmt.Fprintf(&script, "n=%d dev=${%d%%/device} RESULT=$all/%d; mkdir $RESULT; stage turn %d\n%s\n", i, i+1, i, i, turn.script)
	}
	res := bootCard(t, e, kernel, "", script.String(), append(change, func(c *guest.Config) { c.Sockets = sockets })...)
	for i, turn := range turns {
		t.Run(turn.name, func(t *testing.T) {
			own := *res
			own.Files = map[string][]byte{}
			for path, text := range res.Files {
				if name, ok := strings.CutPrefix(path, fmt.Sprintf("%d/", i)); ok {
					own.Files[name] = text
				}
			}
			guest.Note(t, &own, nil)
			check(t, i, &own, devices[i])
		})
	}
}
