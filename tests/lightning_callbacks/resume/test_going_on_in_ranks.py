"""Two processes that train one model stop at the same step, and go on exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.processes import run_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import warnings
from pathlib import Path
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanMetric
from coreai_opt.data.resumable import EpochSampler, ResumableLoader
from coreai_opt.pruning.config import PolynomialDecaySchedule
from lightning_callbacks import ResumableCheckpoint, ScheduledPruning

folder, stop, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
blocked = len(sys.argv) > 4


class Stopped(BaseException):
    pass


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Linear(16, 4))
        self.mean = MeanMetric()
        self.seen = []

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        self.mean(loss + self.global_rank)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss

    def train_dataloader(self):
        data = torch.randn(56, 8, generator=torch.Generator().manual_seed(1))
        data = TensorDataset(data, torch.arange(56) % 4)
        sampler = EpochSampler(data, 2, self.global_rank, seed=3)
        return ResumableLoader(data, batch_size=4, sampler=sampler)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main():
    def interruption():
        # Only one of them is told.
        is_told = stop and trainer.global_rank == 1 and trainer.global_step >= stop
        return Stopped() if is_told else None

    torch.manual_seed(seed)
    module = Module()
    if blocked:
        (folder / "r").write_text("in the way")
        warnings.simplefilter("ignore")
    resumable = ResumableCheckpoint(folder / "r", interruption=interruption)
    ramp = PolynomialDecaySchedule(total_iters=10)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ScheduledPruning(ramp, 0.5), resumable], default_root_dir=folder,
    )
    # Every rank has random numbers of its own.
    torch.manual_seed(seed + 10 * trainer.global_rank)
    result = folder / f"rank{trainer.global_rank}.pt"
    try:
        trainer.fit(module, ckpt_path=resumable.newest())
    except (Stopped, SystemExit) as stopped:
        torch.save({"step": trainer.global_step, "by": type(stopped).__name__}, result)
        return
    torch.save(
        {
            "step": trainer.global_step,
            "model": module.state_dict(),
            "metrics": dict(trainer.callback_metrics),
            "drawn": torch.rand(4),
        },
        result,
    )


main()
"""


def run(folder: Path, *arguments: object) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    run_ranks(folder, PROGRAM, folder, *arguments)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("whole"), 0, 0)


@pytest.mark.parametrize("stop", [3, 7])
def test_a_request_that_one_rank_sees_stops_both_and_they_go_on(
    tmp_path: Path, stop: int, whole: list[dict[str, Any]]
) -> None:
    stopped = run(tmp_path, stop, 0)
    assert stopped == [{"step": stop, "by": "Stopped"}, {"step": stop, "by": "Stopped"}]
    assert_equal(run(tmp_path, 0, 1), whole)


def test_a_folder_that_cannot_be_written_blocks_no_rank(
    tmp_path: Path, whole: list[dict[str, Any]]
) -> None:
    assert_equal(run(tmp_path, 0, 0, "blocked"), whole)


def assert_equal(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one["step"] == other["step"] == 14
        for part in ("model", "metrics"):
            assert one[part].keys() == other[part].keys()
            for name, value in other[part].items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(one[part][name], value), name
        assert torch.equal(one["drawn"], other["drawn"])
