"""Sparsity as it is: what reaches the CSV file, the loggers and the progress bar."""

import csv
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger

from coreai_opt.pruning.model.targets import pruned_tensors
from lightning_callbacks import ScheduledPruning, SparsityMonitor, SparsityProgressBar
from tests.helpers.lightning import (
    FIRST_LAYER,
    ManualModule,
    TinyModule,
    linear_ramp,
    loader,
    make_trainer,
    zeros,
)

COLUMNS = ["step", "epoch", "layer", "elements", "nonzero", "sparsity", "scheduled", "target"]
COLUMNS += ["regrown"]


class MemoryLogger(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int | None, dict[str, float]]] = []

    name = version = "memory"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged.append((step, {key: value for key, value in metrics.items() if key != "epoch"}))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """There are none."""


class CountZeros(pl.Callback):
    """An independent count: zeros of both layers' weights, as the forward pass uses them."""

    def __init__(self) -> None:
        self.total: dict[int, float] = {}
        self.first: dict[int, float] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        weights = [pl_module.first.weight.detach(), pl_module.second.weight.detach()]
        self.first[trainer.global_step] = zeros(weights[0])
        self.total[trainer.global_step] = zeros(torch.cat([weight.flatten() for weight in weights]))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        return list(reader)


def fit(root: Path, *callbacks: pl.Callback, module: Any = None, **settings: Any) -> Any:
    module = module or TinyModule()
    trainer = make_trainer(root, *callbacks, **settings)
    trainer.fit(module, loader())
    return trainer, module


def test_a_checkpoint_that_was_loaded_for_a_validation_cuts_nothing(tmp_path: Path) -> None:
    monitor = SparsityMonitor()
    fit(tmp_path, ScheduledPruning(target_sparsity=0.5), monitor)
    rows = read(tmp_path / "sparsity.csv")
    monitor.load_state_dict({"counted_at": 0, "rows": 1})
    fit(tmp_path, ScheduledPruning(target_sparsity=0.5), monitor)
    again = read(tmp_path / "sparsity.csv")
    assert again[: len(rows)] == rows
    assert len(again) > len(rows)


def test_a_row_for_each_layer_and_one_for_all(tmp_path: Path) -> None:
    fit(tmp_path, ScheduledPruning(target_sparsity=0.5), SparsityMonitor(every_n_steps=16))
    rows = read(tmp_path / "sparsity.csv")
    assert [row["layer"] for row in rows[:3]] == ["total", "first.weight", "second.weight"]
    assert [row["elements"] for row in rows[:3]] == ["192", "128", "64"]
    assert [row["nonzero"] for row in rows[:3]] == ["96", "64", "32"]
    assert {(row["sparsity"], row["scheduled"], row["target"]) for row in rows} == {("0.5",) * 3}


def test_rows_are_written_at_the_start_every_n_steps_and_at_the_end_of_epochs(
    tmp_path: Path,
) -> None:
    fit(tmp_path, ScheduledPruning(), SparsityMonitor(every_n_steps=5))
    totals = [row for row in read(tmp_path / "sparsity.csv") if row["layer"] == "total"]
    assert [int(row["step"]) for row in totals] == [0, 5, 8, 10, 15, 16]
    assert [int(row["epoch"]) for row in totals] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulate_grad_batches": 3}, {"max_steps": 11}],
    ids=["plain", "accumulation", "max_steps"],
)
def test_no_row_is_written_twice(tmp_path: Path, settings: dict[str, Any]) -> None:
    fit(tmp_path, ScheduledPruning(), SparsityMonitor(every_n_steps=1), **settings)
    rows = [(row["step"], row["layer"]) for row in read(tmp_path / "sparsity.csv")]
    assert len(rows) == len(set(rows))
    assert len(rows) == 3 * (1 + int(rows[-1][0]))


def test_no_row_is_written_twice_when_a_second_fit_goes_on(tmp_path: Path) -> None:
    trainer, module = fit(
        tmp_path, ScheduledPruning(), SparsityMonitor(every_n_steps=4), max_epochs=1
    )
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader())
    totals = [row for row in read(tmp_path / "sparsity.csv") if row["layer"] == "total"]
    assert [int(row["step"]) for row in totals] == [0, 4, 8, 12, 16]


def test_sparsity_is_counted_at_every_step_of_a_ramp(tmp_path: Path) -> None:
    count = CountZeros()
    ramp = linear_ramp(12)
    fit(tmp_path, ScheduledPruning(ramp, 0.5), SparsityMonitor(every_n_steps=1), count)
    rows = read(tmp_path / "sparsity.csv")
    achieved = {int(r["step"]): float(r["sparsity"]) for r in rows if r["layer"] == "total"}
    first = {int(r["step"]): float(r["sparsity"]) for r in rows if r["layer"] == "first.weight"}
    assert achieved == pytest.approx({0: 0.0, **count.total})
    assert first == pytest.approx({0: 0.0, **count.first})
    assert len(set(count.total.values())) > 6


class Zeroing(pl.Callback):
    """Sets half of the first layer's weights to zero by hand, after each step."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        tensors = list(pruned_tensors(pl_module))
        weight = tensors[0].original if tensors else pl_module.first.weight
        weight[:8] = 0


def test_zeros_made_by_hand_are_counted_though_no_schedule_asked_for_them(tmp_path: Path) -> None:
    monitor = SparsityMonitor()
    pruning = ScheduledPruning(target_sparsity=0.25)
    _, module = fit(tmp_path, pruning, Zeroing(), monitor)
    assert monitor.report is not None
    first, second = monitor.report.layers
    assert first.sparsity == zeros(module.first.weight) > 0.5
    assert (first.scheduled, first.target, second.sparsity) == (0.25, 0.25, 0.25)
    assert monitor.report.achieved == pytest.approx((128 * first.sparsity + 16) / 192)
    assert monitor.report.scheduled == 0.25
    assert float(read(tmp_path / "sparsity.csv")[-2]["sparsity"]) == first.sparsity


def test_weights_that_somebody_else_fills_are_seen(tmp_path: Path) -> None:
    class Opening(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            pl_module.first.weight.data.fill_(1.0)

    monitor = SparsityMonitor()
    fit(tmp_path, ScheduledPruning(target_sparsity=0.5), Opening(), monitor)
    assert monitor.report is not None
    assert [layer.sparsity for layer in monitor.report.layers] == [0.0, 0.5]
    assert monitor.report.scheduled == 0.5


def test_a_dense_model_has_a_curve_at_0(tmp_path: Path) -> None:
    monitor, logger = SparsityMonitor(), MemoryLogger()
    fit(tmp_path, monitor, logger=logger, log_every_n_steps=4)
    assert {row["sparsity"] for row in read(tmp_path / "sparsity.csv")} == {"0.0"}
    assert monitor.report is not None
    assert (monitor.report.achieved, monitor.report.target) == (0.0, 0.0)
    assert logger.logged[0][1]["sparsity/target"] == 0.0


def test_a_layer_left_dense_has_a_row_but_no_part_in_the_total(tmp_path: Path) -> None:
    fit(tmp_path, ScheduledPruning(config=FIRST_LAYER), SparsityMonitor())
    total, first, second = read(tmp_path / "sparsity.csv")[-3:]
    assert (total["elements"], total["sparsity"]) == ("128", "0.5")
    assert (first["sparsity"], first["target"]) == ("0.5", "0.5")
    assert (second["sparsity"], second["scheduled"], second["target"]) == ("0.0", "", "")


def test_a_path_of_its_own_is_relative_to_the_root(tmp_path: Path) -> None:
    fit(tmp_path, ScheduledPruning(), SparsityMonitor(csv_path="curves/a=b 'c'.csv"))
    assert len(read(tmp_path / "curves" / "a=b 'c'.csv")) == 9


def test_without_a_path_no_file_is_written(tmp_path: Path) -> None:
    monitor = SparsityMonitor(csv_path=None)
    fit(tmp_path, ScheduledPruning(), monitor)
    assert list(tmp_path.iterdir()) == []
    assert monitor.report is not None


@pytest.mark.parametrize("every", [0, -1])
def test_a_bad_cadence_is_refused(every: int) -> None:
    with pytest.raises(ValueError, match=f"every_n_steps is {every}; allowed: 1 or more"):
        SparsityMonitor(every_n_steps=every)


@pytest.mark.parametrize(("cadence", "steps"), [(4, [0, 4, 8, 12, 16]), (0, list(range(17)))])
def test_the_trainer_s_cadence_is_the_default(
    tmp_path: Path, cadence: int, steps: list[int]
) -> None:
    fit(tmp_path, ScheduledPruning(), SparsityMonitor(), log_every_n_steps=cadence)
    totals = [row for row in read(tmp_path / "sparsity.csv") if row["layer"] == "total"]
    assert [int(row["step"]) for row in totals] == steps


def test_every_logger_gets_the_totals_and_each_layer(tmp_path: Path) -> None:
    loggers = [MemoryLogger(), MemoryLogger()]
    ramp = linear_ramp(12)
    fit(
        tmp_path,
        ScheduledPruning(ramp, target_sparsity=0.5),
        SparsityMonitor(),
        logger=loggers,
        log_every_n_steps=4,
    )
    assert loggers[0].logged == loggers[1].logged
    metrics = [metrics for _, metrics in loggers[0].logged if "sparsity/achieved" in metrics]
    # Of 11 parts of the ramp: floor(n x 0.5 x step / 11) zeros of 128 and of 64.
    zeros_of = [(int(64 * step / 11), int(32 * step / 11)) for step in (0, 4, 8, 11, 11)]
    assert [m["sparsity/first.weight"] for m in metrics] == [first / 128 for first, _ in zeros_of]
    assert [m["sparsity/second.weight"] for m in metrics] == [sec / 64 for _, sec in zeros_of]
    totals = [(first + second) / 192 for first, second in zeros_of]
    assert [m["sparsity/achieved"] for m in metrics] == pytest.approx(totals)
    assert {m["sparsity/target"] for m in metrics} == {0.5}
    assert metrics[1]["sparsity/scheduled"] == pytest.approx(0.5 * 4 / 11)


@pytest.mark.parametrize(
    "make", [TinyModule, lambda: ManualModule(lambda batch: (0, 1))], ids=["one", "two optimizers"]
)
def test_loggers_get_the_step_that_lightning_logs_under(tmp_path: Path, make: Any) -> None:
    class Logging(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.log("theirs", 1.0)

    logger = MemoryLogger()
    settings = {"logger": logger, "log_every_n_steps": 1}
    fit(tmp_path, ScheduledPruning(), SparsityMonitor(), Logging(), module=make(), **settings)
    ours = [step for step, metrics in logger.logged if "sparsity/achieved" in metrics]
    theirs = [step for step, metrics in logger.logged if "theirs" in metrics]
    assert theirs == list(range(16))
    assert ours == [0, *range(16)]


def test_sparsity_is_in_the_progress_bar(tmp_path: Path) -> None:
    trainer, _ = fit(
        tmp_path, ScheduledPruning(target_sparsity=0.5), SparsityMonitor(every_n_steps=2)
    )
    assert trainer.progress_bar_metrics["sparsity"] == 0.5
    assert trainer.callback_metrics["sparsity"] == 0.5


class Display(SparsityProgressBar):
    """Draws nothing, and keeps what it would show after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.disable()
        self.shown: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.shown.append(self.get_metrics(trainer, pl_module))


def test_the_bar_shows_sparsity_now_and_its_target(tmp_path: Path) -> None:
    bar, monitor = Display(), SparsityMonitor(every_n_steps=3)
    pruning = ScheduledPruning(linear_ramp(16), target_sparsity=0.5)
    fit(tmp_path, pruning, monitor, bar, enable_progress_bar=True)
    # Of 15 parts of the ramp: 12 + 6 and 25 + 12 zeros of 192.
    assert bar.shown[:2] == [{"sparsity": "0.000/0.5"}] * 2
    assert bar.shown[2:5] == [{"sparsity": "0.094/0.5"}] * 3
    assert bar.shown[5] == {"sparsity": "0.193/0.5"}
    assert bar.shown[-1] == {"sparsity": "0.500/0.5"}


class CountRevived(pl.Callback):
    """An independent count: weights that a mask keeps and the one before it did not."""

    def __init__(self) -> None:
        self.total: dict[int, int] = {}
        self._masks: list[torch.Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._masks = [tensor.impl.mask.clone() for tensor in pruned_tensors(pl_module)]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        masks = [tensor.impl.mask.clone() for tensor in pruned_tensors(pl_module)]
        pairs = zip(masks, self._masks, strict=True)
        regrown = sum(int((new & ~old).sum()) for new, old in pairs)
        step = trainer.global_step
        self.total[step] = self.total.get(step - 1, 0) + regrown
        self._masks = masks


@pytest.mark.parametrize("regrowth", [True, False])
def test_weights_that_come_back_are_counted(tmp_path: Path, regrowth: bool) -> None:
    # The sparsity goes down, so that some have to come back, if they may.
    config = {
        "global_config": {"op_state_spec": {"*": {"target_sparsity": 0.25}}},
        "allow_regrowth": regrowth,
    }
    counted = CountRevived()
    pruning = ScheduledPruning(linear_ramp(7, initial_sparsity=0.75), config=config)
    monitor = SparsityMonitor(every_n_steps=1)
    expected = nullcontext() if regrowth else pytest.warns(UserWarning, match="below the target")
    with expected:
        _, module = fit(tmp_path, pruning, counted, monitor)
    rows = read(tmp_path / "sparsity.csv")
    totals = {int(row["step"]): int(row["regrown"]) for row in rows if row["layer"] == "total"}
    assert {step: totals[step] for step in counted.total} == counted.total
    assert (totals[16] >= 96) if regrowth else (totals[16] == 0)
    assert zeros(module.first.weight) == (0.25 if regrowth else 0.75)
    by_layer = [int(row["regrown"]) for row in rows if row["step"] == "16"][-3:]
    assert by_layer[0] == sum(by_layer[1:]) == monitor.report.regrown
