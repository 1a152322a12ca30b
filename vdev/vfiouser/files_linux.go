// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"npuemu/dma/iova"
	"npuemu/internal/filemap"
)

// maxFileMappings bounds the kernel mappings of one connection.
const maxFileMappings = filemap.MaxFiles

// files holds the mappings of the files behind DMA ranges. It is safe for
// concurrent use.
type files struct{ set filemap.Set }

// open returns the size bytes at offset off of the file fd, which stays the
// caller's.
func (f *files) open(fd int, off, size uint64, prot iova.Prot) (iova.Memory, error) {
	m, err := f.set.Open(fd, off, size, prot&iova.Write != 0)
	if err != nil {
		return nil, refuse(errnoOf(err), "DMA_MAP: %v", err)
	}
	return m, nil
}

// copyGuarded copies src to dst, which has the same length. A peer may truncate
// a file that is mapped here; that becomes an error.
func copyGuarded(dst, src []byte) error { return filemap.Copy(dst, src) }
