// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func physicalFunction(t testing.TB, hooks Hooks) *Function {
	t.Helper()
	cfg := testConfig()
	cfg.VFs = 5
	f, err := New(cfg, hooks)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func virtualFunction(t testing.TB) *Function {
	t.Helper()
	cfg := testConfig()
	cfg.Virtual = true
	cfg.BARs[2].Resizable = false
	f, err := New(cfg, Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSRIOVLists(t *testing.T) {
	want := []string{
		"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5",
		"0x100: 0x0001 v2", "0x148: 0x0003 v1", "0x160: 0x0015 v1", "0x180: 0x000e v1", "0x190: 0x0010 v1",
	}
	if diff := cmp.Diff(want, capabilities(t, physicalFunction(t, Hooks{}))); diff != "" {
		t.Errorf("physical function (-want +got):\n%s", diff)
	}
	want = []string{"0x40: 0x1", "0x50: 0x10", "0x90: 0x11", "0xa0: 0x5", "0x100: 0x000e v1"}
	if diff := cmp.Diff(want, capabilities(t, virtualFunction(t))); diff != "" {
		t.Errorf("virtual function (-want +got):\n%s", diff)
	}
	cfg := testConfig()
	cfg.VFs, cfg.BARs[2].Resizable = 1, false
	f, err := New(cfg, Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	if got := capabilities(t, f); got[len(got)-1] != "0x190: 0x0010 v1" {
		t.Errorf("without Resizable BAR: %v", got)
	}
	for _, n := range []int{-1, 8} {
		cfg.VFs = n
		if _, err := New(cfg, Hooks{}); err == nil {
			t.Errorf("%d virtual functions were accepted", n)
		}
	}
}

// TestSRIOVAccess writes in at off of a physical function and reads len(want) bytes at off.
func TestSRIOVAccess(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  uint64
		in   []byte
		want []byte
	}{
		{"no migration", 0x194, u32(^uint32(0)), u32(0)},
		{"control: VF Enable, VF MSE, ARI hierarchy", 0x198, u32(^uint32(0)), u32(0x19)},
		{"initial and total VFs", 0x19c, u32(^uint32(0)), u32(5<<16 | 5)},
		{"NumVFs", 0x1a0, u32(5), u32(5)},
		{"NumVFs: more than there are", 0x1a0, u16(6), u16(0)},
		{"NumVFs: bytewise", 0x1a1, []byte{1}, []byte{0}},
		{"function dependency link", 0x1a2, u16(0xffff), u16(0)},
		{"offset and stride", 0x1a4, u32(0), u32(1<<16 | 1)},
		{"VF device", 0x1a8, u32(0), u32(0x10f0_0000)},
		{"supported page sizes", 0x1ac, u32(0), u32(0x553)},
		{"page size", 0x1b0, nil, u32(1)},
		{"page size: 64 KiB", 0x1b0, u32(0x10), u32(0x10)},
		{"page size: none", 0x1b0, u32(0), u32(1)},
		{"page size: two", 0x1b0, u32(3), u32(1)},
		{"page size: not supported", 0x1b0, u32(4), u32(1)},
		{"VF BAR0 sizes to 1 MiB", 0x1b4, u64(^uint64(0)), u64(0xffff_ffff_fff0_0004)},
		{"VF BAR2 sizes to 64 MiB", 0x1bc, u64(^uint64(0)), u64(0xffff_ffff_fc00_000c)},
		{"VF BAR4 sizes to 16 KiB", 0x1c4, u64(^uint64(0)), u64(0xffff_ffff_ffff_c004)},
		{"migration state array", 0x1cc, u32(^uint32(0)), u32(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := physicalFunction(t, Hooks{})
			f.Write(tt.off, tt.in)
			got := make([]byte, len(tt.want))
			f.Read(tt.off, got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("read after write (-want +got):\n%s", diff)
			}
		})
	}
}

// TestVFs follows the virtual functions through what a host does, with what it does wrong.
func TestVFs(t *testing.T) {
	var f *Function
	calls, found := 0, []string(nil)
	f = physicalFunction(t, Hooks{VFs: func() { calls++ }, Mistake: func(id, _, _ string) { found = append(found, id) }})
	for _, s := range []struct {
		name   string
		do     func()
		n      int
		memory bool
		calls  int
	}{
		{"at first", func() {}, 0, false, 0},
		{"enabled with none", func() { f.Write(0x198, u16(1)) }, 0, false, 1},
		{"number while enabled", func() { f.Write(0x1a0, u16(3)) }, 0, false, 1},
		{"off", func() { f.Write(0x198, u16(0)) }, 0, false, 2},
		{"number", func() { f.Write(0x1a0, u16(3)) }, 0, false, 2},
		{"enabled", func() { f.Write(0x198, u16(1)) }, 3, false, 3},
		{"page size while enabled", func() { f.Write(0x1b0, u32(2)) }, 3, false, 3},
		{"memory", func() { f.Write(0x198, u16(9)) }, 3, true, 4},
		{"soft things of the function", func() { f.Write(0x04, u16(7)); f.Write(offPMCSR, u16(3)); f.Write(offPMCSR, u16(0)) }, 3, true, 4},
		{"too many", func() { f.Write(0x198, u16(0)); f.Write(0x1a0, u16(0x105)) }, 0, false, 5},
		{"again", func() { f.Write(0x198, u16(9)) }, 3, true, 6},
		{"FLR", func() { f.Write(0x58, u16(devCtlFLR)) }, 0, false, 6},
	} {
		s.do()
		if n, memory := f.VFs(); n != s.n || memory != s.memory || calls != s.calls {
			t.Fatalf("%s: %d, memory %t, %d calls, want %d, %t, %d", s.name, n, memory, calls, s.n, s.memory, s.calls)
		}
	}
	if diff := cmp.Diff([]string{"config-vf-enabled", "config-vf-enabled", "config-vf-value"}, found); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if n, memory := newFunction(t, Hooks{}).VFs(); n != 0 || memory {
		t.Errorf("a function without SR-IOV has %d", n)
	}
}

// TestVFPageSize: VF BARs are multiples of the system's pages.
func TestVFPageSize(t *testing.T) {
	f := physicalFunction(t, Hooks{})
	f.Write(0x1c4, u64(^uint64(0)))
	f.Write(0x1b0, u32(0x10)) // 64 KiB
	got := make([]byte, 8)
	f.Read(0x1c4, got)
	if diff := cmp.Diff(u64(0xffff_ffff_ffff_0004), got); diff != "" {
		t.Errorf("VF BAR4 (-want +got):\n%s", diff)
	}
	f.Reset(ResetFLR)
	f.Write(0x1c4, u64(^uint64(0)))
	f.Read(0x1c4, got)
	if diff := cmp.Diff(u64(0xffff_ffff_ffff_c004), got); diff != "" {
		t.Errorf("VF BAR4 after a reset (-want +got):\n%s", diff)
	}
}

// TestVirtual writes ones to a virtual function: what a VFIO host sees there.
func TestVirtual(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  uint64
		in   []byte
		want []byte
	}{
		{"identity as VFIO shows it", 0x00, u32(^uint32(0)), u32(0x10f0_1af4)},
		{"command: memory and bus master", 0x04, u16(0xffff), u16(6)},
		{"BAR0", 0x10, u64(^uint64(0)), u64(0xffff_ffff_fff0_0004)},
		{"no interrupt pin or line", 0x3c, u32(^uint32(0)), u32(0)},
		{"device control has no settings", 0x58, u16(0x7fff), u16(0)},
		{"device capabilities: FLR", 0x54, nil, u32(0x1000_8021)},
		{"no link status or control", 0x60, u32(^uint32(0)), u32(0)},
		{"no link control 2", 0x80, u32(^uint32(0)), u32(0)},
		{"no AER", 0x100, u32(^uint32(0)), u32(0x0001_000e)},
		{"no serial number", 0x148, u64(^uint64(0)), u64(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := virtualFunction(t)
			f.Write(tt.off, tt.in)
			got := make([]byte, len(tt.want))
			f.Read(tt.off, got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("read after write (-want +got):\n%s", diff)
			}
		})
	}
	f := virtualFunction(t)
	f.SetLevel(true)
	for _, k := range errorKinds {
		if m := f.Inject(k, [4]uint32{1}); m != NoMessage {
			t.Errorf("%s: %v from a virtual function", k.Name, m)
		}
	}
	got := make([]byte, 4)
	f.Read(0x04, got)
	if s := binary.LittleEndian.Uint16(got[2:]); s&8 != 0 {
		t.Errorf("Status %#x: Interrupt Status without INTx", s)
	}
	f.Read(0x58, got)
	if s := binary.LittleEndian.Uint16(got[2:]); s != 0xf {
		t.Errorf("Device Status %#x, want every kind of error", s)
	}
	f.Read(0x104, got)
	if diff := cmp.Diff(u32(0), got); diff != "" {
		t.Errorf("ARI after errors (-want +got):\n%s", diff)
	}
	f.Reset(ResetFLR)
	f.Read(0x58, got)
	if diff := cmp.Diff(u32(0), got); diff != "" {
		t.Errorf("Device Control and Status after FLR (-want +got):\n%s", diff)
	}
}

// FuzzSRIOV plays writes of 8 bytes of input each to a physical function: number, page size and masks stay
// what the function has, and reading works everywhere.
func FuzzSRIOV(f *testing.F) {
	f.Add([]byte("\xa0\x01\x02\x00\x03\x00\x00\x00\x98\x01\x02\x00\x09\x00\x00\x00"))
	f.Add([]byte("\xb0\x01\x04\x00\x10\x00\x00\x00\xc4\x01\x04\x00\xff\xff\xff\xff\x59\x00\x01\x00\x80\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		fn := physicalFunction(t, Hooks{})
		for ; len(in) >= 8; in = in[8:] {
			fn.Write(uint64(binary.LittleEndian.Uint16(in)), in[4:4+in[2]%5])
			if n, memory := fn.VFs(); n < 0 || n > 5 || memory && n == 0 && fn.value[offSRIOVCtl/4]&sriovEnable == 0 {
				t.Fatalf("%d virtual functions, memory %t", n, memory)
			}
			page := fn.value[offSRIOVPage/4]
			if page&(page-1) != 0 || page&sriovPages == 0 {
				t.Fatalf("page size %#x", page)
			}
			if mask := fn.row[offSRIOVBAR0/4+4].RW; mask&(page<<sriovPageShift-1) != 0 {
				t.Fatalf("VF BAR4 has mask %#x with page size %#x", mask, page)
			}
			fn.Read(0, make([]byte, ConfigSpaceSize))
		}
	})
}
