#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes and checks the data of the digits example; README.md has the layouts.

    train.py train    train in floating point, quantize, write weights.bin
    train.py golden   write images.bin and golden.bin from weights.bin
    train.py check    compare the three committed files with what they should
                      hold, and the accuracy with the one required

Network: conv 3x3 pad 1, 1->8, ReLU; conv 3x3 stride 2 pad 1, 8->16, ReLU;
dense 256->10. Tensors are (image, y, x, channel), weights (ky, kx, in, out).
"""

import argparse
import pathlib
import struct
import sys

import numpy as np
from sklearn.datasets import load_digits

SEED = 20240817
HELD_OUT = 0.2  # of each class, rounded up: 364 of 1,797 images
EPOCHS = 60
BATCH = 32
RATE = 2e-3
DECAY = 1e-4
SHIFTED = 0.3  # of the images in a batch: moved by -1, 0 or 1 pixel each way
NOISE = 0.1  # standard deviation added to pixels of 0..1

REQUIRED = 0.96  # accuracy on the held-out images

HERE = pathlib.Path(__file__).resolve().parent
HEADER = struct.Struct("<4s4I44x")  # magic, version, header size, count, record size
VERSION = 1
IMAGES, WEIGHTS, GOLDEN = b"DIGI", b"DIGW", b"DIGG"

STRIDES = (1, 2)  # of the two convolutions
SHAPES = ((3, 3, 1, 8), (3, 3, 8, 16), (256, 10))
# Requantize entries of each layer. The dense layer has one scale for all of its
# channels, so that its accumulators can be compared with each other.
ENTRIES = (8, 16, 1)


# --- data -------------------------------------------------------------------


def split():
    """Returns (train x, train y, held-out x, held-out y): x is int8 (n, 8, 8, 1)
    with 0..16, y is uint8. The order of the data set is kept in both halves."""
    digits = load_digits()
    x = digits.images.astype(np.int8).reshape(-1, 8, 8, 1)
    y = digits.target.astype(np.uint8)
    # RandomState, because numpy promises that its stream never changes.
    rng = np.random.RandomState(SEED)
    held = np.zeros(len(y), bool)
    for c in range(10):
        members = rng.permutation(np.flatnonzero(y == c))
        held[members[: int(np.ceil(HELD_OUT * len(members)))]] = True
    return x[~held], y[~held], x[held], y[held]


# --- floating-point network -------------------------------------------------


def patches(x, stride):
    """(n, h, w, c) -> (n, h/stride, w/stride, 9c): the 3x3 neighbourhoods, pad 1."""
    p = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h, w = x.shape[1:3]
    taps = [p[:, i : i + h : stride, j : j + w : stride] for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=3)


def unpatch(g, shape, stride):
    """The transpose of patches: adds the gradient of every tap to its pixel."""
    n, h, w, c = shape
    p = np.zeros((n, h + 2, w + 2, c), g.dtype)
    for t in range(9):
        i, j = divmod(t, 3)
        p[:, i : i + h : stride, j : j + w : stride] += g[..., t * c : (t + 1) * c]
    return p[:, 1:-1, 1:-1]


def forward(params, x):
    """Returns the two activations after ReLU, and the logits."""
    w1, b1, w2, b2, w3, b3 = params
    a1 = np.maximum(patches(x, STRIDES[0]) @ w1.reshape(9, -1) + b1, 0)
    a2 = np.maximum(patches(a1, STRIDES[1]) @ w2.reshape(72, -1) + b2, 0)
    return a1, a2, a2.reshape(len(x), -1) @ w3 + b3


def gradients(params, x, y):
    """Of the mean cross entropy, in the order of params."""
    w1, _, w2, _, w3, _ = params
    a1, a2, logits = forward(params, x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    g3 = e / e.sum(axis=1, keepdims=True)
    g3[np.arange(len(y)), y] -= 1
    g3 /= len(y)
    g2 = (g3 @ w3.T).reshape(a2.shape) * (a2 > 0)
    p2 = patches(a1, STRIDES[1]).reshape(-1, 72)
    f2 = g2.reshape(-1, g2.shape[3])
    g1 = unpatch(g2 @ w2.reshape(72, -1).T, a1.shape, STRIDES[1]) * (a1 > 0)
    p1 = patches(x, STRIDES[0]).reshape(-1, 9)
    f1 = g1.reshape(-1, g1.shape[3])
    return [
        (p1.T @ f1).reshape(w1.shape), f1.sum(axis=0),
        (p2.T @ f2).reshape(w2.shape), f2.sum(axis=0),
        a2.reshape(len(x), -1).T @ g3, g3.sum(axis=0),
    ]  # fmt: skip


def augment(rng, x):
    """Returns a copy of x, some of it shifted, all of it noisy."""
    x = x.copy()
    p = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in np.flatnonzero(rng.rand(len(x)) < SHIFTED):
        dy, dx = rng.randint(0, 3, 2)
        x[i] = p[i, dy : dy + 8, dx : dx + 8]
    return np.clip(x + NOISE * rng.randn(*x.shape), 0, 1)


def train(x, y):
    """Adam with decoupled weight decay and a cosine rate; returns the parameters."""
    rng = np.random.RandomState(SEED)
    params = []
    for s in SHAPES:
        params += [rng.randn(*s) * np.sqrt(2 / np.prod(s[:-1])), np.zeros(s[-1])]
    mean = [np.zeros_like(p) for p in params]
    square = [np.zeros_like(p) for p in params]
    per_epoch = len(x) // BATCH
    steps = EPOCHS * per_epoch
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        batch = order[step % per_epoch * BATCH :][:BATCH]
        rate = RATE * (1 + np.cos(np.pi * step / steps)) / 2
        for p, g, m, v in zip(params, gradients(params, augment(rng, x[batch]), y[batch]), mean, square):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            unbiased = m / (1 - 0.9 ** (step + 1))
            p -= rate * (unbiased / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8) + DECAY * p)
    return params


# --- quantization -----------------------------------------------------------


def fixed_point(scale):
    """scale -> (q, s) with scale ~ q / 2^s and 2^30 <= q < 2^31 (numerics 6.3)."""
    mantissa, exponent = np.frexp(scale)  # mantissa in [0.5, 1)
    q, s = int(np.rint(mantissa * 2**31)), 31 - int(exponent)
    if q == 2**31:
        q, s = q // 2, s - 1
    assert 2**30 <= q < 2**31 and 1 <= s <= 62, (scale, q, s)
    return q, s


def quantize(params, x):
    """Returns [(weights int8, bias int32, [(q, s), ...])] of the three layers.
    x, the training images in 0..1, sets the scale of each layer's output. All
    zero points are 0; a pixel of 0..16 is its own int8 with the scale 1/16."""
    layers = []
    scale_in = 1 / 16
    for i, out in enumerate(forward(params, x)):
        w, b = params[2 * i], params[2 * i + 1]
        peak = np.abs(w).reshape(-1, w.shape[-1]).max(axis=0)
        if ENTRIES[i] == 1:
            peak = np.full_like(peak, peak.max())
        scale_w = peak / 127
        scale_out = np.abs(out).max() / 127
        layers.append((
            np.rint(w / scale_w).astype(np.int8),
            np.rint(b / (scale_in * scale_w)).astype(np.int32),
            [fixed_point(s) for s in (scale_in * scale_w / scale_out)[: ENTRIES[i]]],
        ))  # fmt: skip
        scale_in = scale_out
    return layers


# --- integer reference ------------------------------------------------------


def convolve(x, w, stride):
    """Direct convolution, pad 1, in int64: adds one input channel of one kernel
    position at a time, straight from the definition."""
    n, h, width, channels = x.shape
    p = np.zeros((n, h + 2, width + 2, channels), np.int64)
    p[:, 1:-1, 1:-1] = x
    acc = np.zeros((n, h // stride, width // stride, w.shape[3]), np.int64)
    for oy in range(acc.shape[1]):
        for ox in range(acc.shape[2]):
            for ky in range(3):
                for kx in range(3):
                    pixel = p[:, oy * stride + ky, ox * stride + kx]
                    for c in range(channels):
                        acc[:, oy, ox] += pixel[:, c, None] * w[ky, kx, c].astype(np.int64)
    return acc


def requantize(acc, entries, lo):
    """Numerics 6.3 with zero point 0 and hi 127; acc is int64 (..., channel)."""
    q = np.array([e[0] for e in entries], np.int64)
    s = np.array([e[1] for e in entries], np.int64)
    r = (acc * q + (np.int64(1) << (s - 1))) >> s
    return np.clip(r, lo, 127).astype(np.int8)


def reference(layers, x):
    """Returns [(accumulators int32, outputs int8)] of the three layers. The
    accumulators include the bias."""
    results = []
    for i, (w, bias, entries) in enumerate(layers):
        if w.ndim == 4:
            acc = convolve(x, w, STRIDES[i])
        else:
            acc = x.reshape(len(x), -1).astype(np.int64) @ w.astype(np.int64)
        acc += bias
        assert np.abs(acc).max() < 2**31, "an accumulator would wrap"
        x = requantize(acc, entries, lo=-128 if i == len(layers) - 1 else 0)
        results.append((acc.astype(np.int32), x))
    return results


# --- files ------------------------------------------------------------------


def pack(magic, count, record_size, payload):
    return HEADER.pack(magic, VERSION, HEADER.size, count, record_size) + payload


def pack_weights(layers):
    """Each layer: weights, bias, requantize entries; no padding."""
    payload = b""
    for w, bias, entries in layers:
        payload += w.tobytes() + bias.astype("<i4").tobytes()
        payload += b"".join(struct.pack("<iB3x", q, s) for q, s in entries)
    return pack(WEIGHTS, 1, len(payload), payload)


def unpack_weights(data):
    magic, version, header_size, count, size = HEADER.unpack(data[: HEADER.size].ljust(HEADER.size))
    if (magic, version, header_size, count) != (WEIGHTS, VERSION, HEADER.size, 1):
        raise SystemExit("weights.bin: not version 1 of the weights; run train.py train")
    payload = data[header_size:]
    want = sum(np.prod(s) + 4 * s[-1] + 8 * e for s, e in zip(SHAPES, ENTRIES))
    if not want == len(payload) == size:
        raise SystemExit(f"weights.bin: payload has {len(payload)} bytes, want {want}; run train.py train")
    layers, off = [], 0
    for shape, n_entries in zip(SHAPES, ENTRIES):
        n, channels = int(np.prod(shape)), shape[-1]
        w = np.frombuffer(payload, np.int8, n, off).reshape(shape)
        bias = np.frombuffer(payload, "<i4", channels, off + n)
        off += n + 4 * channels
        layers.append((w, bias, list(struct.iter_unpack("<iB3x", payload[off : off + 8 * n_entries]))))
        off += 8 * n_entries
    return layers


def pack_images(x, y):
    """All images, then all labels."""
    return pack(IMAGES, len(x), 64, x.tobytes() + y.tobytes())


def pack_golden(results):
    """One record an image: acc1, out1, acc2, out2, acc3, out3, 14 zero bytes."""
    n = len(results[0][0])
    parts = []
    for acc, out in results:
        parts += [acc.astype("<i4").reshape(n, -1).view(np.uint8), out.reshape(n, -1).view(np.uint8)]
    parts.append(np.zeros((n, 14), np.uint8))
    records = np.concatenate(parts, axis=1)
    return pack(GOLDEN, n, records.shape[1], records.tobytes())


# --- commands ---------------------------------------------------------------


def accuracy(logits, y):
    """np.argmax takes the lowest index of a tie, which is the rule in README.md."""
    return np.count_nonzero(logits.argmax(axis=1) == y), len(y)


def show(name, right_of):
    right, of = right_of
    print(f"{name:22} {right:5} of {of:5}  {right / of:.2%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "golden", "check"))
    command = parser.parse_args().command
    train_x, train_y, x, y = split()

    if command == "train":
        params = train(train_x / 16, train_y)
        layers = quantize(params, train_x / 16)
        (HERE / "weights.bin").write_bytes(pack_weights(layers))
        show("float, training", accuracy(forward(params, train_x / 16)[-1], train_y))
        show("float, held out", accuracy(forward(params, x / 16)[-1], y))
        show("int8, training", accuracy(reference(layers, train_x)[-1][0], train_y))
        show("int8, held out", accuracy(reference(layers, x)[-1][0], y))
        return

    layers = unpack_weights((HERE / "weights.bin").read_bytes())
    results = reference(layers, x)
    files = {"images.bin": pack_images(x, y), "golden.bin": pack_golden(results)}
    if command == "golden":
        for name, content in files.items():
            (HERE / name).write_bytes(content)
        return

    files["weights.bin"] = pack_weights(layers)  # the same bytes if every field was understood
    bad = [name for name, content in files.items() if (HERE / name).read_bytes() != content]
    right, of = accuracy(results[-1][0], y)
    show("int8, held out", (right, of))
    if bad:
        sys.exit(f"{', '.join(bad)}: not what train.py golden makes from weights.bin")
    if right < REQUIRED * of:
        sys.exit(f"accuracy is below {REQUIRED:.0%}; train again")


if __name__ == "__main__":
    main()
