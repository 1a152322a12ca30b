// SPDX-License-Identifier: Apache-2.0

//go:build linux

package transport

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
	"npuemu/vdev/vfiouser"
)

// serverEnv makes the test binary a server of the trivial device on that socket.
const serverEnv = "NPUEMU_BENCH_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(serverEnv); socket != "" {
		if err := serveTrivial(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if socket := os.Getenv(cardEnv); socket != "" {
		if err := serveCard(socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveTrivial(socket string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		return err
	}
	return vfiouser.NewServer(vfiouser.Config{}, &trivial{}).Serve(ctx, ln)
}

// trivial is what peer.c presents with libvfio-user: a BAR0 of 64 KiB that does nothing.
type trivial struct{ table iova.Table }

func (*trivial) Regions() []vfiouser.Region {
	r := make([]vfiouser.Region, vfiouser.NumRegions)
	rw := vfiouser.RegionRead | vfiouser.RegionWrite
	r[vfiouser.RegionBAR0] = vfiouser.Region{Size: 64 << 10, Flags: rw}
	r[vfiouser.RegionConfig] = vfiouser.Region{Size: 256, Flags: rw}
	return r
}

func (*trivial) IRQs() []vfiouser.IRQ { return make([]vfiouser.IRQ, vfiouser.NumIRQs) }

func (*trivial) ReadRegion(_ int, _ uint64, p []byte) error {
	clear(p)
	return nil
}

func (*trivial) WriteRegion(int, uint64, []byte) error { return nil }
func (*trivial) SetVector(_, _ int, fd *eventfd.FD) {
	if fd != nil {
		fd.Close()
	}
}
func (*trivial) TriggerVector(int, int)    {}
func (*trivial) MaskVector(int, int, bool) {}
func (*trivial) Reset() error              { return nil }
func (*trivial) Detach()                   {}

func (t *trivial) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	return t.table.Map(addr, size, prot, mem)
}
func (t *trivial) UnmapDMA(addr iova.Addr, size uint64) error { return t.table.Unmap(addr, size) }
func (t *trivial) UnmapAllDMA()                               { t.table.UnmapAll() }
