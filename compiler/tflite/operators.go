// SPDX-License-Identifier: Apache-2.0

package tflite

// operator is a builtin operator: its name, and its options by field number. The first letter of an option is its kind: an
// int32, a byte, a float, a list of int32; - is one that does not matter.
type operator struct {
	name    string
	options []string
}

// def is the schema's default of an option of 4 bytes.
func (o operator) def(name string) int32 {
	if name == "dilation_w" || name == "dilation_h" {
		return 1
	}
	return 0
}

const custom = 32

var operators = map[int]operator{
	0:   {"ADD", []string{"bactivation"}},
	1:   {"AVERAGE_POOL_2D", pool},
	2:   {"CONCATENATION", []string{"iaxis", "bactivation"}},
	3:   {"CONV_2D", []string{"bpadding", "istride_w", "istride_h", "bactivation", "idilation_w", "idilation_h"}},
	4:   {"DEPTHWISE_CONV_2D", []string{"bpadding", "istride_w", "istride_h", "-", "bactivation", "idilation_w", "idilation_h"}},
	6:   {"DEQUANTIZE", nil},
	9:   {"FULLY_CONNECTED", []string{"bactivation", "bweights_format", "bkeep_num_dims"}},
	14:  {"LOGISTIC", nil},
	17:  {"MAX_POOL_2D", pool},
	18:  {"MUL", []string{"bactivation"}},
	19:  {"RELU", nil},
	21:  {"RELU6", nil},
	22:  {"RESHAPE", []string{"lnew_shape"}},
	25:  {"SOFTMAX", []string{"fbeta"}},
	28:  {"TANH", nil},
	34:  {"PAD", nil},
	39:  {"TRANSPOSE", nil},
	40:  {"MEAN", []string{"bkeep_dims"}},
	41:  {"SUB", []string{"bactivation"}},
	43:  {"SQUEEZE", []string{"lsqueeze_dims"}},
	47:  {"EXP", nil},
	60:  {"PADV2", nil},
	65:  {"SLICE", nil},
	70:  {"EXPAND_DIMS", nil},
	98:  {"LEAKY_RELU", []string{"falpha"}},
	114: {"QUANTIZE", nil},
	117: {"HARD_SWISH", nil},
}

var pool = []string{"bpadding", "istride_w", "istride_h", "ifilter_w", "ifilter_h", "bactivation"}
