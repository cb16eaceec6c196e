"""Runs that are interrupted and started again, in this process: what is told, kept and refused."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from coreai_opt.config.errors import ConfigError, RunFailedError
from coreai_opt.runs.context import only_process_in
from coreai_opt.runs.paths import RunPaths
from coreai_opt.training.run import run
from lightning_callbacks._resume.checkpoint_files import DamagedCheckpointWarning, checkpoint_files
from tests.helpers.quick_runs import QUICK
from tests.helpers.stopping import STOP, Stop, assert_same, left_by, record_of, run_in

pytestmark = pytest.mark.usefixtures("without_picture")

RunIn = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "it's a=b, ü"


@pytest.fixture
def again(compose_config: Any, root: Path) -> RunIn:
    """Run in one directory."""
    return lambda *overrides: run_in(compose_config, root, *QUICK, *overrides)


@pytest.fixture
def stop(again: RunIn) -> RunIn:
    """Run in that directory until some batches are done."""

    def until(*batches: int, overrides: tuple[str, ...] = ()) -> None:
        for batch in batches:
            Stop.at = [batch]
            with pytest.raises(SystemExit):
                again(*overrides)
            assert Stop.at == []

    return until


def in_sweep() -> None:
    cfg: Any = HydraConfig.instance().cfg
    with read_write(cfg), read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.mode = RunMode.MULTIRUN
        OmegaConf.update(cfg, "hydra.sweep.dir", "sweep")


def test_an_interruption_and_the_way_on_are_told(
    again: RunIn, stop: RunIn, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop(4)
    told = capfd.readouterr().err.strip().splitlines()
    assert told == [
        "SIGTERM: the run ends after this step, with a checkpoint",
        "interrupted (the same command goes on from step 4); the record is in "
        f"{root / 'result.json'}",
    ]
    record = record_of(root)
    assert (record["status"], record["attempts"], record["resumed_at"]) == ("interrupted", 1, [])
    assert record["error"]["message"] == "SIGTERM"
    again()
    assert capfd.readouterr().out == f"goes on in {root} from step 4 of 18\n"
    after = record_of(root)
    assert (after["status"], after["attempts"], after["resumed_at"]) == ("completed", 2, [4])
    assert (after["run_id"], after["started"]) == (record["run_id"], record["started"])
    assert after["wall_seconds"] > record["wall_seconds"]


def test_the_way_on_is_another_one_where_the_command_would_not_go_on(
    compose_config: Any, stop: RunIn, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop(2, overrides=("resume=never",))
    assert f"interrupted (resume={root} goes on from step 2)" in capfd.readouterr().err
    cfg = compose_config(*QUICK, STOP, run_dir=root)
    in_sweep()
    Stop.at = [3]
    with pytest.raises(SystemExit):
        run(cfg)
    expected = "interrupted (the same sweep goes on from step 3)"
    assert expected in capfd.readouterr().err


def test_never_begins_anew_and_sets_aside_what_was_there(
    again: RunIn, stop: RunIn, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop(4)
    (root / "train.log").write_text("log")
    capfd.readouterr()
    stop(2, overrides=("resume=never",))
    again("resume=never")
    sentence = f"begins anew in {root}; what was there is set aside\n"
    assert capfd.readouterr().out == sentence * 2
    for number, step in ((1, 4), (2, 2)):
        aside = root / f"attempt-{number}"
        assert record_of(aside)["status"] == "interrupted"
        assert [file.step for file in checkpoint_files(aside / "resume")] == [step]
        assert (aside / "metrics.csv").exists()
    assert (root / "train.log").exists()
    record = record_of(root)
    assert (record["attempts"], record["resumed_at"]) == (3, [])
    assert record["started"] > record_of(root / "attempt-1")["started"]
    assert not (root / "resume").exists()


def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    compose_config: Any, again: RunIn, stop: RunIn, root: Path, tmp_path: Path
) -> None:
    stop(4, 9)
    newest, before = checkpoint_files(root / "resume")
    assert (newest.step, before.step) == (9, 6)
    with newest.path.open("r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    with pytest.warns(DamagedCheckpointWarning, match="is damaged: .*; the one before it is used"):
        again()
    assert record_of(root)["resumed_at"] == [4, 6]
    run_in(compose_config, tmp_path / "whole", *QUICK)
    assert_same(left_by(root), left_by(tmp_path / "whole"))


@pytest.mark.parametrize("how", ["truncated", "empty", "removed"])
def test_a_run_without_a_checkpoint_that_is_whole_begins_anew(
    again: RunIn, stop: RunIn, root: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    stop(4)
    (file,) = checkpoint_files(root / "resume")
    if how == "removed":
        file.path.unlink()
        again()
    else:
        file.path.write_bytes(file.path.read_bytes()[: 1000 if how == "truncated" else 0])
        with pytest.warns(DamagedCheckpointWarning):
            again()
    assert f"begins anew in {root}: " in capfd.readouterr().out
    record = record_of(root)
    assert (record["status"], record["attempts"], record["resumed_at"]) == ("completed", 2, [])
    assert (root / "attempt-1" / "metrics.csv").exists()


def test_an_earlier_checkpoint_can_be_chosen(again: RunIn, stop: RunIn, root: Path) -> None:
    stop(4, 9, 10)
    newer, chosen = checkpoint_files(root / "resume")
    quoted = str(chosen.path).replace("'", "\\'")
    again(f"resume='{quoted}'")
    assert record_of(root)["resumed_at"][-1] == chosen.step == 9
    assert newer.step == 10


def test_another_config_is_refused_unless_forced(again: RunIn, stop: RunIn, root: Path) -> None:
    stop(4)
    kept = (root / "result.json").read_bytes()
    with pytest.raises(ConfigError, match=r"another config: optimizer\.lr: 0\.1 -> 0\.2; allowed"):
        again("optimizer.lr=0.2")
    assert (root / "result.json").read_bytes() == kept
    again("optimizer.lr=0.2", "resume_force=true")
    record = record_of(root)
    assert (record["status"], record["resumed_at"]) == ("completed", [4])
    assert record["config"]["optimizer"]["lr"] == 0.2


def test_what_cannot_change_the_result_may_change(again: RunIn, stop: RunIn, root: Path) -> None:
    stop(4)
    again("checkpoint.keep=5", "checkpoint.every_n_steps=3", "trainer.enable_model_summary=false")
    assert record_of(root)["resumed_at"] == [4]


def test_a_run_that_prunes_begins_on_a_checkpoint_without_masks(
    compose_config: Any, root: Path
) -> None:
    base = [item for item in QUICK if not item.startswith("total_iters")]
    Stop.at = [4]
    with pytest.raises(SystemExit):
        run_in(compose_config, root, *base, "schedule=none")
    run_in(compose_config, root, *QUICK, "resume_force=true")
    record = record_of(root)
    assert record["training"]["steps"] == 18
    assert not record["sparsity"]["below_target"]


def test_a_completed_run_of_a_sweep_returns_what_it_had(
    compose_config: Any, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    objective = run(compose_config(*QUICK, run_dir=root))
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    cfg = compose_config(*QUICK, run_dir=root)
    in_sweep()
    capfd.readouterr()
    assert run(cfg) == objective == record_of(root)["objective"]["value"]
    assert capfd.readouterr().out == f"{root} has completed before: nothing to do\n"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == kept


def test_a_completed_single_run_is_refused_and_left_as_it_was(again: RunIn, root: Path) -> None:
    again()
    kept = (root / "result.json").read_bytes()
    for override in ("resume=auto", "resume=never"):
        with pytest.raises(ConfigError, match="the record of a completed run; allowed: a dir"):
            again(override)
    assert (root / "result.json").read_bytes() == kept


def test_a_run_that_failed_goes_on_in_its_own_directory(
    compose_config: Any, again: RunIn, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("in the test")

    with monkeypatch.context() as patched:
        patched.setattr("coreai_opt.training.train._evaluate", fail)
        with pytest.raises(RunFailedError, match="in the test"):
            again()
    assert record_of(root)["status"] == "failed"
    again()
    record = record_of(root)
    assert (record["status"], record["resumed_at"], record["error"]) == ("completed", [18], None)


def test_threads_stay_those_of_the_run_also_when_it_is_killed_before_they_are_set(
    again: RunIn,
    stop: RunIn,
    root: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop(4)
    before = torch.get_num_threads()
    assert record_of(root)["threads"] == before
    capfd.readouterr()
    torch.set_num_threads(before + 1)
    try:
        with monkeypatch.context() as patched:

            def end(*_: Any, **__: Any) -> None:
                os.kill(os.getpid(), signal.SIGTERM)

            patched.setattr("coreai_opt.training.build.build", end)
            with pytest.raises(SystemExit):
                again()
        assert record_of(root)["threads"] == before
        again()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    told = f"threads as before it was interrupted: {before}\n"
    assert capfd.readouterr().out.count(told) == 2
    assert record_of(root)["threads"] == before


def test_progress_tells_the_step_from_the_first_moment_on(
    again: RunIn, stop: RunIn, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(4)

    def end(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("coreai_opt.training.build.build", end)
    with pytest.raises(SystemExit) as ended:
        again()
    assert ended.value.code == 143
    assert '"step": 4' in (root / "progress.json").read_text()


def test_only_one_process_works_in_a_directory(again: RunIn, root: Path) -> None:
    root.mkdir()
    with (
        only_process_in(RunPaths(root)),
        pytest.raises(ConfigError, match="another process is at work in it; allowed: wait"),
    ):
        again()
    assert [path.name for path in root.iterdir()] == [".lock"]
    again()
