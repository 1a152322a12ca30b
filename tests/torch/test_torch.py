# SPDX-License-Identifier: Apache-2.0
"""torch.compile and torch.export on the device, beside eager PyTorch."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

import npuemu
import npuemu.torch

IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.arange(24).remainder(7).mul(31).reshape(1, 24)

NETWORKS = {
    "resnet18": (networks.ResNet18, IMAGE),
    "mobilenet_v2": (networks.MobileNetV2, IMAGE),
    "decoder": (networks.Decoder, TOKENS),
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(2)


def difference(y, want):
    """The largest difference, in parts of the largest magnitude."""
    assert y.shape == want.shape and y.dtype == want.dtype
    return float((y.double() - want.double()).abs().max() / want.double().abs().max())


def on_device(report, macs=1):
    assert report.hosts == [] and report.reason is None
    assert report.counters["programs"] == 1 and report.counters["errors"] == 0
    assert report.counters["macs"] >= macs
    assert report.operators and all(o["device"] for o in report.operators)


def compiled(model, **options):
    return torch.compile(model, backend="npuemu", options=options)


# The order of sums is the device's (numerics.md §6.3), so fp32 differs by rounding; bf16 and fp16 round each product to 8
# and 11 bits. Autocast's own difference from fp32 is up to 0.026 (bf16) and 0.0034 (fp16) on these networks.
@pytest.mark.parametrize("name, dtype, tolerance", [
    ("resnet18", "fp32", 1e-5), ("mobilenet_v2", "fp32", 1e-5), ("decoder", "fp32", 1e-5),
    ("resnet18", "bf16", 0.02), ("decoder", "bf16", 0.02), ("decoder", "fp16", 0.003),
])
def test_network(name, dtype, tolerance):
    make, x = NETWORKS[name]
    model = networks.seeded(make)
    reports = []
    fast = compiled(model, dtype=dtype, reports=reports)
    assert difference(fast(x), model(x)) < tolerance
    assert len(reports) == 1 and reports[0] is npuemu.torch.last_report()
    on_device(reports[0], macs=1_000_000)
    if name != "decoder" and dtype == "fp32":
        convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
        assert sum(o["op"] in ("conv", "depthwise", "gemm") for o in reports[0].operators) == convolutions + 1


def test_export():
    model = networks.seeded(networks.Decoder, layers=1)
    content = npuemu.torch.export(model, (TOKENS,))
    with npuemu.Device() as dev:
        m = dev.load(content, format="npu")
        assert m.hosts == []
        r = m.run(TOKENS.numpy())
    assert r.counters["macs"] > 0
    assert difference(torch.from_numpy(r.outputs[0]), model(TOKENS)) < 1e-5
    assert [t.name for t in m.inputs] == ["ids"]
    assert npuemu.torch.export(torch.export.export(model, (TOKENS,)), ()) == content


def test_export_keywords_and_structures(tmp_path):
    class Net(nn.Module):
        def forward(self, a, b=None, *, scale):
            return {"sum": a["x"] + b[0] * scale, "rest": (b[1], a["x"] - 1)}

    x, y, z = torch.randn(3, 2, 4).unbind()
    path = tmp_path / "net.npu"
    content = npuemu.torch.export(Net().eval(), ({"x": x},), {"b": [y, z], "scale": 2.0}, output=path)
    assert path.read_bytes() == content
    with npuemu.Device() as dev:
        r = dev.load(path).run(*(t.numpy() for t in (x, y, z)))
    for got, want in zip(r.outputs, (x + y * 2, z, x - 1)):
        np.testing.assert_array_equal(got, want.numpy())


def test_quantized():
    """int8 by PyTorch's PT2E quantization: the convolutions are products of integers."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    model = networks.seeded(networks.ResNet18)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, (IMAGE,)).module(), quantizer)
    for _ in range(3):
        prepared(torch.randn(IMAGE.shape))
    quantized = convert_pt2e(prepared)
    content = npuemu.torch.export(torch.export.export(quantized, (IMAGE,)), ())
    full = npuemu.torch.to_onnx(model, (IMAGE,))
    with npuemu.Device() as dev:
        r = dev.load(content, format="npu").run(IMAGE.numpy())
        assert r.hosts == [] and r.counters["macs"] > 0
        assert r.counters["bytes_read"] < dev.load(full, format="onnx").run(IMAGE.numpy()).counters["bytes_read"]
    want = quantized(IMAGE)
    error = difference(want, model(IMAGE))
    # Rounding of a sum that is half a step may go the other way, which is less than what quantization costs.
    assert difference(torch.from_numpy(r.outputs[0]), want) < max(error, 0.02) * 1.5


class Net(nn.Module):
    """A function of a linear layer and inputs."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(4, 4)
        self.eval().requires_grad_(False)

    def forward(self, *args):
        return self.function(self.linear, *args)


X = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name, function, args", [
    ("silu", lambda l, x: nn.functional.silu(l(x)), (X,)),
    ("scalar tensor", lambda l, x, k: l(x) * k, (X, torch.tensor(3.0))),
    ("number", lambda l, x, k: l(x) * k, (X, 3.5)),
    ("true", lambda l, x, k: l(x) + (2 if k is True else 3), (X, True)),
    ("int32", lambda l, x: x * 3 - 1, (torch.arange(6, dtype=torch.int32),)),
    ("int8 to float", lambda l, x: l(x.float()), (torch.arange(-4, 4, dtype=torch.int8).reshape(2, 4),)),
    ("bool", lambda l, x: torch.where(l(x) > 0, x, -x), (X,)),
    ("bfloat16", lambda l, x: x * 2 + 1, (X.bfloat16(),)),
    ("float16", lambda l, x: x * 2 + 1, (X.half(),)),
    ("strided", lambda l, x: l(x), (torch.randn(4, 2).T,)),
    ("empty", lambda l, x: l(x), (X[:0],)),
    ("embedding", lambda l, i: l(nn.functional.embedding(i, l.weight)), (torch.tensor([[3, 0, 1]]),)),
    ("attention", lambda l, x: nn.functional.scaled_dot_product_attention(l(x), x, x * 2), (torch.randn(2, 3, 5, 4),)),
    ("einsum", lambda l, x: torch.einsum("ij,kj->ik", l(x), x), (X,)),
    ("group norm", lambda l, x: nn.functional.group_norm(l(x), 2), (torch.randn(2, 4, 3, 4),)),
])
def test_graph(name, function, args):
    model = Net(function)
    y, want = compiled(model)(*args), model(*args)
    if want.numel():
        assert difference(y, want) < 1e-5
    assert y.shape == want.shape and y.dtype == want.dtype
    assert npuemu.torch.last_report().hosts == []


def test_outputs_of_other_kinds():
    y = compiled(Net(lambda l, x: (l(x), None, 3, {"x": x})))(X)
    assert y[1:3] == (None, 3)
    torch.testing.assert_close(y[3]["x"], X)


def test_shapes_compile_again():
    model = Net(lambda l, x: l(x).sum(0))
    fast = compiled(model)
    for n in (2, 3, 5, 2, 20):
        x = torch.randn(n, 4)
        assert difference(fast(x), model(x)) < 1e-5
        on_device(npuemu.torch.last_report(), macs=16 * n)


def test_parameters_that_change():
    model = Net(lambda l, x: l(x))
    fast = compiled(model)
    for change in (lambda: None, lambda: model.linear.weight.add_(1), lambda: model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})):
        change()
        assert difference(fast(X), model(X)) < 1e-5


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_gradients_are_off(region):
    model = Net(lambda l, x: l(x)).requires_grad_(True)
    with region():
        assert difference(compiled(model)(X), model(X)) < 1e-5


def test_autocast():
    model = Net(lambda l, x: l(x))
    fast = compiled(model)
    assert fast(X).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        y = fast(X)
    assert y.dtype == torch.bfloat16 and npuemu.torch.last_report().hosts == []
    assert difference(y.float(), model(X)) < 0.01


def test_devices_of_the_options(tmp_path):
    config = tmp_path / "array.toml"
    config.write_text("[array]\nrows = 16\ncols = 16\n")
    model = Net(lambda l, x: l(x))
    reports = []
    y = compiled(model, config=str(config), time="timed", reports=reports)(X)
    assert difference(y, model(X)) < 1e-5 and reports[0].counters["cycles"] > 0
    with npuemu.Device() as dev:
        torch._dynamo.reset()
        compiled(model, device=dev)(X)
        assert dev.counters["macs"] > 0


def write(l, x):
    x.add_(1)
    return l(x)


def leave(l, x):
    y = l(x)
    print("Python goes on here")
    return y + 1


# what the error must name, of a function, its input
REFUSED = [
    ("aten._linalg_eigh.default", lambda l, x: torch.linalg.eigh(l(x).T @ x)[0], X),
    ("torch.float64", lambda l, x: x * 2, X.double()),
    ("torch.float64", lambda l, x: l(x).double() + 1, X),
    ("torch.complex64", lambda l, x: (x * 2).real, X.to(torch.complex64)),
    ("torch.complex64", lambda l, x: torch.complex(l(x), x).abs(), X),
    ("in place", write, X),
    ("graph breaks.*print", leave, X),
]


@pytest.mark.parametrize("named, function, x", REFUSED)
def test_refused(named, function, x):
    with pytest.raises(npuemu.Error, match=named + ".*fallback"):
        compiled(Net(function))(x)


@pytest.mark.parametrize("named, function, x", REFUSED)
def test_fallback_is_reported(named, function, x, capsys):
    model = Net(function)
    reports = []
    want = model(x.clone())
    y = compiled(model, fallback=True, reports=reports)(x.clone())
    torch.testing.assert_close(y, want)
    assert any(r.hosts or r.graph_break for r in reports)


def test_what_dynamo_does_not_trace():
    """Such a function never reaches the backend, unless fullgraph says that it must."""
    model = torch.compile(Net(lambda l, x: l(x)), backend="npuemu", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="(?i)sparse"):
        model(X.to_sparse())


def test_training_is_refused():
    for layer in nn.Dropout(0.5), nn.BatchNorm1d(4):
        torch._dynamo.reset()
        model = nn.Sequential(nn.Linear(4, 4), layer).train()
        with torch.no_grad(), pytest.raises(npuemu.Error, match=r"training mode.*eval\(\)"):
            compiled(model)(X)
        with pytest.raises(npuemu.Error, match=r"training mode.*eval\(\)"):
            npuemu.torch.export(model, (X,))


def test_gradients_are_refused():
    with pytest.raises(npuemu.Error, match="gradients.*no_grad"):
        compiled(Net(lambda l, x: l(x)).requires_grad_(True))(X)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_index_of_an_embedding(dtype):
    model = nn.Embedding(10, 4).eval().requires_grad_(False)
    fast = compiled(model, dtype=dtype)
    with pytest.raises(IndexError, match="1 to 10, its table has 10 rows"):
        fast(torch.tensor([1, 10]))
    assert difference(fast(torch.tensor([1, 9])), model(torch.tensor([1, 9]))) < 0.005


@pytest.mark.parametrize("options, named", [
    ({"threads": 2}, "option 'threads' is none"), ({"dtype": "fp8"}, "dtype 'fp8' is none"),
    ({"device": None, "target": "in-process"}, "option 'device'"),
])
def test_options_are_refused(options, named):
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=named):
        compiled(Net(lambda l, x: l(x)), **options)(X)


def test_target_that_is_not_there():
    for fallback in False, True:  # no reason to do without
        torch._dynamo.reset()
        with pytest.raises(npuemu.Error, match="none.sock"):
            compiled(Net(lambda l, x: l(x)), target="vfio-user:/nowhere/none.sock", fallback=fallback)(X)
