"""Protocol checks: whether a sweep suffices for a comparison, after Blalock et al. 2020.

Their review of 81 papers on pruning (arXiv:2003.03033) asks for at least five operating points a
method, several seeds with their spread, the dense model, and compression ratio and theoretical
speed-up.
"""

from collections.abc import Sequence

from coreai_opt.report.tables import Leaderboard, SeedGroup
from coreai_opt.report.text import plural, safe_text
from coreai_opt.report.values import as_number

POINTS, SEEDS = 5, 3
# Compression of the pruned layers of 2, 4, 8, 16 and 32.
SUGGESTED = "target_sparsity=0.5,0.75,0.875,0.9375,0.96875"


def protocol_warnings(board: Leaderboard) -> list[str]:
    """Return a sentence for each demand of the protocol that the completed runs do not meet.

    Of runs without pruning it demands seeds alone.
    """
    if not board.entries:
        return []
    if not board.prunes:
        return [sentence for sentence in (_few_seeds(board),) if sentence is not None]
    checks = [
        _not_as_asked(board),
        _below_target(board),
        _few_points(board),
        _few_seeds(board),
        _no_dense(board),
        _no_speedup(board),
    ]
    return [sentence for sentence in checks if sentence is not None]


def operating_points(groups: Sequence[SeedGroup]) -> int:
    """Return the number of different sparsities of the groups.

    Targets count, to a tenth of a percent: achieved sparsities differ by a rounding.
    """
    reached = [g.achieved if g.target is None else g.target for g in groups]
    return len({round(value, 3) for value in reached if value is not None})


def series_knob(board: Leaderboard) -> str | None:
    """Return the first varied knob whose values are names, as methods have."""
    for knob in board.varying():
        if any(as_number(value) is None for value in board.values_of(knob)):
            return knob
    return None


def _not_as_asked(board: Leaderboard) -> str | None:
    rows = [row for group in board.groups for row in group.rows]
    told = [str(row.record["warning"]) for row in rows if row.record.get("warning")]
    if not told:
        return None
    runs = f"{len(told):,} of {plural(len(rows), 'completed run')}"
    return safe_text(f"{runs} not what was asked: {'; '.join(dict.fromkeys(told))}")


def _below_target(board: Leaderboard) -> str | None:
    rows = [row for group in board.groups for row in group.rows]
    below = sum(row.is_below_target for row in rows)
    if not below:
        return None
    are = "is" if below == 1 else "are"
    return (
        f"{below:,} of {plural(len(rows), 'completed run')} {are} below the target sparsity; "
        "the column sparsity has what was reached"
    )


def _few_points(board: Leaderboard) -> str | None:
    if not board.pruned:
        return None
    knob = series_knob(board)
    counts: dict[str, int] = {}
    for name in board.values_of(knob) if knob else []:
        groups = [group for group in board.pruned if group.knobs[knob or ""] == name]
        counts[f"{knob}={name}"] = operating_points(groups)
    counts = counts or {"": operating_points(board.pruned)}
    few = {name: count for name, count in counts.items() if count < POINTS}
    if not few:
        return None
    listed = ", ".join(f"{name} {count}".strip() for name, count in few.items())
    return safe_text(
        f"fewer than {POINTS} operating points (sparsities): {listed}; "
        f"a trade-off needs at least {POINTS}, for example {SUGGESTED}"
    )


def _few_seeds(board: Leaderboard) -> str | None:
    few = [group.seeds for group in board.groups if group.seeds < SEEDS]
    if not few:
        return None
    return (
        f"{len(few):,} of {plural(len(board.groups), 'configuration')} have fewer than {SEEDS} "
        f"seeds (the fewest {min(few)}); a difference within the spread of seeds says nothing: "
        f"seed=1,2,3"
    )


def _no_dense(board: Leaderboard) -> str | None:
    if board.dense:
        return None
    return "there is no dense control to compare with; the same command with schedule=none makes it"


def _no_speedup(board: Leaderboard) -> str | None:
    without = sum(group.speedup is None for group in board.groups)
    if not without:
        return None
    count = f"{without:,} of {plural(len(board.groups), 'configuration')}"
    return f"{count} have no theoretical speed-up: their records hold no operations"
