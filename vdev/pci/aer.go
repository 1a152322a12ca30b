// SPDX-License-Identifier: Apache-2.0

package pci

import "slices"

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

// ErrorKind is an error that the function can be made to have. Advisory Non-Fatal is none:
// it is how some uncorrectable errors are reported.
type ErrorKind struct {
	Name        string // for operators
	Correctable bool
	Bit         uint8 // Uncorrectable or Correctable
	Packet      bool  // is about a packet, whose header is logged
}

var errorKinds = []ErrorKind{
	{"data-link-protocol", false, uint8(DataLinkProtocol), false},
	{"poisoned-tlp", false, uint8(PoisonedTLP), true},
	{"flow-control", false, uint8(FlowControl), false},
	{"completion-timeout", false, uint8(CompletionTimeout), false},
	{"completer-abort", false, uint8(CompleterAbort), true},
	{"unexpected-completion", false, uint8(UnexpectedCompletion), true},
	{"receiver-overflow", false, uint8(ReceiverOverflow), false},
	{"malformed-tlp", false, uint8(MalformedTLP), true},
	{"unsupported-request", false, uint8(UnsupportedRequest), true},
	{"uncorrectable-internal", false, uint8(UncorrectableInternal), false},
	{"receiver-error", true, uint8(ReceiverError), false},
	{"bad-tlp", true, uint8(BadTLP), false},
	{"bad-dllp", true, uint8(BadDLLP), false},
	{"replay-rollover", true, uint8(ReplayRollover), false},
	{"replay-timeout", true, uint8(ReplayTimeout), false},
	{"corrected-internal", true, uint8(CorrectedInternal), false},
}

// ErrorKinds lists the errors that Inject takes.
func ErrorKinds() []ErrorKind { return slices.Clone(errorKinds) }

// ErrorMessage is what a function tells the root complex of an error (§6.2.4.3).
type ErrorMessage uint8

const (
	// NoMessage: the error is masked, or its reporting is not enabled.
	NoMessage ErrorMessage = iota
	ErrCor
	ErrNonFatal
	ErrFatal
)

func (m ErrorMessage) String() string {
	return [...]string{"no message", "ERR_COR", "ERR_NONFATAL", "ERR_FATAL"}[m]
}

// Inject makes the function have an error, as the hardware that detects it would. header
// is the packet's first four doublewords if k.Packet, and zero otherwise. It returns the
// message that the error leads to.
func (f *Function) Inject(k ErrorKind, header [4]uint32) ErrorMessage {
	if k.Correctable {
		return f.LogCorrectable(Correctable(k.Bit))
	}
	e := Uncorrectable(k.Bit)
	switch e {
	case PoisonedTLP:
		f.value[offCommand/4] |= statusParity
	case CompleterAbort:
		f.value[offCommand/4] |= statusSignaledAbort
	}
	// An unexpected completion, and a request that is answered by a completion which says
	// what is wrong, are advisory (§6.2.3.2.4.1, §6.2.3.2.4.5).
	advisory := e == UnexpectedCompletion || (e == CompleterAbort || e == UnsupportedRequest) && !posted(header)
	return f.LogUncorrectable(e, header, advisory)
}

// posted reports whether a packet is a request without a completion: a memory write or
// a message (§2.2.1). No packet counts as one.
func posted(header [4]uint32) bool {
	format, kind := header[0]>>29, header[0]>>24&0x1f
	return header == [4]uint32{} || format&2 != 0 && kind == 0 || kind>>3 == 2
}

// LogUncorrectable records e as §6.2.5 requires: in Device Status, in the AER
// status and, if e is not masked and no earlier error holds them, in the
// First Error Pointer and the header log. header is the packet's first four
// doublewords, zero if there was none.
//
// advisory says that this case of e is one of those of §6.2.3.2.4: unless its severity is
// fatal it is then a correctable error, and the uncorrectable status and header are recorded
// only if Advisory Non-Fatal Error is not masked, as by default it is.
//
// The message that it returns went to [Hooks].Error. No transport carries it to a root
// complex.
func (f *Function) LogUncorrectable(e Uncorrectable, header [4]uint32, advisory bool) ErrorMessage {
	bit := uint32(1) << e
	if bit&uncorrErrors == 0 {
		panic("pci: BUG: uncorrectable error that the function does not implement")
	}
	control := f.value[offDevCtl/4]
	detected, enable, message := uint32(devStaNonFatal), uint32(devCtlNonFatal), ErrNonFatal
	fatal := f.value[offUncorrSeverity/4]&bit != 0 || f.virtual && uncorrFatal&bit != 0
	switch {
	case fatal:
		detected, enable, message = devStaFatal, devCtlFatal, ErrFatal
	case advisory:
		detected, enable, message = devStaCorr, devCtlCorr, ErrCor
	}
	if e == UnsupportedRequest {
		detected |= devStaUnsupp
		enable |= devCtlUnsupp
	}
	f.value[offDevCtl/4] |= detected
	if f.virtual {
		return NoMessage // it has no AER, and what is reported is the physical function's matter
	}

	reported := control&enable == enable
	if message == ErrCor {
		f.value[offCorrStatus/4] |= 1 << AdvisoryNonFatal
		if f.value[offCorrMask/4]&(1<<AdvisoryNonFatal) != 0 {
			return NoMessage
		}
		f.record(e, header)
	} else {
		f.record(e, header)
		if f.value[offUncorrMask/4]&bit != 0 {
			return NoMessage
		}
		if f.value[offCommand/4]&commandSERR != 0 {
			f.value[offCommand/4] |= statusSERR
			reported = true
		}
	}
	return f.send(message, reported)
}

// send tells the board of a message if the host wants it to be sent.
func (f *Function) send(m ErrorMessage, enabled bool) ErrorMessage {
	if !enabled {
		return NoMessage
	}
	if f.hooks.Error != nil {
		f.hooks.Error(m)
	}
	return m
}

// record sets e in the AER status and, unless it is masked or an earlier error holds
// them, First Error Pointer and header log. The error that it records holds them until the host
// clears its status.
func (f *Function) record(e Uncorrectable, header [4]uint32) {
	bit := uint32(1) << e
	f.value[offUncorrStatus/4] |= bit
	if f.value[offUncorrMask/4]&bit != 0 || f.aerHeld {
		return
	}
	f.aerHeld = true
	control := &f.value[offAERControl/4]
	*control = *control&^aerFirstError | uint32(e)
	copy(f.value[offHeaderLog/4:], header[:])
}

// releaseLog lets the next error have the log if the host cleared the status of the one that has it.
func (f *Function) releaseLog() {
	first := f.value[offAERControl/4] & aerFirstError
	f.aerHeld = f.aerHeld && f.value[offUncorrStatus/4]&(1<<first) != 0
}

// LogCorrectable records e in Device Status and in the AER status. The message that it
// returns went to [Hooks].Error.
func (f *Function) LogCorrectable(e Correctable) ErrorMessage {
	bit := uint32(1) << e
	if bit&corrErrors == 0 {
		panic("pci: BUG: correctable error that the function does not implement")
	}
	f.value[offDevCtl/4] |= devStaCorr
	if f.virtual {
		return NoMessage
	}
	f.value[offCorrStatus/4] |= bit
	return f.send(ErrCor, f.value[offCorrMask/4]&bit == 0 && f.value[offDevCtl/4]&devCtlCorr != 0)
}

// Completion is how a memory read of the function ended.
type Completion uint8

const (
	// CompletedUnsupported: a completion said that nobody answers this address.
	CompletedUnsupported Completion = iota
	// CompletedAbort: a completion said that the completer failed.
	CompletedAbort
	// CompletedNever: no completion came in time.
	CompletedNever
)

// LogCompletion records that a read of the function failed: Received Master Abort,
// Received Target Abort (§7.5.1.1.4), or Completion Timeout.
func (f *Function) LogCompletion(c Completion) {
	switch c {
	case CompletedUnsupported:
		f.value[offCommand/4] |= statusMasterAbort
	case CompletedAbort:
		f.value[offCommand/4] |= statusTargetAbort
	case CompletedNever:
		f.LogUncorrectable(CompletionTimeout, [4]uint32{}, false)
	}
}

// ErrorLog is what configuration space says of errors.
type ErrorLog struct {
	Device        uint16 // Device Status, without Transactions Pending
	Uncorrectable uint32
	Correctable   uint32
	FirstError    uint8
	Header        [4]uint32
}

// Errors returns what was logged and not cleared.
func (f *Function) Errors() ErrorLog {
	return ErrorLog{
		Device:        uint16(f.value[offDevCtl/4] >> 16),
		Uncorrectable: f.value[offUncorrStatus/4],
		Correctable:   f.value[offCorrStatus/4],
		FirstError:    uint8(f.value[offAERControl/4] & aerFirstError),
		Header:        [4]uint32(f.value[offHeaderLog/4:]),
	}
}

// maxLogged is the largest request that a header log shows, in bytes: what every
// Max_Payload_Size allows. A host sends a larger access as several, of which the first is
// logged.
const maxLogged = 128

// LogUnsupported records that the host's access to n bytes at off of a BAR was an
// unsupported request. A read is advisory: its requester learns of it by the completion.
func (f *Function) LogUnsupported(bar int, off uint64, n int, write bool) {
	if n != 0 {
		f.LogUncorrectable(UnsupportedRequest, f.requestHeader(bar, off, n, write), !write)
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
