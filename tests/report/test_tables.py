"""Groups, means, ranks, the Pareto front and the protocol, worked out by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.report import charts
from coreai_opt.report.comparing.protocol import protocol_warnings, series_knob
from coreai_opt.report.metric_choice import MetricError
from coreai_opt.report.records import Collected, RunRow, SweepFile
from coreai_opt.report.tables import board_of, pareto_front, varied_knobs
from tests.helpers.synthetic_records import make_record


def row_from(record: dict[str, Any], sweep: str = "s") -> RunRow:
    folder = Path(f"/{sweep}/{record['config_hash']}")
    return RunRow(folder, sweep, record["status"], record)


def collected_from(
    records: Sequence[dict[str, Any]], knobs: tuple[str, ...] = (), sweeps: Sequence[str] = ("s",)
) -> Collected:
    rows = tuple(row_from(record, sweeps[at % len(sweeps)]) for at, record in enumerate(records))
    files = tuple(SweepFile(Path(f"/{name}"), name, knobs) for name in sweeps)
    return Collected(rows, (), files, ())


# 0.5, 0.25 and so on are exact: so are means and deviations.
GRID = [
    make_record(0.25, power=1, seed=1),
    make_record(0.75, power=1, seed=2),
    make_record(0.5, power=1, seed=3),
    make_record(0.75, power=2, seed=1),
    make_record(0.875, power=2, seed=2),
    make_record(1.0, power=10, seed=1),
    make_record(0.5, schedule=None, seed=1),
    make_record(0.75, schedule=None, seed=2),
]


def test_groups_are_runs_that_differ_in_their_seed_alone() -> None:
    board = board_of(collected_from(GRID))
    found = {
        group.knobs["power"]: (group.seeds, group.mean, group.std, group.is_dense)
        for group in board.groups
    }
    assert found == {
        None: (2, 0.625, pytest.approx(0.1767766952966369), True),
        "10": (1, 1.0, None, False),
        "2": (2, 0.8125, pytest.approx(0.08838834764831845), False),
        "1": (3, 0.5, 0.25, False),
    }


def test_the_dense_control_comes_first_then_the_best() -> None:
    board = board_of(collected_from(GRID))
    told = [(entry.rank, entry.group.knobs["power"], entry.delta) for entry in board.entries]
    assert told == [(None, None, None), (1, "10", 0.375), (2, "2", 0.1875), (3, "1", -0.125)]


def test_less_is_better_where_the_metric_says_so() -> None:
    board = board_of(collected_from(GRID), "val/loss")
    assert (board.mode, board.is_share) == ("min", False)
    assert [entry.group.knobs["power"] for entry in board.entries] == [None, "10", "2", "1"]
    assert board.entries[1].group.mean == 0.0


@pytest.mark.parametrize(
    ("asked", "mode", "objective", "expected"),
    [
        pytest.param(None, None, ("val/accuracy", "max"), ("test/accuracy", "max"), id="default"),
        pytest.param("val/loss", None, ("val/loss", "min"), ("val/loss", "min"), id="objective"),
        pytest.param("val/loss", None, ("val/accuracy", "max"), ("val/loss", "min"), id="by name"),
        pytest.param(None, None, ("val/loss", "min"), ("test/accuracy", "max"), id="not its mode"),
        pytest.param("val/loss", "max", ("val/loss", "min"), ("val/loss", "max"), id="asked for"),
    ],
)
def test_which_metric_and_which_way(
    asked: str | None, mode: str | None, objective: tuple[str, str], expected: tuple[str, str]
) -> None:
    named = {"name": objective[0], "mode": objective[1], "value": 0.5}
    records = [make_record(seed=seed, changes={"objective": named}) for seed in (1, 2)]
    board = board_of(collected_from(records), asked, mode)
    assert (board.metric, board.mode) == expected


def test_without_test_accuracy_in_all_runs_the_objective_counts() -> None:
    without = make_record(0.5, seed=2)
    del without["metrics"]["test/accuracy"]
    board = board_of(collected_from([make_record(0.75, seed=1), without]))
    assert board.metric == "val/accuracy"
    assert board.groups[0].values == (0.74, 0.49)


def test_runs_without_the_metric_are_counted_and_left_out() -> None:
    records = [make_record(0.75, seed=1), make_record(None, seed=2)]
    board = board_of(collected_from(records), "test/accuracy")
    assert (board.unmeasured, board.groups[0].seeds) == (1, 1)


def test_a_metric_that_no_run_has_is_an_error_with_those_there_are() -> None:
    with pytest.raises(MetricError, match=r"'f1'; allowed: last/val/accuracy, test/accuracy, val/"):
        board_of(collected_from(GRID), "f1")


def test_only_completed_runs_count() -> None:
    records = [make_record(0.5, seed=1), make_record(status="failed", seed=2)]
    records.append(make_record(status="running", seed=3))
    assert board_of(collected_from(records)).groups[0].seeds == 1
    assert board_of(collected_from(records[1:])).entries == ()


@pytest.mark.parametrize(
    ("overrides", "knobs"),
    [
        pytest.param(["power=1", "power=2"], ("power",), id="values differ"),
        pytest.param(["power=1", "power=1.0"], (), id="one number in two forms"),
        pytest.param(["power=2 seed=1", "power=2 seed=2"], (), id="the seed"),
        pytest.param(["lr=1", ""], ("lr",), id="absent is a value"),
        pytest.param(["power=3", ""], (), id="what the config has by itself"),
        pytest.param(["+a.b=1", "++a.b=2"], ("a.b",), id="added keys"),
        pytest.param(["b=1 a=1", "b=2 a=2"], ("b", "a"), id="in the order of appearance"),
    ],
)
def test_which_knobs_vary(overrides: list[str], knobs: tuple[str, ...]) -> None:
    records = [
        make_record(overrides=text.split(), seed=at, power=3) for at, text in enumerate(overrides)
    ]
    assert varied_knobs(collected_from(records)) == knobs


def test_the_knobs_of_the_sweep_file_come_first_and_need_not_vary() -> None:
    collected = collected_from(GRID[:5], knobs=("total_iters", "seed", "power"))
    assert varied_knobs(collected) == ("total_iters", "power")


def test_a_dense_control_makes_no_knob_vary_but_the_schedule() -> None:
    collected = collected_from([GRID[0], GRID[1], GRID[6]])
    assert varied_knobs(collected) == ("schedule",)


def test_a_control_with_more_knobs_in_common_is_the_one_to_compare_with() -> None:
    def record(accuracy: float, schedule: str | None, width: int) -> dict[str, Any]:
        overrides = [f"schedule={schedule or 'none'}", f"model.width={width}"]
        changes = {"config_hash": f"{accuracy}"}
        return make_record(accuracy, schedule, overrides=overrides, changes=changes)

    records = [record(0.5, None, 8), record(0.75, None, 16)]
    records += [record(0.625, "poly", 8), record(0.6875, "poly", 16)]
    board = board_of(collected_from(records))
    deltas = {entry.group.knobs["model.width"]: entry.delta for entry in board.entries[2:]}
    assert deltas == {"8": 0.125, "16": -0.0625}


def test_several_sweeps_are_groups_apart() -> None:
    records = [make_record(0.5, seed=1), make_record(0.75, seed=2)]
    board = board_of(collected_from(records, sweeps=("a", "b")))
    assert [(group.sweep, group.seeds) for group in board.groups] == [("b", 1), ("a", 1)]
    assert [group.label for group in board.groups] == ["[b]", "[a]"]


@pytest.mark.parametrize(
    ("points", "mode", "front"),
    [
        pytest.param([], "max", [], id="none"),
        pytest.param([(0.5, 0.5)], "max", [0], id="one"),
        pytest.param([(0.5, 0.9), (0.9, 0.8), (0.95, 0.5)], "max", [2, 1, 0], id="a trade-off"),
        pytest.param([(0.5, 0.9), (0.9, 0.8), (0.8, 0.7)], "max", [1, 0], id="beaten in both"),
        pytest.param([(0.9, 0.8), (0.9, 0.7)], "max", [0], id="beaten at one sparsity"),
        pytest.param([(0.9, 0.8), (0.8, 0.8)], "max", [0], id="beaten at one value"),
        pytest.param([(0.9, 0.8), (0.9, 0.8)], "max", [0, 1], id="equal ones stay"),
        pytest.param([(0.5, 0.1), (0.9, 0.2), (0.8, 0.3)], "min", [1, 0], id="less is better"),
    ],
)
def test_the_pareto_front(points: list[tuple[float, float]], mode: str, front: list[int]) -> None:
    assert pareto_front(points, mode) == front


def sweep_over(targets: Sequence[float], seeds: int, dense: bool = True) -> Collected:
    records = [make_record(0.5, target=t, seed=s) for t in targets for s in range(seeds)]
    records += [make_record(0.75, schedule=None, seed=seed) for seed in range(seeds) if dense]
    return collected_from(records)


FIVE = (0.5, 0.75, 0.875, 0.9375, 0.96875)


@pytest.mark.parametrize(
    ("collected", "warnings"),
    [
        pytest.param(sweep_over(FIVE, 3), [], id="enough"),
        pytest.param(
            sweep_over(FIVE[:4], 3), ["fewer than 5 operating points (sparsities): 4;"], id="points"
        ),
        pytest.param(
            sweep_over(FIVE, 2),
            ["6 of 6 configurations have fewer than 3 seeds (the fewest 2)"],
            id="seeds",
        ),
        pytest.param(
            sweep_over(FIVE, 3, dense=False), ["there is no dense control"], id="no control"
        ),
        pytest.param(
            sweep_over(FIVE[:1], 1, dense=False),
            ["fewer than 5 operating points", "1 of 1 configuration", "there is no dense control"],
            id="all three",
        ),
        pytest.param(collected_from([]), [], id="nothing yet"),
    ],
)
def test_what_the_protocol_asks_for(collected: Collected, warnings: list[str]) -> None:
    told = protocol_warnings(board_of(collected))
    assert len(told) == len(warnings)
    for sentence, beginning in zip(told, warnings, strict=True):
        assert sentence.startswith(beginning)


def test_operating_points_are_counted_for_each_method() -> None:
    records = [make_record(0.5, target=target, seed=seed) for target in FIVE for seed in (1, 2, 3)]
    records += [make_record(0.5, "cosine", 0.5, seed) for seed in (1, 2, 3)]
    records += [make_record(0.5, None, seed=seed) for seed in (1, 2, 3)]
    board = board_of(collected_from(records))
    assert series_knob(board) == "schedule"
    (told,) = protocol_warnings(board)
    assert "(sparsities): schedule=cosine 1;" in told


def test_records_without_operations_have_no_speedup_and_say_so() -> None:
    records = [make_record(0.5, seed=seed, changes={"operations": None}) for seed in (1, 2, 3)]
    board = board_of(collected_from(records))
    assert board.groups[0].speedup is None
    assert any("no theoretical speed-up" in told for told in protocol_warnings(board))


def test_runs_below_their_target_are_counted() -> None:
    records = [make_record(0.5, seed=seed) for seed in (1, 2, 3)]
    assert not any("below" in told for told in protocol_warnings(board_of(collected_from(records))))
    records[1]["sparsity"]["below_target"] = True
    told = protocol_warnings(board_of(collected_from(records)))
    assert told[0].startswith("1 of 3 completed runs is below the target sparsity")


def test_compression_and_speedup_are_counted_numbers() -> None:
    group = board_of(collected_from([make_record(0.5, target=0.75)])).groups[0]
    # 266,200 weights, a quarter left, and 410 biases.
    assert group.compression == (266_200 + 410) / (66_550 + 410)
    assert (group.speedup, group.achieved) == (4.0, 0.75)


def test_the_heat_map_is_of_one_sparsity_and_averages_the_rest() -> None:
    def record(accuracy: float, target: float, power: int, length: int, seed: int) -> Any:
        return make_record(accuracy, target=target, power=power, total_iters=length, seed=seed)

    records = [record(0.5, 0.9, power, length, 1) for power in (1, 2) for length in (9, 10)]
    records += [record(0.75, 0.9, 1, 9, 2), record(0.25, 0.5, 1, 9, 1)]
    board = board_of(collected_from(records))
    assert charts.heat_knobs(board) == ("total_iters", "power")
    assert charts.heat_knobs(board, ("power", "target_sparsity")) == ("power", "target_sparsity")
    assert board.values_of("total_iters") == ["9", "10"]
    only = charts.heat_only(board, ("total_iters", "power"))
    assert only == {"target_sparsity": "0.9"}
    cells = {(c.x, c.y): (c.mean, c.runs) for c in charts.heat_cells(board, "total_iters", "power")}
    assert cells[("9", "1")] == (0.5, 3)
    cells = {
        (c.x, c.y): (c.mean, c.runs) for c in charts.heat_cells(board, "total_iters", "power", only)
    }
    assert cells == {
        ("9", "1"): (0.625, 2),
        ("10", "1"): (0.5, 1),
        ("9", "2"): (0.5, 1),
        ("10", "2"): (0.5, 1),
    }


def test_a_schedule_is_drawn_once_up_to_its_target() -> None:
    records = [make_record(seed=seed, power=1, total_iters=400) for seed in (1, 2)]
    records += [make_record(status="failed", target=0.5, power=1, total_iters=400)]
    records += [make_record(schedule=None)]
    shown = charts.schedules(collected_from(records).rows)
    assert (shown.unit, shown.total, shown.unknown) == ("steps", 2, 0)
    assert [curve.name for curve in shown.curves] == ["poly target=0.5", "poly target=0.9"]
    curve = dict(zip(shown.curves[1].x, shown.curves[1].sparsity, strict=True))
    assert (curve[0], curve[200], curve[400], curve[1000]) == (
        0.0,
        round(0.9 * 200 / 399, 5),
        0.9,
        0.9,
    )
    assert max(shown.curves[0].x) == 1000  # a failed run has no length: that of the config


def test_at_most_thirty_schedules_are_drawn_and_those_of_others_are_counted() -> None:
    records = [make_record(power=power, total_iters=100) for power in range(1, 41)]
    foreign = make_record(seed=9)
    foreign["config"]["schedule"] = {"_target_": "my.Schedule"}
    shown = charts.schedules(collected_from([*records, foreign]).rows)
    assert (len(shown.curves), shown.total, shown.unknown) == (30, 40, 1)
    assert shown.curves[0].name == "poly power=1"
    assert shown.curves[-1].name == "poly power=40"
