// SPDX-License-Identifier: Apache-2.0

package caffe

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// messages are the messages and fields of Caffe's format that the importer reads: name, number and type of each, * for
// a repeated one and a capital for the name of a message or an enumeration. What is not here is skipped.
var messages = map[string]string{
	"NetParameter": "name 1 string; layers 2 *V1LayerParameter; input 3 *string; input_dim 4 *int32; input_shape 8 *BlobShape; layer 100 *LayerParameter",
	"BlobShape":    "dim 1 *int64",
	"BlobProto":    "num 1 int32; channels 2 int32; height 3 int32; width 4 int32; data 5 *float; shape 7 BlobShape; double_data 8 *double",
	"NetStateRule": "phase 1 Phase",
	"LayerParameter": "name 1 string; type 2 string; bottom 3 *string; top 4 *string; blobs 7 *BlobProto; include 8 *NetStateRule; exclude 9 *NetStateRule; phase 10 Phase; " + params(map[string]int{
		"concat": 104, "convolution": 106, "dropout": 108, "eltwise": 110, "inner_product": 117, "lrn": 118, "pooling": 121, "power": 122, "relu": 123, "softmax": 125,
		"reshape": 133, "flatten": 135, "batch_norm": 139, "elu": 140, "scale": 142, "input": 143,
	}),
	"V1LayerParameter": "bottom 2 *string; top 3 *string; name 4 string; type 5 V1Type; blobs 6 *BlobProto; include 32 *NetStateRule; exclude 33 *NetStateRule; " + params(map[string]int{
		"concat": 9, "convolution": 10, "dropout": 12, "inner_product": 17, "lrn": 18, "pooling": 19, "power": 21, "eltwise": 24, "relu": 30, "softmax": 39,
	}),
	"ConvolutionParameter": "num_output 1 uint32; bias_term 2 bool; pad 3 *uint32; kernel_size 4 *uint32; group 5 uint32; stride 6 *uint32; pad_h 9 uint32; pad_w 10 uint32; " +
		"kernel_h 11 uint32; kernel_w 12 uint32; stride_h 13 uint32; stride_w 14 uint32; axis 16 int32; dilation 18 *uint32",
	"PoolingParameter": "pool 1 PoolMethod; kernel_size 2 uint32; stride 3 uint32; pad 4 uint32; kernel_h 5 uint32; kernel_w 6 uint32; stride_h 7 uint32; stride_w 8 uint32; " +
		"pad_h 9 uint32; pad_w 10 uint32; global_pooling 12 bool; round_mode 13 RoundMode",
	"InnerProductParameter": "num_output 1 uint32; bias_term 2 bool; axis 5 int32; transpose 6 bool",
	"LRNParameter":          "local_size 1 uint32; alpha 2 float; beta 3 float; norm_region 4 NormRegion; k 5 float",
	"ReLUParameter":         "negative_slope 1 float",
	"ELUParameter":          "alpha 1 float",
	"ConcatParameter":       "concat_dim 1 uint32; axis 2 int32",
	"SoftmaxParameter":      "axis 2 int32",
	"EltwiseParameter":      "operation 1 EltwiseOp; coeff 2 *float",
	"PowerParameter":        "power 1 float; scale 2 float; shift 3 float",
	"BatchNormParameter":    "use_global_stats 1 bool; eps 3 float",
	"ScaleParameter":        "axis 1 int32; num_axes 2 int32; bias_term 4 bool",
	"InputParameter":        "shape 1 *BlobShape",
	"ReshapeParameter":      "shape 1 BlobShape; axis 2 int32; num_axes 3 int32",
	"FlattenParameter":      "axis 1 int32; end_axis 2 int32",
	"DropoutParameter":      "dropout_ratio 1 float",
}

// params are the fields of layers' parameters by their numbers.
func params(numbers map[string]int) string {
	var l []string
	for name, n := range numbers {
		l = append(l, fmt.Sprintf("%s_param %d %sParameter", name, n, camel(name)))
	}
	return strings.Join(l, "; ")
}

func camel(name string) string {
	switch name {
	case "lrn", "elu":
		return strings.ToUpper(name)
	case "relu":
		return "ReLU"
	}
	s := ""
	for _, w := range strings.Split(name, "_") {
		s += strings.ToUpper(w[:1]) + w[1:]
	}
	return s
}

// enumerations are lists of names with their numbers, in order where no number is given.
var enumerations = map[string]string{
	"Phase": "TRAIN TEST", "PoolMethod": "MAX AVE STOCHASTIC", "RoundMode": "CEIL FLOOR", "NormRegion": "ACROSS_CHANNELS WITHIN_CHANNEL", "EltwiseOp": "PROD SUM MAX",
	"V1Type": "NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA HDF5_OUTPUT IM2COL IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN " +
		"MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT TANH WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX " +
		"THRESHOLD DUMMY_DATA SLICE MVN ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION",
}

var scalars = map[string]descriptorpb.FieldDescriptorProto_Type{
	"string": descriptorpb.FieldDescriptorProto_TYPE_STRING, "int32": descriptorpb.FieldDescriptorProto_TYPE_INT32, "int64": descriptorpb.FieldDescriptorProto_TYPE_INT64,
	"uint32": descriptorpb.FieldDescriptorProto_TYPE_UINT32, "bool": descriptorpb.FieldDescriptorProto_TYPE_BOOL,
	"float": descriptorpb.FieldDescriptorProto_TYPE_FLOAT, "double": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
}

// net is the descriptor of NetParameter.
func net() protoreflect.MessageDescriptor {
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("net"), Package: proto.String("caffe"), Syntax: proto.String("proto2")}
	for name, list := range enumerations {
		e := &descriptorpb.EnumDescriptorProto{Name: proto.String(name)}
		for i, v := range strings.Fields(list) {
			// Names of enumerations' values share a scope; prefixes are the wrong answer in text, so each has a message around it.
			e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String(v), Number: proto.Int32(int32(i))})
		}
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(name + "Scope"), EnumType: []*descriptorpb.EnumDescriptorProto{e}})
	}
	for name, list := range messages {
		m := &descriptorpb.DescriptorProto{Name: proto.String(name)}
		for _, f := range strings.Split(list, "; ") {
			var field, kind string
			var number int32
			if _, err := fmt.Sscan(f, &field, &number, &kind); err != nil {
				panic("caffe: BUG: " + f)
			}
			label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
			kind, repeated := strings.CutPrefix(kind, "*")
			if repeated {
				label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
			}
			d := &descriptorpb.FieldDescriptorProto{Name: proto.String(field), Number: proto.Int32(number), Label: &label}
			switch typ, ok := scalars[kind]; {
			case ok:
				d.Type = &typ
			case enumerations[kind] != "":
				d.Type, d.TypeName = descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), proto.String(".caffe."+kind+"Scope."+kind)
			default:
				d.Type, d.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".caffe."+kind)
			}
			m.Field = append(m.Field, d)
		}
		file.MessageType = append(file.MessageType, m)
	}
	d, err := protodesc.NewFile(file, nil)
	if err != nil {
		panic("caffe: BUG: " + err.Error())
	}
	return d.Messages().ByName("NetParameter")
}

// message reads fields of a message by name; one that is not set gives the default that is asked for.
type message struct{ protoreflect.Message }

func (m message) field(name string) (protoreflect.FieldDescriptor, bool) {
	f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	return f, f != nil && m.Has(f)
}

func (m message) int(name string, def int) int {
	f, ok := m.field(name)
	if !ok {
		return def
	}
	switch v := m.Get(f); f.Kind() {
	case protoreflect.Uint32Kind:
		return int(v.Uint())
	case protoreflect.EnumKind:
		return int(v.Enum())
	case protoreflect.BoolKind:
		if v.Bool() {
			return 1
		}
		return 0
	default:
		return int(v.Int())
	}
}

func (m message) float(name string, def float32) float32 {
	if f, ok := m.field(name); ok {
		return float32(m.Get(f).Float())
	}
	return def
}

func (m message) str(name string) string {
	if f, ok := m.field(name); ok {
		return m.Get(f).String()
	}
	return ""
}

func (m message) list(name string) []protoreflect.Value {
	f, ok := m.field(name)
	if !ok {
		return nil
	}
	l := m.Get(f).List()
	out := make([]protoreflect.Value, l.Len())
	for i := range out {
		out[i] = l.Get(i)
	}
	return out
}

func (m message) strs(name string) []string {
	var out []string
	for _, v := range m.list(name) {
		out = append(out, v.String())
	}
	return out
}

func (m message) ints(name string) []int {
	var out []int
	for _, v := range m.list(name) {
		switch v := v.Interface().(type) {
		case int32:
			out = append(out, int(v))
		case int64:
			out = append(out, int(v))
		case uint32:
			out = append(out, int(v))
		}
	}
	return out
}

func (m message) messages(name string) []message {
	var out []message
	for _, v := range m.list(name) {
		out = append(out, message{v.Message()})
	}
	return out
}

// sub is a field that is a message; its fields are unset if it is.
func (m message) sub(name string) message {
	f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if f == nil {
		return m // of another kind of layer: it has none of the fields that are asked for
	}
	return message{m.Get(f).Message()}
}
