# SPDX-License-Identifier: Apache-2.0
"""What numpy, ml_dtypes and ONNX Runtime make of products, convolutions and norms, for judgedproducts_test.go (README.md).

usage: products.py [check | write]

check compares products.json with what it computes, write writes it.
"""

import hashlib
import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
rows = []
KEPT = 48  # elements of a result of floating point that are written down

INTEGERS = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "int32": np.int32}
# numpy type, its encoding, exponent field's place, its lowest value here: exponents are 8 in a row, around 1.
FLOATS = {
    "fp32": (np.float32, np.uint32, 23, 120), "bf16": (ml_dtypes.bfloat16, np.uint16, 7, 120), "fp16": (np.float16, np.uint16, 10, 8),
    "e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 3, 0), "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 2, 8),
}
SMALLEST = {"fp32": 2.0**-149, "bf16": 2.0**-133, "fp16": 2.0**-24, "e4m3": 2.0**-9, "e5m2": 2.0**-16}
FRACTION = {"fp32": 23, "bf16": 7, "fp16": 10, "e4m3": 3, "e5m2": 2}
LARGEST = {"fp16": 65504, "e4m3": 448, "e5m2": 57344}


def raw(seed, n):
    """n bytes that the test makes of the same seed: SplitMix64, whose state begins at seed · 2³²."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed << 32) + np.arange(1, (n + 7) // 8 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    return z.astype("<u8").view(np.uint8)[:n]


def size(kind):
    return np.dtype(INTEGERS[kind] if kind in INTEGERS else FLOATS[kind][1]).itemsize


def tame(kind, b, lift=0):
    """Encodings without infinities and NaNs, of bytes: numbers are from 2⁻⁷ to 2, of E4M3 also below, times 2 to the lift."""
    _, encoding, place, low = FLOATS[kind]
    v = b.view(np.dtype(encoding).newbyteorder("<")).astype(np.uint32)
    top = 8 * np.dtype(encoding).itemsize - 1
    field = (v >> np.uint32(place) & np.uint32(7)) + np.uint32(low + lift)
    keep = np.uint32(1 << top | (1 << place) - 1)
    return (v & keep | field << np.uint32(place)).astype(encoding)


def operand(kind, seed, n, m, gap=0, lift=0):
    """n rows of m elements, gap elements of rubbish behind each row: as numbers; the test reads the same bytes."""
    if kind == "int4":
        stride = (m + 1) // 2 + gap
        b = raw(seed, n * stride).reshape(n, stride)[:, : (m + 1) // 2]
        both = np.stack([b & 15, b >> 4], 2).reshape(n, -1)[:, :m]
        return both.astype(np.int64) - 16 * (both >= 8)
    stride = m + gap
    b = raw(seed, n * stride * size(kind))
    if kind in INTEGERS:
        v = b.view(np.dtype(INTEGERS[kind]).newbyteorder("<"))
    else:
        v = tame(kind, b, lift).view(FLOATS[kind][0])
    return np.ascontiguousarray(v.reshape(n, stride)[:, :m])


def run(op, inputs, domain="", opset=23, **attributes):
    """One operator of ONNX Runtime, or None if it has none of these types."""
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(inputs)]
    there = [(n, v) for n, v in zip(names, inputs) if v is not None]
    kind = helper.np_dtype_to_tensor_dtype
    out = attributes.pop("out", None)
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **attributes)], "g",
        [helper.make_tensor_value_info(n, kind(v.dtype), v.shape) for n, v in there[:1]],
        [helper.make_tensor_value_info("y", kind(np.dtype(out or there[0][1].dtype)), None)],
        [numpy_helper.from_array(v, n) for n, v in there[1:]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    return session.run(None, {there[0][0]: there[0][1]})[0]


def windows(x, w, r):
    """The plain sum of §5.6.12 for fields r, of x[h][w][cin] (already without zero point) and w[ky][kx][cg][cout]."""
    kh, kw, cg, cout = w.shape
    oh, ow = r["out"][:2]
    ng = cout // r["groups"]
    y = np.zeros((oh, ow, cout), x.dtype)
    for oy in range(oh):
        for ox in range(ow):
            for ky in range(kh):
                for kx in range(kw):
                    iy, ix = oy * r["steps"][0] + ky * r["dilations"][0] - r["pads"][0], ox * r["steps"][1] + kx * r["dilations"][1] - r["pads"][1]
                    if 0 <= iy < x.shape[0] and 0 <= ix < x.shape[1]:
                        for g in range(r["groups"]):
                            y[oy, ox, g * ng : (g + 1) * ng] += x[iy, ix, g * cg : (g + 1) * cg] @ w[ky, kx, :, g * ng : (g + 1) * ng]
    return y.reshape(oh * ow, cout)


def integers(row, y):
    """A result of integers: its digest, and how it begins."""
    y = np.ascontiguousarray(y)
    little = y.astype(y.dtype.newbyteorder("<")).tobytes()
    rows.append(row | {"sha256": hashlib.sha256(little).hexdigest(), "first": [int(v) for v in y.reshape(-1)[:6]]})


def reals(row, y, tolerance, relative):
    """A result of floating point: each element of some comes within tolerance + relative · |y|."""
    y = np.ascontiguousarray(y, np.float32).reshape(-1)
    every = -(-y.size // KEPT)
    rows.append(row | {"every": every, "y": y[::every].astype("<f4").tobytes().hex(), "tolerance": float(tolerance), "relative": float(relative)})


def setup(row, x, w):
    """Zero points and accumulators of a row: x − za, w − zw as int64, acc, za, zw."""
    n = w.shape[-1]
    za, zw = np.int64(row["a_zero"]), np.full(n, row["b_zero"], np.int64)
    if row["per_channel"]:
        zw = operand("uint8" if row["b"] == "uint8" else "int8", 4 * row["seed"] + 3, 1, n)[0].astype(np.int64)
    return x.astype(np.int64) - za, w.astype(np.int64) - zw, za, zw


def finish(row, x, w, product, judge):
    """Adds a row. product(x, w) is the plain sum of numbers without zero points, judge(x, w, za, zw) that of ONNX Runtime or None."""
    m, n = row["m"], row["n"]
    if row["a"] in FLOATS:
        acc = operand("fp32", 4 * row["seed"] + 2, m, n).astype(np.float64) if row["accumulate"] else 0
        exact = product(x.astype(np.float64), w.astype(np.float64)) + acc
        largest = (product(np.abs(x.astype(np.float64)), np.abs(w.astype(np.float64))) + np.abs(acc)).max()
        bound = (row["k"] + 1) * 2.0**-24 * largest  # of a chain of fma, whatever its order
        y = judge(x.astype(np.float32), w.astype(np.float32), None, None)
        assert np.abs(y + acc - exact).max() <= 2 * bound, row
        if row["out_type"] == "fp32":
            # The judge's sum, and the accumulators that it knows nothing of; both chains and one more addition.
            reals(row | {"judge": "ONNX Runtime"}, y + acc, 2 * bound, 2.0**-23)
        else:
            limit = LARGEST.get(row["out_type"], np.inf)
            narrow = np.clip(exact, -limit, limit).astype(np.float32).astype(FLOATS[row["out_type"]][0])
            reals(row | {"judge": "numpy, ml_dtypes"}, narrow.astype(np.float32), bound + SMALLEST[row["out_type"]], 2.0 ** -FRACTION[row["out_type"]])
        return
    xd, wd, za, zw = setup(row, x, w)
    acc = operand("int32", 4 * row["seed"] + 2, m, n).astype(np.int64) if row["accumulate"] else 0
    plain = product(xd, wd)
    y = judge(x, w, za, zw)
    if y is not None:
        assert (y == plain.astype(np.int32)).all(), row
    integers(row | {"judge": "numpy" if y is None else "ONNX Runtime, numpy"}, (plain + acc).astype(np.int32))


def gemm(seed, a, b, m, n, k, za=0, zb=0, per_channel=False, ta=False, tb=False, accumulate=False, stationary=False, gap=0, out_type=None):
    row = {
        "kind": "gemm", "seed": seed, "a": a, "b": b, "m": m, "n": n, "k": k, "a_zero": za, "b_zero": zb, "per_channel": per_channel, "transpose_a": ta,
        "transpose_b": tb, "accumulate": accumulate, "stationary": stationary, "gap": gap, "out_type": out_type or ("fp32" if a in FLOATS else "int32")}
    x = operand(a, 4 * seed, *((k, m) if ta else (m, k)), gap)
    w = operand(b, 4 * seed + 1, *((n, k) if tb else (k, n)), gap)
    x, w = x.T if ta else x, w.T if tb else w

    def judge(x, w, za, zw):
        x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
        if za is None:
            return run("MatMul", [x, w])
        if a == "int16" or b == "int4":
            return None
        zero = zw.astype(w.dtype) if per_channel else np.array(zw[0], w.dtype)
        return run("MatMulInteger", [x, w, np.array(za, x.dtype), zero], out=np.int32)

    finish(row, x, w, lambda x, w: x @ w, judge)


def conv(seed, a, b, size, cin, cout, kernel, groups=1, steps=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), za=0, zb=0, per_channel=False, tb=False,
         accumulate=False, stationary=False, gap=0, out_type=None, requant=None):
    cg = cin // groups
    out = [(size[d] + pads[d] + pads[d + 2] - (kernel[d] - 1) * dilations[d] - 1) // steps[d] + 1 for d in (0, 1)]
    k = kernel[0] * kernel[1] * cg
    row = {
        "kind": "conv", "seed": seed, "a": a, "b": b, "m": out[0] * out[1], "n": cout, "k": k, "a_zero": za, "b_zero": zb, "per_channel": per_channel,
        "transpose_b": tb, "accumulate": accumulate, "stationary": stationary, "gap": gap, "out_type": out_type or ("fp32" if a in FLOATS else "int32"),
        "in": [*size, cin], "out": [*out, cout], "kernel": kernel, "groups": groups, "steps": steps, "dilations": dilations, "pads": pads[:2]}
    x = operand(a, 4 * seed, size[0] * size[1], cin, gap).reshape(*size, cin)
    w = operand(b, 4 * seed + 1, *((cout, k) if tb else (k, cout)), gap)
    w = (w.T if tb else w).reshape(*kernel, cg, cout)
    attributes = {"kernel_shape": kernel, "strides": steps, "dilations": dilations, "pads": pads, "group": groups}

    def nchw(x, w):
        return np.ascontiguousarray(x.transpose(2, 0, 1)[None]), np.ascontiguousarray(w.transpose(3, 2, 0, 1))

    def judge(x, w, za, zw):
        x, w = nchw(x, w)
        if za is None:
            y = run("Conv", [x, w], **attributes)
        elif a == "int16" or b == "int4":
            return None
        else:
            zero = zw.astype(w.dtype) if per_channel else np.array(zw[0], w.dtype)
            if per_channel:  # ONNX Runtime's wants one zero point
                return None
            y = run("ConvInteger", [x, w, np.array(za, x.dtype), zero], out=np.int32, **attributes)
            if y is None:
                return None
        return y[0].transpose(1, 2, 0).reshape(-1, cout)

    if requant is not None:
        # QLinearConv; a scale for each channel, fp32(sa · sw) / sy as §6.9.3 says.
        zy, out_kind = requant
        sa, sy = np.float32(0.0123), np.float32(0.31 * np.sqrt(k))
        sw = (0.5 + raw(4 * seed + 3, cout) / 128).astype(np.float32)
        xs, ws = nchw(x, w)
        y = run("QLinearConv", [xs, sa, np.array(za, x.dtype), ws, sw, np.zeros(cout, w.dtype), sy, np.array(zy, INTEGERS[out_kind])], out=INTEGERS[out_kind], **attributes)
        scales = sa * sw / sy
        assert scales.dtype == np.float32
        row |= {"judge": "ONNX Runtime QLinearConv", "out_type": out_kind, "zero": zy, "scales": [int(v) for v in scales.view(np.uint32)]}
        integers(row, y[0].transpose(1, 2, 0).reshape(-1, cout))
        return
    finish(row, x, w, lambda x, w: windows(x, w, row), judge)


def linear(seed, a, b, m, n, k, za, zb, zy, out_kind):
    """QLinearMatMul, which GEMM and QUANTIZE are together."""
    x, w = operand(a, 4 * seed, m, k), operand(b, 4 * seed + 1, k, n)
    sa, sy = np.float32(0.0171), np.float32(0.37 * np.sqrt(k))
    sw = np.float32(0.83)
    y = run("QLinearMatMul", [x, sa, np.array(za, x.dtype), w, sw, np.array(zb, w.dtype), sy, np.array(zy, INTEGERS[out_kind])], out=INTEGERS[out_kind])
    scale = sa * sw / sy
    integers({
        "kind": "gemm", "seed": seed, "a": a, "b": b, "m": m, "n": n, "k": k, "a_zero": za, "b_zero": zb, "per_channel": False, "gap": 0, "out_type": out_kind,
        "zero": zy, "scales": [int(np.float32(scale).view(np.uint32))], "judge": "ONNX Runtime QLinearMatMul"}, y)


def norm(seed, op, kind, out_type, m, n):
    """params are ε = 10⁻⁵, γ, β. Operands of softmax are up to ±16, so that it has large and tiny results."""
    lift = 3 if op == "softmax" else 0
    wide = operand(kind, 4 * seed, m, n, lift=lift).astype(np.float32)
    gain, bias = operand("fp32", 4 * seed + 1, 1, n)[0], operand("fp32", 4 * seed + 2, 1, n)[0]
    if op == "softmax":
        y = run("Softmax", [wide], axis=-1)
        exact = np.exp(wide.astype(np.float64) - wide.max(1, keepdims=True))
        exact /= exact.sum(1, keepdims=True)
        tolerance, relative = 0, 24 * 2.0**-24
    elif op == "layer":
        y = run("LayerNormalization", [wide, gain, bias], axis=-1, epsilon=1e-5)
        v = wide.astype(np.float64)
        v = v - v.mean(1, keepdims=True)
        exact = v / np.sqrt((v * v).mean(1, keepdims=True) + np.float64(np.float32(1e-5))) * gain + bias
        tolerance, relative = 16 * 2.0**-24 * np.abs(exact - bias).max() + 2.0**-24, 2.0**-23
    else:
        y = run("RMSNormalization", [wide, gain], axis=-1, epsilon=1e-5)
        v = wide.astype(np.float64)
        exact = v / np.sqrt((v * v).mean(1, keepdims=True) + np.float64(np.float32(1e-5))) * gain
        tolerance, relative = 0, 24 * 2.0**-24
    assert (np.abs(y - exact) <= tolerance + relative * np.abs(exact) + SMALLEST["fp32"]).all(), (op, kind, n)
    row = {"kind": "norm", "op": op, "seed": seed, "a": kind, "lift": lift, "out_type": out_type, "m": m, "n": n, "judge": "ONNX Runtime"}
    if out_type != "fp32":
        y = y.astype(FLOATS[out_type][0]).astype(np.float32)
        row["judge"] += ", ml_dtypes"
        tolerance, relative = tolerance + SMALLEST[out_type], 2.0 ** -FRACTION[out_type]
    reals(row, y, tolerance + SMALLEST["fp32"], relative)


def pool(seed, op, kind, size, n, kernel, steps, pads):
    """Pools of narrow types, by numpy: their maxima exactly, their means in fp64."""
    out = [(size[d] + pads[d] + pads[d + 2] - kernel[d]) // steps[d] + 1 for d in (0, 1)]
    x = operand(kind, 4 * seed, size[0] * size[1], n).reshape(*size, n).astype(np.float64)
    y = np.zeros((*out, n))
    for oy in range(out[0]):
        for ox in range(out[1]):
            top, left = oy * steps[0] - pads[0], ox * steps[1] - pads[1]
            part = x[max(top, 0) : max(top + kernel[0], 0), max(left, 0) : max(left + kernel[1], 0)].reshape(-1, n)
            y[oy, ox] = part.max(0) if op == "max" else part.mean(0)
    row = {"kind": "pool", "op": op, "seed": seed, "a": kind, "out_type": kind, "in": [*size, n], "out": [*out, n], "kernel": kernel, "steps": steps, "pads": pads[:2],
           "m": out[0] * out[1], "n": n, "judge": "numpy, ml_dtypes"}
    y = y.astype(np.float32).astype(FLOATS[kind][0]).astype(np.float32)
    reals(row, y, 0 if op == "max" else SMALLEST[kind] + 2.0**-22, 0 if op == "max" else 2.0 ** -FRACTION[kind])


def everything():
    seed = 0

    def next_seed():
        nonlocal seed
        seed += 1
        return seed

    # Zero points: none, one side, both, the ends of the range; of int8 also below 0.
    zeros = {"int8": (0, -7, -128, 127, 19, -100), "uint8": (0, 7, 255, 128, 19, 200), "int16": (0, -300, 32767, -32768, 19, 5), "int4": (0, 3, -8, 7, -128, 127)}
    shapes = [(5, 7, 9), (33, 70, 130), (1, 100, 64), (37, 3, 257), (14, 32, 17), (64, 33, 300)]
    for a in ("int8", "uint8", "int16"):
        for b in ("int8", "uint8", "int4"):
            for v in range(6):
                m, n, k = shapes[v]
                gemm(next_seed(), a, b, m, n, k, zeros[a][v], zeros[b][(v * 5 + 1) % 6] if v != 4 else 0, v == 4, v in (1, 3), v in (2, 3, 5), v % 2 == 1, v == 5, v % 3)
    windows_ = [
        dict(size=(9, 8), cin=5, cout=7, kernel=(3, 3), pads=(1, 1, 1, 1)),
        dict(size=(11, 10), cin=12, cout=18, kernel=(3, 2), groups=3, steps=(2, 1), pads=(1, 0, 0, 1), tb=True),
        dict(size=(12, 13), cin=20, cout=20, kernel=(3, 3), groups=20, steps=(2, 2), pads=(1, 1, 1, 1)),
        dict(size=(10, 12), cin=16, cout=33, kernel=(1, 1), tb=True),
        dict(size=(14, 9), cin=6, cout=12, kernel=(5, 3), groups=6, dilations=(2, 1), pads=(4, 1, 4, 1), tb=True),
        dict(size=(15, 15), cin=3, cout=32, kernel=(7, 7), steps=(2, 2), dilations=(1, 2), pads=(3, 6, 3, 6)),
    ]
    for a in ("int8", "uint8", "int16"):
        for b in ("int8", "uint8", "int4"):
            for v, w in enumerate(windows_):
                conv(next_seed(), a, b, **w, za=zeros[a][(v + 1) % 6], zb=0 if v in (1, 4) else zeros[b][(v * 5 + 3) % 6], per_channel=v in (1, 4), accumulate=v % 2 == 0,
                     stationary=v == 3, gap=v % 3)
    floats = list(FLOATS)
    for i, a in enumerate(floats):
        for j, b in enumerate(floats):
            v = (i + 2 * j) % 6
            m, n, k = shapes[v]
            gemm(next_seed(), a, b, m, n, k, ta=v in (1, 3), tb=v in (2, 3, 5), accumulate=(i + j) % 2 == 1, stationary=v == 5, gap=v % 3)
        for v, w in enumerate(windows_):
            conv(next_seed(), a, floats[i if v % 2 == 0 else (i + v) % 5], **w, accumulate=v % 2 == 1, gap=v % 3)
        if a != "fp32":
            for m, n, k in ((9, 21, 40), (31, 5, 200)):
                gemm(next_seed(), a, a, m, n, k, tb=m == 9, out_type=a)
            conv(next_seed(), a, a, **windows_[1], out_type=a)
    for a, b, out, za, zb, zy in (
            ("uint8", "int8", "uint8", 131, 0, 120), ("int8", "int8", "int8", -9, 0, 5), ("uint8", "uint8", "uint8", 3, 200, 0), ("int8", "int8", "int8", 17, -30, -128)):
        for m, n, k in ((13, 40, 90), (50, 17, 33)):
            linear(next_seed(), a, b, m, n, k, za, zb, zy, out)
    for a, b, out, za, zy in (("uint8", "int8", "uint8", 131, 120), ("int8", "int8", "int8", -9, 5), ("int8", "int8", "int8", 127, -128), ("uint8", "uint8", "uint8", 77, 9)):
        for v in (0, 2, 4):
            conv(next_seed(), a, b, **(windows_[v] | {"tb": False}), za=za, requant=(zy, out))
    for op in ("softmax", "layer", "rms"):
        for kind, out in [(k, k) for k in floats] + [("fp16", "fp32"), ("fp32", "bf16")]:
            for m, n in ((3, 10), (2, 197)):
                norm(next_seed(), op, kind, out, m, n)
    for kind in floats[1:]:
        for op in ("max", "average"):
            pool(next_seed(), op, kind, (9, 8), 5, (3, 3), (2, 2), (1, 1, 1, 1))
            pool(next_seed(), op, kind, (8, 11), 3, (2, 4), (1, 3), (0, 2, 1, 1))


everything()
text = "[\n" + ",\n".join(json.dumps({k: v for k, v in r.items() if v is not False}) for r in rows) + "\n]\n"
if sys.argv[1:] == ["write"]:
    (HERE / "products.json").write_text(text)
    judges = {}
    for r in rows:
        judges[r["judge"]] = judges.get(r["judge"], 0) + 1
    print(len(rows), "rows,", len(text), "bytes;", judges)
elif sys.argv[1:] == ["check"]:
    sys.exit((HERE / "products.json").read_text() != text)
else:
    sys.exit(__doc__)
