"""Importance of knobs: the one that decides comes first, one that does nothing is near zero."""

import itertools
import random
from typing import Any

from coreai_opt.report.comparing.importance import importance
from coreai_opt.report.page.knobs import importance_sentence
from coreai_opt.report.tables import Leaderboard, board_of
from tests.helpers.synthetic_records import any_record
from tests.report.test_any_app import collected_from

LR, WIDTHS, NAMES = (0.001, 0.01, 0.1), (8, 16, 32), ("sgd", "adam")


def board(metric: Any, seeds: int = 2) -> Leaderboard:
    """Return the grid of three knobs, the metric a function of lr, width, name and noise."""
    draw = random.Random(0)
    records = [
        any_record(
            [f"lr={lr}", f"width={width}", f"optimizer.name={name}", f"seed={seed}"],
            {"score": metric(lr, width, name, draw.gauss(0, 1))},
        )
        for lr, width, name, seed in itertools.product(LR, WIDTHS, NAMES, range(seeds))
    ]
    return board_of(collected_from(*records), "score", "max")


def test_the_knob_that_decides_comes_first_and_one_that_does_nothing_has_nearly_none() -> None:
    found = importance(board(lambda lr, width, name, noise: 10 * lr + width / 400 + noise / 1000))
    shares = {one.knob: one.share for one in found.shares}
    assert [one.knob for one in found.shares] == ["lr", "width", "optimizer.name"]
    assert shares["lr"] > 0.9
    assert shares["optimizer.name"] < 0.01
    assert sum(shares.values()) == 1.0 or abs(sum(shares.values()) - 1) < 1e-12
    assert found.runs == 36
    assert found.fit is not None
    assert found.fit > 0.95
    assert "permutation importance of gradient-boosted trees" in found.sentence
    assert "from 36 runs; seeds are no knob" in found.sentence


def test_a_name_can_be_what_decides() -> None:
    found = importance(board(lambda lr, width, name, noise: (name == "adam") + noise / 100))
    assert found.shares[0].knob == "optimizer.name"
    assert found.shares[0].share > 0.9
    told = importance_sentence(found)
    assert told.startswith("which knob mattered: optimizer.name ")
    assert "36 runs, held-out R2" in told


def test_knobs_that_matter_together_both_matter() -> None:
    found = importance(
        board(lambda lr, width, name, noise: ((lr == 0.1) == (name == "adam")) + noise / 100, 4)
    )
    assert {one.knob for one in found.shares[:2]} == {"lr", "optimizer.name"}
    assert found.shares[2].share < 0.02


def test_noise_is_explained_by_nothing_and_that_is_said() -> None:
    found = importance(board(lambda lr, width, name, noise: noise))
    assert found.shares == ()
    assert found.sentence.endswith("these knobs do not explain the metric.")


def test_it_is_the_same_each_time() -> None:
    made = board(lambda lr, width, name, noise: lr + noise / 100)
    assert importance(made) == importance(made)


def test_too_few_runs_are_said_with_how_many_it_takes() -> None:
    few = board(lambda lr, width, name, noise: lr, seeds=1)
    assert importance(few).shares  # 18 runs of three knobs
    records = [any_record([f"lr={at}", f"seed={at}"], {"score": at}) for at in range(9)]
    found = importance(board_of(collected_from(*records), "score"))
    assert (found.shares, found.runs) == ((), 9)
    told = "Too few runs: 9 completed runs; for 1 varying knob it takes at least 10."
    assert found.sentence == told
    same = importance(board(lambda lr, width, name, noise: 0.5))
    assert same.sentence == "All runs have the same value: there is nothing to explain."
