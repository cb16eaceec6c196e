"""Pairwise comparison of configurations over seeds: paired t-tests, corrected for their number.

The same seed is the same start and the same order of the data, so that the difference of two
configurations at one seed has less spread than their means. The test is Student's paired t-test
and not Wilcoxon's: of fewer than six seeds the smallest p of Wilcoxon's test is 2 / 2^5 = 0.06, so
that it could never find anything. The t-test stands deviations from a normal distribution well,
down to a few seeds (Colas et al. 2018, arXiv:1806.08295). The p are corrected after Holm (1979).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from coreai_opt.report.tables import Leaderboard, SeedGroup, sample_std

FEWEST_SEEDS = 3
ALPHA = 0.05
# Of more configurations than that the best is compared with the others, instead of all pairs.
ALL_PAIRS = 8
DIFFERS, NOT_SHOWN, TOO_FEW = "differs", "no difference shown", "too few seeds"


@dataclass(frozen=True)
class Pair:
    """Two configurations, compared.

    Attributes:
        one: the better one by its mean over all its seeds.
        two: the other.
        seeds: the seeds that both have.
        mean: of the differences, one less two, over these seeds; None without any.
        interval: 95 % confidence interval of the mean difference, not corrected; None without test.
        effect: Cohen's d_z, the mean difference through the standard deviation of the differences;
            None without test, and where all differences are the same.
        p: of the paired t-test; None without test.
        corrected: ``p`` after Holm.
    """

    one: SeedGroup
    two: SeedGroup
    seeds: tuple[str, ...]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    effect: float | None = None
    p: float | None = None
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        """``differs``, ``no difference shown`` or ``too few seeds``."""
        if self.corrected is None:
            return TOO_FEW
        return DIFFERS if self.corrected < ALPHA else NOT_SHOWN


@dataclass(frozen=True)
class Comparison:
    """Pairs of configurations.

    Attributes:
        pairs: the best first.
        tests: number of tests, which the p are corrected for.
        configurations: number of configurations.
    """

    pairs: tuple[Pair, ...]
    tests: int
    configurations: int

    @property
    def is_with_best(self) -> bool:
        """Whether the best configuration alone is compared with the others."""
        return self.configurations > ALL_PAIRS


def comparison(board: Leaderboard) -> Comparison:
    """Compare configurations pairwise by the metric of a leaderboard.

    Raises:
        ModuleNotFoundError: scipy is not installed, and there is something to test.
    """
    sign = -1 if board.mode == "max" else 1
    groups = sorted(board.groups, key=lambda group: sign * group.mean)
    values = [seed_values(group) for group in groups]
    indices = combinations(range(len(groups)), 2)
    if len(groups) > ALL_PAIRS:
        indices = iter([(0, other) for other in range(1, len(groups))])  # type: ignore[assignment]
    pairs = [_pair(groups[i], groups[j], values[i], values[j]) for i, j in indices]
    tested = [pair.p for pair in pairs if pair.p is not None]
    corrected = iter(holm(tested))
    pairs = [pair if pair.p is None else replace(pair, corrected=next(corrected)) for pair in pairs]
    return Comparison(tuple(pairs), len(tested), len(groups))


def paired_test(differences: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return p of a paired t-test, two-sided, and the 95 % confidence interval of the mean.

    Differences that are all the same have no spread to judge by: all zero are no difference, p 1;
    others are the same difference with every seed, p 0.

    Args:
        differences: at least two.

    Example:
        >>> p, (low, high) = paired_test([1.0, 2.0, 3.0])
        >>> round(p, 4), round(low, 3), round(high, 3)
        (0.0742, -0.484, 4.484)
        >>> paired_test([0.5, 0.5, 0.5])
        (0.0, (0.5, 0.5))
    """
    mean, spread = fmean(differences), spread_of(differences)
    if spread is None:
        return (0.0 if mean else 1.0), (mean, mean)
    # Not scipy.stats: that takes a second to import, and a millisecond a test.
    from scipy.special import stdtr, stdtrit

    freedom, error = len(differences) - 1, spread / math.sqrt(len(differences))
    margin = float(stdtrit(freedom, 0.975)) * error
    return 2 * float(stdtr(freedom, -abs(mean / error))), (mean - margin, mean + margin)


def spread_of(differences: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None where rounding is all there is of it.

    Example:
        >>> spread_of([1.0, 2.0, 3.0]), spread_of([0.3 - 0.2, 0.2 - 0.1, 0.1])
        (1.0, None)
    """
    spread = sample_std(differences)
    largest = max(map(abs, differences), default=0.0)
    # A difference of two numbers of about 1 is rounded to some 1e-16.
    return None if spread is None or spread <= 1e-12 * max(largest, 1e-3) else spread


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method, in their order.

    The smallest is multiplied by their number, the next by one less, and so on; none is smaller
    than one before it, or larger than 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    corrected, least = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = least
    return corrected


def seed_values(group: SeedGroup) -> Mapping[str, float]:
    """Return the metric of each seed, the mean where a seed has several runs; none without seed."""
    found: dict[str, list[float]] = {}
    for row, value in zip(group.rows, group.values, strict=True):
        if row.seed:
            found.setdefault(row.seed, []).append(value)
    return {seed: fmean(values) for seed, values in found.items()}


def comparison_sentences(shown: Comparison) -> Iterator[str]:
    """Yield what a comparison is of, in sentences."""
    if shown.configurations < 2:
        yield "There are no two configurations to compare."
        return
    if shown.is_with_best:
        yield (
            f"The best of {shown.configurations:,} configurations is compared with each other "
            f"one; up to {ALL_PAIRS} all pairs are compared. The best was chosen by the same runs."
        )
    else:
        yield f"All pairs of {shown.configurations} configurations are compared."
    if shown.tests:
        yield (
            f"Paired t-tests over common seeds, p corrected for {shown.tests:,} "
            f"{'test' if shown.tests == 1 else 'tests'} after Holm; differs means p < {ALPHA}. "
            "The interval is the 95 % confidence interval of the mean difference, the effect is "
            "its size by the standard deviation of the differences (Cohen's d_z)."
        )
    few = sum(pair.verdict == TOO_FEW for pair in shown.pairs)
    if few:
        yield (
            f"{few:,} of {len(shown.pairs):,} pairs have fewer than {FEWEST_SEEDS} common seeds "
            "and are not tested: seed=1,2,3"
        )


def _pair(
    one: SeedGroup, two: SeedGroup, first: Mapping[str, float], second: Mapping[str, float]
) -> Pair:
    seeds = tuple(seed for seed in first if seed in second)
    differences = [first[seed] - second[seed] for seed in seeds]
    if not differences:
        return Pair(one, two, seeds)
    mean = fmean(differences)
    scale = max(map(abs, (*first.values(), *second.values())))
    if len(seeds) < FEWEST_SEEDS or not math.isfinite(mean):
        return Pair(one, two, seeds, mean)
    # What is left of equal values by rounding is no difference.
    differences = [0.0 if abs(value) <= 1e-12 * scale else value for value in differences]
    p, interval = paired_test(differences)
    spread = spread_of(differences)
    effect = (0.0 if not mean else None) if spread is None else mean / spread
    return Pair(one, two, seeds, mean, interval, effect, p)
