# SPDX-License-Identifier: Apache-2.0
"""The rule that nothing falls back to the host unless it was asked for."""

from ._device import Model
from ._lib import Error


def refuse(model: Model, remedy: str) -> None:
    """Raises Error if operators of the model run on the host; it names them and what to do."""
    hosts = [f"{o['name']} ({o['op']}): {o['reason']}" for o in model.operators if not o["device"]]
    if hosts:
        raise Error(f"the device does not have {'; '.join(hosts)}; {remedy}")
