# SPDX-License-Identifier: Apache-2.0
"""Small networks: digits and LeNet, which are trained on handwritten digits, and a keyword spotter."""

import pathlib
import sys

import numpy as np

from net import Net, quantize

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits"
sys.path.insert(0, str(EXAMPLE))
import train as example  # noqa: E402


def digits():
    """The network of examples/digits with its weights, to the bit: x is int8, y are the accumulators of the last layer."""
    net = Net("digits")
    layers = example.unpack_weights((EXAMPLE / "weights.bin").read_bytes())
    scale = net.const(1 / 16)  # of every activation; that of weights is what then gives the entry's factor
    zero = net.const(0, np.int8)
    y = net.op("Transpose", net.input("x", [1, 8, 8, 1], np.int8), perm=[0, 3, 1, 2])
    y = net.op("DequantizeLinear", y, scale, zero)
    for (w, bias, entries), stride in zip(layers[:2], example.STRIDES):
        factors = np.array([q / 2**s for q, s in entries], np.float32)
        zeros = net.const(np.zeros(len(factors)), np.int8)
        kernel = net.op("DequantizeLinear", net.const(w.transpose(3, 2, 0, 1), np.int8), net.const(factors), zeros, axis=0)
        b = net.op("DequantizeLinear", net.const(bias, np.int32), net.const(factors / 16), axis=0)
        y = net.op("Relu", net.op("Conv", y, kernel, b, kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4))
        y = net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero)
    y = net.op("QuantizeLinear", y, scale, zero)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 3, 1]), net.ints(1, 256))
    w, bias, _ = layers[2]
    y = net.op("Add", net.op("MatMulInteger", y, net.const(w, np.int8)), net.const(bias, np.int32))
    net.output(y, "y", [1, 10], np.int32)
    _, _, x, labels = example.split()
    return {"model": net.model(), "samples": [{"x": i[None]} for i in x], "labels": labels}


# --- LeNet --------------------------------------------------------------------

EPOCHS, BATCH, RATE = 6, 32, 2e-3


def enlarge(x):
    """(n, 8, 8, 1) of 0..1 -> (n, 1, 28, 28), by linear interpolation."""
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    lo = np.minimum(at.astype(int), 6)
    up = np.zeros((28, 8))
    up[np.arange(28), lo], up[np.arange(28), lo + 1] = 1 - (at - lo), at - lo
    return (up @ x[..., 0] @ up.T)[:, None].astype(np.float32)


class Convolution:
    """5 × 5 without padding, and the largest of each 2 × 2 of its results."""

    def forward(self, x, w, b):
        n, c, size, _ = x.shape
        out = size - 4
        taps = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(2, 3))  # n, c, y, x, 5, 5
        self.rows = taps.transpose(0, 2, 3, 1, 4, 5).reshape(n * out * out, c * 25)
        y = (self.rows @ w.reshape(len(w), -1).T + b).reshape(n, out // 2, 2, out // 2, 2, len(w)).transpose(0, 1, 3, 5, 2, 4)
        self.shape, self.w = x.shape, w
        y = y.reshape(n, out // 2, out // 2, len(w), 4)
        self.best = y.argmax(axis=4)
        return y.max(axis=4).transpose(0, 3, 1, 2)

    def backward(self, g):
        n, c, size, _ = self.shape
        out, cout = size - 4, len(self.w)
        spread = np.zeros((n, out // 2, out // 2, cout, 4), np.float32)
        np.put_along_axis(spread, self.best[..., None], g.transpose(0, 2, 3, 1)[..., None], axis=4)
        rows = spread.reshape(n, out // 2, out // 2, cout, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n * out * out, cout)
        back = (rows @ self.w.reshape(cout, -1)).reshape(n, out, out, c, 5, 5)
        gx = np.zeros(self.shape, np.float32)
        for i in range(5):
            for j in range(5):
                gx[:, :, i : i + out, j : j + out] += back[..., i, j].transpose(0, 3, 1, 2)
        return gx, (rows.T @ self.rows).reshape(self.w.shape), rows.sum(axis=0)


def train_lenet(x, y):
    """Adam with a cosine rate on shifted images; returns weights and biases of the four layers."""
    rng = np.random.RandomState(17)
    shapes = [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
    params = []
    for s in shapes:
        params += [(rng.randn(*s) * np.sqrt(2 / np.prod(s[1:]))).astype(np.float32), np.zeros(s[0], np.float32)]
    mean, square = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    per_epoch = len(x) // BATCH
    steps = EPOCHS * per_epoch
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        batch = order[step % per_epoch * BATCH :][:BATCH]
        c1, c2 = Convolution(), Convolution()
        a2 = c2.forward(c1.forward(enlarge(example.augment(rng, x[batch])), *params[:2]), *params[2:4])
        flat = a2.reshape(BATCH, -1)
        a3 = np.maximum(flat @ params[4].T + params[5], 0)
        logits = a3 @ params[6].T + params[7]
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        g = e / e.sum(axis=1, keepdims=True)
        g[np.arange(BATCH), y[batch]] -= 1
        g /= BATCH
        g3 = (g @ params[6]) * (a3 > 0)
        g2, gw2, gb2 = c2.backward((g3 @ params[4]).reshape(a2.shape))
        _, gw1, gb1 = c1.backward(g2)
        rate = RATE * (1 + np.cos(np.pi * step / steps)) / 2
        for p, d, m, v in zip(params, [gw1, gb1, gw2, gb2, g3.T @ flat, g3.sum(axis=0), g.T @ a3, g.sum(axis=0)], mean, square):
            m += 0.1 * (d - m)
            v += 0.001 * (d * d - v)
            p -= rate * m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    return params


def lenet():
    """The LeNet of Caffe's example: two convolutions with maxima, two dense layers."""
    train_x, train_y, x, labels = example.split()
    p = train_lenet(train_x / 16, train_y)
    net = Net("lenet")
    y = net.input("x", [1, 1, 28, 28])
    for w, b in (p[0:2], p[2:4]):
        y = net.op("Conv", y, net.const(w), net.const(b), kernel_shape=[5, 5])
        y = net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Flatten", y)
    y = net.op("Relu", net.op("Gemm", y, net.const(p[4]), net.const(p[5]), transB=1))
    net.output(net.op("Gemm", y, net.const(p[6]), net.const(p[7]), transB=1), "y", [1, 10])
    calibration = [{"x": i[None]} for i in enlarge(train_x[:64] / 16)]
    return {"model": quantize(net.model(), calibration), "samples": [{"x": i[None]} for i in enlarge(x / 16)], "labels": labels}


# --- keywords -----------------------------------------------------------------


def spectra(seed, count):
    """49 × 10 coefficients, smooth in time as those of speech are."""
    rng = np.random.default_rng(seed)
    l = []
    for _ in range(count):
        x = np.cumsum(rng.normal(0, 1, (1, 1, 49, 10)), axis=2)
        l.append({"x": ((x - x.mean()) / x.std()).astype(np.float32)})
    return l


def keywords():
    """A keyword spotter of separable convolutions: 49 × 10 MFCC, 64 channels, 12 classes."""
    net = Net("keywords", samples={"x": np.concatenate([s["x"] for s in spectra(5, 64)])})
    y = net.conv(net.input("x", [1, 1, 49, 10]), 1, 64, (10, 4), stride=2, act="Relu", pads=[4, 1, 5, 1])
    for _ in range(4):
        y = net.conv(y, 64, 64, 3, groups=64, act="Relu")
        y = net.conv(y, 64, 64, 1, act="Relu")
    net.classify(y, 64, 12)
    return {"model": quantize(net.model(), spectra(11, 64)), "float": net.model(), "samples": spectra(13, 200)}


