# SPDX-License-Identifier: Apache-2.0
"""Digests of numpy's and ml_dtypes' conversions, for golden_test.go (README.md).

usage: golden.py [check | write]
"""

import hashlib
import pathlib
import sys

import ml_dtypes
import numpy as np

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


def main():
    text = "".join(f"{name} {value}\n" for name, value in lines())
    path = HERE / "golden.txt"
    if sys.argv[1:] == ["write"]:
        path.write_text(text)
    elif sys.argv[1:] != ["check"]:
        sys.exit(__doc__)
    elif path.read_text() != text:
        sys.exit(f"{path.name} is not what numpy and ml_dtypes give:\n{text}")


np.seterr(all="ignore")
main()
