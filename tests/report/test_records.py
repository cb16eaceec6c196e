"""Finding and reading the runs of sweeps, whatever lies in their directories."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.collect import collect, row_of
from coreai_opt.report.commands import rerun_command
from coreai_opt.report.records import RunRow, Unreadable
from tests.conftest import ROOT
from tests.helpers.synthetic_records import make_record, make_sweep, write_run, write_sweep_file


def states(root: Path) -> dict[str, str]:
    return {str(row.folder.relative_to(root)): row.state for row in collect([root]).rows}


def test_runs_are_found_four_levels_down_and_not_in_what_runs_keep(tmp_path: Path) -> None:
    found = ("0", "2026-11-22/10-15-00/3", "a/b/c/d")
    left_out = ("a/b/c/d2/e", "attempt-1", "trunks/x", "s/checkpoints", "s/resume", "s/.hydra")
    for number, name in enumerate((*found, *left_out)):
        write_run(tmp_path / name, make_record(seed=number))
    write_run(tmp_path / "0" / "attempt-1", make_record(seed=77))
    assert set(states(tmp_path)) == set(found)


def test_the_directory_of_a_single_run_is_one_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", make_record())
    assert [row.folder for row in collect([folder]).rows] == [folder]


def test_how_runs_stand_is_what_their_records_and_heartbeats_say(tmp_path: Path) -> None:
    write_run(tmp_path / "done", make_record(seed=1))
    write_run(tmp_path / "broken", make_record(seed=2, status="failed"))
    write_run(tmp_path / "killed", make_record(seed=3, status="running"))
    write_run(tmp_path / "stopped", make_record(seed=4, status="interrupted"))
    write_run(tmp_path / "alive", make_record(seed=5, status="running"), is_alive=True)
    expected = {
        "done": "completed",
        "broken": "failed",
        "killed": "interrupted",
        "stopped": "interrupted",
        "alive": "running",
    }
    assert states(tmp_path) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param('{"status": "compl', "is not JSON", id="truncated"),
        pytest.param("", "is not JSON", id="empty"),
        pytest.param(b"\xff\xfe\x00", "is not JSON", id="binary"),
        pytest.param("[1, 2]", "it is no JSON object", id="a list"),
        pytest.param('{"name": "of somebody else"}', "it has no config", id="foreign"),
        pytest.param('{"config": {}, "status": "<b>"}', "its status is '<b>'", id="state"),
        pytest.param('{"config": {}, "status": []}', "its status is []", id="state of no name"),
        pytest.param('{"config": ' * 100_000, "is nested too deeply", id="deep"),
    ],
)
def test_a_record_that_cannot_be_read_is_reported_with_the_reason(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:
    write_run(tmp_path / "good", make_record())
    (tmp_path / "bad").mkdir()
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "bad" / "result.json").write_bytes(raw)
    collected = collect([tmp_path])
    assert [row.folder.name for row in collected.rows] == ["good"]
    (bad,) = collected.unreadable
    assert bad.path == tmp_path / "bad" / "result.json"
    assert reason in bad.reason


def test_a_link_to_nowhere_and_a_directory_are_no_records(tmp_path: Path) -> None:
    for name in ("gone", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "gone" / "result.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder" / "result.json").mkdir()
    reasons = {bad.path.parent.name: bad.reason for bad in collect([tmp_path]).unreadable}
    assert reasons == {"gone": "there is no such file", "folder": "is a directory"}


WRONG: list[Any] = [None, 3, "text", [1], {"a": [None]}, True, 1e999]


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_fields_of_any_other_type_are_read_as_missing(tmp_path: Path, value: Any) -> None:
    fields = [key for key in make_record() if key not in ("config", "status")]
    write_run(tmp_path, make_record(changes=dict.fromkeys(fields, value)))
    (tmp_path / "progress.json").write_text(json.dumps({"time": value, "pid": value}))
    row = row_of(tmp_path)
    assert not isinstance(row, Unreadable)
    told = (row.achieved, row.compression, row.speedup, row.metric("test/accuracy"), row.layers)
    assert told == (None, None, None, None, ())
    assert row.state == "completed"
    assert isinstance(row.error, tuple)


def test_an_error_whose_message_no_file_takes_is_read_escaped(tmp_path: Path) -> None:
    error = {"type": "RuntimeError", "message": "\ud800", "traceback": "\ud801"}
    write_run(tmp_path, make_record(changes={"error": error}))
    row = row_of(tmp_path)
    assert not isinstance(row, Unreadable)
    assert row.error == ("RuntimeError", "\\ud800", "\\ud801")


@pytest.mark.parametrize("content", ['{"time": "now", "pid": "me"}', '{"a":' * 100_000])
def test_a_foreign_heartbeat_is_no_sign_of_life(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, make_record(status="running"))
    (tmp_path / "progress.json").write_text(content)
    row = row_of(tmp_path)
    assert not isinstance(row, Unreadable)
    assert row.state == "interrupted"


def test_points_without_a_run_are_pending(tmp_path: Path) -> None:
    done, begun = make_record(seed=1), make_record(seed=2, changes={"config_hash": "other"})
    write_run(tmp_path / "one", done)
    write_run(tmp_path / "two", begun)
    points = {
        done["config_hash"]: {"folder": "moved", "overrides": ["seed=1"]},
        "2" * 16: {"folder": "two", "overrides": ["seed=2"]},
        "3" * 16: {"folder": "three", "overrides": ["seed=3"]},
        "4" * 16: "not a point",
    }
    write_sweep_file(tmp_path, points, ["power"])
    pending = [(one.folder, one.overrides) for one in collect([tmp_path]).pending]
    assert pending == [("three", ("seed=3",)), ("4" * 16, ())]


@pytest.mark.parametrize("content", ['{"points": ', "[]", "\ud800"], ids=["cut", "list", "binary"])
def test_a_sweep_file_that_cannot_be_read_leaves_the_records(tmp_path: Path, content: str) -> None:
    write_run(tmp_path / "0", make_record())
    raw = content.encode("utf-8", "surrogatepass")
    (tmp_path / "sweep.json").write_bytes(raw)
    collected = collect([tmp_path])
    assert len(collected.rows) == 1
    assert [bad.path.name for bad in collected.unreadable] == ["sweep.json"]
    assert collected.sweeps[0].name == tmp_path.name


def test_runs_of_the_same_experiment_count_once_the_completed_and_newest(tmp_path: Path) -> None:
    old = {"started": "2026-11-20T00:00:00.000+00:00"}
    write_run(tmp_path / "a" / "failed", make_record(status="failed"))
    write_run(tmp_path / "a" / "old", make_record(0.7, changes=old))
    write_run(tmp_path / "b" / "new", make_record(0.8))
    collected = collect([tmp_path / "a", tmp_path / "b"])
    assert [row.folder.name for row in collected.rows] == ["new"]
    assert collected.duplicates == 2


def test_sweeps_of_one_name_are_told_apart_and_a_directory_given_twice_is_one(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("a/sweep", "b/sweep")):
        write_run(tmp_path / name / "0", make_record(seed=number))
    roots = [tmp_path / "a/sweep", tmp_path / "b/sweep", tmp_path / "a/../a/sweep"]
    collected = collect(roots)
    assert [sweep.name for sweep in collected.sweeps] == ["sweep", f"sweep ({roots[1]})"]
    assert [row.sweep for row in collected.rows] == ["sweep", f"sweep ({roots[1]})"]


def test_a_directory_that_cannot_be_looked_into_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "good", make_record())
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    collected = collect([tmp_path])
    assert len(collected.rows) == 1
    assert [bad.reason for bad in collected.unreadable] == ["cannot be read, Permission denied"]


@pytest.mark.parametrize(
    ("fields", "sparsity"),
    [
        ({"sparsity": {"achieved": 0.9, "of_all_weights": 0.4}, "parameters": None}, 0.4),
        # Older records: that of all parameters, or of what is pruned.
        ({"sparsity": {"achieved": 0.9}, "parameters": {"total": 80, "nonzero": 20}}, 0.75),
        ({"sparsity": {"achieved": 0.9}, "parameters": None}, 0.9),
        ({"sparsity": None, "parameters": None}, None),
    ],
)
def test_the_sparsity_of_all_weights(fields: dict[str, Any], sparsity: float | None) -> None:
    row = RunRow(Path("a"), "", "completed", fields)
    assert row.sparsity == sparsity


def test_the_command_that_runs_a_record_alone_survives_a_shell() -> None:
    overrides = ["model._target_=my.Net", "+note='it''s'", 'a="$(rm x)"', "b=[1, 2]", "c=`d`;e"]
    command = rerun_command(make_record(overrides=overrides))
    assert shlex.split(command) == ["python", "train.py", *overrides]
    assert rerun_command({"overrides": "none of ours"}) == "python train.py"
    found = rerun_command({"flags": ["--config-dir=my options"], "overrides": ["experiment=mine"]})
    assert found == "python train.py '--config-dir=my options' experiment=mine"


def test_nothing_heavy_is_imported_for_a_report(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", runs=4)
    code = (
        "import sys\n"
        "from coreai_opt.report.__main__ import main\n"
        "main([sys.argv[1]])\n"
        "heavy = {'torch', 'pytorch_lightning', 'lightning', 'pandas', 'matplotlib.pyplot'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    program = [sys.executable, "-c", code, str(tmp_path / "s")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert (tmp_path / "s" / "report.html").is_file()
