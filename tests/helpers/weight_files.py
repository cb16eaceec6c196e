"""Files of weights, and what is said of those that are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.config.errors import ConfigError
from coreai_opt.training.initial_weights import load_initial_weights

Content = Callable[[dict[str, Any]], Any]


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def refused(model: nn.Module, path: Path) -> str:
    """Return the one sentence that refuses a file."""
    with pytest.raises(ConfigError) as caught:
        load_initial_weights(model, path)
    (problem,) = caught.value.problems
    assert problem.key == "init_from"
    assert problem.sentence.startswith(f"init_from={path} ")
    assert "; allowed: " in problem.sentence
    assert "\n" not in problem.sentence
    return problem.sentence.removeprefix(f"init_from={path} ")


def under(prefix: str) -> Content:
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}
