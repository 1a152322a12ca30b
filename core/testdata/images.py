# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime and LiteRT make of images, for judges_test.go (README.md).

usage: images.py [check | write]

check compares images.json with what it computes, write writes it.
"""

import json
import pathlib
import sys

import flatbuffers
import numpy as np
import onnxruntime
from ai_edge_litert import schema_py_generated as tfl
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
rng = np.random.default_rng(14)
cases = []
NAMES = {np.dtype(np.int8): "int8", np.dtype(np.uint8): "uint8", np.dtype(np.int16): "int16", np.dtype(np.float32): "fp32", np.dtype(np.int32): "int32"}


def bits(x):
    return int(np.float32(x).view(np.uint32))


def image(h, w, n, dtype):
    if np.dtype(dtype) == np.float32:
        return (rng.standard_normal((h, w, n)) * 3).astype(np.float32)
    i = np.iinfo(dtype)
    return rng.integers(i.min, i.max + 1, (h, w, n)).astype(dtype)


def case(judge, x, y, tolerance, **fields):
    """x and y are images: lines, pixels, channels. tolerance is absolute; of fp32 relative to the largest element of x."""
    cases.append({
        "judge": judge, "type": NAMES[x.dtype], "in": list(x.shape), "out": list(y.shape), "x": x.tobytes().hex(), "y": y.astype(x.dtype).tobytes().hex(),
        "tolerance": tolerance, **fields})


def onnx(op, x, inputs=(), **attributes):
    """One operator on an image; inputs are constants behind it."""
    v = x.transpose(2, 0, 1)[None]
    names = ["x"] + [f"c{i}" if c is not None else "" for i, c in enumerate(inputs)]
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", kind(v.dtype), v.shape)], [helper.make_tensor_value_info("y", kind(v.dtype), None)],
        [numpy_helper.from_array(c, n) for c, n in zip(inputs, names[1:]) if c is not None])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.ascontiguousarray(session.run(None, {"x": v})[0][0].transpose(1, 2, 0))


def onnx_pools():
    for dtype in (np.int8, np.uint8, np.float32):
        for kernel, steps, pads, dilations, ceil in (
                ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 0), ((2, 3), (1, 2), (0, 1, 1, 1), (2, 1), 0), ((3, 2), (2, 2), (0, 0, 0, 0), (1, 1), 1),
                ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1), ((5, 5), (3, 1), (2, 2, 2, 2), (1, 1), 0)):
            x = image(9, 8, 3, dtype)
            common = {"kernel_shape": kernel, "strides": steps, "pads": pads, "dilations": dilations, "ceil_mode": ceil}
            fields = {"kernel": kernel, "steps": steps, "pads": pads, "dilations": dilations}
            case("ONNX Runtime MaxPool", x, onnx("MaxPool", x, **common), 0, instruction="pool", op="max", **fields)
            if dtype == np.float32:
                for count in (0, 1):
                    y = onnx("AveragePool", x, count_include_pad=count, **common)
                    case(f"ONNX Runtime AveragePool, count_include_pad {count}", x, y, 1e-6, instruction="pool", op="average", count_pad=bool(count), **fields)
    x = image(7, 7, 5, np.float32)
    for op, name in (("GlobalAveragePool", "average"), ("GlobalMaxPool", "max")):
        case("ONNX Runtime " + op, x, onnx(op, x), 1e-6, instruction="pool", op=name, kernel=[7, 7], steps=[1, 1], pads=[0] * 4, dilations=[1, 1])


MODES = {"floor": "floor", "ceil": "ceil", "round_prefer_floor": "round_down", "round_prefer_ceil": "round_up"}


def onnx_axis(coordinates, n, m):
    """The steps of §6.15.1 that ONNX's rule is, for m elements of n: half, center, mul, div."""
    if coordinates == "align_corners":
        return False, False, bits(n - 1) if m > 1 and n > 1 else 0, bits(m - 1) if m > 1 else 0
    if coordinates == "pytorch_half_pixel" and m == 1:
        return None
    return coordinates != "asymmetric", coordinates in ("half_pixel", "pytorch_half_pixel"), 0, bits(np.float32(m) / np.float32(n))


def onnx_resizes():
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        for mode, nearest in [("linear", None)] + [("nearest", m) for m in MODES]:
            for h, w in ((10, 16), (3, 5), (5, 4), (15, 9)):
                x = image(5, 8, 2, np.float32)
                attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
                if nearest:
                    attributes["nearest_mode"] = nearest
                y = onnx("Resize", x, [None, None, np.array([1, 2, h, w], np.int64)], **attributes)
                half, center, mul_y, div_y = onnx_axis(coordinates, 5, h)
                _, _, mul_x, div_x = onnx_axis(coordinates, 8, w)
                case(f"ONNX Runtime Resize {mode} {nearest or ''} {coordinates}", x, y, 1e-6 if mode == "linear" else 0, instruction="resize",
                     mode=MODES[nearest] if nearest else "linear", half=half, center=center, scale=[mul_y, div_y, mul_x, div_x])


def lite(op, x, shape, options, kind, extra=None, version=3):
    """One operator of LiteRT on an image, by its reference kernels."""
    types = {"int8": tfl.TensorType.INT8, "uint8": tfl.TensorType.UINT8, "int16": tfl.TensorType.INT16, "fp32": tfl.TensorType.FLOAT32, "int32": tfl.TensorType.INT32}

    def tensor(name, dims, dtype, buffer=0):
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(dims), types[NAMES[np.dtype(dtype)]], buffer
        if dtype in (np.int8, np.uint8, np.int16):
            t.quantization = tfl.QuantizationParametersT()
            t.quantization.scale, t.quantization.zeroPoint = [0.5], [0]
        return t

    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(tfl.BuiltinOperator, op)
    code.version = version
    operator = tfl.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    operator.builtinOptionsType, operator.builtinOptions = getattr(tfl.BuiltinOptions, kind), options
    graph = tfl.SubGraphT()
    graph.tensors = [tensor(b"x", (1,) + x.shape, x.dtype.type), tensor(b"y", (1,) + shape, x.dtype.type)]
    buffers = [tfl.BufferT()]
    if extra is not None:
        constant = tfl.BufferT()
        constant.data = list(extra.tobytes())
        buffers.append(constant)
        graph.tensors.append(tensor(b"c", extra.shape, extra.dtype.type, 1))
        operator.inputs = [0, 2]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model = tfl.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    run = Interpreter(model_content=bytes(builder.Output()), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    run.allocate_tensors()
    run.set_tensor(run.get_input_details()[0]["index"], x[None])
    run.invoke()
    return run.get_tensor(run.get_output_details()[0]["index"])[0]


def lite_pools():
    for dtype in (np.int8, np.uint8, np.int16, np.float32):
        for h, w, kernel, steps, same in ((9, 8, (3, 3), (2, 2), True), (6, 7, (2, 2), (2, 2), False), (7, 7, (7, 7), (1, 1), False), (8, 5, (3, 2), (1, 2), True)):
            x = image(h, w, 3, dtype)
            out = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip((h, w), kernel, steps)]
            pads = [max(0, (o - 1) * s + k - n) if same else 0 for n, k, s, o in zip((h, w), kernel, steps, out)]
            for op, name in (("MAX_POOL_2D", "max"), ("AVERAGE_POOL_2D", "average")):
                options = tfl.Pool2DOptionsT()
                options.padding = tfl.Padding.SAME if same else tfl.Padding.VALID
                options.filterHeight, options.filterWidth, options.strideH, options.strideW = *kernel, *steps
                y = lite(op, x, (*out, 3), options, "Pool2DOptions")
                top, left = pads[0] // 2, pads[1] // 2
                case("LiteRT " + op, x, y, 1e-6 if dtype == np.float32 else 0, instruction="pool", op=name, kernel=kernel, steps=steps,
                     pads=[top, left, pads[0] - top, pads[1] - left], dilations=[1, 1])


def lite_resizes():
    for dtype in (np.int8, np.uint8, np.int16, np.float32):
        for h, w in ((10, 16), (3, 5), (1, 4), (15, 9)):
            for align, half in ((False, False), (False, True), (True, False)):
                x = image(5, 8, 2, dtype)
                sizes = np.array([h, w], np.int32)
                steps, fixed = [], []
                for n, m in ((5, h), (8, w)):
                    a, b = (n - 1, m - 1) if align and m > 1 else (n, m)
                    steps += [bits(np.float32(a) / np.float32(b)), 0]
                    fixed += [((1 << 10) * a + b // 2) // b, 0]
                options = tfl.ResizeBilinearOptionsT()
                options.alignCorners, options.halfPixelCenters = align, half
                y = lite("RESIZE_BILINEAR", x, (h, w, 2), options, "ResizeBilinearOptions", sizes)
                real = dtype in (np.uint8, np.float32)  # of uint8 it computes with fp32 and adds 0.5
                tolerance = {np.uint8: 1, np.float32: 1e-6}.get(dtype, 0)
                case(f"LiteRT RESIZE_BILINEAR, align_corners {align}, half_pixel_centers {half}", x, y, tolerance, instruction="resize",
                     mode="linear" if real else "fixed", half=half, center=half, scale=steps if real else fixed)
                options = tfl.ResizeNearestNeighborOptionsT()
                options.alignCorners, options.halfPixelCenters = align, half
                y = lite("RESIZE_NEAREST_NEIGHBOR", x, (h, w, 2), options, "ResizeNearestNeighborOptions", sizes)
                case(f"LiteRT RESIZE_NEAREST_NEIGHBOR, align_corners {align}, half_pixel_centers {half}", x, y, 0, instruction="resize",
                     mode="round_up" if align else "floor", half=half, center=False, scale=steps)


for judge in (onnx_pools, onnx_resizes, lite_pools, lite_resizes):
    judge()
text = "[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n"
if sys.argv[1:] == ["write"]:
    (HERE / "images.json").write_text(text)
elif sys.argv[1:] == ["check"]:
    sys.exit((HERE / "images.json").read_text() != text)
else:
    sys.exit(__doc__)
