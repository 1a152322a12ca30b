#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make int8 models of well-known shapes, and what ONNX Runtime computes with them.

models.py DIR writes for each model NAME: NAME.onnx, quantized by onnxruntime.quantization from random weights
of a fixed seed; NAME.x.npy, an input; NAME.y.npy, ONNX Runtime's output with all optimizations; NAME.json,
the versions and the median time of a run in milliseconds. A model that is there already is kept, and timed again.
Nothing of this is committed.
"""
import json
import os
import statistics
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


class Net:
    """A float network under construction; the weights keep activations near unit variance."""

    def __init__(self, name, size):
        self.name, self.rng, self.n = name, np.random.default_rng(7), 0
        self.nodes, self.weights = [], []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])

    def op(self, kind, *inputs, **attrs):
        self.n += 1
        out = f"{kind}_{self.n}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attrs))
        return out

    def const(self, array):
        self.n += 1
        name = f"w_{self.n}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x, cin, cout, k, stride=1, groups=1, act=None):
        fan = k * k * cin // groups
        w = self.const(self.rng.normal(0, np.sqrt(2 / fan), (cout, cin // groups, k, k)))
        b = self.const(self.rng.normal(0, 0.1, cout))
        p = k // 2
        y = self.op("Conv", x, w, b, kernel_shape=[k, k], strides=[stride] * 2, pads=[p] * 4, group=groups)
        return y if act is None else self.op(act, y)

    def model(self, y, classes, cin):
        y = self.op("GlobalAveragePool", y)
        y = self.op("Flatten", y)
        w = self.const(self.rng.normal(0, np.sqrt(1 / cin), (classes, cin)))
        y = self.op("Gemm", y, w, self.const(self.rng.normal(0, 0.1, classes)), transB=1)
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, self.name, [self.input], [out], self.weights)
        m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        m.ir_version = 8
        onnx.checker.check_model(m)
        return m


def small():
    n = Net("small", 32)
    y = n.conv("x", 3, 16, 3, act="Relu")
    y = n.conv(y, 16, 32, 3, stride=2, act="Relu")
    y = n.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = n.conv(y, 32, 64, 3, act="Relu")
    return n.model(y, 10, 64)


def mobilenetv2():
    n = Net("mobilenetv2", 224)
    clip = (n.const(np.array(0.0)), n.const(np.array(6.0)))
    relu6 = lambda y: n.op("Clip", y, *clip)
    y, cin = relu6(n.conv("x", 3, 32, 3, stride=2)), 32
    for t, c, count, s in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for i in range(count):
            z, wide = y, cin * t
            if t > 1:
                z = relu6(n.conv(z, cin, wide, 1))
            z = relu6(n.conv(z, wide, wide, 3, stride=s if i == 0 else 1, groups=wide))
            z = n.conv(z, wide, c, 1)
            y = n.op("Add", y, z) if i > 0 else z
            cin = c
    return n.model(relu6(n.conv(y, cin, 1280, 1)), 1000, 1280)


def resnet(name, blocks, bottleneck):
    n = Net(name, 224)
    y = n.conv("x", 3, 64, 7, stride=2, act="Relu")
    y, cin = n.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for i, count in enumerate(blocks):
        c = 64 << i
        cout = 4 * c if bottleneck else c
        for j in range(count):
            s = 2 if i > 0 and j == 0 else 1
            if bottleneck:
                z = n.conv(y, cin, c, 1, act="Relu")
                z = n.conv(z, c, c, 3, stride=s, act="Relu")
                z = n.conv(z, c, cout, 1)
            else:
                z = n.conv(y, cin, c, 3, stride=s, act="Relu")
                z = n.conv(z, c, cout, 3)
            if s != 1 or cin != cout:
                y = n.conv(y, cin, cout, 1, stride=s)
            y, cin = n.op("Relu", n.op("Add", y, z)), cout
    return n.model(y, 1000, cin)


MODELS = {
    "small": small,
    "mobilenetv2": mobilenetv2,
    "resnet18": lambda: resnet("resnet18", [2, 2, 2, 2], False),
    "resnet50": lambda: resnet("resnet50", [3, 4, 6, 3], True),
}


class Samples(CalibrationDataReader):
    def __init__(self, shape, count):
        rng = np.random.default_rng(11)
        self.left = [{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(count)]

    def get_next(self):
        return self.left.pop() if self.left else None


def session(path, threads):
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.log_severity_level = 3
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def main():
    out, names = sys.argv[1], sys.argv[2:] or list(MODELS)
    os.makedirs(out, exist_ok=True)
    for name in names:
        path = os.path.join(out, name + ".onnx")
        if not os.path.exists(path):
            m = MODELS[name]()
            shape = [d.dim_value for d in m.graph.input[0].type.tensor_type.shape.dim]
            with tempfile.TemporaryDirectory() as tmp:
                floating = os.path.join(tmp, "float.onnx")
                onnx.save(m, floating)
                quantize_static(floating, path + ".new", Samples(shape, 2), quant_format=QuantFormat.QDQ, per_channel=True,
                                activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
            os.rename(path + ".new", path)
        s = session(path, os.cpu_count())
        x = np.random.default_rng(13).normal(0, 1, s.get_inputs()[0].shape).astype(np.float32)
        y = s.run(None, {"x": x})[0]
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            s.run(None, {"x": x})
            times.append(time.perf_counter() - begin)
        np.save(os.path.join(out, name + ".x.npy"), x)
        np.save(os.path.join(out, name + ".y.npy"), y)
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump({"onnx": onnx.__version__, "onnxruntime": ort.__version__, "threads": os.cpu_count(),
                       "milliseconds": 1000 * statistics.median(times)}, f)
        print(f"{name}: ONNX Runtime {ort.__version__}, {1000 * statistics.median(times):.1f} ms")


if __name__ == "__main__":
    main()
