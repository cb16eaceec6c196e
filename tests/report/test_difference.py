"""Two runs side by side: their numbers, and where their configs and environments differ."""

import re
from pathlib import Path

import pytest

from coreai_opt.report.__main__ import main
from coreai_opt.report.collect import row_of
from coreai_opt.report.comparing.difference import MetricPair, ValuePair, difference
from coreai_opt.report.records import RunRow
from tests.helpers.synthetic_records import any_record, make_record, write_run


def row(folder: Path, record: dict[str, object]) -> RunRow:
    found = row_of(write_run(folder, record))
    assert isinstance(found, RunRow)
    return found


def test_numbers_are_subtracted_and_what_one_lacks_has_no_difference(tmp_path: Path) -> None:
    one = row(tmp_path / "a", any_record(["lr=1"], {"acc": 0.5, "loss": 1.0}, wall_seconds=4.0))
    two = row(tmp_path / "b", any_record(["lr=2"], {"acc": 0.75, "f1": 0.5}, wall_seconds=6.0))
    found = difference(one, two)
    assert found.metrics == [
        MetricPair("acc", 0.5, 0.75),
        MetricPair("loss", 1.0, None),
        MetricPair("seconds", 4.0, 6.0),
        MetricPair("f1", None, 0.5),
    ]
    assert [pair.difference for pair in found.metrics] == [0.25, None, 2.0, None]


def test_configs_differ_key_by_key_and_the_own_directory_is_the_same(tmp_path: Path) -> None:
    records = [any_record([f"model.width={width}", "lr=1e-3"]) for width in (8, 16)]
    folders = [tmp_path / "sweep" / name for name in ("0_a", "1_b")]
    for record, folder in zip(records, folders, strict=True):
        record["config"] |= {
            "log": {"dir": f"{folder}/logs", "list": [str(folder), "x"], "other": "/data/0_a"},
            "relative": f"multirun/sweep/{folder.name}",
            "beside": f"{folder}x",
        }
    records[1]["config"] |= {"log": {**records[1]["config"]["log"], "level": None}}
    found = difference(*(row(at, one) for at, one in zip(folders, records, strict=True)))
    assert found.config == [
        ValuePair("model.width", "8", "16"),
        ValuePair("beside", f"{folders[0]}x", f"{folders[1]}x"),
        ValuePair("log.level", "(not there)", "null"),
    ]


def test_code_and_versions_differ_key_by_key(tmp_path: Path) -> None:
    git = {"sha": "b" * 40, "dirty": False, "changes": None}
    one = row(tmp_path / "a", make_record(0.5, seed=1))
    two = row(tmp_path / "b", make_record(0.5, seed=1, changes={"git": git, "threads": 4}))
    found = difference(one, two)
    assert found.config == []
    assert found.environment == [
        ValuePair("git.sha", "3f9a1c7e" * 5, "b" * 40),
        ValuePair("threads", "2", "4"),
    ]


def test_the_command_shows_two_runs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        write_run(tmp_path / name, any_record([f"lr={lr}"], {"score": 10 * lr}))
    before = sorted(tmp_path.rglob("*"))
    main([str(tmp_path / "a"), str(tmp_path / "b"), "--compare"])
    told = capsys.readouterr().out
    assert re.search(r"^ *score +1 +2 +\+1 *$", told, re.MULTILINE)
    assert re.search(r"^ *lr +0.1 +0.2 *$", told, re.MULTILINE)
    assert "environment: no difference" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--compare"], "--compare: 1 given; allowed: the directories of two runs"),
        (["a", ".", "--compare"], "--compare: '.' has 2 readable records; allowed: the directory"),
        (["a", "b", "--compare", "--out", "x"], "allowed: --compare without --out"),
        (["a", "b", "--compare", "--live"], "allowed: --compare without --live"),
        (["a", "--live", "--no-figures"], "--live writes no files; allowed: --live without"),
        (["a", "--port", "8000"], "--port is of the server; allowed: --port with --live"),
        (["a", "--live", "--port", "0"], "'0'; allowed: 1 to 65535"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        write_run(tmp_path / name, any_record([f"lr={lr}"]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
