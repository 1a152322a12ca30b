// SPDX-License-Identifier: Apache-2.0

//go:build linux

package alarm

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"npuemu/vdev/vfiouser"
)

// MigrationFlags says that the function can be copied while it runs.
func (d *Device) MigrationFlags() vfiouser.MigrationFlags {
	return vfiouser.MigrationCanStopCopy | vfiouser.MigrationCanPreCopy
}

// SetMigrationState stops and starts the alarm, and makes or takes over the state.
// PRE_COPY gives BAR1 as it was at the beginning, STOP_COPY all of it: what changed in
// between is not told apart.
func (d *Device) SetMigrationState(from, to vfiouser.MigrationState) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !running(to) && d.busy {
		return errBusy
	}
	if from == vfiouser.MigrationResuming {
		if len(d.stream) != StateSize {
			return fmt.Errorf("alarm: the state has %d bytes, %d came: %w", StateSize, len(d.stream), unix.EINVAL)
		}
		copy(d.memory, d.stream)
		d.alarm = int64(binary.LittleEndian.Uint64(d.stream[memorySize:]))
	}
	d.stream = nil
	if to.Saving() {
		d.stream = append(d.stream, d.memory...)
	}
	if to == vfiouser.MigrationStopCopy {
		d.stream = binary.LittleEndian.AppendUint64(d.stream, uint64(d.alarm))
	}
	switch {
	case !running(to):
		d.disarmLocked()
	case !running(from):
		d.armLocked()
	}
	d.state = to
	d.log.Debug("migration", "from", from, "to", to)
	return nil
}

// ReadMigration gives the next bytes of the state.
func (d *Device) ReadMigration(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(p, d.stream)
	d.stream = d.stream[n:]
	return n, nil
}

// WriteMigration takes the next bytes of a state.
func (d *Device) WriteMigration(p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(p) > StateSize-len(d.stream) {
		return fmt.Errorf("alarm: the state has %d bytes, %d came: %w", StateSize, len(d.stream)+len(p), unix.EINVAL)
	}
	d.stream = append(d.stream, p...)
	return nil
}
