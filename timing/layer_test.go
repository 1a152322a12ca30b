// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func network(t testing.TB, name string) []Layer {
	t.Helper()
	text, err := os.ReadFile("../examples/layers/" + name)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := ReadLayers(name, text)
	if err != nil {
		t.Fatal(err)
	}
	return layers
}

// TestNetworks compares the example tables with the published sizes of the networks.
func TestNetworks(t *testing.T) {
	for name, want := range map[string]struct{ layers, macs, weights uint64 }{
		"resnet50.csv":    {54, 4_089_184_256, 25_502_912}, // without batch normalization and biases
		"mobilenetv2.csv": {53, 300_774_272, 3_469_760},
	} {
		var macs, weights uint64
		layers := network(t, name)
		for _, l := range layers {
			macs += l.MACs()
			weights += l.KernelH * l.KernelW * l.Channels / l.Groups * l.Filters
		}
		if uint64(len(layers)) != want.layers || macs != want.macs || weights != want.weights {
			t.Errorf("%s: %d layers, %d multiply-accumulates, %d weights; want %+v", name, len(layers), macs, weights, want)
		}
	}
}

// TestClasses counts the tiles one by one and compares with their classes.
func TestClasses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := func(most int) uint64 { return uint64(r.IntN(most)) + 1 }
		l := Layer{KernelH: n(3), KernelW: n(3), Channels: n(70), Filters: n(70), StepY: n(2), StepX: n(2), Groups: 1}
		l.InH, l.InW = l.KernelH+n(30), l.KernelW+n(30)
		if r.IntN(3) == 0 {
			l.Groups, l.Filters = l.Channels, l.Channels*n(2)
		}
		c := config(16, 8)
		c.Scratchpad, c.Accumulators = int64(n(20000)), int64(n(10000))
		x := cut{l: &l, c: &c, t: tiling{lines: n(int(l.outH())), filters: n(int(l.Filters/l.Groups)) * 1, channels: n(int(l.Channels)), weightsOuter: r.IntN(2) == 0}}
		if l.Groups > 1 {
			x.t.filters = l.Filters / l.Groups * n(int(l.Groups))
		}
		var macs, written, tiles uint64
		x.each(func(w work, count uint64) {
			tiles += count
			written += count * w.written
		})
		var wantTiles, wantWritten uint64
		for y := uint64(0); y < l.outH(); y += x.t.lines {
			for f := uint64(0); f < l.Filters; f += x.t.filters {
				lines, filters := min(x.t.lines, l.outH()-y), min(x.t.filters, l.Filters-f)
				bytes, _ := x.output(lines, filters)
				wantWritten += bytes
				step := x.t.channels
				if l.Groups > 1 {
					step = l.Channels
				}
				for ch := uint64(0); ch < l.Channels; ch += step {
					p := x.product(lines, filters, min(step, l.Channels-ch))
					macs += p.m * p.n * p.k * p.groups
					wantTiles++
				}
			}
		}
		if tiles != wantTiles || written != wantWritten || macs != l.MACs() {
			t.Fatalf("%+v cut %+v: %d tiles, %d bytes written, tiles have %d multiply-accumulates; want %d, %d, %d",
				l, x.t, tiles, written, macs, wantTiles, wantWritten, l.MACs())
		}
	}
}

// TestBounds has what no estimate may fall below.
func TestBounds(t *testing.T) {
	for _, name := range []string{"resnet50.csv", "mobilenetv2.csv"} {
		for _, dim := range []int{8, 16, 32, 128} {
			for d := range Dataflow(3) {
				c := config(dim, dim)
				c.Dataflow = d
				for _, e := range Layers(network(t, name), c) {
					if u := e.Utilization(c); u > 1 {
						t.Errorf("%s, %s on %d×%d %v: utilization %.3f", name, e.Name, dim, dim, d, u)
					}
					if e.Written < e.outH()*e.outW()*e.Filters {
						t.Errorf("%s: %d bytes written, the output has %d", e.Name, e.Written, e.outH()*e.outW()*e.Filters)
					}
					if (e.Read+e.Written)/uint64(c.DRAMWidth) > e.Cycles {
						t.Errorf("%s: %d bytes in %d cycles", e.Name, e.Read+e.Written, e.Cycles)
					}
					if e.Groups > 1 && e.Utilization(c) > 9/float64(dim*dim)*float64((dim+8)/9+1) {
						t.Errorf("%s: a depthwise layer at %.3f", e.Name, e.Utilization(c))
					}
				}
			}
		}
	}
}

// Published figures, and how far the model is from them (§13.9). The bands are narrow around
// what the specification states: who changes the model states anew.
func TestPublished(t *testing.T) {
	// Until PR 86 and 87 each instruction of a convolution loaded its weights again.
	reload := gemmini()
	reload.Stream = 16
	total := func(c Config) (cycles uint64) {
		for _, e := range Layers(network(t, "resnet50.csv"), c) {
			cycles += e.Cycles
		}
		return cycles
	}
	onnxim := config(128, 128)
	onnxim.Scratchpad, onnxim.Accumulators, onnxim.DRAMWidth = 16<<20, 4<<20, 512
	layer := func(size, kernel, channels, filters, step uint64) uint64 {
		l := Layer{InH: size, InW: size, KernelH: kernel, KernelW: kernel, Channels: channels, Filters: filters, StepY: step, StepX: step, Groups: 1}
		return Layers([]Layer{l}, onnxim)[0].Cycles
	}
	for _, tt := range []struct {
		name      string
		cycles    uint64
		published uint64
		percent   float64
	}{
		{"Gemmini, ResNet-50, February 2021", total(reload), 153_709_356 / 4, -47},
		{"Gemmini, ResNet-50, March 2021", total(gemmini()), 4_089_184_256 * 100 / 51 / 256, -45},
		{"ONNXim, ResNet-18 layer3.0.conv1", layer(29, 3, 128, 256, 2), 4549, 7},
		{"ONNXim, ResNet-18 layer3.0.downsample", layer(27, 1, 128, 256, 2), 1191, 62},
		{"ONNXim, ResNet-18 layer4.0.conv2", layer(9, 3, 512, 512, 1), 19090, 2},
	} {
		percent := 100 * (float64(tt.cycles)/float64(tt.published) - 1)
		t.Logf("%s: %d cycles, published %d: %+.1f %%", tt.name, tt.cycles, tt.published, percent)
		if math.Abs(percent-tt.percent) > 1 {
			t.Errorf("%s: %+.1f %%, stated %+.0f %%", tt.name, percent, tt.percent)
		}
	}
}

// TestLittleMemory has local memory too small for the array: sizes go below it.
func TestLittleMemory(t *testing.T) {
	big, small := config(128, 128), config(128, 128)
	big.Scratchpad, big.Accumulators = 64<<20, 4<<20
	small.Scratchpad, small.Accumulators = 64<<10, 16<<10
	for i, e := range Layers(network(t, "resnet50.csv"), small) {
		roomy := Layers(network(t, "resnet50.csv")[i:i+1], big)[0]
		if e.Cycles < roomy.Cycles || e.Cycles > 200*roomy.Cycles {
			t.Errorf("%s: %d cycles with little memory, %d with much", e.Name, e.Cycles, roomy.Cycles)
		}
	}
}

func TestReadLayers(t *testing.T) {
	conv := "Layer name,IFMAP height,IFMAP width,Filter height,Filter width,Channels,Num filter,Strides,\n"
	layers, err := ReadLayers("t.csv", []byte("\ufeff"+conv+"\r\n a, 8, 9, 3, 2, 4, 5, 2,\nDPb,8,8,3,3,4,1,1\nc,8,8,1,1,4,4,1,1:1,\n"))
	want := []Layer{
		{"a", 8, 9, 3, 2, 4, 5, 2, 2, 1},
		{"DPb", 8, 8, 3, 3, 4, 4, 1, 1, 4},
		{"c", 8, 8, 1, 1, 4, 4, 1, 1, 1},
	}
	if err != nil || len(layers) != 3 || layers[0] != want[0] || layers[1] != want[1] || layers[2] != want[2] {
		t.Errorf("%+v, %v", layers, err)
	}
	gemm, err := ReadLayers("t.csv", []byte("Layer,M,N,K,\nx,2,3,4,\n"))
	if err != nil || gemm[0].MACs() != 24 || gemm[0].outH() != 2 {
		t.Errorf("%+v, %v", gemm, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "t.csv: no layers"},
		{"header only", conv, "t.csv: no layers"},
		{"no header", "a,8,8,3,3,4,5,1,\n", "t.csv:1:1: this is no header; write Layer,M,N,K,"},
		{"not text", conv + "a,\x01", "t.csv:2:1: this is not text"},
		{"not UTF-8", conv + "\xff", "t.csv:2:1: this is not text"},
		{"word", conv + "a,8,8,3,x,4,5,1,\n", `t.csv:2:9: filter width is "x"; use a whole number from 1 to 1048576`},
		{"zero", conv + "a,8,8,3,3,4,5, 0,\n", `t.csv:2:16: stride is "0"`},
		{"negative", conv + "a,-8,8,3,3,4,5,1,\n", `t.csv:2:3: IFMAP height is "-8"`},
		{"too large", conv + "a,8,8,3,3,1048577,5,1,\n", `t.csv:2:11: channels is "1048577"`},
		{"short", conv + "a,8,8,\n", "t.csv:2:7: the layer has 2 numbers; the table has 7 columns"},
		{"long", conv + "a,8,8,3,3,4,5,1,1:1,9,\n", "the layer has 9 numbers"},
		{"sparse", conv + "a,8,8,3,3,4,5,1,2:4,\n", `t.csv:2:17: sparsity is "2:4"; only dense layers are modelled`},
		{"no name", conv + ",8,8,3,3,4,5,1,\n", "t.csv:2:1: the layer has no name"},
		{"filter too high", conv + "a,2,8,3,3,4,5,1,\n", "t.csv:2:7: the filter's height 3 is above the input's 2"},
		{"filter too wide", conv + "a,8,2,3,3,4,5,1,\n", "t.csv:2:9: the filter's width 3 is above the input's 2"},
		{"depthwise with too many filters", conv + "aDP,8,8,3,3,1048576,2,1,\n", "2 filters for each of 1048576 channels"},
		{"too much", conv + "a,1048576,1048576,3,3,1048576,5,1,\n", "t.csv:2:1: the layer is larger than"},
		{"too much work", "L,M,N,K,\na,1048576,1048576,1048576,\n", "t.csv:2:1: the layer is larger than"},
		{"too many layers", "L,M,N,K,\n" + strings.Repeat("a,1,1,1,\n", maxLayers+1), "t.csv:10002:1: more than 10000 layers"},
	} {
		if _, err := ReadLayers("t.csv", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzReadLayers(f *testing.F) {
	f.Add([]byte("Layer,M,N,K,\nx,2,3,4,\n"), uint8(16), uint8(0))
	f.Add([]byte("Layer name,a,b,c,d,e,f,g,\nxDP,20,20,3,3,8,2,2,\n"), uint8(8), uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, dim, flow uint8) {
		layers, err := ReadLayers("f", text)
		if err != nil {
			return
		}
		c := config(int(dim)+1, int(dim)+1)
		c.Dataflow = Dataflow(flow % 3)
		for _, e := range Layers(layers[:min(len(layers), 3)], c) {
			if e.Utilization(c) > 1 || e.Cycles == 0 {
				t.Errorf("%+v: utilization %v", e, e.Utilization(c))
			}
			if n := ScaleSim(e.Layer, c); c.Dataflow == WeightStationary && n+e.Groups < e.MACs()/uint64(c.Rows*c.Cols) {
				t.Errorf("%+v: SCALE-Sim's %d cycles are fewer than an array can do", e, n)
			}
		}
	})
}

func BenchmarkLayers(b *testing.B) {
	for _, name := range []string{"resnet50.csv", "mobilenetv2.csv"} {
		layers := network(b, name)
		b.Run(strings.TrimSuffix(name, ".csv"), func(b *testing.B) {
			c := config(32, 32)
			for b.Loop() {
				Layers(layers, c)
			}
		})
	}
}

// TestLaunch has what a LAUNCH takes besides its program (§13.8.2), to be counted by hand.
func TestLaunch(t *testing.T) {
	c := Config{Params: DefaultParams()}
	for _, tt := range []struct {
		image, table uint64
		onBus        bool
		firmware     int
		want         uint64
	}{
		{640, 0, false, 0, 300 + 100 + 20}, // bursts of 64 bytes, 32 bytes in a cycle
		{641, 96, false, 0, 300 + 100 + 22 + 100 + 4},
		{640, 96, true, 0, 300 + 800 + 40 + 800 + 6},
		{640, 0, false, 1000, 1300 + 100 + 20},
	} {
		c.CommandFirmware = tt.firmware
		if got := c.Launch(tt.image, tt.table, tt.onBus); got != tt.want {
			t.Errorf("%+v: %d cycles", tt, got)
		}
	}
}
