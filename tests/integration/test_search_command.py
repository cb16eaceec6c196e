"""``python train.py -m hydra/sweeper=optuna`` with real runs: killed, interrupted, failing."""

import signal
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

pytest.importorskip("optuna", reason="needs the extra optuna")

import optuna

from tests.conftest import Command
from tests.helpers.processes import QUICK, record_in, started, wait_for

pytestmark = pytest.mark.slow

SEARCH = ["-m", "hydra/sweeper=optuna", *QUICK, "trainer.max_epochs=1", "total_iters=20"]
THREE = [*SEARCH, "power=interval(1,4)", "hydra.sweeper.n_trials=3"]


def study_of(work: Path, name: str | None = None) -> Any:
    [path] = work.glob("multirun/*/study.db")
    return optuna.load_study(study_name=name or path.parent.name, storage=f"sqlite:///{path}")


def folders(work: Path) -> list[Path]:
    """Return the directories of the search's runs, the first one first."""
    found = [path.parent for path in work.glob("multirun/*/*/result.json")]
    return sorted(found, key=lambda root: str(record_in(root)["started"]))


def is_begun(work: Path, number: int) -> bool:
    found = folders(work)
    return len(found) == number and (found[-1] / "progress.json").exists()


def test_a_search_that_is_killed_goes_on_to_its_end(work: Path, command: Command) -> None:
    with started(work, *THREE) as process:
        wait_for(process, lambda: is_begun(work, 2), "second run")
        process.send_signal(signal.SIGKILL)
        process.wait()
    at_work = folders(work)[1]
    assert record_in(at_work)["status"] == "running"
    done = command(*THREE)
    assert done.returncode == 0, done.stderr
    assert "1 trials done before, 2 to make, 1 of them tried before" in done.stdout
    assert len(folders(work)) == 3
    assert record_in(at_work)["attempts"] == 2

    study = study_of(work)
    completed = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(completed) == 3
    for trial in completed:
        [path] = work.glob(f"multirun/*/{trial.user_attrs['run_folder']}")
        record = record_in(path)
        assert trial.user_attrs["run_id"] == record["run_id"]
        assert trial.user_attrs["config_hash"] == record["config_hash"]
        assert trial.value == record["objective"]["value"]
    results = OmegaConf.load(next(work.glob("multirun/*/optimization_results.yaml")))
    assert results.best_value == study.best_value

    again = command(*THREE)
    assert (again.returncode, len(folders(work))) == (0, 3)
    assert "3 trials done before, 0 to make" in again.stdout


def test_ctrl_c_ends_the_run_and_the_search_goes_on(work: Path, command: Command) -> None:
    with started(work, *THREE) as process:
        wait_for(process, lambda: is_begun(work, 1), "first run")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    assert process.returncode == 2, err
    assert "3 runs, 2 completed, 1 interrupted" in out
    assert [trial.state.name for trial in study_of(work).trials] == ["FAIL", *["COMPLETE"] * 2]
    done = command(*THREE)
    assert done.returncode == 0, done.stderr
    assert len(folders(work)) == 3
    assert "2 trials done before, 1 to make, 1 of them tried before" in done.stdout


def test_the_second_ctrl_c_ends_the_search(work: Path, command: Command) -> None:
    with started(work, *THREE) as process:
        for number in (1, 2):
            wait_for(process, lambda number=number: is_begun(work, number), f"run {number}")
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=180)
    assert process.returncode == 130
    assert len(folders(work)) == 2
    done = command(*THREE)
    assert done.returncode == 0, done.stderr
    assert "0 trials done before, 3 to make, 2 of them tried before" in done.stdout
    assert len(folders(work)) == 3


def test_a_run_that_fails_and_a_config_that_is_refused(work: Path, command: Command) -> None:
    varied = ["optimizer.lr=choice(0.1,-1)", "total_iters=choice(20,9000)"]
    done = command(*SEARCH, *varied, "hydra.sweeper.n_trials=16", "hydra/sweeper/sampler=random")
    assert done.returncode == 2, done.stderr
    assert "is refused: total_iters=9000" in done.stdout
    assert "optimizer.lr=-1" in done.stdout.partition("to run one alone:")[2]
    trials = study_of(work).trials
    ends = {
        (str(trial.params["optimizer.lr"]), trial.params["total_iters"]): trial.state.name
        for trial in trials
    }
    assert len(trials) == 16
    assert (ends["0.1", 20], ends["-1", 20]) == ("COMPLETE", "FAIL")
    assert ends["0.1", 9000] == "PRUNED"


def test_two_objectives(work: Path, command: Command) -> None:
    given = ["-m", "hydra/sweeper=optuna_pareto", *SEARCH[2:], "target_sparsity=choice(0.5,0.98)"]
    done = command(*given, "hydra.sweeper.n_trials=6")
    assert done.returncode == 0, done.stderr
    assert len(folders(work)) == 2
    results = OmegaConf.load(next(work.glob("multirun/*/optimization_results.yaml")))
    front = {tuple(one["values"]) for one in results.solutions}
    records = [record_in(root) for root in folders(work)]
    values = {(one["objective"]["value"], one["sparsity"]["achieved"]) for one in records}
    assert front <= values
    assert max(values, key=lambda pair: pair[1]) in front
