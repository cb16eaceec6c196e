"""The words of the command line: the only place that reads or edits ``sys.argv``.

Imports nothing, for ``--help``.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def asks_for_help() -> bool:
    """Return whether ``--help`` is among the words."""
    return bool({"--help", "-h"} & set(sys.argv[1:]))


def program() -> str:
    """Return how this program is called."""
    name = Path(sys.argv[0]).name
    if name.endswith(".py"):
        return f"python {name}"
    return name if name and not name.startswith("-") else "python train.py"


def become_preview(program: str) -> None:
    """Make the command that of a program, with ``preview=true`` unless it asks for help."""
    # Under that name: the commands that a preview shows are those that run.
    sys.argv[0] = str(Path(sys.argv[0]).with_name(program))
    if not asks_for_help():
        # Beside the other overrides: Hydra's parser wants them in one piece.
        words = enumerate(sys.argv[1:], start=1)
        given = (at for at, word in words if "=" in word and not word.startswith("-"))
        sys.argv.insert(next(given, len(sys.argv)), "preview=true")


def take_out(taken: Collection[str]) -> None:
    """Take words out for good, which Hydra has no key for."""
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in taken]


@contextmanager
def swapped(words: Collection[str], others: Collection[str]) -> Iterator[None]:
    """Let Hydra find other words in the place of some, which are put back afterwards."""
    with replaced([*(word for word in sys.argv[1:] if word not in words), *others]):
        yield


@contextmanager
def replaced(words: Sequence[str]) -> Iterator[None]:
    """Make the command line that of other words, which is put back afterwards."""
    before = list(sys.argv)
    sys.argv[1:] = words
    try:
        yield
    finally:
        sys.argv[:] = before
