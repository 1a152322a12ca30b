#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes small models of our own, quantizes them with ONNX Runtime, and records its results.

usage: models.py DIRECTORY [NAME ...]

Each model NAME becomes DIRECTORY/NAME/model.onnx with test_data_set_0, the form of ONNX's backend tests.
Weights are pseudo-random from a fixed seed. Names: cnn, cnn_qdq, cnn_qdq_u8, resnet18, resnet50, resnet50_qdq, mobilenet.
"""
import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPSET = 17


class Net:
    """A graph under construction; methods return the name of their result."""

    def __init__(self, name, shape, seed=1):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.inits, self.name, self.shape, self.count = [], [], name, shape, 0

    def const(self, a):
        self.count += 1
        name = f"w{self.count}"
        self.inits.append(numpy_helper.from_array(np.asarray(a), name))
        return name

    def op(self, kind, *inputs, **attrs):
        self.count += 1
        out = f"{kind.lower()}{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"n_{out}", **attrs))
        return out

    def conv(self, x, cin, cout, k, stride=1, group=1, bn=True):
        w = self.rng.normal(0, np.sqrt(2 / (cin // group * k * k)), (cout, cin // group, k, k)).astype(np.float32)
        args = [x, self.const(w)]
        if not bn:
            args.append(self.const(self.rng.normal(0, 0.1, cout).astype(np.float32)))
        y = self.op("Conv", *args, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride, stride], group=group)
        if bn:
            f = lambda lo, hi: self.const(self.rng.uniform(lo, hi, cout).astype(np.float32))
            y = self.op("BatchNormalization", y, f(0.8, 1.2), f(-0.1, 0.1), f(-0.1, 0.1), f(0.8, 1.2))
        return y

    def relu(self, x):
        return self.op("Relu", x)

    def dense(self, x, cin, cout):
        w = self.rng.normal(0, np.sqrt(1 / cin), (cout, cin)).astype(np.float32)
        return self.op("Gemm", x, self.const(w), self.const(self.rng.normal(0, 0.1, cout).astype(np.float32)), transB=1)

    def model(self, out):
        i = helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)
        o = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        g = helper.make_graph(self.nodes, self.name, [i], [o], self.inits)
        m = helper.make_model(g, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        return onnx.shape_inference.infer_shapes(m)


def cnn():
    n = Net("cnn", [1, 1, 28, 28])
    x = n.relu(n.conv("input", 1, 8, 5, bn=False))
    x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.relu(n.conv(x, 8, 16, 5, bn=False))
    x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Flatten", x)
    x = n.relu(n.dense(x, 16 * 49, 64))
    return n.model(n.dense(x, 64, 10))


def resnet(name, blocks, bottleneck, size=224):
    n = Net(name, [1, 3, size, size])
    x = n.relu(n.conv("input", 3, 64, 7, 2))
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin, wide = 64, 4 if bottleneck else 1
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            y = x
            if bottleneck:
                y = n.relu(n.conv(y, cin, width, 1))
                y = n.relu(n.conv(y, width, width, 3, stride))
                y = n.conv(y, width, width * 4, 1)
            else:
                y = n.relu(n.conv(y, cin, width, 3, stride))
                y = n.conv(y, width, width, 3)
            if i == 0 and (stride != 1 or cin != width * wide):
                x = n.conv(x, cin, width * wide, 1, stride)
            cin = width * wide
            x = n.relu(n.op("Add", y, x))
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n.model(n.dense(x, cin, 1000))


def mobilenet(size=96):
    n = Net("mobilenet", [1, 3, size, size])
    six = [n.const(np.float32(0)), n.const(np.float32(6))]
    clip = lambda x: n.op("Clip", x, *six)
    x = clip(n.conv("input", 3, 16, 3, 2))
    for cin, cout, stride, expand in [(16, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 32, 2, 6), (32, 32, 1, 6), (32, 64, 2, 6)]:
        y = x
        if expand > 1:
            y = clip(n.conv(y, cin, cin * expand, 1))
        y = clip(n.conv(y, cin * expand, cin * expand, 3, stride, cin * expand))
        y = n.conv(y, cin * expand, cout, 1)
        x = n.op("Add", x, y) if stride == 1 and cin == cout else y
    x = n.op("Flatten", n.op("GlobalAveragePool", x))
    return n.model(n.op("Softmax", n.dense(x, 64, 10), axis=-1))


class Reader(CalibrationDataReader):
    def __init__(self, shape, count=4):
        rng = np.random.default_rng(2)
        self.data = iter([{"input": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(count)])

    def get_next(self):
        return next(self.data, None)


def quantized(m, activations, weights, per_channel=True):
    shape = [d.dim_value for d in m.graph.input[0].type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory() as d:
        a, b = os.path.join(d, "a.onnx"), os.path.join(d, "b.onnx")
        from onnxruntime.quantization.shape_inference import quant_pre_process

        onnx.save(m, a)
        quant_pre_process(a, a, skip_symbolic_shape=True)
        quantize_static(a, b, Reader(shape), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        activation_type=activations, weight_type=weights)
        return onnx.load(b)


MODELS = {
    "cnn": (cnn, "1e-4 1e-5"),
    "cnn_qdq": (lambda: quantized(cnn(), QuantType.QInt8, QuantType.QInt8), "0 1"),
    "cnn_qdq_u8": (lambda: quantized(cnn(), QuantType.QUInt8, QuantType.QUInt8, False), "0 1"),
    "resnet18": (lambda: resnet("resnet18", [2, 2, 2, 2], False, 64), "1e-3 1e-4"),
    "resnet50": (lambda: resnet("resnet50", [3, 4, 6, 3], True), "1e-3 1e-4"),
    "resnet50_qdq": (lambda: quantized(resnet("resnet50", [3, 4, 6, 3], True), QuantType.QInt8, QuantType.QInt8), "0 1"),
    "mobilenet": (mobilenet, "1e-3 1e-5"),
}


def main():
    out, names = sys.argv[1], sys.argv[2:] or list(MODELS)
    for name in names:
        make, tolerance = MODELS[name]
        m = make()
        d = os.path.join(out, name)
        data = os.path.join(d, "test_data_set_0")
        os.makedirs(data, exist_ok=True)
        onnx.save(m, os.path.join(d, "model.onnx"))
        shape = [v.dim_value for v in m.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        y = ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"input": x})
        for kind, values in (("input", [x]), ("output", y)):
            for i, v in enumerate(values):
                with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                    f.write(numpy_helper.from_array(v).SerializeToString())
        with open(os.path.join(d, "tolerance"), "w") as f:
            f.write(tolerance + "\n")
        print(name, os.path.getsize(os.path.join(d, "model.onnx")), "bytes")


main()
