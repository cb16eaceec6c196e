"""Progress of a search: the sweep's table or lines, with the trials to come."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.progress import LiveTable, PlainLines, SweepProgress, line_of
from coreai_opt.sweep.scheduler import Outcome
from coreai_opt.sweep.selection import Selection


class SearchProgress(SweepProgress):
    """Progress of a search.

    Args:
        plan: the sweep.
        total: trials that this command makes.
        console: is printed to.

    Attributes:
        listener: hears of the runs.
    """

    def __init__(self, plan: Plan, total: int, console: Console) -> None:
        super().__init__(plan, Selection())
        self.total, self._root, self._console = total, plan.root, console
        self._begun = time.monotonic()
        self._said: set[str] = set()
        self.listener: Any = None

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text)

    def open(self, study: str, done: int, again: int, sentences: Sequence[str]) -> None:
        """Print the status of the study before the first run."""
        for sentence in sentences:
            self._say_once(sentence)
        count = f"{done} trials done before, {self.total} to make"
        more = f", {again} of them tried before" if again else ""
        self.say(f"study {study} in {self._root}: {count}{more}")

    def add(self, selection: Selection) -> None:
        """Take in the points that are run next."""
        for sentence in selection.sentences:
            self._say_once(sentence)
        self._open.update({entry.config_hash: entry for entry in selection.to_run})
        self._warmups.update({entry.config_hash: entry for entry in selection.warmups})

    def known(self, number: int, outcome: Outcome) -> None:
        """Count a trial whose experiment has been run before."""
        self.outcomes.append(outcome)
        self.say(f"{line_of(self, outcome)} (trial {number}, run before)")

    def refused(self, number: int, sentence: str) -> None:
        """Leave out a trial whose config is wrong."""
        self.total -= 1
        self.say(f"trial {number} is refused: {sentence}")

    def seconds_left(self) -> float | None:
        """Return how long the trials to come will take, None where none has ended."""
        ended = [one for one in self.outcomes if not one.was_done]
        if not ended:
            return None
        left = self.total - len(self.outcomes)
        return (time.monotonic() - self._begun) / len(ended) * left

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self.say(sentence)


@contextmanager
def search_progress(plan: Plan, total: int) -> Iterator[SearchProgress]:
    """Yield the progress of a search, shown as a table or as lines."""
    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    board = SearchProgress(plan, total, console)
    has_table = sys.stdout.isatty() and total > 0
    with LiveTable(board, console) if has_table else PlainLines(board, console) as listener:
        board.listener = listener
        yield board
