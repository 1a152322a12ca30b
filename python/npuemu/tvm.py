# SPDX-License-Identifier: Apache-2.0
"""TVM on the virtual NPU: an out-of-tree code generator (BYOC) for Relax.

    with npuemu.Device() as device:
        backend = npuemu.tvm.Backend(device)
        vm = relax.VirtualMachine(backend.build(mod), tvm.cpu())
        y = vm["main"](x)
        backend.partitions[0].last.counters      # what the device counted

Stock TVM finds what the device has (FuseOpsByPattern, MergeCompositeFunctions) and hands each partition to relax.ext.npuemu, which is
here: it becomes an ONNX model, which the compiler takes. docs/tvm.md is the manual.
"""

import hashlib
import itertools
import zipfile

import numpy as np
import tvm
from tvm import relax
from tvm.ir.expr import GenericConst
from tvm.relax.dpl import is_const, is_op, is_tuple, wildcard
from tvm.relax.transform import DecomposeOpsForInference, FuseOpsByPattern, FusionPattern, MergeCompositeFunctions, RunCodegen

import npuemu
from npuemu import _onnx

OPSET = 20


def _shape(expr):
    return [int(d) for d in expr.ty.shape]


def _dtype(expr):
    return str(expr.ty.dtype)


def _ints(values):
    return [int(v) for v in values]


def _scalar(expr):
    """The number that an argument such as a bound of clip is."""
    return getattr(expr, "value", expr)


class _Refused(npuemu.Error):
    """An operator, or a use of one, that is not translated."""


def _want(condition, text):
    if not condition:
        raise _Refused(text)


# A translation takes the graph, the call, and the names of its arguments; it returns the name of its result.


def _add(g, call, args):
    """An addition; behind a convolution or a product it is their bias, with which they are one operator, also of integers."""
    op, inputs, attributes = g.made.get(args[0], ("", (), {}))
    shape = _shape(call)
    if op == "Conv" and len(inputs) == 2:
        bias = _row(g, args[1], [1, shape[1]] + [1] * (len(shape) - 2))
        if bias:
            return g.node("Conv", *inputs, bias, **attributes)
    if op == "MatMul" and len(shape) == 2:
        bias = _row(g, args[1], [shape[1]]) or _row(g, args[1], [1, shape[1]])
        if bias and _shape(call.args[0]) == shape:
            return g.node("Gemm", *inputs, bias)
    return g.node("Add", *args)


def _row(g, name, shape):
    """What has one dimension and is, reshaped to this shape, the value: a constant, or one that is dequantized. None if there is none."""
    op, inputs, _ = g.made.get(name, ("", (), {}))
    size = [max(shape)]
    if name in g.arrays and list(g.arrays[name].shape) == shape:
        return g.constant(g.arrays[name].reshape(size))
    if op == "Reshape" and list(g.arrays.get(inputs[1], ())) == shape:
        name = inputs[0]
    if name in g.arrays and list(g.arrays[name].shape) == size:
        return name
    op, inputs, _ = g.made.get(name, ("", (), {}))
    if op == "DequantizeLinear" and inputs[0] in g.arrays and list(g.arrays[inputs[0]].shape) == size:
        return name
    return None


def _plain(op, **attributes):
    return lambda g, call, args: g.node(op, *args, **attributes)


def _pair_of_integers(call):
    return {_dtype(a) for a in call.args} <= {"int8", "uint8"}


def _conv(g, call, args):
    a = call.attrs
    spatial = len(_shape(call.args[0])) - 2
    _want(a.data_layout == "NCDHW"[:2] + "DHW"[3 - spatial :] and a.kernel_layout[:2] == "OI", f"layouts {a.data_layout}, {a.kernel_layout}: convert them to NCHW and OIHW")
    _want(spatial <= 2, "convolutions have one or two dimensions")
    attributes = {"strides": _ints(a.strides), "pads": _ints(a.padding), "dilations": _ints(a.dilation), "group": int(a.groups)}
    if _pair_of_integers(call):
        _want(_dtype(call) == "int32", f"a convolution of integers makes int32, not {_dtype(call)}")
        return g.node("ConvInteger", *args, **attributes)
    return g.node("Conv", *args, **attributes)


def _matmul(g, call, args):
    if _pair_of_integers(call):
        _want(_dtype(call) == "int32", f"a product of integers makes int32, not {_dtype(call)}")
        return g.node("MatMulInteger", *args)
    return g.node("MatMul", *args)


def _pool(op):
    def translate(g, call, args):
        a = call.attrs
        _want(a.layout == "NCHW", f"layout {a.layout}: convert it to NCHW")
        attributes = {"kernel_shape": _ints(a.pool_size), "strides": _ints(a.strides), "pads": _ints(a.padding), "dilations": _ints(a.dilation), "ceil_mode": int(a.ceil_mode)}
        if op == "AveragePool":
            attributes["count_include_pad"] = int(a.count_include_pad)
        return g.node(op, *args, **attributes)

    return translate


def _global_average(g, call, args):
    a = call.attrs
    _want(a.layout == "NCHW" and _ints(a.output_size or []) == [1, 1], "adaptive_avg_pool2d is there for an output of 1 × 1 in NCHW")
    return g.node("GlobalAveragePool", *args)


def _layer_norm(g, call, args):
    a = call.attrs
    rank = len(_shape(call.args[0]))
    axes = [i % rank for i in _ints(a.axes)]
    _want(axes == list(range(min(axes), rank)), "layer_norm is there for the last axes")
    return g.node("LayerNormalization", *args, axis=min(axes), epsilon=float(a.epsilon))


def _reshape(g, call, args):
    return g.node("Reshape", args[0], g.constant(np.array(_shape(call), "int64")))


def _transpose(g, call, args):
    rank = len(_shape(call.args[0]))
    axes = call.attrs.axes
    return g.node("Transpose", args[0], perm=[i % rank for i in _ints(axes)] if axes is not None else list(range(rank))[::-1])


def _reduce(op):
    def translate(g, call, args):
        a = call.attrs
        rank = len(_shape(call.args[0]))
        axes = list(range(rank)) if a.axis is None else [i % rank for i in _ints(a.axis)]
        return g.node(op, args[0], g.constant(np.array(axes, "int64")), keepdims=int(a.keepdims))

    return translate


def _clip(g, call, args):
    dtype = _dtype(call)
    return g.node("Clip", args[0], *(g.constant(np.array(_scalar(v), dtype)) for v in call.args[1:]))


def _silu(g, call, args):
    return g.node("Mul", args[0], g.node("Sigmoid", args[0]))


def _rsqrt(g, call, args):
    return g.node("Reciprocal", g.node("Sqrt", args[0]))


def _pad(g, call, args):
    a = call.attrs
    _want(a.pad_mode == "constant", f"padding {a.pad_mode}: constant is there")
    width = _ints(a.pad_width)
    return g.node("Pad", args[0], g.constant(np.array(width[::2] + width[1::2], "int64")), g.constant(np.array(float(a.pad_value), _dtype(call))))


def _quantize(op):
    def translate(g, call, args):
        _want(all(isinstance(a, GenericConst) for a in call.args[1:]), "scales and zero points are constants")
        scale, zero = (a.value.numpy() for a in call.args[1:])
        integer = _dtype(call if op == "QuantizeLinear" else call.args[0])
        _want(integer in ("int8", "uint8", "int16", "int32"), f"quantization of {integer}")
        rank = len(_shape(call.args[0]))
        zero = np.broadcast_to(zero, scale.shape).astype(integer)
        return g.node(op, args[0], g.constant(scale.astype("float32")), g.constant(zero), axis=int(call.attrs.axis) % rank)

    return translate


OPERATORS = {
    "relax.add": _add, "relax.subtract": _plain("Sub"), "relax.multiply": _plain("Mul"), "relax.divide": _plain("Div"),
    "relax.maximum": _plain("Max"), "relax.minimum": _plain("Min"),
    "relax.abs": _plain("Abs"), "relax.negative": _plain("Neg"), "relax.exp": _plain("Exp"), "relax.log": _plain("Log"), "relax.sqrt": _plain("Sqrt"),
    "relax.tanh": _plain("Tanh"), "relax.sigmoid": _plain("Sigmoid"), "relax.erf": _plain("Erf"), "relax.rsqrt": _rsqrt, "relax.clip": _clip,
    "relax.nn.relu": _plain("Relu"), "relax.nn.silu": _silu,
    "relax.nn.gelu": _plain("Gelu"), "relax.nn.gelu_tanh": _plain("Gelu", approximate="tanh"),
    "relax.nn.leakyrelu": lambda g, call, args: g.node("LeakyRelu", *args, alpha=float(call.attrs.alpha)),
    "relax.nn.softmax": lambda g, call, args: g.node("Softmax", *args, axis=int(call.attrs.axis)),
    "relax.matmul": _matmul, "relax.nn.conv1d": _conv, "relax.nn.conv2d": _conv,
    "relax.nn.max_pool2d": _pool("MaxPool"), "relax.nn.avg_pool2d": _pool("AveragePool"), "relax.nn.adaptive_avg_pool2d": _global_average,
    "relax.nn.layer_norm": _layer_norm,
    "relax.mean": _reduce("ReduceMean"), "relax.sum": _reduce("ReduceSum"), "relax.max": _reduce("ReduceMax"), "relax.min": _reduce("ReduceMin"),
    "relax.reshape": _reshape, "relax.flatten": _reshape, "relax.expand_dims": _reshape, "relax.squeeze": _reshape,
    "relax.permute_dims": _transpose, "relax.nn.pad": _pad,
    "relax.concat": lambda g, call, args: g.node("Concat", *args[0], axis=int(call.attrs.axis or 0)),
    "relax.where": _plain("Where"),
    "relax.astype": lambda g, call, args: g.node("Cast", *args, to=_onnx.TYPES[_dtype(call)]),
    "relax.quantize": _quantize("QuantizeLinear"), "relax.dequantize": _quantize("DequantizeLinear"),
}
"""What is translated: operators of Relax."""

MAX_CONCAT = 8
"""Tensors that a concatenation on the device joins at most: a pattern has a number of operands."""


TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "bool")
"""Types of tensors that partitions take."""


class _Dry:
    """A graph that keeps nothing: with it a translation says whether it refuses a call."""

    made = arrays = {}

    def node(self, *_, **__):
        return ""

    def constant(self, _):
        return ""


def _known(expr):
    ty = expr.ty
    if isinstance(ty, relax.TupleType):
        return True  # its fields are looked at where they are used
    return isinstance(ty, relax.TensorType) and ty.shape is not None and all(isinstance(d, tvm.tirx.IntImm) for d in ty.shape) and str(ty.dtype) in TYPES


def _supported(call):
    """Whether a call is translated."""
    try:
        tensors = [a for a in call.args if isinstance(getattr(a, "ty", None), relax.TensorType)]
        if not all(map(_known, [call, *tensors])):
            return False
        OPERATORS[call.op.name](_Dry(), call, [[""] if isinstance(a, relax.Tuple) else "" for a in call.args])
        return True
    except _Refused:
        return False


def patterns(name="npuemu"):
    """A pattern for each operator of OPERATORS, which matches calls that are translated."""

    def check(context):
        return _supported(context.annotated_expr["call"])

    found = []
    for op in OPERATORS:
        if op == "relax.concat":
            calls = [is_op(op)(is_tuple([wildcard() for _ in range(n)])) for n in range(2, MAX_CONCAT + 1)]
        elif op.startswith("relax.nn.conv"):
            # Weights are constants, or constants that are dequantized; the pattern takes these in, before the one of relax.dequantize does.
            real = is_op("relax.dequantize")(is_const(), is_const(), is_const())
            calls = [is_op(op)(wildcard(), is_const()), is_op(op)(wildcard(), real)]
        else:
            calls = [is_op(op)(*(wildcard() for _ in range(tvm.ir.Op.get(op).num_inputs)))]
        found += [(op.startswith("relax.nn.conv"), FusionPattern(f"{name}.{op.rpartition('.')[2]}", call, {"call": call}, check)) for call in calls]
    return [p for _, p in sorted(found, key=lambda f: not f[0])]


def _onnx_of(function):
    """The ONNX model of a partition: the same bytes for the same function."""
    return _Translation(function).graph.model(OPSET)


class _Translation:
    """A Relax function as an ONNX graph."""

    def __init__(self, function):
        self.graph = _onnx.Graph("partition")
        parameters = [self.graph.input(f"x{i}", _dtype(p), _shape(p)) for i, p in enumerate(function.params)]
        result = self._function(function, parameters)
        for name_, expr in zip(*self._fields(result, function.body.ty)):
            self.graph.output(name_, str(expr.dtype), [int(d) for d in expr.shape])

    @staticmethod
    def _fields(result, ty):
        return (result, list(ty.fields)) if isinstance(ty, relax.TupleType) else ([result], [ty])

    def _function(self, function, args):
        values = dict(zip(function.params, args))
        body = function.body
        if isinstance(body, relax.SeqExpr):
            for block in body.blocks:
                for binding in block.bindings:
                    values[binding.var] = self._expr(binding.value, values)
            body = body.body
        return self._expr(body, values)

    def _expr(self, expr, values):
        if isinstance(expr, relax.Var):
            return values[expr]
        if isinstance(expr, GenericConst):
            return self.graph.constant(expr.value.numpy())
        if isinstance(expr, relax.Tuple):
            return [self._expr(f, values) for f in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._expr(expr.tuple_value, values)[expr.index]
        if isinstance(expr, relax.Function):
            return expr
        if isinstance(expr, relax.Call):
            if isinstance(expr.op, relax.Var):  # a composite function
                return self._function(values[expr.op], [self._expr(a, values) for a in expr.args])
            if getattr(expr.op, "name", None) in OPERATORS:
                args = [self._expr(a, values) if isinstance(a, (relax.Var, GenericConst, relax.Tuple)) else None for a in expr.args]
                return OPERATORS[expr.op.name](self.graph, expr, args)
        raise _Refused(f"{expr}: not one of {', '.join(OPERATORS)}: leave it to TVM")


class Partition:
    """A partition on the device.

    symbol: the name that TVM calls it by.
    onnx: the ONNX model that it became.
    model: the npuemu.Model on the device; model.operators says what became of it.
    runs: how often it ran; last: the npuemu.Result of the last time, with what the device counted.
    """

    def __init__(self, symbol, onnx, model):
        self.symbol, self.onnx, self.model = symbol, onnx, model
        self.runs, self.last = 0, None

    def __call__(self, *tensors):
        """What TVM calls: inputs, then the tensors that the results are written to."""
        n = len(self.model.inputs)
        result = self.model.run(*(t.numpy() for t in tensors[:n]))
        for tensor, array in zip(tensors[n:], result.outputs, strict=True):
            tensor.copyfrom(array)
        self.runs, self.last = self.runs + 1, result


_numbers = itertools.count()


class Backend:
    """The code generator relax.ext.NAME, for a device.

    device: an open npuemu.Device, which outlives what is built.
    name: of the code generator, and of its patterns: modules that others partitioned for NAME are taken too.
    fallback: True: a partition of which the device does not have all runs those operators on the host, and partitions[i].model.hosts
        names them. False: it is refused.
    """

    def __init__(self, device, name="npuemu", fallback=False):
        self.device, self.name, self.fallback = device, name, fallback
        self.partitions = []
        tvm.register_global_func(f"relax.ext.{name}", self._codegen, override=True)

    def partition(self, mod):
        """The module with a function for each partition."""
        mod = DecomposeOpsForInference()(mod)  # batch norm: the device has what it is made of
        mod = FuseOpsByPattern(patterns(self.name), bind_constants=True, annotate_codegen=False)(mod)
        mod = MergeCompositeFunctions()(mod)
        return self._unique(mod)

    def _unique(self, mod):
        """Gives partitions symbols of their own: functions that are called by name are the process's, and other modules use the names that TVM gives."""
        mod = mod.clone()
        for var, function in mod.functions_items():
            if function.attrs is not None and function.attrs.get("Codegen") == self.name:
                digest = hashlib.sha256(_onnx_of(function)).hexdigest()[:16]
                mod.update_func(var, function.with_attr("global_symbol", f"{self.name}_{digest}_{next(_numbers)}"))
        return mod

    def build(self, mod, target="llvm", **options):
        """Partitions a module, generates code and builds the rest with relax.build, whose options are these."""
        return relax.build(RunCodegen()(self.partition(mod)), target, **options)

    def save(self, file):
        """Writes all partitions to a file, for load in another process, beside the library that export_library writes there."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
            for p in self.partitions:
                z.writestr(p.symbol + ".onnx", p.onnx)

    def load(self, file):
        """Puts the partitions that save wrote on the device, so that a library which was exported with them can run."""
        with zipfile.ZipFile(file) as z:
            for entry in z.namelist():
                self._add(entry.removesuffix(".onnx"), z.read(entry))

    def _codegen(self, functions, _options, _names):
        for function in functions:
            self._add(str(function.attrs["global_symbol"]), _onnx_of(function))
        return []  # no module: the virtual machine finds the functions among the process's

    def _add(self, symbol, onnx):
        model = self.device.load(onnx, format="onnx")
        if model.hosts and not self.fallback:
            raise npuemu.Error(f"partition {symbol}: the device does not have {', '.join(model.hosts)}: leave these operators out of the patterns, or give Backend fallback=True")
        partition = Partition(symbol, onnx, model)
        self.partitions.append(partition)
        tvm.register_global_func(symbol, partition, override=True)
