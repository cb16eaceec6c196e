"""A loop with the pruner in place ends as one with MagnitudePruner: weights, masks, moments."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adafactor, AdamW, SparseAdam

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.config import ConstantSparsitySchedule, PolynomialDecaySchedule
from coreai_opt.pruning.spec import (
    BlockStructured,
    ChannelStructured,
    NMStructured,
    Unstructured,
)
from tests.helpers.pruning.in_place import CountingImpl, Cyclic, ended, uniform
from tests.helpers.pruning.optimizers import INPUTS, variants

STEPS = 9


def trained(way: type, config: MagnitudePrunerConfig, make: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 32, bias=False), nn.ReLU(), nn.Linear(32, 4, bias=False))
    pruner = way(model, config)
    pruner.prepare()
    optimizer = make(model.parameters())
    (pruner.attach if way is InPlacePruner else pruner.mask_optimizer_state)(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(INPUTS).square().mean()
        loss.backward()
        return loss

    for _ in range(STEPS):
        optimizer.step(closure)
        pruner.step()
    result = ended(pruner, model, optimizer)
    pruner.finalize()
    return result | {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_equal(config: MagnitudePrunerConfig, make: Any) -> None:
    ours = trained(InPlacePruner, config.model_copy(deep=True), make)
    theirs = trained(MagnitudePruner, config.model_copy(deep=True), make)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert any(bool((value == 0).any()) for name, value in ours.items() if name.endswith("weight"))


RAMP = PolynomialDecaySchedule(total_iters=6, power=2)


@pytest.mark.parametrize("regrowth", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "settings"), variants())
def test_with_every_optimizer_of_torch(kind: Any, settings: dict[str, Any], regrowth: bool) -> None:
    if kind is SparseAdam:
        pytest.skip("torch refuses gradients that are dense")
    config = uniform(0.75, RAMP, allow_regrowth=regrowth)
    if kind is Adafactor and regrowth:
        # Its step is as long as the weights are: in place those are the masked ones.
        with pytest.raises(AssertionError):
            assert_equal(config, lambda weights: kind(weights, **settings))
        return
    assert_equal(config, lambda weights: kind(weights, **settings))


@pytest.mark.parametrize(
    ("make", "regrowth"), [(lambda w: SGD(w, 0.1, 0.9, weight_decay=0.1), True), (AdamW, False)]
)
@pytest.mark.parametrize("schedule", [RAMP, Cyclic(), ConstantSparsitySchedule(begin_step=3), None])
@pytest.mark.parametrize("allocation", ["uniform", "erdos_renyi", "global"])
def test_with_every_allocation(allocation: str, schedule: Any, regrowth: bool, make: Any) -> None:
    assert_equal(uniform(0.6, schedule, allocation=allocation, allow_regrowth=regrowth), make)


@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("algo", ["default", "random", CountingImpl])
@pytest.mark.parametrize(
    "scheme",
    [
        Unstructured(),
        ChannelStructured(axis=0),
        ChannelStructured(axis=1),
        BlockStructured(block_shape=(2, 2)),
        NMStructured(n=2, m=4),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
def test_with_every_scheme_and_criterion(scheme: Any, algo: Any, regrowth: bool) -> None:
    if algo is CountingImpl and not regrowth:
        pytest.skip("a criterion without scores cannot keep weights from coming back")
    spec = PruningSpec(target_sparsity=0.5, pruning_scheme=scheme, pruning_algo=algo)
    module = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=RAMP)
    config = MagnitudePrunerConfig(global_config=module, allow_regrowth=regrowth)
    assert_equal(config, AdamW)
