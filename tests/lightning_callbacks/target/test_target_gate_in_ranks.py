"""Two processes behind one gate choose alike, and one of them writes the weights."""

from pathlib import Path

import pytest
import torch

from tests.helpers.processes import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import sys
from pathlib import Path
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader
from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import PrunedWeights, ScheduledPruning, TargetGate
from tests.helpers.lightning import TinyModule, loader

strategy, folder = sys.argv[1], Path(sys.argv[2])
SCORES = [0.9, 0.95, 0.2, 0.3, 0.1, 0.1, 0.1]


class Module(TinyModule):
    def validation_step(self, batch, batch_idx):
        # No two ranks measure the same.
        score = SCORES[self.current_epoch] + self.global_rank / 1000
        self.log("val", score, sync_dist=True)


def train(number):
    data = DataLoader(loader(16).dataset, batch_size=4)
    kept = folder / f"kept{number}"
    best = ModelCheckpoint(kept, "{epoch}", monitor="val", mode="max", save_last=True)
    stop = EarlyStopping("val", mode="max", patience=2)
    ramp = PolynomialDecaySchedule(total_iters=20)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=7, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[best, stop, ScheduledPruning(ramp, 0.75), TargetGate(), PrunedWeights()],
    )
    trainer.fit(Module(), data, data)
    if trainer.is_global_zero:
        print("chosen", best.best_model_path, "epochs", trainer.current_epoch)


if __name__ == "__main__":
    train(1)
    train(2)
"""


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_ranks_choose_alike_and_one_writes(tmp_path: Path, strategy: str) -> None:
    done = run_ranks(tmp_path, PROGRAM, strategy, tmp_path)
    # At target from the third epoch on; two more do not beat the fourth.
    for number in (1, 2):
        best = tmp_path / f"kept{number}" / "epoch=3.ckpt"
        # Spawned processes do not tell the first one how many epochs they have trained.
        epochs = 0 if strategy == "ddp_spawn" else 6
        assert f"chosen {best} epochs {epochs}" in done.stdout
        last = best.with_name("last.ckpt")
        for file in (best, last):
            state = torch.load(file, weights_only=True)["state_dict"]
            assert int((state["first.weight"] == 0).sum()) == 96
    files = sorted(path.name for path in tmp_path.glob("*weights*"))
    assert files == ["weights-2.pt", "weights.pt"]
    for name in files:
        state = torch.load(tmp_path / name, weights_only=True)
        assert [int((state[f"{n}.weight"] == 0).sum()) for n in ("first", "second")] == [96, 48]
    said = [line for line in done.stderr.splitlines() if "weights in" in line]
    assert len(said) == 2
    assert all("sparsity 0.7500 of 192 weights (target 0.7500)" in line for line in said)
