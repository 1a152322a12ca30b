// SPDX-License-Identifier: Apache-2.0

package gdb

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
)

// maxPacket bounds a packet's content, both ways; PacketSize tells the client. A packet that writes 4 KiB of memory in
// hexadecimal has 8 KiB and a few bytes.
const maxPacket = 0x4000

var errTooLong = fmt.Errorf("gdb: a packet of more than %d bytes", maxPacket)

// input is what a client can send.
type input struct {
	kind   inputKind
	packet []byte // content, unescaped
}

type inputKind int

const (
	inputPacket    inputKind = iota
	inputBroken              // a packet whose checksum is wrong
	inputResend              // the client wants the last reply again
	inputInterrupt           // Ctrl-C
)

// read returns the next thing that the client sent. Bytes between packets that mean nothing are skipped, acknowledgements among them.
func read(r *bufio.Reader) (input, error) {
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return input{}, err
		case c == '-':
			return input{kind: inputResend}, nil
		case c == 3:
			return input{kind: inputInterrupt}, nil
		case c == '$':
			return readPacket(r)
		}
	}
}

// readPacket reads what follows $. A $ in a packet begins it anew, as a client does that gave the first one up.
func readPacket(r *bufio.Reader) (input, error) {
	var p []byte
	var sum byte
	escaped := false
	for {
		c, err := r.ReadByte()
		if err != nil {
			return input{}, err
		}
		if c == '#' {
			break
		}
		if len(p) == maxPacket {
			return input{}, errTooLong
		}
		sum += c
		switch {
		case c == '$':
			p, sum, escaped = p[:0], 0, false
		case escaped:
			p, escaped = append(p, c^0x20), false
		case c == '}':
			escaped = true
		default:
			p = append(p, c)
		}
	}
	var check [2]byte
	for i := range check {
		c, err := r.ReadByte()
		if err != nil {
			return input{}, err
		}
		check[i] = c
	}
	var want [1]byte
	if _, err := hex.Decode(want[:], check[:]); err != nil || want[0] != sum || escaped {
		return input{kind: inputBroken}, nil
	}
	return input{packet: p}, nil
}

// frame makes a packet of content.
func frame(content string) []byte {
	p := []byte{'$'}
	sum := byte(0)
	for i := range len(content) {
		c := content[i]
		switch c {
		case '$', '#', '}', '*': // * would repeat the byte before it
			p = append(p, '}')
			sum += '}'
			c ^= 0x20
		}
		p = append(p, c)
		sum += c
	}
	return fmt.Appendf(p, "#%02x", sum)
}

var errSyntax = errors.New("gdb: the packet's syntax")

// number reads hexadecimal digits from the start of s, as many as there are, at most 32 bits.
func number(s string) (v uint32, rest string, err error) {
	n := 0
	for n < len(s) {
		d := digit(s[n])
		if d < 0 {
			break
		}
		if v>>28 != 0 {
			return 0, "", errSyntax
		}
		v = v<<4 | uint32(d)
		n++
	}
	if n == 0 {
		return 0, "", errSyntax
	}
	return v, s[n:], nil
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// numbers reads numbers with the given separators after all but the last, which ends s unless a separator follows it.
func numbers(s, separators string) (v []uint32, rest string, err error) {
	for i := 0; ; i++ {
		n, r, err := number(s)
		if err != nil {
			return nil, "", err
		}
		v = append(v, n)
		if i == len(separators) {
			return v, r, nil
		}
		if r == "" || r[0] != separators[i] {
			return nil, "", errSyntax
		}
		s = r[1:]
	}
}
