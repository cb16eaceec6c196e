"""What is run of a sweep that has been run before, and what its directory holds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.runs import data_files
from coreai_opt.runs.run_record import write_json
from coreai_opt.sweep.folder import SweepFolder, SweepJob
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.selection import select
from tests.helpers.stub_launchers import begin, complete, fail

Planning = Callable[..., Plan]


@pytest.fixture
def made(plan: Planning, tmp_path: Path) -> Plan:
    return replace(plan("power=1,2,3,4,5"), root=tmp_path / "sweep")


@pytest.fixture
def entries(made: Plan) -> list[SweepJob]:
    """Five points: completed, failed, interrupted, unreadable, new."""
    folder = SweepFolder(made.root)
    entries = folder.entries(made.points)
    folder.enter(made, entries)
    complete(entries[0])
    with pytest.raises(ValueError, match="too hot"):
        fail(entries[1])
    begin(entries[2])  # by this very process, which is not at work on it
    entries[3].paths.root.mkdir()
    entries[3].paths.result.write_text('{"config":')
    return entries


CHOICES: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "failed": ({}, [1, 2, 3, 4], [1, 3]),
    "none": ({"retry": "none"}, [2, 4], []),
    "all": ({"retry": "all"}, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
}


@pytest.mark.parametrize(("given", "to_run", "afresh"), CHOICES.values(), ids=CHOICES)
def test_what_is_run_again(
    entries: list[SweepJob], given: dict[str, Any], to_run: list[int], afresh: list[int]
) -> None:
    selection = select(entries, SweepSettings(**given))
    assert list(selection.states.values()) == [
        "completed",
        "failed",
        "interrupted",
        "unreadable",
        "new",
    ]
    assert [entries.index(entry) for entry in selection.to_run] == to_run
    assert [entries.index(entry) for entry in selection.restarts] == afresh
    ends = {entries.index(one.entry): one.end for one in selection.settled}
    assert ends == {
        number: ("completed", "failed", "", "failed")[number]
        for number in range(5)
        if number not in to_run
    }
    assert all(outcome.was_done for outcome in selection.settled)


def test_an_unreadable_record_is_said(entries: list[SweepJob]) -> None:
    selection = select(entries, SweepSettings())
    assert selection.sentences == [
        f"{entries[3].paths.result} cannot be read: set aside, and the run begins anew"
    ]


ODD: list[dict[str, Any]] = [
    {"objective": "x"},
    {"error": "boom", "status": "failed"},
    {"versions": "x"},
    {"data": {"files": ["a"]}},
    {"wall_seconds": "long"},
    {"status": 3},
    {"config_hash": "0" * 16},
]


@pytest.mark.parametrize("fields", ODD, ids=str)
def test_a_record_of_another_form_or_experiment_is_none(
    entries: list[SweepJob], fields: dict[str, Any]
) -> None:
    record = json.loads(entries[0].paths.result.read_text())
    write_json(entries[0].paths.result, {**record, **fields})
    selection = select(entries[:1], SweepSettings(retry="none"))
    assert list(selection.states.values()) == ["unreadable"]
    assert [outcome.end for outcome in selection.settled] == ["failed"]


def test_signs_of_life_of_another_form_are_none(entries: list[SweepJob]) -> None:
    progress = json.loads(entries[2].paths.progress.read_text())
    for fields in ({"time": None}, {"pid": "x"}, {"step": []}):
        write_json(entries[2].paths.progress, {**progress, **fields})
        assert entries[2].state() == "interrupted"
        assert entries[2].earlier().step == 0  # type: ignore[union-attr]


def of_other_code(entry: SweepJob) -> None:
    record = json.loads(entry.paths.result.read_text())
    write_json(entry.paths.result, {**record, "git": {"sha": "0" * 40, "dirty": False}})


def with_data(entry: SweepJob, file: Path) -> None:
    record = json.loads(entry.paths.result.read_text())
    facts = {str(file): data_files.file_facts(file)}
    write_json(entry.paths.result, {**record, "data": {"files": facts}})


def change_code(entry: SweepJob, file: Path) -> None:
    of_other_code(entry)


def change_data(entry: SweepJob, file: Path) -> None:
    with_data(entry, file)
    file.write_text("other images")


@pytest.mark.parametrize(("change", "what"), [(change_code, "code"), (change_data, "data")])
def test_a_change_is_said_run_again_or_refused(
    entries: list[SweepJob], tmp_path: Path, change: Callable[[SweepJob, Path], None], what: str
) -> None:
    file = tmp_path / "images"
    file.write_text("images")
    before = select(entries[:1], SweepSettings(on_code_change="error"))
    assert (before.to_run, before.sentences) == ([], [])
    change(entries[0], file)
    said = f"1 run was made before the {what} changed"
    warned = select(entries[:1], SweepSettings())
    assert warned.to_run == []
    assert warned.sentences == [
        f"{said}: counted or gone on with; sweep.on_code_change=rerun runs them again"
    ]
    again = select(entries[:1], SweepSettings(on_code_change="rerun"))
    assert (again.to_run, again.restarts) == (entries[:1], entries[:1])
    assert again.sentences == [f"{said}: run again"]
    with pytest.raises(ConfigError, match=f"{said}; allowed: sweep.on_code_change=warn or rerun"):
        select(entries[:1], SweepSettings(on_code_change="error"))


def test_the_same_data_elsewhere_in_time_is_no_change(
    entries: list[SweepJob], tmp_path: Path
) -> None:
    file = tmp_path / "images"
    file.write_text("images")
    with_data(entries[0], file)
    file.write_text("images")  # another time of change, the same content
    assert select(entries[:1], SweepSettings()).sentences == []
    file.unlink()  # it may lie elsewhere today
    assert select(entries[:1], SweepSettings()).sentences == []


def test_a_folder_of_data_changes_with_its_list_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_text("one")
    facts = data_files.file_facts(tmp_path / "a")
    record = {"data": {"files": {str(tmp_path / "a"): facts}}}
    assert data_files.changed_files(record) == []
    (tmp_path / "a" / "2.png").write_text("two")
    data_files._facts_once.cache_clear()
    assert data_files.changed_files(record) == [str(tmp_path / "a")]


def test_files_are_those_that_the_module_or_the_config_names(tmp_path: Path) -> None:
    class Module:
        def data_files(self) -> list[Path]:
            return [tmp_path / "images", tmp_path / "nothing"]

    (tmp_path / "images").write_text("images")
    (tmp_path / "labels").write_text("labels")
    named = {"data": {"_target_": "x", "root": str(tmp_path / "labels"), "list": ["no\0path", 3]}}
    assert list(data_files.data_files(named, Module())) == [str(tmp_path / "images")]
    assert list(data_files.data_files(named, object())) == [str(tmp_path / "labels")]


def test_an_experiment_keeps_the_folder_that_it_has(plan: Planning, made: Plan) -> None:
    folder = SweepFolder(made.root)
    first = folder.entries(made.points)
    complete(first[0])
    named = plan("power=1,2", "seed=1,2", f"hydra.sweep.dir={made.root}", f"sweep_name={made.name}")
    again = {entry.point.config_hash: entry for entry in folder.entries(named.points)}
    assert again[first[0].point.config_hash].paths.root == first[0].paths.root
    assert again[first[1].point.config_hash].paths.root.name.startswith("power-2_seed-1_")
    folder.enter(made, first)
    again = {
        entry.point.config_hash: entry for entry in SweepFolder(made.root).entries(named.points)
    }
    assert again[first[1].point.config_hash].paths.root == first[1].paths.root


def test_sweep_json_gathers_commands_and_points(plan: Planning, made: Plan) -> None:
    folder = SweepFolder(made.root)
    folder.enter(made, folder.entries(made.points))
    more = plan("power=5,6", "seed=1,2", f"hydra.sweep.dir={made.root}", f"sweep_name={made.name}")
    for _ in range(2):
        folder.enter(more, folder.entries(more.points))
    content = json.loads(folder.file.read_text())
    assert content["name"] == made.name
    assert content["knobs"] == ["power", "seed"]
    assert content["commands"] == [list(made.command), list(more.command)]
    assert len(content["points"]) == 5 + 3  # power=5 seed=1 is one of the first five
    assert all(len(point["folder"]) <= 100 for point in content["points"].values())


def test_the_directory_of_another_sweep_is_refused(plan: Planning, made: Plan) -> None:
    folder = SweepFolder(made.root)
    assert folder.problems(made) == []
    folder.enter(made, [])
    other = plan("seed=1,2", f"hydra.sweep.dir={made.root}")
    (problem,) = folder.problems(other)
    assert f"belongs to the sweep {made.name!r}, this one is called {other.name!r}" in str(problem)
    joined = plan("seed=1,2", f"hydra.sweep.dir={made.root}", f"sweep_name={made.name}")
    assert folder.problems(joined) == []
    assert folder.problems(made) == []


@pytest.mark.parametrize("content", ['{"name":', "[]", '{"points": 3}', '{"points": {"a": 3}}'])
def test_a_damaged_sweep_json_is_written_anew(made: Plan, content: str) -> None:
    folder = SweepFolder(made.root)
    folder.root.mkdir(parents=True)
    folder.file.write_text(content)
    assert folder.problems(made) == []
    entries = folder.entries(made.points)
    folder.enter(made, entries)
    assert SweepFolder(made.root).name == made.name


def test_a_file_in_the_place_of_the_directory_is_refused(made: Plan) -> None:
    made.root.parent.mkdir(parents=True, exist_ok=True)
    made.root.write_text("")
    (problem,) = SweepFolder(made.root).problems(made)
    assert "is not a directory" in str(problem)


def test_a_completed_run_without_an_artefact_that_is_asked_for_gets_it(
    plan: Planning, tmp_path: Path
) -> None:
    made = replace(plan("power=1,2", "deploy=[torch]"), root=tmp_path / "sweep")
    entries = SweepFolder(made.root).entries(made.points)
    SweepFolder(made.root).enter(made, entries)
    for entry in entries:
        complete(entry)
    record = json.loads(entries[0].paths.result.read_text())
    record["deploy"] = {"targets": {"torch": {"error": None}}}
    write_json(entries[0].paths.result, record)
    selection = select(entries, SweepSettings())
    assert (selection.to_run, selection.restarts) == ([entries[1]], [])
    assert select(entries, SweepSettings(retry="none")).to_run == []
