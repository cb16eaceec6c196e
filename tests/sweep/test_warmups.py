"""Which warm-up runs a sweep adds, and which jobs wait for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.collect import collect
from coreai_opt.runs.run_record import write_json
from coreai_opt.sweep.folder import SweepFolder
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.selection import Selection, select
from coreai_opt.sweep.warmups import add_warmups
from coreai_opt.warmup.sources import sources_of_this_process
from lightning_callbacks._resume.checkpoint_files import write_checkpoint
from tests.helpers.stub_launchers import begin, complete

Planned = Callable[..., tuple[Plan, Selection]]


@pytest.fixture
def planned(plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Plan a sweep as a command does, and return it with what is to be run."""
    git = {"sha": "1", "dirty": False, "changes": None}
    monkeypatch.setattr("coreai_opt.runs.run_record._git", lambda: git)

    def make(*overrides: str, threads: int | None = None) -> tuple[Plan, Selection]:
        made = plan("begin_step=20", *overrides, "sweep_name=x", f"paths.sweep_root={tmp_path}")
        selection = select(SweepFolder(made.root).entries(made.points), made.settings)
        add_warmups(selection, made.root, made.settings, threads)
        return made, selection

    return make


def names(selection: Selection) -> list[str]:
    return [job.paths.root.name for job in selection.warmups]


def test_jobs_that_share_a_key_wait_for_one_run(planned: Planned) -> None:
    made, selection = planned("power=1,2", "seed=1,2,3", "target_sparsity=0.5,0.9")
    assert len(names(selection)) == len(set(names(selection))) == 3
    assert len(selection.to_run) == 12
    for job in selection.to_run:
        warmup = selection.warmup_of[job.point.config_hash]
        assert warmup in selection.warmups
        assert warmup.point.config["seed"] == job.point.config["seed"]
    assert len(made.points) == 12


@pytest.mark.parametrize(
    "overrides",
    [
        ["power=1"],
        ["seed=1,2"],
        ["power=1,2", "warmup=off"],
        ["power=1,2", "trunk=off"],
        ["power=1,2", "begin_step=0"],
        ["schedule=none,poly"],
    ],
    ids=" ".join,
)
def test_where_nothing_is_shared_there_is_none(planned: Planned, overrides: list[str]) -> None:
    selection = planned(*overrides)[1]
    assert (selection.warmups, selection.warmup_of) == ([], {})


def test_jobs_that_go_on_or_run_elsewhere_need_none(planned: Planned) -> None:
    selection = planned("power=1,2")[1]
    first, second = selection.to_run
    begin(first)  # at work
    second.paths.root.mkdir(parents=True)
    write_checkpoint(second.paths.resume, 30, lambda path: path.write_bytes(b"x"), True, 1)
    assert planned("power=1,2")[1].warmups == []


def test_jobs_that_begin_anew_by_their_settings_share_one(planned: Planned) -> None:
    for job in planned("power=1,2")[1].to_run:
        job.paths.root.mkdir(parents=True)
        write_checkpoint(job.paths.resume, 30, lambda path: path.write_bytes(b"x"), True, 1)
    assert len(planned("power=1,2", "resume=never")[1].warmup_of) == 2


def made_of(selection: Selection, **fields: Any) -> None:
    """Complete a warm-up run as a job does."""
    (job,) = selection.warmups
    record = begin(job)
    write_checkpoint(job.paths.resume, 20, lambda path: path.write_bytes(b"x"), True, 1)
    facts = {"steps": 20, "seconds": 1.0, "sources": sources_of_this_process()}
    record.update(warmup=facts, threads=2, **fields)
    record.complete()


def test_a_warm_up_run_that_is_there_serves_further_jobs(planned: Planned, tmp_path: Path) -> None:
    made_of(planned("power=1,2")[1])
    selection = planned("power=3")[1]
    assert selection.warmups == []
    assert len(selection.warmup_of) == 1
    (sentence,) = selection.sentences
    assert sentence.startswith("1 run starts from the dense warm-up in warmup-")
    complete(selection.to_run[0])
    assert [row.state for row in collect([tmp_path / "x"]).rows] == ["completed"]


def test_what_is_completed_needs_none(planned: Planned) -> None:
    first = planned("power=1,2")[1]
    made_of(first)
    for job in first.to_run:
        complete(job)
    again = planned("power=1,2")[1]
    assert (again.to_run, again.warmups, again.warmup_of) == ([], [], {})
    shutil.rmtree(first.warmups[0].paths.root)
    assert planned("power=1,2")[1].warmups == []
    # The one job that is left trains its own.
    left = planned("power=1,2,3")[1]
    assert (len(left.to_run), left.warmups, left.warmup_of) == (1, [], {})


def damaged(root: Path) -> None:
    for path in root.glob("resume/*"):
        path.write_bytes(b"y")


def other_code(root: Path) -> None:
    text = (root / "result.json").read_text()
    (root / "result.json").write_text(text.replace('"sha": "1"', '"sha": "0"'))


def other_data(root: Path) -> None:
    data = root.parent / "data.csv"
    data.write_text("1")
    text = (root / "result.json").read_text()
    files = f'"data": {{"files": {{"{data}": {{"bytes": 9, "modified": 9, "sha256": "0"}}}}}}'
    (root / "result.json").write_text(text.replace('"data": null', files, 1))


def unreadable(root: Path) -> None:
    (root / "result.json").write_text("{")


@pytest.mark.parametrize("change", [damaged, other_code, other_data, unreadable])
def test_one_of_no_use_is_trained_again(planned: Planned, change: Any) -> None:
    first = planned("power=1,2")[1]
    made_of(first)
    change(first.warmups[0].paths.root)
    again = planned("power=3,4")[1]
    assert names(again) == names(first)
    assert again.restarts == again.warmups
    # For one job alone it is not worth while.
    assert planned("power=3")[1].warmups == []


def test_with_another_share_of_the_machine_it_is_trained_again(planned: Planned) -> None:
    made_of(planned("power=1,2")[1])
    assert planned("power=3,4", threads=2)[1].warmups == []
    again = planned("power=3,4", threads=1)[1]
    assert again.restarts == again.warmups != []


@pytest.mark.parametrize(
    ("kind", "tries", "anew"),
    [
        ("WarmupNotPossibleError", False, False),
        ("ZeroDivisionError", True, True),
        ("LostProcessError", True, False),  # its checkpoint is whole
    ],
)
def test_one_that_has_failed_is_tried_again_unless_it_cannot_be(
    planned: Planned, kind: str, tries: bool, anew: bool
) -> None:
    first = planned("power=1,2")[1]
    (job,) = first.warmups
    record = begin(job)
    record.fail("failed", RuntimeError("why"))
    content = {**record.content, "error": {"type": kind, "message": "why", "traceback": ""}}
    write_json(job.paths.result, content)
    again = planned("power=1,2")[1]
    assert bool(again.warmups) == tries
    assert again.restarts == (again.warmups if anew else [])
    if not tries:
        assert "no dense warm-up is shared (" in again.sentences[0]
        assert again.warmup_of == {}
