// SPDX-License-Identifier: Apache-2.0

package npureg

// Kinds of a record of the error log (§12.3).
const (
	ErrorCorrected   = 1 // CORRECTED: a memory error was corrected
	ErrorUncorrected = 2 // UNCORRECTED: a memory error made a granule poisoned
	ErrorPoison      = 3 // POISON: a command met poison
	ErrorThermal     = 4 // THERMAL: the throttle level changed
	ErrorEngineReset = 5 // ENGINE_RESET: RESET_ENGINE was carried out
	ErrorFirmware    = 6 // FIRMWARE: the control processor failed
)

// Units of a record of the error log, and in the info of POISON (§12.2).
const (
	UnitDRAM       = 0
	UnitScratchpad = 1
	UnitCore       = 2
	UnitDMA        = 3
	UnitCP         = 4 // control processor
	UnitThermal    = 5 // temperature sensor
)

// Layout of the error log and of the firmware log (§12.3, §12.7).
const (
	LogHeaderSize   = 32
	ErrorRecordSize = 32
	ErrorLogRecords = 64 // that are kept
	ErrorCommand    = 1 << 0
	FWLogEntrySize  = 128
	FWLogEntries    = 64
)

// Sensors, CP_SENSOR_INDEX and log page 4 (§12.4), in this order.
const (
	SensorUptime = iota
	SensorTemperature
	SensorAmbient
	SensorClock
	SensorMaxClock
	SensorCoreUtilization
	SensorDMAUtilization
	SensorCoreBusy
	SensorDMABusy
	SensorThrottle
	SensorPower
	SensorThermal1
	SensorThermal2
	SensorThermalCritical
	SensorCount
)

// Thresholds in m°C (§12.5): what they are after a reset of the control processor, what the critical one may be at most, and
// how far below its threshold the temperature ends a level.
const (
	ThermalDefault1        = 85_000
	ThermalDefault2        = 95_000
	ThermalDefaultCritical = 105_000
	ThermalMax             = 125_000
	ThermalHysteresis      = 3_000

	ThrottleCritical = 3 // level at which no command starts
)

// Engines, RESET_ENGINE and CP_ENGINE_RESET (§12.6).
const (
	EngineCore = 1 << 0
	EngineDMA  = 1 << 1
	EngineAll  = EngineCore | EngineDMA
)

// Crash dump (§12.8): its magic ("NPUC"), version, and the offsets of its parts.
const (
	CrashMagic   = 0x4355504e
	CrashVersion = 1
	CrashCSRs    = 0x40
	CrashRegs    = 0x80
	CrashStack   = 0x100
	CrashQueues  = 0x200
	CrashQueue   = 16 // bytes of a queue
)

func rasGroups() []Group {
	return []Group{
		{"NPU_ERROR_", "Error log (§12.3).", []Named{{"CORRECTED", ErrorCorrected}, {"UNCORRECTED", ErrorUncorrected}, {"POISON", ErrorPoison},
			{"THERMAL", ErrorThermal}, {"ENGINE_RESET", ErrorEngineReset}, {"FIRMWARE", ErrorFirmware},
			{"RECORD_SIZE", ErrorRecordSize}, {"LOG_RECORDS", ErrorLogRecords}, {"FLAG_COMMAND", ErrorCommand}}},
		{"NPU_UNIT_", "Units of error records (§12.3).", []Named{{"DRAM", UnitDRAM}, {"SCRATCHPAD", UnitScratchpad}, {"CORE", UnitCore},
			{"DMA", UnitDMA}, {"CP", UnitCP}, {"THERMAL", UnitThermal}}},
		{"NPU_LOG_", "Log pages (§4.7, §12).", []Named{{"HEADER_SIZE", LogHeaderSize}, {"FW_ENTRY_SIZE", FWLogEntrySize}, {"FW_ENTRIES", FWLogEntries}}},
		{"NPU_SENSOR_", "Sensors (§12.4).", []Named{{"UPTIME", SensorUptime}, {"TEMPERATURE", SensorTemperature}, {"AMBIENT", SensorAmbient},
			{"CLOCK", SensorClock}, {"MAX_CLOCK", SensorMaxClock}, {"CORE_UTILIZATION", SensorCoreUtilization}, {"DMA_UTILIZATION", SensorDMAUtilization},
			{"CORE_BUSY", SensorCoreBusy}, {"DMA_BUSY", SensorDMABusy}, {"THROTTLE", SensorThrottle}, {"POWER", SensorPower},
			{"THERMAL_1", SensorThermal1}, {"THERMAL_2", SensorThermal2}, {"THERMAL_CRITICAL", SensorThermalCritical}, {"COUNT", SensorCount}}},
		{"NPU_THERMAL_", "Temperatures in m°C, and the critical level (§12.5).", []Named{{"DEFAULT_1", ThermalDefault1}, {"DEFAULT_2", ThermalDefault2},
			{"DEFAULT_CRITICAL", ThermalDefaultCritical}, {"MAX", ThermalMax}, {"HYSTERESIS", ThermalHysteresis}, {"LEVEL_CRITICAL", ThrottleCritical}}},
		{"NPU_ENGINE_", "Engines (§12.6).", []Named{{"CORE", EngineCore}, {"DMA", EngineDMA}, {"ALL", EngineAll}}},
		{"NPU_CRASH_DUMP_", "Crash dump (§12.8).", []Named{{"MAGIC", CrashMagic}, {"VERSION", CrashVersion}, {"CSRS", CrashCSRs}, {"REGS", CrashRegs},
			{"STACK", CrashStack}, {"QUEUES", CrashQueues}, {"QUEUE_SIZE", CrashQueue}}},
	}
}
