# SPDX-License-Identifier: Apache-2.0
"""Writes ONNX models: as much of the format as a front end needs that has no ONNX exporter of its own."""

import struct

TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
    "uint32": 12, "uint64": 13, "bfloat16": 16,
}
"""TensorProto.DataType, by numpy's name."""


def _varint(n):
    out = bytearray()
    n &= (1 << 64) - 1
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _field(number, value):
    """A field: an integer, or what has a length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(number, values):
    return b"".join(_field(number, v) for v in values)


def _attribute(name, value):
    if isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
    elif isinstance(value, int):
        body = _field(3, value) + _field(20, 2)
    elif isinstance(value, str):
        body = _field(4, value) + _field(20, 3)
    else:
        body = _fields(8, map(int, value)) + _field(20, 7)
    return _field(1, name) + body


def _value(name, dtype, shape):
    dims = b"".join(_field(1, _field(1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, TYPES[dtype]) + _field(2, dims)))


class Graph:
    """A graph that grows. Values are names; made holds the operator, inputs and attributes of each node by its output, arrays the constants."""

    def __init__(self, name):
        self.name = name
        self.made, self.arrays = {}, {}
        self._nodes, self._constants, self._inputs, self._outputs = [], [], [], []

    def input(self, name, dtype, shape):
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name, dtype, shape):
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, array):
        """A constant of a numpy array."""
        name = f"c{len(self._constants)}"
        self.arrays[name] = array
        raw = array.tobytes()  # row-major, whatever the array's strides are
        self._constants.append(_fields(1, array.shape) + _field(2, TYPES[str(array.dtype)]) + _field(8, name) + _field(9, raw))
        return name

    def node(self, op, *inputs, **attributes):
        """The output of a new node. Attributes are integers, floats, strings or lists of integers."""
        name = f"{op}_{len(self._nodes)}"
        self.made[name] = op, inputs, attributes
        self._nodes.append(
            _fields(1, inputs) + _field(2, name) + _field(3, name) + _field(4, op) + _fields(5, (_attribute(k, v) for k, v in attributes.items()))
        )
        return name

    def model(self, opset):
        """The file's bytes."""
        graph = _fields(1, self._nodes) + _field(2, self.name) + _fields(5, self._constants) + _fields(11, self._inputs) + _fields(12, self._outputs)
        return _field(1, 9) + _field(8, _field(1, "") + _field(2, opset)) + _field(7, graph)
