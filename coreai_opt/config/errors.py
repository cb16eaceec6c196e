"""What a user did that cannot be run, and a run that failed."""

import sys
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in the configuration, as one sentence for the person who typed it."""

    key: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class ConfigError(Exception):
    """The configuration or the command line is wrong; all problems that were found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, key: str, sentence: str) -> "ConfigError":
        """Return the error that consists of one problem."""
        return cls([Problem(key, sentence)])

    # Hydra's launchers pickle what a job raises; the arguments of Exception would not rebuild it.
    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class RunFailedError(Exception):
    """A run failed while it was built or trained; its record holds the traceback."""

    def __init__(self, cause: str, record: Path) -> None:
        self.cause, self.record = cause, record
        super().__init__(f"the run failed: {cause} (the traceback is in {record})")

    def __reduce__(self) -> tuple[type["RunFailedError"], tuple[str, Path]]:
        return type(self), (self.cause, self.record)


class RunBusyError(ConfigError):
    """Another process is at work on the run."""


class RunInterruptedError(Exception):
    """A run of a sweep was ended by a signal; the others go on.

    Attributes:
        code: what a process that ends so exits with, 128 + the signal's number.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        by = "Ctrl-C" if code == 130 else f"signal {code - 128}"
        super().__init__(f"interrupted by {by}")

    def __reduce__(self) -> tuple[type["RunInterruptedError"], tuple[int]]:
        return type(self), (self.code,)


class SweepStoppedError(Exception):
    """A run was not begun: another one had failed, and ``sweep.fail_fast`` is set."""


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, each error once.

    That are causes, contexts and the members of exception groups, nearest first. Chains that lead
    back into themselves end: an error may be its own cause.
    """
    waiting = deque([error])
    seen: set[int] = set()
    while waiting:
        current = waiting.popleft()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        members = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        led = (current.__cause__, current.__context__, *members)
        waiting.extend(one for one in led if one is not None)


def message_of(error: BaseException) -> str:
    """Return the message of an error, also where its class has a ``__str__`` that fails."""
    try:
        return printable(str(error))
    except Exception as failed:
        return f"the message cannot be shown: {type(failed).__name__} in __str__"


def printable(text: str) -> str:
    """Return a text that can be written to any file: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def refuse(problems: Collection[Problem]) -> None:
    """Print one line for each problem, and exit with 1 where there are any."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
