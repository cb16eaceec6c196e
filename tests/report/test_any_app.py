"""Report on runs of any app, without pruning and with an objective, a seed or neither."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report.__main__ import main
from coreai_opt.report.metric_choice import chosen_metric, direction
from coreai_opt.report.records import Collected, RunRow, SweepFile
from coreai_opt.report.tables import board_of
from tests.helpers.synthetic_records import any_record, write_run


def collected_from(*records: Mapping[str, Any]) -> Collected:
    rows = [RunRow(Path(f"/s/{at}"), "s", "completed", one) for at, one in enumerate(records)]
    return Collected(tuple(rows), (), (SweepFile(Path("/s"), "s"),), ())


def grid(seed_key: str = "seed", **changes: Any) -> list[dict[str, Any]]:
    return [
        any_record(
            [f"lr={lr}", f"model.width={width}", f"{seed_key}={seed}"],
            {"score": lr * width + seed / 100},
            **changes,
        )
        for lr in (0.25, 0.5)
        for width in (8, 16)
        for seed in (1, 2, 3)
    ]


def test_an_app_of_its_own_kind_gets_no_word_of_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, record in enumerate(grid()):
        write_run(tmp_path / str(number), record)
    main([str(tmp_path)])
    told = capsys.readouterr().out
    assert re.search(r"^ *rank +lr +model.width +seeds +score +std *$", told, re.MULTILINE)
    assert re.search(r"^ *1 +0.5 +16 +3 +8.02 +0.01 *$", told, re.MULTILINE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL).lower()
    for word in ("prun", "sparsity", "dense", "speed-up", "compression", "blalock"):
        assert word not in told.lower()
        assert word not in shown
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert not [name for name in header if "sparsity" in name or "dense" in name]
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "heatmap" in figures
    assert not figures & {"accuracy", "schedules", "layers"}


def test_a_seed_of_any_key_is_the_seed_and_no_knob() -> None:
    for key in ("seed", "data.seed"):
        board = board_of(collected_from(*grid(key)), "score")
        assert board.varying() == ["lr", "model.width"]
        assert [group.seeds for group in board.groups] == [3, 3, 3, 3]


def test_the_seed_nearest_to_the_root_is_it_and_another_is_a_knob() -> None:
    records = [any_record([f"seed={seed}", "data.seed=1"], {"score": 1.0}) for seed in (1, 2)]
    records.append(any_record(["seed=1", "data.seed=2"], {"score": 1.0}))
    board = board_of(collected_from(*records))
    assert board.varying() == ["data.seed"]
    assert [row.seed for group in board.groups for row in group.rows] == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("metric", "objective", "expected"),
    [
        pytest.param("val/loss", None, "min", id="by name"),
        pytest.param("step_time", None, "min", id="a word of the name"),
        pytest.param("lifetime", None, None, id="a part of a word says nothing"),
        pytest.param("score", None, None, id="nothing says it"),
        pytest.param("score", {"name": "score", "mode": "min"}, "min", id="the objective's"),
        pytest.param("score", {"name": "score", "mode": None}, None, id="the objective's is null"),
        pytest.param("score", {"name": "other", "mode": "min"}, None, id="of another metric"),
        pytest.param("loss", {"name": "loss", "mode": "max"}, "max", id="before the name"),
    ],
)
def test_which_way_is_better(
    metric: str, objective: Mapping[str, Any] | None, expected: str | None
) -> None:
    record = any_record(["lr=1"], {metric: 1.0}, objective and {**objective, "value": 1.0})
    collected = collected_from(record)
    assert direction(metric, collected.rows) == expected
    board = board_of(collected, metric)
    assert (board.mode, board.is_mode_assumed) == (expected or "max", expected is None)
    assert not board_of(collected, metric, "min").is_mode_assumed


def test_that_a_way_is_assumed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "0", any_record(["lr=1"], {"score": 1.0}))
    sentence = "more score is taken to be better; --mode min says otherwise"
    main([str(tmp_path), "--no-figures"])
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / "report.html").read_text(encoding="utf-8")
    main([str(tmp_path), "--no-figures", "--mode", "min"])
    assert sentence not in capsys.readouterr().out


def test_without_an_objective_the_most_frequent_metric_is_taken() -> None:
    records = [any_record(["lr=1"], {"b": 1.0, "a": 1.0}), any_record(["lr=2"], {"b": 1.0})]
    assert chosen_metric(collected_from(*records).rows, None) == "b"
    records[0]["objective"] = {"name": "wanted", "value": 3.0, "mode": None, "values": [3.0, 4.0]}
    board = board_of(collected_from(*records))
    assert (board.metric, board.unmeasured, board.groups[0].mean) == ("wanted", 1, 3.0)


def test_runs_without_any_number_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0", any_record(["lr=1"]))
    main([str(tmp_path)])
    told = capsys.readouterr().out
    assert "1 run: 1 completed" in told
    assert "Traceback" not in told
