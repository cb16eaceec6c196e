"""What launchers are told, what is heard of their jobs, and the queue as SLURM lists it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from coreai_opt.experiment.errors import ConfigError, RunBusyError, RunInterruptedError
from coreai_opt.sweep.driver import Driver
from coreai_opt.sweep.folder import Entry, SweepFolder
from coreai_opt.sweep.launchers import choosing, queue, through_submitit, verdict
from coreai_opt.sweep.launchers.launching import LostJob, NotLaunchedError
from coreai_opt.sweep.launchers.queue import Job, JobState, SlurmQueue, parsed_queue, read_job
from coreai_opt.sweep.launchers.through_joblib import JoblibLauncher
from coreai_opt.sweep.launchers.through_ray import init_arguments, remote_arguments
from coreai_opt.sweep.launchers.through_submitit import SlurmLauncher, _refusal, executor_parameters
from coreai_opt.sweep.plan import Plan
from tests.conftest import ROOT, Command
from tests.sweep.stubs import Launches, Told, begin, complete

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
    lost = verdict.verdict(job(), JobState(state), value, errors)
    assert isinstance(lost, LostJob)
    assert lost.end == end
    assert cause in lost.cause


def test_what_a_job_has_raised_counts() -> None:
    error = RunBusyError.of("resume", "at work")
    told = verdict.verdict(job(), JobState("COMPLETED"), failed(error))
    assert isinstance(told, JobReturn)
    assert told._return_value is error
    told = verdict.verdict(job(), JobState("FAILED"), RuntimeError("no module named mine"))
    assert isinstance(told, JobReturn)
    assert str(told._return_value) == "no module named mine"


@pytest.fixture
def entries(plan: Callable[..., Plan], tmp_path: Path) -> list[Entry]:
    made = plan("power=1,2", f"paths.sweep_root={tmp_path}")
    return SweepFolder(made.root).entries(made.points)


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
    monkeypatch.setattr(verdict, "returned", lambda job: None)
    for module in ("folder", "launchers.verdict"):
        monkeypatch.setattr(f"coreai_opt.sweep.{module}.slurm_queue", lambda: made)
    monkeypatch.setattr("coreai_opt.sweep.driver.POLL_S", 0.01)
    return made


class Submits:
    """A launcher that puts jobs into the queue, and returns."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.batches = cluster, 0

    def __call__(self, entries: Any) -> list[Any]:
        self.batches += 1
        for at, entry in enumerate(entries):
            number = f"{self.batches}_{at}"
            queue.write_job(entry.paths.job, job(number, since=entry.stamp()))
            self.cluster.active.add(number)
        return []


class Ends(Told):
    """Lets jobs end, one thing at a time, while the driver waits for them."""

    def __init__(self, cluster: Cluster, *events: Callable[[], None]) -> None:
        super().__init__()
        self._cluster, self._events = cluster, list(events)

    def waiting(self, entries: Any) -> None:
        super().waiting(entries)
        if self._events:
            self._events.pop(0)()


def test_jobs_in_the_queue_are_waited_for_and_settled_by_their_records(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)

    def first() -> None:
        complete(entries[1])
        cluster.active.discard("1_1")

    def second() -> None:
        complete(entries[0])
        cluster.active.discard("1_0")

    driver = Driver(launch, isolates=True)
    driver.run(entries, Ends(cluster, first, second))
    assert launch.batches == 1
    assert [one.entry for one in driver.outcomes] == [entries[1], entries[0]]
    assert {one.end for one in driver.outcomes} == {"completed"}


def test_a_job_that_is_requeued_stays_the_clusters_affair(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)

    def interrupted() -> None:
        begin(entries[0]).fail("interrupted", RunInterruptedError(140))
        assert entries[0].state() == "queued"

    def done() -> None:
        complete(entries[0])
        cluster.active.clear()

    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, interrupted, done))
    assert (launch.batches, driver.outcomes[0].end) == (1, "completed")


def test_a_job_that_has_left_without_a_record_is_submitted_again(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.last = JobState("NODE_FAIL")
    driver = Driver(launch, isolates=True)
    driver.run(entries, Ends(cluster, *[cluster.active.clear] * 3))
    assert launch.batches == 3
    assert {one.end for one in driver.outcomes} == {"failed"}
    told = "its process was lost 3 times; SLURM job 3_0 NODE_FAIL; its output is in"
    assert str(driver.outcomes[0].cause).startswith(told)


def test_a_run_that_gets_further_each_time_is_never_given_up(
    entries: list[Entry], cluster: Cluster
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

    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, *[lost] * 5, done))
    assert (launch.batches, driver.outcomes[0].end) == (6, "completed")


def test_a_cancelled_job_is_not_submitted_again_by_the_command_that_sees_it(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.last = JobState("CANCELLED")
    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, cluster.active.clear))
    assert (launch.batches, driver.outcomes[0].end) == (1, "interrupted")
    # The next command is asked to run it.
    later = Driver(Launches())
    later.run(entries[:1], Told())
    assert later.outcomes[0].end == "completed"


def test_a_job_of_an_earlier_command_is_taken_up(entries: list[Entry], cluster: Cluster) -> None:
    Submits(cluster)(entries)
    assert {entry.state() for entry in entries} == {"queued"}

    def done() -> None:
        for entry in entries:
            complete(entry)
        cluster.active.clear()

    launches = Launches()
    driver = Driver(launches)
    driver.run(entries, Ends(cluster, done))
    assert launches.batches == []
    assert {one.end for one in driver.outcomes} == {"completed"}


def test_what_has_failed_before_a_job_was_submitted_waits_for_the_job(
    entries: list[Entry], cluster: Cluster
) -> None:
    begin(entries[0]).fail("failed", ValueError("too hot"))
    Submits(cluster)(entries[:1])
    assert entries[0].state() == "queued"
    begin(entries[0]).fail("failed", ValueError("still too hot"))
    assert entries[0].state() == "failed"


SLURM = {
    "submitit_folder": "x/%j",
    "max_num_timeout": 1000,
    "timeout_min": 60,
    "mem_gb": 4,
    "gpus_per_node": 1,
    "cpus_per_task": 2,
    "signal_delay_s": 120,
    "setup": None,
}


def test_slurm_is_asked_for_gpus_only_where_they_are_used() -> None:
    told = executor_parameters(SLURM, "slurm", "auto")
    assert told == {
        "timeout_min": 60,
        "mem_gb": 4,
        "gpus_per_node": 1,
        "cpus_per_task": 2,
        "slurm_signal_delay_s": 120,
        "slurm_setup": None,
    }
    assert "gpus_per_node" not in executor_parameters(SLURM, "slurm", "cpu")


def test_a_refusal_of_sbatch_says_what_to_change() -> None:
    text = "boom\nsbatch: error: Invalid generic resource (gres) specification\n"
    assert _refusal(RuntimeError(text)) == (
        "hydra/launcher=slurm: the jobs were not taken: Invalid generic resource (gres) "
        "specification; allowed where the cluster has no such GPUs: "
        "hydra.launcher.gpus_per_node=null, or trainer=cpu"
    )


def test_ray_is_told_of_gpus_and_of_its_own_cluster_only_where_there_are_any() -> None:
    given = {"address": None, "num_cpus": 2, "num_gpus": None, "include_dashboard": False}
    own = {"address": "local", "num_cpus": 2, "include_dashboard": False}
    assert init_arguments(given, None) == own
    assert init_arguments(given, "10.0.0.1:6379") == {}
    assert init_arguments({**given, "address": "auto"}, None) == {"address": "auto"}
    assert init_arguments({**given, "address": "local"}, "10.0.0.1:6379")["num_cpus"] == 2
    asked = {"num_cpus": 1, "num_gpus": None}
    assert remote_arguments(asked, has_gpus=False) == {"num_cpus": 1}
    assert remote_arguments(asked, has_gpus=True) == {"num_cpus": 1, "num_gpus": 1}
    assert remote_arguments(asked, has_gpus=True, accelerator="cpu") == {"num_cpus": 1}
    assert remote_arguments({"num_gpus": 0.5}, has_gpus=False) == {"num_gpus": 0.5}


@pytest.mark.parametrize(
    ("n_jobs", "gpus", "per_gpu", "jobs", "side_by_side"),
    [
        (2, 0, 1, 8, 2),
        (4, 0, 1, 3, 3),
        (-1, 0, 1, 99, len(os.sched_getaffinity(0))),
        (-1, 3, 2, 99, 6),
        (2, 3, 2, 99, 2),
        (9, 2, 2, 99, 4),
        (-1, 3, 2, 1, 1),
    ],
)
def test_joblibs_jobs_share_the_machine(
    n_jobs: int, gpus: int, per_gpu: int, jobs: int, side_by_side: int
) -> None:
    settings = {"n_jobs": n_jobs, "gpus": gpus, "jobs_per_gpu": per_gpu}
    launcher = JoblibLauncher(SimpleNamespace(joblib=settings))
    assert settings == {"n_jobs": n_jobs}  # joblib itself knows nothing of GPUs
    assert launcher.side_by_side(jobs) == side_by_side
    told = launcher.orders(jobs)
    assert told["threads"] == max(1, len(os.sched_getaffinity(0)) // side_by_side)
    assert told["devices"] == tuple(str(number) for number in range(gpus))


def test_joblibs_jobs_that_compute_on_the_cpu_take_no_gpu() -> None:
    launcher = JoblibLauncher(SimpleNamespace(joblib={"n_jobs": 2, "gpus": 2}), "cpu")
    assert launcher.orders(2)["devices"] == ()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"jobs_per_gpu": 0}, "hydra.launcher.jobs_per_gpu=0: "),
        ({"jobs_per_gpu": "many"}, "hydra.launcher.jobs_per_gpu=many: "),
        ({"gpus": "all"}, "hydra.launcher.gpus=all: "),
        ({"gpus": -1}, "hydra.launcher.gpus=-1: "),
        ({"n_jobs": 0}, "hydra.launcher.n_jobs=0: "),
    ],
)
def test_wrong_settings_of_joblib_are_sentences(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        JoblibLauncher(SimpleNamespace(joblib={"n_jobs": 2, **setting}))
    (problem,) = refused.value.problems
    assert problem.sentence.startswith(said)
    assert "; allowed: " in problem.sentence


@pytest.mark.parametrize("name", ["slurm", "ray", "joblib"])
def test_a_launcher_that_is_not_installed_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_is_installed", lambda plugin: False)
    with pytest.raises(ConfigError) as refused:
        choosing.check_installed(["power=1,2", f"hydra/launcher={name}"])
    (problem,) = refused.value.problems
    assert problem.sentence.startswith(f"hydra/launcher={name} needs the package hydra-")
    assert problem.sentence.endswith(f": pip install 'hydra-coreai-opt[{name}]'")
    choosing.check_installed(["power=1,2", "hydra/launcher=basic"])


def test_a_launcher_that_is_missing_is_told_by_the_command(work: Path) -> None:
    hiding = (
        "import importlib.util, runpy, sys\n"
        "from coreai_opt.sweep.launchers import choosing\n"
        "choosing._is_installed = lambda plugin: False\n"
        f"sys.argv[0] = {str(ROOT / 'train.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    (work / "program.py").write_text(hiding)
    program = [sys.executable, "program.py", "-m", "hydra/launcher=ray", "power=1,2"]
    done = subprocess.run(program, cwd=work, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: hydra/launcher=ray needs the package hydra-ray-launcher: "
        "pip install 'hydra-coreai-opt[ray]'\n"
    )


@pytest.mark.parametrize("name", ["slurm", "ray", "joblib"])
def test_each_launcher_composes_and_is_commented(name: str, command: Command) -> None:
    shown = command("--cfg", "hydra", f"hydra/launcher={name}")
    assert shown.returncode == 0, shown.stderr
    assert "deprecat" not in (shown.stdout + shown.stderr).lower()
    text = (ROOT / "conf" / "hydra" / "launcher" / f"{name}.yaml").read_text()
    values = [line for line in text.splitlines() if ":" in line and not line.startswith("#")]
    bare = [line for line in values if "#" not in line and not line.endswith(":")]
    assert not bare


def test_a_completed_run_that_is_run_again_waits_for_its_job(
    entries: list[Entry], cluster: Cluster
) -> None:
    complete(entries[0], 0.1)
    launch = Submits(cluster)

    def done() -> None:
        complete(entries[0], 0.7)
        cluster.active.clear()

    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, lambda: None, done))
    assert launch.batches == 1
    assert [(one.end, one.value) for one in driver.outcomes] == [("completed", 0.7)]


def test_a_record_that_the_file_system_shows_late_is_waited_for(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.lags = 99
    seen = [cluster.active.clear, lambda: None, lambda: None, lambda: complete(entries[0])]
    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, *seen))
    assert (launch.batches, driver.outcomes[0].end) == (1, "completed")


def test_a_record_that_is_never_shown_is_not_waited_for_for_ever(
    entries: list[Entry], cluster: Cluster
) -> None:
    launch = Submits(cluster)
    cluster.lags = 2
    seen = [cluster.active.clear, *[lambda: None] * 2, *[cluster.active.clear] * 2]
    driver = Driver(launch, isolates=True)
    driver.run(entries[:1], Ends(cluster, *seen))
    assert (launch.batches, driver.outcomes[0].end) == (3, "failed")


def test_a_record_that_ends_during_a_look_counts(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(entries[0])
    driver = Driver(Launches(), {entries[0].point.digest: 0})
    state, ended = Entry.state, []

    def ends_first(entry: Entry) -> Any:
        if not ended:
            ended.append(complete(entry, 0.9))
        return state(entry)

    monkeypatch.setattr(Entry, "state", ends_first)
    driver.run(entries[:1], Told())
    assert [(one.end, one.value) for one in driver.outcomes] == [("completed", 0.9)]


class Sbatch:
    """A cluster that takes so many arrays, and refuses the next ones for a while."""

    most_at_once = 2
    is_here = True
    cluster = "here"

    def __init__(self, takes: int) -> None:
        self.takes, self.arrays = takes, []
        self.expected: list[str] = []

    def expect(self, ids: list[str]) -> None:
        self.expected += ids

    def submit(self, entries: Any, orders: Any) -> list[Any]:
        if len(self.arrays) >= self.takes:
            raise RuntimeError("sbatch: error: Socket timed out on send/recv operation")
        self.arrays.append(len(entries))
        number = len(self.arrays)
        return [SimpleNamespace(job_id=f"{number}_{at}") for at in range(len(entries))]


@pytest.fixture
def sbatch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Sbatch, SlurmLauncher]]:
    def make(takes: int) -> tuple[Sbatch, SlurmLauncher]:
        made = Sbatch(takes)
        monkeypatch.setattr(through_submitit, "slurm_queue", lambda: made)
        launcher = SlurmLauncher(SimpleNamespace(params={"submitit_folder": "x/%j"}))
        monkeypatch.setattr(launcher, "_submit", made.submit)
        return made, launcher

    return make


def test_a_sweep_is_submitted_in_arrays_that_the_cluster_takes(
    plan: Callable[..., Plan], tmp_path: Path, sbatch: Any
) -> None:
    made = plan("power=1,2,3,4,5", f"paths.sweep_root={tmp_path}")
    points = SweepFolder(made.root).entries(made.points)
    cluster, launcher = sbatch(9)
    assert launcher.launch(points, [None] * 5) == []
    assert cluster.arrays == [2, 2, 1]
    ids = [queue.read_job(entry.paths.job).id for entry in points]  # type: ignore[union-attr]
    assert ids == cluster.expected == ["1_0", "1_1", "2_0", "2_1", "3_0"]


def test_a_cluster_that_takes_nothing_is_refused_at_first_and_tried_again_later(
    entries: list[Entry], sbatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, launcher = sbatch(0)
    with pytest.raises(ConfigError, match="the jobs were not taken: Socket timed out"):
        launcher.launch(entries, [None, None])
    cluster, launcher = sbatch(1)
    assert launcher.launch(entries, [None, None]) == []
    for _ in range(3):
        with pytest.raises(NotLaunchedError):
            launcher.launch(entries, [None, None])
    # It was tried once, and is not until the time that it told has passed.
    assert capsys.readouterr().err.count("; tried again in 30 s\n") == 1
    launcher._not_before, cluster.takes = 0.0, 2
    assert launcher.launch(entries, [None, None]) == []


def test_ctrl_c_waits_for_the_end_of_a_submission(entries: list[Entry], sbatch: Any) -> None:
    cluster, launcher = sbatch(9)
    submit = cluster.submit

    def pressed(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return submit(*given)

    launcher._submit = pressed
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(entries, [None, None])
    assert [queue.read_job(entry.paths.job) is not None for entry in entries] == [True, True]


def test_a_submission_from_within_a_job_is_one_from_a_login_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "100", "SLURM_CONF": "/x", "SBATCH_QOS": "a"}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    with through_submitit._outside_of_jobs():
        left = {key: os.environ[key] for key in given if key in os.environ}
    assert left == {"SLURM_CONF": "/x", "SBATCH_QOS": "a"}
    assert all(os.environ[key] == value for key, value in given.items())
