# SPDX-License-Identifier: Apache-2.0
"""Networks, as one partition each: a float LeNet, and the int8 network of examples/digits with its golden results."""

import pathlib

import numpy as np
import pytest
from conftest import cpu, execute, function, random
from tvm import relax
from tvm.relax import op

DIGITS = pathlib.Path(__file__).parents[2] / "examples" / "digits"
c = relax.const


def lenet(bb, x):
    def conv(x, w, seed):
        return bb.emit(op.nn.relu(bb.emit(op.add(bb.emit(op.nn.conv2d(x, c(random(*w, seed=seed) * 0.2))), c(random(1, w[0], 1, 1, seed=seed + 1))))))

    def dense(x, w, seed):
        return bb.emit(op.add(bb.emit(op.matmul(x, c(random(*w, seed=seed) * 0.1))), c(random(w[1], seed=seed + 1))))

    x = bb.emit(op.nn.max_pool2d(conv(x, (6, 1, 5, 5), 1), (2, 2), (2, 2)))
    x = bb.emit(op.nn.max_pool2d(conv(x, (16, 6, 5, 5), 3), (2, 2), (2, 2)))
    x = bb.emit(op.reshape(x, (1, 256)))
    x = bb.emit(op.nn.relu(dense(x, (256, 120), 5)))
    x = bb.emit(op.nn.relu(dense(x, (120, 84), 7)))
    return bb.emit(op.nn.softmax(dense(x, (84, 10), 9)))


def test_lenet(backend):
    x = random(1, 1, 28, 28, seed=42)
    mod = function((x,), lenet)
    want = cpu(mod, x)
    got = execute(backend.build(mod), x)
    (partition,) = backend.partitions
    assert partition.model.hosts == []
    assert partition.last.counters["macs"] == 24 * 24 * 25 * 6 + 8 * 8 * 150 * 16 + 256 * 120 + 120 * 84 + 84 * 10
    assert partition.last.counters["programs"] == 1 and partition.last.counters["errors"] == 0
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)


def records(name, size):
    data = (DIGITS / name).read_bytes()[64:]
    return [data[i : i + size] for i in range(0, 364 * size, size)]


def digits(bb, x):
    """The network with its scales in DequantizeLinear's place: s of an activation is 1, of a channel's weights q / 2^shift."""
    data = (DIGITS / "weights.bin").read_bytes()[64:]

    def layer(x, weights, bias, entries, shape):
        n, image = shape[-1], len(shape) == 4
        table = np.frombuffer(data, "<i4", 2 * entries[1], entries[0]).reshape(-1, 2)
        scale = np.broadcast_to((table[:, 0] / 2.0 ** (table[:, 1] & 255)).astype("float32"), (n,)).copy()
        w = np.frombuffer(data, "i1", int(np.prod(shape)), weights).reshape(shape)
        b = np.frombuffer(data, "<i4", n, bias).copy()
        zeros = {t: c(np.zeros(n, t)) for t in ("int8", "int32")}
        w = np.ascontiguousarray(w.transpose(3, 2, 0, 1) if image else w)
        real = bb.emit(op.dequantize(c(w), c(scale), zeros["int8"], axis=0 if image else 1))
        start = bb.emit(op.dequantize(c(b), c(scale), zeros["int32"], axis=0))
        x = bb.emit(op.dequantize(x, c(np.float32(1)), c(np.int8(0))))
        return x, real, start

    def quantized(x):
        return bb.emit(op.quantize(x, c(np.float32(1)), c(np.int8(0)), axis=1, out_dtype="int8"))

    def conv(x, strides, *place):
        x, w, b = layer(x, *place)
        y = bb.emit(op.nn.conv2d(x, w, strides=strides, padding=1))
        y = bb.emit(op.add(y, bb.emit(op.reshape(b, (1, -1, 1, 1)))))
        return quantized(bb.emit(op.nn.relu(y)))

    x = conv(x, 1, 0, 72, (104, 8), (3, 3, 1, 8))
    x = conv(x, 2, 168, 1320, (1384, 16), (3, 3, 8, 16))
    x = bb.emit(op.reshape(bb.emit(op.permute_dims(x, [0, 2, 3, 1])), (1, 256)))
    x, w, b = layer(x, 1512, 4072, (4112, 1), (256, 10))
    return quantized(bb.emit(op.add(bb.emit(op.matmul(x, w)), b)))


def test_digits(backend):
    images = [np.frombuffer(r, "i1").reshape(1, 1, 8, 8) for r in records("images.bin", 64)]
    want = np.array([np.frombuffer(r, "i1", 10, 3880) for r in records("golden.bin", 3904)])
    mod = function((images[0],), digits)
    executable = backend.build(mod)
    (partition,) = backend.partitions
    assert partition.model.hosts == []
    got = np.array([execute(executable, x)[0][0] for x in images[::4]])
    assert partition.runs == len(images[::4])
    assert partition.last.counters["macs"] == 25600
    # Golden results round halves up, QuantizeLinear to even; and a scale in fp32 is not q / 2^shift.
    assert np.abs(got.astype(int) - want[::4]).max() <= 1
    assert (got == want[::4]).mean() > 0.99
    judge = np.array([cpu(mod, x)[0][0] for x in images[:2]])
    assert np.abs(got[:1].astype(int) - judge[:1]).max() <= 1


def block(bb, x):
    """A transformer block: attention of four heads, and a network with gelu, both behind a layer norm and with a sum around them."""
    n, width, heads = 16, 64, 4

    def weights(*shape, seed):
        return c(random(*shape, seed=seed) * 0.1)

    def norm(v, seed):
        return bb.emit(op.nn.layer_norm(v, c(random(width, seed=seed)), c(random(width, seed=seed + 1)), axes=-1))

    def dense(v, size, out, seed):
        return bb.emit(op.add(bb.emit(op.matmul(v, weights(size, out, seed=seed))), weights(out, seed=seed + 1)))

    def split(v):
        return bb.emit(op.permute_dims(bb.emit(op.reshape(v, (1, n, heads, width // heads))), [0, 2, 1, 3]))

    h = norm(x, 1)
    q, k, v = (split(dense(h, width, width, s)) for s in (3, 5, 7))
    scores = bb.emit(op.multiply(bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 1, 3, 2])))), c(np.float32((width // heads) ** -0.5))))
    mixed = bb.emit(op.matmul(bb.emit(op.nn.softmax(scores)), v))
    mixed = bb.emit(op.reshape(bb.emit(op.permute_dims(mixed, [0, 2, 1, 3])), (1, n, width)))
    x = bb.emit(op.add(x, dense(mixed, width, width, 9)))
    h = bb.emit(op.nn.gelu(dense(norm(x, 11), width, 4 * width, 13)))
    return bb.emit(op.add(x, dense(h, 4 * width, width, 15)))


def test_transformer_block(backend):
    x = random(1, 16, 64, seed=42)
    mod = function((x,), block)
    want = cpu(mod, x)
    got = execute(backend.build(mod), x)
    (partition,) = backend.partitions
    assert partition.model.hosts == []
    assert partition.last.counters["macs"] == 16 * 64 * 64 * 4 + 2 * 16 * 16 * 64 + 2 * 16 * 64 * 256
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-4)
