# SPDX-License-Identifier: Apache-2.0
"""Devices, models and runs."""

from __future__ import annotations

import ctypes
import json
import math
import os
import tempfile
import weakref
from ctypes import byref, c_uint32, c_uint64, c_void_p, sizeof
from typing import Any, Callable, Mapping, Sequence

from . import _lib
from ._lib import Error
from ._tensor import Output, Tensor, give, info

Progress = Callable[[int, int], Any]
"""Called with (done, total) steps, about 20 times a second; total is 0 if nobody knows. What it raises cancels the call."""


class _Cancel:
    """The progress function of a call, and a way to cancel it."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.stop = False
        self.raised: BaseException | None = None
        self.function = _lib.PROGRESS(self._tick)

    def _tick(self, _user: Any, done: int, total: int) -> int:
        if self.progress is not None and not self.stop:
            try:
                self.progress(done, total)
            except BaseException as e:
                self.raised = e
                self.stop = True
        return int(self.stop)

    def cancel(self) -> None:
        self.stop = True

    def call(self, function: Callable[..., int], *args: Any) -> None:
        try:
            _lib.call(function, *args, cancel=self.cancel)
        except Error as e:
            if self.raised is not None and e.kind == "canceled":
                raise self.raised from None
            raise


def _milliseconds(timeout: float | None) -> int:
    if timeout is None:
        return 0
    if not timeout > 0 or math.isinf(timeout):
        raise Error(f"timeout {timeout}: use seconds above 0, or None")
    return max(1, min(int(timeout * 1000), 1 << 40))


def _encode(name: str, value: Any) -> bytes | None:
    if value is None:
        return None
    b = os.fsencode(value) if isinstance(value, (str, os.PathLike)) else b"\0"
    if b"\0" in b:
        raise Error(f"{name} {value!r}: use text without a 0, or a path")
    return b


def _read_config(config: str | os.PathLike[str] | None) -> bytes | None:
    if config is None:
        return None
    try:
        with open(config, "rb") as f:
            text = f.read()
    except (OSError, TypeError, ValueError) as e:
        raise Error(f"config {config!r}: {e}: give the path of a TOML file as npuemu serve takes it", "file") from None
    if b"\0" in text:
        raise Error(f"config {config!r} is not text", "config")
    return text


def _content(name: str, value: Any) -> tuple[Any, int, Any]:
    """The address and size of bytes, and what keeps them."""
    data = bytes(value)
    return ctypes.cast(ctypes.c_char_p(data), c_void_p), len(data), data


def _source(
    model: Any,
    format: str | None,
    dims: Mapping[str, int] | None,
    shapes: Mapping[str, Sequence[int]] | None,
    dtype: str | None,
    timeout: float | None,
    cancel: _Cancel,
) -> _lib.Load:
    """struct npuemu_load, which keeps what it points to."""
    o = _lib.Load(size=sizeof(_lib.Load), timeout_ms=_milliseconds(timeout), progress=cancel.function)
    keep: list[Any] = []
    weights = None
    if isinstance(model, (tuple, list)):
        if len(model) != 2:
            raise Error(f"a model of {len(model)} parts: a Caffe network is the pair of prototxt and caffemodel")
        model, weights = model
        format = format or "caffe"
    if hasattr(model, "SerializeToString"):  # an onnx.ModelProto
        model, format = model.SerializeToString(), format or "onnx"
    if isinstance(model, (bytes, bytearray, memoryview)):
        if format is None:
            raise Error('a model in memory needs format="onnx", "tflite", "caffe", "npuir" or "npu"')
        if len(model) == 0:
            raise Error("the model is empty", "model")
        o.data, o.data_size, data = _content("model", model)
        keep.append(data)
    elif isinstance(model, (str, os.PathLike)):
        o.path = _encode("model", model)
    else:
        raise Error(f"model is a {type(model).__name__}: give a path, or bytes with a format")
    if isinstance(weights, (bytes, bytearray, memoryview)):
        o.weights, o.weights_size, data = _content("weights", weights)
        keep.append(data)
    elif weights is not None:
        o.weights_path = _encode("weights", weights)
    o.keep = (keep, cancel)  # as long as somebody has o
    o.format = _encode("format", format)
    options: dict[str, Any] = {}
    try:
        if dims:
            options["dims"] = {str(k): int(v) for k, v in dims.items()}
        if shapes:
            options["shapes"] = {str(k): [int(n) for n in v] for k, v in shapes.items()}
    except (TypeError, ValueError, AttributeError) as e:
        raise Error(f'dims and shapes: {e}: give {{"name": size}} and {{"name": sizes}}') from None
    if dtype is not None:
        options["float"] = str(dtype)
    if options:
        o.options = json.dumps(options).encode()
    return o


def compile(
    model: Any,
    output: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dtype: str | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Compiles a model and returns the content of an ``.npu`` file, which is also written to ``output`` if that is given.

    ``config`` is the path of a TOML file that describes the card, as ``npuemu serve --config`` takes it. The other
    arguments are those of :meth:`Device.load`. A file is written whole or not at all.
    """
    lib = _lib.library()
    cancel = _Cancel(progress)
    text = _read_config(config)
    o = _source(model, format, dims, shapes, dtype, timeout, cancel)
    p, size = c_void_p(), c_uint64()
    cancel.call(lib.npuemu_compile, text, byref(o), byref(p), byref(size))
    try:
        content = ctypes.string_at(p, size.value)
    finally:
        lib.npuemu_free(p)
    if output is not None:
        _write(output, content)
    return content


def _write(name: str | os.PathLike[str], content: bytes) -> None:
    try:
        name = os.fspath(name)
        if os.path.exists(name) and not os.path.isfile(name):  # a device or a FIFO is written to
            with open(name, "wb") as f:
                f.write(content)
            return
        name = os.path.realpath(name)
        fd, part = tempfile.mkstemp(prefix=os.path.basename(name) + ".", dir=os.path.dirname(name))
        try:
            with open(fd, "wb") as f:
                f.write(content)
                mask = os.umask(0)
                os.umask(mask)
                os.fchmod(f.fileno(), os.stat(name).st_mode & 0o777 if os.path.exists(name) else 0o666 & ~mask)
            os.replace(part, name)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as e:
        raise Error(f"output {name!r}: {e}", "file") from None


class _Handle:
    """Something of the library that has to be closed. A finalizer closes what nobody did."""

    def __init__(self, handle: int, close: Callable[[int], int]) -> None:
        self._handle = handle
        self._close = close
        self._finalizer = weakref.finalize(self, _lib.drop, close, handle)

    def close(self) -> None:
        """Closes it. Closing twice is allowed; a run in progress of a device that is closed ends with an Error."""
        if self._finalizer.detach():
            _lib.library()
            try:
                _lib.call(self._close, self._handle)
            except Error as e:
                if e.kind != "handle":  # a model that was closed with its device
                    raise

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: it is a card in use by this process; pickle the model's bytes (npuemu.compile)")


class Device(_Handle):
    """A card.

    target: ``"in-process"``, ``"vfio-user:SOCKET"`` of ``npuemu serve``, or ``"/dev/accel/accelN"``.
    config: path of a TOML file, as ``npuemu serve --config`` takes it; a card elsewhere has a configuration of its own, and
        models are compiled for this one.
    time: ``"fast"``, ``"timed"`` (counters have cycles), ``"paced"`` or ``"paced:FACTOR"``; in process.
    memory: most bytes of all models and tensors; only what is used is taken.
    timeout: seconds for the card to be there.
    trace: file for the instructions of the control processor, in process (docs/debugging.md).

    Devices and models may be used from several threads; a device does one thing at a time. They cannot be pickled, and
    do not survive a fork.
    """

    def __init__(
        self,
        target: str = "in-process",
        config: str | os.PathLike[str] | None = None,
        time: str = "fast",
        *,
        memory: int | None = None,
        timeout: float | None = None,
        trace: str | os.PathLike[str] | None = None,
    ) -> None:
        lib = _lib.library()
        o = _lib.Open(
            size=sizeof(_lib.Open),
            target=_encode("target", target),
            config=_read_config(config),
            time=_encode("time", time),
            cp_trace=_encode("trace", trace),
            memory=memory or 0,
            timeout_ms=_milliseconds(timeout),
        )
        handle = c_uint64()
        _lib.call(lib.npuemu_open, byref(o), byref(handle))
        super().__init__(handle.value, lib.npuemu_close)
        self.target = target

    def load(
        self,
        model: Any,
        format: str | None = None,
        *,
        dims: Mapping[str, int] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        dtype: str | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Compiles a model, unless it is compiled, and puts it on the card.

        model: the path of an ``.onnx``, ``.tflite``, ``.npuir`` or ``.npu`` file; the pair of a prototxt and a
            caffemodel; an ``onnx.ModelProto``; or bytes with ``format`` ``"onnx"``, ``"tflite"``, ``"npuir"`` or ``"npu"``.
        dims, shapes: sizes of symbolic dimensions (ONNX), and shapes of inputs (ONNX, TensorFlow Lite), by name.
        dtype: ``"bf16"`` or ``"fp16"``: what products of fp32 are made of; results stay float32.
        timeout: seconds.

        Raises Error if the model is refused; it names the node, the rule and what to do.
        """
        lib = _lib.library()
        cancel = _Cancel(progress)
        o = _source(model, format, dims, shapes, dtype, timeout, cancel)
        handle = c_uint64()
        cancel.call(lib.npuemu_load, self._handle, byref(o), byref(handle))
        return Model(self, handle.value)

    @property
    def counters(self) -> dict[str, int]:
        """What the card counted since it was opened: programs, errors, instructions, macs, bytes_read, bytes_written, cycles."""
        c = _lib.Counters(size=sizeof(_lib.Counters))
        _lib.call(_lib.library().npuemu_device_counters, self._handle, byref(c))
        return {k: getattr(c, k) for k in _lib.DEVICE_COUNTERS}

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Rules that programs broke on a card in process: dicts with id, rule, count and last; empty elsewhere."""
        found: list[dict[str, Any]] = _lib.take_json(_lib.library().npuemu_findings, self._handle)
        return found

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"npuemu.Device({self.target!r})"


class Model(_Handle):
    """A model on a device; :meth:`Device.load` makes it."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    def __init__(self, device: Device, handle: int) -> None:
        lib = _lib.library()
        super().__init__(handle, lib.npuemu_unload)
        self.device = device  # which lives as long
        n = (c_uint32(), c_uint32())
        _lib.call(lib.npuemu_tensors, handle, byref(n[0]), byref(n[1]))
        self.inputs, self.outputs = (
            [self._tensor(f, i) for i in range(count.value)] for f, count in zip((lib.npuemu_input, lib.npuemu_output), n)
        )
        self._report: dict[str, Any] | None = None

    def _tensor(self, function: Callable[..., int], index: int) -> Tensor:
        t = _lib.TensorInfo(size=sizeof(_lib.TensorInfo))
        _lib.call(function, self._handle, index, byref(t))
        return info(t)

    def run(self, *inputs: Any, timeout: float | None = None, progress: Progress | None = None) -> Result:
        """Runs the model once: ``m.run(x, y)`` in the order of ``m.inputs``, or ``m.run({"x": x, "y": y})``.

        Inputs are numpy arrays of exactly the tensor's dtype and shape, or lists of such numbers; or bytes, bytearray or
        memoryview of as many bytes, dense and little-endian. Without numpy any object with the buffer protocol will
        do, and outputs are memoryviews.

        An interrupt (Ctrl-C), an exception of ``progress`` and a timeout, in seconds, end the run; the card is then
        opened again at its next use. Raises Error.
        """
        lib = _lib.library()
        values = self._order(inputs)
        given = [give("input", t, v) for t, v in zip(self.inputs, values)]
        outputs = [Output(t) for t in self.outputs]
        cancel = _Cancel(progress)
        o = _lib.Run(
            size=sizeof(_lib.Run),
            inputs=(_lib.Buffer * max(len(given), 1))(*[b for b, _ in given]),
            outputs=(_lib.Buffer * max(len(outputs), 1))(*[b.buffer for b in outputs]),
            input_count=len(given),
            output_count=len(outputs),
            progress=cancel.function,
            timeout_ms=_milliseconds(timeout),
        )
        p, size = c_void_p(), c_uint64()
        o.launches, o.launches_size = ctypes.pointer(p), ctypes.pointer(size)
        o.keep = (given, outputs, cancel, p, size)  # as long as somebody has o
        c = _lib.Counters(size=sizeof(_lib.Counters))
        try:
            cancel.call(lib.npuemu_run, self._handle, byref(o), byref(c))
            launches = ctypes.string_at(p, size.value)
        finally:
            lib.npuemu_free(p)
        _ = self.report  # results have it when the model is closed
        return Result(self, [b.value() for b in outputs], c, launches)

    __call__ = run

    def _order(self, inputs: tuple[Any, ...]) -> Sequence[Any]:
        names = [t.name for t in self.inputs]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            by_name = inputs[0]
            unknown = [n for n in by_name if n not in names]
            missing = [n for n in names if n not in by_name]
            if unknown or missing:
                raise Error(f"inputs {unknown} are not the model's, and {missing} are missing: it has {self._list(self.inputs)}", "buffer")
            return [by_name[n] for n in names]
        if len(inputs) != len(names):
            raise Error(f"{len(inputs)} inputs are given, the model has {len(names)}: {self._list(self.inputs)}", "buffer")
        return inputs

    @staticmethod
    def _list(tensors: Sequence[Tensor]) -> str:
        return ", ".join(map(str, tensors))

    @property
    def report(self) -> dict[str, Any]:
        """What the compiler made of the model: name, architecture, array, inputs and outputs with their quantization,
        programs, constant_bytes, activation_bytes, card_memory_bytes, cycles, operators (docs/python.md)."""
        if self._report is None:
            self._report = _lib.take_json(_lib.library().npuemu_report, self._handle)
        return self._report

    @property
    def operators(self) -> list[dict[str, Any]]:
        """The operators, in order: dicts with name, op, engine (matrix; vector; load, store; none; host), cycles (of the
        timing model, of the operator by itself), bytes (loaded and stored), device (bool), reason (of one on the host),
        within (the operator that it is computed with, and counted there), macs, bytes_loaded, bytes_stored, instructions
        (of the load, store, matrix and vector engine), and in those cycles utilization of the array, intensity (multiply-
        accumulates for each byte of device memory) and bound (what takes most of them)."""
        operators: list[dict[str, Any]] = self.report["operators"]
        return operators

    @property
    def hosts(self) -> list[str]:
        """Names of the operators that run on the host; ``[]``: nothing falls back."""
        return [o["name"] for o in self.operators if not o["device"]]

    def timeline(
        self,
        path: str | os.PathLike[str],
        *,
        limit: int | None = None,
        bus: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Writes when each engine does what, by the timing model, and what it waits for, to a JSON file that ui.perfetto.dev
        and chrome://tracing show (docs/spec/timing.md §13.10). It needs no run. A file is written whole or not at all.

        limit: instructions that are shown one by one (250000).
        bus: tensors are memory on the bus, as in a run here; otherwise device memory, as in the report.

        Returns how many instructions are in blocks because of the limit. Raises Error.
        """
        lib = _lib.library()
        if limit is not None and not 0 < limit < 1 << 64:
            raise Error(f"limit {limit}: use 1 or more")
        cancel = _Cancel(progress)
        bindings = 2 + len(self.inputs) + len(self.outputs)  # constants and the arena are the first two
        o = _lib.Timeline(
            size=sizeof(_lib.Timeline),
            path=_encode("path", path),
            limit=limit or 0,
            on_bus=(1 << bindings) - 1 if bus else 0,
            progress=cancel.function,
            timeout_ms=_milliseconds(timeout),
        )
        o.keep = cancel  # as long as somebody has o
        merged = c_uint64()
        cancel.call(lib.npuemu_timeline, self._handle, byref(o), byref(merged))
        return merged.value

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<npuemu.Model ({self._list(self.inputs)}) -> ({self._list(self.outputs)})>"


class Result:
    """What a run computed and counted.

    outputs: numpy arrays in the order of ``model.outputs``; ``result["name"]`` or ``result[0]`` is one of them.
    counters: what the card counted in this run: programs, errors, instructions, macs, bytes_read, bytes_written, cycles
        (model time; 0 in time ``"fast"``).
    device_seconds, host_seconds: time on the card and in operators on the host.
    launches, untimed: what the card said of each program.
    """

    outputs: list[Any]
    counters: dict[str, int]

    def __init__(self, model: Model, outputs: list[Any], c: _lib.Counters, launches: bytes) -> None:
        self._model = model
        self._launches: bytes | dict[str, Any] = launches  # text until somebody asks
        self.outputs = outputs
        self.counters = {k: getattr(c, k) for k in _lib.DEVICE_COUNTERS}
        self.device_seconds = c.device_ns * 1e-9
        self.host_seconds = c.host_ns * 1e-9

    def _said(self) -> dict[str, Any]:
        said = self._launches
        if isinstance(said, bytes):
            self._launches = said = dict(json.loads(said))
        return said

    @property
    def launches(self) -> list[dict[str, Any]]:
        """What the card said of each program that it ran, in their order: dicts with program (its number in the model), cycles
        (model time of the command) and, unless card or driver have none, profile: timed, began, cycles, instructions, macs,
        bytes_loaded, bytes_stored, bytes_device_memory, bytes_bus, and engines, a dict each with engine (load, store, matrix,
        vector), instructions, busy and stalls (cycles, by what it waited for). Without model time cycles are 0."""
        launches: list[dict[str, Any]] = self._said()["launches"]
        return launches

    @property
    def untimed(self) -> str | None:
        """Why the launches have no cycles, or None."""
        return self._said().get("untimed")

    @property
    def operators(self) -> list[dict[str, Any]]:
        """:attr:`Model.operators` of the model that ran."""
        return self._model.operators

    @property
    def hosts(self) -> list[str]:
        """Names of the operators that ran on the host; ``[]``: nothing fell back."""
        return self._model.hosts

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            names = [t.name for t in self._model.outputs]
            if key not in names:
                raise KeyError(f"no output {key!r}: the model has {names}")
            return self.outputs[names.index(key)]
        return self.outputs[key]

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        return f"<npuemu.Result of {len(self.outputs)} outputs, {self.counters['programs']} programs, {self.counters['macs']} macs>"
