"""Signals wait for a step boundary, once; and whoever handled them before gets them back."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from coreai_opt.runs.signals import (
    SIGNALS,
    Interrupted,
    Interruptions,
    exit_code_of,
    signals_wait,
)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_waits_and_the_second_does_not(
    number: signal.Signals,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Interruptions, "AGAIN_S", 0.0)

    def twice(interruptions: Interruptions) -> None:
        with interruptions.deferred():
            send(number)
            pending = interruptions.pending()
            assert isinstance(pending, Interrupted)
            assert (pending.number, pending.code) == (number, 128 + number)
            assert str(pending) == number.name
            send(number)

    with Interruptions() as interruptions:
        assert interruptions.pending() is None
        with pytest.raises((Interrupted, KeyboardInterrupt)) as ended:
            twice(interruptions)
        assert ended.traceback[-1].name == "_arrived"  # at once, not at the end
        assert exit_code_of(ended.value) == 128 + number
        assert signal.getsignal(number) == signal.SIG_IGN  # a third one helps nobody
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    hint = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
    told = capfd.readouterr().err
    assert told == f"\n{name}: the run ends after this step, with a checkpoint{hint}\n"


@pytest.mark.parametrize(
    ("again_s", "rank", "second"),
    [
        (60.0, "0", signal.SIGTERM),  # the group of the process and its parent, at once
        (0.0, "0", signal.SIGUSR2),
        (0.0, "1", signal.SIGTERM),
    ],
)
def test_what_is_no_second_request(
    again_s: float, rank: str, second: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interruptions, "AGAIN_S", again_s)
    monkeypatch.setenv("LOCAL_RANK", rank)
    reached = []

    def stop(interruptions: Interruptions) -> None:
        with interruptions.deferred():
            send(signal.SIGTERM)
            send(second)
            reached.append(str(interruptions.pending()))

    with Interruptions() as interruptions, pytest.raises(Interrupted, match="SIGTERM"):
        stop(interruptions)
    assert reached == ["SIGTERM"]


def test_a_signal_that_met_no_boundary_is_raised_at_the_end() -> None:
    with Interruptions() as interruptions:
        with pytest.raises(Interrupted, match="SIGTERM"), interruptions.deferred():
            send(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGUSR2"):
            send(signal.SIGUSR2)


def test_an_error_is_not_hidden_by_a_signal_that_waits() -> None:
    def fail(interruptions: Interruptions) -> None:
        with interruptions.deferred():
            send(signal.SIGTERM)
            raise ZeroDivisionError

    with Interruptions() as interruptions, pytest.raises(ZeroDivisionError):
        fail(interruptions)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_the_training_a_signal_ends_the_run_at_once(number: signal.Signals) -> None:
    kind = KeyboardInterrupt if number == signal.SIGINT else Interrupted
    with Interruptions(), pytest.raises(kind):
        send(number)


def test_handlers_are_those_of_before_when_a_run_ends() -> None:
    def theirs(*_: Any) -> None: ...

    signal.signal(signal.SIGTERM, theirs)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruptions() as interruptions:
        now = [signal.getsignal(number) for number in SIGNALS]
        assert [one == other for one, other in zip(now, before, strict=True)] == [
            False,
            False,
            True,  # ignored before: a job in the background of a shell ignores Ctrl-C
        ]
        signal.signal(signal.SIGTERM, theirs)  # as Lightning does
        interruptions.install()
        assert [signal.getsignal(number) for number in SIGNALS] == now
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_the_handler_of_sigusr2_gets_that_signal_alone() -> None:
    called: list[Any] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    with Interruptions() as interruptions:
        for error in (Interrupted(signal.SIGTERM), KeyboardInterrupt(), ValueError()):
            interruptions.pass_on(error)
        assert called == []
        wrapped = SystemExit(1)
        wrapped.__context__ = Interrupted(signal.SIGUSR2)
        interruptions.pass_on(wrapped)
        assert called == [signal.SIGUSR2]
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    with Interruptions() as interruptions:
        interruptions.pass_on(wrapped)


def test_other_ranks_are_told_but_of_ctrl_c() -> None:
    told: list[int] = []
    with Interruptions() as interruptions:
        interruptions.forward = told.append
        for number in SIGNALS:
            with pytest.raises((Interrupted, KeyboardInterrupt)):
                send(number)
    assert told == [signal.SIGTERM, signal.SIGUSR2]


def test_a_terminal_that_is_gone_keeps_nobody_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    def stop(interruptions: Interruptions) -> None:
        with interruptions.deferred():
            monkeypatch.setattr(os, "write", gone)
            send(signal.SIGTERM)
            monkeypatch.undo()
            assert interruptions.pending() is not None

    with Interruptions() as interruptions, pytest.raises(Interrupted):
        stop(interruptions)


def test_another_thread_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with Interruptions() as interruptions, interruptions.deferred():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


def test_codes_are_those_of_a_shell() -> None:
    class SIGTERMException(SystemExit):
        """As Lightning's."""

    assert exit_code_of(KeyboardInterrupt()) == 130
    assert exit_code_of(SIGTERMException()) == 143
    assert exit_code_of(Interrupted(signal.SIGUSR2)) == 140
    assert exit_code_of(ValueError()) is exit_code_of(SystemExit(3)) is None
    caused, meanwhile = SystemExit(1), RuntimeError()
    caused.__cause__ = KeyboardInterrupt()
    meanwhile.__context__ = Interrupted(signal.SIGINT)
    assert exit_code_of(caused) == exit_code_of(meanwhile) == 130


def test_a_signal_waits_for_what_must_not_be_broken_off() -> None:
    steps: list[str] = []

    def interrupted() -> None:
        with Interruptions() as interruptions, signals_wait():
            send(signal.SIGINT)
            send(signal.SIGTERM)
            steps.append(f"done, pressed {interruptions.pressed}")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert steps == ["done, pressed 0"]
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_that_are_ignored_stay_so_while_others_wait() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_wait():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        send(signal.SIGINT)
