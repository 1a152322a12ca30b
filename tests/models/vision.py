# SPDX-License-Identifier: Apache-2.0
"""Networks for images of 224 × 224, of their published shapes, with weights from a seed, in int8."""

import numpy as np

from net import Net, QuantFormat, quantize

SIZE = 224


def images(seed, count):
    """Pictures without content, but with structure: smooth fields of colour under noise."""
    rng = np.random.default_rng(seed)
    at = (np.arange(SIZE) + 0.5) / SIZE * 7 - 0.5
    lo = np.clip(np.floor(at).astype(int), 0, 5)
    up = np.zeros((SIZE, 7), np.float32)
    up[np.arange(SIZE), lo], up[np.arange(SIZE), lo + 1] = 1 - np.clip(at - lo, 0, 1), np.clip(at - lo, 0, 1)
    l = []
    for _ in range(count):
        field = up @ rng.normal(0, 1, (1, 3, 7, 7)).astype(np.float32) @ up.T
        l.append({"x": (field + rng.normal(0, 0.3, field.shape)).astype(np.float32)})
    return l


def start(name):
    net = Net(name, samples={"x": np.concatenate([i["x"] for i in images(5, 8)])})
    return net, net.input("x", [1, 3, SIZE, SIZE])


def finish(net, y, channels):
    net.classify(y, channels, 1000)
    return {"model": quantize(net.model(), images(11, 8)), "float": net.model(), "samples": images(13, 16)}


def relu6(net):
    lo, hi = net.const(0.0), net.const(6.0)
    return lambda y: net.op("Clip", y, lo, hi)


def mobilenet_v1():
    net, x = start("mobilenet_v1")
    act = relu6(net)
    y, cin = act(net.conv(x, 3, 32, 3, stride=2)), 32
    for c, s in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + 5 * [(512, 1)] + [(1024, 2), (1024, 1)]:
        y = act(net.conv(y, cin, cin, 3, stride=s, groups=cin))
        y, cin = act(net.conv(y, cin, c, 1)), c
    return finish(net, y, cin)


def mobilenet_v2():
    net, x = start("mobilenet_v2")
    act = relu6(net)
    y, cin = act(net.conv(x, 3, 32, 3, stride=2)), 32
    for t, c, count, s in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for i in range(count):
            z, wide = y, cin * t
            if t > 1:
                z = act(net.conv(z, cin, wide, 1))
            z = act(net.conv(z, wide, wide, 3, stride=s if i == 0 else 1, groups=wide))
            z = net.conv(z, wide, c, 1)
            y = net.op("Add", y, z) if i > 0 else z
            cin = c
    return finish(net, act(net.conv(y, cin, 1280, 1)), 1280)


def resnet(name, blocks, bottleneck):
    net, x = start(name)
    y = net.conv(x, 3, 64, 7, stride=2, act="Relu")
    y, cin = net.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for i, count in enumerate(blocks):
        c = 64 << i
        cout = 4 * c if bottleneck else c
        for j in range(count):
            s = 2 if i > 0 and j == 0 else 1
            if bottleneck:
                z = net.conv(y, cin, c, 1, act="Relu")
                z = net.conv(z, c, c, 3, stride=s, act="Relu")
                z = net.conv(z, c, cout, 1)
            else:
                z = net.conv(y, cin, c, 3, stride=s, act="Relu")
                z = net.conv(z, c, cout, 3)
            if s != 1 or cin != cout:
                y = net.conv(y, cin, cout, 1, stride=s)
            y, cin = net.op("Relu", net.op("Add", y, z)), cout
    return finish(net, y, cin)


def resnet18():
    return resnet("resnet18", [2, 2, 2, 2], False)


def resnet50():
    return resnet("resnet50", [3, 4, 6, 3], True)


def of_integers(make):
    """The same network, of operators of integers."""

    def made():
        spec = make()
        return {**spec, "model": quantize(spec["float"], images(11, 8), QuantFormat.QOperator)}

    return made
