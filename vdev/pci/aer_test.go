// SPDX-License-Identifier: Apache-2.0

package pci

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func kind(t *testing.T, name string) ErrorKind {
	t.Helper()
	i := slices.IndexFunc(errorKinds, func(k ErrorKind) bool { return k.Name == name })
	if i < 0 {
		t.Fatalf("no error %q", name)
	}
	return errorKinds[i]
}

// TestErrorKinds: every error that the registers have can be injected, but for the one that is
// only a way of reporting.
func TestErrorKinds(t *testing.T) {
	var uncorr, corr uint32
	for _, k := range ErrorKinds() {
		if k.Correctable {
			corr |= 1 << k.Bit
		} else {
			uncorr |= 1 << k.Bit
		}
	}
	if diff := cmp.Diff([]uint32{uncorrErrors, corrErrors &^ (1 << AdvisoryNonFatal)}, []uint32{uncorr, corr}); diff != "" {
		t.Errorf("uncorrectable, correctable (-want +got):\n%s", diff)
	}
}

// TestMessages: which message an error leads to, by severity, masks and what the host wants to
// hear (§6.2.5, §6.2.6). Control is Device Control; by default nothing is enabled, Advisory Non-Fatal
// is masked and Unsupported Request non-fatal.
func TestMessages(t *testing.T) {
	const (
		write = 0x4000_0001
		read  = 0x0000_0001
	)
	fatal := func(f *Function) { f.Write(offUncorrSeverity, u32(uncorrErrors)) }
	masked := func(f *Function) { f.Write(offUncorrMask, u32(uncorrErrors)) }
	unmaskAll := func(f *Function) { f.Write(offCorrMask, u32(0)) }
	serr := func(f *Function) { f.Write(offCommand, u16(commandSERR)) }
	tests := []struct {
		name    string
		before  []func(*Function)
		control uint16
		kind    string
		header  uint32
		want    ErrorMessage
		serr    bool
	}{
		{"nothing enabled", nil, 0, "poisoned-tlp", write, NoMessage, false},
		{"non-fatal", nil, 2, "poisoned-tlp", write, ErrNonFatal, false},
		{"non-fatal, only fatal ones wanted", nil, 4, "poisoned-tlp", write, NoMessage, false},
		{"non-fatal, masked", []func(*Function){masked, serr}, 0xf, "poisoned-tlp", write, NoMessage, false},
		{"non-fatal by SERR# Enable", []func(*Function){serr}, 0, "poisoned-tlp", write, ErrNonFatal, true},
		{"made fatal", []func(*Function){fatal}, 6, "poisoned-tlp", write, ErrFatal, false},
		{"made fatal, only non-fatal ones wanted", []func(*Function){fatal}, 2, "poisoned-tlp", write, NoMessage, false},
		{"fatal", nil, 4, "malformed-tlp", write, ErrFatal, false},
		{"fatal by SERR# Enable", []func(*Function){serr}, 0, "malformed-tlp", write, ErrFatal, true},
		{"unsupported write needs its own enable", nil, 2, "unsupported-request", write, NoMessage, false},
		{"unsupported write", nil, 0xa, "unsupported-request", write, ErrNonFatal, false},
		{"unsupported write by SERR# Enable", []func(*Function){serr}, 0, "unsupported-request", write, ErrNonFatal, true},
		{"unsupported read is advisory, masked", nil, 0xf, "unsupported-request", read, NoMessage, false},
		{"unsupported read", []func(*Function){unmaskAll}, 9, "unsupported-request", read, ErrCor, false},
		{"unsupported read needs both enables", []func(*Function){unmaskAll}, 1, "unsupported-request", read, NoMessage, false},
		{"unsupported read does not signal a system error", []func(*Function){unmaskAll, serr}, 9, "unsupported-request", read, ErrCor, false},
		{"unsupported read made fatal", []func(*Function){fatal}, 0xc, "unsupported-request", read, ErrFatal, false},
		{"unexpected completion is advisory", []func(*Function){unmaskAll}, 3, "unexpected-completion", 0x4a00_0001, ErrCor, false},
		{"completer abort of a read is advisory", []func(*Function){unmaskAll}, 3, "completer-abort", read, ErrCor, false},
		{"completer abort of a write is not", []func(*Function){unmaskAll}, 3, "completer-abort", write, ErrNonFatal, false},
		{"correctable", nil, 1, "bad-tlp", 0, ErrCor, false},
		{"correctable, not wanted", []func(*Function){serr}, 0xe, "bad-tlp", 0, NoMessage, false},
		{"correctable, masked", nil, 1, "corrected-internal", 0, NoMessage, false},
		{"internal error is masked", nil, 0xf, "uncorrectable-internal", 0, NoMessage, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sent []ErrorMessage
			f := newFunction(t, Hooks{Error: func(m ErrorMessage) { sent = append(sent, m) }})
			for _, b := range tt.before {
				b(f)
			}
			f.Write(offDevCtl, u16(tt.control))
			got := f.Inject(kind(t, tt.kind), [4]uint32{tt.header})
			if got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
			var want []ErrorMessage
			if tt.want != NoMessage {
				want = append(want, tt.want)
			}
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Errorf("told the board (-want +got):\n%s", diff)
			}
			if serr := f.value[offCommand/4]&statusSERR != 0; serr != tt.serr {
				t.Errorf("Signaled System Error %t, want %t", serr, tt.serr)
			}
		})
	}
}

// TestStatusOfErrors: the PCI Status register shows what some errors also are (§7.5.1.1.4), and
// ones clear it.
func TestStatusOfErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*Function)
		want uint16
	}{
		{"poisoned", func(f *Function) { f.Inject(kind(t, "poisoned-tlp"), [4]uint32{0x4000_0001}) }, 1 << 15},
		{"completer abort", func(f *Function) { f.Inject(kind(t, "completer-abort"), [4]uint32{1}) }, 1 << 11},
		{"malformed", func(f *Function) { f.Inject(kind(t, "malformed-tlp"), [4]uint32{1}) }, 0},
		{"nobody at the address", func(f *Function) { f.LogCompletion(CompletedUnsupported) }, 1 << 13},
		{"completer failed", func(f *Function) { f.LogCompletion(CompletedAbort) }, 1 << 12},
		{"no completion", func(f *Function) { f.LogCompletion(CompletedNever) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFunction(t, Hooks{})
			tt.do(f)
			got := make([]byte, 2)
			f.Read(6, got)
			if diff := cmp.Diff(u16(tt.want|0x10), got); diff != "" {
				t.Errorf("Status (-want +got):\n%s", diff)
			}
			f.Write(6, u16(0xffff))
			f.Read(6, got)
			if diff := cmp.Diff(u16(0x10), got); diff != "" {
				t.Errorf("after ones were written (-want +got):\n%s", diff)
			}
		})
	}
	f := newFunction(t, Hooks{})
	f.LogCompletion(CompletedNever)
	if got := f.value[offUncorrStatus/4]; got != 1<<CompletionTimeout {
		t.Errorf("no completion: uncorrectable status %#x", got)
	}
}

// TestPosted: what tells a request with a completion from one without, in a header's first doubleword.
func TestPosted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header uint32
		want   bool
	}{
		{"no packet", 0, true},
		{"memory read, 3 doublewords", 0x0000_0001, false},
		{"memory read, 4 doublewords", 0x2000_0001, false},
		{"memory write, 3 doublewords", 0x4000_0001, true},
		{"memory write, 4 doublewords", 0x6000_0001, true},
		{"I/O write", 0x4200_0001, false},
		{"configuration write", 0x4400_0001, false},
		{"message", 0x3000_0000, true},
		{"message with data, to the root complex", 0x7000_0001, true},
		{"completion with data", 0x4a00_0001, false},
		{"FetchAdd", 0x4c00_0001, false},
	} {
		if got := posted([4]uint32{tt.header}); got != tt.want {
			t.Errorf("%s: posted %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestTransactionsPending follows the board, and does not stick.
func TestTransactionsPending(t *testing.T) {
	busy := false
	f := newFunction(t, Hooks{Pending: func() bool { return busy }})
	for _, busy = range []bool{true, false} {
		p := make([]byte, 1)
		f.Write(offDevCtl+2, []byte{0xff})
		f.Read(offDevCtl+2, p)
		if got := p[0]&0x20 != 0; got != busy {
			t.Errorf("Transactions Pending %t, want %t", got, busy)
		}
	}
}
