// SPDX-License-Identifier: Apache-2.0

package tflite

// operator is a builtin operator: its name, its options by field number, and which inputs are variables that it changes. The
// first letter of an option is its kind: an int32, a byte, a byte that is n 1 if it is left out, a float, a list of int32; - is one that does not matter.
type operator struct {
	name      string
	options   []string
	variables []int
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
	0:   {name: "ADD", options: []string{"bactivation", "npot_scale_int16"}},
	1:   {name: "AVERAGE_POOL_2D", options: pool},
	2:   {name: "CONCATENATION", options: []string{"iaxis", "bactivation"}},
	3:   {name: "CONV_2D", options: []string{"bpadding", "istride_w", "istride_h", "bactivation", "idilation_w", "idilation_h"}},
	4:   {name: "DEPTHWISE_CONV_2D", options: []string{"bpadding", "istride_w", "istride_h", "-", "bactivation", "idilation_w", "idilation_h"}},
	5:   {name: "DEPTH_TO_SPACE", options: []string{"iblock_size"}},
	6:   {name: "DEQUANTIZE"},
	9:   {name: "FULLY_CONNECTED", options: []string{"bactivation", "bweights_format", "bkeep_num_dims"}},
	14:  {name: "LOGISTIC"},
	17:  {name: "MAX_POOL_2D", options: pool},
	18:  {name: "MUL", options: []string{"bactivation"}},
	19:  {name: "RELU"},
	20:  {name: "RELU_N1_TO_1"},
	21:  {name: "RELU6"},
	22:  {name: "RESHAPE", options: []string{"lnew_shape"}},
	23:  {name: "RESIZE_BILINEAR", options: []string{"-", "-", "balign_corners", "bhalf_pixel_centers"}},
	25:  {name: "SOFTMAX", options: []string{"fbeta"}},
	26:  {name: "SPACE_TO_DEPTH", options: []string{"iblock_size"}},
	27:  {name: "SVDF", options: []string{"irank", "bactivation"}, variables: []int{4}},
	28:  {name: "TANH"},
	34:  {name: "PAD"},
	39:  {name: "TRANSPOSE"},
	40:  {name: "MEAN", options: []string{"bkeep_dims"}},
	41:  {name: "SUB", options: []string{"bactivation", "npot_scale_int16"}},
	43:  {name: "SQUEEZE", options: []string{"lsqueeze_dims"}},
	44:  {name: "UNIDIRECTIONAL_SEQUENCE_LSTM", options: []string{"bactivation", "fcell_clip", "fproj_clip", "btime_major"}, variables: []int{18, 19}},
	45:  {name: "STRIDED_SLICE", options: []string{"ibegin_mask", "iend_mask", "iellipsis_mask", "inew_axis_mask", "ishrink_axis_mask"}},
	47:  {name: "EXP"},
	49:  {name: "SPLIT"},
	55:  {name: "MAXIMUM"},
	57:  {name: "MINIMUM"},
	60:  {name: "PADV2"},
	65:  {name: "SLICE"},
	67:  {name: "TRANSPOSE_CONV", options: []string{"bpadding", "istride_w", "istride_h", "bactivation"}},
	70:  {name: "EXPAND_DIMS"},
	83:  {name: "PACK", options: []string{"-", "iaxis"}},
	88:  {name: "UNPACK", options: []string{"-", "iaxis"}},
	97:  {name: "RESIZE_NEAREST_NEIGHBOR", options: []string{"balign_corners", "bhalf_pixel_centers"}},
	98:  {name: "LEAKY_RELU", options: []string{"falpha"}},
	114: {name: "QUANTIZE"},
	117: {name: "HARD_SWISH"},
}

var pool = []string{"bpadding", "istride_w", "istride_h", "ifilter_w", "ifilter_h", "bactivation"}
