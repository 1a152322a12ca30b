# SPDX-License-Identifier: Apache-2.0
"""libnpuemu by ctypes: structures, functions, errors. Nothing here needs numpy."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import threading
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any, Callable

ABI = (1, 2)  # what this file is written for

STATUS = {
    1: "argument",
    2: "handle",
    3: "file",
    4: "model",
    5: "config",
    6: "device",
    7: "buffer",
    8: "canceled",
    9: "timeout",
    10: "forked",
    11: "internal",
}

# enum npuemu_dtype: the type's name, and the bits of an element.
DTYPES = {
    1: ("int4", 4),
    2: ("uint4", 4),
    3: ("int8", 8),
    4: ("uint8", 8),
    5: ("int16", 16),
    6: ("uint16", 16),
    7: ("int32", 32),
    8: ("uint32", 32),
    9: ("int64", 64),
    10: ("uint64", 64),
    11: ("bool", 8),
    12: ("float16", 16),
    13: ("bfloat16", 16),
    14: ("float8e4m3", 8),
    15: ("float8e5m2", 8),
    16: ("float32", 32),
    17: ("float64", 64),
}


class Error(Exception):
    """What went wrong: the rule that was broken, and the remedy.

    ``kind`` is one of argument, handle, file, model, config, device, buffer, canceled, timeout, forked, internal
    (docs/python.md has a table), and library if libnpuemu itself cannot be used.
    """

    def __init__(self, message: str, kind: str = "argument") -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return Error, (str(self), self.kind)


PROGRESS = ctypes.CFUNCTYPE(c_int32, c_void_p, c_uint64, c_uint64)


class Open(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("reserved0", c_uint32),
        ("target", c_char_p),
        ("config", c_char_p),
        ("time", c_char_p),
        ("cp_trace", c_char_p),
        ("memory", c_uint64),
        ("timeout_ms", c_uint64),
        ("reserved", c_uint64 * 4),
    ]


class Load(Structure):
    keep: Any  # what the pointers are to

    _fields_ = [
        ("size", c_uint32),
        ("reserved0", c_uint32),
        ("path", c_char_p),
        ("format", c_char_p),
        ("data", c_void_p),
        ("data_size", c_uint64),
        ("weights_path", c_char_p),
        ("weights", c_void_p),
        ("weights_size", c_uint64),
        ("options", c_char_p),
        ("progress", PROGRESS),
        ("user", c_void_p),
        ("timeout_ms", c_uint64),
        ("reserved", c_uint64 * 4),
    ]


class TensorInfo(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("dtype", c_uint32),
        ("name", c_char * 512),
        ("bytes", c_uint64),
        ("rank", c_uint32),
        ("reserved0", c_uint32),
        ("shape", c_uint64 * 64),
        ("reserved", c_uint64 * 4),
    ]


class Buffer(Structure):
    _fields_ = [("data", c_void_p), ("size", c_uint64), ("dtype", c_uint32), ("reserved", c_uint32)]


class Run(Structure):
    keep: Any  # what the pointers are to

    _fields_ = [
        ("size", c_uint32),
        ("reserved0", c_uint32),
        ("inputs", POINTER(Buffer)),
        ("outputs", POINTER(Buffer)),
        ("input_count", c_uint32),
        ("output_count", c_uint32),
        ("progress", PROGRESS),
        ("user", c_void_p),
        ("timeout_ms", c_uint64),
        ("reserved", c_uint64 * 4),
        ("launches", POINTER(c_void_p)),
        ("launches_size", POINTER(c_uint64)),
    ]


class Timeline(Structure):
    keep: Any  # what the pointers are to

    _fields_ = [
        ("size", c_uint32),
        ("reserved0", c_uint32),
        ("path", c_char_p),
        ("limit", c_uint64),
        ("on_bus", c_uint64),
        ("progress", PROGRESS),
        ("user", c_void_p),
        ("timeout_ms", c_uint64),
        ("reserved", c_uint64 * 4),
    ]


class Counters(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("reserved0", c_uint32),
        ("programs", c_uint64),
        ("errors", c_uint64),
        ("instructions", c_uint64),
        ("macs", c_uint64),
        ("bytes_read", c_uint64),
        ("bytes_written", c_uint64),
        ("cycles", c_uint64),
        ("device_ns", c_uint64),
        ("host_ns", c_uint64),
        ("host_operators", c_uint64),
        ("reserved", c_uint64 * 4),
    ]


DEVICE_COUNTERS = ("programs", "errors", "instructions", "macs", "bytes_read", "bytes_written", "cycles")

_FUNCTIONS: dict[str, list[Any]] = {
    "npuemu_open": [POINTER(Open), POINTER(c_uint64)],
    "npuemu_close": [c_uint64],
    "npuemu_load": [c_uint64, POINTER(Load), POINTER(c_uint64)],
    "npuemu_unload": [c_uint64],
    "npuemu_compile": [c_char_p, POINTER(Load), POINTER(c_void_p), POINTER(c_uint64)],
    "npuemu_tensors": [c_uint64, POINTER(c_uint32), POINTER(c_uint32)],
    "npuemu_input": [c_uint64, c_uint32, POINTER(TensorInfo)],
    "npuemu_output": [c_uint64, c_uint32, POINTER(TensorInfo)],
    "npuemu_run": [c_uint64, POINTER(Run), POINTER(Counters)],
    "npuemu_device_counters": [c_uint64, POINTER(Counters)],
    "npuemu_report": [c_uint64, POINTER(c_void_p), POINTER(c_uint64)],
    "npuemu_timeline": [c_uint64, POINTER(Timeline), POINTER(c_uint64)],
    "npuemu_findings": [c_uint64, POINTER(c_void_p), POINTER(c_uint64)],
}

_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_forked = False


def _child() -> None:
    global _forked
    _forked = _library is not None


os.register_at_fork(after_in_child=_child)


def path() -> str:
    """The library's file: NPUEMU_LIB, or the one beside this package."""
    return os.environ.get("NPUEMU_LIB") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "libnpuemu.so")


def library() -> ctypes.CDLL:
    """The library, which is loaded once."""
    global _library
    if _forked:
        raise Error(
            "this process is the child of a fork, where the library does not work: import npuemu after the fork, "
            "or start processes with multiprocessing's method spawn",
            "forked",
        )
    with _lock:
        if _library is None:
            _library = _open(path())
        return _library


def _open(name: str) -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(name)
        abi = int(lib.npuemu_abi())
    except (OSError, AttributeError) as e:
        raise Error(f"{name}: {e}: install the wheel, or run make lib and set NPUEMU_LIB to build/libnpuemu.so", "library") from None
    if abi >> 16 != ABI[0] or abi & 0xFFFF < ABI[1]:
        raise Error(
            f"{name} has interface {abi >> 16}.{abi & 0xFFFF}, and this package needs {ABI[0]}.{ABI[1]}: use a library of the same release", "library"
        )
    lib.npuemu_version.restype = c_char_p
    lib.npuemu_error.restype = c_char_p
    lib.npuemu_free.argtypes, lib.npuemu_free.restype = [c_void_p], None
    for f, types in _FUNCTIONS.items():
        getattr(lib, f).argtypes, getattr(lib, f).restype = types, c_int32
    return lib


class _Worker:
    """A thread that makes the main thread's calls, which can wait for it and receive signals."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="npuemu", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.queue.get()()


_worker: _Worker | None = None


def call(function: Callable[..., int], *args: Any, cancel: Callable[[], None] | None = None) -> None:
    """Calls a function of the library, which releases the GIL; raises Error if it fails.

    In the main thread, where Python handles signals, an exception of a signal's handler (KeyboardInterrupt) calls
    cancel, if there is one, and is raised when the function has returned.
    """
    if cancel is None or threading.current_thread() is not threading.main_thread():
        status, text = _answer(function, args)
    else:
        status, text = _interruptible(function, args, cancel)
    if status:
        raise Error(text, STATUS.get(status, "internal"))


_thread = threading.local()


def _answer(function: Callable[..., int], args: tuple[Any, ...]) -> tuple[int, str]:
    """What a function of the library returns, and why it failed.

    Python runs finalizers between any two steps. One that fails, of a model whose device is closed, would replace the
    text of this thread's failure; so they wait.
    """
    outermost = not hasattr(_thread, "dropped")
    if outermost:
        _thread.dropped = []
    try:
        status = function(*args)
        return status, _text() if status else ""
    finally:
        if outermost:
            dropped = _thread.dropped
            del _thread.dropped
            for close, handle in dropped:
                close(handle)


def drop(close: Callable[[int], int], handle: int) -> None:
    """Closes what nobody has closed, for a finalizer; what comes of it nobody wants to know."""
    dropped = getattr(_thread, "dropped", None)
    if dropped is None:
        close(handle)
    else:
        dropped.append((close, handle))


def _text() -> str:
    text: bytes = library().npuemu_error()
    return text.decode("utf-8", "replace").removeprefix("npuemu: ")


def _interruptible(function: Callable[..., int], args: tuple[Any, ...], cancel: Callable[[], None]) -> tuple[int, str]:
    """Has the worker call function, and waits until it has returned, whatever the handlers of signals raise."""
    global _worker
    result = (0, "")
    begun = ended = False
    wake = threading.Lock()
    wake.acquire()

    def work() -> None:
        nonlocal result, begun, ended
        if begun:
            return
        begun = True
        try:
            result = _answer(function, args)
        finally:
            ended = True
            wake.release()

    raised: BaseException | None = None
    queued = False
    while True:
        # A handler runs, and raises, between any two steps: each is right when it is done again.
        try:
            if _worker is None:
                _worker = _Worker()
            if not queued:
                _worker.queue.put(work)
                queued = True
            while not ended:
                wake.acquire()
            break
        except BaseException as e:
            raised = raised or e
            cancel()
    if raised is not None:
        raise raised
    return result


def take_json(function: Callable[..., int], handle: int) -> Any:
    """What a function that returns JSON says."""
    p, size = c_void_p(), c_uint64()
    call(function, handle, byref(p), byref(size))
    try:
        return json.loads(ctypes.string_at(p, size.value))
    finally:
        library().npuemu_free(p)
