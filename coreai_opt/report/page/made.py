"""Report as made from records: what the terminal, the page, the files and the server show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from coreai_opt.report.comparing.comparison import Comparison, comparison
from coreai_opt.report.comparing.importance import Importance, importance
from coreai_opt.report.comparing.protocol import protocol_warnings
from coreai_opt.report.records import Collected
from coreai_opt.report.tables import Leaderboard, board_of

T = TypeVar("T")
MISSING = "is not installed: pip install 'hydra-coreai-opt[report]'"


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Attributes:
        collected: the records.
        board: the completed runs, grouped.
        warnings: of the protocol.
        pairs: comparison of the configurations, None where scipy is not installed.
        mattered: importance of the knobs, None where scikit-learn is not installed.
        sentences: what is left out for want of a package.
    """

    collected: Collected
    board: Leaderboard
    warnings: tuple[str, ...]
    pairs: Comparison | None
    mattered: Importance | None
    sentences: tuple[str, ...]


def make_report(collected: Collected, metric: str | None = None, mode: str | None = None) -> Report:
    """Return the report of records.

    Args:
        collected: the records.
        metric: what is compared, as in ``board_of``.
        mode: which way is better, as in ``board_of``.

    Raises:
        MetricError: no completed run has the metric.
    """
    board, sentences = board_of(collected, metric, mode), list[str]()
    pairs = _if_installed(lambda: comparison(board), "comparison", sentences)
    mattered = _if_installed(lambda: importance(board), "importance of knobs", sentences)
    warnings = tuple(protocol_warnings(board))
    return Report(collected, board, warnings, pairs, mattered, tuple(sentences))


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the name of the package that is not installed; a fault of ours is raised again."""
    package = str(error.name).partition(".")[0]
    if package == "coreai_opt":
        raise error
    return package


def _if_installed(make: Callable[[], T], what: str, sentences: list[str]) -> T | None:
    try:
        return make()
    except ModuleNotFoundError as error:
        sentences.append(f"no {what}: {missing_package(error)} {MISSING}")
        return None
