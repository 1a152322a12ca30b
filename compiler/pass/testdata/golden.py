#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden cases of TestGolden: small models, their inputs, and what ONNX's reference evaluator makes of them.

usage: golden.py DIRECTORY        with the packages of tests/models/requirements.txt

What com.microsoft adds, and what the evaluator cannot do, is computed by ONNX Runtime, without optimizations. DIRECTORY/FAMILY.txt has a case behind each
line "case NAME": the model as text of compiler/ir, with the inputs' values, and what the outputs must be. There is one for
each rule of lowering at least, and what attributes are when they are left out is left out in one of them.
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 23
TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    12: "uint32", 13: "uint64",
}
rng = np.random.default_rng(6)
families = {}


def f32(*v):
    return np.array(v, np.float32)


def i64(*v):
    return np.array(v, np.int64)


def scalar(v, dtype=np.float32):
    return np.array(v, dtype)


def normal(*shape):
    """Numbers with four digits, so that the text has few."""
    return np.round(rng.standard_normal(shape), 3).astype(np.float32)


def positive(*shape):
    return np.round(rng.uniform(0.25, 4, shape), 3).astype(np.float32)


def integers(dtype, *shape, lo=None, hi=None):
    i = np.iinfo(dtype)
    return rng.integers(i.min if lo is None else lo, (i.max if hi is None else hi) + 1, shape).astype(dtype)


def values(a):
    if a.dtype.kind == "f":
        return " ".join("%.9g" % v for v in a.astype(np.float64).ravel())
    return " ".join(str(int(v)) for v in a.ravel())


def tensor(name, a):
    a = np.asarray(a)
    kind = TYPES[helper.np_dtype_to_tensor_dtype(a.dtype)]
    return f"%{name}: {kind}[{', '.join(map(str, a.shape))}]"


def attribute(a):
    def f(v):
        return "%.9g" % np.float32(v)

    v = helper.get_attribute_value(a)
    match a.type:
        case onnx.AttributeProto.FLOAT:
            return "float " + f(v)
        case onnx.AttributeProto.INT:
            return str(v)
        case onnx.AttributeProto.STRING:
            return '"' + v.decode() + '"'
        case onnx.AttributeProto.STRINGS:
            return "strings[" + ", ".join('"' + x.decode() + '"' for x in v) + "]"
        case onnx.AttributeProto.FLOATS:
            return "floats[" + ", ".join(map(f, v)) + "]"
        case onnx.AttributeProto.INTS:
            return "[" + ", ".join(map(str, v)) + "]"
    raise ValueError(a)


def case(family, name, nodes, inputs, consts=None, outputs=("y",), near=2e-6, opset=OPSET, ort=False):
    """One case. near bounds how far a result may be from the reference's, relative to the larger of it and 1. ort has ONNX Runtime compute it."""
    consts = consts or {}
    info = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()]
    graph = helper.make_graph(nodes, name, info, [helper.make_empty_tensor_value_info(o) for o in outputs], [numpy_helper.from_array(v, k) for k, v in consts.items()])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if ort:
        o = onnxruntime.SessionOptions()
        o.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        want = onnxruntime.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"]).run(None, inputs)
    else:
        want = ReferenceEvaluator(model).run(None, inputs)
    lines = [f"case {name}"]
    for k, v in inputs.items():
        lines.append(f"input {tensor(k, v)} = {values(v)}")
    for k, v in consts.items():
        lines.append(f"const {tensor(k, v)} = {values(v)}")
    for n in nodes:
        ins, attrs = list(n.input), {"opset": str(opset)}
        for a in n.attribute:
            if a.type == onnx.AttributeProto.TENSOR:  # the importer makes it an input
                v = numpy_helper.to_array(a.t)
                lines.append(f"const {tensor('value', v)} = {values(v)}")
                ins.append("value")
            else:
                attrs[a.name] = attribute(a)
        op = f"{n.domain}.{n.op_type}" if n.domain else n.op_type
        ins = ", ".join("%" + i if i else "_" for i in ins)
        attrs = ", ".join(f"{k}={attrs[k]}" for k in sorted(attrs))
        lines.append(f'node "{n.name or n.op_type}" {op}({ins}) -> {" ".join("%" + o for o in n.output)} {{{attrs}}}')
    for k, v in zip(outputs, want):
        v = np.asarray(v)
        lines.append(f"want {tensor(k, v)} near {near if v.dtype.kind == 'f' else 0:g} = {values(v)}")
    families.setdefault(family, []).append("\n".join(lines) + "\n")


def op(family, name, *ins, consts=(), outputs=1, near=2e-6, domain="", label="", opset=OPSET, ort=False, **attrs):
    """A case of one operator. ins are its inputs, None for one that is left out; those whose places consts has are constants."""
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(ins)]
    outs = ["y" if i == 0 else f"y{i}" for i in range(outputs)]
    node = helper.make_node(name, names, outs, domain=domain, **attrs)
    inputs = {names[i]: v for i, v in enumerate(ins) if v is not None and i not in consts}
    case(family, name + (" " + label if label else ""), [node], inputs, {names[i]: ins[i] for i in consts}, outs, near, opset, ort or domain != "")


def element():
    x, y = normal(2, 3), normal(2, 3)
    for name in ("Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min"):
        op("element", name, x, y)
    op("element", "Add", normal(2, 1, 3), normal(4, 1), label="broadcast")
    op("element", "Mean", x, y, normal(3), label="of three")
    op("element", "Div", integers(np.int8, 6), np.array([1, 2, 3, -4, 5, -7], np.int8), label="int8")
    op("element", "Add", integers(np.int8, 8), integers(np.int8, 8), label="int8 wraps")
    op("element", "Mod", np.array([-7, -6, 5, 7, 9, -9], np.int16), np.array([3, -4, 3, -5, 9, 2], np.int16))
    op("element", "Mod", np.array([-7, -6, 5, 7, 9, -9], np.int16), np.array([3, -4, 3, -5, 9, 2], np.int16), label="fmod", fmod=1)
    for name in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"):
        op("element", name, f32(1, 2, 3, -1), f32(2, 2, 1, -1))
    a, b = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    for name in ("And", "Or", "Xor"):
        op("element", name, a, b)
    op("element", "Not", a)
    for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        op("element", name, integers(np.int32, 4), integers(np.int32, 4))
    op("element", "BitwiseNot", integers(np.int8, 5))
    u, by = np.array([200, 255, 1, 129], np.uint8), np.array([1, 2, 7, 3], np.uint8)
    op("element", "BitShift", u, by, label="left", direction="LEFT")
    op("element", "BitShift", u, by, label="right", direction="RIGHT")
    z = f32(-8, -2.5, -1.25, -0.5, -0.01, 0, 0.01, 0.5, 1.25, 2.5, 8)
    for name in ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Sign", "Softplus", "Softsign", "Mish", "HardSwish", "Gelu", "Erf", "Exp", "Round", "Floor", "Ceil",
                 "LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid", "ThresholdedRelu", "Shrink", "Sin", "Cos", "Tan", "Atan", "Asinh"):
        op("element", name, z, near=1e-5, opset=24 if name == "Swish" else OPSET)
    op("element", "Round", f32(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e9, 7.4999995), label="ties")
    op("element", "Sin", f32(-100, 30, 12, 3.1415925), label="large", near=1e-5)
    op("element", "Gelu", z, label="tanh", approximate="tanh", near=1e-5)
    op("element", "Swish", z, opset=24, near=1e-5)
    op("element", "Swish", z, label="alpha", alpha=1.75, opset=24, near=1e-5)
    op("element", "LeakyRelu", z, label="alpha", alpha=0.3)
    op("element", "Elu", z, label="alpha", alpha=0.7)
    op("element", "Celu", z, label="alpha", alpha=2.0)
    op("element", "Selu", z, label="alpha and gamma", alpha=1.5, gamma=0.75)
    op("element", "HardSigmoid", z, label="alpha and beta", alpha=0.3, beta=0.4)
    op("element", "ThresholdedRelu", z, label="alpha", alpha=2.0)
    op("element", "Shrink", z, label="lambd and bias", lambd=1.5, bias=0.75)
    op("element", "PRelu", normal(2, 3), f32(0.25, -0.5, 2))
    op("element", "Sinh", f32(-3, -0.5, 0, 0.5, 3), near=1e-5)
    op("element", "Cosh", f32(-3, -0.5, 0, 0.5, 3), near=1e-5)
    p = f32(0.01, 0.25, 0.5, 1, 2, 100)
    for name in ("Log", "Sqrt", "Reciprocal"):
        op("element", name, p, near=1e-5)
    op("element", "Acosh", f32(1, 1.5, 3, 100), near=1e-5)
    for name in ("Asin", "Acos", "Atanh"):
        op("element", name, f32(-0.95, -0.5, 0, 0.25, 0.9), near=1e-5)
    op("element", "Pow", f32(-2, -0.5, 0, 0.5, 3), f32(3, 2, 0, -1.5, 2.5), near=2e-5)
    for e in (0.5, 2, 3, -1):
        op("element", "Pow", positive(4), scalar(e), consts=[1], label=f"{e:g}", near=1e-5)
    op("element", "Clip", z, scalar(-1), scalar(2), consts=[1, 2])
    op("element", "Clip", z, None, scalar(0.3), consts=[2], label="above")
    op("element", "Clip", integers(np.int8, 6), scalar(-20, np.int8), scalar(30, np.int8), consts=[1, 2], label="int8")
    op("element", "Where", np.array([[1, 0, 1]], bool), normal(2, 3), normal(2, 1))
    special = f32(np.inf, -np.inf, np.nan, 0, 1)
    op("element", "IsInf", special)
    op("element", "IsInf", special, label="above", detect_negative=0)
    op("element", "IsNaN", special)
    op("element", "Cast", f32(-2.7, -0.5, 0, 0.5, 2.7), label="to int32", to=TensorProto.INT32)
    op("element", "Cast", f32(-2.7, 0, 0.5), label="to bool", to=TensorProto.BOOL)
    op("element", "Cast", f32(1.0001, -2.5, 1000.3), label="to float16", to=TensorProto.FLOAT16)
    op("element", "Cast", np.array([-1, 300, 70000], np.int32), label="to uint8", to=TensorProto.UINT8)
    op("element", "CastLike", np.array([-1, 3, 70], np.int32), f32(0))


def move():
    x = normal(2, 3, 4)
    op("move", "Reshape", x, i64(0, -1, 2), consts=[1])
    op("move", "Flatten", x)
    op("move", "Flatten", x, label="axis", axis=2)
    op("move", "Squeeze", normal(1, 3, 1), i64(0), consts=[1])
    op("move", "Squeeze", normal(1, 3, 1), label="all")
    op("move", "Unsqueeze", normal(3), i64(0, -1), consts=[1])
    op("move", "Transpose", x)
    op("move", "Transpose", x, label="perm", perm=[1, 0, 2])
    op("move", "Concat", normal(2, 1), normal(2, 2), normal(2, 1), axis=-1)
    op("move", "Split", normal(5, 2), i64(2, 3), consts=[1], outputs=2)
    op("move", "Split", normal(2, 5), label="parts", outputs=2, axis=1, num_outputs=2)
    op("move", "Slice", normal(4, 6), i64(-1, 1), i64(-5, 100), i64(0, 1), i64(-2, 2), consts=[1, 2, 3, 4])
    op("move", "Slice", normal(4, 6), i64(1), i64(-1), consts=[1, 2], label="without axes")
    op("move", "Pad", normal(2, 3), i64(1, 0, 0, 2), scalar(1.5), consts=[1, 2])
    for mode in ("reflect", "edge", "wrap"):
        op("move", "Pad", normal(2, 4), i64(0, 2, 0, 3), consts=[1], label=mode, mode=mode)
    op("move", "Pad", normal(3, 4), i64(-1, 1, 0, -2), consts=[1], label="below 0", ort=True)  # below 0 is beyond the evaluator
    op("move", "Gather", normal(4, 3), i64(3, -4, 0))
    op("move", "Gather", normal(4, 3), i64(2, 0).reshape(2, 1), consts=[1], label="axis", axis=1)
    op("move", "GatherElements", normal(3, 3), i64(1, 2, 0, 2, 0, -3).reshape(2, 3), consts=[1])
    op("move", "GatherElements", normal(3, 3), i64(1, 2, 0).reshape(3, 1), consts=[1], label="axis", axis=1)
    op("move", "GatherND", normal(2, 3, 2), i64(0, 1, 1, -1).reshape(2, 2), consts=[1])
    op("move", "GatherND", normal(2, 3, 2), i64(1, 2).reshape(2, 1), consts=[1], label="batch", batch_dims=1)
    op("move", "Expand", normal(3, 1), i64(2, 1, 4), consts=[1])
    op("move", "Tile", normal(2, 2), i64(2, 3), consts=[1])
    d = np.arange(16, dtype=np.float32).reshape(1, 8, 1, 2)
    op("move", "DepthToSpace", d, blocksize=2)
    op("move", "DepthToSpace", d, label="CRD", blocksize=2, mode="CRD")
    op("move", "SpaceToDepth", np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4), blocksize=2)
    # Shape, Size, ConstantOfShape, Range and EyeLike do not depend on values: something that does follows.
    add = helper.make_node("Mul", ["s", "k"], ["y"])
    k = {"k": i64(3)}
    case("move", "Shape", [helper.make_node("Shape", ["x"], ["s"], start=-2), add], {"x": x, **k})
    case("move", "Size", [helper.make_node("Size", ["x"], ["s"]), add], {"x": x, **k})
    fill = numpy_helper.from_array(i64(7), "value")
    case("move", "ConstantOfShape", [helper.make_node("ConstantOfShape", ["n"], ["s"], value=fill), add], k, {"n": i64(2, 2)})
    case("move", "ConstantOfShape zeros", [helper.make_node("ConstantOfShape", ["n"], ["s"]), helper.make_node("Add", ["s", "k"], ["y"])], {"k": f32(3)}, {"n": i64(2, 2)})
    case("move", "Range", [helper.make_node("Range", ["a", "b", "c"], ["s"]), add], k, {"a": scalar(10, np.int64), "b": scalar(-3, np.int64), "c": scalar(-4, np.int64)})
    case("move", "EyeLike", [helper.make_node("EyeLike", ["x"], ["s"], k=1), helper.make_node("Add", ["s", "x"], ["y"])], {"x": normal(3, 4)})
    op("move", "Trilu", normal(3, 4))
    op("move", "Trilu", normal(3, 4), scalar(-1, np.int64), consts=[1], label="lower", upper=0)
    op("move", "Identity", normal(3))
    op("move", "Dropout", normal(3))
    op("move", "ReverseSequence", normal(4, 3), i64(1, 4, 2), consts=[1])
    op("move", "ReverseSequence", normal(3, 4), i64(1, 4, 2), consts=[1], label="batch first", time_axis=1, batch_axis=0)
    op("move", "BitCast", f32(1, -2.5, 0), opset=26, to=TensorProto.INT32)
    op("move", "CenterCropPad", normal(5, 2), i64(2, 5), consts=[1])


def window():
    x = normal(1, 2, 5, 4)
    op("window", "Conv", x, normal(3, 2, 3, 3), normal(3), consts=[1, 2], pads=[1, 0, 1, 1], strides=[2, 1], near=1e-5)
    op("window", "Conv", x, normal(4, 1, 2, 2), consts=[1], label="groups and dilations", group=2, dilations=[2, 1], near=1e-5)
    op("window", "Conv", normal(1, 2, 6), normal(2, 2, 3), consts=[1], label="1 axis, same", auto_pad="SAME_UPPER", strides=[2], near=1e-5)
    op("window", "Conv", normal(1, 2, 3, 3, 3), normal(2, 2, 2, 2, 2), normal(2), consts=[1, 2], label="3 axes", pads=[1, 0, 0, 0, 0, 1], near=1e-5)
    op("window", "ConvTranspose", normal(1, 2, 3, 3), normal(2, 2, 3, 3), normal(2), consts=[1, 2], strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0], near=1e-5)
    for name, kind in (("MaxPool", {}), ("AveragePool", {}), ("LpPool", {})):
        op("window", name, x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0], near=1e-5, **kind)
    op("window", "AveragePool", x, label="with pads", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1, near=1e-5)
    op("window", "MaxPool", normal(1, 1, 5), label="ceil", kernel_shape=[2], strides=[2], ceil_mode=1)
    op("window", "LpPool", x, label="p 3", kernel_shape=[2, 2], p=3, near=2e-5)
    op("window", "GlobalAveragePool", x, near=1e-5)
    op("window", "GlobalMaxPool", x)


def matrix():
    op("matrix", "MatMul", normal(2, 3), normal(3, 4), near=1e-5)
    op("matrix", "MatMul", normal(2, 1, 2, 3), normal(4, 3, 2), label="batches", near=1e-5)
    op("matrix", "MatMul", normal(3), normal(2, 3, 2), label="a vector", near=1e-5)
    op("matrix", "Gemm", normal(2, 3), normal(3, 4), normal(4), consts=[1, 2], near=1e-5)
    op("matrix", "Gemm", normal(3, 2), normal(4, 3), normal(2, 1), label="all attributes", transA=1, transB=1, alpha=0.5, beta=-2.0, near=1e-5)
    op("matrix", "Softmax", normal(2, 5), near=1e-5)
    op("matrix", "Softmax", normal(3, 2, 2), label="axis", axis=0, near=1e-5)
    op("matrix", "LogSoftmax", normal(2, 5), near=1e-5)
    ties = f32(1, 3, 3, 0, -1, -1).reshape(2, 3)
    for name in ("ArgMax", "ArgMin"):
        op("matrix", name, ties)
        op("matrix", name, ties, label="last", axis=1, keepdims=0, select_last_index=1)
    op("matrix", "Hardmax", ties)
    op("matrix", "OneHot", i64(1, -1, 5), scalar(4, np.int64), f32(-0.5, 2), consts=[1])
    op("matrix", "OneHot", i64(1, -1), scalar(3, np.int64), f32(-0.5, 2), consts=[1], label="axis", axis=0)
    op("matrix", "CumSum", normal(3, 4), scalar(1, np.int64), consts=[1], near=1e-5)
    op("matrix", "CumSum", normal(4, 2), scalar(0, np.int64), consts=[1], label="exclusive and reverse", exclusive=1, reverse=1, near=1e-5)
    for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"):
        op("matrix", name, normal(2, 3, 2), i64(1), consts=[1], near=1e-5)
        op("matrix", name, normal(2, 3), label="all", keepdims=0, near=1e-5)
    op("matrix", "ReduceLogSum", positive(2, 3, 2), i64(0, -1), consts=[1], near=1e-5)
    op("matrix", "ReduceSum", integers(np.int32, 2, 4, lo=-100, hi=100), i64(1), consts=[1], label="int32", keepdims=0)


def norm():
    op("norm", "BatchNormalization", normal(2, 3, 2), normal(3), normal(3), normal(3), positive(3), consts=[1, 2, 3, 4], near=1e-5)
    op("norm", "BatchNormalization", normal(2, 2), normal(2), normal(2), normal(2), f32(0.01, 0.02), consts=[1, 2, 3, 4], label="epsilon", epsilon=0.25, near=1e-5)
    op("norm", "LayerNormalization", normal(2, 6), normal(6), normal(6), consts=[1, 2], near=1e-5)
    op("norm", "LayerNormalization", normal(2, 3, 2), normal(3, 2), label="not constant", axis=1, epsilon=0.5, near=1e-5)
    op("norm", "RMSNormalization", normal(2, 6), normal(6), consts=[1], near=1e-5)
    op("norm", "RMSNormalization", normal(2, 3, 2), normal(3, 2), label="not constant", axis=1, epsilon=0.5, near=1e-5)
    op("norm", "GroupNormalization", normal(1, 4, 3), normal(4), normal(4), consts=[1, 2], num_groups=2, near=2e-5)
    op("norm", "InstanceNormalization", normal(2, 2, 4), normal(2), normal(2), consts=[1, 2], near=2e-5)
    op("norm", "MeanVarianceNormalization", normal(2, 2, 2, 2), near=2e-5)
    op("norm", "LpNormalization", normal(2, 3), near=1e-5)
    # Of p 1 the evaluator takes no absolute values, and of LRN it takes N for the number of channels; an even size
    # ONNX Runtime refuses.
    op("norm", "LpNormalization", normal(2, 3), label="p 1", p=1, axis=0, near=1e-5, ort=True)
    op("norm", "LRN", normal(1, 5, 1, 2), near=1e-5, size=3, ort=True)
    op("norm", "LRN", normal(4, 4, 1, 1), label="all attributes", near=1e-5, size=4, alpha=0.5, beta=0.5, bias=2.0)


def quant():
    s8, u8 = (lambda v: scalar(v, np.int8)), (lambda v: scalar(v, np.uint8))
    op("quant", "QuantizeLinear", f32(-9, -0.13, 0, 0.27, 0.31, 9), scalar(0.05), u8(128), consts=[1, 2])
    op("quant", "QuantizeLinear", normal(2, 3), f32(0.05, 0.5), np.array([3, -4], np.int8), consts=[1, 2], label="axis", axis=0)
    op("quant", "QuantizeLinear", f32(0, 0.27, 9), scalar(0.05), label="without zero point")
    op("quant", "DequantizeLinear", integers(np.int8, 5), scalar(0.05), s8(7), consts=[1, 2])
    op("quant", "DequantizeLinear", integers(np.uint8, 2, 3), f32(0.05, 0.5, 2), np.array([3, 4, 250], np.uint8), consts=[1, 2], label="axis")
    op("quant", "DynamicQuantizeLinear", f32(0, 2, -3, -2.5, 1.34, 0.5), outputs=3)
    op("quant", "ConvInteger", integers(np.uint8, 1, 1, 3, 3), integers(np.uint8, 1, 1, 2, 2), u8(7), u8(3), consts=[1, 2, 3], pads=[1, 0, 0, 0])
    op("quant", "MatMulInteger", integers(np.uint8, 2, 3), integers(np.int8, 3, 2), u8(12), s8(-3), consts=[1, 2, 3])
    op("quant", "QLinearConv", integers(np.uint8, 1, 2, 3, 3), scalar(0.013), u8(100), integers(np.int8, 2, 2, 2, 2), f32(0.011, 0.02), np.array([0, 0], np.int8), scalar(0.3), u8(131),
       np.array([500, -300], np.int32), consts=[1, 2, 3, 4, 5, 6, 7, 8])
    op("quant", "QLinearMatMul", integers(np.int8, 2, 4), scalar(0.013), s8(5), integers(np.int8, 4, 3), scalar(0.021), s8(-6), scalar(0.2), s8(11), consts=[1, 2, 4, 5, 6, 7])
    ms = dict(domain="com.microsoft")
    x, y = integers(np.uint8, 2, 6), integers(np.uint8, 2, 6)
    for name in ("QLinearAdd", "QLinearMul"):
        op("quant", name, x, scalar(0.031), u8(120), y, scalar(0.047), u8(9), scalar(0.11), u8(60), consts=[1, 2, 4, 5, 6, 7], **ms)
    op("quant", "QLinearSigmoid", x, scalar(0.047), u8(120), scalar(1 / 256), u8(0), consts=[1, 2, 3, 4], **ms)
    op("quant", "QLinearLeakyRelu", x, scalar(0.047), u8(120), scalar(0.02), u8(30), consts=[1, 2, 3, 4], **ms)
    op("quant", "QLinearLeakyRelu", x, scalar(0.047), u8(120), scalar(0.02), u8(30), consts=[1, 2, 3, 4], label="alpha", alpha=0.25, **ms)
    op("quant", "QLinearGlobalAveragePool", integers(np.uint8, 1, 3, 3, 3), scalar(0.047), u8(120), scalar(0.02), u8(130), consts=[1, 2, 3, 4], **ms)
    gemm = [integers(np.int8, 2, 3), scalar(0.013), s8(5), integers(np.int8, 2, 3), f32(0.021, 0.03), np.array([0, 0], np.int8), np.array([100, -700], np.int32)]
    op("quant", "QGemm", *gemm, scalar(0.3), s8(11), consts=[1, 2, 3, 4, 5, 6, 7, 8], transB=1, **ms)
    op("quant", "QGemm", *gemm, consts=[1, 2, 3, 4, 5, 6], label="to fp32", transB=1, alpha=0.5, near=1e-5, **ms)
    op("quant", "FastGelu", f32(-8, -2.5, -1.25, -0.5, 0, 0.5, 1.25, 2.5, 8), near=1e-5, **ms)


def attention():
    q, k, v = normal(1, 2, 3, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 4)
    op("attention", "Attention", q, k, v, near=1e-5)
    op("attention", "Attention", q, k, v, np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], bool), label="mask, scale and cap", scale=0.7, softcap=1.5, near=1e-5)
    op("attention", "Attention", normal(1, 3, 8), normal(1, 3, 4), normal(1, 3, 4), label="heads, causal", q_num_heads=4, kv_num_heads=2, is_causal=1, near=1e-5)


class Quantized:
    """A product between DequantizeLinear and QuantizeLinear, for FuseQDQ. No result is near a tie, so that integers must be equal."""

    def __init__(self, label, product, x, w, x_scale, x_zero, w_scale, y_scale, y_zero, w_axis=None, bias=None, bias_scale=None, activation=None, w_input=False, **attrs):
        consts = {"xs": scalar(x_scale), "xz": x_zero, "w": w, "ws": np.asarray(w_scale, np.float32), "ys": scalar(y_scale), "yz": y_zero}
        axis = {} if w_axis is None else {"axis": w_axis}
        n = helper.make_node
        nodes = [n("DequantizeLinear", ["x", "xs", "xz"], ["dx"], name="dx"), n("DequantizeLinear", ["w", "ws"], ["dw"], name="dw", **axis)]
        ins = ["dx", "dw"]
        if bias is not None:
            consts["b"] = bias
            ins.append("b")
        if bias_scale is not None:
            consts["bs"] = np.asarray(bias_scale, np.float32)
            nodes.append(n("DequantizeLinear", ["b", "bs"], ["db"], name="db", axis=0))
            ins[2] = "db"
        nodes.append(n(product, ins, ["p"], name="p", **attrs))
        last = "p"
        if activation:
            names = []
            for i, v in enumerate(activation[1:]):
                names.append(f"a{i}")
                consts[names[-1]] = scalar(v)
            nodes.append(n(activation[0], ["p"] + names, ["a"], name="a"))
            last = "a"
        inputs = {"x": x}
        if w_input:
            inputs["w"] = consts.pop("w")
        # How far from a tie?
        info = [helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for i, v in inputs.items()]
        graph = helper.make_graph(nodes, label, info, [helper.make_empty_tensor_value_info(last)], [numpy_helper.from_array(v, i) for i, v in consts.items()])
        real = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])).run(None, inputs)[0].astype(np.float64) / float(np.float32(y_scale))
        tie = np.abs(real - np.floor(real) - 0.5).min()
        assert tie > 1e-3, f"{label}: {tie} from a tie; take another scale"
        nodes.append(n("QuantizeLinear", [last, "ys", "yz"], ["y"], name="y"))
        case("qdq", label, nodes, inputs, consts)


def qdq():
    s8, u8 = (lambda v: scalar(v, np.int8)), (lambda v: scalar(v, np.uint8))
    x, w = integers(np.int8, 1, 2, 3, 3), integers(np.int8, 2, 2, 2, 2)
    Quantized("Conv, bias of int32, Relu", "Conv", x, w, 0.02, s8(-31), [0.011, 0.03], 0.07, s8(-100), w_axis=0, bias=np.array([900, -1100], np.int32), bias_scale=np.float32(0.02) * f32(0.011, 0.03), activation=("Relu",))
    Quantized("Conv, bias in fp32", "Conv", x, w, 0.02, s8(17), 0.011, 0.05, s8(3), bias=f32(2.5, -3.25), pads=[1, 0, 1, 0])
    Quantized("Conv of uint8, Clip", "Conv", integers(np.uint8, 1, 2, 3, 3), w, 0.02, u8(97), 0.011, 0.021, u8(4), activation=("Clip", 0.5, 3.0))
    m, k = integers(np.int8, 2, 4), integers(np.int8, 3, 4)
    Quantized("Gemm, transposed, bias in fp32", "Gemm", m, k, 0.02, s8(40), [0.011, 0.02, 0.03], 0.09, s8(-7), w_axis=0, bias=f32(1.5, -2, 0.75), transB=1)
    Quantized("Gemm", "Gemm", m, integers(np.int8, 4, 3), 0.02, s8(-40), 0.011, 0.043, s8(7))
    Quantized("MatMul of activations, int16 result", "MatMul", integers(np.uint8, 2, 2, 4), integers(np.int8, 2, 4, 3), 0.013, u8(130), 0.021, 0.00117, scalar(300, np.int16), w_input=True)


def resize():
    x = normal(1, 2, 3, 4)

    def case_of(label, x, scales=None, sizes=None, roi=None, near=1e-5, **attrs):
        ins = [x, roi, scales, sizes]
        while ins[-1] is None:
            ins.pop()
        op("resize", "Resize", *ins, consts=[i for i in (1, 2, 3) if i < len(ins) and ins[i] is not None], label=label, near=near, **attrs)

    case_of("doubled", x, f32(1, 1, 2, 2))
    coordinates = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
    for mode in coordinates:
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            case_of(f"nearest {mode} {n}", x, sizes=i64(1, 2, 5, 3), mode="nearest", coordinate_transformation_mode=mode, nearest_mode=n)
        case_of(f"linear {mode}", x, sizes=i64(1, 2, 5, 3), mode="linear", coordinate_transformation_mode=mode)
        case_of(f"linear {mode} scales", x, f32(1, 1, 0.6, 2.3), mode="linear", coordinate_transformation_mode=mode)
        case_of(f"cubic {mode}", x, sizes=i64(1, 2, 5, 3), mode="cubic", coordinate_transformation_mode=mode)
    case_of("nearest int8", integers(np.int8, 1, 2, 3, 4), f32(1, 1, 2, 1.5), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    case_of("nearest int64", integers(np.int64, 1, 1, 2, 3, lo=-9, hi=9), f32(1, 1, 2, 1.5), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    case_of("nearest of 3 axes", normal(1, 2, 2, 3, 2), f32(1, 1, 2, 2, 2), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    case_of("linear of 3 axes", normal(1, 2, 2, 3, 2), sizes=i64(1, 2, 4, 5, 3), mode="linear")
    case_of("linear of 1 axis", normal(2, 3, 4), sizes=i64(2, 3, 7), mode="linear")
    case_of("linear of images in the middle", normal(2, 3, 4, 2), sizes=i64(5, 2), mode="linear", axes=[1, 2])
    case_of("linear of axes apart", normal(2, 3, 4), f32(2, 1.5), mode="linear", axes=[2, 0])
    case_of("linear of one pixel", normal(1, 1, 3, 3), sizes=i64(1, 1, 1, 1), mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
    case_of("linear antialias", x, f32(1, 1, 0.7, 0.45), mode="linear", antialias=1)
    case_of("linear antialias larger", x, f32(1, 1, 2, 1.5), mode="linear", antialias=1)
    case_of("cubic antialias", normal(1, 1, 6, 7), f32(1, 1, 0.5, 0.4), mode="cubic", antialias=1)
    case_of("cubic without outside", x, f32(1, 1, 2, 0.8), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    case_of("not larger", x, sizes=i64(7, 8), axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    case_of("not smaller", x, sizes=i64(7, 8), axes=[2, 3], keep_aspect_ratio_policy="not_smaller", mode="linear")
    roi = f32(0, 0, 0.4, 0.6, 1, 1, 1.2, 0.7)
    for mode in ("nearest", "linear", "cubic"):
        case_of(f"crop {mode}", x, sizes=i64(1, 2, 4, 5), roi=roi, mode=mode, coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=10.0)


def scatter():
    rows, elements = i64(2, 0, -1).reshape(3, 1), i64(1, 0, 2, 1, -3, 2).reshape(2, 3)
    op("scatter", "ScatterND", normal(4, 3), rows, normal(3, 3), consts=[1])
    op("scatter", "ScatterND", normal(3, 2, 2), i64(0, 1, 2, -1).reshape(2, 2), normal(2, 2), consts=[1], label="of two axes")
    op("scatter", "ScatterND", integers(np.int64, 4), i64(3, 1).reshape(2, 1), integers(np.int64, 2), consts=[1], label="int64")
    op("scatter", "ScatterElements", normal(3, 3), elements, normal(2, 3), consts=[1])
    op("scatter", "ScatterElements", normal(2, 5), i64(1, 3).reshape(1, 2), normal(1, 2), consts=[1], label="axis", axis=1)
    for name in ("add", "mul", "max", "min"):
        op("scatter", "ScatterND", normal(4, 2), i64(1, 3, 1, 1).reshape(4, 1), normal(4, 2), consts=[1], label=name, reduction=name)
        op("scatter", "ScatterElements", normal(3, 3), i64(1, 0, 2, 1, 0, 1).reshape(2, 3), normal(2, 3), consts=[1], label=name, reduction=name)


def rotary():
    cos, sin = (np.round(f(np.arange(20).reshape(5, 4) * 0.37), 4).astype(np.float32) for f in (np.cos, np.sin))
    at = i64(3, 0, 4, 1, 1, 2).reshape(2, 3)
    op("rotary", "RotaryEmbedding", normal(2, 3, 3, 8), cos, sin, at, near=1e-5)
    op("rotary", "RotaryEmbedding", normal(2, 3, 16), cos, sin, at, consts=[1, 2], label="3 axes", num_heads=2, near=1e-5)
    op("rotary", "RotaryEmbedding", normal(1, 2, 5, 8), cos[None], sin[None], consts=[1, 2], label="interleaved, without positions", interleaved=1, near=1e-5)
    op("rotary", "RotaryEmbedding", normal(2, 3, 3, 12), cos, sin, at, consts=[3], label="a part", rotary_embedding_dim=8, interleaved=1, near=1e-5)


def recurrent():
    def weights(gates, dirs=1, size=3, ins=2):
        return [normal(dirs, gates * size, ins), normal(dirs, gates * size, size), normal(dirs, 2 * gates * size)]

    x = normal(4, 2, 2)
    for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        outs, states = (3, [normal(1, 2, 3)] * 2) if name == "LSTM" else (2, [normal(1, 2, 3)])
        w, r, b = weights(gates)
        op("recurrent", name, x, w, r, consts=[1, 2], outputs=outs, near=1e-5, hidden_size=3)
        op("recurrent", name, x, w, r, b, None, *states, consts=[1, 2, 3], outputs=outs, near=1e-5, label="all inputs", hidden_size=3)
        op("recurrent", name, x, w, r, b, np.array([4, 4], np.int32), consts=[4], outputs=outs, near=1e-5, label="weights that are computed", hidden_size=3)
        op("recurrent", name, x, *weights(gates, 2), consts=[1, 2, 3], outputs=outs, near=1e-5, label="both directions", direction="bidirectional", hidden_size=3)
        op("recurrent", name, x, w, r, b, consts=[1, 2, 3], outputs=outs, near=1e-5, label="reverse", direction="reverse", hidden_size=3)
        op("recurrent", name, np.swapaxes(x, 0, 1), w, r, b, None, *[np.swapaxes(s, 0, 1) for s in states], consts=[1, 2, 3], outputs=outs, near=1e-5, label="layout", layout=1, hidden_size=3)
    w, r, b = weights(3)
    op("recurrent", "GRU", x, w, r, b, consts=[1, 2, 3], outputs=2, near=1e-5, label="linear before reset", linear_before_reset=1, hidden_size=3)
    w, r, b = weights(4)
    op("recurrent", "LSTM", x, w, r, b, None, None, None, normal(1, 9), consts=[1, 2, 3, 7], outputs=3, near=1e-5, label="peepholes", hidden_size=3)
    w, r, b = weights(1)
    op("recurrent", "RNN", x, w, r, b, consts=[1, 2, 3], outputs=2, near=1e-5, label="Relu", activations=["Relu"], hidden_size=3, ort=True)


def sequences():
    """Sequences that end before the last step, clips, and what else is not in recurrent."""
    def weights(gates, dirs=1):
        return [normal(dirs, gates * 3, 2), normal(dirs, gates * 3, 3), normal(dirs, 2 * gates * 3)]

    x, lengths = normal(4, 3, 2), np.array([2, 4, 1], np.int32)
    for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        outs, states = (3, [normal(2, 3, 3)] * 2) if name == "LSTM" else (2, [normal(2, 3, 3)])
        w, r, b = weights(gates, 2)
        op("sequences", name, x, w, r, b, lengths, *states, consts=[1, 2, 3], outputs=outs, near=1e-5, label="lengths", direction="bidirectional", hidden_size=3, ort=True)
        op("sequences", name, x, w, r, b, lengths, consts=[1, 2, 3, 4], outputs=outs, near=1e-5, label="constant lengths", direction="bidirectional", hidden_size=3, ort=True)
        op("sequences", name, 2 * x, *weights(gates), consts=[1, 2, 3], outputs=outs, near=1e-5, label="clip", clip=0.6, hidden_size=3, ort=True)
    op("sequences", "LSTM", x, *weights(4), consts=[1, 2, 3], outputs=3, near=1e-5, label="coupled gates", input_forget=1, hidden_size=3, ort=True)
    op("sequences", "LSTM", x, *weights(4), consts=[1, 2, 3], outputs=3, near=1e-5, label="other functions", activations=["HardSigmoid", "Softsign", "Relu"], hidden_size=3, ort=True)


def index():
    ties = f32(1, 3, 2, 3, -1, 0, -np.inf, 5, 5, 5, 2, 7, -np.inf, -np.inf).reshape(2, 7)
    op("index", "TopK", normal(3, 6), i64(3), consts=[1], outputs=2)
    op("index", "TopK", ties, i64(7), consts=[1], outputs=2, label="all, with ties and infinities")
    op("index", "TopK", normal(2, 4, 3), i64(2), consts=[1], outputs=2, label="smallest of an axis", axis=1, largest=0)
    op("index", "TopK", integers(np.int32, 9), i64(4), consts=[1], outputs=2, label="int32")
    op("index", "TopK", integers(np.int64, 7), i64(7), consts=[1], outputs=2, label="int64")
    x = normal(3, 4)
    op("index", "GatherElements", x, i64(3, -1, 0, 2, 1, 0).reshape(3, 2), label="computed", axis=1)
    op("index", "GatherElements", x, np.array([[2, -3, 0, 1]], np.int32), label="computed, int32")
    op("index", "GatherND", x, i64(2, -1, 0, 0).reshape(2, 2), label="computed")
    op("index", "GatherND", normal(2, 3, 4), i64(1, -3).reshape(2, 1), label="computed, in batches", batch_dims=1)
    op("index", "Compress", x, np.array([1, 0, 1], bool), consts=[1], axis=0)
    op("index", "Compress", x, np.array([0, 1, 0, 0, 1, 1], bool), consts=[1], label="of all")
    op("index", "NonZero", f32(0, 1, 0, -2, 0, np.nan).reshape(2, 3), consts=[0])
    op("index", "Scatter", normal(3, 3), i64(1, 0, 2, 0, 2, 1).reshape(2, 3), normal(2, 3), consts=[1], opset=10, ort=True)
    scores, targets = normal(3, 5, 2), i64(4, 0, 1, 3, 2, 1).reshape(3, 2)
    op("index", "NegativeLogLikelihoodLoss", scores, targets)
    op("index", "NegativeLogLikelihoodLoss", scores, targets, positive(5), label="weights, an index ignored", ignore_index=1)
    op("index", "NegativeLogLikelihoodLoss", scores, i64(4, 0, -9, 3, 2, -9).reshape(3, 2), label="single, an index ignored", ignore_index=-9, reduction="none")
    op("index", "SoftmaxCrossEntropyLoss", scores, targets, outputs=2, near=1e-5)
    op("index", "SoftmaxCrossEntropyLoss", scores, targets, positive(5), label="sum", reduction="sum", near=1e-5)
    past, update = normal(2, 2, 5, 3), normal(2, 2, 2, 3)
    op("index", "TensorScatter", past, update, i64(1, 3), opset=24)
    op("index", "TensorScatter", past, update, i64(4, 0), label="circular", mode="circular", opset=24)
    op("index", "TensorScatter", past, update, label="from the first", opset=24)


def signal():
    op("signal", "Einsum", normal(2, 3, 4), normal(2, 4, 5), equation="bij, bjk -> bik", near=1e-5)
    op("signal", "Einsum", normal(2, 3, 4), normal(5, 4), label="implicit", equation="abc,dc", near=1e-5)
    op("signal", "Einsum", normal(3, 3, 2), label="diagonal", equation="iij->ji")
    op("signal", "Einsum", normal(3, 4), label="sum", equation="ij->", near=1e-5)
    op("signal", "Einsum", normal(2, 3), normal(4), label="outer", equation="ij,k->kij")
    op("signal", "Einsum", normal(2, 3), normal(3, 4), normal(4, 2), label="of three", equation="ij,jk,kl->il", near=1e-5)
    op("signal", "Einsum", normal(2, 1, 3, 4), normal(5, 4, 2), label="ellipsis", equation="...ij,...jk->...ik", near=1e-5)
    x, grid = normal(2, 3, 4, 5), np.round(rng.uniform(-1.6, 1.6, (2, 3, 2, 2)), 3).astype(np.float32)
    for mode in ("nearest", "linear", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            op("signal", "GridSample", x, grid, label=f"{mode} {padding}", mode=mode, padding_mode=padding, near=2e-5)
            op("signal", "GridSample", x, grid, label=f"{mode} {padding} corners", mode=mode, padding_mode=padding, align_corners=1, near=2e-5)
    op("signal", "GridSample", normal(1, 2, 2, 3, 4), np.round(rng.uniform(-1.2, 1.2, (1, 2, 1, 3, 3)), 3).astype(np.float32), label="3 axes", near=2e-5)
    op("signal", "AffineGrid", normal(2, 2, 3), i64(2, 1, 3, 4), consts=[1], near=1e-5)
    op("signal", "AffineGrid", normal(1, 3, 4), i64(1, 1, 2, 1, 3), consts=[1], label="corners", align_corners=1, near=1e-5)
    op("signal", "DFT", normal(2, 6, 1), near=1e-5)
    op("signal", "DFT", normal(2, 6, 2), label="inverse", inverse=1, near=1e-5)
    op("signal", "DFT", normal(2, 6, 1), i64(4)[0], label="shorter, one side", consts=[1], onesided=1, near=1e-5)
    op("signal", "DFT", normal(3, 4, 2), i64(5)[0], scalar(0, np.int64), label="longer, another axis", consts=[1, 2], near=1e-5)
    op("signal", "DFT", normal(2, 4, 2), label="one side back", inverse=1, onesided=1, near=1e-5)
    op("signal", "DFT", normal(2, 4, 2), scalar(7, np.int64), label="one side back, odd", consts=[1], inverse=1, onesided=1, near=1e-5)
    op("signal", "STFT", normal(2, 20, 1), scalar(3, np.int64), positive(8), consts=[1, 2], near=1e-5)
    op("signal", "STFT", normal(1, 9, 1), scalar(2, np.int64), None, scalar(5, np.int64), consts=[1, 3], label="without window", onesided=0, near=1e-5)
    for name in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        op("signal", name, scalar(7, np.int64), consts=[0])
        op("signal", name, scalar(6, np.int64), consts=[0], label="symmetric", periodic=0)
    op("signal", "CumProd", positive(2, 5), scalar(1, np.int64), consts=[1], opset=26)
    op("signal", "CumProd", positive(5, 2), scalar(0, np.int64), consts=[1], label="from the end, without its own", exclusive=1, reverse=1, opset=26)
    op("signal", "CumSum", integers(np.int32, 2, 6), scalar(1, np.int64), consts=[1], label="int32, from the end", reverse=1)
    op("signal", "CumSum", integers(np.int64, 5, lo=-1 << 40, hi=1 << 40), scalar(0, np.int64), consts=[1], label="int64, without its own", exclusive=1)
    op("signal", "Col2Im", normal(2, 12, 4), i64(4, 5), i64(2, 3), consts=[1, 2], strides=[2, 2])
    op("signal", "Col2Im", normal(1, 4, 12), i64(3, 4), i64(2, 2), consts=[1, 2], label="pads", pads=[1, 0, 0, 1])


def state():
    def inputs(t, qh, h, dk, dv):
        return normal(2, t, qh * dk), normal(2, t, h * dk), normal(2, t, h * dv)

    past = normal(2, 2, 3, 4)
    op("state", "LinearAttention", *inputs(3, 2, 2, 3, 4), label="linear", update_rule="linear", q_num_heads=2, kv_num_heads=2, opset=27, outputs=2, near=1e-5)
    op("state", "LinearAttention", *inputs(3, 4, 2, 3, 4), past, -positive(2, 3, 2), label="gated", update_rule="gated", q_num_heads=4, kv_num_heads=2, scale=0.5, opset=27, outputs=2, near=1e-5)
    op("state", "LinearAttention", *inputs(2, 2, 2, 3, 4), None, None, positive(2, 2, 1) / 4, label="delta", update_rule="delta", q_num_heads=2, kv_num_heads=2, opset=27, outputs=2, near=1e-5)
    op("state", "LinearAttention", *inputs(3, 2, 2, 3, 4), past, -positive(2, 3, 6), positive(2, 3, 2) / 4, q_num_heads=2, kv_num_heads=2, opset=27, outputs=2, near=1e-5)
    op("state", "CausalConvWithState", normal(2, 3, 5), normal(3, 1, 4), opset=27, outputs=2, near=1e-5)
    op("state", "CausalConvWithState", normal(2, 3, 1), normal(3, 1, 4), normal(3), normal(2, 3, 3), consts=[1, 2], label="a step", activation="silu", opset=27, outputs=2, near=1e-5)
    op("state", "SwiGLU", normal(2, 5), normal(2, 5), opset=28, near=1e-5)
    op("state", "SwiGLU", normal(2, 5), normal(2, 5), label="alpha", alpha=0.5, opset=28, near=1e-5)
    op("state", "Pow", np.array([-3, 2, 7, -1, 0], np.int32), np.array([3, 10, 2, 5, 0], np.int32), label="int32")
    op("state", "Pow", np.array([-3, 2, 7], np.int32), np.array(3, np.int32), consts=[1], label="int32 cubed")
    op("state", "Pow", np.array([1, 2, 3], np.int64), f32(4, 5, 6), label="int64, of fp32")
    op("state", "Softmax", np.array([[1, 2, 3.5]]), label="fp64", near=1e-8)


def main():
    for f in (element, move, window, matrix, norm, quant, attention, qdq, resize, scatter, rotary, recurrent, sequences, index, signal, state):
        f()
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, cases in families.items():
        with open(os.path.join(sys.argv[1], name + ".txt"), "w") as f:
            f.write("# SPDX-License-Identifier: Apache-2.0\n# Written by golden.py: values of ONNX's reference evaluator, and of ONNX Runtime where that has none.\n\n" + "\n".join(cases))
    print(sum(map(len, families.values())), "cases")


main()
