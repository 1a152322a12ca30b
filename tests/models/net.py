# SPDX-License-Identifier: Apache-2.0
"""What the generators share: a network under construction, quantization, and ONNX Runtime."""

import os
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

OPSET, IR = 20, 10


class Net:
    """A network under construction. Its weights are drawn from a fixed seed.

    With samples, arrays by the inputs' names with a first axis of any length, the network computes them while it is built, and
    convolutions are scaled so that each of their channels has mean 0 and variance 1 there: what batch normalization leaves
    of a trained one. Without it, all inputs look alike to a deep network of random weights.
    """

    def __init__(self, name, dtype=np.float32, opset=OPSET, samples=None):
        self.name, self.dtype, self.opset, self.values = name, np.dtype(dtype), opset, samples
        self.rng, self.n = np.random.default_rng(7), 0
        self.nodes, self.weights, self.inputs, self.outputs = [], [], [], []

    def input(self, name, shape, dtype=None):
        self.inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype or self.dtype), shape))
        return name

    def output(self, value, name, shape, dtype=None):
        self.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, onnx_type(dtype or self.dtype), shape))

    def op(self, kind, *inputs, **attrs):
        return self.ops(1, kind, *inputs, **attrs)[0]

    def ops(self, count, kind, *inputs, **attrs):
        self.n += 1
        out = [f"{kind}_{self.n}" if count == 1 else f"{kind}_{self.n}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), out, name=f"{kind}_{self.n}", **attrs))
        if self.values is not None:
            self.values.update(zip(out, self.evaluate(self.nodes[-1])))
        return out

    def evaluate(self, node):
        """What a node computes of the samples."""
        feed = {i: self.values[i] for i in node.input}
        inputs = [helper.make_tensor_value_info(i, onnx_type(v.dtype), v.shape) for i, v in feed.items()]
        graph = helper.make_graph([node], "node", inputs, [helper.make_empty_tensor_value_info(o) for o in node.output])
        m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        m.ir_version = IR
        return session(m.SerializeToString()).run(None, feed)

    def const(self, array, dtype=None):
        self.n += 1
        name = f"w_{self.n}"
        array = np.asarray(array).astype(dtype or self.dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        if self.values is not None:
            self.values[name] = array
        return name

    def ints(self, *values):
        return self.const(np.array(values), np.int64)

    def normal(self, deviation, *shape):
        return self.const(self.rng.normal(0, deviation, shape))

    def linear(self, x, rows, cols):
        """x @ w + b for x of any rank."""
        return self.op("Add", self.op("MatMul", x, self.normal(np.sqrt(1 / rows), rows, cols)), self.normal(0.1, cols))

    def conv(self, x, cin, cout, k, stride=1, groups=1, act=None, pads=None):
        """A convolution with bias; k is a number or a pair. What it keeps of the size is as pads, or (k − 1) / 2 on each side."""
        k = (k, k) if isinstance(k, int) else k
        w = self.rng.normal(0, np.sqrt(2 / (k[0] * k[1] * cin // groups)), (cout, cin // groups, *k))
        b = self.rng.normal(0, 0.1, cout)
        pads = pads or [k[0] // 2, k[1] // 2] * 2
        attrs = {"kernel_shape": k, "strides": [stride] * 2, "pads": pads, "group": groups}
        y = self.evaluate(helper.make_node("Conv", [x, self.const(w)], ["y"], **attrs))[0]
        self.weights.pop()
        mean, deviation = y.mean(axis=(0, 2, 3)), y.std(axis=(0, 2, 3))
        w, b = w / deviation[:, None, None, None], b - mean / deviation
        y = self.op("Conv", x, self.const(w), self.const(b), **attrs)
        return y if act is None else self.op(act, y)

    def classify(self, y, channels, classes):
        """Averages y over its area and classifies it, by what differs between the samples."""
        y = self.op("Flatten", self.op("GlobalAveragePool", y))
        features = self.values[y]
        w = self.rng.normal(0, np.sqrt(1 / channels), (classes, channels)) / features.std(axis=0).mean()
        y = self.op("Gemm", y, self.const(w), self.const(-w @ features.mean(axis=0)), transB=1)
        self.output(y, "y", [1, classes])

    def model(self):
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        m.ir_version = IR
        onnx.checker.check_model(m, full_check=True)
        return m


def onnx_type(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def session(model, threads=0):
    """A session of ONNX Runtime with all optimizations; model is a path or its bytes. Threads stop spinning after a run,
    so that whoever measures next has the processor for itself."""
    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.log_severity_level = 3
    o.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])


class Samples(CalibrationDataReader):
    def __init__(self, samples):
        self.left = list(samples)

    def get_next(self):
        return self.left.pop() if self.left else None


def quantize(model, samples, form=QuantFormat.QDQ):
    """The model in int8, per channel: with QuantizeLinear and DequantizeLinear around each operator (QDQ), or of operators
    of integers (QOperator)."""
    with tempfile.TemporaryDirectory() as tmp:
        floating, quantized = os.path.join(tmp, "float.onnx"), os.path.join(tmp, "int8.onnx")
        onnx.save(model, floating)
        quantize_static(floating, quantized, Samples(samples), quant_format=form, per_channel=True,
                        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)  # fmt: skip
        return onnx.load(quantized)


def output_step(model):
    """The step of the first output, if it comes from DequantizeLinear: the scale."""
    producer = {o: n for n in model.graph.node for o in n.output}
    constants = {w.name: w for w in model.graph.initializer}
    n = producer.get(model.graph.output[0].name)
    while n is not None and n.op_type == "Identity":
        n = producer.get(n.input[0])
    if n is None or n.op_type != "DequantizeLinear":
        return None
    return float(numpy_helper.to_array(constants[n.input[1]]))


