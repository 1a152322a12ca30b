// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"encoding/binary"
	"math"

	"npuemu/compiler/ir"
)

// older gives a node of an opset before 13 the form that its operator has in 13: what were attributes become inputs, Upsample and the
// first Resize become today's. Softmax and its kin keep their meaning, which the rules know by the opset. Other operators
// took more types since 7, and attributes whose defaults are what they did.
func (im *importer) older(n *ir.Node) error {
	ints := func(name string) *ir.Tensor {
		v, ok := n.Attrs[name].([]int64)
		delete(n.Attrs, name)
		if !ok {
			return nil
		}
		t := &ir.Tensor{Name: n.Name + "/" + name, Type: ir.Int64, Shape: []int{len(v)}, Data: []byte{}}
		for _, i := range v {
			t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(i))
		}
		return t
	}
	floats := func(name string, shape []int, v ...float32) *ir.Tensor {
		t := &ir.Tensor{Name: n.Name + "/" + name, Type: ir.Float32, Shape: shape, Data: []byte{}}
		for _, f := range v {
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(f))
		}
		return t
	}
	number := func(name string) *ir.Tensor {
		v, ok := n.Attrs[name].(float32)
		delete(n.Attrs, name)
		if !ok {
			return nil
		}
		return floats(name, nil, v)
	}
	inputs := func(t ...*ir.Tensor) {
		for len(t) > 0 && t[len(t)-1] == nil {
			t = t[:len(t)-1]
		}
		n.Inputs = append(n.Inputs, t...)
	}
	asymmetric := func(scales *ir.Tensor) {
		n.Op, n.Inputs = "Resize", append(n.Inputs[:1:1], nil, scales)
		n.Attrs["coordinate_transformation_mode"], n.Attrs["nearest_mode"] = "asymmetric", "floor"
	}
	switch {
	case n.Op == "Squeeze" || n.Op == "Unsqueeze":
		inputs(ints("axes"))
	case n.Op == "Split":
		inputs(ints("split"))
	case n.Op == "Slice" && im.opset < 10:
		inputs(ints("starts"), ints("ends"), ints("axes"))
	case n.Op == "Pad" && im.opset < 11:
		inputs(ints("pads"), number("value"))
	case n.Op == "Clip" && im.opset < 11:
		inputs(number("min"), number("max"))
	case n.Op == "Upsample" && im.opset < 9:
		v, _ := n.Attrs["scales"].([]float32)
		delete(n.Attrs, "scales")
		if len(n.Inputs) != 1 {
			return n.Errorf("%d inputs, not 1", len(n.Inputs))
		}
		asymmetric(floats("scales", []int{len(v)}, v...))
	case n.Op == "Upsample" && im.opset == 9 || n.Op == "Resize" && im.opset == 10:
		if len(n.Inputs) != 2 {
			return n.Errorf("%d inputs, not 2", len(n.Inputs))
		}
		asymmetric(n.Inputs[1])
	case n.Op == "BatchNormalization" && n.Attrs.Int("spatial", 1) == 0:
		return n.Errorf("spatial is 0: statistics of each element are not supported").WithRemedy("convert the model with onnx.version_converter")
	}
	return nil
}
