// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"fmt"
	"path"
)

// cpioWriter makes a "newc" cpio archive as Linux unpacks it into the initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Owner and times are zero, so equal content gives equal
// bytes. Parent directories are made on first use.
type cpioWriter struct {
	buf  bytes.Buffer
	ino  uint32
	dirs map[string]bool
}

const (
	modeChar = 0o020000
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
)

// File adds a regular file; perm holds permission bits only.
func (w *cpioWriter) File(name string, perm uint32, data []byte) {
	w.entry(name, modeFile|perm, 0, 0, data)
}

// Symlink adds name as a link to target.
func (w *cpioWriter) Symlink(name, target string) {
	w.entry(name, modeLink|0o777, 0, 0, []byte(target))
}

// Dir adds a directory that has nothing in it yet.
func (w *cpioWriter) Dir(name string) { w.parents(name + "/x") }

// CharDevice adds a character device node.
func (w *cpioWriter) CharDevice(name string, major, minor uint32) {
	w.entry(name, modeChar|0o600, major, minor, nil)
}

// Bytes ends the archive and returns it.
func (w *cpioWriter) Bytes() []byte {
	w.header("TRAILER!!!", 0, 0, 0, nil)
	return w.buf.Bytes()
}

func (w *cpioWriter) parents(name string) {
	dir := path.Dir(name)
	if dir == "." || w.dirs[dir] {
		return
	}
	w.parents(dir)
	if w.dirs == nil {
		w.dirs = make(map[string]bool)
	}
	w.dirs[dir] = true
	w.header(dir, modeDir|0o755, 0, 0, nil)
}

func (w *cpioWriter) entry(name string, mode, major, minor uint32, data []byte) {
	name = path.Clean("/" + name)[1:]
	w.parents(name)
	w.header(name, mode, major, minor, data)
}

// header writes one member: 6 bytes of magic and 13 fields of 8 hexadecimal digits, the name with a NUL, and the data;
// name and data each padded with NULs to a multiple of 4 bytes from the start of the archive.
func (w *cpioWriter) header(name string, mode, major, minor uint32, data []byte) {
	w.ino++
	fmt.Fprintf(&w.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		w.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	w.buf.WriteString(name)
	w.buf.WriteByte(0)
	w.pad()
	w.buf.Write(data)
	w.pad()
}

func (w *cpioWriter) pad() { w.buf.Write(make([]byte, -w.buf.Len()&3)) }
