"""What a sweep tells its jobs: what to begin anew, what another command has done meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from coreai_opt.config.errors import RunFailedError
from coreai_opt.runs.job_environment import VARIABLE, JobEnvironment
from coreai_opt.sweep.folder import SweepFolder, SweepJob
from coreai_opt.sweep.plan import Plan
from coreai_opt.training import run as run_module
from coreai_opt.training.run import _restarts
from tests.helpers.stub_launchers import complete, fail


@pytest.fixture
def entry(plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepJob:
    monkeypatch.setattr(run_module, "_in_sweep", lambda: True)
    return SweepFolder(tmp_path / "sweep").entries(plan("power=1,2").points)[0]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[JobEnvironment], None]:
    def give(environment: JobEnvironment) -> None:
        text = environment.override().partition("=")[2].strip("'")
        monkeypatch.setenv(VARIABLE, text)

    return give


@pytest.mark.parametrize(
    "environment",
    [
        JobEnvironment(),
        JobEnvironment(3, "a1"),
        JobEnvironment(0, "b", True),
        JobEnvironment(1, "c", True, True),
        JobEnvironment(2, "d", config_hash="0a", warmup="warmup-0", devices=("0", "1")),
    ],
)
def test_it_arrives_as_it_was_given(environment: JobEnvironment, given: Any) -> None:
    given(environment)
    assert JobEnvironment.received() == environment
    key, _, value = environment.override().lstrip("+").partition("=")
    config = OmegaConf.create({})
    OmegaConf.update(config, key, value)
    assert OmegaConf.select(config, f"hydra.job.env_set.{VARIABLE}") == value


def test_without_one_nothing_is_done(entry: SweepJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    complete(entry)
    assert JobEnvironment.received() is None
    assert not _restarts(entry.paths)


def test_a_run_begins_anew_only_if_it_is_as_the_sweep_saw_it(entry: SweepJob, given: Any) -> None:
    complete(entry)
    given(JobEnvironment(entry.mtime_ns(), "a", restart=True))
    assert _restarts(entry.paths)
    given(JobEnvironment(entry.mtime_ns() - 1, "a", restart=True))
    assert not _restarts(entry.paths)
    given(JobEnvironment(entry.mtime_ns(), "a"))
    assert not _restarts(entry.paths)


def test_a_record_that_cannot_be_read_is_archived(entry: SweepJob, given: Any) -> None:
    complete(entry)
    entry.paths.result.write_text("{")
    given(JobEnvironment(entry.mtime_ns(), "a", restart=True))
    assert not _restarts(entry.paths)
    assert (entry.paths.root / "attempt-1" / "result.json").read_text() == "{"
    assert not entry.paths.result.exists()


def test_what_has_failed_in_another_command_since_is_not_run(entry: SweepJob, given: Any) -> None:
    with pytest.raises(ValueError, match="too hot"):
        fail(entry)
    given(JobEnvironment(entry.mtime_ns(), "a"))
    assert not _restarts(entry.paths)
    given(JobEnvironment(0, "a"))
    with pytest.raises(RunFailedError, match="ValueError: too hot"):
        _restarts(entry.paths)
    assert json.loads(entry.paths.result.read_text())["status"] == "failed"
