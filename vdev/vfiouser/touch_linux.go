// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"log/slog"
	"os"
	"time"

	"npuemu/dma/iova"
)

// touchTimeout is how long a touch waits: the command that it belongs to, and all that
// waits for that one, wait with it. QEMU answers within a millisecond on an idle host.
const touchTimeout = time.Second

// setServes notes whether the client answers DMA messages. A client that does not could take
// one for the reply that it waits for, and is lost then. What shows that it does is that
// it mapped a range which only messages reach, as QEMU maps its ROMs, or took the twin
// socket, which is for nothing else.
func (c *conn) setServes(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serves = yes
}

// touch is what Toucher.UseTouch gets.
func (c *conn) touch(addr iova.Addr, access iova.Prot, b byte) error {
	c.mu.Lock()
	serves := c.serves
	c.mu.Unlock()
	if !serves {
		return ErrTouchUnserved
	}
	if ok, _ := c.touches.Allow(time.Now()); !ok {
		return ErrTouchRate
	}
	cmd, p := cmdDMARead, [1]byte{}
	if access == iova.Write {
		cmd, p[0] = cmdDMAWrite, b
	}
	err := c.dma(cmd, addr, p[:], min(touchTimeout, c.s.cfg.DMATimeout))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.setServes(false)
		c.s.warn("vfio-user client does not answer DMA messages: its IOMMU will not hear of faults", slog.Any("rule", err))
	}
	return err
}
