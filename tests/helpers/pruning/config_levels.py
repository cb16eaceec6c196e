"""Configs at several levels, and a model of four weights to prune with them."""

from typing import Any

from torch import nn

from coreai_opt.pruning import MagnitudePruner
from coreai_opt.pruning.config import (
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    OpMagnitudePrunerConfig,
)
from coreai_opt.pruning.spec import PruningSpec

PATHS: list[Any] = [nn.Linear, "torch.nn.Linear", "torch.nn.modules.linear.Linear"]


WEIGHTS = ("stem", "body.first", "body.second", "head")


class Wide(nn.Linear):
    """A layer of one's own."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = Wide(5, 4)


class Net(nn.Module):
    """Four weights of 20: a convolution, two layers in a block, one of them special, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 5, 1)
        self.body = Block()
        self.head = nn.Linear(4, 5)


def to(share: float) -> PruningSpec:
    return PruningSpec(target_sparsity=share)


def at(share: float | None, schedule: Any = None, **fields: Any) -> Any:
    """A module's config told by its sparsity; None = left dense."""
    if share is None:
        return None
    return ModuleMagnitudePrunerConfig(
        op_state_spec={"*": to(share)}, sparsity_schedule=schedule, **fields
    )


def op(share: float | None) -> OpMagnitudePrunerConfig:
    return OpMagnitudePrunerConfig(op_state_spec={"*": None if share is None else to(share)})


def config(
    everything: float | None = 0.5, types: Any = None, names: Any = None, **fields: Any
) -> MagnitudePrunerConfig:
    return MagnitudePrunerConfig(
        global_config=at(everything),
        module_type_configs={key: at(share) for key, share in (types or {}).items()},
        module_name_configs={key: at(share) for key, share in (names or {}).items()},
        **fields,
    )


def pruned(asked: MagnitudePrunerConfig) -> list[int]:
    """Counted zeros of the four weights, of 20 each."""
    model = MagnitudePruner(Net(), asked).prepare()
    return [int((model.get_submodule(name).weight == 0).sum()) for name in WEIGHTS]
