"""What ends a run from outside: at the next step boundary, with a checkpoint, or at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, Self

from coreai_opt.config.errors import error_chain
from coreai_opt.runs.processes import is_main_process

__all__ = ["CTRL_C", "Interrupted", "Interruptions", "RunEnded", "exit_code_of", "signals_wait"]

# A shell reports a process that a signal has ended as 128 + its number.
BY_SIGNAL = 128
CTRL_C, SIGTERM = BY_SIGNAL + signal.SIGINT, BY_SIGNAL + signal.SIGTERM

# Windows has no SIGUSR2.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)
]

Handler = Any


class Interrupted(SystemExit):
    """A signal has ended the run.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(BY_SIGNAL + number)

    # Ranks tell each other what has ended the run; SystemExit would be rebuilt from its code.
    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        return type(self), (self.number,)

    def __str__(self) -> str:
        return signal.Signals(self.number).name


class RunEnded(SystemExit):
    """A run was ended by a signal, and its record is written.

    Attributes:
        code: 128 + the signal's number.
        pressed: how often Ctrl-C was meant.
    """

    def __init__(self, code: int, pressed: int = 0) -> None:
        self.pressed = pressed
        super().__init__(code)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals wait for the end of what must not be broken off; then the first one arrives.

    Torch is such a thing: a process that was interrupted while importing it can import it no more,
    and every later run of its sweep would fail.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # None: installed by somebody's C code, and not ours to set.
    ours = [one for one, handler in handlers.items() if handler not in (None, signal.SIG_IGN)]
    for number in ours:
        signal.signal(number, lambda sent, _: arrived.append(sent))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
        for sent in arrived[:1]:
            signal.raise_signal(sent)


class Interruptions:
    """Handles Ctrl-C, SIGTERM and SIGUSR2 for as long as a run lasts.

    Within ``deferred`` the first signal only asks for an end: ``pending`` returns what is to be
    raised at the next step boundary. The same one again, a second later or more, and any signal
    outside is raised at once. On ranks other than 0 nothing is: they get a signal from their group
    and from rank 0, and must not leave the others in the middle of a step.

    In a sweep, Ctrl-C ends one run.

    Signals that the process was started to ignore stay ignored. In a thread other than the main one
    nothing is handled: Python allows it nowhere else.
    """

    AGAIN_S = 1.0

    def __init__(self, in_sweep: bool = False) -> None:
        self._since = 0.0
        self._in_sweep = in_sweep
        self.pressed = 0
        self.forward: Callable[[int], None] | None = None
        self._saved: dict[signal.Signals, Handler] = {}
        self._pending: int | None = None
        self._is_deferring = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._saved = {number: signal.getsignal(number) for number in SIGNALS}
            self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Lightning calls a handler that it finds after its own, and ignores Ctrl-C from the first
        # one on: without this no later run of a sweep could be stopped.
        for number, handler in self._saved.items():
            if handler is not None:  # None: installed by somebody's C code, and not ours to set
                signal.signal(number, handler)

    def install(self) -> None:
        """Put the handlers in place; once more after somebody else has put theirs."""
        for number, handler in self._saved.items():
            if handler is not None and handler is not signal.SIG_IGN:
                signal.signal(number, self._arrived)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals wait for a step boundary; one that met none is raised at the end."""
        self.defer()
        try:
            yield
        finally:
            self.stop_deferring()
        if (error := self.pending()) is not None:
            raise error

    def defer(self) -> None:
        """Let signals wait for a step boundary from now on."""
        self._is_deferring = True

    def stop_deferring(self) -> None:
        """Raise signals at once from now on."""
        self._is_deferring = False

    def pending(self) -> BaseException | None:
        """Return what is to be raised at a step boundary, None while nothing is asked."""
        return None if self._pending is None else Interrupted(self._pending)

    def pass_on(self, error: BaseException) -> None:
        """Call the handler of SIGUSR2 that was there, if that signal has ended the run.

        A launcher's handler requeues the job, and may end the process.
        """
        found = _interrupted(error)
        if found is None or found.number in (signal.SIGINT, signal.SIGTERM):
            return
        handler = next(
            (saved for number, saved in self._saved.items() if number == found.number), None
        )
        if callable(handler):
            handler(found.number, None)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.forward is not None and number != signal.SIGINT:
            self.forward(number)  # a terminal sends Ctrl-C to all processes itself
        if self._is_deferring and self._pending is not None and not self._is_again(number):
            return
        self.pressed += number == signal.SIGINT
        if self._is_deferring and self._pending is None:
            self._pending, self._since = number, time.monotonic()
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            again = "; Ctrl-C again ends it at once"
            if self._in_sweep:
                again = ", and the sweep goes on; Ctrl-C again ends the sweep"
            if number != signal.SIGINT:
                again = ""
            sentence = f"\n{name}: the run ends after this step, with a checkpoint{again}\n"
            if is_main_process():
                with suppress(OSError):  # a terminal that is gone
                    # Not print: the signal may have arrived in the middle of one.
                    os.write(2, sentence.encode())
            return
        # Whoever asks twice is in no doubt, and an exception on the way out helps nobody.
        signal.signal(number, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(number)

    def _is_again(self, number: int) -> bool:
        late = time.monotonic() - self._since >= self.AGAIN_S
        return number == self._pending and late and is_main_process()


def exit_code_of(error: BaseException) -> int | None:
    """Return 128 + the signal's number for what a signal caused, None for any other error.

    Lightning turns Ctrl-C into ``SystemExit(1)``, whose context still is the KeyboardInterrupt.
    """
    for seen in error_chain(error):
        if isinstance(seen, KeyboardInterrupt):
            return CTRL_C
        if isinstance(seen, Interrupted):
            return BY_SIGNAL + seen.number
        if type(seen).__name__ == "SIGTERMException":
            return SIGTERM
    return None


def _interrupted(error: BaseException) -> Interrupted | None:
    return next((seen for seen in error_chain(error) if isinstance(seen, Interrupted)), None)
