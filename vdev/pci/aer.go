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
	status, mask, control := f.value[offUncorrStatus/4], f.value[offUncorrMask/4], &f.value[offAERControl/4]

	detected := uint32(devStaNonFatal)
	if f.value[offUncorrSeverity/4]&bit != 0 {
		detected = devStaFatal
	}
	if e == UnsupportedRequest {
		detected |= devStaUnsupp
	}
	f.value[offDevCtl/4] |= detected
	f.value[offUncorrStatus/4] |= bit
	if mask&bit != 0 {
		return
	}
	if status&^mask&(1<<(*control&aerFirstError)) == 0 {
		*control = *control&^aerFirstError | uint32(e)
		copy(f.value[offHeaderLog/4:], header[:])
	}
	if f.value[offCommand/4]&commandSERR != 0 {
		f.value[offCommand/4] |= statusSERR
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
