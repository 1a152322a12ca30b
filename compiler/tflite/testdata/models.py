#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes small TensorFlow Lite models of our own and records what the LiteRT interpreter computes.

usage: models.py DIRECTORY

Each model becomes DIRECTORY/NAME/model.tflite with input_0.bin and output_0.bin of its reference kernels. Numbers are
pseudo-random from a fixed seed. A model with a variable also has its value before the run, as another input, and behind it, as another output.
"""
import os
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KIND = {np.dtype(np.float32): 0, np.dtype(np.int32): 2, np.dtype(np.uint8): 3, np.dtype(np.int64): 4, np.dtype(np.int16): 7, np.dtype(np.int8): 9}


class Net:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.tensors, self.buffers, self.ops, self.codes = [], [s.BufferT()], [], []

    def tensor(self, shape, dtype, scale=None, zero=None, axis=0, data=None):
        t = s.TensorT()
        t.shape, t.type, t.name = list(shape), KIND[np.dtype(dtype)], f"t{len(self.tensors)}".encode()
        if scale is not None:
            q = s.QuantizationParametersT()
            q.scale = np.atleast_1d(np.asarray(scale, np.float32))
            q.zeroPoint = np.broadcast_to(np.asarray(zero or 0, np.int64), q.scale.shape)
            q.quantizedDimension = axis
            t.quantization = q
        t.buffer = 0
        if data is not None:
            b = s.BufferT()
            b.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            t.buffer = len(self.buffers)
            self.buffers.append(b)
        self.tensors.append(t)
        return len(self.tensors) - 1

    def act(self, shape, lo=-2.0, hi=2.0):
        """An int8 activation that covers lo to hi."""
        scale = np.float32((hi - lo) / 255)
        return self.tensor(shape, np.int8, scale, int(round(-128 - lo / scale)))

    def wide(self, shape, most=2.0):
        """An int16 activation from -most to most."""
        return self.tensor(shape, np.int16, np.float32(most / 32767), 0)

    def scale(self, t):
        return float(self.tensors[t].quantization.scale[0])

    def weights(self, shape, axis):
        n = shape[axis]
        return self.tensor(shape, np.int8, self.rng.uniform(0.002, 0.02, n), 0, axis, self.rng.integers(-127, 128, shape).astype(np.int8))

    def bias(self, x, w, n):
        scale = self.scale(x) * np.asarray(self.tensors[w].quantization.scale)
        return self.tensor([n], np.int32, scale, 0, 0, self.rng.integers(-2000, 2000, n).astype(np.int32))

    def op(self, code, inputs, output, options=None, kind=0):
        c = s.OperatorCodeT()
        c.builtinCode, c.deprecatedBuiltinCode, c.version = code, min(code, 127), 1
        if code in (3, 9, 0, 18, 41, 25, 2, 34, 114, 6):
            c.version = {3: 3, 9: 4, 0: 2, 18: 2, 41: 2, 25: 2, 2: 2, 34: 2, 114: 2, 6: 2}[code]
        o = s.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(self.codes), list(inputs), [output]
        if options is not None:
            o.builtinOptions, o.builtinOptionsType = options, kind
        self.codes.append(c)
        self.ops.append(o)
        return output

    def conv(self, x, k, cout, stride=1, act=0, same=True, out=None, depthwise=False, dilation=1):
        n, h, w, cin = self.tensors[x].shape
        wt = self.weights([1, k, k, cin * cout], 3) if depthwise else self.weights([cout, k, k, cin], 0)
        cout = cin * cout if depthwise else cout
        o = s.DepthwiseConv2DOptionsT() if depthwise else s.Conv2DOptionsT()
        o.padding, o.strideW, o.strideH, o.fusedActivationFunction = (0 if same else 1), stride, stride, act
        o.dilationWFactor = o.dilationHFactor = dilation
        if depthwise:
            o.depthMultiplier = cout // cin
        span = (k - 1) * dilation + 1
        size = lambda d: -(-d // stride) if same else (d - span) // stride + 1
        y = self.act([n, size(h), size(w), cout], *(out or (-3.0, 3.0)))
        return self.op(4 if depthwise else 3, [x, wt, self.bias(x, wt, cout)], y, o, 2 if depthwise else 1)

    def dense(self, x, cout, act=0):
        k = int(np.prod(self.tensors[x].shape[1:]))
        w = self.tensor([cout, k], np.int8, 0.01, 0, 0, self.rng.integers(-127, 128, [cout, k]).astype(np.int8))
        o = s.FullyConnectedOptionsT()
        o.fusedActivationFunction = act
        return self.op(9, [x, w, self.bias(x, w, cout)], self.act([self.tensors[x].shape[0], cout], -4, 5), o, 8)

    def pool(self, x, code, k, stride, same=True, act=0):
        n, h, w, c = self.tensors[x].shape
        o = s.Pool2DOptionsT()
        o.padding, o.strideW, o.strideH, o.filterWidth, o.filterHeight, o.fusedActivationFunction = (0 if same else 1), stride, stride, k, k, act
        size = lambda d: -(-d // stride) if same else (d - k) // stride + 1
        q = self.tensors[x].quantization
        y = self.tensor([n, size(h), size(w), c], np.int8, q.scale, int(q.zeroPoint[0]))
        return self.op(code, [x], y, o, 5)

    def bytes(self, x, y):
        g = s.SubGraphT()
        g.tensors, g.inputs, g.outputs, g.operators, g.name = self.tensors, x, [y], self.ops, b"main"
        m = s.ModelT()
        m.version, m.operatorCodes, m.subgraphs, m.buffers, m.description = 3, self.codes, [g], self.buffers, b"npuemu"
        b = flatbuffers.Builder(1024)
        b.Finish(m.Pack(b), b"TFL3")
        return bytes(b.Output())


def binary(code, options, kind, act=0):
    def make(n):
        a, b = n.act([1, 5, 7, 3]), n.act([1, 5, 7, 3], -1.0, 3.3)
        o = options()
        o.fusedActivationFunction = act
        return [a, b], n.op(code, [a, b], n.act([1, 5, 7, 3], -2.5, 4.0), o, kind)
    return make


def unary(code, lo=-2.5, hi=4.0, options=None, kind=0):
    def make(n):
        x = n.act([1, 8, 32], -6.0, 6.0)
        return [x], n.op(code, [x], n.act([1, 8, 32], lo, hi), options() if options else None, kind)
    return make


def leaky():
    o = s.LeakyReluOptionsT()
    o.alpha = 0.2
    return o


def conv(**kw):
    def make(n):
        x = n.act([1, 9, 11, 5])
        return [x], n.conv(x, 3, **kw)
    return make


def pool(*args, **kw):
    def make(n):
        x = n.act([1, 9, 11, 5])
        return [x], n.pool(x, *args, **kw)
    return make


def dense(n):
    x = n.act([3, 37])
    return [x], n.dense(x, 11, 1)


def pad(n):
    x = n.act([1, 3, 4, 2])
    q = n.tensors[x].quantization
    p = n.tensor([4, 2], np.int32, data=np.array([[0, 0], [1, 2], [0, 3], [1, 0]], np.int32))
    return [x], n.op(34, [x, p], n.tensor([1, 6, 7, 3], np.int8, q.scale, int(q.zeroPoint[0])), s.PadOptionsT(), 22)


def concat(n):
    a, b = n.act([1, 3, 4, 2]), n.act([1, 3, 4, 5])
    o = s.ConcatenationOptionsT()
    o.axis = 3
    return [a, b], n.op(2, [a, b], n.act([1, 3, 4, 7]), o, 10)


def quantize(n):
    x = n.tensor([1, 400], np.float32)
    return [x], n.op(114, [x], n.act([1, 400]))


def dequantize(n):
    x = n.act([1, 256])
    return [x], n.op(6, [x], n.tensor([1, 256], np.float32))


def softmax(n):
    x = n.act([3, 37], -9.0, 5.0)
    o = s.SoftmaxOptionsT()
    o.beta = 1.0
    return [x], n.op(25, [x], n.tensor([3, 37], np.int8, 1 / 256, -128), o, 9)


def mean(n):
    x = n.act([2, 7, 5, 9])
    o = s.ReducerOptionsT()
    axes = n.tensor([2], np.int32, data=np.array([1, 2], np.int32))
    return [x], n.op(40, [x, axes], n.act([2, 9], -1.1, 1.2), o, 27)


def binary16(code, options, kind):
    def make(n):
        a, b = n.wide([1, 5, 7, 3]), n.wide([1, 1, 1, 3], 1.3)
        o = options()
        if code != 18:
            o.potScaleInt16 = False
        return [a, b], n.op(code, [a, b], n.wide([1, 5, 7, 3], 2.9), o, kind)
    return make


def conv16(n):
    x = n.wide([1, 9, 7, 5])
    w = n.weights([8, 3, 3, 5], 0)
    scale = n.scale(x) * np.asarray(n.tensors[w].quantization.scale)
    b = n.tensor([8], np.int64, scale, 0, 0, n.rng.integers(-200000, 200000, 8))
    o = s.Conv2DOptionsT()
    o.padding, o.strideW, o.strideH, o.fusedActivationFunction, o.dilationWFactor, o.dilationHFactor = 0, 2, 1, 1, 1, 1
    return [x], n.op(3, [x, w, b], n.wide([1, 9, 4, 8], 3.0), o, 1)


def leaky16(n):
    x = n.wide([1, 8, 31])
    return [x], n.op(98, [x], n.wide([1, 8, 31], 1.9), leaky(), 75)


def transposed(padding, size, strides):
    def make(n):
        x = n.act([1, 4, 5, 3])
        w = n.weights([6, 3, 3, 3], 0)
        shape = n.tensor([4], np.int32, data=np.array([1, *size, 6], np.int32))
        o = s.TransposeConvOptionsT()
        o.padding, o.strideH, o.strideW = padding, *strides
        return [x], n.op(67, [shape, w, x, n.bias(x, w, 6)], n.act([1, *size, 6], -3, 3), o, s.BuiltinOptions.TransposeConvOptions)
    return make


def strided(n):
    x = n.act([2, 6, 7, 3])
    q = n.tensors[x].quantization
    lists = [n.tensor([4], np.int32, data=np.array(v, np.int32)) for v in ([0, -1, 1, 2], [2, -7, 100, 3], [1, -2, 3, 1])]
    o = s.StridedSliceOptionsT()
    o.beginMask, o.endMask, o.ellipsisMask, o.newAxisMask, o.shrinkAxisMask = 1, 1, 0, 0, 8
    return [x], n.op(45, [x, *lists], n.tensor([2, 3, 2], np.int8, q.scale, int(q.zeroPoint[0])), o, s.BuiltinOptions.StridedSliceOptions)


def svdf(n):
    x = n.act([2, 11])
    w = n.tensor([8, 11], np.int8, 0.01, 0, 0, n.rng.integers(-127, 128, [8, 11]).astype(np.int8))
    wt = n.tensor([8, 5], np.int16, 0.0001, 0, 0, n.rng.integers(-9000, 9000, [8, 5]).astype(np.int16))
    b = n.tensor([4], np.int32, 1e-8, 0, 0, n.rng.integers(-90000, 90000, 4).astype(np.int32))
    state = n.tensor([2, 40], np.int16, 0.0002, 0)
    n.tensors[state].isVariable = True
    o = s.SVDFOptionsT()
    o.rank, o.fusedActivationFunction = 2, 1
    return [x], n.op(27, [x, w, wt, b, state], n.act([2, 4], 0.0, 0.9), o, s.BuiltinOptions.SVDFOptions)


def lstm(n):
    """Two rows, three steps, four inputs, five units."""
    x = n.act([2, 3, 4])
    def weights(shape):
        return n.tensor(shape, np.int8, float(n.rng.uniform(0.005, 0.02)), 0, 0, n.rng.integers(-127, 128, shape).astype(np.int8))
    wx, wh = [weights([5, 4]) for _ in range(4)], [weights([5, 5]) for _ in range(4)]
    bias = [n.tensor([5], np.int32, n.scale(x) * n.scale(w), 0, 0, n.rng.integers(-3000, 3000, 5).astype(np.int32)) for w in wx]
    h, c = n.tensor([2, 5], np.int8, 0.0077, -3), n.tensor([2, 5], np.int16, 2.0**-12, 0)
    n.tensors[h].isVariable = n.tensors[c].isVariable = True
    o = s.UnidirectionalSequenceLSTMOptionsT()
    o.fusedActivationFunction, o.cellClip = 4, 1.5
    y = n.op(44, [x, *wx, *wh, -1, -1, -1, *bias, -1, -1, h, c], n.tensor([2, 3, 5], np.int8, 0.0077, -3), o, s.BuiltinOptions.UnidirectionalSequenceLSTMOptions)
    inner = [n.tensor([0], np.float32) for _ in range(4)] + [n.tensor([0], np.int8, 0.0077, -3)]
    n.ops[-1].intermediates = inner
    return [x], y


def blocks(code, shape, out, options, kind):
    def make(n):
        x = n.act(shape)
        q = n.tensors[x].quantization
        o = options()
        o.blockSize = 2
        return [x], n.op(code, [x], n.tensor(out, np.int8, q.scale, int(q.zeroPoint[0])), o, kind)
    return make


def nearest(corners, half):
    def make(n):
        x = n.act([1, 5, 7, 3])
        q = n.tensors[x].quantization
        o = s.ResizeNearestNeighborOptionsT()
        o.alignCorners, o.halfPixelCenters = corners, half
        size = n.tensor([2], np.int32, data=np.array([8, 11], np.int32))
        return [x], n.op(97, [x, size], n.tensor([1, 8, 11, 3], np.int8, q.scale, int(q.zeroPoint[0])), o, s.BuiltinOptions.ResizeNearestNeighborOptions)
    return make


def bilinear_float(n):
    """Numbers and weights of few digits: no result is rounded."""
    o = s.ResizeBilinearOptionsT()
    o.halfPixelCenters = True
    x, size = n.tensor([1, 5, 7, 3], np.float32), n.tensor([2], np.int32, data=np.array([10, 14], np.int32))
    return [x], n.op(23, [x, size], n.tensor([1, 10, 14, 3], np.float32), o, s.BuiltinOptions.ResizeBilinearOptions)


def bilinear(corners, half, wide=False, out=(8, 11)):
    def make(n):
        x = n.wide([1, 5, 7, 3]) if wide else n.act([1, 5, 7, 3])
        q = n.tensors[x].quantization
        o = s.ResizeBilinearOptionsT()
        o.alignCorners, o.halfPixelCenters = corners, half
        size = n.tensor([2], np.int32, data=np.array(out, np.int32))
        y = n.tensor([1, *out, 3], np.int16 if wide else np.int8, q.scale, int(q.zeroPoint[0]))
        return [x], n.op(23, [x, size], y, o, s.BuiltinOptions.ResizeBilinearOptions)
    return make


def parts(n):
    """SPLIT, UNPACK, MAXIMUM, MINIMUM and PACK."""
    x = n.act([2, 6, 3])
    q = n.tensors[x].quantization
    same = lambda shape: n.tensor(shape, np.int8, q.scale, int(q.zeroPoint[0]))
    axis = n.tensor([], np.int32, data=np.array(1, np.int32))
    o = s.SplitOptionsT()
    o.numSplits = 2
    a, b = same([2, 3, 3]), same([2, 3, 3])
    n.op(49, [axis, x], a, o, s.BuiltinOptions.SplitOptions)
    n.ops[-1].outputs = [a, b]
    o = s.UnpackOptionsT()
    o.num, o.axis = 2, 0
    c, d = same([3, 3]), same([3, 3])
    n.op(88, [a], c, o, s.BuiltinOptions.UnpackOptions)
    n.ops[-1].outputs = [c, d]
    high = n.op(55, [c, d], same([3, 3]), s.MaximumMinimumOptionsT(), s.BuiltinOptions.MaximumMinimumOptions)
    low = n.op(57, [c, b], same([2, 3, 3]), s.MaximumMinimumOptionsT(), s.BuiltinOptions.MaximumMinimumOptions)
    o = s.PackOptionsT()
    o.valuesCount, o.axis = 2, 1
    both = n.op(83, [low, b], same([2, 2, 3, 3]), o, s.BuiltinOptions.PackOptions)
    return [x], n.op(55, [both, high], same([2, 2, 3, 3]), s.MaximumMinimumOptionsT(), s.BuiltinOptions.MaximumMinimumOptions)


def bytes_of(shape, lo, hi, n):
    """A uint8 activation that covers lo to hi."""
    scale = np.float32((hi - lo) / 255)
    return n.tensor(shape, np.uint8, scale, int(round(-lo / scale)))


def uint8_product(kind):
    """A convolution, depthwise one or product of uint8 with weights of uint8 and one zero point, as MobileNetV1's first models have."""
    def make(n):
        x = bytes_of([1, 8, 9, 6], -1.0, 1.1, n)
        shape, options, code, size = {
            "conv": ([5, 3, 3, 6], s.Conv2DOptionsT(), 3, [1, 8, 9, 5]), "depthwise": ([1, 3, 3, 6], s.DepthwiseConv2DOptionsT(), 4, [1, 8, 9, 6]),
            "dense": ([5, 432], s.FullyConnectedOptionsT(), 9, [1, 5]),
        }[kind]
        w = n.tensor(shape, np.uint8, 0.011, 117, 0, n.rng.integers(0, 256, shape).astype(np.uint8))
        b = n.tensor(size[-1:], np.int32, n.scale(x) * 0.011, 0, 0, n.rng.integers(-3000, 3000, size[-1:]).astype(np.int32))
        options.fusedActivationFunction = 3
        if code != 9:
            options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        if code == 4:
            options.depthMultiplier = 1
        return [x], n.op(code, [x, w, b], bytes_of(size, 0.0, 5.0, n), options, {3: 1, 4: 2, 9: 8}[code])
    return make


def uint8_add(n):
    a, b = bytes_of([1, 5, 7, 3], -2.0, 2.0, n), bytes_of([1, 5, 7, 3], -1.0, 3.0, n)
    return [a, b], n.op(0, [a, b], bytes_of([1, 5, 7, 3], -2.5, 4.0, n), s.AddOptionsT(), 11)


def uint8_tail(n):
    """An average, a reshape and a softmax."""
    x = bytes_of([1, 3, 3, 20], 0.0, 9.0, n)
    o = s.Pool2DOptionsT()
    o.padding, o.strideW, o.strideH, o.filterWidth, o.filterHeight = 1, 1, 1, 3, 3
    q = n.tensors[x].quantization
    y = n.op(1, [x], n.tensor([1, 1, 1, 20], np.uint8, q.scale, int(q.zeroPoint[0])), o, 5)
    r = s.ReshapeOptionsT()
    r.newShape = [1, 20]
    shape = n.tensor([2], np.int32, data=np.array([1, 20], np.int32))
    y = n.op(22, [y, shape], n.tensor([1, 20], np.uint8, q.scale, int(q.zeroPoint[0])), r, 17)
    o = s.SoftmaxOptionsT()
    o.beta = 1.0
    return [x], n.op(25, [y], n.tensor([1, 20], np.uint8, 1 / 256, 0), o, 9)


def net(n):
    """Inverted residuals, as MobileNetV2 has them."""
    x = n.act([1, 32, 32, 3])
    y = n.conv(x, 3, 8, 2, 3, out=(0.0, 6.0))
    for cout, stride in [(8, 1), (16, 2), (16, 1)]:
        z = n.conv(y, 1, 24, 1, 3, out=(0.0, 6.0))
        z = n.conv(z, 3, 1, stride, 3, out=(0.0, 6.0), depthwise=True)
        z = n.conv(z, 1, cout, 1, 0)
        if n.tensors[z].shape == n.tensors[y].shape:
            z = n.op(0, [y, z], n.act(n.tensors[z].shape, -6.0, 6.0), s.AddOptionsT(), 11)
        y = z
    y = n.pool(y, 1, 8, 1, False)
    r = s.ReshapeOptionsT()
    r.newShape = [1, 16]
    shape = n.tensor([2], np.int32, data=np.array([1, 16], np.int32))
    q = n.tensors[y].quantization
    y = n.op(22, [y, shape], n.tensor([1, 16], np.int8, q.scale, int(q.zeroPoint[0])), r, 17)
    return [x], n.dense(y, 10)


MODELS = {
    "conv": conv(cout=7), "conv_stride_relu6": conv(cout=8, stride=2, act=3), "conv_valid_relu": conv(cout=4, act=1, same=False),
    "conv_dilation": conv(cout=4, dilation=2), "conv_relu_n1": conv(cout=4, act=2),
    "depthwise": conv(cout=1, depthwise=True), "depthwise_multiplier": conv(cout=3, depthwise=True, stride=2, act=1),
    "dense": dense, "average": pool(1, 3, 2), "average_valid_relu": pool(1, 2, 2, False, 1), "maximum": pool(17, 3, 1), "maximum_relu6": pool(17, 2, 2, False, 3),
    "add": binary(0, s.AddOptionsT, 11), "add_relu": binary(0, s.AddOptionsT, 11, 1), "sub": binary(41, s.SubOptionsT, 28), "mul": binary(18, s.MulOptionsT, 21),
    "mul_relu6": binary(18, s.MulOptionsT, 21, 3), "relu": unary(19), "relu6": unary(21), "leaky_relu": unary(98, options=leaky, kind=75),
    "requantize": unary(114), "logistic": unary(14, 0.0, 255 / 256), "tanh": unary(28, -1.0, 127 / 128),
    "pad": pad, "concat": concat, "quantize": quantize, "dequantize": dequantize, "net": net,
    "softmax": softmax, "mean": mean, "hard_swish": unary(117, -0.5, 6.2), "exp": unary(47, 0.0, 90.0),
    "add16": binary16(0, s.AddOptionsT, 11), "sub16": binary16(41, s.SubOptionsT, 28), "mul16": binary16(18, s.MulOptionsT, 21), "conv16": conv16, "leaky16": leaky16,
    "transposed": transposed(0, [8, 10], [2, 2]), "transposed_valid": transposed(1, [6, 16], [1, 3]), "strided": strided, "svdf": svdf,
    "uint8_conv": uint8_product("conv"), "uint8_depthwise": uint8_product("depthwise"), "uint8_dense": uint8_product("dense"), "uint8_add": uint8_add, "uint8_tail": uint8_tail,
    "lstm": lstm, "parts": parts, "to_space": blocks(5, [1, 2, 3, 8], [1, 4, 6, 2], s.DepthToSpaceOptionsT, s.BuiltinOptions.DepthToSpaceOptions),
    "to_depth": blocks(26, [1, 4, 6, 2], [1, 2, 3, 8], s.SpaceToDepthOptionsT, s.BuiltinOptions.SpaceToDepthOptions),
    "nearest": nearest(False, False), "nearest_corners": nearest(True, False), "nearest_half": nearest(False, True), "relu_n1": unary(20),
    "bilinear": bilinear(False, False), "bilinear_corners": bilinear(True, False), "bilinear_half": bilinear(False, True), "bilinear16": bilinear(False, True, True),
    "bilinear_smaller": bilinear(False, True, out=(2, 3)), "bilinear_float": bilinear_float,
}


def main():
    for i, (name, make) in enumerate(MODELS.items()):
        n = Net(i)
        x, y = make(n)
        b = n.bytes(x, y)
        it = Interpreter(model_content=b, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        it.allocate_tensors()
        d = os.path.join(sys.argv[1], name)
        os.makedirs(d, exist_ok=True)
        open(os.path.join(d, "model.tflite"), "wb").write(b)
        for k, t in enumerate(it.get_input_details()):
            if t["dtype"] == np.float32:
                v = n.rng.uniform(-3, 3, t["shape"]).astype(np.float32)
                if v.ndim == 2:
                    v[0, :100] = (np.arange(100) - 50 + 0.5) * np.float32(4 / 255)
                else:
                    v = np.round(v * 64) / np.float32(64)
            elif int(np.prod(t["shape"])) == 256:
                v = np.arange(-128, 128, dtype=np.int8).reshape(t["shape"])
            else:
                r = np.iinfo(t["dtype"])
                v = n.rng.integers(r.min, r.max + 1, t["shape"]).astype(t["dtype"])
            it.set_tensor(t["index"], v)
            open(os.path.join(d, f"input_{k}.bin"), "wb").write(v.tobytes())
        state = [t for t in n.tensors if t.isVariable]
        places = {d["name"]: d["index"] for d in it.get_tensor_details()}
        for _ in state[:1]:  # a first run fills the variables
            it.invoke()
        for k, t in enumerate(state):
            open(os.path.join(d, f"input_{k + 1}.bin"), "wb").write(it.get_tensor(places[t.name.decode()]).tobytes())
        it.invoke()
        for k, t in enumerate(state):
            open(os.path.join(d, f"output_{k + 1}.bin"), "wb").write(it.get_tensor(places[t.name.decode()]).tobytes())
        out = it.get_tensor(it.get_output_details()[0]["index"])
        open(os.path.join(d, "output_0.bin"), "wb").write(out.tobytes())
    print(len(MODELS), "models")


main()
