"""Values that make the choice of a mask hard."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


class Elsewhere(Tensor):
    """A tensor that says it is on another device, and takes the path of one."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


class Far(Elsewhere):
    """Its like says that it is on a GPU, and goes there without moving."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return self if isinstance(args[0], torch.device) else super().to(*args, **kwargs)


def reference(rows: Sequence[Tensor], pruned: int) -> list[Tensor]:
    """Sort all by score and then by index; the first ones are pruned."""
    flat = np.concatenate([row.detach().double().flatten().numpy() for row in rows])
    flat[np.isnan(flat)] = np.inf
    order = np.lexsort((np.arange(len(flat)), flat))
    kept = np.ones(len(flat), dtype=bool)
    kept[order[:pruned]] = False
    parts = np.split(kept, np.cumsum([row.numel() for row in rows])[:-1])
    return [torch.from_numpy(part).view(row.shape) for part, row in zip(parts, rows, strict=True)]


def mass(size: int) -> Tensor:
    """Zeros of which a few have moved, as after pruning that nothing comes back from."""
    values = torch.randn(size)
    values[: size // 2] = 0
    return values[torch.randperm(size)]


KINDS: dict[str, Any] = {
    "normal": torch.randn,
    "equal": torch.ones,
    "zeros-of-both-signs": lambda size: torch.zeros(size) * (torch.randn(size).sign()),
    "two": lambda size: torch.randint(0, 2, (size,)).float(),
    "few": lambda size: torch.randint(-3, 4, (size,)).float(),
    "sorted": lambda size: torch.arange(float(size)),
    "reversed": lambda size: torch.arange(float(size)).flip(0),
    "heavy": lambda size: torch.randn(size).pow(15),
    "zeros-at-the-cut": mass,
    "infinities": lambda size: torch.where(torch.rand(size) < 0.6, torch.inf, torch.randn(size)),
    "low-infinities": lambda size: torch.where(torch.rand(size) < 0.6, -torch.inf, 1.0),
    "nan": lambda size: torch.where(torch.rand(size) < 0.4, torch.nan, torch.randn(size)),
    "nan-and-infinity": lambda size: torch.where(torch.rand(size) < 0.5, torch.nan, torch.inf),
    "period": lambda size: torch.arange(size).remainder(max(round(size ** (1 / 3)), 1)).float(),
    "denormal": lambda size: torch.randint(0, 9, (size,)) * 1e-45,
    "one-low": lambda size: torch.ones(size).index_fill_(0, torch.tensor([size - 1]), -5.0),
}
