"""The queue as SLURM lists it, and what becomes of runs whose jobs stand in it, or have left it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.config.errors import RunBusyError, RunInterruptedError
from coreai_opt.sweep.folder import SweepFolder, SweepJob
from coreai_opt.sweep.launchers import slurm_outcome
from coreai_opt.sweep.launchers import slurm_queue as queue
from coreai_opt.sweep.launchers.base import CrashedJob
from coreai_opt.sweep.launchers.slurm_queue import Job, JobState, SlurmQueue, parsed_queue, read_job
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.scheduler import Scheduler
from tests.helpers.stub_launchers import Launches, Told, begin, complete

LISTED = """\
12_0|RUNNING|None
12_1|PENDING|Resources
12_2|COMPLETED|None
13|NODE_FAIL|NodeDown

some words that squeue wrote
"""

SETTINGS = """\
Configuration data as of 2026-11-25T22:00:00
ClusterName             = here
MaxArraySize            = 3
"""


def test_the_queue_is_read_as_squeue_lists_it() -> None:
    states = parsed_queue(LISTED)
    assert [str(state) for state in states.values()] == [
        "RUNNING",
        "PENDING (Resources)",
        "COMPLETED",
        "NODE_FAIL (NodeDown)",
    ]
    assert [one for one, state in states.items() if state.is_over] == ["12_2", "13"]


@pytest.fixture
def slurm_queue(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SlurmQueue]:
    """A queue whose commands answer as a test says; None = they do not."""

    def make(
        squeue: str | None, sacct: str | None = None, scontrol: str | None = SETTINGS
    ) -> SlurmQueue:
        made = SlurmQueue()
        made.answers = {"squeue": squeue, "sacct": sacct, "scontrol": scontrol}  # type: ignore[attr-defined]
        answers = made.answers  # type: ignore[attr-defined]
        monkeypatch.setattr(queue, "_output", lambda command, timeout_s: answers[command[0]])
        monkeypatch.setattr(SlurmQueue, "is_here", True)
        monkeypatch.setattr(SlurmQueue, "REFRESH_S", 0.0)
        return made

    return make


def job(number: str = "12_1", cluster: str = "here", since: int = 0) -> Job:
    return Job(number, cluster, "/somewhere/%j", since)


def test_a_job_is_active_while_slurm_has_it(slurm_queue: Callable[..., SlurmQueue]) -> None:
    known = slurm_queue(LISTED)
    assert [known.is_active(job(number)) for number in ("12_0", "12_1", "12_2", "99")] == [
        True,
        True,
        False,
        False,
    ]
    assert not known.is_active(job("12_0", cluster="elsewhere"))


def test_a_controller_that_does_not_answer_has_nothing_against_a_job(
    slurm_queue: Callable[..., SlurmQueue],
) -> None:
    known = slurm_queue(None, scontrol=None)
    assert known.is_active(job("99"))
    # A name that is not known now is asked for again.
    known.answers |= {"squeue": LISTED, "scontrol": SETTINGS}  # type: ignore[attr-defined]
    assert known.is_active(job("12_0"))
    assert not known.is_active(job("99"))
    assert (known.cluster, known.most_at_once) == ("here", 3)
    known.answers["squeue"] = None  # type: ignore[attr-defined]
    assert known.is_active(job("12_0"))


def test_an_answer_that_is_older_than_a_job_says_nothing_of_it(
    slurm_queue: Callable[..., SlurmQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = slurm_queue(LISTED)
    known.expect(["14"])
    assert known.is_active(job("14"))
    known.answers["squeue"] = LISTED + "14|RUNNING|None\n"  # type: ignore[attr-defined]
    assert str(known.state(job("14"))) == "RUNNING"
    known.answers["squeue"] = LISTED  # type: ignore[attr-defined]
    assert not known.is_active(job("14"))
    # One that is never listed is not waited for for ever.
    known.expect(["15"])
    monkeypatch.setattr(SlurmQueue, "LAG_S", 0.0)
    assert not known.is_active(job("15"))


def test_what_the_controller_has_forgotten_is_looked_up_in_the_accounting(
    slurm_queue: Callable[..., SlurmQueue],
) -> None:
    assert slurm_queue("", "CANCELLED by 0\n").state(job("99")) == JobState("CANCELLED")
    assert slurm_queue("", "OUT_OF_ME+\n").state(job("99")).state == "OUT_OF_ME"
    assert slurm_queue("", None).state(job("99")) == JobState("UNKNOWN")


def test_a_job_is_kept_with_its_run(tmp_path: Path) -> None:
    path = tmp_path / "run" / "job.json"
    queue.write_job(path, job())
    assert read_job(path) == job()
    for text in ("", "[]", '{"id": 12}', '{"id": 1, "cluster": "", "folder": "", "since": 0}'):
        path.write_text(text)
        assert read_job(path) is None


def failed(error: Exception) -> JobReturn:
    made = JobReturn()
    made.status, made.return_value = JobStatus.FAILED, error
    return made


KILLED = "slurmstepd-n1: error: StepId=7.0 exceeded memory limit (3 > 2), being killed\n"
CGROUP = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\n"
TORCH = "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB\n"

VERDICTS = [
    ("NODE_FAIL", None, "", None, "SLURM job 12_1 NODE_FAIL; its output is in"),
    ("PREEMPTED", None, "", None, "SLURM job 12_1 PREEMPTED"),
    ("UNKNOWN", None, "", None, "SLURM job 12_1 UNKNOWN"),
    ("FAILED", None, TORCH, None, "SLURM job 12_1 FAILED"),
    ("FAILED", None, KILLED, "failed", "allowed: a larger hydra.launcher.mem_gb"),
    ("CANCELLED", None, CGROUP, "failed", "allowed: a larger hydra.launcher.mem_gb"),
    ("OUT_OF_MEMORY", None, "", "failed", "allowed: a larger hydra.launcher.mem_gb"),
    ("CANCELLED", None, "", "interrupted", "somebody has cancelled it"),
    ("CANCELLED", failed(RunInterruptedError(143)), "", "interrupted", "has cancelled it"),
    # Ended by itself when it was told to, before the cluster could requeue it.
    ("COMPLETED", failed(RunInterruptedError(143)), "", None, "COMPLETED (interrupted by signal"),
]


@pytest.mark.parametrize(("state", "value", "errors", "end", "cause"), VERDICTS)
def test_what_the_end_of_a_job_means_for_its_run(
    state: str, value: Any, errors: str, end: str | None, cause: str
) -> None:
    lost = slurm_outcome.outcome_of_job(job(), JobState(state), value, errors)
    assert isinstance(lost, CrashedJob)
    assert lost.end == end
    assert cause in lost.cause


def test_what_a_job_has_raised_counts() -> None:
    error = RunBusyError.of("resume", "at work")
    told = slurm_outcome.outcome_of_job(job(), JobState("COMPLETED"), failed(error))
    assert isinstance(told, JobReturn)
    assert told._return_value is error
    told = slurm_outcome.outcome_of_job(job(), JobState("FAILED"), RuntimeError("no module"))
    assert isinstance(told, JobReturn)
    assert str(told._return_value) == "no module"


@pytest.fixture
def entries(plan: Callable[..., Plan], tmp_path: Path) -> list[SweepJob]:
    return SweepFolder(tmp_path / "sweep").entries(plan("power=1,2").points)


class Cluster:
    """A queue in which jobs stand until a test lets them go."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.last = JobState("COMPLETED")
        self.lags = 0

    def is_active(self, job: Job) -> bool:
        return job.id in self.active

    def state(self, job: Job) -> JobState:
        return JobState("RUNNING") if job.id in self.active else self.last

    def may_lag(self, job: Job) -> bool:
        self.lags -= 1
        return self.lags >= 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(slurm_outcome, "returned", lambda job: None)
    for module in ("folder", "launchers.slurm_outcome"):
        monkeypatch.setattr(f"coreai_opt.sweep.{module}.slurm_queue", lambda: made)
    monkeypatch.setattr("coreai_opt.sweep.scheduler.POLL_S", 0.01)
    return made


class Submits:
    """A launcher that puts jobs into the queue, and returns."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.batches = cluster, 0

    def __call__(self, entries: Any) -> list[Any]:
        self.batches += 1
        for at, entry in enumerate(entries):
            number = f"{self.batches}_{at}"
            queue.write_job(entry.paths.job, job(number, since=entry.mtime_ns()))
            self.cluster.active.add(number)
        return []


class Ends(Told):
    """Lets jobs end, one thing at a time, while the scheduler waits for them."""

    def __init__(self, cluster: Cluster, *events: Callable[[], None]) -> None:
        super().__init__()
        self._cluster, self._events = cluster, list(events)

    def waiting(self, entries: Any) -> None:
        super().waiting(entries)
        if self._events:
            self._events.pop(0)()


def test_jobs_in_the_queue_are_waited_for_and_settled_by_their_records(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)

    def first() -> None:
        complete(entries[1])
        cluster.active.discard("1_1")

    def second() -> None:
        complete(entries[0])
        cluster.active.discard("1_0")

    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries, Ends(cluster, first, second))
    assert launch.batches == 1
    assert [one.entry for one in scheduler.outcomes] == [entries[1], entries[0]]
    assert {one.end for one in scheduler.outcomes} == {"completed"}


def test_a_job_that_is_requeued_stays_the_clusters_affair(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)

    def interrupted() -> None:
        begin(entries[0]).fail("interrupted", RunInterruptedError(140))
        assert entries[0].state() == "queued"

    def done() -> None:
        complete(entries[0])
        cluster.active.clear()

    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, interrupted, done))
    assert (launch.batches, scheduler.outcomes[0].end) == (1, "completed")


def test_a_job_that_has_left_without_a_record_is_submitted_again(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.last = JobState("NODE_FAIL")
    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries, Ends(cluster, *[cluster.active.clear] * 3))
    assert launch.batches == 3
    assert {one.end for one in scheduler.outcomes} == {"failed"}
    told = "its process was lost 3 times; SLURM job 3_0 NODE_FAIL; its output is in"
    assert str(scheduler.outcomes[0].cause).startswith(told)


def test_a_run_that_gets_further_each_time_is_never_given_up(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch, steps = Submits(cluster), iter(range(1, 6))

    def lost() -> None:
        step = next(steps)
        folder = entries[0].paths.resume
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"step-{step:08d}-{'0' * 16}.ckpt").touch()
        cluster.active.clear()

    def done() -> None:
        complete(entries[0])
        cluster.active.clear()

    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, *[lost] * 5, done))
    assert (launch.batches, scheduler.outcomes[0].end) == (6, "completed")


def test_a_cancelled_job_is_not_submitted_again_by_the_command_that_sees_it(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.last = JobState("CANCELLED")
    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, cluster.active.clear))
    assert (launch.batches, scheduler.outcomes[0].end) == (1, "interrupted")
    # The next command is asked to run it.
    later = Scheduler(Launches())
    later.run(entries[:1], Told())
    assert later.outcomes[0].end == "completed"


def test_a_job_of_an_earlier_command_is_taken_up(entries: list[SweepJob], cluster: Cluster) -> None:
    Submits(cluster)(entries)
    assert {entry.state() for entry in entries} == {"queued"}

    def done() -> None:
        for entry in entries:
            complete(entry)
        cluster.active.clear()

    launches = Launches()
    scheduler = Scheduler(launches)
    scheduler.run(entries, Ends(cluster, done))
    assert launches.batches == []
    assert {one.end for one in scheduler.outcomes} == {"completed"}


def test_what_has_failed_before_a_job_was_submitted_waits_for_the_job(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    begin(entries[0]).fail("failed", ValueError("too hot"))
    Submits(cluster)(entries[:1])
    assert entries[0].state() == "queued"
    begin(entries[0]).fail("failed", ValueError("still too hot"))
    assert entries[0].state() == "failed"


def test_a_completed_run_that_is_run_again_waits_for_its_job(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    complete(entries[0], 0.1)
    launch = Submits(cluster)

    def done() -> None:
        complete(entries[0], 0.7)
        cluster.active.clear()

    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, lambda: None, done))
    assert launch.batches == 1
    assert [(one.end, one.value) for one in scheduler.outcomes] == [("completed", 0.7)]


def test_a_record_that_the_file_system_shows_late_is_waited_for(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.lags = 99
    seen = [cluster.active.clear, lambda: None, lambda: None, lambda: complete(entries[0])]
    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, *seen))
    assert (launch.batches, scheduler.outcomes[0].end) == (1, "completed")


def test_a_record_that_is_never_shown_is_not_waited_for_for_ever(
    entries: list[SweepJob], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.lags = 2
    seen = [cluster.active.clear, *[lambda: None] * 2, *[cluster.active.clear] * 2]
    scheduler = Scheduler(launch, isolates=True)
    scheduler.run(entries[:1], Ends(cluster, *seen))
    assert (launch.batches, scheduler.outcomes[0].end) == (3, "failed")


def test_a_record_that_ends_during_a_look_counts(
    entries: list[SweepJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(entries[0])
    scheduler = Scheduler(Launches(), {entries[0].point.config_hash: 0})
    state, ended = SweepJob.state, []

    def ends_first(entry: SweepJob) -> Any:
        if not ended:
            ended.append(complete(entry, 0.9))
        return state(entry)

    monkeypatch.setattr(SweepJob, "state", ends_first)
    scheduler.run(entries[:1], Told())
    assert [(one.end, one.value) for one in scheduler.outcomes] == [("completed", 0.9)]
