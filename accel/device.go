// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"sync"

	"golang.org/x/sys/unix"
)

// A Version is major in bits 31:16, minor in 15:0.
type Version uint32

func (v Version) String() string { return fmt.Sprintf("%d.%d", v>>16, v&0xffff) }

// MarshalText returns "1.2".
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A Build is major in bits 31:24, minor in 23:16, patch in 15:0.
type Build uint32

func (b Build) String() string { return fmt.Sprintf("%d.%d.%d", b>>24, b>>16&0xff, b&0xffff) }

// MarshalText returns "0.3.0".
func (b Build) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// A Name is padded with NUL.
type Name [32]byte

func (n Name) String() string { return string(bytes.TrimRight(n[:], "\x00")) }

// MarshalText returns the name without its padding.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// A Device is an open file of the driver.
type Device struct {
	fd      int
	path    string
	version Version
	queue   *Queue

	mu      sync.Mutex
	handles map[uint32]int // guarded by mu: Buffers by handle, since an import may be a buffer that the file has
}

// Open opens the first NPU of /dev/accel.
func Open() (*Device, error) {
	paths, err := filepath.Glob("/dev/accel/accel*")
	if err != nil {
		return nil, fmt.Errorf("accel: %w", err)
	}
	errs := []error{fmt.Errorf("accel: no device of driver %s %d.x in /dev/accel: %w", driverName, driverMajor, unix.ENODEV)}
	for _, path := range paths {
		d, err := OpenPath(path)
		if err == nil {
			return d, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// OpenPath opens a device by its path. It refuses one of another driver, or of
// another major version of its interface, with ENODEV.
func OpenPath(path string) (*Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("accel: open %s: %w", path, err)
	}
	d := &Device{fd: fd, path: path, handles: map[uint32]int{}}
	if err := d.check(); err != nil {
		_ = unix.Close(fd) // there is a better error
		return nil, fmt.Errorf("accel: open %s: %w", path, err)
	}
	return d, nil
}

// check asks whose device it is, and gives queue 0 its timeline.
func (d *Device) check() error {
	var name [32]byte
	v := drmVersion{NameLen: uintptr(len(name)), Name: &name[0]}
	if err := call(d, reqVersion, &v); err != nil {
		return fmt.Errorf("not a DRM device: %w", err)
	}
	if n := string(name[:min(int(v.NameLen), len(name))]); n != driverName || v.Major != driverMajor {
		return fmt.Errorf("driver %s %d.%d, need %s %d.x: %w", n, v.Major, v.Minor, driverName, driverMajor, unix.ENODEV)
	}
	d.version = Version(v.Major<<16 | v.Minor&0xffff)
	timeline, err := d.NewSyncobj()
	if err != nil {
		return err
	}
	d.queue = &Queue{d: d, timeline: timeline}
	return nil
}

// Close closes the file: buffers, queues and syncobjs go with it, jobs that run are
// ended. Memory that is mapped stays until its Buffer is closed.
func (d *Device) Close() error {
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("accel: close %s: %w", d.path, err)
	}
	return nil
}

// Path returns the path that was opened.
func (d *Device) Path() string { return d.path }

// Version returns the version of the driver's interface.
func (d *Device) Version() Version { return d.version }

// Queue returns the queue that every file has. The device makes it with its first job.
func (d *Device) Queue() *Queue { return d.queue }

// Info asks what the device is.
func (d *Device) Info() (Info, error) {
	i, err := ask[Info](d, queryInfo, 0)
	if err != nil {
		err = fmt.Errorf("accel: device info: %w", err)
	}
	return i, err
}

// Counters reads the device's counters.
func (d *Device) Counters() (Counters, error) {
	c, err := ask[Counters](d, queryCounters, 0)
	if err != nil {
		err = fmt.Errorf("accel: counters: %w", err)
	}
	return c, err
}

// Since returns what was counted since before was read.
func (c Counters) Since(before Counters) Counters {
	now, then := reflect.ValueOf(&c).Elem(), reflect.ValueOf(before)
	for i := range now.NumField() {
		now.Field(i).SetUint(now.Field(i).Uint() - then.Field(i).Uint())
	}
	return c
}

// Telemetry reads how the device is (interface 1.2). EOPNOTSUPP: it does not say.
func (d *Device) Telemetry() (Telemetry, error) {
	if err := d.needs(version12, "telemetry"); err != nil {
		return Telemetry{}, err
	}
	t, err := ask[Telemetry](d, queryTelemetry, 0)
	if err != nil {
		err = fmt.Errorf("accel: telemetry: %w", err)
	}
	return t, err
}

const (
	version12 Version = 1<<16 | 2
	version13 Version = 1<<16 | 3
)

// needs is the error, EOPNOTSUPP, for what a driver older than v does not know.
func (d *Device) needs(v Version, what string) error {
	if d.version >= v {
		return nil
	}
	return fmt.Errorf("accel: %s: needs interface %v, the driver has %v: %w", what, v, d.version, unix.EOPNOTSUPP)
}
