// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/run"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// network has products, pooling, a normalization, and a node that stays on the host.
const network = `
graph "network"
input %x: int8[1, 12, 12, 4]
const %w: int8[8, 3, 3, 4] = "WEIGHTS"
node "conv" npu.conv(%x, %w) -> (%a: int8[1, 12, 12, 8]) {strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="fp32", scales=floats[0.001], zero_y=-3, lo=-3, hi=127, zero_x=5}
node "pool" npu.pool(%a) -> (%b: int8[1, 6, 6, 8]) {kind="max", kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]}
node "dequantize" npu.dequantize(%b) -> (%c: float32[1, 6, 6, 8]) {scales=floats[0.1], zeros=[-3]}
node "softmax" npu.softmax(%c) -> (%y: float32[1, 6, 6, 8])
node "wide" npu.cast(%b) -> (%z: int64[1, 6, 6, 8])
output %y
output %z
`

// TestModel runs a compiled model in a guest through the kernel driver, and here with the user-mode driver: the same
// file, the same results, the same counters and cycles, of each operator and program.
func TestModel(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "npuemu")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "npuemu/cmd/npuemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file, x := filepath.Join(dir, "network.npu"), filepath.Join(dir, "x.npy")
	compileNetwork(t, file, x)
	here := exec.CommandContext(t.Context(), binary, "run", file, "--input", x, "--output", filepath.Join(dir, "y.npy"), "--output", filepath.Join(dir, "z.npy"), "--json", "--time", "timed")
	summary, err := here.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, summary)
	}
	want := counted(t, summary)
	const script = `load
/npuemu run /network.npu --input /x.npy --output $RESULT/y.npy --output $RESULT/z.npy --device /dev/accel/accel0 --json >$RESULT/summary || die npuemu
/npuemu run /network.npu --input /x.npy --device /dev/accel/accel7 2>$RESULT/missing && die "a card that is not there"
rmmod npu || die rmmod
`
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			card := vdev.DefaultConfig()
			card.Time.Mode = vdev.TimeTimed
			res, d := bootWith(t, e, card, k, script, func(c *guest.Config) {
				c.Files["/npuemu"], c.Files["/network.npu"], c.Files["/x.npy"] = binary, file, x
			})
			for _, name := range []string{"y.npy", "z.npy"} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, res.Files[name]) {
					t.Errorf("%s differs between guest and user-mode driver", name)
				}
			}
			if diff := cmp.Diff(want, counted(t, res.Files["summary"])); diff != "" {
				t.Errorf("the card counted (-here +in the guest):\n%s", diff)
			}
			if !bytes.Contains(res.Files["missing"], []byte("accel7")) {
				t.Errorf("a card that is not there: %s", res.Files["missing"])
			}
			for _, f := range d.Findings() {
				t.Errorf("finding %+v", f)
			}
		})
	}
}

func compileNetwork(t *testing.T, file, input string) {
	t.Helper()
	g, err := ir.Parse(string(bytes.ReplaceAll([]byte(network), []byte(`"WEIGHTS"`), weights(8*3*3*4))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, attach.Target(vdev.DefaultConfig()))
	if err != nil {
		t.Fatal(err)
	}
	if last := m.Nodes[len(m.Nodes)-1]; last.Host == "" {
		t.Errorf("node %q is not on the host", last.Name)
	}
	b, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, m.Inputs[0].Bytes())
	for i := range data {
		data[i] = byte(i * i)
	}
	in, err := npy.Write(ir.Int8, m.Inputs[0].Shape, data)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{file: b, input: in} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// weights is base64 text of n bytes, quoted.
func weights(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(37 * i)
	}
	q, _ := json.Marshal(b) // a slice of bytes does not fail
	return q
}

// summary is what a run says of the card.
type summary struct {
	Counters  run.Counters
	Launches  []run.Launch
	Operators []compiler.OperatorReport
	OnHost    []any `json:"operators_on_host"`
	Untimed   string
}

func counted(t *testing.T, text []byte) (s summary) {
	t.Helper()
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(s.OnHost) != 1 || s.Counters.MACs == 0 || s.Untimed != "" || len(s.Launches) == 0 {
		t.Errorf("the summary says %s", text)
	}
	cycles := uint64(0)
	for i, l := range s.Launches {
		if cycles += l.Cycles; l.Profile == nil || !l.Profile.Timed || l.Profile.Cycles == 0 || l.Profile.Cycles >= l.Cycles {
			t.Fatalf("program %d: %+v", i, l)
		}
		l.Profile.Began = 0 // the driver may have used the card before
	}
	if cycles == 0 || cycles != s.Counters.Cycles {
		t.Errorf("programs take %d cycles, the card counted %d", cycles, s.Counters.Cycles)
	}
	return s
}
