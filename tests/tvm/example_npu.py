# SPDX-License-Identifier: Apache-2.0
"""A plugin for pytest: what TVM's example_npu emulates, a card computes.

TVM's own test file asks for the code generator relax.ext.example_npu and for a runtime, which are parts of TVM's build. Here the code generator is
npuemu.tvm's, and no runtime is needed, since the virtual machine calls the partitions. What the card counted is printed at the end.
"""

import json

import tvm

import npuemu
import npuemu.tvm


def _never(*_):
    raise RuntimeError("TVM's emulation was asked for")


def pytest_configure(config):
    config.npuemu_device = npuemu.Device()
    config.npuemu_backend = npuemu.tvm.Backend(config.npuemu_device, name="example_npu")
    tvm.register_global_func("runtime.ExampleNPUJSONRuntimeCreate", _never, override=True)


def pytest_terminal_summary(terminalreporter, config):
    partitions = [
        {"symbol": p.symbol, "runs": p.runs, "hosts": p.model.hosts, "operators": [o["op"] for o in p.model.operators], "counters": p.last.counters if p.last else {}}
        for p in config.npuemu_backend.partitions
    ]
    terminalreporter.write_line("npuemu: " + json.dumps({"partitions": partitions, "card": config.npuemu_device.counters}))


def pytest_unconfigure(config):
    config.npuemu_device.close()
