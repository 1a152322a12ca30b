#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes models of opsets before 13, of the operators whose form changed, and records what ONNX Runtime computes.

usage: older.py DIRECTORY        with the packages of tests/onnx/requirements.txt

Each becomes DIRECTORY/NAME/model.onnx with input_0.bin and output_0.bin, in fp32. Numbers are pseudo-random from a fixed seed.
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(13)


def node(op, *more, **attrs):
    return helper.make_node(op, ["x", *more], ["y"], **attrs)


def f32(*v):
    return np.array(v, np.float32)


# opset, shape of x, the node, and its constants
MODELS = {
    "squeeze": (11, (2, 1, 3, 1), node("Squeeze", axes=[1, 3]), {}),
    "squeeze_all": (7, (2, 1, 3, 1), node("Squeeze"), {}),
    "unsqueeze": (11, (2, 3), node("Unsqueeze", axes=[0, 3]), {}),
    "split": (11, (5, 2), helper.make_node("Split", ["x"], ["z", "y"], axis=0, split=[2, 3]), {}),
    "split_even": (7, (4, 2), helper.make_node("Split", ["x"], ["z", "y"]), {}),
    "slice": (9, (4, 5), node("Slice", starts=[1, -3], ends=[100, -1], axes=[0, 1]), {}),
    "slice_all": (7, (4, 5), node("Slice", starts=[1, 2], ends=[3, 5]), {}),
    "pad": (10, (2, 3), node("Pad", pads=[1, 0, 0, 2], value=1.5), {}),
    "pad_zero": (7, (2, 3), node("Pad", pads=[1, 0, 0, 2]), {}),
    "pad_reflect": (7, (2, 4), node("Pad", pads=[0, 2, 1, 3], mode="reflect"), {}),
    "clip": (10, (3, 4), node("Clip", min=-0.5, max=0.75), {}),
    "clip_below": (7, (3, 4), node("Clip", min=0.25), {}),
    "clip_above": (7, (3, 4), node("Clip", max=0.25), {}),
    "reduce_sum": (11, (2, 3, 4), node("ReduceSum", axes=[0, 2], keepdims=0), {}),
    "softmax": (11, (2, 3, 4), node("Softmax"), {}),
    "softmax_last": (12, (2, 3, 4), node("Softmax", axis=-1), {}),
    "softmax_first": (7, (2, 3), node("Softmax", axis=0), {}),
    "log_softmax": (11, (2, 3, 4), node("LogSoftmax"), {}),
    "hardmax": (11, (2, 3, 4), node("Hardmax"), {}),
    "upsample": (9, (1, 2, 3, 4), node("Upsample", "s", mode="nearest"), {"s": f32(1, 1, 2, 1.5)}),
    "upsample_linear": (9, (1, 2, 3, 4), node("Upsample", "s", mode="linear"), {"s": f32(1, 1, 2, 1.5)}),
    "upsample_attributes": (7, (1, 2, 3, 4), node("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]), {}),
    "resize_10": (10, (1, 2, 3, 4), node("Resize", "s", mode="nearest"), {"s": f32(1, 1, 2, 0.5)}),
    "resize_10_linear": (10, (1, 2, 3, 4), node("Resize", "s", mode="linear"), {"s": f32(1, 1, 1.5, 2)}),
    "resize_11": (11, (1, 2, 3, 4), node("Resize", "r", "s", mode="linear", coordinate_transformation_mode="align_corners"), {"r": f32(), "s": f32(1, 1, 2, 2)}),
    "dropout": (7, (3,), node("Dropout", ratio=0.25), {}),
    "batch_normalization": (7, (2, 3, 2), node("BatchNormalization", "s", "b", "m", "v"), {"s": f32(1, 2, 3), "b": f32(-1, 0, 1), "m": f32(0.5, 0, -0.5), "v": f32(1, 2, 0.5)}),
}


def main():
    for name, (opset, shape, n, consts) in MODELS.items():
        x = np.round(rng.standard_normal(shape), 3).astype(np.float32)
        graph = helper.make_graph([n], name, [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_empty_tensor_value_info("y")],
                                  [numpy_helper.from_array(v, k) for k, v in consts.items()])
        b = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7).SerializeToString()
        o = onnxruntime.SessionOptions()
        o.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        (y,) = onnxruntime.InferenceSession(b, o, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        d = os.path.join(sys.argv[1], name)
        os.makedirs(d, exist_ok=True)
        for file, content in (("model.onnx", b), ("input_0.bin", x.tobytes()), ("output_0.bin", y.tobytes())):
            with open(os.path.join(d, file), "wb") as f:
                f.write(content)
    print(len(MODELS), "models")


main()
