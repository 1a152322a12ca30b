#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes lenet.caffemodel and the ten images, or checks them; README.md says what they are.

    train.py train    train, write lenet.caffemodel and 0.png to 9.png
    train.py check    the accuracy of lenet.caffemodel on the held-out images
"""
import argparse
import pathlib
import struct
import sys
import zlib

import numpy as np
from sklearn.datasets import load_digits

SEED = 20240817
HELD_OUT = 0.2  # of each class, rounded up: 364 of 1,797 images, those of examples/digits
EPOCHS = 12
BATCH = 64
RATE = 1e-3  # Adam's, less each epoch
SHIFT = 2  # pixels that an image of a batch is moved by at most
REQUIRED = 0.98  # accuracy on the held-out images
HERE = pathlib.Path(__file__).resolve().parent
LAYERS = ("conv1", (20, 1, 5, 5)), ("conv2", (50, 20, 5, 5)), ("ip1", (500, 800)), ("ip2", (10, 500))


def enlarged(images):
    """Images of 8 x 8 values 0..16 as 28 x 28 bytes: three times as large, interpolated, in a frame of 2 black pixels."""
    at = np.clip((np.arange(24) + 0.5) / 3 - 0.5, 0, 7)
    low = np.minimum(at.astype(int), 6)
    rest = at - low
    m = np.zeros((24, 8))
    m[np.arange(24), low] = 1 - rest
    m[np.arange(24), low + 1] += rest
    big = np.rint(np.einsum("ai,nij,bj->nab", m, images, m) * (255 / 16)).astype(np.uint8)
    return np.pad(big, ((0, 0), (2, 2), (2, 2)))


def split():
    """Train and held-out images, bytes, and their labels."""
    digits = load_digits()
    x, y = enlarged(digits.images), digits.target
    rng = np.random.RandomState(SEED)
    held = np.zeros(len(y), bool)
    for c in range(10):
        members = rng.permutation(np.flatnonzero(y == c))
        held[members[: int(np.ceil(HELD_OUT * len(members)))]] = True
    return x[~held], y[~held], x[held], y[held]


# --- the network, and its gradients ----------------------------------------------


def windows(x, k):
    """(n, c, h, w) -> (n, h-k+1, w-k+1, c*k*k)"""
    v = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))
    n, c, h, w = v.shape[:4]
    return v.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * k * k)


def conv(x, w, b):
    cols = windows(x, w.shape[2])
    return (cols @ w.reshape(len(w), -1).T + b).transpose(0, 3, 1, 2), cols


def conv_back(g, cols, w, shape):
    """Gradients of weights, bias and input."""
    gt = g.transpose(0, 2, 3, 1)
    flat = gt.reshape(-1, len(w))
    gw = (flat.T @ cols.reshape(len(flat), -1)).reshape(w.shape)
    gc = (gt @ w.reshape(len(w), -1)).reshape(*gt.shape[:3], *w.shape[1:])
    gx = np.zeros(shape, np.float32)
    oh, ow = gt.shape[1:3]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            gx[:, :, i : i + oh, j : j + ow] += gc[..., i, j].transpose(0, 3, 1, 2)
    return gw, flat.sum(0), gx


def pool(x):
    n, c, h, w = x.shape
    v = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    at = v.argmax(-1)
    return np.take_along_axis(v, at[..., None], -1)[..., 0], at


def pool_back(g, at):
    n, c, h, w = g.shape
    v = np.zeros((n, c, h, w, 4), np.float32)
    np.put_along_axis(v, at[..., None], g[..., None], -1)
    return v.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


def forward(p, x):
    c1, k1 = conv(x, *p[0])
    p1, a1 = pool(c1)
    c2, k2 = conv(p1, *p[1])
    p2, a2 = pool(c2)
    f = p2.reshape(len(x), -1)
    h = np.maximum(f @ p[2][0].T + p[2][1], 0)
    return h @ p[3][0].T + p[3][1], (k1, a1, p1, k2, a2, p2, f, h)


def gradients(p, x, y):
    logits, (k1, a1, p1, k2, a2, p2, f, h) = forward(p, x)
    e = np.exp(logits - logits.max(1, keepdims=True))
    g = e / e.sum(1, keepdims=True)
    g[np.arange(len(y)), y] -= 1
    g /= len(y)
    gh = (g @ p[3][0]) * (h > 0)
    gp2 = pool_back((gh @ p[2][0]).reshape(p2.shape), a2)
    gw2, gb2, gp1 = conv_back(gp2, k2, p[1][0], p1.shape)
    gw1, gb1, _ = conv_back(pool_back(gp1, a1), k1, p[0][0], x.shape)
    return [gw1, gb1, gw2, gb2, gh.T @ f, gh.sum(0), g.T @ h, g.sum(0)]


def accuracy(p, x, y):
    return float((forward(p, (x / 255).astype(np.float32)[:, None])[0].argmax(1) == y).mean())


def trained(x, y):
    rng = np.random.RandomState(SEED)
    p = []
    for _, shape in LAYERS:
        bound = np.sqrt(3 / np.prod(shape[1:]))
        p.append([rng.uniform(-bound, bound, shape).astype(np.float32), np.zeros(shape[0], np.float32)])
    m = [np.zeros_like(v) for q in p for v in q]
    s = [np.zeros_like(v) for v in m]
    step = 0
    for epoch in range(EPOCHS):
        order = rng.permutation(len(x))
        for k in range(0, len(x), BATCH):
            part = order[k : k + BATCH]
            batch = np.stack([np.roll(x[i], rng.randint(-SHIFT, SHIFT + 1, 2), (0, 1)) for i in part])
            step += 1
            grads = gradients(p, (batch / 255).astype(np.float32)[:, None], y[part])
            rate = RATE * (1 - epoch / EPOCHS) * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for i, g in enumerate(grads):
                m[i] += 0.1 * (g - m[i])
                s[i] += 0.001 * (g * g - s[i])
                p[i // 2][i % 2] -= (rate * m[i] / (np.sqrt(s[i]) + 1e-8)).astype(np.float32)
        print(f"epoch {epoch + 1}: {accuracy(p, x, y):.4f}", file=sys.stderr)
    # Numbers of 16 bits: the file compresses to half.
    return [[((v.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32) for v in q] for q in p]


# --- files --------------------------------------------------------------------------


def varint(v):
    out = b""
    while v > 127:
        out, v = out + bytes([v & 127 | 128]), v >> 7
    return out + bytes([v])


def field(number, b):
    return varint(number << 3 | 2) + varint(len(b)) + b


def caffemodel(p):
    """A NetParameter (1 name, 100 layer); LayerParameter: 1 name, 2 type, 7 blobs; BlobProto: 5 data, 7 shape."""
    net = field(1, b"LeNet")
    for (name, _), q in zip(LAYERS, p):
        layer = field(1, name.encode()) + field(2, b"Convolution" if name[0] == "c" else b"InnerProduct")
        for v in q:
            shape = field(1, b"".join(varint(d) for d in v.shape))
            layer += field(7, field(5, v.astype("<f4").tobytes()) + field(7, shape))
        net += field(100, layer)
    return net


def weights(b):
    """The weights of a file that caffemodel made."""
    p, at = [], 0
    for _, shape in LAYERS:
        q = []
        for s in (shape, shape[:1]):
            n = 4 * int(np.prod(s))
            head = varint(5 << 3 | 2) + varint(n)
            at = b.index(head, at) + len(head)
            q.append(np.frombuffer(b, "<f4", n // 4, at).reshape(s))
            at += n
        p.append(q)
    return p


def png(x):
    def chunk(kind, b):
        return struct.pack(">I", len(b)) + kind + b + struct.pack(">I", zlib.crc32(kind + b))

    rows = b"".join(b"\0" + r.tobytes() for r in x)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=("train", "check"))
    x, y, hx, hy = split()
    file = HERE / "lenet.caffemodel"
    if a.parse_args().what == "train":
        file.write_bytes(caffemodel(trained(x, y)))
        for c in range(10):  # the first held-out image of each class
            (HERE / f"{c}.png").write_bytes(png(hx[np.flatnonzero(hy == c)[0]]))
    got = accuracy(weights(file.read_bytes()), hx, hy)
    print(f"{got:.4f} of {len(hy)} held-out images, {REQUIRED} required")
    sys.exit(got < REQUIRED)


main()
