"""Charts and tables as text."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from coreai_opt.config.errors import ConfigError
from coreai_opt.report.formatting import evenly
from coreai_opt.sweep.preview.columns import Column, fitted, width_of
from coreai_opt.sweep.preview.curves import TextCurve, draw_curves, letter
from coreai_opt.sweep.preview.planned import Preview, Standing
from coreai_opt.sweep.preview.png import draw_preview, points
from coreai_opt.sweep.preview.table import MOST_ROWS, run_table, total_time
from tests.helpers.previews import ramp, run

JUMP = TextCurve("jump", lambda step: 0.5 if step >= 4 else 0.0)
LINE = TextCurve("line", lambda step: 0.5 * step / 8)


def plain(*curves: TextCurve, braille: bool, height: int = 2) -> list[str]:
    lines = draw_curves(curves, 8, "steps", 0.5, width=16, height=height, braille=braille)
    return ["".join(character for character, _ in line).rstrip() for line in lines]


def test_a_jump_in_braille() -> None:
    # 32 columns of dots over 8 steps: the jump is in column 16, the first of cell 8; of 8 rows the
    # uppermost is the target. The letter stands a fifth of the way along the 17 cells.
    rest = "⠉" * 7
    assert plain(JUMP, braille=True) == [
        f"  50 % |        ⡏{rest}",
        "   0 % |" + "⣀⣀⣀a⣀⣀⣀⣀⡇",
        "       +----------------",
        "        0        8 steps",
    ]


def test_the_first_of_two_curves_is_on_top_and_each_has_its_letter() -> None:
    # Of 16 columns the line is in the middle row from 4 on, and in the upper one from 12 on;
    # the jump goes through all of them in column 8.
    assert plain(JUMP, LINE, braille=False, height=3) == [
        "  50 % |        aaaaaaaa",
        "       |    bbbbabbb",
        "   0 % |aaaaaaaaa",
        "       +----------------",
        "        0        8 steps",
    ]


def test_equal_curves_are_drawn_though_none_is_alone() -> None:
    text = "".join(plain(JUMP, JUMP, braille=True)[:2])
    assert "a" not in text
    assert "⡏" in text


def test_letters() -> None:
    assert [letter(index) for index in (0, 1, 7)] == ["a", "b", "h"]


def test_drawn_are_the_first_and_the_last() -> None:
    powers = range(1, 101)
    assert evenly(powers, 8) == [1, 15, 29, 43, 57, 71, 85, 100]
    assert evenly(powers[:8], 8) == [*range(1, 9)]


def test_points_of_the_picture_have_the_ends() -> None:
    positions, values = points(ramp())
    assert (positions[0], positions[-1], len(positions)) == (0, 550, 551)
    assert (values[0], values[399]) == (0.0, pytest.approx(0.9))


def test_a_picture_without_matplotlib_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Preview("title", ("power",), (run({"power": "1"}),), is_sweep=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = draw_preview(shown, tmp_path)
    assert said.endswith("matplotlib is not installed: pip install 'hydra-coreai-opt[demo]'")
    dense = Preview("title", (), (run({}),), is_sweep=False)
    assert draw_preview(dense, tmp_path) == "no preview.png: there is no schedule to draw"
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    shown = Preview("title", ("power",), (run({"power": "1"}),), is_sweep=False)
    with pytest.raises(ConfigError, match=r"preview\.png cannot be written: No such file"):
        draw_preview(shown, tmp_path / "missing")


def table(preview: Preview, width: int = 160) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(run_table(preview, width)[0])
    return [line.rstrip() for line in out.file.getvalue().splitlines()]  # type: ignore[attr-defined]


DONE = Standing("completed", will_run=False)


def test_a_table_of_settings() -> None:
    runs = (
        *(run({"power": "2"}, seed, DONE if seed == 1 else None, 30.0) for seed in (1, 2, 3)),
        run({}, 1, Standing("failed"), None),
    )
    lines = table(Preview("title", ("power", "seed"), runs, is_sweep=True))
    cells = [[cell.strip() for cell in line.replace("┃", "│").split("│")] for line in lines]
    assert cells[0] == ["#", "power", "seeds", "state", "ramp", "target", "steps", "time"]
    ramp_text = "0 -> 400 of 550"
    assert cells[2] == ["1", "2", "1-3", "1 done, 2 new", ramp_text, "90 %", "550", "1 min 0 s"]
    assert cells[3] == ["2", "", "1", "failed, runs again", "none", "dense", "550", "unknown"]


def test_a_run_to_go_on_with_says_from_where() -> None:
    runs = (run({"power": "2"}, 1, Standing("interrupted", step=200)),)
    assert "to resume at step 200" in table(Preview("title", ("power",), runs, is_sweep=True))[2]


@pytest.mark.parametrize(("count", "lines"), [(MOST_ROWS, MOST_ROWS), (MOST_ROWS + 1, 51)])
def test_a_long_table_is_cut(count: int, lines: int) -> None:
    runs = tuple(run({"power": str(power)}) for power in range(1, count + 1))
    shown = table(Preview("title", ("power",), runs, is_sweep=True))[2:]
    assert len(shown) == lines
    assert shown[-1].split()[0] == str(count)


WIDE = [
    Column("#", ("1", "2"), is_right=True),
    Column("optimizer.lr", ("0.1", "0.2"), is_knob=True),
    Column("model.width", ("8", ""), is_knob=True),
    Column("state", ("new", "new")),
    Column("steps", ("550", "550"), is_right=True),
]


@pytest.mark.parametrize(
    ("width", "names", "said"),
    [
        (46, ["#", "optimizer.lr", "model.width", "state", "steps"], []),
        (45, ["#", "optimizer.lr", "model.width", "state"], ["steps: 550"]),
        (37, ["#", "optimizer.lr", "model.width"], ["state: new", "steps: 550"]),
        (29, ["#", "lr", "width"], ["state: new", "steps: 550"]),
        (15, ["#", "lr", "width"], ["state: new", "steps: 550"]),
        (14, ["#", "setting"], ["state: new", "steps: 550"]),
    ],
)
def test_a_table_is_made_to_fit(width: int, names: list[str], said: list[str]) -> None:
    columns, told = fitted(WIDE, width)
    assert ([column.name for column in columns], told) == (names, said)
    assert width_of(WIDE) == 46


def test_knobs_in_one_column_keep_their_names() -> None:
    columns, _ = fitted(WIDE, 10)
    assert columns[1].cells == ("lr=0.1 width=8", "lr=0.2")
    alike = [
        Column("a.width", ("1", "2"), is_knob=True),
        Column("b.width", ("3", "4"), is_knob=True),
    ]
    assert fitted(alike, 5)[0][0].cells == ("a.width=1 b.width=3", "a.width=2 b.width=4")


def test_values_are_not_markup() -> None:
    runs = (run({"model.hidden": "[300,100]"}),)
    assert "[300,100]" in table(Preview("title", ("model.hidden",), runs, is_sweep=True))[2]


@pytest.mark.parametrize(
    ("runs", "earlier", "text"),
    [
        ([(DONE, None)], 3, "to run: 0 of 1"),
        (
            [(None, None), (DONE, None)],
            0,
            "to run: 1 of 2; how long that takes is unknown, no earlier record tells",
        ),
        (
            [(None, 30.0), (None, 60.0), (DONE, None)],
            2,
            "to run: 2 of 3; about 1 min 30 s one after the other, by 2 earlier records of this "
            "model and data",
        ),
        (
            [(None, 30.0), (None, None)],
            1,
            "to run: 2 of 2; about 30 s one after the other and an unknown time for 1 of them, by "
            "1 earlier record of this model and data",
        ),
    ],
)
def test_how_long_it_takes(
    runs: list[tuple[Standing | None, float | None]], earlier: int, text: str
) -> None:
    members = tuple(
        run({"power": "1"}, seed, how, seconds) for seed, (how, seconds) in enumerate(runs)
    )
    assert total_time(Preview("title", (), members, True, earlier)) == text
