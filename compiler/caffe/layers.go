// SPDX-License-Identifier: Apache-2.0

package caffe

import (
	"npuemu/compiler/ir"
)

// version1 gives the types of version 1 their names of version 2.
var version1 = map[string]string{
	"CONCAT": "Concat", "CONVOLUTION": "Convolution", "DROPOUT": "Dropout", "FLATTEN": "Flatten", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN", "POOLING": "Pooling",
	"RELU": "ReLU", "SIGMOID": "Sigmoid", "SOFTMAX": "Softmax", "SPLIT": "Split", "TANH": "TanH", "ELTWISE": "Eltwise", "POWER": "Power", "ABSVAL": "AbsVal",
}

// layers make what a layer computes of l.x.
var layers = map[string]func(l *layer) (*ir.Tensor, *ir.Error){
	"Convolution": convolution, "Pooling": pooling, "InnerProduct": innerProduct, "ReLU": relu, "LRN": lrn, "Concat": concat, "Eltwise": eltwise, "Power": power,
	"BatchNorm": batchNorm, "Scale": scale, "Dropout": same, "Split": same, "Flatten": flatten, "Reshape": reshape,
	"Sigmoid": plain("Sigmoid"), "TanH": plain("Tanh"), "AbsVal": plain("Abs"),
	"ELU": func(l *layer) (*ir.Tensor, *ir.Error) {
		return l.op("Elu", ir.Attrs{"alpha": l.sub("elu_param").float("alpha", 1)}, l.x[0]), nil
	},
	"Softmax": func(l *layer) (*ir.Tensor, *ir.Error) {
		return l.op("Softmax", ir.Attrs{"axis": int64(l.sub("softmax_param").int("axis", 1))}, l.x[0]), nil
	},
}

func same(l *layer) (*ir.Tensor, *ir.Error) { return l.x[0], nil }

func plain(op string) func(l *layer) (*ir.Tensor, *ir.Error) {
	return func(l *layer) (*ir.Tensor, *ir.Error) { return l.op(op, nil, l.x[0]), nil }
}

// limit bounds the sizes of windows and counts that a file states, so that products of them stay in range.
const limit = 1 << 24

// pair is a size for both axes: its _h and _w form, a list of one or two, or a default.
func pair(m message, name, stem string, def int) (h, w int) {
	h, w = def, def
	if f, ok := m.field(name); ok && f.IsList() {
		if v := m.ints(name); len(v) > 0 {
			h, w = v[0], v[len(v)-1]
		}
	} else if ok {
		h = m.int(name, def)
		w = h
	}
	return m.int(stem+"_h", h), m.int(stem+"_w", w)
}

func convolution(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("convolution_param")
	kh, kw := pair(p, "kernel_size", "kernel", 0)
	sh, sw := pair(p, "stride", "stride", 1)
	ph, pw := pair(p, "pad", "pad", 0)
	dh, dw := pair(p, "dilation", "dilation", 1)
	cout, group := p.int("num_output", 0), p.int("group", 1)
	for _, v := range []int{kh, kw, sh, sw, cout, group, dh, dw} {
		if v < 1 || v > limit {
			return nil, l.fail("kernel %d×%d, stride %d×%d, dilation %d×%d, %d outputs in %d groups", kh, kw, sh, sw, dh, dw, cout, group)
		}
	}
	if p.int("axis", 1) != 1 || max(ph, pw) > limit {
		return nil, l.fail("axis %d, pad %d×%d", p.int("axis", 1), ph, pw)
	}
	w, err := l.whole(0)
	if err != nil {
		return nil, err
	}
	cin := len(w) / cout / kh / kw
	if cin == 0 || len(w) != cin*cout*kh*kw {
		return nil, l.fail("blob 0 has %d numbers, no multiple of %d·%d·%d", len(w), cout, kh, kw)
	}
	in := []*ir.Tensor{l.x[0], l.constant([]int{cout, cin, kh, kw}, w)}
	if p.int("bias_term", 1) != 0 {
		b, err := l.blob(1, cout)
		if err != nil {
			return nil, err
		}
		in = append(in, l.constant([]int{cout}, b))
	}
	return l.op("Conv", ir.Attrs{
		"kernel_shape": ir.IntList(kh, kw), "strides": ir.IntList(sh, sw), "pads": ir.IntList(ph, pw, ph, pw), "dilations": ir.IntList(dh, dw), "group": int64(group),
	}, in...), nil
}

// pooling rounds up, and an average divides by the window's part inside the padded image.
func pooling(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("pooling_param")
	op, global := "MaxPool", "GlobalMaxPool"
	switch k := p.int("pool", 0); k {
	case 0:
	case 1:
		op, global = "AveragePool", "GlobalAveragePool"
	default:
		return nil, l.fail("pool method %d is not supported", k)
	}
	if p.int("global_pooling", 0) != 0 {
		return l.op(global, nil, l.x[0]), nil
	}
	kh, kw := pair(p, "kernel_size", "kernel", 0)
	sh, sw := pair(p, "stride", "stride", 1)
	ph, pw := pair(p, "pad", "pad", 0)
	if min(kh, kw, sh, sw) < 1 || max(kh, kw, sh, sw, ph, pw) > limit || ph >= kh || pw >= kw {
		return nil, l.fail("kernel %d×%d, stride %d×%d, pad %d×%d", kh, kw, sh, sw, ph, pw)
	}
	attrs := ir.Attrs{"kernel_shape": ir.IntList(kh, kw), "strides": ir.IntList(sh, sw), "pads": ir.IntList(ph, pw, ph, pw), "ceil_mode": int64(1 - p.int("round_mode", 0))}
	if op == "AveragePool" {
		attrs["count_include_pad"] = int64(1)
	}
	return l.op(op, attrs, l.x[0]), nil
}

func innerProduct(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("inner_product_param")
	n := p.int("num_output", 0)
	w, err := l.whole(0)
	if err != nil {
		return nil, err
	}
	if n < 1 || len(w) == 0 || len(w)%n != 0 || p.int("axis", 1) != 1 {
		return nil, l.fail("%d outputs of axis %d, and %d weights", n, p.int("axis", 1), len(w))
	}
	attrs, shape := ir.Attrs{"transB": int64(1)}, []int{n, len(w) / n}
	if p.int("transpose", 0) != 0 {
		attrs, shape = nil, []int{len(w) / n, n}
	}
	in := []*ir.Tensor{l.op("Flatten", ir.Attrs{"axis": int64(1)}, l.x[0]), l.constant(shape, w)}
	if p.int("bias_term", 1) != 0 {
		b, err := l.blob(1, n)
		if err != nil {
			return nil, err
		}
		in = append(in, l.constant([]int{n}, b))
	}
	return l.op("Gemm", attrs, in...), nil
}

func relu(l *layer) (*ir.Tensor, *ir.Error) {
	if s := l.sub("relu_param").float("negative_slope", 0); s != 0 {
		return l.op("LeakyRelu", ir.Attrs{"alpha": s}, l.x[0]), nil
	}
	return l.op("Relu", nil, l.x[0]), nil
}

func lrn(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("lrn_param")
	if p.int("norm_region", 0) != 0 {
		return nil, l.fail("normalization within channels is not supported")
	}
	return l.op("LRN", ir.Attrs{"size": int64(p.int("local_size", 5)), "alpha": p.float("alpha", 1), "beta": p.float("beta", 0.75), "bias": p.float("k", 1)}, l.x[0]), nil
}

func concat(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("concat_param")
	return l.op("Concat", ir.Attrs{"axis": int64(p.int("axis", p.int("concat_dim", 1)))}, l.x...), nil
}

func eltwise(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("eltwise_param")
	op := p.int("operation", 1)
	coeff := p.list("coeff")
	if op < 0 || op > 2 || len(coeff) != 0 && (op != 1 || len(coeff) != len(l.x)) {
		return nil, l.fail("operation %d with %d coefficients for %d bottoms", op, len(coeff), len(l.x))
	}
	x := l.x
	if len(coeff) != 0 {
		x = nil
		for i, t := range l.x {
			x = append(x, l.op("Mul", nil, t, l.constant(nil, []float32{float32(coeff[i].Float())})))
		}
	}
	out := x[0]
	for _, t := range x[1:] {
		out = l.op([]string{"Mul", "Add", "Max"}[op], nil, out, t)
	}
	return out, nil
}

// power is (shift + scale·x)^power.
func power(l *layer) (*ir.Tensor, *ir.Error) {
	p, x := l.sub("power_param"), l.x[0]
	if s := p.float("scale", 1); s != 1 {
		x = l.op("Mul", nil, x, l.constant(nil, []float32{s}))
	}
	if s := p.float("shift", 0); s != 0 {
		x = l.op("Add", nil, x, l.constant(nil, []float32{s}))
	}
	if e := p.float("power", 1); e != 1 {
		x = l.op("Pow", nil, x, l.constant(nil, []float32{e}))
	}
	return x, nil
}

// batchNorm has the sums of means and variances, and what they are to be divided by.
func batchNorm(l *layer) (*ir.Tensor, *ir.Error) {
	mean, err := l.whole(0)
	if err != nil {
		return nil, err
	}
	variance, err := l.blob(1, len(mean))
	if err != nil {
		return nil, err
	}
	factor, err := l.blob(2, 1)
	if err != nil {
		return nil, err
	}
	by := float32(0)
	if factor[0] != 0 {
		by = 1 / factor[0]
	}
	ones, zeros := make([]float32, len(mean)), make([]float32, len(mean))
	for i := range mean {
		ones[i] = 1
		mean[i] *= by
		variance[i] *= by
	}
	c := []int{len(mean)}
	eps := l.sub("batch_norm_param").float("eps", 1e-5)
	return l.op("BatchNormalization", ir.Attrs{"epsilon": eps}, l.x[0], l.constant(c, ones), l.constant(c, zeros), l.constant(c, mean), l.constant(c, variance)), nil
}

// scale multiplies channels, and adds to them.
func scale(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("scale_param")
	if len(l.x) != 1 || p.int("axis", 1) != 1 || p.int("num_axes", 1) != 1 {
		return nil, l.fail("only a scale for each channel is supported")
	}
	w, err := l.whole(0)
	if err != nil {
		return nil, err
	}
	b, ones, zeros := make([]float32, len(w)), make([]float32, len(w)), make([]float32, len(w))
	for i := range ones {
		ones[i] = 1
	}
	if p.int("bias_term", 0) != 0 {
		if b, err = l.blob(1, len(w)); err != nil {
			return nil, err
		}
	}
	c := []int{len(w)} // with mean 0 and variance 1, whatever the rank of x
	return l.op("BatchNormalization", ir.Attrs{"epsilon": float32(0)}, l.x[0], l.constant(c, w), l.constant(c, b), l.constant(c, zeros), l.constant(c, ones)), nil
}

func flatten(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("flatten_param")
	if p.int("axis", 1) != 1 || p.int("end_axis", -1) != -1 {
		return nil, l.fail("axes %d to %d; only 1 to −1 is supported", p.int("axis", 1), p.int("end_axis", -1))
	}
	return l.op("Flatten", ir.Attrs{"axis": int64(1)}, l.x[0]), nil
}

func reshape(l *layer) (*ir.Tensor, *ir.Error) {
	p := l.sub("reshape_param")
	if p.int("axis", 0) != 0 || p.int("num_axes", -1) != -1 {
		return nil, l.fail("a part of the axes is not supported")
	}
	dims := p.sub("shape").ints("dim")
	t := &ir.Tensor{Name: l.unique(l.node.Name + "/shape"), Type: ir.Int64, Shape: []int{len(dims)}, Data: []byte{}}
	for _, d := range dims {
		for k := range 8 {
			t.Data = append(t.Data, byte(int64(d)>>(8*k)))
		}
	}
	return l.op("Reshape", nil, l.x[0], t), nil
}
