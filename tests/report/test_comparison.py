"""Pairwise comparison: hand-worked pairs, Student's data, Holm's correction, and verdicts."""

import math
import re
from pathlib import Path

import pytest

from coreai_opt.report.__main__ import main
from coreai_opt.report.comparing.comparison import (
    Comparison,
    comparison,
    comparison_sentences,
    holm,
    paired_test,
    seed_values,
)
from coreai_opt.report.tables import board_of
from tests.helpers.synthetic_records import any_record, make_record, write_run
from tests.report.test_any_app import collected_from

# Hours of sleep gained by two drugs, ten patients: Student, "The probable error of a mean", 1908.
STUDENT = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)


def compared(*configurations: dict[int, float], mode: str = "max") -> Comparison:
    """Return the comparison of configurations, each with its metric by seed."""
    records = [
        any_record([f"x={at}", f"seed={seed}"], {"score": value})
        for at, values in enumerate(configurations)
        for seed, value in values.items()
    ]
    return comparison(board_of(collected_from(*records), "score", mode))


def test_three_differences_worked_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, std 1, t = 2 sqrt 3 = 3.4641 of 2 degrees of freedom; there
    # p = 1 - t / sqrt(t^2 + 2), and 4.302653 is the 97.5 % point.
    (pair,) = compared({1: 2.0, 2: 4.0, 3: 6.0}, {1: 1.0, 2: 2.0, 3: 3.0}).pairs
    assert (pair.mean, pair.effect, pair.seeds) == (2.0, 2.0, ("1", "2", "3"))
    assert pair.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert pair.interval == pytest.approx(
        (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6
    )
    assert pair.verdict == "no difference shown"


def test_students_own_example() -> None:
    drugs = [dict(enumerate(values)) for values in STUDENT]
    (pair,) = compared(*drugs).pairs
    # t = 4.0621, p = 0.00283, interval 0.70 to 2.46: R's t.test(extra ~ group, paired = TRUE).
    assert pair.mean == pytest.approx(1.58)
    assert pair.p == pytest.approx(0.00283289, abs=1e-7)
    assert pair.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert pair.effect == pytest.approx(4.0621277 / math.sqrt(10))
    assert pair.verdict == "differs"
    assert pair.one.knobs == {"x": "1"}


def test_only_common_seeds_count_and_fewer_than_three_are_not_tested() -> None:
    shown = compared({1: 1.0, 2: 2.0, 3: 3.0, 4: 9.0}, {2: 1.5, 3: 2.0, 5: 0.0})
    (pair,) = shown.pairs
    assert (pair.seeds, pair.mean, pair.p) == (("2", "3"), 0.75, None)
    assert (pair.verdict, shown.tests) == ("too few seeds", 0)
    assert "1 of 1 pairs have fewer than 3 common seeds" in " ".join(comparison_sentences(shown))
    (pair,) = compared({1: 1.0}, {2: 1.0}).pairs
    assert (pair.mean, pair.verdict) == (None, "too few seeds")


def test_equal_values_are_no_difference_and_equal_differences_are_one() -> None:
    values = {1: 0.1, 2: 0.2, 3: 0.7}
    (pair,) = compared(values, values).pairs
    assert (pair.mean, pair.p, pair.effect, pair.interval) == (0.0, 1.0, 0.0, (0.0, 0.0))
    assert pair.verdict == "no difference shown"
    rounded = {1: 0.3, 2: 0.2, 3: 0.7}
    (pair,) = compared(rounded, {**rounded, 1: 0.1 + 0.2}).pairs
    assert (pair.p, pair.verdict) == (1.0, "no difference shown")
    (pair,) = compared({1: 0.3, 2: 0.4, 3: 0.9}, {1: 0.2, 2: 0.3, 3: 0.8}).pairs
    assert (pair.p, pair.effect, pair.verdict) == (0.0, None, "differs")


def test_holms_correction() -> None:
    assert holm([]) == []
    assert holm([0.5]) == [0.5]
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm")
    assert holm([0.04, 0.01, 0.03, 0.02]) == [0.06, 0.04, 0.06, 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_number_of_tests_decides() -> None:
    one, two = (dict(enumerate(values)) for values in STUDENT)
    third = {seed: value + 1e-3 * (-1) ** seed for seed, value in two.items()}
    shown = compared(one, two, third)
    assert (len(shown.pairs), shown.tests, shown.is_with_best) == (3, 3, False)
    found = {(pair.one.knobs["x"], pair.two.knobs["x"]): pair for pair in shown.pairs}
    assert found["1", "0"].corrected == pytest.approx(3 * min(p.p for p in shown.pairs if p.p))
    assert [pair.verdict for pair in shown.pairs].count("differs") == 2


def test_of_many_configurations_the_best_is_compared_with_the_others() -> None:
    many = [{seed: at + seed * (1 + at / 10) for seed in (1, 2, 3)} for at in range(9)]
    shown = compared(*many, mode="min")
    assert (len(shown.pairs), shown.tests, shown.is_with_best) == (8, 8, True)
    assert {pair.one.knobs["x"] for pair in shown.pairs} == {"0"}
    assert "The best of 9 configurations" in next(comparison_sentences(shown))


def test_a_seed_with_several_runs_counts_once_and_a_run_without_seed_not() -> None:
    records = [any_record(["seed=1"], {"score": v}, started=str(v)) for v in (1.0, 3.0)]
    records.append(any_record(["lr=1"], {"score": 9.0}))
    (group, *_) = board_of(collected_from(*records[:2]), "score").groups
    assert seed_values(group) == {"1": 2.0}
    (group,) = board_of(collected_from(records[2]), "score").groups
    assert seed_values(group) == {}


def test_the_test_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.ttest_rel(*STUDENT)
    p, interval = paired_test([a - b for a, b in zip(*STUDENT, strict=True)])
    assert p == pytest.approx(expected.pvalue)
    assert interval == pytest.approx(tuple(expected.confidence_interval()))


def test_terminal_and_page_show_pairs_with_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at, values in enumerate(STUDENT):
        for seed, value in enumerate(values):
            record = any_record([f"x={at}", f"seed={seed}"], {"gain": value})
            write_run(tmp_path / f"{at}-{seed}", record)
    main([str(tmp_path), "--no-figures"])
    told = capsys.readouterr().out
    row = r"x=1 +x=0 +10 +\+1.58 +\+0.7 to \+2.46 +1.28 +0.0028 +differs"
    assert re.search(row, told)
    assert "p corrected for 1 test after Holm" in told
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="comparison-table"' in page
    assert re.search(r'data-key="0.0028\d+">0.0028<', page)


def test_the_dense_control_is_compared_as_well() -> None:
    records = [make_record(0.5 + seed / 8, seed=seed) for seed in (1, 2, 3)]
    records += [make_record(0.5, schedule=None, seed=seed) for seed in (1, 2, 3)]
    (pair,) = comparison(board_of(collected_from(*records))).pairs
    assert (pair.two.is_dense, pair.mean) == (True, 0.25)
