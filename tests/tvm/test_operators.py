# SPDX-License-Identifier: Apache-2.0
"""Each operator that npuemu.tvm translates, by itself, against TVM's own CPU target."""

import numpy as np
import pytest
from conftest import cpu, execute, function, random
from tvm import relax
from tvm.relax import op

import npuemu.tvm

f32 = random(1, 4, 8, 8)
matrix = random(6, 16, seed=2)
positive = np.abs(matrix) + 0.1
weights = random(8, 4, 3, 3, seed=3)
bytes_ = random(1, 4, 8, 8, dtype="int8")
c = relax.const

# operator of Relax: rows of (inputs, what makes the call, largest difference: 0 is equality)
ROWS = {
    "relax.add": [((matrix, matrix[:1]), op.add, 0), ((random(3, 5, dtype="int32"), random(3, 5, dtype="int32", seed=2)), op.add, 0)],
    "relax.subtract": [((matrix, positive), op.subtract, 0)],
    "relax.multiply": [((matrix, positive), op.multiply, 0)],
    "relax.divide": [((matrix, positive), op.divide, 0)],
    "relax.maximum": [((matrix, positive), op.maximum, 0)],
    "relax.minimum": [((matrix, positive), op.minimum, 0)],
    "relax.abs": [((matrix,), op.abs, 0)],
    "relax.negative": [((matrix,), op.negative, 0)],
    "relax.exp": [((matrix,), op.exp, 1e-5)],
    "relax.log": [((positive,), op.log, 1e-6)],
    "relax.sqrt": [((positive,), op.sqrt, 0)],
    "relax.rsqrt": [((positive,), op.rsqrt, 1e-6)],
    "relax.tanh": [((matrix,), op.tanh, 1e-6)],
    "relax.sigmoid": [((matrix,), op.sigmoid, 1e-6)],
    "relax.erf": [((matrix,), op.erf, 1e-6)],
    "relax.clip": [((matrix,), lambda x: op.clip(x, -0.5, 0.5), 0), ((random(3, 5, dtype="int32"),), lambda x: op.clip(x, -7, 7), 0)],
    "relax.nn.relu": [((matrix,), op.nn.relu, 0)],
    "relax.nn.silu": [((matrix,), op.nn.silu, 1e-6)],
    "relax.nn.gelu": [((matrix,), op.nn.gelu, 1e-6)],
    "relax.nn.gelu_tanh": [((matrix,), op.nn.gelu_tanh, 1e-5)],
    "relax.nn.leakyrelu": [((matrix,), lambda x: op.nn.leakyrelu(x, 0.2), 0)],
    "relax.nn.softmax": [((matrix,), op.nn.softmax, 1e-6), ((f32,), lambda x: op.nn.softmax(x, axis=1), 1e-6)],
    "relax.matmul": [
        ((matrix, random(16, 5, seed=4)), op.matmul, 1e-5),
        ((random(2, 6, 16), random(2, 16, 5, seed=4)), op.matmul, 1e-5),
        ((random(6, 16, dtype="int8"), random(16, 5, dtype="int8", seed=4)), lambda a, b: op.matmul(a, b, out_dtype="int32"), 0),
    ],
    "relax.nn.conv1d": [((random(1, 4, 16),), lambda x: op.nn.conv1d(x, c(random(8, 4, 3, seed=5)), padding=1, strides=2), 1e-5)],
    "relax.nn.conv2d": [
        ((f32,), lambda x: op.nn.conv2d(x, c(weights), strides=(2, 1), padding=(1, 0, 1, 2), dilation=1), 1e-5),
        ((f32,), lambda x: op.nn.conv2d(x, c(weights[:4, :1].copy()), groups=4), 1e-5),
        ((bytes_,), lambda x: op.nn.conv2d(x, c(random(8, 4, 3, 3, dtype="int8", seed=6)), padding=1, out_dtype="int32"), 0),
    ],
    "relax.nn.max_pool2d": [((f32,), lambda x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1)), 0), ((f32,), lambda x: op.nn.max_pool2d(x, (3, 2), (3, 3), ceil_mode=True), 0)],
    "relax.nn.avg_pool2d": [
        ((f32,), lambda x: op.nn.avg_pool2d(x, (2, 2), (2, 2)), 1e-6),
        ((f32,), lambda x: op.nn.avg_pool2d(x, (3, 3), (1, 1), (1, 1), count_include_pad=True), 1e-6),
    ],
    "relax.nn.adaptive_avg_pool2d": [((f32,), lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1)), 1e-6)],
    "relax.nn.layer_norm": [((matrix, random(16, seed=7), random(16, seed=8)), lambda *x: op.nn.layer_norm(*x, axes=-1), 1e-5)],
    "relax.mean": [((f32,), lambda x: op.mean(x, [2, 3]), 1e-6)],
    "relax.sum": [((f32,), lambda x: op.sum(x, [1], keepdims=True), 1e-5), ((matrix,), op.sum, 1e-4)],
    "relax.max": [((f32,), lambda x: op.max(x, [-1]), 0)],
    "relax.min": [((f32,), lambda x: op.min(x, [1, 2]), 0)],
    "relax.reshape": [((f32,), lambda x: op.reshape(x, (4, -1)), 0)],
    "relax.flatten": [((f32,), op.flatten, 0)],
    "relax.expand_dims": [((matrix,), lambda x: op.expand_dims(x, [0, 2]), 0)],
    "relax.squeeze": [((f32,), lambda x: op.squeeze(x, [0]), 0)],
    "relax.permute_dims": [((f32,), lambda x: op.permute_dims(x, [0, 2, -1, 1]), 0), ((matrix,), op.permute_dims, 0)],
    "relax.nn.pad": [((f32,), lambda x: op.nn.pad(x, (0, 0, 0, 1, 1, 2, 3, 0), pad_value=1.5), 0)],
    "relax.concat": [((f32, f32 + 1, f32[:, :2]), lambda *x: op.concat(x, axis=1), 0)],
    "relax.where": [((matrix > 0, matrix, positive), op.where, 0)],
    "relax.astype": [((matrix * 40,), lambda x: op.astype(x, "int32"), 0), ((random(3, 5, dtype="int8"),), lambda x: op.astype(x, "float32"), 0)],
    "relax.quantize": [((matrix,), lambda x: op.quantize(x, c(np.float32(0.03)), c(np.int8(3)), axis=1, out_dtype="int8"), 0)],
    "relax.dequantize": [((bytes_,), lambda x: op.dequantize(x, c(np.array([0.5, 0.25, 2, 3], "float32")), c(np.array([1, 0, -3, 4], "int8")), axis=1), 0)],
}


def test_rows_are_complete():
    assert set(ROWS) == set(npuemu.tvm.OPERATORS)


@pytest.mark.parametrize("name,row", [(name, i) for name, rows in ROWS.items() for i in range(len(rows))])
def test_operator(backend, name, row):
    inputs, make, most = ROWS[name][row]
    mod = function(inputs, lambda bb, *x: bb.emit(make(*x)))
    want = cpu(mod, *inputs)
    got = execute(backend.build(mod), *inputs)
    assert len(backend.partitions) == 1 and backend.partitions[0].runs == 1
    assert backend.partitions[0].model.hosts == []
    assert len(got) == len(want)
    for g, w in zip(got, want):
        assert g.dtype == w.dtype and g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=most, atol=most)


def test_batch_norm(backend):
    """It is decomposed by TVM, and all of it is one partition."""
    parameters = [c(random(4, seed=s)) for s in range(3)] + [c(np.abs(random(4, seed=9)) + 0.5)]
    mod = function((f32,), lambda bb, x: bb.emit(relax.TupleGetItem(op.nn.batch_norm(x, *parameters, axis=1, training=False), 0)))
    want = cpu(mod, f32)
    got = execute(backend.build(mod), f32)
    assert [p.model.hosts for p in backend.partitions] == [[]]
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)
