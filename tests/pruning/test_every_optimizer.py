"""Every optimizer of torch, by construction: pruned weights stay, and the others move."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning.optimizers import INPUTS, variants


class Plain(Optimizer):
    """Steps along the gradient; its settings are whatever somebody has called by these names."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, {"lr": 0.01} | settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.add_(param.grad, alpha=-group["lr"])


def trained(make: Any, settings: dict[str, Any], regrowth: bool) -> None:
    torch.manual_seed(0)
    # No bias: Muon is for matrices.
    model = nn.Sequential(nn.Linear(8, 32, bias=False), nn.ReLU(), nn.Linear(32, 2, bias=False))
    ramp = PolynomialDecaySchedule(total_iters=5)
    config = MagnitudePrunerConfig.uniform(0.75, ramp)
    pruner = MagnitudePruner(model, config.model_copy(update={"allow_regrowth": regrowth}))
    pruner.prepare()
    optimizer = make(model.parameters(), **settings)
    pruner.mask_optimizer_state(optimizer)
    tensors = list(pruned_tensors(model))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(INPUTS).square().mean()
        loss.backward()
        return loss

    for step in range(8):
        before = [tensor.original.detach().clone() for tensor in tensors]
        optimizer.step(closure)
        if step >= 5:
            assert pruner.at_target()
        for tensor, old in zip(tensors, before, strict=True):
            mask, now = tensor.impl.mask, tensor.original.detach()
            assert now.isfinite().all()
            assert torch.equal(now[~mask], old[~mask] if regrowth else old[~mask] * 0)
            moments = [
                value
                for value in optimizer.state.get(tensor.original, {}).values()
                if isinstance(value, Tensor) and value.shape == mask.shape
            ]
            assert not any(value[~mask].any() for value in moments)
        # A second-order method is soon done.
        assert step > 1 or not all(
            torch.equal(t.original, old) for t, old in zip(tensors, before, strict=True)
        )
        pruner.step()
    pruner.finalize()
    assert int((model[0].weight == 0).sum()) == 192


@pytest.mark.parametrize("regrowth", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "settings"), variants())
def test_every_optimizer_of_torch(
    kind: type[Optimizer], settings: dict[str, Any], regrowth: bool
) -> None:
    if kind is SparseAdam:
        # torch's own word: no gradient of a masked weight is sparse.
        with pytest.raises(RuntimeError, match="does not support dense gradients"):
            trained(kind, settings, regrowth)
        return
    trained(kind, settings, regrowth)


@pytest.mark.parametrize("eps", [(1e-30, 1e-3), None, 0, "small", torch.tensor(1e-8)])
@pytest.mark.parametrize("decay", [0, None, (0.1, 0.2), torch.tensor(0.1)])
def test_settings_may_mean_anything_to_others(eps: Any, decay: Any) -> None:
    trained(Plain, {"eps": eps, "weight_decay": decay}, True)


def test_history_of_lbfgs_is_of_the_masks_in_force() -> None:
    model = nn.Linear(8, 8, bias=False)
    ramp = PolynomialDecaySchedule(total_iters=2, power=1)
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, ramp))
    pruner.prepare()
    optimizer = LBFGS(model.parameters(), max_iter=3)
    pruner.mask_optimizer_state(optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(INPUTS) - 1).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    (state,) = optimizer.state.values()
    assert state["old_dirs"]
    pruner.step()
    assert not optimizer.state
    optimizer.step(closure)
    pruner.step()  # at target already: the mask stays, and so does the history
    assert optimizer.state
