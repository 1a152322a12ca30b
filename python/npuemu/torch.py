# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the virtual NPU: the backend "npuemu" of torch.compile, and export.

    compiled = torch.compile(model.eval(), backend="npuemu")
    with torch.no_grad():
        y = compiled(x)
    npuemu.torch.last_report().hosts        # []: every operator ran on the device

A graph goes through torch.export and PyTorch's own ONNX exporter into the compiler, with parameters and
buffers as constants, once for each set of shapes. What the device cannot do is refused, unless
options={"fallback": True}. docs/pytorch.md is the manual.
"""

import collections
import contextlib
import dataclasses
import importlib.metadata
import logging
import re
import threading
import warnings

import torch

import npuemu

from ._hosts import refuse

OPSET = 20  # Gelu and LayerNormalization are operators of it; attention, one from 23 on, stays products and a softmax

# What a tensor may be made of; the compiler then says which operators the device has of it.
DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.bool,
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8,
)

PRODUCTS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# A table of up to so many rows is read by a product, one of more by Gather; see _embedding.
MAX_ROWS = 4096

# So many sets of shapes of a graph stay compiled.
MAX_PROGRAMS = 16


@dataclasses.dataclass(frozen=True)
class Report:
    """What one run of one graph was."""

    counters: dict  # what the device counted, {} if nothing ran there
    operators: list  # one dict for each: name, op, engine, cycles, bytes, device
    hosts: list  # names of what did not run on the device: operators of the compiled model, or of a graph that ran eagerly
    reason: str | None = None  # why the graph ran eagerly
    graph_break: str | None = None  # why the graph ends where it does, if Python goes on there


_lock = threading.Lock()
_devices = {}
_last = None


def last_report():
    """The Report of the last graph that ran in this process, or None."""
    return _last


def backend(gm, example_inputs, *, options=None, mode=None):
    """The backend for torch.compile. Options:

    target, config, time   as of npuemu.Device, one of which is opened for each combination
    device                 an open npuemu.Device instead
    dtype                  "fp32", or "bf16" or "fp16" for products of that type, as torch.autocast makes them
    fallback               True: what the device cannot do runs on the host, and the report names it
    reports                an object whose append gets the Report of each run
    """
    options = dict(options or {})
    if mode not in (None, "default"):
        raise npuemu.Error(f"mode {mode!r}: the backend has no modes; use options")
    known = {"target", "config", "time", "device", "dtype", "fallback", "reports"}
    if unknown := sorted(set(options) - known):
        raise npuemu.Error(f"option {unknown[0]!r} is none of the backend's: {', '.join(sorted(known))}")
    if "device" in options and options.keys() & {"target", "config", "time"}:
        raise npuemu.Error("option 'device' is an open device: target, config and time are its own")
    _products(options.get("dtype", "fp32"))
    # What Dynamo marks is an attribute of a module: a parameter or a buffer.
    static = [isinstance(x, torch.nn.Parameter) or hasattr(x, "_dynamo_static_input_type") for x in example_inputs]
    return _Graph(gm, static, options)


def export(model, args, kwargs=None, *, dtype="fp32", output=None, **options):
    """The compiled model (.npu) of a torch.nn.Module, or of what torch.export.export returned, as bytes.

    output and options are those of npuemu.compile. Of an ExportedProgram, args and kwargs are not used.
    """
    return npuemu.compile(to_onnx(model, args, kwargs, dtype=dtype), output, format="onnx", **options)


def to_onnx(model, args=(), kwargs=None, *, dtype="fp32"):
    """The ONNX model that export compiles, as bytes."""
    products = _products(dtype)
    if isinstance(model, torch.export.ExportedProgram):
        if products is not None:
            raise npuemu.Error(f"dtype {dtype!r}: an exported program has the types that it was exported with; export it under torch.autocast")
        return _onnx(model)
    if model.training:
        raise _refusal("the model is in training mode; call model.eval()")
    _check([*model.parameters(), *model.buffers(), *torch.utils._pytree.tree_leaves((args, kwargs))])
    return _onnx(_exported(model, args, kwargs, products))


class _Graph:
    """A graph of Dynamo's, compiled when it is called first with inputs of some shapes."""

    def __init__(self, gm, static, options):
        self.gm, self.static, self.options = gm, static, options
        reason = getattr(gm, "compile_subgraph_reason", None)
        self.graph_break = " ".join(reason.reason.split("Hint:")[0].split()) if reason is not None and reason.graph_break else None
        self.programs = collections.OrderedDict()

    def __call__(self, *args):
        with _lock:
            return self._call(args)

    def _call(self, args):
        try:
            if self.graph_break and not self.options.get("fallback"):
                raise _refusal(f"the graph breaks, and Python goes on behind it: {self.graph_break}")
            out, report = self._device(args)
        except npuemu.Error as e:
            if e.kind != "model":  # a card that is not there, or fails, is no reason to do without
                raise
            if not self.options.get("fallback"):
                raise _refusal(f"{e} (options={{\"fallback\": True}} runs it on the host, and says so)") from e
            out = self.gm(*args)
            report = Report({}, [], _names(self.gm), reason=str(e), graph_break=self.graph_break)
        self._note(report)
        return out

    def _note(self, report):
        global _last
        _last = report
        if (reports := self.options.get("reports")) is not None:
            reports.append(report)

    def _device(self, args):
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        _check(tensors)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            raise _refusal("gradients are asked for, and the device computes none: call the model under torch.no_grad(), or model.requires_grad_(False)")
        products = PRODUCTS[self.options.get("dtype", "fp32")]
        if torch.is_autocast_enabled("cpu"):
            products = torch.get_autocast_dtype("cpu")
        constants = {i: a for i, a in enumerate(args) if self.static[i] or not isinstance(a, torch.Tensor)}
        inputs = [a for i, a in enumerate(args) if i not in constants]
        key = (products, *((t.dtype, t.shape) for t in inputs), *((type(a), a) for a in constants.values() if not isinstance(a, torch.Tensor)))
        stamp = [(a.data_ptr(), _version(a)) for a in constants.values() if isinstance(a, torch.Tensor)]
        p = self.programs.pop(key, None)
        if p is None or p.stamp != stamp:  # a parameter was written to since
            p = _Program(self.gm, inputs, constants, stamp, products, self.options)
        self.programs[key] = p
        if len(self.programs) > MAX_PROGRAMS:
            self.programs.popitem(last=False)
        out, r = p.run(inputs)
        return out, Report(r.counters, r.operators, r.hosts, graph_break=self.graph_break)


class _Program:
    """A graph compiled for one set of shapes, loaded into a device."""

    def __init__(self, gm, inputs, constants, stamp, products, options):
        self.stamp = stamp
        device = options.get("device") or _device(options)
        self.others = None
        ep = _exported(_Frozen(gm, constants, self._note, options.get("dtype", "fp32") != "fp32"), inputs, None, products)
        self.rows = _embedded(ep)
        self.model = device.load(_onnx(ep), format="onnx")
        if not options.get("fallback"):
            refuse(self.model, "replace it in the model")

    def _note(self, outputs):
        self.others = [_TENSOR if isinstance(o, torch.Tensor) else o for o in outputs]

    def run(self, inputs):
        for i, rows in self.rows.items():
            if inputs[i].numel() and not (0 <= int(inputs[i].min()) and int(inputs[i].max()) < rows):
                raise IndexError(f"an index of an embedding is {int(inputs[i].min())} to {int(inputs[i].max())}, its table has {rows} rows")
        r = self.model.run(*map(_array, inputs))
        tensors = iter(r.outputs)
        return [_tensor(next(tensors)) if o is _TENSOR else o for o in self.others], r


_TENSOR = object()


class _Frozen(torch.nn.Module):
    """A graph whose constants are its own; note is called with its outputs, of which tensors become the module's."""

    def __init__(self, gm, constants, note, reduced):
        super().__init__()
        self.gm, self.note, self.reduced = gm, note, reduced
        self.count = sum(n.op == "placeholder" for n in gm.graph.nodes)
        self.plain, self.names = {}, {}
        placeholders = [n.name for n in gm.graph.nodes if n.op == "placeholder"]
        for i, a in constants.items():
            if isinstance(a, torch.Tensor):
                self.names[i] = placeholders[i]
                self.register_buffer(placeholders[i], a.detach())
            else:
                self.plain[i] = a

    def forward(self, *inputs):
        given = iter(inputs)
        args = [getattr(self, self.names[i]) if i in self.names else self.plain[i] if i in self.plain else next(given) for i in range(self.count)]
        out = self.gm(*args)
        self.note(out)
        tensors = [o for o in out if isinstance(o, torch.Tensor)]
        if self.reduced:  # what is behind the graph expects the type that the model has
            tensors = [o.float() if o.dtype in (torch.bfloat16, torch.float16) else o for o in tensors]
        return tensors


class _Autocast(torch.nn.Module):
    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, *args, **kwargs):
        with torch.autocast("cpu", self.dtype):
            return self.model(*args, **kwargs)


def _exported(module, args, kwargs, products):
    """The module as an ExportedProgram in which products have a type of their own unless that is None."""
    if products is not None:
        module = _Autocast(module, products)
    with _quiet(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        try:
            return torch.export.export(module.eval(), tuple(args), kwargs, strict=False)
        except Exception as e:
            raise _refusal(f"torch.export: {_first(e)}") from e


def _onnx(ep):
    """The ONNX model of an ExportedProgram, as bytes; errors name the operator of ATen."""
    for n in ep.graph.nodes:
        _inference(n)
    with _quiet(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        if any(map(_decomposes, ep.graph.nodes)):  # which takes as long as the rest
            ep = ep.run_decompositions({o: d or torch.export.default_decompositions()[o] for o, d in _DECOMPOSITIONS.items()})
        written = [*ep.graph_signature.buffers_to_mutate.values(), *ep.graph_signature.user_inputs_to_mutate.values()]
        if written:
            raise _refusal(f"the graph writes to {', '.join(sorted(written))} in place; return the new value instead")
        try:
            program = torch.onnx.export(ep, dynamo=True, opset_version=OPSET, verbose=False)
        except torch.onnx.OnnxExporterError as e:
            raise _refusal(_untranslated(e)) from e
    return program.model_proto.SerializeToString()


def _inference(n):
    """Refuses what only training does, and types that the device and ONNX's tensors of it do not have."""
    if isinstance(n.target, torch._ops.OpOverload):
        for a, v in zip(n.target._schema.arguments, n.args):
            if a.name in ("train", "training") and v is True:
                raise _refusal(f"{n.target} ({n.name}) is in training mode; call model.eval()")
    for v in torch.utils._pytree.tree_leaves(n.meta.get("val")):
        if isinstance(v, torch.Tensor) and v.dtype not in DTYPES:
            raise _refusal(f"{n.target} ({n.name}) has the type {v.dtype}, which the device does not; it has {_dtypes()}")


def _decomposes(n):
    """Whether a node is one of _DECOMPOSITIONS, or one whose effects run_decompositions makes visible."""
    if isinstance(n.target, torch._ops.OpOverload):
        return n.target in _DECOMPOSITIONS or n.target._schema.is_mutable
    return isinstance(n.target, torch._ops.HigherOrderOperator)


def _embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """aten.embedding, as a product with ones where the index is, for tables of few rows."""
    if weight.shape[0] > MAX_ROWS or not weight.is_floating_point():
        return NotImplemented
    rows = torch.arange(weight.shape[0], dtype=torch.int32)
    hit = indices.to(torch.int32).unsqueeze(-1) == rows
    return hit.to(weight.dtype) @ weight


# Operators whose counterpart in ONNX is none of the compiler's; None is torch.export's own decomposition.
_DECOMPOSITIONS = {torch.ops.aten.embedding.default: _embedding, torch.ops.aten.einsum.default: None}


def _embedded(ep):
    """The inputs, by number, that are indexes of embeddings, with the rows of the smallest table."""
    rows = {}

    def walk(module, inputs):  # inputs: numbers by node
        for n in module.graph.nodes:
            if n.target is torch.ops.aten.embedding.default and n.args[1] in inputs:
                i, size = inputs[n.args[1]], n.args[0].meta["val"].shape[0]
                rows[i] = min(size, rows.get(i, size))
            elif isinstance(n.target, torch._ops.HigherOrderOperator):  # a region of autocast, say
                at = next((k for k, a in enumerate(n.args) if isinstance(a, torch.fx.Node) and a.op == "get_attr"), None)
                if at is not None:
                    inner = module.get_submodule(n.args[at].target)
                    given = zip((m for m in inner.graph.nodes if m.op == "placeholder"), n.args[at + 1 :])
                    walk(inner, {m: inputs[a] for m, a in given if a in inputs})

    names = {name: i for i, name in enumerate(ep.graph_signature.user_inputs)}
    walk(ep.graph_module, {n: names[n.name] for n in ep.graph.nodes if n.op == "placeholder" and n.name in names})
    return rows


def _check(tensors):
    for t in tensors:
        if not isinstance(t, torch.Tensor):
            continue
        if t.device.type != "cpu" or t.layout != torch.strided or t.is_quantized:
            raise _refusal(f"a tensor of {t.layout} on {t.device}: the backend takes dense ones on the cpu")
        if t.dtype not in DTYPES:
            raise _refusal(f"a tensor of type {t.dtype} and shape {list(t.shape)}: the device does not have it; it has {_dtypes()}")


def _array(t):
    """A tensor's elements for Model.run; bfloat16, which numpy does not have, as uint16."""
    t = t.detach().contiguous()
    return (t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy()


def _tensor(a):
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(a)


def _refusal(text):
    return npuemu.Error(text, "model")


def _dtypes():
    return ", ".join(str(d).removeprefix("torch.") for d in DTYPES)


def _products(dtype):
    if dtype not in PRODUCTS:
        raise npuemu.Error(f"dtype {dtype!r} is none of {', '.join(PRODUCTS)}; for int8 quantize the model (docs/pytorch.md)")
    return PRODUCTS[dtype]


def _device(options):
    key = options.get("target", "in-process"), options.get("config"), options.get("time", "fast")
    if key not in _devices:
        _devices[key] = npuemu.Device(target=key[0], config=key[1], time=key[2])
    return _devices[key]


def _version(t):
    return None if t.is_inference() else t._version


def _names(gm):
    """What a graph calls, as people write it."""
    names = []
    for n in gm.graph.nodes:
        if n.op == "call_function":
            names.append(torch.fx.node._get_qualified_name(n.target))
        elif n.op in ("call_method", "call_module"):
            names.append(str(n.target))
    return sorted(set(names))


def _first(e):
    return str(e).strip().split("\n")[0] or type(e).__name__


def _untranslated(e):
    cause = e
    while cause is not None:
        if m := re.search(r"No ONNX function found for <OpOverload\(op='([^']*)', overload='([^']*)'\)>", str(cause)):
            return f"{m[1]}.{m[2]}: PyTorch's ONNX exporter has no operator for it; replace it in the model"
        if cause.__cause__ is None:
            return f"torch.onnx: {_first(cause)}"
        cause = cause.__cause__


@contextlib.contextmanager
def _quiet():
    """The exporters' progress and advice say nothing about the model."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [g.level for g in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for g in loggers:
            g.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for g, level in zip(loggers, levels):
                g.setLevel(level)


# An installed package is found by its entry point, which must not be registered twice.
if not any(e.name == "npuemu" for e in importlib.metadata.entry_points(group="torch_dynamo_backends")):
    torch._dynamo.register_backend(backend, name="npuemu")
