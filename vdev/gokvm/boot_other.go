// SPDX-License-Identifier: Apache-2.0

//go:build !(linux && amd64)

package gokvm

import (
	"context"
	"fmt"
	"runtime"
)

// Boot is for linux/amd64.
func Boot(context.Context, Device, Config) error {
	return fmt.Errorf("%w: this is %s/%s; the embedded VMM is for linux/amd64: use npuemu serve with QEMU", ErrKVM, runtime.GOOS, runtime.GOARCH)
}
