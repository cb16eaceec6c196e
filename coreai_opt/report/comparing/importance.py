"""Importance of the knobs: how much worse the metric is predicted with a knob's values shuffled.

Gradient-boosted trees (Friedman 2001) predict the metric of held-out runs from the knobs; the
permutation importance of a knob (Breiman 2001) is by how much the squared error grows when its
values are shuffled among those runs. Interactions count for each of their knobs.
"""

from dataclasses import dataclass

from coreai_opt.report.formatting import evenly
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import plural
from coreai_opt.report.values import as_number

FEWEST_RUNS = 10
RUNS_PER_KNOB = 5
MOST_RUNS = 2_000
SHUFFLES = 5
METHOD = "permutation importance of gradient-boosted trees on held-out runs"


@dataclass(frozen=True)
class KnobShare:
    """A knob and its share of the sum of all importances, 0 to 1."""

    knob: str
    share: float


@dataclass(frozen=True)
class Importance:
    """Which knobs matter for the metric.

    Attributes:
        shares: the largest first; empty where nothing can be said.
        runs: number of completed runs that are looked at, dense controls left out.
        fit: share of the metric's variance that the trees predict of held-out runs (R squared).
        sentence: how it was found, or why it was not.
    """

    shares: tuple[KnobShare, ...]
    runs: int
    fit: float | None
    sentence: str


def importance(board: Leaderboard) -> Importance:
    """Return the importance of each varying knob; the same runs give the same numbers.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    knobs = board.varying()
    runs = [(group, value) for group in board.pruned for value in group.values]
    needed = max(FEWEST_RUNS, RUNS_PER_KNOB * len(knobs))
    if not knobs:
        return _nothing(len(runs), "No knob varies among the completed runs.")
    if len(runs) < needed:
        have, vary = plural(len(runs), "completed run"), plural(len(knobs), "varying knob")
        return _nothing(len(runs), f"Too few runs: {have}; for {vary} it takes at least {needed}.")
    values = [value for _, value in runs]
    if max(values) - min(values) <= 1e-12 * max(map(abs, values)):
        return _nothing(len(runs), "All runs have the same value: there is nothing to explain.")
    runs = evenly(runs, MOST_RUNS)
    points = [group.knobs for group, _ in runs]
    columns = [_encoded(board, knob, [point.get(knob) for point in points]) for knob in knobs]
    fit, falls = _fitted(columns, [value for _, value in runs])
    told = f"The trees predict {100 * max(fit, 0):.0f} % of the variance of held-out runs"
    total = sum(falls)
    if fit <= 0 or total <= 0:
        return Importance((), len(runs), fit, f"{told}: these knobs do not explain the metric.")
    shares = [KnobShare(knob, fall / total) for knob, fall in zip(knobs, falls, strict=True)]
    shares.sort(key=lambda one: (-one.share, one.knob))
    sentence = f"By {METHOD}, from {plural(len(runs), 'run')}; seeds are no knob. {told}."
    return Importance(tuple(shares), len(runs), fit, sentence)


def _nothing(runs: int, sentence: str) -> Importance:
    return Importance((), runs, None, sentence)


def _encoded(board: Leaderboard, knob: str, values: list[str | None]) -> list[float]:
    """Return numbers as they are, names by their order, and a missing value below them all."""
    order = board.values_of(knob)
    numbers = [as_number(value) for value in order]
    known = [float(at) if None in numbers else (numbers[at] or 0.0) for at in range(len(order))]
    place = dict(zip(order, known, strict=True))
    missing = min(known, default=0.0) - 1.0
    return [missing if value is None else place[value] for value in values]


def _fitted(columns: list[list[float]], values: list[float]) -> tuple[float, list[float]]:
    """Return R squared of held-out runs, and by how much each column's shuffling makes it fall."""
    import numpy as np
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    x, y = np.array(columns).T, np.array(values)
    y = (y - y.mean()) / y.std()
    errors, falls = 0.0, np.zeros(len(columns))
    # Of few runs three folds: among two held-out runs half of all shuffles change nothing.
    folds = KFold(3 if len(values) < 30 else 5, shuffle=True, random_state=0)
    for train, held_out in folds.split(x):
        trees = GradientBoostingRegressor(random_state=0).fit(x[train], y[train])
        errors += float(((trees.predict(x[held_out]) - y[held_out]) ** 2).sum())
        found = permutation_importance(
            trees,
            x[held_out],
            y[held_out],
            scoring="neg_mean_squared_error",
            n_repeats=SHUFFLES,
            random_state=0,
        )
        falls += found.importances_mean * len(held_out)
    return 1 - errors / len(values), [max(0.0, float(fall)) / len(values) for fall in falls]
