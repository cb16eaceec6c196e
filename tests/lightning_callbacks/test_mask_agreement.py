"""Two processes whose masks or steps differ end with an error that says where."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreai_opt.pruning.masks import agreement as mask_agreement
from coreai_opt.pruning.masks.agreement import MaskMismatchError, deviating_ranks
from lightning_callbacks import ScheduledPruning
from lightning_callbacks._lightning import ranks as ranks
from lightning_callbacks._lightning.ranks import StepMismatchError
from tests.helpers.lightning import TinyModule, loader, make_trainer
from tests.helpers.processes import run_ranks


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6),
)
def test_a_rank_deviates_when_most_have_something_else(digests: list[tuple[int, int]]) -> None:
    found = deviating_ranks(digests, ["a", "b"])
    for column, name in enumerate("ab"):
        of_ranks = [digest[column] for digest in digests]
        agreeing = [rank for rank in range(len(digests)) if rank not in found.get(name, [])]
        assert len({of_ranks[rank] for rank in agreeing}) == 1
        assert all(of_ranks[rank] != of_ranks[agreeing[0]] for rank in found.get(name, []))
        most = max(of_ranks.count(value) for value in of_ranks)
        assert len(agreeing) == most
    assert not (len(set(digests)) == 1 and found)


def test_the_errors_name_ranks_and_layers() -> None:
    error = MaskMismatchError({"first.weight": [1], "second.weight": [1, 3]}, "at step 4")
    text = "differ between the processes at step 4: 'first.weight' on rank 1; 'second.weight' on "
    assert f"{text}ranks 1, 3; something has changed" in str(error)
    assert "same optimizer steps: 3 on rank 0, 2 on rank 1; allowed" in str(
        StepMismatchError([3, 2])
    )


def test_a_single_process_computes_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a digest was computed")

    monkeypatch.setattr(mask_agreement, "mask_digest", refuse)
    callback = ScheduledPruning(target_sparsity=0.5)
    make_trainer(tmp_path, callback).fit(TinyModule(), loader())
    assert callback.pruner is not None
    assert callback.pruner.at_target()


PROGRAM = """
import sys
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from coreai_opt.pruning.config import ConstantSparsitySchedule, PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning

what, at = sys.argv[1], int(sys.argv[2])


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)
        self.automatic_optimization = what != "steps"

    def training_step(self, batch, batch_idx):
        loss = self.second(self.first(batch[0]).relu()).square().mean()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            if not (self.global_rank == 1 and batch_idx == at):
                optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Disturbing(pl.Callback):
    def on_train_start(self, trainer, module):
        if at < 0:
            self.disturb(trainer, module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == at:
            self.disturb(trainer, module)

    @torch.no_grad()
    def disturb(self, trainer, module):
        if trainer.global_rank != 1:
            return
        named = {tensor.name: tensor for tensor in pruned_tensors(module)}
        if what == "mask":
            named["second.weight"].impl.mask.view(-1)[5] ^= True
        elif what == "weight":
            original = named["first.weight"].original
            original.copy_(original.flip(0))


def main():
    torch.manual_seed(0)
    ramp = PolynomialDecaySchedule(total_iters=6, update_frequency=2)
    config = {
        "global_config": {"op_state_spec": {"*": {"target_sparsity": 0.75}}},
        "module_name_configs": {
            "second": {
                "op_state_spec": {"*": {"target_sparsity": 0.5}},
                "sparsity_schedule": ConstantSparsitySchedule(),
            }
        },
    }
    data = DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=4)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Disturbing(), ScheduledPruning(ramp, config=config)],
    )
    try:
        trainer.fit(Module(), data)
        told = "no error"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    open(f"rank{trainer.global_rank}", "w").write(told)
    # Left to the end of the process, gloo's threads may abort it.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "at", "told"),
    [
        ("nothing", 0, "no error"),
        ("mask", 3, "MaskMismatchError: masks differ between the processes at step 4: "),
        ("mask", -1, "MaskMismatchError: masks differ between the processes when the training "),
        ("weight", 3, "MaskMismatchError: masks differ between the processes at step 4: "),
        ("steps", 2, "StepMismatchError: the processes have not made the same optimizer steps: "),
    ],
)
def test_both_ranks_say_which_rank_and_layer_differ(
    tmp_path: Path, what: str, at: int, told: str
) -> None:
    run_ranks(tmp_path, PROGRAM, what, at)
    where = {
        "mask": "'second.weight' on rank 1;",
        "weight": "'first.weight' on rank 1;",
        "steps": "3 on rank 0, 2 on rank 1;",
    }
    for rank in (0, 1):
        text = (tmp_path / f"rank{rank}").read_text()
        assert text.startswith(told)
        assert where.get(what, "") in text
        assert "first" not in text or what != "mask"
