"""The record is never half a file, and the heartbeat beats."""

import json
import threading
import time
from pathlib import Path

import pytest

from coreai_opt.runs import run_record as module
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process
from coreai_opt.runs.run_record import Heartbeat, Progress, Record, write_json


def test_a_record_is_there_from_the_start(tmp_path: Path) -> None:
    Record(RunPaths(tmp_path), {"seed": 3, "model": {"a": 1}}, ["seed=3"])
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["status"], record["seed"], record["overrides"]) == ("running", 3, ["seed=3"])
    assert record["finished"] is None


def test_a_misspelt_field_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Record(RunPaths(tmp_path), {}, []).update(metricks={})


def test_a_failed_record_keeps_the_cause(tmp_path: Path) -> None:
    record = Record(RunPaths(tmp_path), {}, [])
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        record.fail("failed", error)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["status"] == "failed"
    assert (written["error"]["type"], written["error"]["message"]) == ("ValueError", "outer")
    assert "inner" in written["error"]["traceback"]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    Record(RunPaths(tmp_path), {}, [], write=False).complete()
    with Heartbeat(tmp_path / "progress.json", Progress(), write=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK"])
def test_rank_zero_alone_is_the_main_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert is_main_process()
    monkeypatch.setenv(name, "0")
    assert is_main_process()
    monkeypatch.setenv(name, "1")
    assert not is_main_process()
    monkeypatch.undo()


def test_the_heartbeat_renews_its_file_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heartbeat, "PERIOD_S", 0.01)
    path, progress = tmp_path / "progress.json", Progress(0, 10)
    with Heartbeat(path, progress):
        first = json.loads(path.read_text())
        progress.step = 7
        deadline = time.monotonic() + 5
        while json.loads(path.read_text())["step"] != 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        renewed = json.loads(path.read_text())
    assert (first["step"], renewed["step"], renewed["total_steps"]) == (0, 7, 10)
    assert renewed["time"] > first["time"]
    assert {"host", "pid"} <= renewed.keys()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_json_replaces_the_old_file_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    before = path.stat().st_ino
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert path.stat().st_ino != before
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [float("nan"), float("inf"), 1.5], "b": {"c": 2}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, None, 1.5], "b": {"c": 2}}


def test_paths_in_the_record_are_relative_to_the_run(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert paths.relative(tmp_path / "checkpoints" / "best.ckpt") == "checkpoints/best.ckpt"
    assert paths.relative("/elsewhere/x.ckpt") == "/elsewhere/x.ckpt"


def test_the_jobs_of_a_sweep_ask_once_for_the_state_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(100))
    monkeypatch.setattr(module, "_git", lambda: {"sha": str(next(asked))})

    def sha(token: str | None) -> str:
        if token is None:
            monkeypatch.delenv("COREAI_OPT_SWEEP", raising=False)
        else:
            monkeypatch.setenv("COREAI_OPT_SWEEP", f'{{"command_id":"{token}"}}')
            assert JobEnvironment.received() is not None
        content = Record(RunPaths(tmp_path), {}, []).content
        content["git"]["dirty"] = True  # what one run does with its record is not another's
        return str(content["git"]["sha"])

    assert [sha(token) for token in ("a", "a", None, None, "a", "b", "b")] == list("0012033")
    monkeypatch.undo()
