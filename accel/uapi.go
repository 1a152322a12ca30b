// SPDX-License-Identifier: Apache-2.0

package accel

// The structures of driver/uapi/npu_accel.h and of the kernel's drm.h; field tags are
// the names there. A test compares them with what a C compiler says. Those that
// are exported are what the driver fills in; it may know more than is here, and
// an older one leaves the end 0.

// driverName and driverMajor are what DRM_IOCTL_VERSION says of the driver.
const (
	driverName  = "npu"
	driverMajor = 1
)

// A request is an ioctl without its size: direction and number.
type request uintptr

const (
	write     request = 1 << 30
	readWrite request = 3 << 30
)

const (
	reqVersion         = readWrite | 0x00
	reqGEMClose        = write | 0x09
	reqHandleToFD      = readWrite | 0x2d
	reqFDToHandle      = readWrite | 0x2e
	reqSyncobjCreate   = readWrite | 0xbf
	reqSyncobjDestroy  = readWrite | 0xc0
	reqSyncobjWait     = readWrite | 0xc3
	reqSyncobjSignal   = readWrite | 0xc5
	reqTimelineWait    = readWrite | 0xca
	reqSyncobjQuery    = readWrite | 0xcb
	reqTimelineSignal  = readWrite | 0xcd
	reqNPUQuery        = readWrite | 0x40
	reqNPUBOCreate     = readWrite | 0x41
	reqNPUSubmit       = readWrite | 0x42
	reqNPUQueueCreate  = readWrite | 0x43
	reqNPUQueueDestroy = write | 0x44
	reqNPUVMBind       = write | 0x45
)

// number is the ioctl for an argument of that size.
func (r request) number(size uintptr) uintptr { return uintptr(r) | size<<16 | 'd'<<8 }

// Values of drm_npu_query.type.
const (
	queryInfo      = 0
	queryCounters  = 1
	queryJob       = 2
	queryVM        = 3
	queryFault     = 4
	queryTelemetry = 5
)

// Values of drm_npu_command.type.
const (
	commandNop    = 1
	commandCopy   = 2
	commandLaunch = 3
)

const (
	commandVA      = 1 // flags of drm_npu_command
	commandProfile = 2
)

// ProfileSize is the size of a profile record (§13.8.4) in bytes.
const ProfileSize = 400

const (
	vmMap   = 1 // types of drm_npu_vm_op
	vmUnmap = 2
	vmRead  = 1 // flags
	vmWrite = 2
	vmExec  = 4
)

const (
	bindingRead  = 1
	bindingWrite = 2
)

const waitForSubmit = 1 << 1 // DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT

type array struct {
	Stride uint32 `json:"stride"`
	Count  uint32 `json:"count"`
	Ptr    uint64 `json:"ptr"`
}

type query struct {
	Type uint32 `json:"type"`
	Size uint32 `json:"size"`
	Arg  uint64 `json:"arg"`
	Ptr  uint64 `json:"ptr"`
}

// Info is what the device is; it does not change, except where noted.
type Info struct {
	UAPI          Version `json:"uapi_version"` // the driver's interface
	Arch          Version `json:"arch_version"` // hardware architecture
	FirmwareABI   Version `json:"fw_version"`   // firmware interface
	FirmwareBuild Build   `json:"fw_build"`
	Features      uint64  `json:"features"` // bits of the hardware (§2.1)
	ArrayRows     uint32  `json:"array_rows"`
	ArrayCols     uint32  `json:"array_cols"`
	SpadSize      uint32  `json:"spad_size"` // bytes of scratchpad
	AccSize       uint32  `json:"acc_size"`  // bytes of accumulators
	Cores         uint32  `json:"cores"`
	DMAChannels   uint32  `json:"dma_channels"`
	Queues        uint32  `json:"queues"`      // that can exist at once, of all files
	QueuesFree    uint32  `json:"queues_free"` // at the moment
	DRAMSize      uint64  `json:"dram_size"`   // bytes of device memory
	DRAMFree      uint64  `json:"dram_free"`   // that no buffer uses at the moment
	MaxCommands   uint32  `json:"max_commands"`
	MaxBindings   uint32  `json:"max_bindings"`
	MaxSyncs      uint32  `json:"max_syncs"`      // each of Wait and Signal; one of Signal is the job's own
	Vectors       uint32  `json:"vectors"`        // interrupts in use
	JobTimeoutMS  uint32  `json:"job_timeout_ms"` // of queues that choose none
	Resets        uint32  `json:"resets"`         // since the driver was loaded
	Firmware      Name    `json:"firmware"`

	// Interface 1.2.
	Priorities   uint32 `json:"priorities"`     // classes; 1 if the device has none
	MaxWeight    uint32 `json:"max_weight"`     // of a queue; 1 if the device has none
	MaxTimeoutMS uint32 `json:"max_timeout_ms"` // of a queue; 0 if the device does not watch commands
	Timeouts     uint32 `json:"timeouts"`       // jobs that did not end in time, since the driver was loaded
}

// Counters are those of all users of the device, since its last reset.
type Counters struct {
	Commands     uint64 `json:"commands"` // completed
	Errors       uint64 `json:"errors"`   // of these, with an error
	Programs     uint64 `json:"programs"`
	Instructions uint64 `json:"instructions"`
	MACs         uint64 `json:"macs"`        // int8 multiply-accumulates
	DMARead      uint64 `json:"dma_read"`    // bytes
	DMAWritten   uint64 `json:"dma_written"` // bytes
	Interrupts   uint64 `json:"interrupts"`
	Doorbells    uint64 `json:"doorbells"`
	Faults       uint64 `json:"faults"` // records
	Copies       uint64 `json:"copies"`
	Admin        uint64 `json:"admin"` // admin commands

	// Interface 1.2.
	ShadowDoorbells   uint64 `json:"shadow_doorbells"` // indices found in memory
	TLBHits           uint64 `json:"tlb_hits"`
	TLBMisses         uint64 `json:"tlb_misses"`
	TranslationFaults uint64 `json:"translation_faults"`
	Waits             uint64 `json:"waits"`   // that succeeded
	Signals           uint64 `json:"signals"` // that succeeded
	Timeouts          uint64 `json:"timeouts"`
	Coalesced         uint64 `json:"coalesced"` // completions without an interrupt of their own
	ECCCorrected      uint64 `json:"ecc_corrected"`
	ECCUncorrected    uint64 `json:"ecc_uncorrected"`
	EngineResets      uint64 `json:"engine_resets"`
}

// Telemetry is how the device is (§12.4).
type Telemetry struct {
	UptimeUS          uint64 `json:"uptime_us"`    // since power-on, over all resets
	CoreBusyUS        uint64 `json:"core_busy_us"` // of these
	DMABusyUS         uint64 `json:"dma_busy_us"`  // of these
	Temperature       int32  `json:"temperature"`  // m°C
	Ambient           int32  `json:"ambient"`      // m°C
	ClockKHz          uint32 `json:"clock_khz"`    // pauses for throttling included
	MaxClockKHz       uint32 `json:"max_clock_khz"`
	CoreUtilization   uint32 `json:"core_utilization"` // ‰
	DMAUtilization    uint32 `json:"dma_utilization"`  // ‰
	ThrottleLevel     uint32 `json:"throttle_level"`   // 0 to 3; at 3 no command starts
	Threshold1        int32  `json:"threshold_1"`      // m°C
	Threshold2        int32  `json:"threshold_2"`      // m°C
	ThresholdCritical int32  `json:"threshold_critical"`
}

// VMInfo is about a file's address space (§11).
type VMInfo struct {
	Start         uint64 `json:"start"` // of the part that Bind takes
	End           uint64 `json:"end"`
	PageSize      uint32 `json:"page_size"`
	LargePageSize uint32 `json:"large_page_size"` // aligned to which memory needs fewer translations
	MaxOps        uint32 `json:"max_ops"`
	MaxMappings   uint32 `json:"max_mappings"`
	Mappings      uint32 `json:"mappings"` // at the moment
	_             uint32
	TableBytes    uint64 `json:"table_bytes"`
}

// Fault is the last access of a file that was refused (§11.5).
type Fault struct {
	Count   uint64 `json:"count"` // of the file; 0 if there was none, as is all else
	Address uint64 `json:"address"`
	Seqno   uint64 `json:"seqno"`
	Command uint32 `json:"command"` // its index in the job
	Queue   uint32 `json:"queue"`
	Entry   uint32 `json:"entry"` // of the ring
	Status  Status `json:"status"`
	Access  uint32 `json:"access"` // 1 read, 2 write, 3 execute
	Reason  uint32 `json:"reason"` // 1 not present, 2 permission, 3 reserved, 4 table, 5 target, 6 range
	Engine  uint32 `json:"engine"` // 0 command processor, 1 DMA, 2 core load, 3 core store
	_       uint32
}

// JobStatus is what became of a job.
type JobStatus struct {
	Seqno   uint64   `json:"seqno"`
	State   JobState `json:"state"`
	Errno   int32    `json:"error"`   // 0 or a negative error number
	Command uint32   `json:"command"` // that failed first, or the last one
	Status  Status   `json:"status"`  // of that command (§9.1)
	Result  uint32   `json:"result"`  // of that command (§4.9, §4.10)
	_       uint32
	Info    uint64 `json:"info"` // of that command

	// Interface 1.3.
	Cycles uint64 `json:"cycles"` // of its commands together (§13.8.2); 0 if the device counts none
	Time   uint64 `json:"time"`   // model time at its end, cycles since the device's last reset; 0 if there is none
}

type vmOp struct {
	Type    uint32 `json:"type"`
	Flags   uint32 `json:"flags"`
	Handle  uint32 `json:"handle"`
	_       uint32
	Offset  uint64 `json:"offset"`
	Address uint64 `json:"address"`
	Size    uint64 `json:"size"`
}

type vmBind struct {
	Ops   array  `json:"ops"`
	Flags uint64 `json:"flags"`
}

type boCreate struct {
	Size       uint64    `json:"size"`
	Placement  Placement `json:"placement"`
	Flags      uint32    `json:"flags"`
	Handle     uint32    `json:"handle"`
	_          uint32
	MmapOffset uint64 `json:"mmap_offset"`
}

type binding struct {
	Handle uint32 `json:"handle"`
	Flags  uint32 `json:"flags"`
	Offset uint64 `json:"offset"`
	Size   uint64 `json:"size"`
}

// The union of command is a copies, which is longer, or a launch.
type launch struct {
	ProgramHandle uint32 `json:"program_handle"`
	ProgramSize   uint32 `json:"program_size"`
	ProgramOffset uint64 `json:"program_offset"`
	Bindings      array  `json:"bindings"`
	ProfileHandle uint32 `json:"profile_handle"`
	_             uint32
	ProfileOffset uint64 `json:"profile_offset"`
}

type copies struct {
	SrcHandle  uint32 `json:"src_handle"`
	DstHandle  uint32 `json:"dst_handle"`
	SrcOffset  uint64 `json:"src_offset"`
	DstOffset  uint64 `json:"dst_offset"`
	NX         uint32 `json:"nx"`
	NY         uint32 `json:"ny"`
	NZ         uint32 `json:"nz"`
	_          uint32
	SrcStrideY uint64 `json:"src_stride_y"`
	SrcStrideZ uint64 `json:"src_stride_z"`
	DstStrideY uint64 `json:"dst_stride_y"`
	DstStrideZ uint64 `json:"dst_stride_z"`
}

type command struct {
	Type  uint32 `json:"type"`
	Flags uint32 `json:"flags"`
	Union copies `json:"copy"`
}

type syncPoint struct {
	Handle uint32 `json:"handle"`
	Flags  uint32 `json:"flags"`
	Point  uint64 `json:"point"`
}

type queueCreate struct {
	Priority  uint32 `json:"priority"`
	Flags     uint32 `json:"flags"`
	Queue     uint32 `json:"queue"`
	TimeoutMS uint32 `json:"timeout_ms"`
	Weight    uint32 `json:"weight"`
	_         uint32
}

type queueDestroy struct {
	Queue uint32 `json:"queue"`
	_     uint32
}

type submit struct {
	Commands array  `json:"commands"`
	InSyncs  array  `json:"in_syncs"`
	OutSyncs array  `json:"out_syncs"`
	Flags    uint32 `json:"flags"`
	Queue    uint32 `json:"queue"`
	Seqno    uint64 `json:"seqno"`
}

// Of drm.h:

type drmVersion struct {
	Major   int32   `json:"version_major"`
	Minor   int32   `json:"version_minor"`
	Patch   int32   `json:"version_patchlevel"`
	NameLen uintptr `json:"name_len"`
	Name    *byte   `json:"name"`
	DateLen uintptr `json:"date_len"`
	Date    *byte   `json:"date"`
	DescLen uintptr `json:"desc_len"`
	Desc    *byte   `json:"desc"`
}

type gemClose struct {
	Handle uint32 `json:"handle"`
	_      uint32
}

type primeHandle struct {
	Handle uint32 `json:"handle"`
	Flags  uint32 `json:"flags"`
	FD     int32  `json:"fd"`
}

type syncobjCreate struct {
	Handle uint32 `json:"handle"`
	Flags  uint32 `json:"flags"`
}

type syncobjDestroy struct {
	Handle uint32 `json:"handle"`
	_      uint32
}

type syncobjWait struct {
	Handles       uint64 `json:"handles"`
	TimeoutNS     int64  `json:"timeout_nsec"`
	CountHandles  uint32 `json:"count_handles"`
	Flags         uint32 `json:"flags"`
	FirstSignaled uint32 `json:"first_signaled"`
	_             uint32
	DeadlineNS    uint64 `json:"deadline_nsec"`
}

type timelineWait struct {
	Handles       uint64 `json:"handles"`
	Points        uint64 `json:"points"`
	TimeoutNS     int64  `json:"timeout_nsec"`
	CountHandles  uint32 `json:"count_handles"`
	Flags         uint32 `json:"flags"`
	FirstSignaled uint32 `json:"first_signaled"`
	_             uint32
	DeadlineNS    uint64 `json:"deadline_nsec"`
}

type syncobjArray struct {
	Handles      uint64 `json:"handles"`
	CountHandles uint32 `json:"count_handles"`
	_            uint32
}

type timelineArray struct {
	Handles      uint64 `json:"handles"`
	Points       uint64 `json:"points"`
	CountHandles uint32 `json:"count_handles"`
	Flags        uint32 `json:"flags"`
}
