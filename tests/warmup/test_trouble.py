"""What goes wrong with a warm-up run costs time, and never another run or its result."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import RunFailedError
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths
from coreai_opt.warmup.run import WarmupRun
from coreai_opt.warmup.start import StartFromWarmup
from tests.helpers.quick_runs import QUICK_FOR_THEIRS
from tests.helpers.same_runs import differences, record_of
from tests.helpers.warmups import OTHER, STEPS, Job, job

__all__ = ["job"]

slow = pytest.mark.slow


@pytest.fixture
def alone(job: Job, tmp_path: Path) -> Path:
    """The run to compare with, which shares nothing."""
    job("alone", *OTHER)
    return tmp_path / "alone"


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal arrive in that step of the next run."""
    from coreai_opt.models import Classifier

    original, left = Classifier.training_step, [1]

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", training_step)


def test_who_starts_from_a_warm_up_and_is_interrupted_later_goes_on(
    job: Job, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("warmup", *STEPS)
    interrupt_at(10, monkeypatch)
    with pytest.raises(SystemExit) as caught:
        job("taker", *OTHER)
    assert caught.value.code == 143
    warmup = record_of(tmp_path / "taker")["warmup"]
    taken = job("taker", *OTHER)
    assert taken["resumed_at"] == [11]
    assert taken["warmup"] == warmup
    assert differences(tmp_path / "taker", alone) == []


def test_a_warm_up_that_is_interrupted_goes_on(
    job: Job, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(3, monkeypatch)
    with pytest.raises(SystemExit):
        job("warmup", *STEPS)
    # Of the next command another run of the group may be the first one.
    assert job("warmup", *OTHER)["resumed_at"] == [4]
    assert job("taker", *OTHER)["warmup"]["steps"] == 8
    assert differences(tmp_path / "taker", alone) == []


def test_a_warm_up_that_was_killed_after_its_last_checkpoint_ends_there(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("coreai_opt.warmup.make.MakeWarmup.finish", lambda self: None)
        patch.setattr("coreai_opt.runs.run_record.Record.complete", lambda self: None)
        job("warmup", *STEPS)
    assert record_of(tmp_path / "warmup")["status"] == "running"
    made = job("warmup", *STEPS)
    assert (made["resumed_at"], made["warmup"]["steps"]) == ([8], 8)


TROUBLES = {
    "is damaged": "its checkpoint cannot be read",
    "is gone": "it cannot be read",
    "has failed": "it has failed",
    "is of another device": "device: other, and here",
}


@pytest.mark.parametrize(
    "trouble", ["is damaged", *(pytest.param(one, marks=slow) for one in list(TROUBLES)[1:])]
)
def test_a_warm_up_of_no_use_is_told_and_each_run_trains_its_own(
    job: Job, tmp_path: Path, alone: Path, trouble: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job("warmup", *STEPS)
    root = tmp_path / "warmup"
    record = root / "result.json"
    if trouble == "is damaged":
        (path,) = (root / "resume").iterdir()
        path.write_bytes(path.read_bytes()[:-9] + b"damaged!\n")
    elif trouble == "is gone":
        root.rename(tmp_path / "elsewhere")
    elif trouble == "has failed":
        record.write_text(record.read_text().replace('"completed"', '"failed"'))
    else:
        record.write_text(record.read_text().replace('"accelerator": "cpu"', '"accelerator": "x"'))
    capsys.readouterr()
    assert job("taker", *OTHER)["warmup"] is None
    said = capsys.readouterr().out
    words = TROUBLES[trouble].partition(":")[0]
    assert f"the dense warm-up in {root} is not used: {words}" in said
    assert "this run trains its own" in said
    assert differences(tmp_path / "taker", alone) == []


def test_a_run_with_another_config_than_planned_trains_its_own(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job("warmup", *STEPS)
    assert job("taker", *OTHER, "optimizer.lr=0.123")["warmup"] is None
    assert "the config of this run has come out otherwise than planned" in capsys.readouterr().out


def test_a_warm_up_with_another_config_than_planned_fails_at_once(job: Job, tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match="its config has come out otherwise than planned"):
        job("warmup", *STEPS, planned="0123456789abcdef")
    assert not (tmp_path / "warmup" / "resume").exists()


def test_a_run_that_prunes_no_element_trains_its_own(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job("warmup", *STEPS)
    assert job("taker", *STEPS, "target_sparsity=0.0000001")["warmup"] is None
    assert "this run prunes nothing" in capsys.readouterr().out


THEIRS = [item for item in QUICK_FOR_THEIRS if not item.startswith(("data.", "total_iters"))]


@pytest.mark.parametrize("what", ["code", pytest.param("data", marks=slow)])
def test_a_warm_up_of_other_code_or_data_is_not_used(
    job: Job, tmp_path: Path, user_module: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("1")
    source = tmp_path / "their_code.py"
    source.write_text(source.read_text().replace("batch_size=16", "batch_size=16, table=None"))
    theirs = [
        f"model._target_={user_module}.Lit",
        f"data._target_={user_module}.Data",
        f"+data.table='{table}'",
        "objective.name=val/score",
    ]
    job("warmup", "begin_step=5", "total_iters=3", *theirs, base=THEIRS)
    changed = source if what == "code" else table
    changed.write_text(changed.read_text() + "\n")
    taken = job("taker", "begin_step=5", "total_iters=6", *theirs, base=THEIRS)
    assert taken["warmup"] is None
    assert f"its {what} has changed: {changed}" in capsys.readouterr().out


def test_code_and_data_are_those_of_the_beginning_and_recorded_at_once(
    job: Job, tmp_path: Path, user_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, source = tmp_path / "table.csv", tmp_path / "their_code.py"
    table.write_text("1")
    source.write_text(source.read_text().replace("batch_size=16", "batch_size=16, table=None"))
    seen: list[dict[str, Any]] = []

    def edit(*args: Any) -> None:
        if not seen:
            seen.append(record_of(tmp_path / "warmup"))
            for file in (source, table):
                file.write_text(file.read_text() + "\n")

    monkeypatch.setattr("pytorch_lightning.Callback.on_train_batch_end", edit)
    theirs = [f"model._target_={user_module}.Lit", f"data._target_={user_module}.Data"]
    given = [*theirs, f"+data.table='{table}'", "objective.name=val/score"]
    made = job("warmup", "begin_step=5", "total_iters=3", *given, base=THEIRS)
    known = seen[0]["warmup"]["sources"]
    assert list(seen[0]["data"]["files"]) == [str(table)]
    assert (made["status"], made["data"]) == ("completed", seen[0]["data"])
    assert known["modules"].items() <= made["warmup"]["sources"]["modules"].items()
    run = ExistingRun.at(tmp_path / "warmup")
    assert run is not None
    assert WarmupRun(run).change(made) == f"its code has changed: {source}"


STOPPING = (
    "+callbacks.stop={_target_:pytorch_lightning.callbacks.EarlyStopping,"
    "monitor:val/accuracy,mode:max,patience:0,min_delta:1.0}"
)
TENSORBOARD = (
    "+logger.own={_target_:pytorch_lightning.loggers.TensorBoardLogger,"
    "save_dir:${paths.run_dir},name:tensorboard,version:''}"
)

NOTHING_SHARED = {
    "the clock leaps": (
        ["interval=percent", "begin_step=40", "total_iters=20"],
        "leaps over the end",
    ),
    "the training ends": ([STOPPING, "begin_step=14", "total_iters=3"], "training ends before"),
    "a target that prunes nothing": ([*STEPS, "target_sparsity=0.0005"], "nothing is pruned"),
    "curves in files that cannot be read back": (
        [*STEPS, "logger=none", TENSORBOARD],
        "keep no metrics.csv",
    ),
    "curves under other names": ([*STEPS, "+logger.csv.prefix=my"], "keep no metrics.csv"),
}


@pytest.mark.filterwarnings("ignore:.*below the target sparsity")
@pytest.mark.parametrize("case", NOTHING_SHARED)
def test_a_warm_up_that_nobody_could_start_from_fails(job: Job, tmp_path: Path, case: str) -> None:
    overrides, reason = NOTHING_SHARED[case]
    with pytest.raises(RunFailedError, match=reason):
        job("warmup", *overrides)
    record = record_of(tmp_path / "warmup")
    assert (record["kind"], record["error"]["type"]) == ("warmup", "WarmupNotPossibleError")


def test_a_warm_up_that_is_begun_anew_meanwhile_is_told(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("warmup", *STEPS)
    load = StartFromWarmup.on_load_checkpoint

    def load_then_archive(self: StartFromWarmup, *given: Any) -> None:
        load(self, *given)
        RunPaths(tmp_path / "warmup").archive_attempt()

    monkeypatch.setattr(StartFromWarmup, "on_load_checkpoint", load_then_archive)
    with pytest.raises(RunFailedError, match="another command trains the dense warm-up"):
        job("taker", *OTHER)
    monkeypatch.undo()


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_progress_of_a_warm_up_is_of_the_warm_up(job: Job, tmp_path: Path, interval: str) -> None:
    ramp = (
        STEPS
        if interval == "step"
        else ["begin_step=3", "total_iters=1", "interval=epoch", "trainer.max_epochs=4"]
    )
    steps = job("warmup", *ramp)["warmup"]["steps"]
    progress = json.loads((tmp_path / "warmup" / "progress.json").read_text())
    assert (progress["step"], progress["total_steps"]) == (steps, steps)
