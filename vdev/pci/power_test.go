// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestD3hot: configuration space takes in D3hot what it takes in D0, memory and bus are closed, and
// the way back to D0 keeps everything, as No_Soft_Reset says (§5.3.1.4.1, §7.5.2.2).
func TestD3hot(t *testing.T) {
	values := func(f *Function) map[string]uint32 {
		m := map[string]uint32{}
		for _, r := range f.registers {
			m[fmt.Sprintf("%#x %s", r.Off, r.Name)] = f.read(r.Off)
		}
		return m
	}
	all := func(f *Function) {
		for i := range f.registers {
			if r := &f.registers[i]; r.Off != offPMCSR && r.Off != offDevCtl { // state, FLR
				f.Write(uint64(r.Off), u32(^uint32(0)))
			}
		}
	}
	inD0, inD3 := newFunction(t, Hooks{}), newFunction(t, Hooks{})
	all(inD0)
	inD3.Write(offPMCSR, u16(3))
	all(inD3)
	inD3.MSIX().Write(0x10, u32(0xfee0_0000))
	if inD3.MemoryEnabled() || inD3.BusMaster() {
		t.Error("memory or bus are open in D3hot")
	}
	want := values(inD0)
	want[fmt.Sprintf("%#x PM_CSR", offPMCSR)] |= 3
	if diff := cmp.Diff(want, values(inD3)); diff != "" {
		t.Errorf("configuration space in D3hot (-want +got):\n%s", diff)
	}
	inD3.Write(offPMCSR, u16(0))
	if diff := cmp.Diff(values(inD0), values(inD3)); diff != "" {
		t.Errorf("back in D0 (-want +got):\n%s", diff)
	}
	if !inD3.MemoryEnabled() || !inD3.BusMaster() {
		t.Error("memory or bus are closed in D0")
	}
	entry := make([]byte, 4)
	inD3.MSIX().Read(0x10, entry)
	if diff := cmp.Diff(u32(0xfee0_0000), entry); diff != "" {
		t.Errorf("MSI-X table (-want +got):\n%s", diff)
	}
}

// TestPowerWrites goes from one state to another (§7.5.2.2).
func TestPowerWrites(t *testing.T) {
	for _, tt := range []struct {
		name  string
		from  PowerState
		write func(*Function)
		want  PowerState
		calls int // of Hooks.Power
	}{
		{"D0 to D3hot", D0, func(f *Function) { f.Write(offPMCSR, u16(3)) }, D3Hot, 1},
		{"D3hot to D0", D3Hot, func(f *Function) { f.Write(offPMCSR, u16(0)) }, D0, 1},
		{"D3hot to D3hot", D3Hot, func(f *Function) { f.Write(offPMCSR, u16(3)) }, D3Hot, 0},
		{"D0 to D1", D0, func(f *Function) { f.Write(offPMCSR, u16(1)) }, D0, 0},
		{"D3hot to D1", D3Hot, func(f *Function) { f.Write(offPMCSR, u16(1)) }, D3Hot, 0},
		{"D3hot to D2", D3Hot, func(f *Function) { f.Write(offPMCSR, u16(2)) }, D3Hot, 0},
		{"PME enable and status", D0, func(f *Function) { f.Write(offPMCSR, u16(0x8100)) }, D0, 0},
		{"high byte", D3Hot, func(f *Function) { f.Write(offPMCSR+1, []byte{0}) }, D3Hot, 0},
		{"capabilities", D3Hot, func(f *Function) { f.Write(offPM, u32(0)) }, D3Hot, 0},
		{"FLR in D3hot", D3Hot, func(f *Function) { f.Write(offDevCtl, u16(devCtlFLR)) }, D0, 0},
		{"conventional reset in D3hot", D3Hot, func(f *Function) { f.Reset(ResetHot) }, D0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			f := newFunction(t, Hooks{Power: func(PowerState) { calls++ }})
			f.Write(offPMCSR, u16(uint16(tt.from)))
			calls = 0
			tt.write(f)
			if got := f.Power(); got != tt.want || calls != tt.calls {
				t.Errorf("%v after %d calls, want %v after %d", got, calls, tt.want, tt.calls)
			}
			got := make([]byte, 4)
			f.Read(offPMCSR, got)
			if diff := cmp.Diff(u32(uint32(tt.want)|pmcsrNoSoftReset), got); diff != "" {
				t.Errorf("Control/Status (-want +got):\n%s", diff)
			}
		})
	}
}
