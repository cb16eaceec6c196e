"""Searches that are gone on with: what has failed, was killed, or is to be made anew."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytest.importorskip("optuna", reason="needs the extra optuna")


from coreai_opt.config.errors import ConfigError
from tests.helpers.searching import Stub, closeness, make_quick, planned, search, states, study_in

POWER = "power=interval(1,4)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def test_n_trials_is_the_total_of_the_study(tmp_path: Path) -> None:
    command = (POWER, "hydra/sweeper/sampler=random")
    first, _ = search(tmp_path, *command, "hydra.sweeper.n_trials=3")
    again, stub = search(tmp_path, *command, "hydra.sweeper.n_trials=3")
    assert stub.launches == []
    assert not again.has_failed
    more, stub = search(tmp_path, *command, "hydra.sweeper.n_trials=5")
    assert first.plan.root == more.plan.root
    powers = [trial.params["power"] for trial in study_in(more).trials]
    # Were its seed the same, the sampler would draw the first points once more.
    assert len(set(powers)) == len(powers) == 5
    assert len(stub.folders) == 2


def failing_below(limit: float) -> Any:
    def value(config: Mapping[str, Any]) -> float:
        if config["schedule"]["power"] < limit:
            raise RuntimeError("diverged")
        return closeness(config)

    return value


def test_failed_runs_fail_their_trials_and_are_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (POWER, "hydra.sweeper.n_trials=3")
    run, _ = search(tmp_path, *command, stub=Stub(failing_below(2)))  # the second, of power 1.0003
    assert states(run).count("FAIL") == 1
    assert states(run).count("COMPLETE") == 2
    assert run.has_failed
    [failed] = [trial for trial in study_in(run).trials if trial.state.name == "FAIL"]
    assert failed.user_attrs["run_status"] == "failed"
    assert failed.user_attrs["error"] == "RuntimeError: diverged"
    out = capsys.readouterr().out
    assert "diverged" in out
    assert f"-m sweep_name={run.plan.name} 'paths.sweep_root='" in out
    assert f" power={failed.params['power']}\n" in out
    assert "hydra/sweeper" not in out

    again, stub = search(tmp_path, *command)
    assert states(again).count("COMPLETE") == 3
    assert stub.folders == [failed.user_attrs["run_folder"]]
    assert study_in(again).trials[-1].params == failed.params
    assert "1 to make, 1 of them tried before" in capsys.readouterr().out
    assert not again.has_failed


def test_a_failed_trial_that_fails_again_is_tried_once_a_command(tmp_path: Path) -> None:
    command, value = (POWER, "hydra.sweeper.n_trials=3"), failing_below(2)
    for _ in range(2):
        run, stub = search(tmp_path, *command, stub=Stub(value))
    assert len(stub.folders) == 1
    run, stub = search(tmp_path, *command)
    assert len(stub.folders) == 1
    assert sorted(states(run)) == ["COMPLETE"] * 3 + ["FAIL"] * 2


def test_retry_none_counts_what_has_failed(tmp_path: Path) -> None:
    command = (POWER, "hydra.sweeper.n_trials=3", "sweep.retry=none")
    search(tmp_path, *command, stub=Stub(failing_below(2)))
    run, stub = search(tmp_path, *command)
    assert stub.folders == []
    [failed] = [trial for trial in study_in(run).trials if trial.state.name == "FAIL"]
    run, stub = search(tmp_path, *command, "hydra.sweeper.n_trials=4")
    assert len(stub.folders) == 1
    assert stub.folders != [failed.user_attrs["run_folder"]]


@pytest.mark.parametrize("bad", [None, math.nan, math.inf], ids=str)
def test_a_run_without_a_value_fails_its_trial_and_is_replaced(
    tmp_path: Path, bad: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []

    def value(config: Mapping[str, Any]) -> float | None:
        seen.append(config["schedule"]["power"])
        return bad if len(seen) == 1 else closeness(config)

    command = (POWER, "hydra.sweeper.n_trials=2")
    run, _ = search(tmp_path, *command, stub=Stub(value))
    assert states(run) == ["FAIL", "COMPLETE"]
    assert "no finite number in its record: val/accuracy" in capsys.readouterr().out
    assert not run.has_failed
    again, stub = search(tmp_path, *command)
    assert states(again) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert len(stub.folders) == 1  # a new point: that run has completed
    assert stub.folders[0] not in [study_in(again).trials[0].user_attrs["run_folder"]]


def test_a_study_without_any_value_is_a_failure(tmp_path: Path) -> None:
    run, _ = search(tmp_path, POWER, "hydra.sweeper.n_trials=2", stub=Stub(lambda config: None))
    assert run.has_failed
    assert not (run.plan.root / "optimization_results.yaml").exists()


class Killed(BaseException):
    """The process is gone: nothing that is caught."""


def killed_at_the_second(tmp_path: Path, *command: str) -> tuple[list[float], Any]:
    """The points that were at work in a search, and its value for the search that goes on."""
    seen: list[float] = []

    def value(config: Mapping[str, Any]) -> float:
        seen.append(config["schedule"]["power"])
        if len(seen) == 2:
            raise Killed
        return closeness(config)

    with pytest.raises(Killed):
        search(tmp_path, *command, stub=Stub(value))
    return seen, value


def test_a_search_that_is_killed_goes_on(tmp_path: Path) -> None:
    command = (POWER, "hydra.sweeper.n_trials=3")
    seen, value = killed_at_the_second(tmp_path, *command)
    run, _ = search(tmp_path, *command, stub=Stub(value))
    # The point that was at work is the first one.
    assert seen[2] == seen[1]
    assert sorted(states(run)) == ["COMPLETE"] * 3 + ["FAIL"]
    assert len(seen) == 4


def test_what_has_completed_in_a_batch_counts_when_the_search_is_killed(tmp_path: Path) -> None:
    command = (POWER, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2")
    seen, value = killed_at_the_second(tmp_path, *command)
    _, stub = search(tmp_path, *command, stub=Stub(value))
    assert len(seen) == 3  # the first run is found in its directory
    assert len(stub.folders) == 1


def test_fail_fast_ends_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(failing_below(5))
    run, _ = search(tmp_path, POWER, "sweep.fail_fast=true", stub=stub)
    assert len(stub.folders) == 1
    assert run.has_failed
    assert "the search ends: a run has failed (sweep.fail_fast=true)" in capsys.readouterr().out
    assert not (run.plan.root / ".fail_fast").exists()


def test_too_many_failures_end_the_search(tmp_path: Path) -> None:
    most = ("hydra.sweeper.max_failure_rate=0.5", "hydra.sweeper.n_jobs=2")
    run, stub = search(tmp_path, POWER, *most, stub=Stub(failing_below(5)))
    assert states(run) == ["FAIL"] * 2
    assert len(stub.launches) == 1


def test_retry_all_begins_the_study_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (POWER, "hydra.sweeper.n_trials=2")
    first, stub = search(tmp_path, *command)
    before = [trial.params for trial in study_in(first).trials]
    run, again = search(tmp_path, *command, "sweep.retry=all")
    assert [trial.params for trial in study_in(run).trials] == before
    assert again.folders == stub.folders
    kept = capsys.readouterr().out.partition("its trials are kept as '")[2].partition("'")[0]
    assert [trial.params for trial in study_in(run, kept).trials] == before


def test_code_that_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (POWER, "hydra.sweeper.n_trials=2")
    run, stub = search(tmp_path, *command)
    path = run.plan.root / stub.folders[0] / "result.json"
    record = json.loads(path.read_text())
    record["git"] = {"sha": "another", "dirty": False, "changes": None}
    path.write_text(json.dumps(record))
    capsys.readouterr()

    search(tmp_path, *command)
    assert "1 run was made before the code changed" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="before the code changed; allowed: sweep"):
        search(tmp_path, *command, "sweep.on_code_change=error")
    run, second = search(tmp_path, *command, "sweep.on_code_change=rerun")
    assert second.folders == stub.folders[:1]
    assert states(run) == ["COMPLETE"] * 2


def test_one_search_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="another process is at work on the search in")
    with planned(tmp_path, POWER) as run, FileLock(run.plan.root / ".search.lock"), refused:
        run.run(Stub())  # type: ignore[arg-type]
    assert not (run.plan.root / "study.db").exists()


def test_the_ends_of_numbers_may_change(tmp_path: Path) -> None:
    search(tmp_path, POWER, "hydra.sweeper.n_trials=2")
    run, _ = search(tmp_path, "power=interval(2,3)", "hydra.sweeper.n_trials=4")
    assert all(2 <= trial.params["power"] <= 3 for trial in study_in(run).trials[2:])
