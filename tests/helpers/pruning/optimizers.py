"""Optimizers, and trainings of a small model with them."""

import inspect
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

KINDS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
}


INPUTS = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))


SETTINGS: dict[str, tuple[Any, ...]] = {
    "weight_decay": (0.1,),
    "momentum": (0.9,),
    "amsgrad": (True,),
    "centered": (True,),
    "maximize": (True,),
    "foreach": (True, False),
    "fused": (True,),
    "decoupled_weight_decay": (True,),
    "d": (2.0,),
    "line_search_fn": ("strong_wolfe",),
}


def variants() -> list[Any]:
    """All optimizers with their defaults, and with each setting that they have and we know."""
    cases = []
    for name, kind in KINDS.items():
        known = inspect.signature(kind).parameters
        cases.append(pytest.param(kind, {}, id=name))
        for setting, values in SETTINGS.items():
            cases += [
                pytest.param(kind, {setting: value}, id=f"{name}-{setting}={value}")
                for value in values
                if setting in known and (name, setting) != ("SparseAdam", "maximize")
            ]
    return cases
