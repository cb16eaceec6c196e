"""Host memory: which tensors numpy may read."""

from typing import Protocol

import torch


class _Placed(Protocol):
    @property
    def device(self) -> torch.device: ...


def on_host(tensor: _Placed) -> bool:
    """Return whether a tensor lies in the memory of the host."""
    return tensor.device.type == "cpu"
