// SPDX-License-Identifier: Apache-2.0
//
// The device that libvfio-user serves: BAR0 of 64 KiB whose callback does nothing.

#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libvfio-user.h"

static ssize_t access_bar0(vfu_ctx_t *ctx, char *const buf, size_t count, loff_t off, const bool is_write)
{
	(void)ctx;
	(void)off;
	if (!is_write)
		memset(buf, 0, count);
	return count;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: peer SOCKET");
	vfu_ctx_t *ctx = vfu_create_ctx(VFU_TRANS_SOCK, argv[1], 0, NULL, VFU_DEV_TYPE_PCI);
	if (!ctx)
		err(1, "create");
	if (vfu_pci_init(ctx, VFU_PCI_TYPE_CONVENTIONAL, PCI_HEADER_TYPE_NORMAL, 0) < 0 ||
	    vfu_setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 64 << 10, access_bar0, VFU_REGION_FLAG_RW, NULL, 0, -1, 0) < 0 ||
	    vfu_realize_ctx(ctx) < 0)
		err(1, "set up");
	for (;;) {
		while (vfu_attach_ctx(ctx) < 0)
			if (errno != EINTR && errno != EAGAIN && errno != ECONNRESET)
				err(1, "attach");
		while (vfu_run_ctx(ctx) >= 0 || errno == EINTR)
			;
		if (errno != ENOTCONN)
			err(1, "run");
	}
}
