"""What a person sees at the end of a run."""

import builtins
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coreai_opt.runs.outcome import summary_line
from coreai_opt.runs.paths import RunPaths
from coreai_opt.training.plot import draw_run, read_curve
from coreai_opt.training.summary import layer_table, show_result


def layer(name: str, elements: int, nonzero: int, target: float | None) -> dict[str, Any]:
    counts = {"elements": elements, "nonzero": nonzero, "target": target}
    return {"name": name, "shape": [elements // 10, 10], **counts}


RESULT: dict[str, Any] = {
    "metrics": {"test/accuracy": 0.951, "val/accuracy": 0.94},
    "objective": {"name": "val/accuracy", "mode": "max", "value": 0.94},
    "parameters": {"total": 266610, "nonzero": 27030},
    "wall_seconds": 12.34,
    "sparsity": {
        "target": 0.9,
        "achieved": 0.9,
        "layers": [layer("body.weight", 100, 10, 0.9), layer("head.weight", 50, 50, None)],
    },
}  # fmt: skip


def test_the_line_has_accuracy_sparsity_size_time_and_directory() -> None:
    line = summary_line(RESULT, Path("outputs/x"))
    assert line == (
        "test/accuracy 95.10 %, val/accuracy 94.00 %, sparsity 90.00 %, "
        "27,030 of 266,610 parameters, 12.3 s, outputs/x"
    )


def test_the_line_shows_the_objective_where_there_is_no_accuracy() -> None:
    objective = {"name": "val/loss", "mode": "min", "value": 0.123456}
    line = summary_line({**RESULT, "metrics": {}, "objective": objective}, Path("x"))
    assert line.startswith("val/loss 0.1235, sparsity")


LEFT = {"type": "Embedding", "weights": 2, "elements": 850, "nonzero": 850}
WHOLE = {
    **RESULT["sparsity"],
    "of_all_weights": 0.09,
    "all_weights": {"elements": 1000, "nonzero": 910},
    "left_dense": [LEFT, {"type": "Linear", "weights": 1, "elements": 50, "nonzero": 50}],
}


def test_what_stays_dense_is_in_the_table_and_the_line() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(layer_table({**RESULT, "sparsity": WHOLE}))
    rows = [" ".join(line.replace("│", " ").split()) for line in text.getvalue().splitlines()]
    assert "2 of Embedding 850 850 0.00 % dense" in rows
    assert "1 of Linear 50 50 0.00 % dense" in rows
    assert "all weights 1,000 910 9.00 %" in rows
    line = summary_line({**RESULT, "sparsity": WHOLE}, Path("x"))
    assert "sparsity 90.00 % (9.00 % of all weights), " in line


def test_a_dense_control_leaves_nothing_out() -> None:
    dense = {**WHOLE, "layers": [layer("body.weight", 100, 100, None)]}
    assert layer_table({**RESULT, "sparsity": dense}).row_count == 2


def test_the_table_has_a_row_a_layer_and_a_total_over_the_pruned_ones() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(layer_table(RESULT))
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in text.getvalue().splitlines()]
    assert ["body.weight", "100", "10", "90.00 %", "90.00 %"] in rows
    assert ["head.weight", "50", "50", "0.00 %", "dense"] in rows
    assert ["total", "100", "10", "90.00 %", "90.00 %"] in rows


def test_without_a_terminal_the_line_stands_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_result(RESULT, RunPaths(tmp_path), quiet=True)
    assert capsys.readouterr().out.splitlines() == [summary_line(RESULT, tmp_path)]
    show_result(RESULT, RunPaths(tmp_path), quiet=False)
    assert "body.weight" in capsys.readouterr().out


def test_names_with_brackets_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [layer("heads[a].weight", 100, 10, 0.9), layer("heads:key:.weight", 50, 50, None)]
    result = {**RESULT, "sparsity": {**RESULT["sparsity"], "layers": layers}}
    (tmp_path / "[red]runs").mkdir()
    show_result(result, RunPaths(tmp_path / "[red]runs"), quiet=False)
    said = capsys.readouterr().out
    assert "heads[a].weight" in said
    assert "heads:key:.weight" in said
    assert f"{tmp_path}/[red]runs" in said


def test_a_missing_matplotlib_costs_the_picture_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_matplotlib(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    show_result(RESULT, RunPaths(tmp_path), quiet=True)
    said = capsys.readouterr().out
    install = "pip install 'hydra-coreai-opt[demo]'"
    assert f"no picture of the run: matplotlib is not installed: {install}" in said.splitlines()
    assert not (tmp_path / "run.png").exists()


def test_curves_are_read_from_the_rows_that_have_a_value(tmp_path: Path) -> None:
    rows = [{"step": "1", "a": "0.5"}, {"step": "2", "a": ""}, {"step": "3", "a": "0.75"}]
    assert read_curve(rows, "a") == ([1, 3], [0.5, 0.75])
    assert draw_run(RunPaths(tmp_path)) is None
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
