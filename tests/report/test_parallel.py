"""Parallel coordinates: places on the axes, worked out by hand."""

import pytest

from coreai_opt.report.comparing.parallel import MAX_LINES, parallel
from coreai_opt.report.tables import board_of
from tests.helpers.synthetic_records import any_record
from tests.report.test_any_app import collected_from


def test_places_of_few_values_are_even_and_the_best_is_last_and_above() -> None:
    scores = {"0.001": 1.0, "0.1": 3.0, "10": 2.0}
    records = [any_record([f"lr={lr}"], {"loss": score}) for lr, score in scores.items()]
    shown = parallel(board_of(collected_from(*records)))
    assert shown is not None
    assert [axis.name for axis in shown.axes] == ["lr", "loss"]
    assert shown.axes[0].ticks == [(0.0, "0.001"), (0.5, "0.1"), (1.0, "10")]
    # Less is better: the least stands above.
    assert shown.axes[1].ticks[0] == (1.0, "1")
    assert [(line.at, line.mean) for line in shown.lines] == [
        ([0.5, 0.0], 3.0),
        ([1.0, 0.5], 2.0),
        ([0.0, 1.0], 1.0),
    ]


def test_many_numbers_have_a_scale_by_logarithm_over_magnitudes() -> None:
    records = [
        any_record([f"lr={10 ** (at / 4 - 4):.12g}", f"width={at}"], {"score": at})
        for at in range(17)
    ]
    shown = parallel(board_of(collected_from(*records), "score"))
    assert shown is not None
    assert shown.axes[0].ticks[2] == (0.5, "0.01")
    assert shown.axes[1].ticks[2] == (0.5, "8")
    middle = next(line for line in shown.lines if line.mean == 8)
    assert middle.at == [pytest.approx(0.5), 0.5, 0.5]


def test_a_missing_knob_leaves_a_gap_and_one_configuration_is_no_chart() -> None:
    records = [any_record([f"lr={lr}"], {"score": lr}) for lr in (1, 2)]
    records.append(any_record(["momentum=0.9"], {"score": 3}))
    shown = parallel(board_of(collected_from(*records), "score"))
    assert shown is not None
    assert shown.lines[-1].at[0] is None
    assert parallel(board_of(collected_from(records[0]), "score")) is None


def test_of_very_many_so_many_are_drawn_the_best_and_the_worst_among_them() -> None:
    records = [any_record([f"x={at}"], {"score": at}) for at in range(MAX_LINES + 50)]
    shown = parallel(board_of(collected_from(*records), "score"))
    assert shown is not None
    assert (len(shown.lines), shown.total) == (MAX_LINES, MAX_LINES + 50)
    assert (shown.lines[0].mean, shown.lines[-1].mean) == (0, MAX_LINES + 49)
