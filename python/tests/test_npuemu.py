# SPDX-License-Identifier: Apache-2.0
"""Tests of the installed package with numpy and onnx; make test-python runs them."""

import os
import pathlib
import subprocess
import sys
import threading

import ml_dtypes
import npuemu
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest_plugins = ["pytester"]

rng = np.random.default_rng(1)


def model(nodes, inputs, outputs, constants=(), opset=21):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in constants],
    )
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(m)
    return m


def relu_of_product(m=16, k=32, n=8):
    """relu(x·w + b) in fp32, of small integers, so that every order of sums gives the same."""
    w, b = rng.integers(-3, 4, (k, n)).astype(np.float32), rng.integers(-9, 9, n).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["s"], name="product"), helper.make_node("Relu", ["s"], ["y"], name="relu")]
    f = TensorProto.FLOAT
    return model(nodes, [("x", f, [m, k])], [("y", f, [m, n])], [("w", w), ("b", b)]), w, b


def integer_product():
    """int8 × int8 to int32."""
    w = rng.integers(-128, 128, (32, 8)).astype(np.int8)
    return model([helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="product")], [("x", TensorProto.INT8, [4, 32])], [("y", TensorProto.INT32, [4, 8])], [("w", w)]), w


def test_float(npu_device):
    proto, w, b = relu_of_product()
    m = npu_device.load(proto)
    assert m.inputs == [npuemu.Tensor("x", "float32", (16, 32))] and m.outputs[0].numpy_dtype == np.float32
    x = rng.integers(-5, 6, (16, 32)).astype(np.float32)
    r = m.run(x)
    np.testing.assert_array_equal(r["y"], np.maximum(x @ w + b, 0))
    assert r.hosts == [] and all(o["device"] for o in r.operators)
    assert r.counters["macs"] == 16 * 32 * 8 == sum(o["macs"] for o in r.operators)
    assert r.counters["programs"] == 1 and r.counters["errors"] == 0
    assert r.counters["bytes_read"] >= w.nbytes + x.nbytes
    (product,) = [o for o in r.operators if o["engine"] == "matrix"]
    assert product["cycles"] > 0 and product["bytes"] == product["bytes_loaded"] + product["bytes_stored"] > 0
    assert product["instructions"][2] > 0


def test_integers(npu_device):
    proto, w = integer_product()
    m = npu_device.load(proto.SerializeToString(), format="onnx")
    x = rng.integers(-128, 128, (4, 32)).astype(np.int8)
    for given in (x, {"x": x}, x.tolist(), np.asfortranarray(x), x.tobytes()):
        y = m.run(*([given])).outputs[0]
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, x.astype(np.int32) @ w.astype(np.int32))
    np.testing.assert_array_equal(m.run(x[::-1]).outputs[0], (x[::-1].astype(np.int32)) @ w.astype(np.int32))


def test_quantized(npu_device):
    """A QDQ convolution: results are those of the integers."""
    scale, zero = np.float32(0.5), np.int8(0)
    w = rng.integers(-3, 4, (4, 3, 3, 3)).astype(np.int8)
    q = lambda x, y: helper.make_node("QuantizeLinear", [x, "s", "z"], [y])  # noqa: E731
    d = lambda x, y: helper.make_node("DequantizeLinear", [x, "s", "z"], [y])  # noqa: E731
    f = TensorProto.FLOAT
    proto = model(
        [q("x", "xq"), d("xq", "xd"), d("w", "wd"), helper.make_node("Conv", ["xd", "wd"], ["c"], name="conv", pads=[1, 1, 1, 1]), q("c", "cq"), d("cq", "y")],
        [("x", f, [1, 3, 8, 8])],
        [("y", f, [1, 4, 8, 8])],
        [("w", w), ("s", scale), ("z", zero)],
    )
    x = (rng.integers(-4, 5, (1, 3, 8, 8)) * 0.5).astype(np.float32)
    r = npu_device.load(proto).run(x)
    padded = np.pad(x / scale, ((0, 0), (0, 0), (1, 1), (1, 1)))
    sums = np.zeros((1, 4, 8, 8))
    for i in range(3):
        for j in range(3):
            sums += np.einsum("nchw,oc->nohw", padded[:, :, i : i + 8, j : j + 8], w[:, :, i, j].astype(np.float64))
    want = np.clip(np.rint(sums * 0.25 / 0.5), -128, 127) * 0.5
    np.testing.assert_array_equal(r["y"], want.astype(np.float32))
    assert r.hosts == [] and r.counters["macs"] > 0


def test_products_of_bf16(npu_device):
    f = TensorProto.FLOAT
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", f, [2, 64]), ("w", f, [64, 3])], [("y", f, [2, 3])])
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 64), (64, 3)))
    exact = x.astype(np.float64) @ w
    error = {t: np.abs(npu_device.load(proto, dtype=t).run(x, w).outputs[0] - exact).max() for t in ("fp32", "fp16", "bf16")}
    assert error["fp32"] < 1e-5 < error["fp16"] < error["bf16"] < 0.3


def test_symbolic_dimensions(npu_device):
    f = TensorProto.FLOAT
    proto = model([helper.make_node("Relu", ["x"], ["y"])], [("x", f, ["batch", "n"])], [("y", f, ["batch", "n"])])
    with pytest.raises(npuemu.Error, match='dimension 1 \\("n"\\)'):
        npu_device.load(proto)
    assert npu_device.load(proto, dims={"batch": 3, "n": 5}).inputs[0].shape == (3, 5)
    m = npu_device.load(proto, shapes={"x": (2, 7)})
    np.testing.assert_array_equal(m.run(-np.ones((2, 7), np.float32)).outputs[0], np.zeros((2, 7)))
    with pytest.raises(npuemu.Error, match='input "q", which the model does not have'):
        npu_device.load(proto, shapes={"x": (2, 7), "q": (1,)})
    for shapes in ({"x": (1 << 40, 1 << 40)}, {"x": (1,) * 100}):
        with pytest.raises(npuemu.Error) as e:
            npu_device.load(proto, shapes=shapes)
        assert e.value.kind == "model" and "too large" in str(e.value)


@pytest.mark.parametrize(
    ("onnx_type", "dtype", "values"),
    [
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16, [0.5, -2, 3, 0]),
        (TensorProto.FLOAT16, np.float16, [0.5, -2, 3, 0]),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn, [0.5, -2, 3, 0]),
        (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2, [0.5, -2, 3, 0]),
        (TensorProto.INT4, np.int8, [-8, 7, 0, 3]),
        (TensorProto.UINT4, np.uint8, [0, 15, 8, 1]),
        (TensorProto.BOOL, np.bool_, [True, False, False, True]),
        (TensorProto.INT64, np.int64, [-(1 << 62), 1, 2, 3]),
        (TensorProto.DOUBLE, np.float64, [1e300, 1, 2, 3]),
    ],
)
def test_types(npu_device, onnx_type, dtype, values):
    m = npu_device.load(model([helper.make_node("Reshape", ["x", "s"], ["y"])], [("x", onnx_type, [4])], [("y", onnx_type, [2, 2])], [("s", np.array([2, 2]))]))
    x = np.array(values, dtype)
    y = m.run(x).outputs[0]
    assert y.dtype == x.dtype == m.inputs[0].numpy_dtype and y.shape == (2, 2)
    np.testing.assert_array_equal(y.reshape(4), x)
    if dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):  # the bits of a type that numpy lacks
        np.testing.assert_array_equal(m.run(x.view("uint16" if x.itemsize == 2 else "uint8")).outputs[0].reshape(4), x)


def test_scalars_and_empty(npu_device):
    f = TensorProto.FLOAT
    m = npu_device.load(model([helper.make_node("Add", ["x", "x"], ["y"])], [("x", f, [])], [("y", f, [])]))
    r = m.run(np.float32(3))
    assert m.inputs[0].shape == () and r["y"].shape == () and r["y"] == 6
    assert m.run(3).outputs[0] == 6


def test_bad_arrays(npu_device):
    proto, _, _ = relu_of_product()
    m = npu_device.load(proto)
    x = np.zeros((16, 32), np.float32)
    for value, text in (
        (x.astype(np.float64), "an array of float64; x: float32[16, 32]: convert it, for example with .astype('float32')"),
        (x.T, "shape [32, 16]"),
        (x[0], "shape [32]"),
        (x.tobytes()[:-1], "2047 bytes; x: float32[16, 32] has 2048"),
        (["a"], "could not convert"),
        ([[1, 2], [3]], "x: float32[16, 32]"),
        (None, "'x'"),
        (object(), "'x'"),
        (np.array([None] * 512).reshape(16, 32), "an array of object"),
    ):
        with pytest.raises(npuemu.Error) as e:
            m.run(value)
        assert e.value.kind == "buffer" and text in str(e.value)
    big = x.astype(">f4")
    np.testing.assert_array_equal(m.run(big).outputs[0], m.run(x).outputs[0])
    i8 = npu_device.load(model([helper.make_node("Reshape", ["x", "s"], ["y"])], [("x", TensorProto.INT4, [2])], [("y", TensorProto.INT4, [2])], [("s", np.array([2]))]))
    with pytest.raises(npuemu.Error, match="values outside -8 to 7"):
        i8.run(np.array([8, 0], np.int8))


def test_truncated_models(npu_device):
    b = relu_of_product()[0].SerializeToString()
    for i in range(1, len(b), 41):
        with pytest.raises(npuemu.Error) as e:
            npu_device.load(b[:i], format="onnx")
        assert e.value.kind == "model"


def test_unsupported_operator(npu_device):
    s = TensorProto.STRING
    proto = model([helper.make_node("StringNormalizer", ["x"], ["y"], name="words")], [("x", s, [3])], [("y", s, [3])])
    with pytest.raises(npuemu.Error) as e:
        npu_device.load(proto)
    assert e.value.kind == "model" and "strings" in str(e.value)


def test_results_are_the_callers(npu_device):
    """A run neither keeps nor changes what it gave away or was given."""
    proto, w, b = relu_of_product()
    m = npu_device.load(proto)
    x = rng.integers(-5, 6, (16, 32)).astype(np.float32)
    before = x.copy()
    first = m.run(x).outputs[0]
    kept = first.copy()
    m.run(x + 1)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, before)
    first[:] = 0
    x.flags.writeable = False
    np.testing.assert_array_equal(m.run(x).outputs[0], kept)


def test_same_bits_on_every_card(tmp_path):
    """Another array, and model time, change cycles and not results; a card on a socket counts the same."""
    proto, w, b = relu_of_product()
    x = rng.standard_normal((16, 32)).astype(np.float32)
    small = tmp_path / "small.toml"
    small.write_text("[array]\nrows = 8\ncols = 8\nscratchpad = 65536\n")
    socket = str(tmp_path / "s")
    server = subprocess.Popen([sys.executable, "-m", "npuemu", "serve", "--socket", socket], stderr=subprocess.PIPE, text=True)
    try:
        while "listening" not in (line := server.stderr.readline()) and line:
            pass
        results = {}
        for name, arguments in {"default": {}, "small": {"config": small}, "timed": {"time": "timed"}, "socket": {"target": "vfio-user:" + socket}}.items():
            with npuemu.Device(**arguments) as device:
                results[name] = device.load(proto).run(x)
        y = results["default"].outputs[0]
        np.testing.assert_allclose(y, np.maximum(x @ w + b, 0), atol=1e-4)
        for r in results.values():
            assert r.outputs[0].tobytes() == y.tobytes() and r.counters["macs"] == 16 * 32 * 8
        assert results["socket"].counters == results["default"].counters
        assert sum(o["cycles"] for o in results["small"].operators) > sum(o["cycles"] for o in results["default"].operators)
        assert results["timed"].counters["cycles"] > 0 == results["default"].counters["cycles"]
    finally:
        server.terminate()
        server.wait(20)
    with pytest.raises(npuemu.Error) as e:
        npuemu.Device("vfio-user:" + socket)
    assert e.value.kind == "device"


def test_server_goes_away(tmp_path):
    socket = str(tmp_path / "s")
    proto, _, _ = relu_of_product()
    x = np.zeros((16, 32), np.float32)
    server = subprocess.Popen([sys.executable, "-m", "npuemu", "serve", "--socket", socket], stderr=subprocess.PIPE, text=True)
    while "listening" not in (line := server.stderr.readline()) and line:
        pass
    with npuemu.Device("vfio-user:" + socket) as device:
        m = device.load(proto)
        m.run(x)
        server.kill()
        server.wait(20)
        for _ in range(2):
            with pytest.raises(npuemu.Error) as e:
                m.run(x)
            assert e.value.kind == "device"


def test_threads():
    """Models of two devices under eight threads: every result is right, and counters are those of the run."""
    proto, w = integer_product()
    with npuemu.Device() as a, npuemu.Device() as b:
        models = [a.load(proto), b.load(proto), a.load(proto)]
        wrong = []
        start = threading.Barrier(8)

        def work(i):
            x = np.full((4, 32), i, np.int8)
            start.wait()
            for k in range(20):
                r = models[(i + k) % 3].run(x)
                if not np.array_equal(r.outputs[0], x.astype(np.int32) @ w) or r.counters["macs"] != 4 * 32 * 8:
                    wrong.append((i, k))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert wrong == []


def test_caffe(npu_device):
    root = pathlib.Path(__file__).parents[2] / "compiler" / "caffe" / "testdata"
    pairs = [p for p in sorted(root.rglob("*.prototxt")) if p.with_suffix(".caffemodel").exists()]
    for p in pairs[:3]:
        weights = p.with_suffix(".caffemodel")
        assert npu_device.load((p, weights)).report == npu_device.load((p.read_bytes(), weights.read_bytes())).report


def test_without_numpy():
    """stdlib.py: the package without numpy."""
    here = pathlib.Path(__file__).parent
    subprocess.run([sys.executable, here / "stdlib.py"], check=True, env={**os.environ, "NPUEMU_LIB": npuemu._lib.path()})


def test_command():
    out = subprocess.run([sys.executable, "-m", "npuemu", "version"], check=True, capture_output=True, text=True).stdout
    assert out.startswith("npuemu " + npuemu.version() + "\n")


def test_fixtures(pytester):
    pytester.makepyfile(
        """
        GRAPH = b'graph "g"\\ninput %x: int32[2]\\nnode "n" npu.element(%x) -> (%y: int32[2]) {op="neg"}\\noutput %y\\n'
        def test_model(npu_model):
            assert npu_model(GRAPH, format="npuir").run([1, 2]).outputs[0].tolist() == [-1, -2]
        def test_new_card(npu_device):
            assert npu_device.counters["programs"] == 0
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
    pytester.runpytest_subprocess("--npu-target", "gpu").assert_outcomes(errors=2)
