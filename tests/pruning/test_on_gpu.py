"""On a GPU: the masks of the CPU, and no waiting for the device."""

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.masks.of_scores import global_masks, unstructured_mask
from coreai_opt.pruning.masks.selection import Magnitude

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

SIZE = 3_000_001
DATA = {
    "normal": lambda: torch.randn(SIZE),
    "few values": lambda: torch.randint(0, 5, (SIZE,)).float(),
    "all equal": lambda: torch.ones(SIZE),
    "sorted": lambda: torch.randn(SIZE).sort().values,
    "heavy tails": lambda: torch.randn(SIZE) ** 9,
    "half zeros": lambda: torch.randn(SIZE).relu(),
    "some NaN": lambda: torch.where(torch.rand(SIZE) < 0.01, torch.nan, torch.randn(SIZE)),
    "denormals": lambda: torch.randn(SIZE) * 1e-39,
    "periodic": lambda: torch.arange(SIZE) % 144.0,
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("sparsity", [1e-6, 0.3, 0.5, 0.9, 0.999_999])
def test_masks_are_those_of_the_cpu(kind: str, dtype: torch.dtype, sparsity: float) -> None:
    torch.manual_seed(0)
    values = DATA[kind]().to(dtype)
    kept = torch.rand(SIZE) < 0.8
    for here, there in (
        (values, values.cuda()),
        (Magnitude(values), Magnitude(values.cuda())),
        (Magnitude(values, kept), Magnitude(values.cuda(), kept.cuda())),
    ):
        assert torch.equal(
            unstructured_mask(there, sparsity).cpu(), unstructured_mask(here, sparsity)
        )


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_one_threshold_over_several_tensors_is_that_of_the_cpu(sparsity: float) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(2_000_000), torch.randn(7, 11), torch.zeros(5), torch.randn(500_000)]
    here = global_masks([Magnitude(row) for row in rows], sparsity)
    there = global_masks([Magnitude(row.cuda()) for row in rows], sparsity)
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True))


@pytest.mark.parametrize("allow_regrowth", [True, False])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_step_that_changes_no_mask_does_not_wait(allow_regrowth: bool, name: str) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)).cuda()
    ramp = PolynomialDecaySchedule(total_iters=2, update_frequency=1)
    config = MagnitudePrunerConfig.uniform(0.5, ramp)
    config.allow_regrowth = allow_regrowth
    pruner = MagnitudePruner(model, config)
    pruner.prepare()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, weight_decay=0.1)
    pruner.mask_optimizer_state(optimizer)
    batch = torch.randn(16, 64, device="cuda")
    for step in range(5):
        if step == 4:
            torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            pruner.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for layer in (model[0], model[2]):
        mask: Tensor = layer.parametrizations.weight[0].mask
        original: Tensor = layer.parametrizations.weight.original
        assert int((~mask).sum()) == mask.numel() // 2
        assert original.grad is not None
        assert original.grad[~mask].count_nonzero() == 0
        assert layer.weight[~mask].count_nonzero() == 0
