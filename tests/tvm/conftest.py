# SPDX-License-Identifier: Apache-2.0
"""One card in this process, and helpers that run a module on it and on TVM's own CPU target."""

import numpy as np
import pytest
import tvm
from tvm import relax

import npuemu
import npuemu.tvm


@pytest.fixture(scope="session")
def device():
    with npuemu.Device() as d:
        yield d


@pytest.fixture
def backend(device):
    return npuemu.tvm.Backend(device)


def execute(executable, *arrays):
    """The results of main, as numpy arrays."""
    out = relax.VirtualMachine(executable, tvm.cpu())["main"](*map(tvm.runtime.tensor, arrays))
    return [t.numpy() for t in out] if not isinstance(out, tvm.runtime.Tensor) else [out.numpy()]


def cpu(mod, *arrays):
    """What TVM computes without the device: the judge."""
    return execute(relax.build(mod, "llvm"), *arrays)


def function(inputs, make):
    """A module whose main computes make(bb, *inputs); inputs are arrays, and make emits operators."""
    bb = relax.BlockBuilder()
    variables = [relax.Var(f"x{i}", relax.TensorType(a.shape, str(a.dtype))) for i, a in enumerate(inputs)]
    with bb.function("main", variables):
        with bb.dataflow():
            out = bb.emit_output(make(bb, *variables))
        bb.emit_func_output(out)
    return bb.get()


def random(*shape, dtype="float32", seed=1):
    r = np.random.default_rng(seed)
    if np.issubdtype(np.dtype(dtype), np.integer):
        info = np.iinfo(dtype)
        return r.integers(info.min, info.max + 1, shape).astype(dtype)
    return r.standard_normal(shape).astype(dtype)
