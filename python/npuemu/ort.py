# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's session, on the virtual NPU: what is written for onnxruntime.InferenceSession runs with this one.

    from npuemu.ort import InferenceSession
    s = InferenceSession("model.onnx")
    y, = s.run(None, {"x": x})
    s.report.hosts        # []: every operator ran on the device

docs/pytorch.md says what is the same and what is not.
"""

import collections
import dataclasses
import os
import threading

import numpy as np
import onnx

import npuemu

from ._hosts import refuse

NAME = "NpuemuExecutionProvider"

# Operators of the host are refused unless this provider is named behind NAME, as ONNX Runtime would need it.
HOST = "CPUExecutionProvider"

# So many sets of shapes stay compiled.
MAX_PROGRAMS = 16


@dataclasses.dataclass(frozen=True)
class NodeArg:
    """An input or output: dimensions of shape are numbers, names, or None if the model leaves them open."""

    name: str
    type: str
    shape: list


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict


def get_available_providers():
    return [NAME]


class InferenceSession:
    """A model on the device. path_or_bytes is an ONNX file, or its content.

    providers is [NAME], and HOST behind it if operators may run on the host. An option of NAME is target, config
    or time, as of npuemu.Device, or device, an open one. sess_options tune ONNX Runtime, and mean nothing here.
    report is the result of the last run, with counters, operators and hosts.
    """

    def __init__(self, path_or_bytes, sess_options=None, providers=None, provider_options=None):
        self._providers, self._options = _providers(providers, provider_options)
        if isinstance(path_or_bytes, (str, os.PathLike)):
            self._source, self._format = os.fspath(path_or_bytes), None
            try:
                model = onnx.load(self._source, load_external_data=False)
            except OSError as e:
                raise npuemu.Error(f"{self._source}: {e.strerror}") from e
            except Exception as e:
                raise npuemu.Error(f"{self._source} is no ONNX model: {e}") from e
        else:
            self._source, self._format = bytes(path_or_bytes), "onnx"
            try:
                model = onnx.load_from_string(self._source)
            except Exception as e:
                raise npuemu.Error(f"the bytes are no ONNX model: {e}") from e
        constants = {t.name for t in model.graph.initializer}
        self._inputs = [_arg(v) for v in model.graph.input if v.name not in constants]
        self._outputs = [_arg(v) for v in model.graph.output]
        self._meta = ModelMetadata(
            model.producer_name, model.graph.name, model.domain, model.doc_string, model.graph.doc_string,
            model.model_version, {p.key: p.value for p in model.metadata_props},
        )
        self._lock = threading.Lock()
        self._programs = collections.OrderedDict()
        self._own = None
        if "device" in self._options:
            self._device = self._options["device"]
        else:
            self._own = self._device = npuemu.Device(**self._options)
        self.report = None
        if all(isinstance(d, int) for a in self._inputs for d in a.shape):
            self._program({a.name: tuple(a.shape) for a in self._inputs})  # errors of the model belong here

    def get_inputs(self):
        return list(self._inputs)

    def get_outputs(self):
        return list(self._outputs)

    def get_providers(self):
        return list(self._providers)

    def get_provider_options(self):
        return {p: {k: str(v) for k, v in self._options.items()} if p == NAME else {} for p in self._providers}

    def get_modelmeta(self):
        return self._meta

    def run(self, output_names, input_feed, run_options=None):
        """The named outputs, or all, as a list of numpy arrays. A shape that is new compiles the model for it."""
        del run_options
        known = [a.name for a in self._outputs]
        for name in output_names or ():
            if name not in known:
                raise npuemu.Error(f"Invalid output name: {name}; the model has {', '.join(known)}")
        feed = self._feed(input_feed)
        with self._lock:
            model = self._program({n: x.shape for n, x in feed.items()})
            r = self.report = model.run(feed)
        outputs = dict(zip(known, r.outputs))
        return [outputs[n] for n in output_names or known]

    def close(self):
        """Closes the device, if the session opened it."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _feed(self, feed):
        missing = [a.name for a in self._inputs if feed.get(a.name) is None]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(feed)}).")
        if unknown := sorted(feed.keys() - {a.name for a in self._inputs}):
            raise npuemu.Error(f"Invalid input name: {unknown[0]}; the model has {', '.join(a.name for a in self._inputs)}")
        arrays = {}
        for a in self._inputs:
            x = np.asarray(feed[a.name])
            if _name(x.dtype) != a.type:
                raise npuemu.Error(f"Unexpected input data type. Actual: ({_name(x.dtype)}), expected: ({a.type}) for {a.name}")
            if len(x.shape) != len(a.shape):
                raise npuemu.Error(f"Invalid rank for input: {a.name} Got: {len(x.shape)} Expected: {len(a.shape)}")
            for i, (d, want) in enumerate(zip(x.shape, a.shape)):
                if isinstance(want, int) and d != want:
                    raise npuemu.Error(f"Got invalid dimensions for input: {a.name} for index {i}: Got: {d} Expected: {want}")
            arrays[a.name] = x
        return arrays

    def _program(self, shapes):
        key = tuple(sorted(shapes.items()))
        model = self._programs.pop(key, None)
        if model is None:
            model = self._device.load(self._source, format=self._format, shapes={n: list(s) for n, s in shapes.items()})
            if HOST not in self._providers:
                refuse(model, f"name {HOST} behind {NAME} to let the host run it")
        self._programs[key] = model
        if len(self._programs) > MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return model


def _providers(providers, options):
    """The names of providers, and the options of NAME."""
    names, chosen = [], {}
    providers = [NAME] if providers is None else list(providers)
    options = list(options) if options is not None else [{}] * len(providers)
    if len(options) != len(providers):
        raise ValueError(f"{len(providers)} providers and {len(options)} provider_options")
    for p, o in zip(providers, options):
        if isinstance(p, tuple):
            p, o = p
        if p == NAME:
            chosen = dict(o)
        elif p != HOST:
            raise ValueError(f"provider {p!r} is none of {NAME} and {HOST}")
        names.append(p)
    if names[:1] != [NAME]:
        raise ValueError(f"providers {names}: {NAME} is the first; onnxruntime itself has the others")
    known = {"target", "config", "time", "device"}
    if unknown := sorted(chosen.keys() - known):
        raise ValueError(f"option {unknown[0]!r} of {NAME} is none of {', '.join(sorted(known))}")
    if "device" in chosen and len(chosen) > 1:
        raise ValueError("option 'device' is an open device: target, config and time are its own")
    return names, chosen


def _arg(v):
    t = v.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in t.shape.dim]
    return NodeArg(v.name, _TYPES.get(t.elem_type, f"tensor({onnx.TensorProto.DataType.Name(t.elem_type).lower()})"), shape)


_TYPES = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.DOUBLE: "tensor(double)"}


def _name(dtype):
    return {"float32": "tensor(float)", "float64": "tensor(double)"}.get(dtype.name, f"tensor({dtype.name})")
