"""What ends a run from outside, and the exit code that says so."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Terminated", "exit_code_of", "signals_end_run"]

CTRL_C, SIGTERM = 130, 143


class Terminated(SystemExit):
    """SIGTERM arrived."""

    def __init__(self) -> None:
        super().__init__(SIGTERM)

    def __str__(self) -> str:
        return "SIGTERM"


@contextmanager
def signals_end_run() -> Iterator[None]:
    """Turn SIGTERM into an exception, and give the handlers back that were there.

    Lightning calls a handler that it finds after its own, and ignores Ctrl-C from the first one on:
    without the second half of this, no later run of a sweep could be stopped.
    """
    saved = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def terminate(number: int, frame: FrameType | None) -> None:
        # Whoever asks twice is in no doubt, and an exception on the way out helps nobody.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in saved.items():
            _restore(number, handler)


def _restore(number: signal.Signals, handler: Any) -> None:
    if handler is not None:  # None: installed by somebody's C code, and not ours to set
        signal.signal(number, handler)


def exit_code_of(error: BaseException) -> int | None:
    """Return 130 or 143 for what a signal caused, None for any other error.

    Lightning turns Ctrl-C into ``SystemExit(1)``, whose context still is the KeyboardInterrupt.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return CTRL_C
        if isinstance(seen, Terminated) or type(seen).__name__ == "SIGTERMException":
            return SIGTERM
        seen = seen.__cause__ or seen.__context__
    return None
