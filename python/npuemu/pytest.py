# SPDX-License-Identifier: Apache-2.0
"""Fixtures for pytest; docs/python.md, "pytest"."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

import npuemu


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("npuemu")
    group.addoption("--npu-target", default="in-process", metavar="CARD", help="card of npu_device: in-process, vfio-user:SOCKET, /dev/accel/accelN")
    group.addoption("--npu-config", default=None, metavar="FILE", help="configuration of npu_device, TOML as npuemu serve takes it")


@pytest.fixture
def npu_device(request: pytest.FixtureRequest) -> Iterator[npuemu.Device]:
    """A card, which is new for each test; --npu-target and --npu-config say which."""
    with npuemu.Device(request.config.getoption("--npu-target"), request.config.getoption("--npu-config")) as device:
        yield device


@pytest.fixture
def npu_model(npu_device: npuemu.Device) -> Callable[..., npuemu.Model]:
    """npu_device.load."""

    def load(model: Any, format: str | None = None, **options: Any) -> npuemu.Model:
        return npu_device.load(model, format, **options)

    return load
