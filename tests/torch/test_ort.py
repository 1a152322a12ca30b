# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's session and ONNX's backend interface on the device, beside ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import npuemu
import npuemu.onnx_backend
import npuemu.ort


def network(batch="batch"):
    """A convolution, a pool and a classifier; the batch is open."""
    r = np.random.default_rng(4)
    init = [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in {
        "w": r.normal(size=(8, 3, 3, 3)) / 5, "b": r.normal(size=8), "fc": r.normal(size=(8, 10)) / 3,
    }.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"]),
    ]
    return model(nodes, {"x": (TensorProto.FLOAT, [batch, 3, 8, 8])}, {"y": (TensorProto.FLOAT, [batch, 10]), "logits": (TensorProto.FLOAT, [batch, 10])}, init)


def model(nodes, inputs, outputs, init=()):
    values = [[helper.make_tensor_value_info(n, t, s) for n, (t, s) in v.items()] for v in (inputs, outputs)]
    graph = helper.make_graph(nodes, "net", *values, list(init))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="test", model_version=3)


def images(n, seed=5):
    return np.random.default_rng(seed).normal(size=(n, 3, 8, 8)).astype(np.float32)


def test_session_is_a_drop_in(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    theirs = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for source in path, str(path), path.read_bytes():
        ours = npuemu.ort.InferenceSession(source, providers=[npuemu.ort.NAME])
        for get in "get_inputs", "get_outputs":
            assert [(a.name, a.type, a.shape) for a in getattr(ours, get)()] == [(a.name, a.type, a.shape) for a in getattr(theirs, get)()]
        for field in "producer_name", "graph_name", "domain", "version", "custom_metadata_map":
            assert getattr(ours.get_modelmeta(), field) == getattr(theirs.get_modelmeta(), field)
        for n in 1, 3, 1:
            for names in None, ["logits"], ["logits", "y"]:
                got, want = ours.run(names, {"x": images(n)}), theirs.run(names, {"x": images(n)})
                assert len(got) == len(want)
                for g, w in zip(got, want):
                    np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
        assert ours.report.hosts == [] and ours.report.counters["macs"] > 0
        assert ours.get_providers() == [npuemu.ort.NAME]
        ours.close()


def test_external_data(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(network(), path, save_as_external_data=True, size_threshold=0)
    got, _ = npuemu.ort.InferenceSession(path).run(None, {"x": images(1)})
    want, _ = onnxruntime.InferenceSession(path).run(None, {"x": images(1)})
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_options_of_the_provider():
    s = npuemu.ort.InferenceSession(network(1).SerializeToString(), providers=[(npuemu.ort.NAME, {"time": "timed"})])
    s.run(None, {"x": images(1)})
    assert s.report.counters["cycles"] > 0
    assert s.get_provider_options() == {npuemu.ort.NAME: {"time": "timed"}}


def wide(n):
    """A sum of fp64, which the device does not have."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (TensorProto.DOUBLE, [n])}, {"y": (TensorProto.DOUBLE, [n])}).SerializeToString()


def test_host_is_refused_or_named():
    with pytest.raises(npuemu.Error, match="Add.*float64.*CPUExecutionProvider"):
        npuemu.ort.InferenceSession(wide(3))
    s = npuemu.ort.InferenceSession(wide(3), providers=[npuemu.ort.NAME, "CPUExecutionProvider"])
    np.testing.assert_array_equal(s.run(None, {"x": np.array([1.0, 2, 3])})[0], [2, 4, 6])
    assert len(s.report.hosts) == 1


@pytest.mark.parametrize("feed, error, named", [
    ({}, ValueError, "Required inputs"),
    ({"x": None}, ValueError, "Required inputs"),
    ({"x": images(1), "z": images(1)}, npuemu.Error, "Invalid input name: z"),
    ({"x": images(1).astype(np.float64)}, npuemu.Error, r"tensor\(double\).*tensor\(float\)"),
    ({"x": images(1)[0]}, npuemu.Error, "Invalid rank.*3 Expected: 4"),
    ({"x": images(1)[:, :, :7]}, npuemu.Error, "index 2: Got: 7 Expected: 8"),
])
def test_bad_feed(feed, error, named):
    s = npuemu.ort.InferenceSession(network().SerializeToString())
    with pytest.raises(error, match=named):
        s.run(None, feed)
    with pytest.raises(npuemu.Error, match="Invalid output name: z"):
        s.run(["z"], {"x": images(1)})
    assert len(s.run(None, {"x": images(1)})) == 2


@pytest.mark.parametrize("args, named", [
    ({"providers": ["CUDAExecutionProvider"]}, "CUDAExecutionProvider"),
    ({"providers": ["CPUExecutionProvider"]}, "is the first"),
    ({"providers": [npuemu.ort.NAME], "provider_options": [{"threads": 1}]}, "'threads'"),
    ({"providers": [npuemu.ort.NAME], "provider_options": []}, "1 providers and 0"),
])
def test_bad_providers(args, named):
    with pytest.raises(ValueError, match=named):
        npuemu.ort.InferenceSession(network().SerializeToString(), **args)


def test_bad_models(tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(network(1).SerializeToString()[:-30])
    for source in cut, cut.read_bytes(), b"\xff" * 40, tmp_path / "none.onnx":
        with pytest.raises(npuemu.Error):
            npuemu.ort.InferenceSession(source)
    top = model([helper.make_node("NonZero", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [3])}, {"y": (TensorProto.INT64, [1, "n"])})
    with pytest.raises(npuemu.Error, match="NonZero"):
        npuemu.ort.InferenceSession(top.SerializeToString())


def test_backend_interface():
    backend = npuemu.onnx_backend
    assert backend.supports_device("CPU") and backend.supports_device("NPU") and not backend.supports_device("CUDA")
    net, x = network(2), images(2)
    want = onnxruntime.InferenceSession(net.SerializeToString()).run(None, {"x": x})
    prepared = backend.prepare(net, "NPU")
    for inputs in [x], x, {"x": x}:
        got = prepared.run(inputs)
        np.testing.assert_allclose(got.y, want[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got["logits"], want[1], rtol=1e-4, atol=1e-5)
    assert prepared.result.hosts == [] and prepared.result.counters["macs"] > 0
    a, b = images(1), images(1, 6)
    np.testing.assert_array_equal(backend.run_node(helper.make_node("Add", ["a", "b"], ["c"]), [a, b])[0], a + b)
    # The shape is an input, which the compiler needs as a constant.
    reshape = helper.make_node("Reshape", ["a", "s"], ["y"])
    for shape in [3, 64], [8, 24]:
        np.testing.assert_array_equal(backend.run_node(reshape, [a, np.array(shape)])[0], a.reshape(shape))


def test_backend_refuses():
    with pytest.raises(npuemu.Error, match="Add.*float64.*fallback=True"):
        npuemu.onnx_backend.run_model(onnx.load_from_string(wide(2)), [np.array([1.0, 2])])
    y, = npuemu.onnx_backend.run_model(onnx.load_from_string(wide(2)), [np.array([1.0, 2])], fallback=True)
    np.testing.assert_array_equal(y, [2, 4])
    with pytest.raises(npuemu.Error, match="device 'CUDA'"):
        npuemu.onnx_backend.prepare(network(), "CUDA")
    with pytest.raises(npuemu.Error, match="0 inputs, the model has 1: x"):
        npuemu.onnx_backend.run_model(network(1), [])
