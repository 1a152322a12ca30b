# SPDX-License-Identifier: Apache-2.0
"""ONNX's backend interface (onnx.backend.base), by which ONNX's own test runner can be pointed at the device.

    import npuemu.onnx_backend as backend
    backend.run_model(model, [x], fallback=False)
"""

import re

import numpy as np
import onnx
import onnx.backend.base
from onnx import numpy_helper

import npuemu

from ._hosts import refuse


class Prepared(onnx.backend.base.BackendRep):
    """A model for the device; result is that of the last run, with counters, operators and hosts."""

    def __init__(self, model, device, fallback):
        self.model, self.device, self.fallback, self.result = model, device, fallback, None
        constants = {t.name for t in model.graph.initializer}
        self.names = [v.name for v in model.graph.input if v.name not in constants]
        self.loaded = {}

    def run(self, inputs, **kwargs):
        """The outputs, named by position or name, for a list of arrays, one array, or a dict by name.

        What the compiler needs as a constant (shapes, axes) becomes one, with the value that is given here.
        """
        if isinstance(inputs, dict):
            feed = dict(inputs)
        else:
            inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            feed = dict(zip(self.names, inputs))
        if len(feed) < len(self.names):
            raise npuemu.Error(f"{len(feed)} inputs, the model has {len(self.names)}: {', '.join(self.names)}")
        feed = {n: np.asarray(x) for n, x in feed.items()}
        frozen = set()
        while True:
            try:
                model = self._load(feed, frozen)
                break
            except npuemu.Error as e:
                m = re.search(r'tensor "([^"]*)": must be a constant', str(e))
                if not m or m[1] not in feed or m[1] in frozen:
                    raise
                frozen.add(m[1])
        self.result = model.run({n: x for n, x in feed.items() if n not in frozen})
        names = [v.name for v in self.model.graph.output]
        return onnx.backend.base.namedtupledict("Outputs", names)(*self.result.outputs)

    def _load(self, feed, frozen):
        key = tuple((n, feed[n].shape, feed[n].tobytes() if n in frozen else None) for n in self.names)
        if key not in self.loaded:
            m = self.model
            if frozen:
                m = onnx.ModelProto()
                m.CopyFrom(self.model)
                kept = [v for v in m.graph.input if v.name not in frozen]
                del m.graph.input[:]
                m.graph.input.extend(kept)
                m.graph.initializer.extend(numpy_helper.from_array(feed[n], n) for n in sorted(frozen))
            shapes = {n: list(feed[n].shape) for n in self.names if n not in frozen}
            loaded = self.device.load(m.SerializeToString(), format="onnx", shapes=shapes)
            if not self.fallback:
                refuse(loaded, "fallback=True runs it on the host, and says so")
            self.loaded = {key: loaded}
        return self.loaded[key]


class Backend(onnx.backend.base.Backend):
    """The interface has names for CPU and CUDA only: CPU is a card in this process, NPU is the same."""

    _card = None

    @classmethod
    def prepare(cls, model, device="CPU", *, card=None, fallback=False, **kwargs):
        """card is an open npuemu.Device; without it, one in process is opened once."""
        if not cls.supports_device(device):
            raise npuemu.Error(f"device {device!r} is none of CPU and NPU")
        if card is None:
            Backend._card = card = Backend._card or npuemu.Device()
        return Prepared(model, card, fallback)

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, *, opset_version=20, **kwargs):
        """Runs one node of that opset; types of the outputs are inferred, or outputs_info's."""
        inputs = [np.asarray(x) for x in inputs]
        value = lambda n, t, s: onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(t)), s)  # noqa: E731
        given = [n for n in node.input if n]
        if outputs_info:
            outputs = [value(n, t, s) for n, (t, s) in zip(node.output, outputs_info)]
        else:
            outputs = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = onnx.helper.make_graph([node], node.op_type, [value(n, x.dtype, x.shape) for n, x in zip(given, inputs)], outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset_version)])
        return cls.run_model(onnx.shape_inference.infer_shapes(model), inputs, device, **kwargs)

    @classmethod
    def supports_device(cls, device):
        return device.split(":")[0] in ("CPU", "NPU")


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
