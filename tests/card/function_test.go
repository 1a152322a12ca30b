// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// pciutils gives the guest lspci and setpci.
func pciutils(c *guest.Config) { c.Tools = append(c.Tools, "lspci", "setpci") }

// msiOnly is the card that QEMU can unplug.
func msiOnly() vdev.Config {
	c := vdev.DefaultConfig()
	c.PCI.MSIX = false
	return c
}

// varying is what differs from machine to machine in lspci's text: addresses and interrupt numbers.
var varying = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`Memory at [0-9a-f]+`), "Memory at ADDR"},
	{regexp.MustCompile(`IRQ \d+`), "IRQ N"},
	{regexp.MustCompile(`Address: [0-9a-f]+  Data: [0-9a-f]+`), "Address: ADDR  Data: DATA"},
}

// odd is what lspci says of functions that do not add up.
var odd = []string{
	"<unassigned>", "<ignored>", "[virtual]", "[disabled]", "<access denied>", "<chain", "!!!", "Unknown", "unknown",
	"broken", "<?>", "degraded", "(downgraded)", "(rev ff)", "Invalid", "invalid",
}

// TestLspci: lspci -vvv in the guest finds nothing odd, with the driver bound.
func TestLspci(t *testing.T) {
	e := guest.Require(t)
	for _, tt := range []struct {
		golden       string
		card         vdev.Config
		capabilities int
	}{
		{"lspci.txt", vdev.DefaultConfig(), 7},
		{"lspci-msi.txt", msiOnly(), 6},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			res, _ := bootWith(t, e, tt.card, "", `
load
lspci=/usr/bin/lspci
$lspci --version >$RESULT/lspci || die "lspci: $?"
$lspci -n -vvv -s ${dev##*/} >>$RESULT/lspci 2>$RESULT/errors || die "lspci: $?"
rmmod npu || die rmmod
`, pciutils, func(c *guest.Config) { c.RootPort = true }) // on bus 0 QEMU hides the link
			for l := range strings.Lines(string(res.Files["errors"])) {
				if !strings.Contains(l, "libkmod") { // the guest has no index of its kernel's modules
					t.Errorf("lspci complains: %s", l)
				}
			}
			text := res.Files["lspci"]
			for _, v := range varying {
				text = v.re.ReplaceAll(text, []byte(v.to))
			}
			for _, s := range odd {
				if bytes.Contains(text, []byte(s)) {
					t.Errorf("lspci says %q", s)
				}
			}
			if n := bytes.Count(text, []byte("Capabilities: ")); n != tt.capabilities {
				t.Errorf("lspci lists %d capabilities, want %d\n%s", n, tt.capabilities, text)
			}
			path := filepath.Join("testdata", tt.golden)
			if *update {
				if err := os.WriteFile(path, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			line := func(b []byte) string { first, _, _ := strings.Cut(string(b), "\n"); return first }
			if line(want) != line(text) {
				t.Skipf("golden text is of %s, this is %s: compare by eye with -update", line(want), line(text))
			}
			if diff := cmp.Diff(string(want), string(text)); diff != "" {
				t.Errorf("%s (-want +got), rewrite with -update:\n%s", path, diff)
			}
		})
	}
}

// setpciLines makes lines of setpci's arguments: random writes of every width over all of
// config space, half of them where the registers are.
func setpciLines(seed uint64, lines, writes int) string {
	rng := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	for range lines {
		for range writes {
			size := 1 << rng.IntN(3)
			end := 0x1000
			if rng.IntN(2) == 0 {
				end = 0x1a0
			}
			v := rng.Uint32() >> (32 - 8*size)
			if rng.IntN(4) == 0 {
				v = uint32(uint64(1)<<(8*size) - 1)
			}
			fmt.Fprintf(&b, " %x.%c=%x", rng.IntN(end/size)*size, " bw l"[size], v)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestSetpciFuzz writes at random into the function's config space, all of it, first without and then
// with the driver bound. The server lives, and after a function-level reset and with the header restored the driver
// works as before.
//
// The cards have one kind of messages each: QEMU 11.1 aborts when a guest turns MSI on while MSI-X is on and
// MSI-X off after that (docs/limits.md).
func TestSetpciFuzz(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	files := map[string]string{}
	for name, text := range map[string]string{"unbound": setpciLines(1, 60, 100), "bound": setpciLines(2, 15, 100)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files["/"+name] = path
	}
	for _, tt := range []struct{ capability, name string }{{"CAP_MSIX", "MSI-X"}, {"CAP_MSI", "MSI"}} {
		t.Run(tt.name, func(t *testing.T) {
			card := vdev.DefaultConfig()
			card.PCI.MSIX, card.PCI.MSI = tt.name == "MSI-X", tt.name == "MSI"
			res, d := bootWith(t, e, card, "", `
bdf=${dev##*/}
set="/usr/bin/setpci -s $bdf"
cp $dev/config /saved
fuzz() {
	while read -r writes; do $set $writes || die "setpci: $?"; done </$1
}
# A reset by the function's own register; what BIOS and kernel wrote is then put back, and what QEMU remembers of
# interrupts and power, which a reset by the function's own register does not change, is turned off.
restore() {
	$set CAP_EXP+8.w=8000 || die "setpci: FLR"
	sleep 0.2
	$set CAP_PM+4.w=0 || die "setpci: D0"
	dd if=/saved of=$dev/config bs=64 count=1 2>/dev/null || die "header: $?"
	$set `+tt.capability+`+2.w=0 || die "setpci: messages"
	cmp -n 64 /saved $dev/config || die "the header is not as it was"
}
stage unbound
fuzz unbound
restore
load
digits `+Digits+` >$RESULT/unbound.json || die "digits after the first run"
# A sleep would save what is written here, and restore it when the driver wakes the function up.
echo on >$dev/power/control || die "power/control"
stage bound
fuzz bound
restore
echo $bdf >/sys/bus/pci/drivers/npu/unbind || die unbind
echo 1 >$dev/reset || die reset
echo $bdf >/sys/bus/pci/drivers/npu/bind || die bind
digits `+Digits+` >$RESULT/bound.json || die "digits after the second run"
rmmod npu || die rmmod
`, pciutils, func(c *guest.Config) {
				maps.Copy(c.Files, files)
				c.Timeout = 4 * time.Minute
			})
			checkDigits(t, res.Files["unbound.json"])
			checkDigits(t, res.Files["bound.json"])
			config := 0
			for _, f := range d.Findings() {
				if strings.HasPrefix(f.ID, "config-") {
					config++
				}
				t.Logf("finding %s ×%d, last %s", f.ID, f.Count, f.Last)
			}
			if config < 2 {
				t.Errorf("%d kinds of findings about config space: the writes did not arrive", config)
			}
			t.Logf("stages %v", res.Stages)
		})
	}
}

// qmp is a connection to QEMU's monitor.
type qmp struct {
	t *testing.T
	c *net.UnixConn
	d *json.Decoder
}

// dialQMP waits for the monitor at path.
func dialQMP(t *testing.T, path string) *qmp {
	var c *net.UnixConn
	var err error
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err == nil {
			break
		} else if time.Now().After(end) {
			t.Errorf("QMP: %v", err)
			return nil
		}
	}
	q := &qmp{t: t, c: c, d: json.NewDecoder(c)}
	var greeting map[string]any
	if err := q.d.Decode(&greeting); err != nil {
		t.Errorf("QMP: %v", err)
		return nil
	}
	q.do("qmp_capabilities", nil)
	return q
}

// do executes a command, which QEMU is expected to do, and returns what it returned.
func (q *qmp) do(command string, args any) map[string]any {
	m, refusal := q.try(command, args)
	if refusal != "" {
		q.t.Errorf("QMP: %s: %v", command, refusal)
	}
	return m
}

// try executes a command and returns what QEMU returned, or why it did not do it. Events in between are logged.
func (q *qmp) try(command string, args any) (result map[string]any, refusal string) {
	if q == nil {
		return nil, "no monitor"
	}
	b, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	if args == nil {
		b, err = json.Marshal(map[string]any{"execute": command})
	}
	if err == nil {
		_, err = q.c.Write(b)
	}
	for err == nil {
		var m struct {
			Event  string
			Return map[string]any
			Error  *struct{ Desc string }
		}
		err = q.d.Decode(&m)
		switch {
		case err != nil:
		case m.Event != "":
			q.t.Logf("QMP event %s", m.Event)
		case m.Error != nil:
			return nil, m.Error.Desc
		default:
			return m.Return, ""
		}
	}
	return nil, err.Error()
}

// operator answers lines of the guest's script with QMP commands, on a goroutine of its own: a command may wait
// for the guest, and the guest for whoever reads its console.
func operator(t *testing.T, commands map[string]func(*qmp)) func(*guest.Config) {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "qmp")
	lines, done := make(chan string, 64), make(chan struct{})
	go func() {
		defer close(done)
		var q *qmp
		for line := range lines {
			for marker, f := range commands {
				if strings.HasPrefix(line, marker) {
					if q == nil {
						q = dialQMP(t, path)
					}
					f(q)
				}
			}
		}
		if q != nil {
			q.c.Close()
		}
	}()
	t.Cleanup(func() {
		close(lines)
		<-done
		os.RemoveAll(dir)
	})
	return func(c *guest.Config) {
		c.ExtraArgs = append(c.ExtraArgs, "-qmp", "unix:"+path+",server=on,wait=off")
		c.OnLine = func(line string) {
			if strings.HasPrefix(line, "operator: ") {
				lines <- line
			}
		}
	}
}

// plug makes QEMU plug a card in.
func plug(q *qmp, id, bus, socket string) (refusal string) {
	_, refusal = q.try("device_add", map[string]any{
		"driver": "vfio-user-pci", "id": id, "bus": bus, "socket": map[string]string{"path": socket, "type": "unix"},
	})
	return refusal
}

// TestReplug unplugs a card by QEMU's monitor, under a program that has jobs on it, and plugs it in again, twice. The card has
// no MSI-X: QEMU 11.1 aborts when one that has is unplugged (docs/limits.md).
func TestReplug(t *testing.T) {
	e := guest.Require(t)
	d, socket := devtest.Start(t, msiOnly())
	cfg := kit(t, e, e.Kernels()[0]).Config("", socket, common+`
bdf=${dev##*/}
load
digits `+Digits+` >/dev/null || die "digits at first"
for i in 1 2; do
	rm -f /working
	lifetest removed /working >$RESULT/removed-$i &
	for n in $(seq 300); do [ -e /working ] && break; sleep 0.1; done
	[ -e /working ] || die "no jobs, $i"
	echo "operator: unplug"
	for n in $(seq 300); do [ -e $dev ] || break; sleep 0.1; done
	[ -e $dev ] && die "the card is still there, $i"
	[ -e /dev/accel/accel0 ] && die "its node is still there, $i"
	echo "operator: plug"
	for n in $(seq 300); do [ -e /dev/accel/accel0 ] && break; sleep 0.1; done
	[ -e /dev/accel/accel0 ] || die "no card after it was plugged in, $i"
	wait
	digits `+Digits+` >$RESULT/digits-$i.json || die "digits after it was plugged in, $i"
done
rmmod npu || die rmmod
`)
	cfg.RootPort, cfg.Timeout = true, 4*time.Minute
	operator(t, map[string]func(*qmp){
		"operator: unplug": func(q *qmp) { q.do("device_del", map[string]string{"id": "npu0"}) },
		"operator: plug": func(q *qmp) {
			// QEMU may hold the old connection longer than the guest sees the card, and can
			// abort when the server turns the new one away.
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if c, err := vfiouser.Dial(socket); err == nil {
					c.Close()
					break
				}
			}
			if r := plug(q, "npu0", "port0", socket); r != "" {
				t.Errorf("device_add: %s", r)
			}
		},
	})(&cfg)
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("%v\n%s", err, console(res))
	}
	checkKernelLog(t, res)
	for _, i := range []string{"1", "2"} {
		checkKTAP(t, res.Files["removed-"+i], 12)
		checkDigits(t, res.Files["digits-"+i+".json"])
	}
	for _, f := range d.Findings() {
		if f.ID != "command-ABORTED" { // of the jobs under way
			t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
		}
	}
}

// TestFatalError: with error_interrupt, a fatal error that the guest's kernel wants to hear of stops QEMU's
// machine; without it, the machine runs on.
func TestFatalError(t *testing.T) {
	e := guest.Require(t)
	for _, tt := range []struct {
		name   string
		on     bool
		status string
	}{
		{"stops", true, "internal-error"},
		{"runs on", false, "running"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			card := vdev.DefaultConfig()
			card.PCI.ErrorInterrupt = tt.on
			d, socket := devtest.Start(t, card)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			var message pci.ErrorMessage
			var status any
			cfg := guest.Config{Sockets: []string{socket}, RootPort: true, Script: `echo "operator: inject"; sleep 60`}
			done := make(chan struct{})
			operator(t, map[string]func(*qmp){"operator: inject": func(q *qmp) {
				defer close(done)
				message, _ = d.InjectError("malformed-tlp", nil)
				for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if status = q.do("query-status", nil)["status"]; status == "internal-error" || !tt.on {
						break
					}
				}
				cancel()
			}})(&cfg)
			res, err := guest.Boot(ctx, e, cfg)
			select {
			case <-done:
			default:
				t.Fatalf("the guest did not come so far: %v\n%s", err, console(res))
			}
			if message != pci.ErrFatal || status != tt.status {
				t.Errorf("%v, then QEMU says %v, want ERR_FATAL and %s\n%s", message, status, tt.status, console(res))
			}
		})
	}
}
