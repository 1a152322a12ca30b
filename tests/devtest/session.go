// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"npuemu/vdev/vfiouser"
)

// A Message is a line of a recorded session: what a client sent to the server,
// or what the server sent to it.
type Message struct {
	Dir    vfiouser.Direction
	NumFDs int
	Header []byte
	Body   []byte
}

// Recorder writes messages as lines of text, "> " for what the client sent and
// "< " for what the server sent, number of descriptors, header and body in
// hexadecimal. Trace is for vfiouser.Config.
type Recorder struct {
	mu sync.Mutex
	w  io.Writer
}

// NewRecorder returns a recorder that writes to w.
func NewRecorder(w io.Writer) *Recorder { return &Recorder{w: w} }

// Trace writes one message. A line that cannot be written is missed when the
// session is replayed.
func (r *Recorder) Trace(dir vfiouser.Direction, header, body []byte, nfds int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mark := '>'
	if dir == vfiouser.Sent {
		mark = '<'
	}
	fmt.Fprintf(r.w, "%c %d %x %x\n", mark, nfds, header, body)
}

// ReadSession reads what a Recorder wrote. Lines that begin with # are
// comments.
func ReadSession(r io.Reader) ([]Message, error) {
	var l []Message
	s := bufio.NewScanner(r)
	s.Buffer(nil, 4<<20)
	for n := 1; s.Scan(); n++ {
		if len(s.Text()) == 0 || s.Text()[0] == '#' {
			continue
		}
		var m Message
		var mark rune
		var header, body string
		if _, err := fmt.Sscanf(s.Text(), "%c %d %s", &mark, &m.NumFDs, &header); err != nil || mark != '<' && mark != '>' {
			return nil, fmt.Errorf("devtest: session: line %d: %q is not MARK FDS HEADER BODY", n, s.Text())
		}
		_, _ = fmt.Sscanf(s.Text(), "%c %d %s %s", &mark, &m.NumFDs, &header, &body) // a body may be empty
		if mark == '<' {
			m.Dir = vfiouser.Sent
		}
		var err error
		if m.Header, err = hex.DecodeString(header); err == nil {
			m.Body, err = hex.DecodeString(body)
		}
		if err != nil {
			return nil, fmt.Errorf("devtest: session: line %d: %w", n, err)
		}
		l = append(l, m)
	}
	return l, s.Err()
}
