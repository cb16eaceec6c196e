"""Running points: one that fails, hangs on others, or takes its process down costs only itself."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hydra.core.utils import JobReturn

from coreai_opt.config.errors import (
    ConfigError,
    RunBusyError,
    RunInterruptedError,
    SweepStoppedError,
)
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import write_json
from coreai_opt.sweep import scheduler as module
from coreai_opt.sweep.folder import SweepFolder, SweepJob
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.scheduler import Outcome, Scheduler
from tests.helpers.stub_launchers import Launches, Told, begin, complete, fail, lose

A, B, C = "power=1", "power=2", "power=3"


@pytest.fixture
def entries(plan: Callable[..., Plan], tmp_path: Any) -> list[SweepJob]:
    return SweepFolder(tmp_path / "sweep").entries(plan("power=1,2,3").points)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "BUSY_S", 0.01)


def ends(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.entry.point.overrides[0]: outcome.end for outcome in outcomes}


def test_all_complete_in_one_launch(entries: list[SweepJob]) -> None:
    launches, told = Launches(), Told()
    scheduler = Scheduler(launches)
    scheduler.run(entries, told)
    assert launches.batches == [[A, B, C]]
    assert [(one.end, one.value) for one in scheduler.outcomes] == [("completed", 0.5)] * 3
    assert told.ends == scheduler.outcomes


def test_a_failed_run_is_settled_by_its_record_and_not_run_again(entries: list[SweepJob]) -> None:
    launches = Launches({B: fail})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    assert len(launches.batches) == 1
    assert ends(scheduler.outcomes) == {A: "completed", B: "failed", C: "completed"}
    assert scheduler.outcomes[1].cause == "ValueError: too hot"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("\ud800 surrogate \x00", r"RuntimeError: \ud800 surrogate \x00"),
        ("x" * 2_000_000, f"RuntimeError: {'x' * 286} ..."),
    ],
    ids=["not encodable", "long"],
)
@pytest.mark.parametrize("is_in_record", [True, False])
def test_any_message_is_printed_in_a_line(
    entries: list[SweepJob], message: str, cause: str, is_in_record: bool
) -> None:
    def action(entry: SweepJob) -> None:
        if is_in_record:
            record = begin(entry)
            record.fail("failed", RuntimeError())
            error = {"type": "RuntimeError", "message": message, "traceback": ""}
            write_json(entry.paths.result, {**record.content, "error": error})
        raise RuntimeError(message)

    scheduler = Scheduler(Launches({B: action}))
    scheduler.run(entries, Told())
    told = str(scheduler.outcomes[1].cause)
    assert told.startswith(cause)
    assert len(told.encode()) < 400


def raises(error: Exception) -> Callable[[SweepJob], None]:
    def action(entry: SweepJob) -> None:
        raise error

    return action


WITHOUT_A_RECORD = [
    (OSError(28, "No space left on device"), "failed", "OSError: [Errno 28] No space left"),
    (ConfigError.of("power", "power=2: no"), "failed", "power=2: no"),
    (RunInterruptedError(130), "interrupted", "interrupted by Ctrl-C"),
    (SweepStoppedError("not begun: x"), "stopped", "not begun: x"),
]


@pytest.mark.parametrize(("error", "end", "cause"), WITHOUT_A_RECORD, ids=lambda value: str(value))
def test_what_a_job_raises_counts_where_there_is_no_record(
    entries: list[SweepJob], error: Exception, end: str, cause: str
) -> None:
    launches = Launches({B: raises(error)})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    assert ends(scheduler.outcomes) == {A: "completed", B: end, C: "completed"}
    assert str(scheduler.outcomes[1].cause).startswith(cause)


def with_warmup(entries: list[SweepJob], waiting: int) -> tuple[SweepJob, dict[str, str]]:
    """Return a warm-up run, and which of the last jobs wait for it."""
    point = replace(entries[0].point, warmup_key="0123456789abcdef")
    job = SweepJob(point, RunPaths(entries[0].paths.root.parent / "warmup-01234567"))
    return job, {one.point.config_hash: point.config_hash for one in entries[-waiting:]}


def test_jobs_wait_for_their_warm_up_run_and_others_do_not(entries: list[SweepJob]) -> None:
    warmup, waits = with_warmup(entries, 2)
    launches, told = Launches(), Told()
    scheduler = Scheduler(launches, warmups=waits)
    scheduler.run([warmup, *entries], told)
    assert launches.batches == [[A, A], [B, C]]
    assert len(told.ends) == 4
    # It is no run of the sweep.
    assert ends(scheduler.outcomes) == dict.fromkeys([A, B, C], "completed")
    assert len(scheduler.outcomes) == 3


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_warm_up_run_that_fails_fails_no_other(entries: list[SweepJob], in_turn: bool) -> None:
    warmup, waits = with_warmup(entries, 3)
    looks: list[list[bool]] = []

    def launch(batch: Sequence[SweepJob]) -> Sequence[JobReturn]:
        looks.append(scheduler.ready(batch))
        returns = Launches({A: raise_in(warmup)})(batch)
        looks.append(scheduler.ready(batch))  # at once
        return returns

    scheduler = Scheduler(launch, warmups=waits, in_turn=in_turn)
    scheduler.run([warmup, *entries], Told())
    assert ends(scheduler.outcomes) == dict.fromkeys([A, B, C], "completed")
    assert looks[0] == ([True, False, False, False] if in_turn else [True])
    assert all(all(look) for look in looks[1:])


def test_jobs_are_not_begun_whose_warm_up_run_is_interrupted(entries: list[SweepJob]) -> None:
    warmup, waits = with_warmup(entries, 2)

    def action(entry: SweepJob) -> Any:
        return raises(RunInterruptedError(130))(entry) if entry == warmup else complete(entry)

    launches, told = Launches({A: action}), Told()
    scheduler = Scheduler(launches, warmups=waits)
    scheduler.run([warmup, *entries], told)
    assert launches.batches == [[A, A]]
    assert told.ends[0].end == "interrupted"
    assert ends(scheduler.outcomes) == {A: "completed", B: "stopped", C: "stopped"}
    assert scheduler.outcomes[1].cause == "not begun: warmup-01234567 was interrupted"


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_warm_up_run_that_is_lost_is_launched_again_before_its_jobs(
    entries: list[SweepJob], in_turn: bool
) -> None:
    warmup, waits = with_warmup(entries, 3)
    batches: list[list[str]] = []

    def launch(batch: Sequence[SweepJob]) -> Sequence[JobReturn]:
        batches.append([entry.paths.root.name[:6] for entry in batch])
        if len(batches) == 1:
            gone(warmup)
            raise RuntimeError("a worker was lost")
        return Launches()(batch)

    scheduler = Scheduler(launch, warmups=waits, in_turn=in_turn)
    scheduler.run([warmup, *entries], Told())
    assert batches[1] == ["warmup"]
    assert ends(scheduler.outcomes) == dict.fromkeys([A, B, C], "completed")


def raise_in(warmup: SweepJob) -> Callable[[SweepJob], Any]:
    def action(entry: SweepJob) -> Any:
        return fail(entry) if entry == warmup else complete(entry)

    return action


def gone(entry: SweepJob) -> None:
    """Begin in a process that is gone: the record says running, nobody is at work."""
    begin(entry)
    progress = dict(entry.earlier().progress)  # type: ignore[union-attr]
    write_json(entry.paths.progress, {**progress, "pid": 2**22 + 1})


def test_a_run_that_takes_its_process_down_takes_no_other_with_it(entries: list[SweepJob]) -> None:
    launches = Launches({A: lose})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    # What was not begun goes first; then the one that was at work, alone.
    assert launches.batches == [[A, B, C], [B, C], [A], [A]]
    assert ends(scheduler.outcomes) == {B: "completed", C: "completed", A: "failed"}
    record = entries[0].earlier().record  # type: ignore[union-attr]
    assert (record["status"], record["attempts"]) == ("failed", 3)
    assert record["error"]["type"] == "LostProcessError"
    assert "a worker was lost" in record["error"]["traceback"]
    assert scheduler.outcomes[-1].cause == record["error"]["message"]
    assert record["error"]["message"].startswith("its process was lost 3 times; the launcher said")


def test_an_old_record_is_not_the_end_of_a_run_that_is_run_again(entries: list[SweepJob]) -> None:
    complete(entries[2], 0.1)
    launches = Launches({A: lose})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    assert launches.batches[:2] == [[A, B, C], [B, C]]
    assert {one.entry.point.overrides[0]: one.value for one in scheduler.outcomes}[C] == 0.5


def test_a_run_that_is_lost_once_completes(entries: list[SweepJob]) -> None:
    seen = []

    def once(entry: SweepJob) -> Any:
        seen.append(entry)
        return lose(entry) if len(seen) == 1 else complete(entry)

    launches = Launches({B: once})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    assert launches.batches == [[A, B, C], [C], [B]]
    assert set(ends(scheduler.outcomes).values()) == {"completed"}
    assert entries[1].earlier().record["attempts"] == 2  # type: ignore[union-attr]


def otherwise(says_so: bool) -> Callable[[SweepJob], float | None]:
    """Complete with another config than the planned one, as what reads the environment does."""

    def action(entry: SweepJob) -> float | None:
        value = complete(entry, 0.25)
        found = entry.found()
        assert found is not None
        record = dict(found.record)
        record["config"] = {**record["config"], "seed": 7}
        record["config_hash"] = "0" * 16
        record["planned_hash"] = entry.point.config_hash if says_so else None
        write_json(entry.paths.result, record)
        return value

    return action


@pytest.mark.parametrize("says_so", [True, False])
def test_a_run_that_is_not_what_was_planned_counts_as_it_is(
    entries: list[SweepJob], says_so: bool
) -> None:
    launches = Launches({B: otherwise(says_so)})
    scheduler = Scheduler(launches)
    scheduler.run(entries, Told())
    assert launches.batches == [[A, B, C]]
    assert ends(scheduler.outcomes) == {A: "completed", B: "completed", C: "completed"}
    told = {one.entry.point.overrides[0]: one for one in scheduler.outcomes}
    assert (told[A].deviation, told[B].value) == (None, 0.25)
    assert str(told[B].deviation).endswith("seed: 1 -> 7 (planned -> run)")
    # The same command finds it again where the record says what had been planned.
    assert (entries[1].state() == "completed") is says_so


def test_a_launcher_that_launches_nothing_is_not_asked_forever(entries: list[SweepJob]) -> None:
    batches = []

    def broken(batch: Any) -> Any:
        batches.append(len(batch))
        raise RuntimeError("sbatch: not found")

    scheduler = Scheduler(broken)
    scheduler.run(entries[:1], Told())
    assert batches == [1, 1, 1]
    assert "sbatch: not found" in str(scheduler.outcomes[0].cause)
    assert entries[0].earlier().record["status"] == "failed"  # type: ignore[union-attr]


def test_what_another_command_is_at_work_on_is_waited_for(entries: list[SweepJob]) -> None:
    begin(entries[0])
    progress = dict(entries[0].earlier().progress)  # type: ignore[union-attr]
    write_json(entries[0].paths.progress, {**progress, "pid": os.getppid(), "time": time.time()})

    class Ends(Told):
        def waiting(self, waiting_for: Any) -> None:
            super().waiting(waiting_for)
            if self.waits == 3:
                complete(entries[0], 0.25)

    launches, told = Launches(), Ends()
    scheduler = Scheduler(launches)
    scheduler.run(entries, told)
    assert launches.batches == [[B, C]]
    assert (told.waits, scheduler.outcomes[-1].value) == (3, 0.25)


def test_what_another_command_leaves_unfinished_is_taken_over(entries: list[SweepJob]) -> None:
    seen = []

    def busy(entry: SweepJob) -> Any:
        seen.append(entry)
        if len(seen) < 5:
            raise RunBusyError.of("resume", "another process is at work in it")
        return complete(entry)

    scheduler = Scheduler(Launches({A: busy}))
    scheduler.run(entries[:1], Told())
    assert (len(seen), scheduler.outcomes[0].end) == (5, "completed")


def test_what_fails_in_another_command_meanwhile_is_not_run_again(entries: list[SweepJob]) -> None:
    launches = Launches()

    class Ends(Told):
        def launched(self, batch: Any) -> None:
            with pytest.raises(ValueError, match="too hot"):
                fail(entries[0])

    def busy(entry: SweepJob) -> None:
        raise RunBusyError.of("resume", "another process is at work in it")

    launches.actions[A] = busy
    scheduler = Scheduler(launches)
    scheduler.run(entries, Ends())
    assert launches.batches == [[A, B, C]]
    assert ends(scheduler.outcomes) == {A: "failed", B: "completed", C: "completed"}


def test_what_was_settled_stands_when_the_sweep_is_ended(entries: list[SweepJob]) -> None:
    def ended(entry: SweepJob) -> None:
        gone(entry)
        raise KeyboardInterrupt

    scheduler = Scheduler(Launches({B: ended}))
    with pytest.raises(KeyboardInterrupt):
        scheduler.run(entries, Told())
    assert ends(scheduler.outcomes) == {A: "completed", B: "interrupted"}
