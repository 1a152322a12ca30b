// SPDX-License-Identifier: Apache-2.0

// Package npureg is the one register table of the NPU, architecture 1.6: the
// host's registers in BAR0 (Host) and the control processor's own (CP).
//
// The banks of the device, the C header of driver and firmware, and the page
// docs/spec/registers.md come from these tables (make generate); nothing else
// states an offset. Go constants have Go names, the specification's name
// stands in the table.
package npureg

import "npuemu/mmio"

// Identity of the architecture and of the firmware interface.
const (
	Magic     = 0x4555504e // ID register: "NPUE"
	ArchMajor = 1
	ArchMinor = 6
	// Firmware interface that the boot ROM of this architecture accepts.
	FirmwareMajor = 1
	FirmwareMinor = 2 // of the firmware in this tree
)

// Feature bits, FEATURES_LO (§2.1).
const (
	FeatureShadowDoorbells = 1 << 0  // SHADOW_DOORBELLS, architecture 1.1
	FeatureMMU             = 1 << 1  // MMU, architecture 1.2
	FeatureQueueControl    = 1 << 2  // QUEUE_CONTROL, architecture 1.2
	FeatureTimelines       = 1 << 3  // TIMELINES, architecture 1.2
	FeatureRAS             = 1 << 4  // RAS, architecture 1.2
	FeatureGEMM            = 1 << 5  // GEMM, architecture 1.3
	FeatureFloat           = 1 << 6  // FLOAT, architecture 1.3
	FeatureControl         = 1 << 7  // CONTROL, architecture 1.3
	FeatureVector          = 1 << 8  // VECTOR, architecture 1.3
	FeatureReduce          = 1 << 9  // REDUCE, architecture 1.3
	FeaturePool            = 1 << 10 // POOL, architecture 1.4
	FeatureSparse          = 1 << 11 // SPARSE, architecture 1.4
	FeatureMX              = 1 << 12 // MX, architecture 1.4
	FeatureTiming          = 1 << 13 // TIMING, architecture 1.4
	FeatureGather          = 1 << 14 // GATHER, architecture 1.4
	FeatureQuant           = 1 << 15 // QUANT, architecture 1.4
	FeatureAddq            = 1 << 16 // ADDQ, architecture 1.5
	FeatureArguments       = 1 << 17 // ARGUMENTS, architecture 1.6
	FeatureMismatch        = 1 << 18 // MISMATCH, architecture 1.6
)

// A shadow line (§4.11): its size and alignment, the offsets of its words, and
// the bits of RING.
const (
	ShadowSize   = 64
	ShadowSQTail = 0x0 // SQ_TAIL
	ShadowCQHead = 0x4 // CQ_HEAD
	ShadowRing   = 0x8 // RING

	RingSQTail = 1 << 0 // a store of SQ_TAIL needs a doorbell
	RingCQHead = 1 << 1 // a store of CQ_HEAD needs a doorbell
)

// Geometry of BAR0 (§1.2). Queue q has its doorbell page at
// DoorbellBase + q·DoorbellStride; queue 0 is the admin queue.
const (
	BAR0Size       = 0x100000
	HostBankSize   = 0x1000
	DoorbellBase   = 0x80000
	DoorbellStride = 0x1000
	DoorbellSQTail = 0x0 // SQ_TAIL
	DoorbellCQHead = 0x4 // CQ_HEAD
	MaxQueues      = 128 // doorbell pages that fit behind DoorbellBase
)

// Host registers (BAR0, first page).
const (
	ID             = 0x000
	ArchVersion    = 0x004
	FeaturesLo     = 0x008
	FeaturesHi     = 0x00c
	ArrayDim       = 0x010
	SpadSize       = 0x014
	AccSize        = 0x018
	QueueParam     = 0x01c
	ContextParam   = 0x020
	DRAMSizeLo     = 0x024
	DRAMSizeHi     = 0x028
	EngineParam    = 0x02c
	DoorbellOffset = 0x030
	DoorbellParam  = 0x034
	VectorCount    = 0x038

	DeviceControl = 0x100
	DeviceStatus  = 0x104

	BootControl   = 0x140
	BootStatus    = 0x144
	ImageAddrLo   = 0x148
	ImageAddrHi   = 0x14c
	ImageSize     = 0x150
	BootTimeout   = 0x154
	FWVersion     = 0x158
	FWBuild       = 0x15c
	FWErrorDetail = 0x160

	ASQBaseLo   = 0x180
	ASQBaseHi   = 0x184
	ACQBaseLo   = 0x188
	ACQBaseHi   = 0x18c
	AQSize      = 0x190
	AQControl   = 0x194
	IRQStatus   = 0x1c0
	IRQEnable   = 0x1c4
	FaultStatus = 0x200
	FaultInfo   = 0x204
	FaultAddrLo = 0x208
	FaultAddrHi = 0x20c

	FaultContext = 0x210
	FaultCommand = 0x214
	FaultVALo    = 0x218
	FaultVAHi    = 0x21c
	CrashStatus  = 0x240
	CrashSize    = 0x244
	CrashSelect  = 0x248
	CrashData    = 0x24c
	TimeLo       = 0x280
	TimeHi       = 0x284
	TimeClock    = 0x288
)

// Bits of host registers.
const (
	DeviceControlReset = 1 << 0

	DeviceStatusReady     = 1 << 0
	DeviceStatusResetting = 1 << 1
	DeviceStatusFailed    = 1 << 2

	BootControlStart = 1 << 0

	AQControlEnable = 1 << 0

	IRQAdmin    = 1 << 0 // ADMIN
	IRQBoot     = 1 << 1 // BOOT
	IRQFault    = 1 << 2 // FAULT
	IRQFirmware = 1 << 3 // FIRMWARE
	IRQQueue    = 1 << 4 // QUEUE
	IRQError    = 1 << 5 // ERROR, architecture 1.2
	IRQAll      = IRQAdmin | IRQBoot | IRQFault | IRQFirmware | IRQQueue | IRQError

	FaultValid    = 1 << 0
	FaultOverflow = 1 << 1

	CrashValid = 1 << 0
)

// Boot states, BOOT_STATUS.STATE (§3.2).
const (
	BootOff      = 0
	BootWaiting  = 1
	BootLoading  = 2
	BootStarting = 3
	BootReady    = 4
	BootFailed   = 5
)

// Boot errors, BOOT_STATUS.ERROR (§3.5).
const (
	BootErrNone       = 0
	BootErrSize       = 1
	BootErrFetch      = 2
	BootErrMagic      = 3
	BootErrHeader     = 4
	BootErrHeaderCRC  = 5
	BootErrPayloadCRC = 6
	BootErrInterface  = 7
	BootErrArch       = 8
	BootErrRange      = 9
	BootErrTimeout    = 10
	BootErrTrap       = 11
	BootErrWatchdog   = 12
)

// Control-processor registers (§3.6), offsets from CPRegBase.
const (
	CPIRQPending     = 0x000
	CPIRQEnable      = 0x004
	CPIRQClear       = 0x008
	CPBootStatus     = 0x010
	CPFWVersion      = 0x014
	CPFWBuild        = 0x018
	CPFWErrorDetail  = 0x01c
	CPWatchdogPeriod = 0x020
	CPWatchdogKick   = 0x024
	CPHostEvent      = 0x028
	CPConsole        = 0x030
	CPTimeLo         = 0x040
	CPTimeHi         = 0x044
	CPTimeCmpLo      = 0x048
	CPTimeCmpHi      = 0x04c
	CPFaultAddrLo    = 0x050
	CPFaultAddrHi    = 0x054
	CPFaultInfo      = 0x058
	CPFaultCode      = 0x05c
	CPMoverAddrLo    = 0x080
	CPMoverAddrHi    = 0x084
	CPMoverLocal     = 0x088
	CPMoverSize      = 0x08c
	CPMoverControl   = 0x090
	CPMoverStatus    = 0x094
	CPASQTail        = 0x0c0
	CPACQHead        = 0x0c4
	CPAQEpoch        = 0x0c8
	CPQueueIndex     = 0x100
	CPQueueSQBaseLo  = 0x104
	CPQueueSQBaseHi  = 0x108
	CPQueueCQBaseLo  = 0x10c
	CPQueueCQBaseHi  = 0x110
	CPQueueEntries   = 0x114
	CPQueueBinding   = 0x118
	CPQueueControl   = 0x11c
	CPQueueState     = 0x120
	CPQueueShadowLo  = 0x124
	CPQueueShadowHi  = 0x128
	CPCounterIndex   = 0x140
	CPCounterLo      = 0x144
	CPCounterHi      = 0x148

	CPMMUContext       = 0x160
	CPMMUAddrLo        = 0x164
	CPMMUAddrHi        = 0x168
	CPMMUPages         = 0x16c
	CPMMUControl       = 0x170
	CPMMUStatus        = 0x174
	CPMMULog           = 0x178
	CPQueueSchedule    = 0x180
	CPQueueTimeout     = 0x184
	CPQueueCoalesce    = 0x188
	CPQueueStatusIndex = 0x18c
	CPQueueStatus      = 0x190
	CPQueueSequence    = 0x194
	CPQueueAgeLo       = 0x198
	CPQueueAgeHi       = 0x19c
	CPQueueResult      = 0x1a0
	CPQueueAbort       = 0x1a4
	CPQueueOverdue     = 0x1a8
	CPQueueCurrent     = 0x1ac
	CPQueueLoad        = 0x1b0
	CPErrorNext        = 0x1c0
	CPErrorSelect      = 0x1c4
	CPErrorData        = 0x1c8
	CPSensorIndex      = 0x1cc
	CPSensorLo         = 0x1d0
	CPSensorHi         = 0x1d4
	CPThermal1         = 0x1d8
	CPThermal2         = 0x1dc
	CPThermalCritical  = 0x1e0
	CPEngineReset      = 0x1e4
	CPEngineEnded      = 0x1e8
	CPLogBase          = 0x1ec
	CPLogSize          = 0x1f0
	CPTrapFrame        = 0x1f4
	CPCrashSelect      = 0x1f8
	CPCrashData        = 0x1fc
)

// Control processor's address map (§3.6).
const (
	CPROMBase  = 0x00000000
	CPROMSize  = 0x4000
	CPSRAMBase = 0x10000000
	CPSRAMSize = 0x40000
	CPRegBase  = 0x40000000
	CPRegSize  = 0x1000
	CPHostBase = 0x40001000 // the host's register page, read-only
)

// Bits of control-processor registers.
const (
	CPIRQBoot  = 1 << 0 // BOOT
	CPIRQAdmin = 1 << 1 // ADMIN
	CPIRQQueue = 1 << 2 // QUEUE
	CPIRQAll   = CPIRQBoot | CPIRQAdmin | CPIRQQueue

	MoverRead  = 1 // bus → SRAM
	MoverWrite = 2 // SRAM → bus

	MoverIdle  = 0
	MoverBusy  = 1
	MoverFault = 2
	MoverRange = 3

	QueueControlEnable  = 1
	QueueControlDisable = 2
	QueueControlSuspend = 3
	QueueControlResume  = 4
	QueueControlModify  = 5

	QueueDisabled   = 0
	QueueEnabled    = 1
	QueueDraining   = 2
	QueueError      = 3
	QueueSuspended  = 4
	QueueSuspending = 5

	// Flags of a queue status (§4.19).
	QueueFlagWaiting  = 1 << 0
	QueueFlagInFlight = 1 << 1
	QueueFlagTimedOut = 1 << 2

	MMUTranslate     = 1
	MMURemove        = 2
	MMUInvalidate    = 3
	MMUInvalidateAll = 4

	MMUBusy       = 1 << 0
	MMUTranslated = 1 << 1
	MMUFaulted    = 1 << 2
)

// Counters, CP_COUNTER_INDEX and log page 2 (§4.7), in this order.
const (
	CounterCommands = iota
	CounterErrors
	CounterPrograms
	CounterInstructions
	CounterMACs
	CounterDMARead
	CounterDMAWritten
	CounterInterrupts
	CounterDoorbells
	CounterFaults
	CounterCopies
	CounterAdmin
	CounterShadow
	CounterTLBHits
	CounterTLBMisses
	CounterTranslationFaults
	CounterWaits
	CounterSignals
	CounterQueueTimeouts
	CounterCoalesced
	CounterECCCorrected
	CounterECCUncorrected
	CounterEngineResets
	CounterCount
)

var fieldState = []mmio.Field{
	{Name: "STATE", Shift: 0, Width: 8, Doc: "0 OFF, 1 WAITING, 2 LOADING, 3 STARTING, 4 READY, 5 FAILED."},
	{Name: "ERROR", Shift: 8, Width: 8, Doc: "Error code of §3.5; 0 unless FAILED."},
}

// Host returns the table of the host's register page. Values that depend on the
// configuration (dimensions, sizes, counts) have reset value 0 here; the board
// sets them.
func Host() []mmio.Register {
	return []mmio.Register{
		{Name: "ID", Off: ID, Reset: Magic, Spec: "§2.1", Doc: "Reads 0x4555504e (\"NPUE\")."},
		{Name: "ARCH_VERSION", Off: ArchVersion, Reset: ArchMajor<<16 | ArchMinor, Spec: "§2.1", Doc: "Hardware architecture version.", Fields: []mmio.Field{
			{Name: "MINOR", Shift: 0, Width: 16, Doc: "Minor version."},
			{Name: "MAJOR", Shift: 16, Width: 16, Doc: "Major version."}}},
		{Name: "FEATURES_LO", Off: FeaturesLo, Spec: "§2.1", Doc: "Feature bits 31:0. Architecture 1.0 defines none.", Fields: []mmio.Field{
			{Name: "SHADOW_DOORBELLS", Shift: 0, Width: 1, Doc: "CREATE_QUEUE takes a shadow line (§4.11); architecture 1.1."},
			{Name: "MMU", Shift: 1, Width: 1, Doc: "Contexts can have page tables (§11); architecture 1.2."},
			{Name: "QUEUE_CONTROL", Shift: 2, Width: 1, Doc: "Priorities, suspension, timeouts, shared completion rings and coalescing (§4.12 to §4.16, §4.19); architecture 1.2."},
			{Name: "TIMELINES", Shift: 3, Width: 1, Doc: "Commands WAIT and SIGNAL (§4.17, §4.18); architecture 1.2."},
			{Name: "RAS", Shift: 4, Width: 1, Doc: "Memory errors, error log, telemetry, engine reset, crash dump (§12); architecture 1.2."},
			{Name: "GEMM", Shift: 5, Width: 1, Doc: "The core has ISA 1.1 and its instructions for whole products and convolutions (§5.6.9 to §5.6.12); architecture 1.3."},
			{Name: "FLOAT", Shift: 6, Width: 1, Doc: "OPERANDS takes floating-point types (§5.6.9); architecture 1.3."},
			{Name: "CONTROL", Shift: 7, Width: 1, Doc: "The core has loops, registers and time stamps (§5.6.13 to §5.6.17); architecture 1.3."},
			{Name: "VECTOR", Shift: 8, Width: 1, Doc: "The core has element-wise operations, tables and more roundings (§5.6.8, §5.6.18, §5.6.19); architecture 1.3."},
			{Name: "REDUCE", Shift: 9, Width: 1, Doc: "The core has reductions and normalizations (§5.6.20, §5.6.21); architecture 1.3."},
			{Name: "POOL", Shift: 10, Width: 1, Doc: "The core has ISA 1.2 and its pooling and resizing of images (§5.6.22 to §5.6.24); architecture 1.4."},
			{Name: "SPARSE", Shift: 11, Width: 1, Doc: "Weights of which two of four are there (§5.6.31); architecture 1.4."},
			{Name: "MX", Shift: 12, Width: 1, Doc: "Products of OCP MX formats (§5.6.30); architecture 1.4."},
			{Name: "TIMING", Shift: 13, Width: 1, Doc: "Completions carry model time, LAUNCH takes PROFILE, STAMP can store cycles (§13.8); architecture 1.4."},
			{Name: "GATHER", Shift: 14, Width: 1, Doc: "The core copies elements and rows to other places of the scratchpad, by strides and by indices, and finds extremes (§5.6.20, §5.6.25 to §5.6.28); architecture 1.4."},
			{Name: "QUANT", Shift: 15, Width: 1, Doc: "The core quantizes by a division, to all integer types, and converts between all types (§5.6.29); architecture 1.4."},
			{Name: "ADDQ", Shift: 16, Width: 1, Doc: "The core has ISA 1.3 and its sums, differences and products of two quantized tensors (§5.6.32, §5.6.33); architecture 1.5."},
			{Name: "ARGUMENTS", Shift: 17, Width: 1, Doc: "The core has ISA 1.4, and LAUNCH takes values for registers (§4.9, §5.6.13); architecture 1.6."},
			{Name: "MISMATCH", Shift: 18, Width: 1, Doc: "A program that needs groups which the core lacks completes with the instruction that does (§5.3); architecture 1.6."}}},
		{Name: "FEATURES_HI", Off: FeaturesHi, Spec: "§2.1", Doc: "Feature bits 63:32."},
		{Name: "ARRAY_DIM", Off: ArrayDim, Spec: "§5.1", Doc: "Dimensions of the weight array.", Fields: []mmio.Field{
			{Name: "ROWS", Shift: 0, Width: 16, Doc: "Input channels, k."},
			{Name: "COLS", Shift: 16, Width: 16, Doc: "Output channels, n."}}},
		{Name: "SPAD_SIZE", Off: SpadSize, Spec: "§5.1", Doc: "Scratchpad size in bytes."},
		{Name: "ACC_SIZE", Off: AccSize, Spec: "§5.1", Doc: "Accumulator memory size in bytes."},
		{Name: "QUEUE_PARAM", Off: QueueParam, Spec: "§4.1", Doc: "Queue limits.", Fields: []mmio.Field{
			{Name: "COUNT", Shift: 0, Width: 16, Doc: "User queues; they are numbered from 1 to COUNT."},
			{Name: "MAX_ENTRIES", Shift: 16, Width: 16, Doc: "Largest number of entries of a ring."}}},
		{Name: "CONTEXT_PARAM", Off: ContextParam, Spec: "§4.6", Doc: "Contexts that can exist at the same time."},
		{Name: "DRAM_SIZE_LO", Off: DRAMSizeLo, Spec: "§7.1", Doc: "Device memory size in bytes, bits 31:0."},
		{Name: "DRAM_SIZE_HI", Off: DRAMSizeHi, Spec: "§7.1", Doc: "Device memory size in bytes, bits 63:32."},
		{Name: "ENGINE_PARAM", Off: EngineParam, Spec: "§5.1", Doc: "Engine counts.", Fields: []mmio.Field{
			{Name: "CORES", Shift: 0, Width: 8, Doc: "Compute cores."},
			{Name: "DMA_CHANNELS", Shift: 8, Width: 8, Doc: "DMA channels that execute COPY commands."}}},
		{Name: "DOORBELL_OFFSET", Off: DoorbellOffset, Reset: DoorbellBase, Spec: "§4.3", Doc: "BAR0 offset of the doorbell page of queue 0."},
		{Name: "DOORBELL_STRIDE", Off: DoorbellParam, Reset: DoorbellStride, Spec: "§4.3", Doc: "Bytes between doorbell pages."},
		{Name: "VECTOR_COUNT", Off: VectorCount, Spec: "§8.1", Doc: "Vectors of the function."},

		{Name: "DEVICE_CONTROL", Off: DeviceControl, W1S: DeviceControlReset, Spec: "§9.4", Doc: "Device control.", Fields: []mmio.Field{
			{Name: "RESET", Shift: 0, Width: 1, Doc: "Write 1: soft reset of everything but config space; reads 0 when done."}}},
		{Name: "DEVICE_STATUS", Off: DeviceStatus, Spec: "§9.4", Doc: "Device status.", Fields: []mmio.Field{
			{Name: "READY", Shift: 0, Width: 1, Doc: "Firmware is ready and serves the admin queue."},
			{Name: "RESETTING", Shift: 1, Width: 1, Doc: "A reset waits for work in flight to stop."},
			{Name: "FAILED", Shift: 2, Width: 1, Doc: "Boot failed or firmware died; BOOT_STATUS says why."}}},

		{Name: "BOOT_CONTROL", Off: BootControl, W1S: BootControlStart, Spec: "§3.2", Doc: "Boot control.", Fields: []mmio.Field{
			{Name: "START", Shift: 0, Width: 1, Doc: "Write 1 in state WAITING or FAILED: load and start the image; clears itself."}}},
		{Name: "BOOT_STATUS", Off: BootStatus, Spec: "§3.2", Doc: "Boot state machine.", Fields: fieldState},
		{Name: "IMAGE_ADDR_LO", Off: ImageAddrLo, RW: ^uint32(0), Spec: "§3.2", Doc: "Bus address of the firmware image, bits 31:0; a multiple of 64."},
		{Name: "IMAGE_ADDR_HI", Off: ImageAddrHi, RW: ^uint32(0), Spec: "§3.2", Doc: "Bus address of the firmware image, bits 63:32."},
		{Name: "IMAGE_SIZE", Off: ImageSize, RW: ^uint32(0), Spec: "§3.2", Doc: "Size of the firmware image in bytes."},
		{Name: "BOOT_TIMEOUT", Off: BootTimeout, Reset: 2000, RW: 0xffff, Spec: "§3.2", Doc: "Milliseconds from START to READY before the boot fails with TIMEOUT; 0 means 65536."},
		{Name: "FW_VERSION", Off: FWVersion, Spec: "§3.3", Doc: "Firmware interface version; 0 until READY.", Fields: []mmio.Field{
			{Name: "MINOR", Shift: 0, Width: 16, Doc: "Minor version."},
			{Name: "MAJOR", Shift: 16, Width: 16, Doc: "Major version."}}},
		{Name: "FW_BUILD", Off: FWBuild, Spec: "§3.3", Doc: "Firmware's own version; 0 until READY.", Fields: []mmio.Field{
			{Name: "PATCH", Shift: 0, Width: 16, Doc: "Patch."},
			{Name: "MINOR", Shift: 16, Width: 8, Doc: "Minor."},
			{Name: "MAJOR", Shift: 24, Width: 8, Doc: "Major."}}},
		{Name: "FW_ERROR_DETAIL", Off: FWErrorDetail, Spec: "§3.5", Doc: "Detail of the boot error: the offending value, or the trap's program counter."},

		{Name: "ASQ_BASE_LO", Off: ASQBaseLo, RW: 0xffffffc0, Spec: "§4.4", Doc: "Bus address of the admin submission ring, bits 31:0; a multiple of 64."},
		{Name: "ASQ_BASE_HI", Off: ASQBaseHi, RW: ^uint32(0), Spec: "§4.4", Doc: "Bus address of the admin submission ring, bits 63:32."},
		{Name: "ACQ_BASE_LO", Off: ACQBaseLo, RW: 0xffffffc0, Spec: "§4.4", Doc: "Bus address of the admin completion ring, bits 31:0; a multiple of 64."},
		{Name: "ACQ_BASE_HI", Off: ACQBaseHi, RW: ^uint32(0), Spec: "§4.4", Doc: "Bus address of the admin completion ring, bits 63:32."},
		{Name: "AQ_SIZE", Off: AQSize, RW: ^uint32(0), Spec: "§4.4", Doc: "Entries of the admin rings, each 2 to 256.", Fields: []mmio.Field{
			{Name: "SQ_ENTRIES", Shift: 0, Width: 16, Doc: "Entries of the submission ring."},
			{Name: "CQ_ENTRIES", Shift: 16, Width: 16, Doc: "Entries of the completion ring."}}},
		{Name: "AQ_CONTROL", Off: AQControl, RW: AQControlEnable, Spec: "§4.4", Doc: "Admin queue control.", Fields: []mmio.Field{
			{Name: "ENABLE", Shift: 0, Width: 1, Doc: "0→1 starts the queue with head, tail 0 and phase 1; base and size must not change while it is 1."}}},

		{Name: "IRQ_STATUS", Off: IRQStatus, W1C: IRQAll, Spec: "§8.2", Doc: "Pending causes of vector 0 and of INTx.", Fields: []mmio.Field{
			{Name: "ADMIN", Shift: 0, Width: 1, Doc: "Admin completion posted."},
			{Name: "BOOT", Shift: 1, Width: 1, Doc: "BOOT_STATUS changed to READY or FAILED."},
			{Name: "FAULT", Shift: 2, Width: 1, Doc: "A fault record was written."},
			{Name: "FIRMWARE", Shift: 3, Width: 1, Doc: "Firmware asks to read its log."},
			{Name: "QUEUE", Shift: 4, Width: 1, Doc: "A user queue posted a completion while the function used INTx."},
			{Name: "ERROR", Shift: 5, Width: 1, Doc: "The error log has a new record (§12.3); architecture 1.2."}}},
		{Name: "IRQ_ENABLE", Off: IRQEnable, RW: IRQAll, Spec: "§8.2", Doc: "Causes that raise vector 0 or assert INTx.", Fields: []mmio.Field{
			{Name: "ADMIN", Shift: 0, Width: 1, Doc: "As IRQ_STATUS."},
			{Name: "BOOT", Shift: 1, Width: 1, Doc: "As IRQ_STATUS."},
			{Name: "FAULT", Shift: 2, Width: 1, Doc: "As IRQ_STATUS."},
			{Name: "FIRMWARE", Shift: 3, Width: 1, Doc: "As IRQ_STATUS."},
			{Name: "QUEUE", Shift: 4, Width: 1, Doc: "As IRQ_STATUS."},
			{Name: "ERROR", Shift: 5, Width: 1, Doc: "As IRQ_STATUS."}}},
		{Name: "FAULT_STATUS", Off: FaultStatus, W1C: FaultValid | FaultOverflow, Spec: "§9.3", Doc: "Fault record; VALID keeps the first record until it is cleared.", Fields: []mmio.Field{
			{Name: "VALID", Shift: 0, Width: 1, Doc: "The record is valid."},
			{Name: "OVERFLOW", Shift: 1, Width: 1, Doc: "Further faults were not recorded."},
			{Name: "CODE", Shift: 16, Width: 16, Doc: "Status code of §9.1."}}},
		{Name: "FAULT_INFO", Off: FaultInfo, Spec: "§9.3", Doc: "Where the fault happened.", Fields: []mmio.Field{
			{Name: "QUEUE", Shift: 0, Width: 8, Doc: "Queue; 0 is the admin queue."},
			{Name: "SOURCE", Shift: 8, Width: 8, Doc: "0 doorbell, 1 submission fetch, 2 completion post, 3 control processor, 4 device MMU."},
			{Name: "INDEX", Shift: 16, Width: 16, Doc: "Ring entry, or the doorbell value."}}},
		{Name: "FAULT_ADDR_LO", Off: FaultAddrLo, Spec: "§9.3", Doc: "Bus address of the failed access, bits 31:0; of a device MMU fault, what §11.5 says."},
		{Name: "FAULT_ADDR_HI", Off: FaultAddrHi, Spec: "§9.3", Doc: "Bus address of the failed access, bits 63:32."},
		{Name: "FAULT_CONTEXT", Off: FaultContext, Spec: "§11.5", Doc: "Of a device MMU fault, otherwise 0: whose access, and why. Architecture 1.2.", Fields: []mmio.Field{
			{Name: "CONTEXT", Shift: 0, Width: 16, Doc: "Context."},
			{Name: "ENGINE", Shift: 16, Width: 4, Doc: "0 command processor, 1 DMA, 2 core load, 3 core store."},
			{Name: "ACCESS", Shift: 20, Width: 4, Doc: "1 read, 2 write, 3 execute."},
			{Name: "REASON", Shift: 24, Width: 4, Doc: "1 not present, 2 permission, 3 reserved bit, 4 table unreadable, 5 target refused, 6 out of range."},
			{Name: "LEVEL", Shift: 28, Width: 4, Doc: "Level of the entry that refused, 4 to 1; 0 if none did."}}},
		{Name: "FAULT_COMMAND", Off: FaultCommand, Spec: "§11.5", Doc: "Of a device MMU fault, otherwise 0. Architecture 1.2.", Fields: []mmio.Field{
			{Name: "ID", Shift: 0, Width: 16, Doc: "command_id."},
			{Name: "INDEX", Shift: 16, Width: 16, Doc: "Ring entry."}}},
		{Name: "FAULT_VA_LO", Off: FaultVALo, Spec: "§11.5", Doc: "Virtual address of a device MMU fault, bits 31:0; otherwise 0. Architecture 1.2."},
		{Name: "FAULT_VA_HI", Off: FaultVAHi, Spec: "§11.5", Doc: "Virtual address of a device MMU fault, bits 63:32; otherwise 0."},

		{Name: "CRASH_STATUS", Off: CrashStatus, W1C: CrashValid, Spec: "§12.8", Doc: "Crash dump. Architecture 1.2; unclaimed without FEATURES_LO.RAS, like the next three.", Fields: []mmio.Field{
			{Name: "VALID", Shift: 0, Width: 1, Doc: "There is a dump; write 1 to free it."},
			{Name: "NUMBER", Shift: 16, Width: 16, Doc: "Number of the dump, from 1; changes when a dump replaces another."}}},
		{Name: "CRASH_SIZE", Off: CrashSize, Spec: "§12.8", Doc: "Size of the dump in bytes; 0 without one."},
		{Name: "CRASH_SELECT", Off: CrashSelect, RW: ^uint32(3), Spec: "§12.8", Doc: "Offset in the dump of what CRASH_DATA reads, a multiple of 4."},
		{Name: "CRASH_DATA", Off: CrashData, Spec: "§12.8", Doc: "Four bytes of the dump, 0 beyond its end. Reading it adds 4 to CRASH_SELECT."},

		{Name: "TIME_LO", Off: TimeLo, Spec: "§13.8", Doc: "Model time in cycles, bits 31:0. Reading it latches TIME_HI. Architecture 1.4; unclaimed without FEATURES_LO.TIMING, like the next two."},
		{Name: "TIME_HI", Off: TimeHi, Spec: "§13.8", Doc: "Latched bits 63:32."},
		{Name: "TIME_CLOCK", Off: TimeClock, Spec: "§13.8", Doc: "Cycles in a microsecond; 0 if there is no model time."},
	}
}

// CP returns the table of the control processor's registers.
func CP() []mmio.Register {
	return []mmio.Register{
		{Name: "CP_IRQ_PENDING", Off: CPIRQPending, Spec: "§3.7", Doc: "Pending external interrupts.", Fields: []mmio.Field{
			{Name: "BOOT", Shift: 0, Width: 1, Doc: "The host wrote BOOT_CONTROL.START."},
			{Name: "ADMIN", Shift: 1, Width: 1, Doc: "Admin doorbell written, or AQ_CONTROL changed."},
			{Name: "QUEUE", Shift: 2, Width: 1, Doc: "A user queue entered the error state, finished draining or suspending, or its command became overdue; or an engine reset is over (§12.6)."}}},
		{Name: "CP_IRQ_ENABLE", Off: CPIRQEnable, RW: CPIRQAll, Spec: "§3.7", Doc: "Pending bits that drive the machine external interrupt.", Fields: []mmio.Field{
			{Name: "BOOT", Shift: 0, Width: 1, Doc: "As CP_IRQ_PENDING."},
			{Name: "ADMIN", Shift: 1, Width: 1, Doc: "As CP_IRQ_PENDING."},
			{Name: "QUEUE", Shift: 2, Width: 1, Doc: "As CP_IRQ_PENDING."}}},
		{Name: "CP_IRQ_CLEAR", Off: CPIRQClear, RW: CPIRQAll, WO: true, Spec: "§3.7", Doc: "Write 1 clears the bit of CP_IRQ_PENDING."},
		{Name: "CP_BOOT_STATUS", Off: CPBootStatus, RW: 0xffff, WO: true, Spec: "§3.2", Doc: "Sets the host's BOOT_STATUS; READY stops the boot timer and raises BOOT, FAILED halts the processor and raises BOOT.", Fields: fieldState},
		{Name: "CP_FW_VERSION", Off: CPFWVersion, RW: ^uint32(0), WO: true, Spec: "§3.3", Doc: "Sets the host's FW_VERSION."},
		{Name: "CP_FW_BUILD", Off: CPFWBuild, RW: ^uint32(0), WO: true, Spec: "§3.3", Doc: "Sets the host's FW_BUILD."},
		{Name: "CP_FW_ERROR_DETAIL", Off: CPFWErrorDetail, RW: ^uint32(0), WO: true, Spec: "§3.5", Doc: "Sets the host's FW_ERROR_DETAIL."},
		{Name: "CP_WATCHDOG_PERIOD", Off: CPWatchdogPeriod, RW: 0xffff, Spec: "§3.8", Doc: "Milliseconds without a kick until the watchdog fires; 0 is off."},
		{Name: "CP_WATCHDOG_KICK", Off: CPWatchdogKick, RW: ^uint32(0), WO: true, Spec: "§3.8", Doc: "Any write restarts the watchdog's period."},
		{Name: "CP_HOST_EVENT", Off: CPHostEvent, RW: IRQAdmin | IRQFirmware, WO: true, Spec: "§8.2", Doc: "Sets bits of the host's IRQ_STATUS (ADMIN, FIRMWARE) and raises vector 0 if they are enabled."},
		{Name: "CP_CONSOLE", Off: CPConsole, RW: 0xff, WO: true, Spec: "§3.9", Doc: "A byte for the firmware console."},
		{Name: "CP_TIME_LO", Off: CPTimeLo, Spec: "§3.7", Doc: "Microseconds since reset, bits 31:0. Reading it latches CP_TIME_HI."},
		{Name: "CP_TIME_HI", Off: CPTimeHi, Spec: "§3.7", Doc: "Latched bits 63:32."},
		{Name: "CP_TIMECMP_LO", Off: CPTimeCmpLo, Reset: ^uint32(0), RW: ^uint32(0), Spec: "§3.7", Doc: "Machine timer interrupt while time ≥ CP_TIMECMP, bits 31:0."},
		{Name: "CP_TIMECMP_HI", Off: CPTimeCmpHi, Reset: ^uint32(0), RW: ^uint32(0), Spec: "§3.7", Doc: "Bits 63:32."},
		{Name: "CP_FAULT_ADDR_LO", Off: CPFaultAddrLo, RW: ^uint32(0), Spec: "§9.3", Doc: "FAULT_ADDR_LO of the next record."},
		{Name: "CP_FAULT_ADDR_HI", Off: CPFaultAddrHi, RW: ^uint32(0), Spec: "§9.3", Doc: "FAULT_ADDR_HI of the next record."},
		{Name: "CP_FAULT_INFO", Off: CPFaultInfo, RW: ^uint32(0), Spec: "§9.3", Doc: "FAULT_INFO of the next record."},
		{Name: "CP_FAULT_CODE", Off: CPFaultCode, RW: 0xffff, WO: true, Spec: "§9.3", Doc: "Status code (§9.1); a write records a fault with it and the values above, and raises FAULT."},
		{Name: "CP_MOVER_ADDR_LO", Off: CPMoverAddrLo, RW: ^uint32(0), Spec: "§3.10", Doc: "Bus address, bits 31:0."},
		{Name: "CP_MOVER_ADDR_HI", Off: CPMoverAddrHi, RW: ^uint32(0), Spec: "§3.10", Doc: "Bus address, bits 63:32."},
		{Name: "CP_MOVER_LOCAL", Off: CPMoverLocal, RW: ^uint32(0), Spec: "§3.10", Doc: "Address in SRAM."},
		{Name: "CP_MOVER_SIZE", Off: CPMoverSize, RW: ^uint32(0), Spec: "§3.10", Doc: "Bytes, 1 to the size of SRAM."},
		{Name: "CP_MOVER_CONTROL", Off: CPMoverControl, RW: 0x3, WO: true, Spec: "§3.10", Doc: "1 starts bus → SRAM, 2 starts SRAM → bus."},
		{Name: "CP_MOVER_STATUS", Off: CPMoverStatus, Spec: "§3.10", Doc: "0 done, 1 busy, 2 bus fault, 3 outside SRAM or size 0."},
		{Name: "CP_ASQ_TAIL", Off: CPASQTail, Spec: "§4.4", Doc: "Last value written to the admin SQ_TAIL doorbell."},
		{Name: "CP_ACQ_HEAD", Off: CPACQHead, Spec: "§4.4", Doc: "Last value written to the admin CQ_HEAD doorbell."},
		{Name: "CP_AQ_EPOCH", Off: CPAQEpoch, Spec: "§4.4", Doc: "Times that AQ_CONTROL.ENABLE went from 0 to 1 since the processor's reset; each sets CP_ASQ_TAIL and CP_ACQ_HEAD to 0."},
		{Name: "CP_QUEUE_INDEX", Off: CPQueueIndex, RW: 0xff, Spec: "§4.8", Doc: "User queue that the registers below mean."},
		{Name: "CP_QUEUE_SQ_BASE_LO", Off: CPQueueSQBaseLo, RW: ^uint32(0), Spec: "§4.8", Doc: "Submission ring, bits 31:0."},
		{Name: "CP_QUEUE_SQ_BASE_HI", Off: CPQueueSQBaseHi, RW: ^uint32(0), Spec: "§4.8", Doc: "Submission ring, bits 63:32."},
		{Name: "CP_QUEUE_CQ_BASE_LO", Off: CPQueueCQBaseLo, RW: ^uint32(0), Spec: "§4.8", Doc: "Completion ring, bits 31:0."},
		{Name: "CP_QUEUE_CQ_BASE_HI", Off: CPQueueCQBaseHi, RW: ^uint32(0), Spec: "§4.8", Doc: "Completion ring, bits 63:32."},
		{Name: "CP_QUEUE_ENTRIES", Off: CPQueueEntries, RW: ^uint32(0), Spec: "§4.8", Doc: "Ring sizes.", Fields: []mmio.Field{
			{Name: "SQ", Shift: 0, Width: 16, Doc: "Entries of the submission ring."},
			{Name: "CQ", Shift: 16, Width: 16, Doc: "Entries of the completion ring."}}},
		{Name: "CP_QUEUE_BINDING", Off: CPQueueBinding, RW: ^uint32(0), Spec: "§4.8", Doc: "Owner and vector.", Fields: []mmio.Field{
			{Name: "CONTEXT", Shift: 0, Width: 16, Doc: "Context that owns the queue."},
			{Name: "VECTOR", Shift: 16, Width: 16, Doc: "Vector of its completions."}}},
		{Name: "CP_QUEUE_CONTROL", Off: CPQueueControl, RW: 0x7, WO: true, Spec: "§4.8", Doc: "1 enables the queue with the values of CP_QUEUE_… and empty rings, 2 disables it. Architecture 1.2: 3 suspends it, 4 resumes it, 5 gives it CP_QUEUE_SCHEDULE, CP_QUEUE_TIMEOUT and CP_QUEUE_COALESCE."},
		{Name: "CP_QUEUE_STATE", Off: CPQueueState, Spec: "§4.8", Doc: "0 disabled, 1 enabled, 2 draining, 3 error, 4 suspended, 5 suspending."},
		{Name: "CP_QUEUE_SHADOW_LO", Off: CPQueueShadowLo, RW: ^uint32(0), Spec: "§4.11", Doc: "Shadow line, bits 31:0; a multiple of 64. Architecture 1.1; ignored without FEATURES_LO.SHADOW_DOORBELLS."},
		{Name: "CP_QUEUE_SHADOW_HI", Off: CPQueueShadowHi, RW: ^uint32(0), Spec: "§4.11", Doc: "Shadow line, bits 63:32. The queue has none if both are 0."},
		{Name: "CP_COUNTER_INDEX", Off: CPCounterIndex, RW: 0xff, Spec: "§4.7", Doc: "Counter to read. Reading CP_COUNTER_LO latches CP_COUNTER_HI."},
		{Name: "CP_COUNTER_LO", Off: CPCounterLo, Spec: "§4.7", Doc: "Counter, bits 31:0."},
		{Name: "CP_COUNTER_HI", Off: CPCounterHi, Spec: "§4.7", Doc: "Counter, latched bits 63:32."},
		{Name: "CP_MMU_CONTEXT", Off: CPMMUContext, RW: 0xffff, Spec: "§11.7", Doc: "Context that the registers below mean. Architecture 1.2, as all of CP_MMU."},
		{Name: "CP_MMU_ADDR_LO", Off: CPMMUAddrLo, RW: ^uint32(0), Spec: "§11.7", Doc: "Root table, or first virtual address to invalidate, bits 31:0."},
		{Name: "CP_MMU_ADDR_HI", Off: CPMMUAddrHi, RW: ^uint32(0), Spec: "§11.7", Doc: "Bits 63:32."},
		{Name: "CP_MMU_PAGES", Off: CPMMUPages, RW: ^uint32(0), Spec: "§11.7", Doc: "Pages of 4 KiB to invalidate; 0 is the whole context."},
		{Name: "CP_MMU_CONTROL", Off: CPMMUControl, RW: 0xff, WO: true, Spec: "§11.7", Doc: "Starts an operation.", Fields: []mmio.Field{
			{Name: "OPERATION", Shift: 0, Width: 4, Doc: "1 the context is translated by the table at CP_MMU_ADDR, 2 it is not translated, 3 invalidate in the context, 4 invalidate everything."},
			{Name: "SPACE", Shift: 4, Width: 4, Doc: "Space of the root table."}}},
		{Name: "CP_MMU_STATUS", Off: CPMMUStatus, Spec: "§11.7", Doc: "State of the MMU and of the context.", Fields: []mmio.Field{
			{Name: "BUSY", Shift: 0, Width: 1, Doc: "An invalidation is not over."},
			{Name: "TRANSLATED", Shift: 1, Width: 1, Doc: "The context is translated."},
			{Name: "FAULTED", Shift: 2, Width: 1, Doc: "The context has faulted (§11.5)."}}},
		{Name: "CP_MMU_LOG", Off: CPMMULog, RW: ^uint32(0), Spec: "§11.7", Doc: "A write takes a copy of the fault log (§11.6); each read returns the next word of it, 0 behind its end."},
		{Name: "CP_QUEUE_SCHEDULE", Off: CPQueueSchedule, RW: 0xff01ff03, Spec: "§4.8", Doc: "Place in the schedule, and whose completion ring.", Fields: []mmio.Field{
			{Name: "PRIORITY", Shift: 0, Width: 2, Doc: "Class (§4.12)."},
			{Name: "WEIGHT", Shift: 8, Width: 8, Doc: "Commands a turn (§4.12); 0 means 1."},
			{Name: "SHARED", Shift: 16, Width: 1, Doc: "The queue posts into the completion ring of queue OWNER (§4.15); CP_QUEUE_CQ_BASE, ENTRIES.CQ, BINDING.VECTOR and CP_QUEUE_COALESCE are ignored."},
			{Name: "OWNER", Shift: 24, Width: 8, Doc: "See SHARED."}}},
		{Name: "CP_QUEUE_TIMEOUT", Off: CPQueueTimeout, RW: ^uint32(0), Spec: "§4.14", Doc: "Milliseconds after which a command is overdue; 0 is never."},
		{Name: "CP_QUEUE_COALESCE", Off: CPQueueCoalesce, RW: ^uint32(0), Spec: "§4.16", Doc: "Interrupt coalescing.", Fields: []mmio.Field{
			{Name: "COUNT", Shift: 0, Width: 16, Doc: "Completions that one interrupt tells of."},
			{Name: "TIME", Shift: 16, Width: 16, Doc: "Microseconds that a completion waits at most."}}},
		{Name: "CP_QUEUE_STATUS_INDEX", Off: CPQueueStatusIndex, RW: 0xf, Spec: "§4.8", Doc: "Word of the queue status (§4.19) to read; writing 0 latches the status of CP_QUEUE_INDEX."},
		{Name: "CP_QUEUE_STATUS", Off: CPQueueStatus, Spec: "§4.8", Doc: "The word of the latched status."},
		{Name: "CP_QUEUE_SEQUENCE", Off: CPQueueSequence, Spec: "§4.14", Doc: "Number of the command that CP_QUEUE_INDEX executes or that waits in it, different for each; 0 for none. Reading it latches CP_QUEUE_AGE."},
		{Name: "CP_QUEUE_AGE_LO", Off: CPQueueAgeLo, Spec: "§4.14", Doc: "Microseconds since that command started, bits 31:0; its start is CP_TIME less this."},
		{Name: "CP_QUEUE_AGE_HI", Off: CPQueueAgeHi, Spec: "§4.14", Doc: "Bits 63:32."},
		{Name: "CP_QUEUE_RESULT", Off: CPQueueResult, RW: ^uint32(0), Spec: "§4.14", Doc: "Result that a WAIT completes with when it is aborted."},
		{Name: "CP_QUEUE_ABORT", Off: CPQueueAbort, RW: ^uint32(0), WO: true, Spec: "§4.14", Doc: "A command number: CP_QUEUE_INDEX's command ends as TIMEOUT or WAIT_TIMEOUT if it has that number."},
		{Name: "CP_QUEUE_OVERDUE", Off: CPQueueOverdue, Spec: "§4.14", Doc: "Lowest queue whose command is overdue and was not aborted; 0 for none."},
		{Name: "CP_QUEUE_CURRENT", Off: CPQueueCurrent, Spec: "§4.14", Doc: "Queue of the command that executes now; 0 for none."},
		{Name: "CP_QUEUE_LOAD", Off: CPQueueLoad, Spec: "§4.14", Doc: "What the user queues do.", Fields: []mmio.Field{
			{Name: "RUNNABLE", Shift: 0, Width: 8, Doc: "Queues with a command that executes or could."},
			{Name: "WAITING", Shift: 8, Width: 8, Doc: "Queues in which a WAIT waits, or that a WAIT_TIMEOUT suspended."}}},
		{Name: "CP_ERROR_NEXT", Off: CPErrorNext, Spec: "§12.3", Doc: "Number of the next record of the error log. Architecture 1.2; without FEATURES_LO.RAS this and the registers below do nothing."},
		{Name: "CP_ERROR_SELECT", Off: CPErrorSelect, RW: ^uint32(0), Spec: "§12.3", Doc: "Record to read; a write starts at its first word."},
		{Name: "CP_ERROR_DATA", Off: CPErrorData, Spec: "§12.3", Doc: "Next word of the selected record; 0 if it is not there (any more)."},
		{Name: "CP_SENSOR_INDEX", Off: CPSensorIndex, RW: 0xff, Spec: "§12.4", Doc: "Sensor to read. Reading CP_SENSOR_LO latches CP_SENSOR_HI."},
		{Name: "CP_SENSOR_LO", Off: CPSensorLo, Spec: "§12.4", Doc: "Sensor, bits 31:0."},
		{Name: "CP_SENSOR_HI", Off: CPSensorHi, Spec: "§12.4", Doc: "Sensor, latched bits 63:32."},
		{Name: "CP_THERMAL_1", Off: CPThermal1, Reset: ThermalDefault1, RW: ^uint32(0), Spec: "§12.5", Doc: "Threshold of throttle level 1 in m°C, signed."},
		{Name: "CP_THERMAL_2", Off: CPThermal2, Reset: ThermalDefault2, RW: ^uint32(0), Spec: "§12.5", Doc: "Threshold of throttle level 2 in m°C, signed."},
		{Name: "CP_THERMAL_CRITICAL", Off: CPThermalCritical, Reset: ThermalDefaultCritical, RW: ^uint32(0), Spec: "§12.5", Doc: "Threshold of the critical level in m°C, signed."},
		{Name: "CP_ENGINE_RESET", Off: CPEngineReset, RW: EngineAll, Spec: "§12.6", Doc: "Write 1: reset the engine; reads 1 until that is over, when interrupt QUEUE follows.", Fields: []mmio.Field{
			{Name: "CORE", Shift: 0, Width: 1, Doc: "The core."},
			{Name: "DMA", Shift: 1, Width: 1, Doc: "The DMA channel."}}},
		{Name: "CP_ENGINE_ENDED", Off: CPEngineEnded, Spec: "§12.6", Doc: "Commands that the last engine reset ended."},
		{Name: "CP_LOG_BASE", Off: CPLogBase, RW: ^uint32(0), Spec: "§12.7", Doc: "Address in SRAM of firmware's log ring, for the crash dump."},
		{Name: "CP_LOG_SIZE", Off: CPLogSize, RW: ^uint32(0), Spec: "§12.7", Doc: "Its size in bytes."},
		{Name: "CP_TRAP_FRAME", Off: CPTrapFrame, RW: ^uint32(0), Spec: "§12.8", Doc: "Address in SRAM where the trap handler saves x1 to x31, x1 at 4; 0 for none."},
		{Name: "CP_CRASH_SELECT", Off: CPCrashSelect, RW: ^uint32(3), Spec: "§12.8", Doc: "Offset in the crash dump of what CP_CRASH_DATA reads."},
		{Name: "CP_CRASH_DATA", Off: CPCrashData, Spec: "§12.8", Doc: "As the host's CRASH_DATA."},
	}
}
