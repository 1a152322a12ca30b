# SPDX-License-Identifier: Apache-2.0
"""Digests of what numpy and ml_dtypes compute, for golden_test.go (README.md).

usage: golden.py [check | write]

check compares golden.txt and true.txt with what it computes, write writes them.
"""

import hashlib
import pathlib
import sys

import ml_dtypes
import mpmath
import numpy as np

import spec

HERE = pathlib.Path(__file__).resolve().parent
TYPES = {
    "bf16": (ml_dtypes.bfloat16, np.uint16, 0x7FC0),
    "fp16": (np.float16, np.uint16, 0x7E00),
    "e4m3": (ml_dtypes.float8_e4m3fn, np.uint8, 0x7F),
    "e5m2": (ml_dtypes.float8_e5m2, np.uint8, 0x7E),
}
# With every pattern of the upper 19 bits these are all ties of all narrower
# types, their neighbours, and the representable values and their neighbours.
LOW = [0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x1FFF]


def digest(a):
    return hashlib.sha256(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes()).hexdigest()


def grid():
    high = np.arange(1 << 19, dtype=np.uint32) << 13
    return np.concatenate([high | low for low in LOW]).view(np.float32)


# Elements of the MX formats and their scales; ml_dtypes has one to a byte.
MX = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 256), "e5m2": (ml_dtypes.float8_e5m2, 256), "e3m2": (ml_dtypes.float6_e3m2fn, 64),
    "e2m3": (ml_dtypes.float6_e2m3fn, 64), "e2m1": (ml_dtypes.float4_e2m1fn, 16), "int8": (None, 256),
}


def mx(name):
    """fp32 encodings of scale times element, of all scales and in each of all elements."""
    dtype, n = MX[name]
    codes = np.arange(n, dtype=np.uint8)
    element = codes.view(np.int8).astype(np.float64) / 64 if dtype is None else codes.view(dtype).astype(np.float64)
    scale = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    return bits((scale[:, None] * element[None, :]).astype(np.float32).reshape(-1))


def bits(x):
    """fp32 encodings, every NaN the canonical one."""
    return np.where(np.isnan(x), np.uint32(0x7FC00000), x.view(np.uint32))


def narrow(x, name):
    dtype, code, nan = TYPES[name]
    y = x.astype(dtype)
    return np.where(np.isnan(y.astype(np.float32)), code(nan), y.view(code))


def integer(x, round_, lo, hi, code):
    x = np.where(np.isnan(x), 0, x.astype(np.float64))
    return np.clip(round_(x), lo, hi).astype(code)


def lines():
    x = grid()
    for name, (dtype, code, _) in TYPES.items():
        every = np.arange(1 << (8 * np.dtype(code).itemsize), dtype=np.int64).astype(code)
        yield f"{name}-fp32", digest(bits(every.view(dtype).astype(np.float32)))
        yield f"fp32-{name}", digest(narrow(x, name))
    for name in ("e4m3", "e5m2"):
        top = np.float32(ml_dtypes.finfo(TYPES[name][0]).max)
        yield f"fp32-{name}-saturating", digest(narrow(np.clip(x, -top, top), name))
    yield "fp32-int32", digest(integer(x, np.rint, -(2**31), 2**31 - 1, np.int32))
    yield "fp32-int32-toward-zero", digest(integer(x, np.trunc, -(2**31), 2**31 - 1, np.int32))
    yield "fp32-int16", digest(integer(x, np.rint, -(2**15), 2**15 - 1, np.int16))
    yield "fp32-int8", digest(integer(x, np.rint, -(2**7), 2**7 - 1, np.int8))
    yield "fp32-uint8", digest(integer(x, np.rint, 0, 2**8 - 1, np.uint8))
    yield "fp32-int4", digest(integer(x, np.rint, -8, 7, np.int8))
    x = np.ascontiguousarray(x[::8])
    yield "int32-fp32", digest(x.view(np.int32).astype(np.float32).view(np.uint32))
    every = np.arange(256, dtype=np.uint8)  # two int4 a byte, the first in the low half
    pair = np.stack([every & 15, every >> 4], axis=1).astype(np.uint8)
    yield "int4-int8", digest(pair.view(ml_dtypes.int4).astype(np.int8))
    a, b = x, np.roll(x, 1009)  # each operand with the 1009th before it
    yield "fp32-add", digest(bits(a + b))
    yield "fp32-sub", digest(bits(a - b))
    yield "fp32-mul", digest(bits(a * b))
    yield "fp32-div", digest(bits(a / b))
    yield "fp32-sqrt", digest(bits(np.sqrt(a)))


    x = np.arange(0, 1 << 32, 16411, dtype=np.uint64).astype(np.uint32).view(np.float32)
    for f in ("exp", "log", "tanh", "sigmoid", "silu", "gelu_tanh", "gelu", "erf", "reciprocal", "rsqrt",
              "hard_sigmoid", "hard_swish"):
        yield f.replace("_", "-"), digest(bits(getattr(spec, f)(x).astype(np.float32)))
    lengths = [1, 2, 7, 16, 17, 64, 100, 1000]
    some = [noise(i, n) for i, n in enumerate(lengths)]
    yield "sum", digest(bits(np.array([spec.total(x) for x in some])))
    yield "softmax", digest(bits(np.concatenate([spec.softmax(x) for x in some])))
    gain, bias, epsilon = noise(100, 1000), noise(101, 1000), np.float32(1e-5)
    yield "layer-norm", digest(bits(np.concatenate(
        [spec.layer_norm(x, gain[:len(x)], bias[:len(x)], epsilon) for x in some])))
    yield "rms-norm", digest(bits(np.concatenate([spec.rms_norm(x, gain[:len(x)], epsilon) for x in some])))
    x, q = integers(200, 50000), integers(201, 50000) & 0x7FFFFFFF
    s = (integers(202, 50000) & 0xFFFF) % 62 + 1
    yield "one-rounding", digest(spec.wrap(spec.one_rounding(x, q, s)).astype(np.int32))
    yield "two-roundings", digest(spec.two_roundings(x, q, s).astype(np.int32))
    real = noise(203, 50000) ** 2 * np.float32(1e-4)
    scaled = np.rint(x.astype(np.float32) * real).astype(np.float64)
    yield "fp32-scale", digest(np.clip(scaled - 3, -128, 127).astype(np.int8))
    quantized = np.rint((x.astype(np.float32) / (real + np.float32(1e6))).astype(np.float64))
    yield "quantize", digest(np.clip(quantized + 7, -32768, 32767).astype(np.int16))
    yield "dequantize", digest(bits((x >> 9).astype(np.float32) * real))
    for name in MX:
        yield f"mx-{name}", digest(mx(name))


def integers(seed, n):
    """n int32 as int64, which golden_test.go makes too."""
    u = (np.arange(n, dtype=np.uint64) + np.uint64(seed << 20)) * np.uint64(0x9E3779B97F4A7C15)
    return (u >> np.uint64(32)).astype(np.uint32).view(np.int32).astype(np.int64)


def noise(seed, n):
    """n numbers from -8 to 8."""
    return integers(seed, n).astype(np.float32) * np.float32(2.0**-28)


TRUE = {  # and the powers of two between which operands are taken
    "exp": (mpmath.exp, -20, 6.4),
    "log": (mpmath.log, -140, 127),
    "tanh": (mpmath.tanh, -20, 3.4),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), -20, 6.6),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), -20, 6.6),
    "gelu-tanh": (lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))), -20, 3.3),
    "gelu": (lambda x: x / 2 * mpmath.erfc(-x / mpmath.sqrt(2)), -20, 3.8),
    "erf": (mpmath.erf, -20, 2),
    "reciprocal": (lambda x: 1 / x, -126, 126),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), -140, 127),
}


def true_lines():
    """Functions to 53 bits: name, operand, value."""
    mpmath.mp.prec = 500
    for name, (f, low, high) in TRUE.items():
        for i, e in enumerate(np.linspace(low, high, 48)):
            for sign in (1, -1):
                x = np.float32(sign * 2**e)
                if sign < 0 and name in ("log", "rsqrt"):
                    continue
                yield f"{name} {int(x.view(np.uint32)):#010x} {float(f(mpmath.mpf(float(x)))).hex()}"


def main():
    failed = False
    for name, text in (("golden.txt", lines_of(lines())), ("true.txt", "".join(f"{s}\n" for s in true_lines()))):
        path = HERE / name
        if sys.argv[1:] == ["write"]:
            path.write_text(text)
        elif sys.argv[1:] != ["check"]:
            sys.exit(__doc__)
        elif path.read_text() != text:
            failed = True
            print(f"{name} is not what is computed here:\n{text}", file=sys.stderr)
    sys.exit(failed)


def lines_of(pairs):
    return "".join(f"{name} {value}\n" for name, value in pairs)


np.seterr(all="ignore")
main()
