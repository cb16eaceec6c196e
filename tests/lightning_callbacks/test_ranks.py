"""Two processes train one model: their masks, weights and optimizers have to stay the same."""

from pathlib import Path

import pytest
import torch

from tests.helpers.processes import run_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from coreai_opt.models import MLP, Classifier
from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import ScheduledPruning

criterion, allocation, directory = sys.argv[1:]


def main():
    # Each rank begins with weights and seeds of its own: rank 0's count.
    model = Classifier(
        MLP([1, 4, 4], 10, hidden=[24]),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.3),
    )
    spec = {"target_sparsity": 0.75, "pruning_algo": criterion}
    config = {"global_config": {"op_state_spec": {"*": spec}}, "allocation": allocation}
    ramp = PolynomialDecaySchedule(total_iters=6, update_frequency=2)
    features = torch.randn(96, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(features, torch.arange(96) % 10), batch_size=8)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ScheduledPruning(ramp, config=config)], default_root_dir=directory,
    )
    trainer.fit(model, data)
    state = {key: value for key, value in model.state_dict().items()}
    moments = list(trainer.optimizers[0].state_dict()["state"].values())
    torch.save((state, moments), f"{directory}/rank{trainer.global_rank}.pt")


main()
"""


@pytest.mark.parametrize(
    ("criterion", "allocation"),
    [("default", "uniform"), ("random", "erdos_renyi"), ("taylor", "global")],
)
def test_ranks_prune_alike(tmp_path: Path, criterion: str, allocation: str) -> None:
    run_ranks(tmp_path, PROGRAM, criterion, allocation, tmp_path)
    (state, moments), (other, other_moments) = [
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)
    ]
    assert state.keys() == other.keys()
    # What a rank adds up between two updates is its own; what is pruned by it is not.
    compared = [key for key in state if "importance" not in key and "_extra_state" not in key]
    for key in compared:
        assert torch.equal(state[key], other[key]), key
    for one, two in zip(moments, other_moments, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    masks = [state[key] for key in state if key.endswith(".mask")]
    pruned = sum(int((~mask).sum()) for mask in masks)
    assert abs(pruned - 0.75 * sum(mask.numel() for mask in masks)) <= len(masks)
