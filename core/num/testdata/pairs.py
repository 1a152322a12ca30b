# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime and LiteRT make of two quantized tensors, for judges_test.go (README.md).

usage: pairs.py [check | write]

check compares pairs.txt with what it computes, write writes it. A line is the judge, the operation, the type, scale and
zero point of x, of y and of the result (scales as encodings of fp32), and the SHA-256 of the results, little-endian.
"""

import hashlib
import pathlib
import sys

import flatbuffers
import numpy as np
import onnxruntime
from ai_edge_litert import schema_py_generated as tfl
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
rng = np.random.default_rng(15)


def operands(dtype):
    """All pairs of bytes; of int16 numbers that judges_test.go makes as well."""
    i = np.iinfo(dtype)
    if i.bits == 8:
        all = np.arange(i.min, i.max + 1)
        return np.repeat(all, 256).astype(dtype), np.tile(all, 256).astype(dtype)
    n = np.arange(1 << 16, dtype=np.uint32)
    return (n * 40503 % 65536).astype(np.uint16).view(np.int16), (n * 30011 % 65521).astype(np.uint16).view(np.int16)


def onnx(op, x, y, quant):
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    constants = [numpy_helper.from_array(np.array(v, t), n) for (scale, zero), s in zip(quant, "xyz") for v, t, n in ((scale, np.float32, s + "_scale"), (zero, x.dtype, s + "_zero"))]
    node = helper.make_node(op, ["x", "x_scale", "x_zero", "y", "y_scale", "y_zero", "z_scale", "z_zero"], ["z"], domain="com.microsoft")
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info(n, kind, x.shape) for n in "xy"], [helper.make_tensor_value_info("z", kind, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 9
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x, "y": y})[0]


def lite(op, x, y, quant, kind, options, version):
    types = {"int8": tfl.TensorType.INT8, "uint8": tfl.TensorType.UINT8, "int16": tfl.TensorType.INT16}

    def tensor(name, q):
        t = tfl.TensorT()
        t.name, t.shape, t.type, t.buffer = name, [1, x.size], types[x.dtype.name], 0
        t.quantization = tfl.QuantizationParametersT()
        t.quantization.scale, t.quantization.zeroPoint = [float(q[0])], [q[1]]
        return t

    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(tfl.BuiltinOperator, op)
    code.version = version
    operator = tfl.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = getattr(tfl.BuiltinOptions, kind), options
    graph = tfl.SubGraphT()
    graph.tensors = [tensor(n, q) for n, q in zip((b"x", b"y", b"z"), quant)]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [2], [operator]
    model = tfl.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [tfl.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    run = Interpreter(model_content=bytes(builder.Output()), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    run.allocate_tensors()
    for d, v in zip(run.get_input_details(), (x, y)):
        run.set_tensor(d["index"], v[None])
    run.invoke()
    return run.get_tensor(run.get_output_details()[0]["index"])[0]


def options(cls, **fields):
    o = cls()
    for name, v in fields.items():
        setattr(o, name, v)
    return o


def lines():
    for n in range(60):
        judge, op = [("litert", "add"), ("litert", "sub"), ("litert", "mul"), ("onnxruntime", "add"), ("onnxruntime", "mul")][n % 5]
        dtype = [np.int8, np.uint8, np.int16][n // 5 % (3 if judge == "litert" else 2)]
        i = np.iinfo(dtype)
        scale = lambda: np.float32(np.exp(rng.normal() * 0.7) * 8 / (i.max - i.min))
        if n % 4 == 0:
            scale = lambda: np.float32(2.0 ** -rng.integers(4, 7))  # many ties
        sx, sy = scale(), scale()
        sz = np.float32((sx + sy) * np.exp(rng.normal() * 0.3)) if op != "mul" else np.float32(sx * sy * (i.max - i.min) * np.exp(rng.normal()) / 4)
        if n % 4 == 0:
            sz = np.float32(2.0 ** np.round(np.log2(sz)))
        zero = lambda: 0 if dtype == np.int16 else int(rng.integers(i.min, i.max + 1))
        quant = [(sx, zero()), (sy, zero()), (sz, zero())]
        x, y = operands(dtype)
        if judge == "onnxruntime":
            z = onnx({"add": "QLinearAdd", "mul": "QLinearMul"}[op], x, y, quant)
        else:
            kind = {"add": "AddOptions", "sub": "SubOptions", "mul": "MulOptions"}[op]
            fields = {} if op == "mul" else {"potScaleInt16": False}
            z = lite(op.upper(), x, y, quant, kind, options(getattr(tfl, kind + "T"), **fields), {"int16": {"add": 4, "sub": 5, "mul": 4}[op]}.get(x.dtype.name, 2))
        digest = hashlib.sha256(z.astype(z.dtype.newbyteorder("<")).tobytes()).hexdigest()
        yield " ".join([judge, op, x.dtype.name] + [f"{s.view(np.uint32):08x} {z}" for s, z in quant] + [digest])


text = "\n".join(lines()) + "\n"
match sys.argv[1:]:
    case ["write"]:
        (HERE / "pairs.txt").write_text(text)
    case [] | ["check"]:
        sys.exit(0 if (HERE / "pairs.txt").read_text() == text else "pairs.txt differs")
    case _:
        sys.exit(__doc__)
