// SPDX-License-Identifier: Apache-2.0

package pci

// Uncorrectable is an uncorrectable error: its bit in the status, mask and
// severity registers (§7.8.4.2).
type Uncorrectable uint8

const (
	DataLinkProtocol      Uncorrectable = 4
	PoisonedTLP           Uncorrectable = 12
	FlowControl           Uncorrectable = 13
	CompletionTimeout     Uncorrectable = 14
	CompleterAbort        Uncorrectable = 15
	UnexpectedCompletion  Uncorrectable = 16
	ReceiverOverflow      Uncorrectable = 17
	MalformedTLP          Uncorrectable = 18
	UnsupportedRequest    Uncorrectable = 20
	UncorrectableInternal Uncorrectable = 22
)

// Correctable is a correctable error: its bit in the status and mask registers
// (§7.8.4.5).
type Correctable uint8

const (
	ReceiverError     Correctable = 0
	BadTLP            Correctable = 6
	BadDLLP           Correctable = 7
	ReplayRollover    Correctable = 8
	ReplayTimeout     Correctable = 12
	AdvisoryNonFatal  Correctable = 13
	CorrectedInternal Correctable = 14
)

// LogUncorrectable records e as §6.2.5 requires: in Device Status, in the AER
// status and, if e is not masked and no earlier error is still recorded there, in the
// First Error Pointer and the header log. header is the packet's first four
// doublewords, zero if there was none.
//
// No message goes to the root complex: no transport carries one.
func (f *Function) LogUncorrectable(e Uncorrectable, header [4]uint32) {
	bit := uint32(1) << e
	if bit&uncorrErrors == 0 {
		panic("pci: BUG: uncorrectable error that the function does not implement")
	}
	detected := uint32(devStaNonFatal)
	if f.value[offUncorrSeverity/4]&bit != 0 {
		detected = devStaFatal
	}
	if e == UnsupportedRequest {
		detected |= devStaUnsupp
	}
	f.value[offDevCtl/4] |= detected
	f.record(e, header)
	if f.value[offUncorrMask/4]&bit == 0 && f.value[offCommand/4]&commandSERR != 0 {
		f.value[offCommand/4] |= statusSERR
	}
}

// record sets e in the AER status and, unless it is masked or an earlier error holds
// them, First Error Pointer and header log.
func (f *Function) record(e Uncorrectable, header [4]uint32) {
	bit := uint32(1) << e
	mask, status, control := f.value[offUncorrMask/4], &f.value[offUncorrStatus/4], &f.value[offAERControl/4]
	first := uint32(1) << (*control & aerFirstError)
	held := *status&^mask&first != 0
	*status |= bit
	if mask&bit == 0 && !held {
		*control = *control&^aerFirstError | uint32(e)
		copy(f.value[offHeaderLog/4:], header[:])
	}
}

// LogCorrectable records e in Device Status and in the AER status.
func (f *Function) LogCorrectable(e Correctable) {
	bit := uint32(1) << e
	if bit&corrErrors == 0 {
		panic("pci: BUG: correctable error that the function does not implement")
	}
	f.value[offDevCtl/4] |= devStaCorr
	f.value[offCorrStatus/4] |= bit
}

// maxLogged is the largest request that a header log shows, in bytes: what every
// Max_Payload_Size allows. A host sends a larger access as several, of which the first is
// logged.
const maxLogged = 128

// LogUnsupported records that the host's access to n bytes at off of a BAR was an
// unsupported request. A write is an uncorrectable error. A read, whose
// requester learns of it by the completion, is an advisory non-fatal error unless the
// severity of unsupported requests is fatal (§6.2.3.2.4.1): the uncorrectable status and the header
// are then recorded only if Advisory Non-Fatal Error is not masked, as by default it is.
func (f *Function) LogUnsupported(bar int, off uint64, n int, write bool) {
	if n == 0 {
		return
	}
	header := f.requestHeader(bar, off, n, write)
	if write || f.value[offUncorrSeverity/4]&(1<<UnsupportedRequest) != 0 {
		f.LogUncorrectable(UnsupportedRequest, header)
		return
	}
	f.LogCorrectable(AdvisoryNonFatal)
	f.value[offDevCtl/4] |= devStaUnsupp
	if f.value[offCorrMask/4]&(1<<AdvisoryNonFatal) == 0 {
		f.record(UnsupportedRequest, header)
	}
}

// requestHeader returns the packet header of a memory request (§2.2.7) from the
// root complex, requester 00:00.0, tag 0.
func (f *Function) requestHeader(bar int, off uint64, n int, write bool) [4]uint32 {
	const write3, long = 0x40 << 24, 0x20 << 24 // memory write; header of four doublewords
	at := offBAR0/4 + bar
	addr := uint64(f.value[at+1])<<32 | uint64(f.value[at]&^0xf)
	addr += off
	size := min(uint64(n), maxLogged-addr%maxLogged)
	skip := addr % 4
	length := uint32((skip + size + 3) / 4)
	first, last := uint32(0xf)<<skip&0xf, uint32(0xf)>>(uint64(length)*4-skip-size)
	if length == 1 {
		first, last = first&last, 0
	}
	h := [4]uint32{length, last<<4 | first, uint32(addr) &^ 3}
	if write {
		h[0] |= write3
	}
	if addr>>32 != 0 {
		h[0] |= long
		h[2], h[3] = uint32(addr>>32), uint32(addr)&^3
	}
	return h
}
