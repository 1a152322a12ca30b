// SPDX-License-Identifier: Apache-2.0

package caffe

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"npuemu/compiler/ir"
)

var (
	textLine  = regexp.MustCompile(`\(line (\d+):\d+\): `)
	textLayer = regexp.MustCompile(`\blayers?\s*:?\s*\{`)
	textName  = regexp.MustCompile(`\bname\s*:\s*["']([^"'\n]*)["']`)
)

// badText is what err says of a prototxt, with the line and the layer.
func badText(text []byte, err error) *ir.Error {
	lines := bytes.SplitAfter(text, []byte{'\n'})
	last := len(lines)
	if len(lines[last-1]) == 0 && last > 1 {
		last--
	}
	line, rule, remedy := last, "it ends before its last } or value", "the file is cut: fetch it again"
	if m := textLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		_, rule, _ = strings.Cut(err.Error(), m[0])
		if remedy = "correct that line, or fetch the file again"; line >= last {
			remedy = "it is the last line: the file is cut, fetch it again, or correct the line"
		}
	} else if !strings.Contains(err.Error(), "unexpected EOF") {
		rule, remedy = err.Error(), "correct the file, or fetch it again"
	}
	e := &ir.Error{Rule: fmt.Sprintf("the prototxt is not valid: line %d: %s", line, rule), Remedy: remedy}
	before := bytes.Join(lines[:min(line, len(lines))], nil)
	if l := textLayer.FindAllIndex(before, -1); l != nil {
		in := before[l[len(l)-1][1]:]
		e.Node = fmt.Sprintf("layer %d", len(l)-1)
		if name := textName.FindSubmatch(in); name != nil {
			e.Node = string(name[1])
		}
	}
	return e
}

// badWeights is what err says of a caffemodel, with the layer in which it goes wrong.
func badWeights(b []byte, err error) *ir.Error {
	e := &ir.Error{Rule: fmt.Sprintf("the caffemodel is not valid: %v", err), Remedy: "the file is cut, damaged or for another program: fetch it again"}
	size := len(b)
	for layer := 0; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		rest := b[n:]
		nameField, isLayer := map[protowire.Number]protowire.Number{2: 4, 100: 1}[num] // of version 1 and 2
		if n = protowire.ConsumeFieldValue(num, typ, rest); n >= 0 && !(isLayer && damaged(rest[:n])) {
			if isLayer {
				layer++
			}
			b = rest[n:]
			continue
		}
		if isLayer && typ == protowire.BytesType {
			e.Node = fmt.Sprintf("layer %d", layer)
			if want, n := protowire.ConsumeVarint(rest); n > 0 {
				rest = rest[n:]
				if name := firstString(rest, nameField); name != "" {
					e.Node = name
				}
				if want > uint64(len(rest)) {
					e.Rule = fmt.Sprintf("the caffemodel is not valid: it ends in the layer's weights: %d of %d bytes are there", len(rest), want)
				}
			}
			return e
		}
		break
	}
	e.Rule += fmt.Sprintf(", behind %d of %d bytes", size-len(b), size)
	return e
}

// damaged reports whether the message of a field, with its length, is no sequence of fields.
func damaged(value []byte) bool {
	b, n := protowire.ConsumeBytes(value)
	for n >= 0 && len(b) > 0 {
		var num protowire.Number
		var typ protowire.Type
		if num, typ, n = protowire.ConsumeTag(b); n < 0 {
			break
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 {
			b = b[n:]
		}
	}
	return n < 0
}

// firstString is the first field of that number in what is there of a message.
func firstString(b []byte, field protowire.Number) string {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		b = b[n:]
		if num == field && typ == protowire.BytesType {
			s, _ := protowire.ConsumeBytes(b)
			return string(s)
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return ""
		}
		b = b[n:]
	}
	return ""
}
