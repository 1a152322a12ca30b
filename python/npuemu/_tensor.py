# SPDX-License-Identifier: Apache-2.0
"""Tensors of a model, and what Python has for their elements: numpy's arrays, or without numpy the buffer protocol."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

from . import _lib
from ._lib import Error

numpy: Any
try:
    import numpy
except ImportError:  # outputs are memoryviews then
    numpy = None

ml_dtypes: Any
try:
    import ml_dtypes
except ImportError:  # types that numpy lacks are their bits then
    ml_dtypes = None

_CODES = {name: code for code, (name, _) in _lib.DTYPES.items()}
_BITS = dict(_lib.DTYPES.values())

# Formats of the struct module, for memoryviews.
_FORMATS = {
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "bool": "?",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "bfloat16": "H",
    "float8e4m3": "B",
    "float8e5m2": "B",
}

# Types that numpy lacks: the name in ml_dtypes, and the type of the bits.
_EXTRA = {"bfloat16": ("bfloat16", "uint16"), "float8e4m3": ("float8_e4m3fn", "uint8"), "float8e5m2": ("float8_e5m2", "uint8")}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    ``dtype`` is a name: int8, uint8, int16, … float16, float32, float64, bool are numpy's; bfloat16, float8e4m3,
    float8e5m2, int4 and uint4 are not. ``shape`` is a tuple; a scalar's is empty.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numpy_dtype(self) -> Any:
        """The numpy.dtype of arrays of this tensor.

        bfloat16, float8e4m3 and float8e5m2 are those of ml_dtypes if it is installed, and otherwise uint16 and uint8 with
        the bits; int4 and uint4 are values in int8 and uint8.
        """
        if numpy is None:
            raise Error("numpy is not installed: pip install numpy, or use buffers", "library")
        return _numpy_dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements as the device has them: dense, int4 and uint4 two in a byte."""
        return (math.prod(self.shape) * _BITS[self.dtype] + 7) // 8

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


def info(t: _lib.TensorInfo) -> Tensor:
    """What a structure of the library says."""
    return Tensor(t.name.decode("utf-8", "replace"), _lib.DTYPES[t.dtype][0], tuple(t.shape[: t.rank]))


def _numpy_dtype(name: str) -> Any:
    if name in _EXTRA:
        extra, bits = _EXTRA[name]
        return numpy.dtype(getattr(ml_dtypes, extra) if ml_dtypes else bits)
    return numpy.dtype({"int4": "int8", "uint4": "uint8"}.get(name, name))


def give(kind: str, t: Tensor, value: Any) -> tuple[_lib.Buffer, Any]:
    """value as an input of the library; what is second must live as long."""
    if numpy is not None and not isinstance(value, (bytes, bytearray, memoryview)):
        data: Any = _array(kind, t, value)
        view = memoryview(data.reshape(-1).view(numpy.uint8)) if data.size else memoryview(b"")
    else:
        view = _view(kind, t, value)
    size = view.nbytes
    if size == 0:
        keep: Any = ctypes.create_string_buffer(1)
        at = ctypes.addressof(keep)
    elif view.readonly:  # ctypes has no address of what it may not write: Py_buffer by way of a copy-free cast
        keep = view.obj if isinstance(view.obj, bytes) and len(view.obj) == size else bytes(view)
        at = ctypes.cast(ctypes.c_char_p(keep), ctypes.c_void_p).value or 0
    else:
        keep = (ctypes.c_char * size).from_buffer(view)
        at = ctypes.addressof(keep)
    return _lib.Buffer(at, size, _CODES[t.dtype], 0), (keep, view)


def _view(kind: str, t: Tensor, value: Any) -> memoryview:
    """The bytes of an object with the buffer protocol, whose size has to be right, and its type if it has one."""
    try:
        view = memoryview(value)
    except TypeError:
        raise Error(f"{kind} {t.name!r} is a {type(value).__name__}: give an array, or an object with the buffer protocol, for {t}", "buffer") from None
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    elif view.format not in ("B", "b", "c", _FORMATS.get(t.dtype)) and not (
        view.format in ("l", "L") and _FORMATS.get(t.dtype) in ("q", "Q", "i", "I") and view.itemsize * 8 == _BITS[t.dtype]
    ):
        raise Error(f"{kind} {t.name!r} has elements of format {view.format!r}; {t}: convert it", "buffer")
    if view.nbytes != t.nbytes:
        raise Error(f"{kind} {t.name!r} has {view.nbytes} bytes; {t} has {t.nbytes}", "buffer")
    if view.nbytes == 0:
        return memoryview(b"")
    return view.cast("B")


def _array(kind: str, t: Tensor, value: Any) -> Any:
    """value as a dense array of the elements as the device has them."""
    want = _numpy_dtype(t.dtype)
    try:
        # What has no type of its own, as a list, gets the tensor's.
        a = numpy.asarray(value) if hasattr(value, "dtype") or hasattr(value, "__array__") else numpy.asarray(value, dtype=want)
    except (TypeError, ValueError, OverflowError, RuntimeError) as e:
        raise Error(f"{kind} {t.name!r}: {e}; {t}", "buffer") from None
    raw = _EXTRA.get(t.dtype, ("", ""))[1]
    if a.dtype.newbyteorder("=") != want and a.dtype.name != raw and not (t.dtype in ("int4", "uint4") and a.dtype.name == t.dtype):
        raise Error(f"{kind} {t.name!r} is an array of {a.dtype}; {t}: convert it, for example with .astype({want.name!r})", "buffer")
    if a.shape != t.shape:
        raise Error(f"{kind} {t.name!r} has shape {list(a.shape)}; {t}", "buffer")
    if a.dtype.name != raw:
        a = a.astype(want, order="C", copy=False)  # of another byte order
    if t.dtype in ("int4", "uint4"):
        return _pack(kind, t, a)
    return numpy.ascontiguousarray(a)


def _pack(kind: str, t: Tensor, a: Any) -> Any:
    low, high = (-8, 7) if t.dtype == "int4" else (0, 15)
    flat = a.reshape(-1)
    if flat.size and (flat.min() < low or flat.max() > high):
        raise Error(f"{kind} {t.name!r} has values outside {low} to {high}; {t}", "buffer")
    nibbles = numpy.zeros((flat.size + 1) // 2 * 2, numpy.uint8)
    nibbles[: flat.size] = flat.astype(numpy.uint8) & 15
    return nibbles[0::2] | nibbles[1::2] << 4


def _unpack(t: Tensor, b: Any) -> Any:
    nibbles = numpy.empty(b.size * 2, numpy.uint8)
    nibbles[0::2], nibbles[1::2] = b & 15, b >> 4
    nibbles = nibbles[: math.prod(t.shape)].reshape(t.shape)
    return ((nibbles ^ 8).astype(numpy.int8) - 8) if t.dtype == "int4" else nibbles


class Output:
    """Memory for an output."""

    def __init__(self, t: Tensor) -> None:
        self.tensor = t
        self.memory = bytearray(t.nbytes)
        size = max(t.nbytes, 1)
        self.keep = (ctypes.c_char * size).from_buffer(self.memory if t.nbytes else bytearray(1))
        self.buffer = _lib.Buffer(ctypes.addressof(self.keep), t.nbytes, _CODES[t.dtype], 0)

    def value(self) -> Any:
        """A new array, or without numpy a memoryview, of int4 and uint4 a flat one of packed bytes."""
        t = self.tensor
        if numpy is None:
            view: Any = memoryview(self.memory)
            if t.dtype not in _FORMATS or not t.nbytes:
                return view
            return view.cast("B").cast(_FORMATS[t.dtype], t.shape) if t.shape else view.cast(_FORMATS[t.dtype])
        a = numpy.frombuffer(self.memory, numpy.uint8)
        if t.dtype in ("int4", "uint4"):
            return _unpack(t, a)
        return a.view(_numpy_dtype(t.dtype)).reshape(t.shape)
