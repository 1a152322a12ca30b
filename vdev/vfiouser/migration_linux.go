// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// migration is a device's place in the state machine of linux/vfio.h.
type migration struct {
	dev   Migrator // nil: the device cannot be migrated
	flags MigrationFlags
	state MigrationState
}

func newMigration(b Backend) migration {
	m := migration{state: MigrationRunning}
	if dev, ok := b.(Migrator); ok {
		m.dev, m.flags = dev, dev.MigrationFlags()
		if m.flags&MigrationCanStopCopy == 0 {
			panic("vfiouser: BUG: a Migrator without MigrationCanStopCopy")
		}
	}
	return m
}

// arcs returns the states that one step leads to from s.
func (m *migration) arcs(s MigrationState) []MigrationState {
	p2p, pre := m.flags&MigrationCanP2P != 0, m.flags&MigrationCanPreCopy != 0
	type list = []MigrationState
	switch s {
	case MigrationStop:
		if p2p {
			return list{MigrationRunningP2P, MigrationStopCopy, MigrationResuming}
		}
		return list{MigrationRunning, MigrationStopCopy, MigrationResuming}
	case MigrationStopCopy, MigrationResuming:
		return list{MigrationStop}
	case MigrationRunning:
		to := list{MigrationStop}
		if p2p {
			to[0] = MigrationRunningP2P
		}
		if pre {
			to = append(to, MigrationPreCopy)
		}
		return to
	case MigrationPreCopy:
		if p2p {
			return list{MigrationRunning, MigrationPreCopyP2P}
		}
		return list{MigrationRunning, MigrationStopCopy}
	case MigrationRunningP2P:
		to := list{MigrationRunning, MigrationStop}
		if pre {
			to = append(to, MigrationPreCopyP2P)
		}
		return to
	case MigrationPreCopyP2P:
		return list{MigrationPreCopy, MigrationRunningP2P, MigrationStopCopy}
	}
	return nil
}

// path returns the shortest way to a state, without where it starts. A saving state
// lies on the way only if the session of reading goes on to the end. There is none
// from STOP_COPY back to the PRE_COPY states, and none to or from ERROR.
func (m *migration) path(to MigrationState) []MigrationState {
	session := m.state.Saving() && to.Saving()
	if m.state == MigrationStopCopy && session {
		return nil
	}
	var from [numMigrationStates]MigrationState // ERROR: not reached
	for queue := []MigrationState{m.state}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if s == to {
			var way []MigrationState
			for ; s != m.state; s = from[s] {
				way = append(way, s)
			}
			slices.Reverse(way)
			return way
		}
		if s.Saving() && s != m.state && !session {
			continue
		}
		for _, next := range m.arcs(s) {
			if from[next] == MigrationError && next != m.state {
				from[next] = s
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// set takes the device to a state. After an error it is where it got to.
func (m *migration) set(to MigrationState) error {
	if to == m.state && to != MigrationError {
		return nil
	}
	way := m.path(to)
	if way == nil {
		return refuse(unix.EINVAL, "DEVICE_FEATURE: no way from %v to %v; the device has flags %#x, and only a reset leads out of ERROR", m.state, to, uint64(m.flags))
	}
	for _, next := range way {
		if err := m.dev.SetMigrationState(m.state, next); err != nil {
			at := m.state
			if errors.Is(err, ErrMigrationLost) {
				m.state = MigrationError
			}
			return refuse(errnoOf(err), "DEVICE_FEATURE: the device does not go from %v to %v: %v; it is in %v", at, next, err, m.state)
		}
		m.state = next
	}
	return nil
}

// stopped refuses, if the server is strict, what libvfio-user refuses in the states
// STOP and STOP_COPY. linux/vfio.h knows no such rule: only the device stands still.
func (c *conn) stopped(cmd Command) error {
	state := c.s.migration.state
	if !c.s.cfg.Strict || state != MigrationStop && state != MigrationStopCopy {
		return nil
	}
	switch cmd {
	case cmdRegionRead, cmdRegionWrite, cmdFeature, cmdMigDataRead:
		return nil
	}
	return refuse(unix.EINVAL, "%v in state %v; strictly, only regions, features and MIG_DATA_READ are served there", cmd, state)
}

// migData checks the fixed part of MIG_DATA_READ and MIG_DATA_WRITE, and returns the
// number of bytes to move, at most limit.
func (c *conn) migData(cmd Command, body []byte, allowed bool, limit int) (int, error) {
	if len(body) < migDataSize {
		return 0, refuse(unix.EINVAL, "%v has %d bytes of payload; it needs %d", cmd, len(body), migDataSize)
	}
	argsz, size := order.Uint32(body), order.Uint32(body[4:])
	switch {
	case c.s.migration.dev == nil:
		return 0, refuse(unix.EINVAL, "%v: the device cannot be migrated; probe DEVICE_FEATURE first", cmd)
	case !allowed:
		return 0, refuse(unix.EINVAL, "%v in state %v; read in PRE_COPY and STOP_COPY, write in RESUMING", cmd, c.s.migration.state)
	case uint64(size) > uint64(limit):
		return 0, refuse(unix.EINVAL, "%v of %d bytes; move at most %d at once", cmd, size, limit)
	case uint64(argsz) < migDataSize+uint64(size):
		return 0, refuse(unix.EINVAL, "%v of %d bytes has argsz %d; it needs %d", cmd, size, argsz, migDataSize+size)
	}
	return int(size), nil
}

func (c *conn) migDataRead(body []byte) error {
	m := &c.s.migration
	size, err := c.migData(cmdMigDataRead, body, m.state.Saving(), c.peerData)
	if err != nil {
		return err
	}
	at := len(c.out)
	c.out = slices.Grow(c.out, migDataSize+size)[:at+migDataSize+size]
	n, err := m.dev.ReadMigration(c.out[at+migDataSize:])
	if err != nil {
		return refuse(errnoOf(err), "MIG_DATA_READ: %v", err)
	}
	if n < 0 || n > size {
		panic("vfiouser: BUG: ReadMigration returned more than there was room for")
	}
	if clear(c.out[at+migDataSize+n:]); !c.s.cfg.Strict { // libvfio-user's client wants as much as it asked for
		c.out = c.out[:at+migDataSize+n]
	}
	order.PutUint32(c.out[at:], migDataSize+uint32(n))
	order.PutUint32(c.out[at+4:], uint32(n))
	return nil
}

func (c *conn) migDataWrite(body []byte) error {
	m := &c.s.migration
	limit := maxData
	if c.s.cfg.Strict {
		limit = c.peerData
	}
	size, err := c.migData(cmdMigDataWrite, body, m.state == MigrationResuming, limit)
	if err != nil {
		return err
	}
	data := body[migDataSize:]
	if len(data) != size {
		return refuse(unix.EINVAL, "MIG_DATA_WRITE has %d bytes of data and a size of %d", len(data), size)
	}
	if err := m.dev.WriteMigration(data); err != nil {
		return refuse(errnoOf(err), "MIG_DATA_WRITE: %v", err)
	}
	return nil
}
