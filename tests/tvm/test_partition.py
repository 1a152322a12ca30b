# SPDX-License-Identifier: Apache-2.0
"""What goes to the device and what stays with TVM; TVM's own example of an NPU with the card behind it."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tvm
import tvm.relax.backend.contrib.example_npu  # noqa: F401  registers patterns
from conftest import cpu, execute, function, random
from tvm import relax
from tvm.relax import op
from tvm.relax.backend.pattern_registry import get_patterns_with_prefix
from tvm.relax.transform import FuseOpsByPattern, MergeCompositeFunctions, RunCodegen

import npuemu
import npuemu.tvm

x = random(4, 16)
y = random(16, 8, seed=2)


def test_rest_stays_with_tvm(backend):
    """Two partitions around what is not translated, which TVM compiles."""
    mod = function((x, y), lambda bb, a, b: bb.emit(op.nn.relu(bb.emit(op.sin(bb.emit(op.matmul(a, b)))))))
    got = execute(backend.build(mod), x, y)
    assert [[o["op"] for o in p.model.operators if o["engine"] != "none"] for p in backend.partitions] in ([["gemm"], ["element"]], [["element"], ["gemm"]])
    assert sum(p.last.counters["macs"] for p in backend.partitions) == 4 * 16 * 8
    np.testing.assert_allclose(got[0], cpu(mod, x, y)[0], rtol=1e-5, atol=1e-5)


def test_two_modules_at_once(backend):
    """TVM names functions of both modules alike; each keeps its own."""
    mods = [function((x, y), lambda bb, a, b, k=k: bb.emit(op.matmul(a, bb.emit(op.multiply(b, relax.const(np.float32(k))))))) for k in (2, 3)]
    machines = [relax.VirtualMachine(backend.build(m), tvm.cpu()) for m in mods]
    results = [m["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(y)).numpy() for m in machines]
    np.testing.assert_allclose(results[0] * 1.5, results[1], rtol=1e-5)
    assert len({p.symbol for p in backend.partitions}) == 2


def test_several_results(backend):
    def make(bb, a):
        b = bb.emit(op.nn.relu(a))
        return bb.emit(relax.Tuple([b, bb.emit(op.negative(b))]))

    mod = function((x,), make)
    got = execute(backend.build(mod), x)
    np.testing.assert_array_equal(got[0], np.maximum(x, 0))
    np.testing.assert_array_equal(got[1], -np.maximum(x, 0))
    assert [p.model.hosts for p in backend.partitions] == [[]]


@pytest.mark.parametrize("name,inputs,make", [
    ("conv2d in NHWC", (random(1, 8, 8, 4),), lambda v: op.nn.conv2d(v, relax.const(random(3, 3, 4, 8)), data_layout="NHWC", kernel_layout="HWIO")),
    ("pool in NHWC", (random(1, 8, 8, 4),), lambda v: op.nn.max_pool2d(v, (2, 2), layout="NHWC")),
    ("adaptive pool to 2 × 2", (random(1, 4, 8, 8),), lambda v: op.nn.adaptive_avg_pool2d(v, (2, 2))),
    ("layer_norm of the first axis", (random(16, 16),), lambda v: op.nn.layer_norm(v, relax.const(random(16)), relax.const(random(16)), axes=0)),
    ("padding by reflection", (random(1, 4, 8, 8),), lambda v: op.nn.pad(v, (0, 0, 0, 0, 1, 1, 1, 1), pad_mode="reflect")),
    ("float64", (random(4, 4, dtype="float64"),), op.nn.relu),
    ("another operator", (x,), op.sin),
])
def test_not_translated(backend, name, inputs, make):
    """TVM keeps it, with its result."""
    mod = function(inputs, lambda bb, *v: bb.emit(make(*v)))
    try:
        want = cpu(mod, *inputs)
    except Exception:  # TVM's own compiler does not have it either: then only that it stays is tested
        want = None
    partitioned = backend.partition(mod)
    assert len(partitioned.functions) == 1
    if want is not None:
        np.testing.assert_array_equal(execute(backend.build(mod), *inputs)[0], want[0])
    assert backend.partitions == []


def test_nothing_falls_back_silently(device):
    """An operator that the compiler leaves to the host is refused by name, or named."""
    a = random(4, 4, dtype="int32")
    b = np.abs(random(4, 4, dtype="int32", seed=2)) % 100 + 1
    mod = function((a, b), lambda bb, *v: bb.emit(op.divide(*v)))
    with pytest.raises(Exception, match="the device does not have Div_0: leave these operators out of the patterns, or give Backend fallback=True"):
        npuemu.tvm.Backend(device).build(mod)
    backend = npuemu.tvm.Backend(device, fallback=True)
    got = execute(backend.build(mod), a, b)
    assert backend.partitions[0].model.hosts == ["Div_0"]
    np.testing.assert_array_equal(got[0], cpu(mod, a, b)[0])


def test_unknown_operator_of_others_patterns(device):
    """Patterns of others may match what is not translated: an error names it."""
    backend = npuemu.tvm.Backend(device, name="others")
    mod = function((x,), lambda bb, v: bb.emit(op.sin(v)))
    pattern = [("others.sin", tvm.relax.dpl.is_op("relax.sin")(tvm.relax.dpl.wildcard()))]
    mod = MergeCompositeFunctions()(FuseOpsByPattern(pattern, annotate_codegen=False)(mod))
    with pytest.raises(Exception, match=r"R\.sin.*: not one of relax\.add"):
        RunCodegen()(mod)
    assert backend.partitions == []


def test_example_npu_patterns(device):
    """The patterns of TVM's example, with the card in place of its emulation, whose results TVM's own tests do not look at."""
    backend = npuemu.tvm.Backend(device, name="example_npu")
    mod = function((x, y), lambda bb, a, b: bb.emit(op.nn.relu(bb.emit(op.matmul(a, b)))))
    patterns = get_patterns_with_prefix("example_npu")
    parts = RunCodegen()(MergeCompositeFunctions()(FuseOpsByPattern(patterns, bind_constants=False, annotate_codegen=True)(mod)))
    got = execute(relax.build(parts, "llvm"), x, y)
    (partition,) = backend.partitions
    assert partition.model.hosts == [] and partition.last.counters["macs"] == 4 * 16 * 8
    np.testing.assert_allclose(got[0], cpu(mod, x, y)[0], rtol=1e-5, atol=1e-5)


def test_exported(backend, tmp_path):
    """A library of TVM's and a file of partitions run in another process."""
    mod = function((x, y), lambda bb, a, b: bb.emit(op.sin(bb.emit(op.nn.relu(bb.emit(op.matmul(a, b)))))))
    executable = backend.build(mod)
    executable.export_library(str(tmp_path / "net.so"))
    backend.save(tmp_path / "net.zip")
    np.savez(tmp_path / "x.npz", x=x, y=y)
    script = """
import sys, numpy, tvm, npuemu, npuemu.tvm
from tvm import relax
with npuemu.Device() as device:
    backend = npuemu.tvm.Backend(device)
    backend.load("net.zip")
    vm = relax.VirtualMachine(tvm.runtime.load_module("net.so"), tvm.cpu())
    given = numpy.load("x.npz")
    numpy.save("r.npy", vm["main"](tvm.runtime.tensor(given["x"]), tvm.runtime.tensor(given["y"])).numpy())
    print([p.last.counters["macs"] for p in backend.partitions])
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [4 * 16 * 8]
    np.testing.assert_array_equal(np.load(tmp_path / "r.npy"), execute(executable, x, y)[0])


def test_upstream_example_npu():
    """TVM's own tests/python/contrib/test_example_npu.py, unmodified: nothing is skipped, and the card counts."""
    path = os.environ.get("NPUEMU_TVM_TEST")
    if not path:
        pytest.skip("NPUEMU_TVM_TEST does not name TVM's test_example_npu.py; tests/tvm/run fetches it from GitHub")
    here = pathlib.Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "example_npu", "--rootdir", str(pathlib.Path(path).parent), path]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "7 passed" in run.stdout and "skipped" not in run.stdout
    told = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("npuemu: "))[8:])
    assert [p["runs"] for p in told["partitions"]] == [0, 1]  # one test generates code, another runs it
    assert told["partitions"][1]["hosts"] == [] and told["partitions"][1]["counters"]["macs"] == 2 * 4 * 8
    assert told["card"]["programs"] == 1 and told["card"]["errors"] == 0
