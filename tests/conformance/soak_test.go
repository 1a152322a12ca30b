// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/tests/usage"
	"npuemu/vdev/vfiouser"
)

var soakCycles = flag.Int("soak", 1000, "clients that come and are killed in TestSoak")

// soakClient names the socket in the environment of a client process.
const soakClient = "NPUEMU_SOAK_CLIENT"

// TestSoak attaches clients and ends each at a random point without a word: a third of a client's messages
// is cut at any byte, another third attaches, brings up queues and leaves commands in flight, or just goes; every
// 50th client is a process that gets SIGKILL. Nothing of them may stay.
func TestSoak(t *testing.T) {
	if devtest.InUse() != devtest.VFIOUser {
		t.Skip("only clients of a socket can be killed")
	}
	_, socket := devtest.Start(t, config())
	s := &soaker{t: t, socket: socket, host: devtest.On(t, socket), rng: rand.New(rand.NewPCG(1, 2))}
	s.record()

	const warmUp = 200 // the runtime's threads and arenas come to stay
	for i := range warmUp {
		s.cycle(i)
	}
	before := usage.Settled(t, nil)
	start := time.Now()
	for i := range *soakCycles {
		s.cycle(i)
	}
	took := time.Since(start)
	after := usage.Settled(t, &before)
	t.Logf("%d cycles in %v, %+v with the first %d; before %+v, after %+v", *soakCycles, took.Round(time.Millisecond), s.kinds, warmUp, before, after)
	if err := after.Left(before); err != nil {
		t.Error(err)
	}

	s.host.Attach()
	prepare(s.host)
	if c := s.host.Do(1, nop()); c.Status != npureg.StatusSuccess {
		t.Errorf("NOP afterwards: %v", c)
	}
}

type soaker struct {
	t      *testing.T
	socket string
	host   *devtest.Host
	rng    *rand.Rand
	script []message // of a whole attachment
	kinds  struct{ Cut, InFlight, Idle, Killed int }
}

// message is one message with its descriptors, or a part of one.
type message struct {
	bytes []byte
	fds   []int
}

// cycle is the life of one client.
func (s *soaker) cycle(i int) {
	s.t.Helper()
	switch {
	case i%50 == 49:
		s.kinds.Killed++
		s.killed()
	case i%3 == 0:
		s.kinds.Cut++
		s.cut()
	default:
		s.attached(i%30 == 1)
	}
}

// record makes the script: what a client says from VERSION to a doorbell.
func (s *soaker) record() {
	mem, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Ftruncate(mem, devtest.MemSize); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Close(mem) })
	var vectors []int
	for range 16 {
		fd, err := eventfd.New()
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(fd.Close)
		vectors = append(vectors, fd.Fd())
	}
	add := func(command uint16, fds []int, fields ...any) {
		var body []byte
		for _, f := range fields {
			switch f := f.(type) {
			case uint16:
				body = le.AppendUint16(body, f)
			case uint32:
				body = le.AppendUint32(body, f)
			case uint64:
				body = le.AppendUint64(body, f)
			case string:
				body = append(body, f...)
			}
		}
		b := le.AppendUint16(nil, uint16(len(s.script)))
		b = le.AppendUint16(b, command)
		b = le.AppendUint32(b, uint32(16+len(body)))
		b = append(le.AppendUint64(b, 0), body...)
		s.script = append(s.script, message{b, fds})
	}
	const version, dmaMap, setIRQs, regionWrite = 1, 2, 8, 10
	add(version, nil, uint16(0), uint16(0), `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}`+"\x00")
	for i := range uint64(8) {
		add(dmaMap, []int{mem}, uint32(32), uint32(3), i<<20, devtest.MemBase+i<<20, uint64(1<<20))
	}
	add(dmaMap, nil, uint32(32), uint32(3), uint64(0), uint64(devtest.MsgBase), uint64(devtest.MsgSize))
	add(setIRQs, vectors, uint32(20), uint32(1<<2|1<<5), uint32(vfiouser.IRQMSIX), uint32(0), uint32(16))
	add(regionWrite, nil, uint64(4), uint32(vfiouser.RegionConfig), uint32(2), uint16(6))
	add(regionWrite, nil, uint64(devtest.Doorbell(0)), uint32(vfiouser.RegionBAR0), uint32(4), uint32(1))
}

// cut plays the script up to a random byte and closes the socket, with the replies unread or read.
func (s *soaker) cut() {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	total := 0
	for _, m := range s.script {
		total += len(m.bytes)
	}
	at := s.rng.IntN(total + 1)
	if s.rng.IntN(2) == 0 {
		go io.Copy(io.Discard, c) //nolint:errcheck // until c is closed
	}
	for _, m := range s.script {
		if at == 0 {
			break
		}
		b := m.bytes[:min(at, len(m.bytes))]
		at -= len(b)
		if _, _, err := c.WriteMsgUnix(b, unix.UnixRights(m.fds...), nil); err != nil {
			s.t.Fatalf("the server closed: %v", err)
		}
	}
}

// attached is a machine that goes, with a command in flight or not.
func (s *soaker) attached(inFlight bool) {
	h := s.host
	h.Attach()
	if inFlight {
		s.kinds.InFlight++
		prepare(h)
		buf, _ := h.Alloc(4096)
		if s.rng.IntN(2) == 0 {
			buf = devtest.MsgBase // its messages get no answer any more
		}
		h.Submit(1, endless(1, 1, buf, buf))
		time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Microsecond)
	} else {
		s.kinds.Idle++
		h.Write32(devtest.Doorbell(0), 1)
	}
	h.Detach()
}

// killed starts a client process and kills it at a random moment after its first attachment.
func (s *soaker) killed() {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSoakClient$")
	cmd.Env = append(os.Environ(), soakClient+"="+s.socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "attached\n" {
		s.t.Errorf("the client process says %q, %v", line, err)
	}
	time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Microsecond)
	if err := cmd.Process.Kill(); err != nil {
		s.t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestSoakClient is the process that TestSoak kills.
func TestSoakClient(t *testing.T) {
	socket := os.Getenv(soakClient)
	if socket == "" {
		t.Skip("TestSoak starts it")
	}
	h := devtest.On(t, socket)
	for first := true; ; first = false {
		h.Attach()
		if first {
			os.Stdout.WriteString("attached\n") //nolint:errcheck // whoever reads has the test fail
		}
		prepare(h)
		h.Submit(1, endless(1, 1, devtest.MemBase, devtest.MemBase))
		h.Detach()
	}
}
