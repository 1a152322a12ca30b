# SPDX-License-Identifier: Apache-2.0
"""A transformer block, and one step of a small language model with its cache of keys and values."""

import ml_dtypes
import numpy as np

from net import Net, onnx_type, quantize

ROWS, WIDTH, HEADS, HIDDEN = 128, 256, 4, 1024  # of the block


def sequences(seed, count):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, ROWS, WIDTH)).astype(np.float32)} for _ in range(count)]


def block_net(dtype):
    """An encoder's block: attention, layer normalization behind the sums, GELU by erf. x and y are fp32; dtype is what is between."""
    net = Net("block", dtype)
    y = net.input("x", [1, ROWS, WIDTH], np.float32)
    if net.dtype != np.float32:
        y = net.op("Cast", y, to=onnx_type(net.dtype))

    def norm(v):
        return net.op("LayerNormalization", v, net.const(net.rng.normal(1, 0.1, WIDTH)), net.normal(0.1, WIDTH), axis=-1)

    def heads(v, perm):
        return net.op("Transpose", net.op("Reshape", v, net.ints(1, ROWS, HEADS, WIDTH // HEADS)), perm=perm)

    q, k, v = (net.linear(y, WIDTH, WIDTH) for _ in range(3))
    scores = net.op("MatMul", heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    scores = net.op("Softmax", net.op("Mul", scores, net.const((WIDTH // HEADS) ** -0.5)), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", scores, heads(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    mixed = net.op("Reshape", mixed, net.ints(1, ROWS, WIDTH))
    y = norm(net.op("Add", y, net.linear(mixed, WIDTH, WIDTH)))
    z = net.linear(net.op("Gelu", net.linear(y, WIDTH, HIDDEN)), HIDDEN, WIDTH)
    y = norm(net.op("Add", y, z))
    if net.dtype != np.float32:
        y = net.op("Cast", y, to=onnx_type(np.float32))
    net.output(y, "y", [1, ROWS, WIDTH], np.float32)
    return net


def block_fp32():
    return {"model": block_net(np.float32).model(), "samples": sequences(13, 8)}


def block_fp16():
    return {"model": block_net(np.float16).model(), "samples": sequences(13, 8)}


def block_bf16():
    """ONNX Runtime's processor path has no bf16: the block in fp32 with the same weights is what it is compared with."""
    return {"model": block_net(ml_dtypes.bfloat16).model(), "samples": sequences(13, 8), "reference": block_net(np.float32).model()}


def block_int8():
    return {"model": quantize(block_net(np.float32).model(), sequences(11, 8)), "samples": sequences(13, 8)}


# --- decode step --------------------------------------------------------------

LAYERS, DIM, CONTEXT, WORDS, MLP, DECODE_HEADS = 4, 128, 64, 512, 384, 4
SIZE = DIM // DECODE_HEADS  # of a head


def decode(lookup):
    """One token through LAYERS layers: RMS normalization, rotary positions, attention over the cache, a gated MLP; logits and
    the token of the largest. Shapes are static: the cache has CONTEXT places, and the position says which of them count."""
    net = Net("decode")
    token, position = net.input("token", [1], np.int64), net.input("position", [1], np.int32)
    table = net.rng.normal(0, 1, (WORDS, DIM)).astype(np.float32)
    places = net.const(np.arange(CONTEXT), np.int32)
    here = net.op("Equal", places, position)  # the place of this token: one of CONTEXT
    row = net.op("Reshape", net.op("Cast", here, to=1), net.ints(1, CONTEXT))
    mask = net.op("Where", net.op("LessOrEqual", places, position), net.const(0.0), net.const(-1e9))
    here = net.op("Reshape", here, net.ints(1, CONTEXT, 1))
    if lookup == "gather":
        y = net.op("Gather", net.const(table), token, axis=0)
    else:
        y = net.op("MatMul", net.op("OneHot", token, net.ints(WORDS), net.const([0.0, 1.0])), net.const(table))
    angle = np.arange(CONTEXT)[:, None] * 10000.0 ** -(np.arange(SIZE // 2) * 2 / SIZE)
    angle = np.concatenate([angle, angle], axis=1)
    cos, sin = net.op("MatMul", row, net.const(np.cos(angle))), net.op("MatMul", row, net.const(np.sin(angle)))

    def norm(v):
        mean = net.op("ReduceMean", net.op("Mul", v, v), net.ints(-1))
        return net.op("Mul", net.op("Div", v, net.op("Sqrt", net.op("Add", mean, net.const(1e-6)))), net.const(net.rng.normal(1, 0.1, DIM)))

    def dense(v, rows, cols, gain=1.0):
        return net.op("MatMul", v, net.normal(gain * np.sqrt(1 / rows), rows, cols))

    def heads(v):
        return net.op("Reshape", v, net.ints(DECODE_HEADS, 1, SIZE))

    def rotate(v):
        a, b = net.ops(2, "Split", v, axis=-1, num_outputs=2)
        return net.op("Add", net.op("Mul", v, cos), net.op("Mul", net.op("Concat", net.op("Neg", b), a, axis=-1), sin))

    shape = [DECODE_HEADS, CONTEXT, SIZE]
    kept = []
    for i in range(LAYERS):
        x = norm(y)
        q, k, v = rotate(heads(dense(x, DIM, DIM, 2))), rotate(heads(dense(x, DIM, DIM, 2))), heads(dense(x, DIM, DIM))
        keys = net.op("Where", here, k, net.input(f"keys_{i}", shape))
        values = net.op("Where", here, v, net.input(f"values_{i}", shape))
        kept += [(keys, f"new_keys_{i}"), (values, f"new_values_{i}")]
        scores = net.op("Mul", net.op("MatMul", q, net.op("Transpose", keys, perm=[0, 2, 1])), net.const(SIZE**-0.5))
        scores = net.op("Softmax", net.op("Add", scores, mask), axis=-1)
        mixed = net.op("Reshape", net.op("MatMul", scores, values), net.ints(1, DIM))
        y = net.op("Add", y, dense(mixed, DIM, DIM))
        x = norm(y)
        gate = dense(x, DIM, MLP)
        gate = net.op("Mul", gate, net.op("Sigmoid", gate))
        y = net.op("Add", y, dense(net.op("Mul", gate, dense(x, DIM, MLP)), MLP, DIM))
    logits = dense(norm(y), DIM, WORDS)
    net.output(logits, "logits", [1, WORDS])
    net.output(net.op("ArgMax", logits, axis=-1, keepdims=0), "next", [1], np.int64)
    for v, name in kept:
        net.output(v, name, shape)
    return {"model": net.model(), "prompts": [3, 141, 59, 265], "steps": 48}


def decode_gather():
    return decode("gather")


def decode_product():
    return decode("product")
