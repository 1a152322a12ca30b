// SPDX-License-Identifier: Apache-2.0

package npureg

import "fmt"

// Status is a status code of a completion entry or fault record (§9.1).
type Status uint16

// Status codes (§9.1). Codes from 0x40 are program errors, which package core
// names in the same order.
const (
	StatusSuccess            Status = 0x00
	StatusInvalidOpcode      Status = 0x01
	StatusInvalidField       Status = 0x02
	StatusInvalidContext     Status = 0x03
	StatusInvalidQueue       Status = 0x04
	StatusQueueExists        Status = 0x05
	StatusBusy               Status = 0x06
	StatusNoResource         Status = 0x07
	StatusInvalidLogPage     Status = 0x08
	StatusAborted            Status = 0x09
	StatusTimeout            Status = 0x0a
	StatusWaitTimeout        Status = 0x0b
	StatusEngineReset        Status = 0x0c
	StatusBusFault           Status = 0x10
	StatusDeviceFault        Status = 0x11
	StatusInvalidBinding     Status = 0x12
	StatusTranslationFault   Status = 0x13
	StatusContextFaulted     Status = 0x14
	StatusPoison             Status = 0x15
	StatusInvalidDoorbell    Status = 0x20
	StatusQueueDisabled      Status = 0x21
	StatusFirmwareTrap       Status = 0x22
	StatusWatchdog           Status = 0x23
	StatusBadProgram         Status = 0x40
	StatusConfigMismatch     Status = 0x41
	StatusIllegalInstruction Status = 0x42
	StatusReservedField      Status = 0x43
	StatusBadOperand         Status = 0x44
	StatusArrayShape         Status = 0x45
	StatusLocalBounds        Status = 0x46
	StatusBindingIndex       Status = 0x47
	StatusBindingAccess      Status = 0x48
	StatusBindingBounds      Status = 0x49
	StatusBadParam           Status = 0x4a
	StatusMemoryFault        Status = 0x4b
	StatusTokenOverflow      Status = 0x4c
	StatusDeadlock           Status = 0x4d
	StatusNoHalt             Status = 0x4e
	StatusBadSetup           Status = 0x60
	StatusBadControl         Status = 0x61
	StatusBudget             Status = 0x62
	StatusOverlap            Status = 0x63
	StatusBadIndex           Status = 0x64
	StatusBadSparsity        Status = 0x65
)

// A Named is a value that C header and specification know by a name.
type Named struct {
	Name  string
	Value uint32
}

// Statuses lists every status code by the specification's name, ascending.
func Statuses() []Named {
	return []Named{
		{"SUCCESS", uint32(StatusSuccess)},
		{"INVALID_OPCODE", uint32(StatusInvalidOpcode)},
		{"INVALID_FIELD", uint32(StatusInvalidField)},
		{"INVALID_CONTEXT", uint32(StatusInvalidContext)},
		{"INVALID_QUEUE", uint32(StatusInvalidQueue)},
		{"QUEUE_EXISTS", uint32(StatusQueueExists)},
		{"BUSY", uint32(StatusBusy)},
		{"NO_RESOURCE", uint32(StatusNoResource)},
		{"INVALID_LOG_PAGE", uint32(StatusInvalidLogPage)},
		{"ABORTED", uint32(StatusAborted)},
		{"TIMEOUT", uint32(StatusTimeout)},
		{"WAIT_TIMEOUT", uint32(StatusWaitTimeout)},
		{"ENGINE_RESET", uint32(StatusEngineReset)},
		{"BUS_FAULT", uint32(StatusBusFault)},
		{"DEVICE_FAULT", uint32(StatusDeviceFault)},
		{"INVALID_BINDING", uint32(StatusInvalidBinding)},
		{"TRANSLATION_FAULT", uint32(StatusTranslationFault)},
		{"CONTEXT_FAULTED", uint32(StatusContextFaulted)},
		{"POISON", uint32(StatusPoison)},
		{"INVALID_DOORBELL", uint32(StatusInvalidDoorbell)},
		{"QUEUE_DISABLED", uint32(StatusQueueDisabled)},
		{"FIRMWARE_TRAP", uint32(StatusFirmwareTrap)},
		{"WATCHDOG", uint32(StatusWatchdog)},
		{"BAD_PROGRAM", uint32(StatusBadProgram)},
		{"CONFIG_MISMATCH", uint32(StatusConfigMismatch)},
		{"ILLEGAL_INSTRUCTION", uint32(StatusIllegalInstruction)},
		{"RESERVED_FIELD", uint32(StatusReservedField)},
		{"BAD_OPERAND", uint32(StatusBadOperand)},
		{"ARRAY_SHAPE", uint32(StatusArrayShape)},
		{"LOCAL_BOUNDS", uint32(StatusLocalBounds)},
		{"BINDING_INDEX", uint32(StatusBindingIndex)},
		{"BINDING_ACCESS", uint32(StatusBindingAccess)},
		{"BINDING_BOUNDS", uint32(StatusBindingBounds)},
		{"BAD_PARAM", uint32(StatusBadParam)},
		{"MEMORY_FAULT", uint32(StatusMemoryFault)},
		{"TOKEN_OVERFLOW", uint32(StatusTokenOverflow)},
		{"DEADLOCK", uint32(StatusDeadlock)},
		{"NO_HALT", uint32(StatusNoHalt)},
		{"BAD_SETUP", uint32(StatusBadSetup)},
		{"BAD_CONTROL", uint32(StatusBadControl)},
		{"BUDGET", uint32(StatusBudget)},
		{"OVERLAP", uint32(StatusOverlap)},
		{"BAD_INDEX", uint32(StatusBadIndex)},
		{"BAD_SPARSITY", uint32(StatusBadSparsity)},
	}
}

// String returns the specification's name.
func (s Status) String() string {
	for _, n := range Statuses() {
		if n.Value == uint32(s) {
			return n.Name
		}
	}
	return fmt.Sprintf("STATUS_0x%02x", uint16(s))
}

// Admin opcodes (§4.4).
const (
	AdminIdentify       = 0x01
	AdminGetLogPage     = 0x02
	AdminCreateContext  = 0x10
	AdminDestroyContext = 0x11
	AdminInvalidateTLB  = 0x12
	AdminCreateQueue    = 0x20
	AdminDestroyQueue   = 0x21
	AdminModifyQueue    = 0x22
	AdminSuspendQueue   = 0x23
	AdminResumeQueue    = 0x24
	AdminResetEngine    = 0x30
	AdminSetThreshold   = 0x31
)

// User opcodes (§4.9, §4.10, §4.17, §4.18).
const (
	CmdNop    = 0x01
	CmdCopy   = 0x02
	CmdLaunch = 0x03
	CmdWait   = 0x04
	CmdSignal = 0x05
)

// Queues of architecture 1.2 (§4.12, §4.15, §4.19).
const (
	QueuePriorities = 4
	QueueSharedCQ   = 1 << 0 // flag SHARED_CQ of CREATE_QUEUE
	LogQueues       = 8      // log page
	QueueStatusSize = 64
)

// Sizes of entries (§4.2, §7.3) and limits (§4.1, §4.4, §4.9).
const (
	SQEntrySize = 64
	CQEntrySize = 32
	BindingSize = 32

	LaunchProfile   = 1 << 0 // PROFILE, flag of LAUNCH (§13.8.4)
	LaunchArguments = 1 << 1 // ARGUMENTS, another (§4.9)
	ProfileSize     = 400    // of a profile record
	ProfileTimed    = 1 << 0 // its flag: there is model time
	MaxBindings     = 64
	MaxAdminEntries = 256
)

// Sources of a fault record, FAULT_INFO.SOURCE (§9.3).
const (
	FaultDoorbell = 0
	FaultFetch    = 1
	FaultPost     = 2
	FaultCP       = 3
	FaultMMU      = 4
)

// Page tables (§11.2): the size of a table and of the pages of level 1, and the bits of an entry.
const (
	PageSize     = 4096
	VirtualLimit = 1 << 48 // first address that is none

	EntryValid      = 1 << 0
	EntryRead       = 1 << 1
	EntryWrite      = 1 << 2
	EntryExecute    = 1 << 3
	EntrySpaceShift = 4 // SPACE, bits 7:4
	EntryLeaf       = 1 << 8
	EntryReserved   = 3 << 9 // bits 10:9; bit 11 is software's
	EntryAddress    = ^uint64(PageSize - 1)
)

// Flags of CREATE_CONTEXT (§4.6).
const (
	ContextTranslated = 1 << 0
	ContextSpaceShift = 4 // space of the root table, bits 7:4
)

// What a device MMU fault says: FAULT_CONTEXT's ENGINE, ACCESS and REASON (§11.5).
const (
	FaultByCommand = 0 // command processor: program, binding table
	FaultByDMA     = 1 // COPY
	FaultByLoad    = 2 // the core's LOAD
	FaultByStore   = 3 // the core's STORE

	AccessRead    = 1
	AccessWrite   = 2
	AccessExecute = 3

	ReasonNotPresent = 1
	ReasonPermission = 2
	ReasonReserved   = 3
	ReasonTable      = 4
	ReasonTarget     = 5
	ReasonRange      = 6
)

// The fault log, log page 3 (§11.6).
const (
	FaultLogHeader  = 16
	FaultLogRecord  = 48
	FaultLogRecords = 64
)

// A Group is a set of named values for the C header.
type Group struct {
	Prefix, Doc string
	Values      []Named
}

// Groups returns the enumerations that driver and firmware share.
func Groups() []Group {
	return append([]Group{
		{"NPU_", "Identity and geometry (§1, §2.1).", []Named{
			{"MAGIC", Magic}, {"ARCH_MAJOR", ArchMajor}, {"ARCH_MINOR", ArchMinor}, {"FIRMWARE_MAJOR", FirmwareMajor}, {"FIRMWARE_MINOR", FirmwareMinor},
			{"BAR0_SIZE", BAR0Size}, {"DOORBELL_SQ_TAIL", DoorbellSQTail}, {"DOORBELL_CQ_HEAD", DoorbellCQHead},
			{"SQ_ENTRY_SIZE", SQEntrySize}, {"CQ_ENTRY_SIZE", CQEntrySize}, {"BINDING_SIZE", BindingSize}, {"LAUNCH_PROFILE", LaunchProfile}, {"LAUNCH_ARGUMENTS", LaunchArguments}, {"PROFILE_SIZE", ProfileSize}, {"PROFILE_TIMED", ProfileTimed},
			{"MAX_BINDINGS", MaxBindings}, {"MAX_ADMIN_ENTRIES", MaxAdminEntries}}},
		{"NPU_SHADOW_", "Shadow doorbells (§4.11).", []Named{{"SIZE", ShadowSize}, {"SQ_TAIL", ShadowSQTail}, {"CQ_HEAD", ShadowCQHead},
			{"RING", ShadowRing}, {"RING_SQ_TAIL", RingSQTail}, {"RING_CQ_HEAD", RingCQHead}}},
		{"NPU_BOOT_STATE_", "Boot states (§3.2).", []Named{
			{"OFF", BootOff}, {"WAITING", BootWaiting}, {"LOADING", BootLoading}, {"STARTING", BootStarting}, {"READY", BootReady}, {"FAILED", BootFailed}}},
		{"NPU_BOOT_ERROR_", "Boot errors (§3.5).", []Named{
			{"NONE", BootErrNone}, {"SIZE", BootErrSize}, {"FETCH", BootErrFetch}, {"MAGIC", BootErrMagic}, {"HEADER", BootErrHeader},
			{"HEADER_CRC", BootErrHeaderCRC}, {"PAYLOAD_CRC", BootErrPayloadCRC}, {"INTERFACE", BootErrInterface}, {"ARCH", BootErrArch},
			{"RANGE", BootErrRange}, {"TIMEOUT", BootErrTimeout}, {"TRAP", BootErrTrap}, {"WATCHDOG", BootErrWatchdog}}},
		{"NPU_ADMIN_", "Admin opcodes (§4.4).", []Named{
			{"IDENTIFY", AdminIdentify}, {"GET_LOG_PAGE", AdminGetLogPage}, {"CREATE_CONTEXT", AdminCreateContext},
			{"DESTROY_CONTEXT", AdminDestroyContext}, {"INVALIDATE_TLB", AdminInvalidateTLB},
			{"CREATE_QUEUE", AdminCreateQueue}, {"DESTROY_QUEUE", AdminDestroyQueue},
			{"MODIFY_QUEUE", AdminModifyQueue}, {"SUSPEND_QUEUE", AdminSuspendQueue}, {"RESUME_QUEUE", AdminResumeQueue},
			{"RESET_ENGINE", AdminResetEngine}, {"SET_THRESHOLD", AdminSetThreshold}}},
		{"NPU_CMD_", "User opcodes (§4.9, §4.10).", []Named{{"NOP", CmdNop}, {"COPY", CmdCopy}, {"LAUNCH", CmdLaunch}, {"WAIT", CmdWait}, {"SIGNAL", CmdSignal}}},
		{"NPU_QUEUE_", "Queues of architecture 1.2 (§4.12, §4.15, §4.19).", []Named{{"PRIORITIES", QueuePriorities}, {"SHARED_CQ", QueueSharedCQ},
			{"LOG_PAGE", LogQueues}, {"STATUS_SIZE", QueueStatusSize}, {"FLAG_WAITING", QueueFlagWaiting}, {"FLAG_IN_FLIGHT", QueueFlagInFlight}, {"FLAG_TIMED_OUT", QueueFlagTimedOut}}},
		{"NPU_FAULT_SOURCE_", "Sources of a fault record (§9.3).", []Named{
			{"DOORBELL", FaultDoorbell}, {"FETCH", FaultFetch}, {"POST", FaultPost}, {"CP", FaultCP}, {"MMU", FaultMMU}}},
		{"NPU_PAGE_", "Page tables (§11.2).", []Named{{"SIZE", PageSize}, {"VALID", EntryValid}, {"READ", EntryRead}, {"WRITE", EntryWrite},
			{"EXECUTE", EntryExecute}, {"SPACE_SHIFT", EntrySpaceShift}, {"LEAF", EntryLeaf}}},
		{"NPU_CONTEXT_", "Flags of CREATE_CONTEXT (§4.6).", []Named{{"TRANSLATED", ContextTranslated}, {"SPACE_SHIFT", ContextSpaceShift}}},
		{"NPU_FAULT_ENGINE_", "Engines in FAULT_CONTEXT (§11.5).", []Named{
			{"COMMAND", FaultByCommand}, {"DMA", FaultByDMA}, {"LOAD", FaultByLoad}, {"STORE", FaultByStore}}},
		{"NPU_FAULT_ACCESS_", "Accesses in FAULT_CONTEXT (§11.5).", []Named{{"READ", AccessRead}, {"WRITE", AccessWrite}, {"EXECUTE", AccessExecute}}},
		{"NPU_FAULT_REASON_", "Reasons in FAULT_CONTEXT (§11.5).", []Named{{"NOT_PRESENT", ReasonNotPresent}, {"PERMISSION", ReasonPermission},
			{"RESERVED", ReasonReserved}, {"TABLE", ReasonTable}, {"TARGET", ReasonTarget}, {"RANGE", ReasonRange}}},
		{"NPU_FAULT_LOG_", "The fault log (§11.6).", []Named{{"HEADER", FaultLogHeader}, {"RECORD", FaultLogRecord}, {"RECORDS", FaultLogRecords}}},
		{"NPU_COUNTER_", "Counters (§4.7).", []Named{
			{"COMMANDS", CounterCommands}, {"ERRORS", CounterErrors}, {"PROGRAMS", CounterPrograms}, {"INSTRUCTIONS", CounterInstructions},
			{"MACS", CounterMACs}, {"DMA_READ", CounterDMARead}, {"DMA_WRITTEN", CounterDMAWritten}, {"INTERRUPTS", CounterInterrupts},
			{"DOORBELLS", CounterDoorbells}, {"FAULTS", CounterFaults}, {"COPIES", CounterCopies}, {"ADMIN", CounterAdmin}, {"SHADOW", CounterShadow},
			{"TLB_HITS", CounterTLBHits}, {"TLB_MISSES", CounterTLBMisses}, {"TRANSLATION_FAULTS", CounterTranslationFaults},
			{"WAITS", CounterWaits}, {"SIGNALS", CounterSignals}, {"QUEUE_TIMEOUTS", CounterQueueTimeouts}, {"COALESCED", CounterCoalesced},
			{"ECC_CORRECTED", CounterECCCorrected}, {"ECC_UNCORRECTED", CounterECCUncorrected}, {"ENGINE_RESETS", CounterEngineResets}, {"COUNT", CounterCount}}},
		{"NPU_STATUS_", "Status codes (§9.1).", Statuses()},
	}, rasGroups()...)
}

// CPGroups returns what only firmware needs.
func CPGroups() []Group {
	return []Group{
		{"NPU_CP_", "Address map of the control processor (§3.6).", []Named{
			{"ROM_BASE", CPROMBase}, {"ROM_SIZE", CPROMSize}, {"SRAM_BASE", CPSRAMBase}, {"SRAM_SIZE", CPSRAMSize},
			{"REG_BASE", CPRegBase}, {"HOST_BASE", CPHostBase}}},
		{"NPU_CP_MOVER_", "Mover (§3.10).", []Named{{"READ", MoverRead}, {"WRITE", MoverWrite},
			{"IDLE", MoverIdle}, {"BUSY", MoverBusy}, {"FAULT", MoverFault}, {"RANGE", MoverRange}}},
		{"NPU_CP_QUEUE_", "User queues (§4.8).", []Named{{"ENABLE", QueueControlEnable}, {"DISABLE", QueueControlDisable},
			{"SUSPEND", QueueControlSuspend}, {"RESUME", QueueControlResume}, {"MODIFY", QueueControlModify},
			{"STATE_DISABLED", QueueDisabled}, {"STATE_ENABLED", QueueEnabled}, {"STATE_DRAINING", QueueDraining}, {"STATE_ERROR", QueueError},
			{"STATE_SUSPENDED", QueueSuspended}, {"STATE_SUSPENDING", QueueSuspending},
			{"LIMIT", MaxQueues}}},
		{"NPU_CP_MMU_", "Device MMU (§11.7).", []Named{{"TRANSLATE", MMUTranslate}, {"REMOVE", MMURemove},
			{"INVALIDATE", MMUInvalidate}, {"INVALIDATE_ALL", MMUInvalidateAll}}},
	}
}
