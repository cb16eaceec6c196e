"""Weights in place that are masked together, or where few have changed: as with MagnitudePruner."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.masks import device_selection as device
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.in_place import Cyclic, ended, uniform

INPUTS = torch.linspace(-1, 1, 48).view(6, 8)
STEPS = 9
SCHEDULES = {
    "ramp": PolynomialDecaySchedule(total_iters=6, power=2),
    "slow": PolynomialDecaySchedule(total_iters=4000, initial_sparsity=0.5, power=1),
    "cyclic": Cyclic(),
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda weights: SGD(weights, 0.1, 0.9, weight_decay=0.1),
    "adamw": AdamW,
    "amsgrad": lambda weights: AdamW(weights, amsgrad=True),
}


class Alike(nn.Module):
    """Several small layers of one shape, and layers that are masked one by one."""

    def __init__(self) -> None:
        super().__init__()
        small = [layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.Tanh())]
        large = [nn.Linear(8, 4096), nn.Tanh(), nn.Linear(4096, 8)]
        self.layers = nn.Sequential(*small, *large)
        self.conv = nn.Conv2d(2, 2, 3, padding=1).to(memory_format=torch.channels_last)
        self.other = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        images = self.layers(inputs).view(-1, 2, 2, 2)
        return self.other(self.conv(images)).flatten(1)


def trained(way: Any, config: MagnitudePrunerConfig, make: Any, dtype: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = Alike().to(dtype)
    pruner = way(model, config.model_copy(deep=True))
    pruner.prepare()
    optimizer: Optimizer = make(model.parameters())
    (pruner.attach if way is InPlacePruner else pruner.mask_optimizer_state)(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(INPUTS.to(dtype)).square().mean()
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
        pruner.step()
    result = ended(pruner, model, optimizer)
    counts = {f"{each.name} back": each.impl.regrown for each in pruned_tensors(model)}
    return result | {name: torch.tensor(count) for name, count in counts.items()}


def assert_equal(config: MagnitudePrunerConfig, make: Any, dtype: Any = torch.float32) -> None:
    ours = trained(InPlacePruner, config, make, dtype)
    theirs = trained(MagnitudePruner, config, make, dtype)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize(
    ("schedule", "regrowth", "make"),
    [
        *[("ramp", True, "sgd"), ("ramp", False, "adamw"), ("slow", True, "amsgrad")],
        *[("slow", False, "sgd"), ("cyclic", True, "adamw"), ("cyclic", False, "amsgrad")],
    ],
)
def test_layers_alike_and_large_ones(schedule: str, regrowth: bool, make: str) -> None:
    assert_equal(uniform(0.6, SCHEDULES[schedule], allow_regrowth=regrowth), OPTIMIZERS[make])


@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("many", [2, 1 << 20], ids=["by-cut", "by-sort"])
def test_the_way_of_a_device_ends_the_same(
    many: int, regrowth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = uniform(0.6, SCHEDULES["cyclic"], allow_regrowth=regrowth)
    here = trained(InPlacePruner, config, OPTIMIZERS["adamw"], torch.float32)
    monkeypatch.setattr(device, "MANY", many)
    monkeypatch.setattr("coreai_opt.pruning.masks.host.on_host", lambda tensor: False)
    there = trained(InPlacePruner, config, OPTIMIZERS["adamw"], torch.float32)
    assert not [name for name in here if not torch.equal(here[name], there[name])]


@pytest.mark.parametrize("through_data", [True, False])
def test_what_others_write_to_pruned_weights_is_masked_by_the_next_step(through_data: bool) -> None:
    torch.manual_seed(0)
    model = Alike()
    pruner = InPlacePruner(model, uniform(0.6, SCHEDULES["slow"]))
    pruner.prepare()
    optimizer = AdamW(model.parameters())
    pruner.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        with torch.no_grad():
            for tensor in pruned_tensors(model):
                weight = tensor.original
                (weight.data if through_data else weight).add_(1.0)
        optimizer.step()
        pruner.step()
        for tensor in pruned_tensors(model):
            assert not tensor.original[~tensor.impl.mask].any()


def test_a_weight_that_is_given_other_memory_is_masked_there() -> None:
    torch.manual_seed(0)
    model = Alike()
    pruner = InPlacePruner(model, MagnitudePrunerConfig.uniform(0.5))
    pruner.prepare()
    optimizer = SGD(model.parameters(), 0.1)
    pruner.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()
        for tensor in pruned_tensors(model):
            assert not tensor.original[~tensor.impl.mask].any()
            tensor.original.data = torch.ones_like(tensor.original)


class Noting(TorchDispatchMode):
    """Notes the names of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        if self.names[-1] in ("index", "index_put_"):
            assert not any(getattr(each, "dtype", None) is torch.bool for each in args[1])
        return func(*args, **(kwargs or {}))


READS_BACK = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "bincount"}


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("many", [2, 1 << 20], ids=["by-cut", "by-sort"])
def test_an_update_of_all_masks_waits_once_for_a_device(
    many: int, regrowth: bool, allocation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "MANY", many)
    monkeypatch.setattr("coreai_opt.pruning.masks.host.on_host", lambda tensor: False)
    model = Alike()
    ramp = PolynomialDecaySchedule(total_iters=8, power=1)
    pruner = InPlacePruner(
        model, uniform(0.8, ramp, allow_regrowth=regrowth, allocation=allocation)
    )
    pruner.prepare()
    optimizer = AdamW(model.parameters())
    pruner.attach(optimizer)
    for _ in range(3):
        model(INPUTS).square().mean().backward()
        optimizer.step()
        with Noting() as noting:
            pruner.step()
        assert [name for name in noting.names if name in READS_BACK] == ["_local_scalar_dense"]
