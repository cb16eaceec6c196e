"""Table of a pairwise comparison, for the terminal and the page alike."""

from coreai_opt.report.comparing.comparison import Comparison, Pair
from coreai_opt.report.tables import Leaderboard
from coreai_opt.report.text import safe_text

TableCell = tuple[str, str]  # shown text, and sort key
# Headers, and whether each column is text rather than numbers.
COLUMNS = [
    ("configuration", True),
    ("against", True),
    ("seeds", False),
    ("difference", False),
    ("95 % interval", False),
    ("effect d_z", False),
    ("p (Holm)", False),
    ("verdict", True),
]


def pair_rows(shown: Comparison, board: Leaderboard) -> list[list[TableCell]]:
    """Return a row for each pair, each cell with its sort key."""
    return [_cells(pair, board) for pair in shown.pairs]


def _cells(pair: Pair, board: Leaderboard) -> list[TableCell]:
    mean, low = pair.mean, None if pair.interval is None else pair.interval[0]
    interval = ""
    if pair.interval is not None:
        interval = " to ".join(board.show_spread(end, sign=True) for end in pair.interval)
    labels = [f"dense: {one.label}" if one.is_dense else one.label for one in (pair.one, pair.two)]
    texts = [safe_text(label).replace("dense: dense control", "dense control") for label in labels]
    effect = "" if pair.effect is None else f"{pair.effect:.3g}"
    p = "" if pair.corrected is None else _p(pair.corrected)
    return [
        *((text, text) for text in texts),
        (str(len(pair.seeds)), str(len(pair.seeds))),
        (board.show_spread(mean, sign=True), _key(mean)),
        (interval, _key(low)),
        (effect, _key(pair.effect)),
        (p, _key(pair.corrected)),
        (pair.verdict, pair.verdict),
    ]


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _key(value: float | None) -> str:
    return "" if value is None else repr(value)
