// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"npuemu/tests/guest"
)

// structures are ours beside those of C.
var structures = map[string]any{
	"drm_npu_array": array{}, "drm_npu_query": query{}, "drm_npu_device_info": Info{}, "drm_npu_counters": Counters{}, "drm_npu_telemetry": Telemetry{},
	"drm_npu_job_status": JobStatus{}, "drm_npu_bo_create": boCreate{}, "drm_npu_binding": binding{}, "drm_npu_launch": launch{},
	"drm_npu_copy": copies{}, "drm_npu_command": command{}, "drm_npu_sync": syncPoint{}, "drm_npu_queue_create": queueCreate{},
	"drm_npu_queue_destroy": queueDestroy{}, "drm_npu_submit": submit{},
	"drm_npu_vm_info": VMInfo{}, "drm_npu_fault": Fault{}, "drm_npu_vm_op": vmOp{}, "drm_npu_vm_bind": vmBind{},
	"drm_version": drmVersion{}, "drm_gem_close": gemClose{}, "drm_prime_handle": primeHandle{}, "drm_syncobj_create": syncobjCreate{},
	"drm_syncobj_destroy": syncobjDestroy{}, "drm_syncobj_wait": syncobjWait{}, "drm_syncobj_timeline_wait": timelineWait{},
	"drm_syncobj_array": syncobjArray{}, "drm_syncobj_timeline_array": timelineArray{},
}

// values are ours by the name in C.
var values = map[string]uint64{
	"DRM_IOCTL_NPU_VM_BIND":                  uint64(reqNPUVMBind.number(unsafe.Sizeof(vmBind{}))),
	"DRM_NPU_QUERY_VM":                       queryVM,
	"DRM_NPU_QUERY_FAULT":                    queryFault,
	"DRM_NPU_COMMAND_VA":                     commandVA,
	"DRM_NPU_COMMAND_PROFILE":                commandProfile,
	"DRM_NPU_PROFILE_SIZE":                   ProfileSize,
	"DRM_NPU_VM_MAP":                         vmMap,
	"DRM_NPU_VM_UNMAP":                       vmUnmap,
	"DRM_NPU_VM_READ":                        vmRead,
	"DRM_NPU_VM_WRITE":                       vmWrite,
	"DRM_NPU_VM_EXEC":                        vmExec,
	"DRM_IOCTL_VERSION":                      uint64(reqVersion.number(unsafe.Sizeof(drmVersion{}))),
	"DRM_IOCTL_GEM_CLOSE":                    uint64(reqGEMClose.number(unsafe.Sizeof(gemClose{}))),
	"DRM_IOCTL_PRIME_HANDLE_TO_FD":           uint64(reqHandleToFD.number(unsafe.Sizeof(primeHandle{}))),
	"DRM_IOCTL_PRIME_FD_TO_HANDLE":           uint64(reqFDToHandle.number(unsafe.Sizeof(primeHandle{}))),
	"DRM_IOCTL_SYNCOBJ_CREATE":               uint64(reqSyncobjCreate.number(unsafe.Sizeof(syncobjCreate{}))),
	"DRM_IOCTL_SYNCOBJ_DESTROY":              uint64(reqSyncobjDestroy.number(unsafe.Sizeof(syncobjDestroy{}))),
	"DRM_IOCTL_SYNCOBJ_WAIT":                 uint64(reqSyncobjWait.number(unsafe.Sizeof(syncobjWait{}))),
	"DRM_IOCTL_SYNCOBJ_SIGNAL":               uint64(reqSyncobjSignal.number(unsafe.Sizeof(syncobjArray{}))),
	"DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT":        uint64(reqTimelineWait.number(unsafe.Sizeof(timelineWait{}))),
	"DRM_IOCTL_SYNCOBJ_QUERY":                uint64(reqSyncobjQuery.number(unsafe.Sizeof(timelineArray{}))),
	"DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL":      uint64(reqTimelineSignal.number(unsafe.Sizeof(timelineArray{}))),
	"DRM_IOCTL_NPU_QUERY":                    uint64(reqNPUQuery.number(unsafe.Sizeof(query{}))),
	"DRM_IOCTL_NPU_BO_CREATE":                uint64(reqNPUBOCreate.number(unsafe.Sizeof(boCreate{}))),
	"DRM_IOCTL_NPU_SUBMIT":                   uint64(reqNPUSubmit.number(unsafe.Sizeof(submit{}))),
	"DRM_IOCTL_NPU_QUEUE_DESTROY":            uint64(reqNPUQueueDestroy.number(unsafe.Sizeof(queueDestroy{}))),
	"DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT": waitForSubmit,
	"DRM_NPU_VERSION_MAJOR":                  driverMajor,
	"DRM_NPU_QUERY_DEVICE_INFO":              queryInfo,
	"DRM_NPU_QUERY_COUNTERS":                 queryCounters,
	"DRM_NPU_QUERY_TELEMETRY":                queryTelemetry,
	"DRM_IOCTL_NPU_QUEUE_CREATE":             uint64(reqNPUQueueCreate.number(unsafe.Sizeof(queueCreate{}))),
	"DRM_NPU_QUERY_JOB":                      queryJob,
	"DRM_NPU_JOB_PENDING":                    uint64(Pending),
	"DRM_NPU_JOB_DONE":                       uint64(Done),
	"DRM_NPU_JOB_FAILED":                     uint64(Failed),
	"DRM_NPU_PLACEMENT_DEVICE":               uint64(DeviceMemory),
	"DRM_NPU_PLACEMENT_SYSTEM":               uint64(SystemMemory),
	"DRM_NPU_BINDING_READ":                   bindingRead,
	"DRM_NPU_BINDING_WRITE":                  bindingWrite,
	"DRM_NPU_COMMAND_NOP":                    commandNop,
	"DRM_NPU_COMMAND_COPY":                   commandCopy,
	"DRM_NPU_COMMAND_LAUNCH":                 commandLaunch,
}

// TestStructures asks a C compiler about each structure, field, ioctl and value. A structure of the header may
// be longer than ours, since a new minor version only appends.
func TestStructures(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	header, err := os.ReadFile("../driver/uapi/npu_accel.h")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{}
	var c strings.Builder
	c.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include \"npu_accel.h\"\nint main(void)\n{\n")
	say := func(name, expr string, v uint64) {
		fmt.Fprintf(&c, "\tprintf(\"%s=%%llu\\n\", (unsigned long long)(%s));\n", name, expr)
		want[name] = v
	}
	for name, s := range structures {
		typ := reflect.TypeOf(s)
		say("sizeof "+name, "sizeof(struct "+name+")", uint64(typ.Size()))
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Name == "_" {
				continue
			}
			field := f.Tag.Get("json")
			if field == "" {
				t.Errorf("%s.%s has no tag", typ, f.Name)
			}
			say(name+"."+field, "offsetof(struct "+name+", "+field+")", uint64(f.Offset))
			if field != "copy" { // the member of a union that is not the longest
				say("sizeof "+name+"."+field, "sizeof(((struct "+name+" *)0)->"+field+")", uint64(f.Type.Size()))
			}
		}
	}
	for name, v := range values {
		say(name, name, v)
	}
	c.WriteString("\treturn 0;\n}\n")
	for name, text := range map[string]string{"npu_accel.h": string(header), "probe.c": c.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := e.Run(t.Context(), dir, "", "sh", "-c", "gcc -Wall -Wextra -Werror -std=c11 -I. -o probe probe.c && ./probe")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); seen++ {
		var got uint64
		name, value, _ := strings.Cut(s.Text(), "=")
		if _, err := fmt.Sscan(value, &got); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		size, isSize := strings.CutPrefix(name, "sizeof ")
		switch w := want[name]; {
		case got == w:
		case isSize && structures[size] != nil && got > w:
			t.Logf("%s: %d bytes in the header, %d here", size, got, w)
		default:
			t.Errorf("%s: %d in C, %d in Go", name, got, w)
		}
	}
	if seen != len(want) {
		t.Errorf("%d answers to %d questions", seen, len(want))
	}
}
