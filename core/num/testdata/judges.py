# SPDX-License-Identifier: Apache-2.0
"""Compares spec.py with ONNX Runtime and LiteRT (README.md).

usage: judges.py

Quantization must give the same bits; functions, softmax and layer
normalization come within the tolerance named below. Prints a line for each
comparison and exits with 1 if one fails.
"""

import sys

import flatbuffers
import numpy as np
import onnxruntime
from ai_edge_litert import schema_py_generated as tfl
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper

import spec

rng = np.random.default_rng(13)
failed = False


def report(what, differ, n, limit=0):
    global failed
    failed |= not differ <= limit
    print(f"{'ok' if differ <= limit else 'DIFFERS':8}{what}: {differ:.3g} (limit {limit:.3g}) of {n} elements")


def onnx(op, x, out, constants=(), **attributes):
    """One operator; x are its first inputs, constants those behind them."""
    names = [f"x{i}" for i in range(len(x))] + [f"c{i}" for i in range(len(constants))]
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)], "g",
        [helper.make_tensor_value_info(n, kind(v.dtype), v.shape) for n, v in zip(names, x)],
        [helper.make_tensor_value_info("y", kind(np.dtype(out)), None)],
        [numpy_helper.from_array(v, n) for n, v in zip(names[len(x):], constants)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, x)))[0]


def qdq():
    n = 1 << 20
    for _ in range(6):
        scale = np.float32(10 ** rng.uniform(-3, 2))
        x = (rng.standard_normal(n) * 100 * scale).astype(np.float32)
        x[: n // 4] = (rng.integers(-400, 400, n // 4) + 0.5).astype(np.float32) * scale  # ties, or nearly
        for code in (np.int8, np.uint8, np.int16):
            lo, hi = np.iinfo(code).min, np.iinfo(code).max
            zero = np.array(rng.integers(lo, hi + 1), code)
            got = onnx("QuantizeLinear", [x], code, [scale, zero])
            want = np.clip(np.rint((x / scale).astype(np.float64)) + int(zero), lo, hi).astype(code)
            report(f"QuantizeLinear {code.__name__}, scale {scale:.3g}", np.sum(got != want), n)
            q = rng.integers(lo, hi + 1, n).astype(code)
            got = onnx("DequantizeLinear", [q], np.float32, [scale, zero])
            want = (q.astype(np.int64) - int(zero)).astype(np.float32) * scale
            report(f"DequantizeLinear {code.__name__}, scale {scale:.3g}", np.sum(got.view(np.uint32) != want.view(np.uint32)), n)


def qlinear():
    for _ in range(6):
        a, b = (rng.integers(-128, 128, s).astype(np.int8) for s in ((256, 64), (64, 256)))
        za, zb, zy = (np.array(v, np.int8) for v in rng.integers(-20, 20, 3))
        sa, sb, sy = (np.float32(rng.uniform(*r)) for r in ((0.01, 0.1), (0.01, 0.1), (1, 4)))
        got = onnx("QLinearMatMul", [a], np.int8, [sa, za, b, sb, zb, sy, zy])
        acc = (a.astype(np.int64) - int(za)) @ (b.astype(np.int64) - int(zb))
        r = np.rint((acc.astype(np.float32) * (sa * sb / sy)).astype(np.float64))
        report("QLinearMatMul int8 (§6.9.3)", np.sum(got != np.clip(r + int(zy), -128, 127)), got.size)


def functions():
    x = np.concatenate([np.linspace(-30, 30, 1 << 19), rng.standard_normal(1 << 19) * 3]).astype(np.float32)
    unit = np.float64(2.0**-23)
    for op, f, attributes in (
            ("Exp", spec.exp, {}), ("Log", spec.log, {}), ("Tanh", spec.tanh, {}), ("Sigmoid", spec.sigmoid, {}),
            ("Erf", spec.erf, {}), ("Gelu", spec.gelu, {}), ("Gelu", spec.gelu_tanh, {"approximate": "tanh"}),
            ("HardSwish", spec.hard_swish, {})):
        v = np.abs(x) + np.float32(1e-3) if op == "Log" else x
        got, want = onnx(op, [v], np.float32, **attributes), f(v)
        size = np.maximum(np.abs(want).astype(np.float64), np.minimum(np.abs(v), 1))
        report(f"{op} {attributes or ''}, in 2^-23 of result or operand", np.max(np.abs(got.astype(np.float64) - want) / size) / unit, x.size, 8)
    x = (rng.standard_normal((64, 333)) * 3).astype(np.float32)
    want = np.stack([spec.softmax(r) for r in x])
    report("Softmax, in 2^-23 of the result", np.max(np.abs(onnx("Softmax", [x], np.float32) - want) / want) / unit, x.size, 8)
    gain, bias = (rng.standard_normal(333).astype(np.float32) for _ in range(2))
    want = np.stack([spec.layer_norm(r, gain, bias, np.float32(1e-5)) for r in x])
    got = onnx("LayerNormalization", [x], np.float32, [gain, bias], epsilon=1e-5)
    report("LayerNormalization, in 2^-23", np.max(np.abs(got - want)) / unit, x.size, 32)


def requantize(x, scale_in, zero_in, out, scale_out, zero_out):
    """TFLite's QUANTIZE from one integer type to another, by its reference kernels."""
    kinds = {np.int8: tfl.TensorType.INT8, np.int16: tfl.TensorType.INT16, np.int32: tfl.TensorType.INT32}

    def tensor(name, code, scale, zero):
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer, t.quantization = name, [x.size], kinds[code], 0, tfl.QuantizationParametersT()
        t.quantization.scale, t.quantization.zeroPoint = [float(scale)], [int(zero)]
        return t

    code = tfl.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = tfl.BuiltinOperator.QUANTIZE, tfl.BuiltinOperator.QUANTIZE, 4
    operator = tfl.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = tfl.SubGraphT()
    graph.tensors = [tensor(b"x", x.dtype.type, scale_in, zero_in), tensor(b"y", out, scale_out, zero_out)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model = tfl.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [tfl.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    run = Interpreter(model_content=bytes(builder.Output()), num_threads=1,
                      experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    run.allocate_tensors()
    run.set_tensor(run.get_input_details()[0]["index"], x)
    run.invoke()
    return run.get_tensor(run.get_output_details()[0]["index"])


def tflite():
    n = 1 << 16
    for _ in range(12):
        for a, b in ((np.int8, np.int8), (np.int16, np.int8), (np.int32, np.int8), (np.int32, np.int16), (np.int16, np.int16)):
            scale_in = np.float32(10 ** rng.uniform(-3, 0))
            scale_out = np.float32(scale_in * 10 ** rng.uniform(-0.5, 2))
            zero_in, zero_out = (int(rng.integers(-50, 50)) if c is np.int8 else 0 for c in (a, b))
            lo, hi = np.iinfo(a).min, np.iinfo(a).max
            x = rng.integers(max(lo, -3000000), min(hi, 3000000) + 1, n).astype(a)
            if a is np.int32:
                x[: n // 2] = rng.integers(-3000, 3000, n // 2)
            m, e = np.frexp(np.float64(scale_in) / np.float64(scale_out))
            q, s = int(np.floor(m * 2**31 + 0.5)), 31 - int(e)
            r = spec.two_roundings(x.astype(np.int64) - zero_in, q, np.int64(s)) + zero_out
            want = np.clip(r, np.iinfo(b).min, np.iinfo(b).max)
            got = requantize(x, scale_in, zero_in, b, scale_out, zero_out)
            report(f"TFLite QUANTIZE {a.__name__} to {b.__name__}, shift {s}", np.sum(got != want), n)


np.seterr(all="ignore")
for judge in (qdq, qlinear, functions, tflite):
    judge()
sys.exit(failed)
