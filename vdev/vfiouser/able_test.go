// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
)

// able is a fake that can do everything that a Backend may do besides. Its state is
// BAR0: pages of 4 KiB, which go out with their numbers in front, those that were
// written since, again, and the end mark when it stands still.
type able struct {
	*fake
	flags  MigrationFlags
	events map[int][]IOEvent

	mu    sync.Mutex
	state MigrationState
	arcs  []string // as SetMigrationState was called
	fail  error    // what the next call of a Migrator method returns
	dirty map[int]bool
	out   bytes.Buffer // read out, but not fetched
	in    bytes.Buffer // written
	ended bool         // the end mark is in out
}

const (
	statePage = 4096
	stateEnd  = 0xffffffff
)

func newAble(t testing.TB, flags MigrationFlags) *able {
	return &able{fake: newFake(t), flags: flags | MigrationCanStopCopy, state: MigrationRunning, dirty: make(map[int]bool)}
}

func (a *able) DMATable() *iova.Table          { return &a.table }
func (a *able) MigrationFlags() MigrationFlags { return a.flags }
func (a *able) IOEvents(index int) []IOEvent   { return a.events[index] }

func (a *able) WriteRegion(index int, off uint64, p []byte) error {
	a.mu.Lock()
	if index == 0 && len(p) > 0 {
		for page := off / statePage; page <= (off+uint64(len(p))-1)/statePage; page++ {
			a.dirty[int(page)] = true
		}
	}
	a.mu.Unlock()
	return a.fake.WriteRegion(index, off, p)
}

func (a *able) failed() error {
	err := a.fail
	a.fail = nil
	return err
}

func (a *able) SetMigrationState(from, to MigrationState) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.arcs = append(a.arcs, fmt.Sprintf("%v %v", from, to))
	if from != a.state {
		return fmt.Errorf("from %v, but the device is in %v", from, a.state)
	}
	if err := a.failed(); err != nil {
		return err
	}
	if to.Saving() && !from.Saving() {
		a.out.Reset()
		a.ended = false
		for page := range len(a.mem[0]) / statePage {
			a.dirty[page] = true
		}
	}
	if to == MigrationResuming {
		a.in.Reset()
	}
	if from == MigrationResuming {
		if err := a.restore(); err != nil {
			return err
		}
	}
	a.state = to
	return nil
}

// restore takes over what was written.
func (a *able) restore() error {
	mem := make([]byte, len(a.mem[0]))
	b := a.in.Bytes()
	for {
		if len(b) < 4 {
			return fmt.Errorf("the state ends without its end mark: %w", unix.EINVAL)
		}
		page := order.Uint32(b)
		if page == stateEnd {
			break
		}
		if b = b[4:]; len(b) < statePage || int(page) >= len(mem)/statePage {
			return fmt.Errorf("page %d with %d bytes: %w", page, len(b), unix.EINVAL)
		}
		copy(mem[page*statePage:], b[:statePage])
		b = b[statePage:]
	}
	a.fake.mu.Lock()
	defer a.fake.mu.Unlock()
	copy(a.mem[0], mem)
	return nil
}

func (a *able) ReadMigration(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.failed(); err != nil {
		return 0, err
	}
	if a.out.Len() < len(p) {
		a.fake.mu.Lock()
		for _, page := range slices.Sorted(maps.Keys(a.dirty)) {
			a.out.Write(order.AppendUint32(nil, uint32(page)))
			a.out.Write(a.mem[0][page*statePage:][:statePage])
		}
		a.fake.mu.Unlock()
		clear(a.dirty)
		if a.state == MigrationStopCopy && !a.ended {
			a.out.Write(order.AppendUint32(nil, stateEnd))
			a.ended = true
		}
	}
	n, _ := a.out.Read(p) // its only error is that it is empty
	return n, nil
}

func (a *able) WriteMigration(p []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.failed(); err != nil {
		return err
	}
	a.in.Write(p)
	return nil
}

func (a *able) Reset() error {
	a.mu.Lock()
	a.state = MigrationRunning
	a.mu.Unlock()
	return a.fake.Reset()
}

func (a *able) Detach() {
	a.mu.Lock()
	a.state = MigrationRunning
	a.mu.Unlock()
	a.fake.Detach()
}

func (a *able) failNext(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = err
}

// written returns how much WriteMigration took.
func (a *able) written() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.in.Len()
}

func (a *able) took() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	arcs := a.arcs
	a.arcs = nil
	return arcs
}

// attachWith is attach with another offer.
func attachWith(t testing.TB, cfg Config, b Backend, offer Offer) *Client {
	t.Helper()
	c, err := NewClientWith(serve(t, cfg, b), offer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const (
	errState = MigrationError
	stop     = MigrationStop
	running  = MigrationRunning
	stopCopy = MigrationStopCopy
	resuming = MigrationResuming
	runP2P   = MigrationRunningP2P
	preCopy  = MigrationPreCopy
	preP2P   = MigrationPreCopyP2P
)

// The way from each state to each other, for each kind of device, written out from
// linux/vfio.h: the states gone through, "-" where there is no way, and nothing where the
// device is there already.
func TestMigrationArcs(t *testing.T) {
	const no = "-"
	type ways map[MigrationState]map[MigrationState]string
	for _, tt := range []struct {
		name  string
		flags MigrationFlags
		ways  ways
	}{
		{"plain", 0, ways{
			running:  {stop: "STOP", stopCopy: "STOP STOP_COPY", resuming: "STOP RESUMING", preCopy: no, preP2P: no, runP2P: no, errState: no},
			stop:     {running: "RUNNING", stopCopy: "STOP_COPY", resuming: "RESUMING", preCopy: no, preP2P: no, runP2P: no, errState: no},
			stopCopy: {running: "STOP RUNNING", stop: "STOP", resuming: "STOP RESUMING", preCopy: no, preP2P: no, runP2P: no, errState: no},
			resuming: {running: "STOP RUNNING", stop: "STOP", stopCopy: "STOP STOP_COPY", preCopy: no, preP2P: no, runP2P: no, errState: no},
		}},
		{"PRE_COPY", MigrationCanPreCopy, ways{
			running:  {stop: "STOP", stopCopy: "STOP STOP_COPY", resuming: "STOP RESUMING", preCopy: "PRE_COPY", preP2P: no, runP2P: no},
			stop:     {running: "RUNNING", stopCopy: "STOP_COPY", resuming: "RESUMING", preCopy: "RUNNING PRE_COPY"},
			stopCopy: {running: "STOP RUNNING", stop: "STOP", resuming: "STOP RESUMING", preCopy: no},
			resuming: {running: "STOP RUNNING", stop: "STOP", stopCopy: "STOP STOP_COPY", preCopy: "STOP RUNNING PRE_COPY"},
			preCopy:  {running: "RUNNING", stop: "RUNNING STOP", stopCopy: "STOP_COPY", resuming: "RUNNING STOP RESUMING", errState: no},
		}},
		{"P2P", MigrationCanP2P, ways{
			running:  {stop: "RUNNING_P2P STOP", stopCopy: "RUNNING_P2P STOP STOP_COPY", resuming: "RUNNING_P2P STOP RESUMING", runP2P: "RUNNING_P2P", preCopy: no, preP2P: no},
			runP2P:   {running: "RUNNING", stop: "STOP", stopCopy: "STOP STOP_COPY", resuming: "STOP RESUMING", preCopy: no, preP2P: no},
			stop:     {running: "RUNNING_P2P RUNNING", runP2P: "RUNNING_P2P", stopCopy: "STOP_COPY", resuming: "RESUMING"},
			stopCopy: {running: "STOP RUNNING_P2P RUNNING", runP2P: "STOP RUNNING_P2P", stop: "STOP", resuming: "STOP RESUMING"},
			resuming: {running: "STOP RUNNING_P2P RUNNING", runP2P: "STOP RUNNING_P2P", stop: "STOP", stopCopy: "STOP STOP_COPY"},
		}},
		{"P2P and PRE_COPY", MigrationCanP2P | MigrationCanPreCopy, ways{
			running: {
				stop: "RUNNING_P2P STOP", runP2P: "RUNNING_P2P", preCopy: "PRE_COPY", preP2P: "RUNNING_P2P PRE_COPY_P2P",
				stopCopy: "RUNNING_P2P STOP STOP_COPY", resuming: "RUNNING_P2P STOP RESUMING",
			},
			runP2P: {
				running: "RUNNING", stop: "STOP", preCopy: "RUNNING PRE_COPY", preP2P: "PRE_COPY_P2P",
				stopCopy: "STOP STOP_COPY", resuming: "STOP RESUMING",
			},
			preCopy: {
				running: "RUNNING", runP2P: "RUNNING RUNNING_P2P", stop: "RUNNING RUNNING_P2P STOP", preP2P: "PRE_COPY_P2P",
				stopCopy: "PRE_COPY_P2P STOP_COPY", resuming: "RUNNING RUNNING_P2P STOP RESUMING",
			},
			preP2P: {
				running: "RUNNING_P2P RUNNING", runP2P: "RUNNING_P2P", stop: "RUNNING_P2P STOP", preCopy: "PRE_COPY",
				stopCopy: "STOP_COPY", resuming: "RUNNING_P2P STOP RESUMING",
			},
			stop: {
				running: "RUNNING_P2P RUNNING", runP2P: "RUNNING_P2P", preCopy: "RUNNING_P2P RUNNING PRE_COPY",
				preP2P: "RUNNING_P2P PRE_COPY_P2P", stopCopy: "STOP_COPY", resuming: "RESUMING",
			},
			stopCopy: {running: "STOP RUNNING_P2P RUNNING", stop: "STOP", preCopy: no, preP2P: no, resuming: "STOP RESUMING"},
			resuming: {running: "STOP RUNNING_P2P RUNNING", stop: "STOP", preCopy: "STOP RUNNING_P2P RUNNING PRE_COPY", stopCopy: "STOP STOP_COPY"},
		}},
	} {
		for from, row := range tt.ways {
			for to, want := range row {
				m := migration{flags: tt.flags | MigrationCanStopCopy, state: from}
				got := no
				if way := m.path(to); way != nil {
					got = ""
					for i, s := range way {
						if i > 0 {
							got += " "
						}
						got += s.String()
					}
				}
				if got != want {
					t.Errorf("%s: from %v to %v by %q, want %q", tt.name, from, to, got, want)
				}
			}
		}
	}
}

// The device sees each arc; an error leaves it where it got to, or in ERROR, out of which
// only a reset leads.
func TestMigrationState(t *testing.T) {
	a := newAble(t, MigrationCanPreCopy)
	c := attach(t, Config{}, a)
	at := func(want MigrationState) {
		t.Helper()
		if got, err := c.MigrationState(); err != nil || got != want {
			t.Fatalf("the device is in %v, %v, want %v", got, err, want)
		}
	}
	if f, err := c.MigrationFlags(); err != nil || f != MigrationCanStopCopy|MigrationCanPreCopy {
		t.Errorf("flags %#x, %v", f, err)
	}
	at(running)
	if err := errors.Join(c.SetMigrationState(running), c.SetMigrationState(resuming)); err != nil {
		t.Fatal(err)
	}
	at(resuming)
	if diff := cmp.Diff([]string{"RUNNING STOP", "STOP RESUMING"}, a.took()); diff != "" {
		t.Errorf("arcs (-want +got):\n%s", diff)
	}
	if err := c.SetMigrationState(running); !errors.Is(err, unix.EINVAL) {
		t.Errorf("with no state written: %v, want EINVAL", err)
	}
	at(resuming)
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	at(running)

	a.failNext(unix.EBUSY)
	if err := c.SetMigrationState(preCopy); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the device's errno comes back as %v", err)
	}
	at(running)
	a.failNext(fmt.Errorf("smoke: %w", ErrMigrationLost))
	if err := c.SetMigrationState(stop); !errors.Is(err, unix.EIO) {
		t.Errorf("the device is lost: %v, want EIO", err)
	}
	at(errState)
	for s := range MigrationState(numMigrationStates + 1) {
		if err := c.SetMigrationState(s); !errors.Is(err, unix.EINVAL) {
			t.Errorf("from ERROR to %v: %v, want EINVAL", s, err)
		}
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	at(running)
}

// The next client finds the device running, whatever the one before left.
func TestMigrationEndsWithClient(t *testing.T) {
	a := newAble(t, 0)
	s := NewServer(Config{}, a)
	for range 2 {
		c, done := dialServer(t, s)
		if st, err := c.MigrationState(); err != nil || st != running {
			t.Errorf("state %v, %v", st, err)
		}
		if _, err := c.StartLog(4096); err != nil {
			t.Error(err)
		}
		if err := c.SetMigrationState(stopCopy); err != nil {
			t.Fatal(err)
		}
		c.Close()
		<-done
		if a.table.Logging() {
			t.Error("written pages are logged for nobody")
		}
	}
}

// Two servers: the state goes from one to the other while the first still runs, in
// pieces of odd sizes.
func TestMigrateBetweenServers(t *testing.T) {
	for _, flags := range []MigrationFlags{0, MigrationCanPreCopy, MigrationCanPreCopy | MigrationCanP2P} {
		from, to := newAble(t, flags), newAble(t, flags)
		src, dst := attach(t, Config{}, from), attachWith(t, Config{}, to, Offer{MaxMsgFDs: 1, MaxDataXferSize: 999})
		if err := src.WriteRegion(0, 0, bytes.Repeat([]byte("old state"), 1000)); err != nil {
			t.Fatal(err)
		}
		if err := dst.SetMigrationState(resuming); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 5000)
		move := func(limit int) {
			t.Helper()
			for range limit {
				n, err := src.ReadMigration(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := dst.WriteMigration(p[:n]); err != nil {
					t.Fatal(err)
				}
				if n < len(p) {
					return
				}
			}
		}
		if flags&MigrationCanPreCopy != 0 {
			if err := src.SetMigrationState(preCopy); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				move(3)
				if err := src.WriteRegion(0, uint64(i*3000), bytes.Repeat([]byte{byte(i + 1)}, 300)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := src.SetMigrationState(stopCopy); err != nil {
			t.Fatal(err)
		}
		move(1 << 20)
		if n, err := src.ReadMigration(p); n != 0 || err != nil {
			t.Errorf("after the end: %d bytes, %v", n, err)
		}
		if err := errors.Join(src.SetMigrationState(stop), dst.SetMigrationState(running)); err != nil {
			t.Fatal(err)
		}
		a, b := make([]byte, 64<<10), make([]byte, 64<<10)
		if err := errors.Join(src.ReadRegion(0, 0, a), dst.ReadRegion(0, 0, b)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) || bytes.Equal(a, make([]byte, len(a))) {
			t.Errorf("flags %#x: the second device is not like the first", flags)
		}
	}
}

// Reads are for saving states, writes for RESUMING, and both stay within what the
// receiving side takes.
func TestMigrationData(t *testing.T) {
	a := newAble(t, MigrationCanPreCopy|MigrationCanP2P)
	c := attachWith(t, Config{}, a, Offer{MaxDataXferSize: 100})
	for _, s := range []MigrationState{running, preCopy, preP2P, stopCopy, stop, runP2P} {
		if err := c.SetMigrationState(s); err != nil {
			t.Fatal(err)
		}
		_, rerr := c.ReadMigration(make([]byte, 100))
		if (rerr == nil) != s.Saving() || rerr != nil && !errors.Is(rerr, unix.EINVAL) {
			t.Errorf("read in %v: %v", s, rerr)
		}
		if werr := c.WriteMigration([]byte{1}); !errors.Is(werr, unix.EINVAL) {
			t.Errorf("write in %v: %v", s, werr)
		}
	}
	if err := c.SetMigrationState(stopCopy); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadMigration(make([]byte, 101)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("more than max_data_xfer_size: %v, want EINVAL", err)
	}
	a.failNext(unix.ENODATA)
	if _, err := c.ReadMigration(make([]byte, 100)); !errors.Is(err, unix.ENODATA) {
		t.Errorf("the device's errno comes back as %v", err)
	}
	if err := c.SetMigrationState(resuming); err != nil {
		t.Fatal(err)
	}
	a.failNext(unix.ENOSPC)
	if err := c.WriteMigration([]byte{1}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the device's errno comes back as %v", err)
	}
	// Ours is larger than the client's: it can write more than it can read.
	if err := c.WriteMigration(make([]byte, 200)); err != nil || a.written() != 200 {
		t.Errorf("%d bytes written, %v", a.written(), err)
	}
}

// A reply to MIG_DATA_READ is as long as what there is; to libvfio-user's client it is as
// long as it asked for. Ours takes both.
func TestMigrationReadIsTrimmed(t *testing.T) {
	const asked, there = 1 << 20, 16*(4+statePage) + 4
	for _, strict := range []bool{false, true} {
		r := rawClient(t, Config{Strict: strict}, newAble(t, 0))
		r.negotiate("")
		r.send(message(cmdFeature, 2, 0, u32(16, featureSet|featMigState, uint32(stopCopy), 0)))
		r.mustRecv()
		r.send(message(cmdMigDataRead, 3, 0, u32(8+asked, asked)))
		want := 8 + there
		if strict {
			want = 8 + asked
		}
		_, body := r.mustRecv()
		if len(body) != want || order.Uint32(body) != 8+there || order.Uint32(body[4:]) != there || bytes.Count(body[8+there:], []byte{0}) != len(body)-8-there {
			t.Errorf("strict %v: %d bytes, argsz %d, size %d; want %d bytes with %d of data", strict, len(body), order.Uint32(body), order.Uint32(body[4:]), want, there)
		}

		c := attach(t, Config{Strict: strict}, newAble(t, 0))
		if err := c.SetMigrationState(stopCopy); err != nil {
			t.Fatal(err)
		}
		if n, err := c.ReadMigration(make([]byte, asked)); n != there || err != nil {
			t.Errorf("strict %v: the client reads %d bytes, %v, want %d", strict, n, err, there)
		}
	}
}

func TestProbe(t *testing.T) {
	c := attach(t, Config{}, newAble(t, 0))
	plain := attach(t, Config{}, newFake(t))
	for f, can := range map[Feature]struct{ get, set bool }{
		FeatureMigration: {true, false}, FeatureMigrationState: {true, true}, FeatureLogStart: {false, true},
		FeatureLogStop: {false, true}, FeatureLogReport: {true, false}, 0: {}, 3: {}, 9: {}, 0xffff: {},
	} {
		for _, get := range []bool{false, true} {
			for _, set := range []bool{false, true} {
				want := (can.get || can.set) && (!get || can.get) && (!set || can.set)
				if err := c.Probe(f, get, set); (err == nil) != want || err != nil && !errors.Is(err, unix.EINVAL) {
					t.Errorf("feature %d, get %v, set %v: %v", f, get, set, err)
				}
				if err := plain.Probe(f, get, set); !errors.Is(err, unix.EINVAL) {
					t.Errorf("feature %d of a device without: %v", f, err)
				}
			}
		}
	}
}

// What the device writes is logged, into mapped memory and by messages, and an unmap
// reports what was written up to its end.
func TestLog(t *testing.T) {
	a := newAble(t, 0)
	c := attach(t, Config{}, a)
	file := memfd(t, 1<<20)
	if err := errors.Join(
		c.MapDMA(0x100000, 1<<20, rw, file, 0),
		c.MapMemory(0x200000, 1<<20, rw, iova.NewBytes(make([]byte, 1<<20))),
	); err != nil {
		t.Fatal(err)
	}
	if err := a.table.Write(0x100000, make([]byte, 4096)); err != nil { // before the log
		t.Fatal(err)
	}
	if size, err := c.StartLog(512); err != nil || size != 4096 {
		t.Fatalf("page size %d, %v", size, err)
	}
	if _, err := c.StartLog(4096); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := c.StartLog(8192); !errors.Is(err, unix.EINVAL) {
		t.Errorf("another page size: %v", err)
	}
	if err := errors.Join(a.table.Write(0x1fffff, []byte{1, 2}), a.table.Write(0x2ff800, make([]byte, 2048)), a.table.Read(0x150000, make([]byte, 9))); err != nil {
		t.Fatal(err)
	}
	check := func(what string, got []uint64, err error, set ...int) {
		t.Helper()
		want := make([]uint64, len(got))
		for _, i := range set {
			want[i/64] |= 1 << (i % 64)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %x, %v, want %x", what, got, err, want)
		}
	}
	all, err := c.ReportDirty(0x100000, 2<<20, 4096)
	check("everything", all, err, 255, 256, 511)
	all, err = c.ReportDirty(0x100000, 2<<20, 4096)
	check("again", all, err)

	if err := errors.Join(a.table.Write(0x123456, []byte{1}), a.table.Write(0x200000, []byte{1})); err != nil {
		t.Fatal(err)
	}
	all, err = c.UnmapDirty(0x100000, 1<<20, 8192)
	check("unmapped file", all, err, 0x23000/8192)
	all, err = c.UnmapDirty(0x200000, 1<<20, 4096)
	check("unmapped messages", all, err, 0)
	if n := a.table.Len(); n != 0 {
		t.Errorf("%d ranges left", n)
	}
	if err := c.StopLog(); err != nil {
		t.Error(err)
	}
	if _, err := c.ReportDirty(0x100000, 4096, 4096); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a report without a log: %v, want EINVAL", err)
	}
	if _, err := c.UnmapDirty(0, 4096, 4096); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an unmap with bitmap without a log: %v, want EINVAL", err)
	}
	if _, err := c.StartLog(4096, iova.Range{Addr: 0, Size: 4096}, iova.Range{Addr: 0x4000, Size: 1}); err != nil {
		t.Error(err)
	}
}

// An UNMAP with a bitmap waits for the write in flight, and has it.
func TestUnmapWaitsForTheLastWrite(t *testing.T) {
	a := newAble(t, 0)
	c := attach(t, Config{}, a)
	slow := &slowMemory{begun: make(chan struct{}), end: make(chan struct{})}
	if err := a.table.Map(0, 1<<20, rw, slow); err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartLog(4096); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- a.table.Write(0x5000, []byte{1}) }()
	<-slow.begun
	type answer struct {
		bitmap []uint64
		err    error
	}
	unmapped := make(chan answer, 1)
	go func() {
		bitmap, err := c.UnmapDirty(0, 1<<20, 4096)
		unmapped <- answer{bitmap, err}
	}()
	select {
	case got := <-unmapped:
		t.Fatalf("unmapped while the device writes: %+v", got)
	case <-time.After(50 * time.Millisecond):
	}
	close(slow.end)
	if got := <-unmapped; got.err != nil || got.bitmap[0] != 1<<5 || <-wrote != nil || !slow.closed.Load() {
		t.Errorf("bitmap %x, %v, memory closed %v", got.bitmap, got.err, slow.closed.Load())
	}
}

// slowMemory takes a write when it is told to.
type slowMemory struct {
	begun, end chan struct{}
	closed     atomic.Bool
}

func (m *slowMemory) ReadAt([]byte, uint64) error { return nil }

func (m *slowMemory) WriteAt([]byte, uint64) error {
	close(m.begun)
	<-m.end
	return nil
}

func (m *slowMemory) Close() { m.closed.Store(true) }

// dialServer attaches a client to s. done is closed when s has let it go.
func dialServer(t *testing.T, s *Server) (c *Client, done chan struct{}) {
	t.Helper()
	near, far := pair(t)
	done = make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ServeConn(t.Context(), near) // how it ends is the test's doing
	}()
	c, err := NewClient(far)
	if err != nil {
		t.Fatal(err)
	}
	return c, done
}

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, b, err := uds.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// Clients that use everything and go without a goodbye leave nothing behind: no
// descriptor, mapping, goroutine, log or state.
func TestAbleCyclesLeakNothing(t *testing.T) {
	a := ioAble(t)
	a.flags |= MigrationCanPreCopy
	s := NewServer(Config{}, a)
	file, ack := memfd(t, 1<<20), newEventfd(t)
	count := func() [5]int {
		return [5]int{descriptors(t), openFiles(t, "socket:"), openFiles(t, "[eventpoll]"), mappings(t), runtime.NumGoroutine()}
	}
	before := count()
	for i := range 100 {
		near, far := pair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.ServeConn(t.Context(), near) // how it ends is the test's doing
		}()
		offer := DefaultOffer()
		offer.TwinSocket = i%2 == 0
		c, err := NewClientWith(far, offer)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := c.RegionIOFDs(0)
		if err != nil {
			t.Fatal(err)
		}
		shadowed, err := c.RegionIOFDs(2)
		if err != nil {
			t.Fatal(err)
		}
		_, logErr := c.StartLog(4096)
		if err := errors.Join(
			logErr,
			c.MapDMA(0, 1<<20, rw, file, 0),
			c.MapMemory(1<<20, 4096, rw, newBytes(4096)),
			c.SetVectors(IRQMSIX, 0, ack, ack),
			c.SetIRQs(IRQSet{Index: IRQINTx, Count: 1, Action: IRQUnmask, FDs: []*eventfd.FD{ack}}),
			a.table.Write(1<<20-2, make([]byte, 4)),
			c.SetMigrationState([]MigrationState{preCopy, stopCopy, resuming}[i%3]),
		); err != nil {
			t.Fatal(err)
		}
		ack.Signal()
		_ = plain[0].Write(0) // without a shadow it cannot fail
		c.Close()
		<-done
		closeIOFDs(append(plain, shadowed...))
	}
	eventually(t, "everything given back", func() bool {
		after := count()
		for i := range after {
			if after[i] > before[i] {
				return false
			}
		}
		return a.table.Len() == 0 && a.attached() == 0 && !a.table.Logging()
	})
}
