// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// TestReplayQEMU plays what a real QEMU sent, byte for byte, to a fresh device.
// Until the recorded driver starts the firmware, every reply must equal the
// recorded one. After that the device sees other memory than the recorded one
// (it is empty), so only the form of the replies is compared.
func TestReplayQEMU(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	f, err := os.Open("testdata/qemu.session")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	session, err := devtest.ReadSession(f)
	if err != nil {
		t.Fatal(err)
	}
	card := vdev.DefaultConfig()
	card.Arch = "1.0" // as TestRecord's: later minors must not change what an old card says
	_, socket := devtest.Start(t, card)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(devtest.Timeout)); err != nil {
		t.Fatal(err)
	}
	exact, compared := true, 0
	for i, m := range session {
		if m.Dir == vfiouser.Received {
			send(t, c, m)
			if isStart(m) {
				exact = false
			}
			continue
		}
		got := make([]byte, len(m.Header)+len(m.Body))
		n := len(m.Header)
		if _, err := io.ReadFull(c, got[:n]); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if !bytes.Equal(got[:n], m.Header) {
			t.Fatalf("message %d: reply header % x, recorded % x", i, got[:n], m.Header)
		}
		if _, err := io.ReadFull(c, got[n:]); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if exact && !bytes.Equal(got[n:], m.Body) {
			t.Errorf("message %d: reply to\n% x\n% x\nis\n% x, recorded\n% x", i, session[i-1].Header, session[i-1].Body, got[n:], m.Body)
		}
		if exact {
			compared++
		}
	}
	if exact || compared < 50 {
		t.Errorf("%d replies compared, start of firmware seen: %v; the recording is not what it should be", compared, !exact)
	}
	t.Logf("%d messages, %d replies compared to the byte", len(session), compared)
}

// isStart reports whether m writes BOOT_CONTROL.
func isStart(m devtest.Message) bool {
	return le.Uint16(m.Header[2:]) == 10 && le.Uint64(m.Body) == npureg.BootControl && le.Uint32(m.Body[8:]) == vfiouser.RegionBAR0
}

// send sends m with descriptors of the kind its command needs: memory for
// DMA_MAP, eventfds for everything else.
func send(t *testing.T, c *net.UnixConn, m devtest.Message) {
	t.Helper()
	var fds []int
	for range m.NumFDs {
		var fd int
		var err error
		if le.Uint16(m.Header[2:]) == 2 {
			if fd, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC); err == nil {
				err = unix.Ftruncate(fd, int64(le.Uint64(m.Body[8:])+le.Uint64(m.Body[24:]))) // offset + size; no page is touched
			}
		} else {
			fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	b := append(bytes.Clone(m.Header), m.Body...)
	n, _, err := c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err == nil && n != len(b) {
		err = errors.New("short write")
	}
	if err != nil {
		t.Fatal(err)
	}
}
