# SPDX-License-Identifier: Apache-2.0
"""Models on a virtual NPU, in this process.

    import npuemu, numpy
    with npuemu.Device() as dev:
        m = dev.load("model.onnx")
        r = m.run(numpy.zeros(m.inputs[0].shape, m.inputs[0].dtype))
        assert r.hosts == [] and r.counters["macs"] > 0

docs/python.md is the manual.
"""

from ._device import Device, Model, Result, compile
from ._lib import Error, library as _library
from ._tensor import Tensor

__all__ = ["Device", "Error", "Model", "Result", "Tensor", "compile", "version"]


def version() -> str:
    """The version of the library."""
    text: bytes = _library().npuemu_version()
    return text.decode()
