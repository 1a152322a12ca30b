#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare quantized operators, one by one, with ONNX Runtime: against_ort.py NPUEMU DIR.

Each is a model of its own, between DequantizeLinear and QuantizeLinear or as an operator of ONNX Runtime, with random
inputs, weights and scales of a fixed seed, ROUNDS times. It prints what ONNX Runtime made of it and how many elements
differ in all, without and with its optimizations.
"""
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(5)
f32, i8 = np.float32, np.int8
ROUNDS = 8
IMAGE = (1, 16, 64, 64)


def scales():
    s = {k: f32(rng.uniform(0.01, 0.05)) for k in ("sa", "sb", "sy")}
    return dict(s, za=i8(3), zb=i8(-7), zy=i8(5), lo=f32(0), hi=f32(6))


def ints(*shape):
    return rng.integers(-128, 128, shape, dtype=i8)


def node(op, inputs, output, **attrs):
    domain = "com.microsoft" if op.startswith("QLinear") and op != "QLinearConv" or op == "QGemm" else ""
    return helper.make_node(op, inputs.split(), [output], domain=domain, **attrs)


def dq(x, scale, zero, y, **attrs):
    return node("DequantizeLinear", f"{x} {scale} {zero}", y, **attrs)


def q(x, y, scale="sy", zero="zy"):
    return node("QuantizeLinear", f"{x} {scale} {zero}", y)


def weights(cout, *rest):
    ws, s = rng.uniform(0.001, 0.01, cout).astype(f32), scales()
    return dict(s, w=rng.integers(-127, 128, (cout, *rest), dtype=i8), ws=ws, wz=np.zeros(cout, i8), b=rng.integers(-3000, 3000, cout, dtype=np.int32),
                bs=(ws * s["sa"]).astype(f32), bz=np.zeros(cout, np.int32))


def cases():
    pair = [dq("x", "sa", "za", "a"), dq("y", "sb", "zb", "b")]
    two = dict(x=ints(*IMAGE), y=ints(*IMAGE))
    for op in "Add", "Mul":
        yield op, pair + [node(op, "a b", "c"), q("c", "o")], scales(), two
        yield "QLinear" + op, [node("QLinear" + op, "x sa za y sb zb sy zy", "o")], scales(), two
    yield "Add, Relu", pair + [node("Add", "a b", "c"), node("Relu", "c", "d"), q("d", "o")], scales(), two
    one = dict(x=ints(*IMAGE))
    pool = dict(x=ints(1, 2048, 7, 7))
    yield "GlobalAveragePool", [dq("x", "sa", "za", "a"), node("GlobalAveragePool", "a", "c"), q("c", "o")], scales(), pool
    yield "QLinearGlobalAveragePool", [node("QLinearGlobalAveragePool", "x sa za sb zb", "o", channels_last=0)], scales(), pool
    product = [dq("x", "sa", "za", "a"), dq("w", "ws", "wz", "v", axis=0), dq("b", "bs", "bz", "s", axis=0)]
    conv = weights(32, 16, 3, 3)
    yield "Conv", product + [node("Conv", "a v s", "c", pads=[1] * 4), q("c", "o")], conv, one
    yield "Conv, Relu", product + [node("Conv", "a v s", "c", pads=[1] * 4), node("Relu", "c", "d"), q("d", "o")], conv, one
    yield "Conv, Clip", product + [node("Conv", "a v s", "c", pads=[1] * 4), node("Clip", "c lo hi", "d"), q("d", "o")], conv, one
    yield "QLinearConv", [node("QLinearConv", "x sa za w ws wz sy zy b", "o", pads=[1] * 4)], conv, one
    yield "QLinearConv, depthwise", [node("QLinearConv", "x sa za w ws wz sy zy b", "o", pads=[1] * 4, group=16)], weights(16, 1, 3, 3), one
    rows = dict(x=ints(64, 512))
    gemm = weights(100, 512)
    yield "Gemm", product + [node("Gemm", "a v s", "c", transB=1), q("c", "o")], gemm, rows
    yield "QGemm", [node("QGemm", "x sa za w ws wz b sy zy", "o", transB=1)], gemm, rows
    for op in "HardSwish", "Sigmoid", "LeakyRelu":
        yield op, [dq("x", "sa", "za", "a"), node(op, "a", "c"), q("c", "o")], scales(), one
    yield "MaxPool", [dq("x", "sa", "za", "a"), node("MaxPool", "a", "c", kernel_shape=[3, 3], pads=[1] * 4), q("c", "o", "sa", "za")], scales(), one
    yield "QuantizeLinear", [q("x", "o")], scales(), dict(x=rng.normal(0, 1, IMAGE).astype(f32))


def compare(npuemu, folder, name, nodes, constants, inputs):
    used = {i for n in nodes for i in n.input}
    info = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()]
    out = helper.make_tensor_value_info("o", TensorProto.INT8, None)
    graph = helper.make_graph(nodes, "op", info, [out], [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]))
    model.ir_version = 8
    path = os.path.join(folder, "op.onnx")
    results = []
    for level in ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL:
        o = ort.SessionOptions()
        o.graph_optimization_level, o.log_severity_level, o.optimized_model_filepath = level, 3, os.path.join(folder, "optimized.onnx")
        y = ort.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        ops = [n.op_type for n in onnx.load(o.optimized_model_filepath).graph.node]
        results.append((y, " ".join(x for x in ops if x not in ("QuantizeLinear", "DequantizeLinear")) or " ".join(ops)))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("o", TensorProto.INT8, results[0][0].shape))
    onnx.save(model, path)
    args = [npuemu, "run", path, "--output", os.path.join(folder, "o.npy")]
    for k, v in inputs.items():
        np.save(os.path.join(folder, k + ".npy"), v)
        args += ["--input", f"{k}={os.path.join(folder, k + '.npy')}"]
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)
    got = np.load(os.path.join(folder, "o.npy")).astype(int)
    for (y, ops), what in zip(results, ("plain", "optimized")):
        d = np.abs(got - y)
        yield name, what, ops, int((d > 0).sum()), d.size, int(d.max())


def main():
    npuemu, folder = sys.argv[1:3]
    os.makedirs(folder, exist_ok=True)
    print("onnxruntime", ort.__version__)
    table = {}
    for _ in range(ROUNDS):
        for case in cases():
            for name, what, ops, differ, size, most in compare(npuemu, folder, *case):
                row = table.setdefault((name, what, ops), [0, 0, 0])
                row[0], row[1], row[2] = row[0] + differ, row[1] + size, max(row[2], most)
    for (name, what, ops), (differ, size, most) in table.items():
        print(f"{name:26} {what:9} {differ:6} of {size:8} differ, by {most} at most; ONNX Runtime has {ops}")


if __name__ == "__main__":
    main()
