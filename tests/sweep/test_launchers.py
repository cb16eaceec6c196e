"""What launchers are told of machines and clusters, and how jobs are submitted."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep.folder import SweepFolder, SweepJob
from coreai_opt.sweep.launchers import (
    select as choosing,
)
from coreai_opt.sweep.launchers import (
    slurm_queue as queue,
)
from coreai_opt.sweep.launchers import (
    submitit_launcher as through_submitit,
)
from coreai_opt.sweep.launchers.base import NotLaunchedError
from coreai_opt.sweep.launchers.joblib_launcher import JoblibLauncher
from coreai_opt.sweep.launchers.ray_launcher import init_arguments, remote_arguments
from coreai_opt.sweep.launchers.submitit_launcher import (
    LocalSubmititLauncher,
    SlurmLauncher,
    _refusal,
    executor_parameters,
)
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.selection import select
from coreai_opt.sweep.sweeper import SweepRun
from tests.conftest import ROOT, Command, Refused
from tests.helpers.stub_launchers import complete

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
        "hydra.launcher.gpus_per_node=null, or trainer.accelerator=cpu"
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
    told = launcher.share(jobs)
    many = launcher.side_by_side(10**6)
    assert told["threads"] == max(1, len(os.sched_getaffinity(0)) // many)
    assert told["devices"] == tuple(str(number) for number in range(gpus))


def test_jobs_that_are_left_compute_as_they_did_beside_the_others(
    plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    made = replace(plan("seed=1,2,3,4"), root=tmp_path / "sweep")
    first, *others = SweepFolder(made.root).entries(made.points)
    for entry in others:
        complete(entry)
    selection = select([first, *others], made.settings)
    assert selection.to_run == [first]
    launcher = LocalSubmititLauncher(None)
    SweepRun(made).scheduler(launcher, selection)
    assert launcher.share(1) == {"threads": 2}


def test_joblib_has_a_worker_for_a_job_that_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"n_jobs": 1}
    launcher = JoblibLauncher(SimpleNamespace(joblib=settings, launch=lambda jobs, **_: []))
    monkeypatch.setattr(launcher, "_numbered", lambda entries, environments: (0, []))
    asked = [(launcher.launch([None] * jobs, [None] * jobs), settings["n_jobs"]) for jobs in (3, 1)]
    assert [number for _, number in asked] == [1, 2]


def test_joblibs_jobs_that_compute_on_the_cpu_take_no_gpu() -> None:
    launcher = JoblibLauncher(SimpleNamespace(joblib={"n_jobs": 2, "gpus": 2}), "cpu")
    assert launcher.share(2)["devices"] == ()


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
    monkeypatch.setattr(choosing, "is_installed", lambda plugin: False)
    with pytest.raises(ConfigError) as refused:
        choosing.check_installed(["power=1,2", f"hydra/launcher={name}"])
    (problem,) = refused.value.problems
    assert problem.sentence.startswith(f"hydra/launcher={name} needs the package hydra-")
    assert problem.sentence.endswith(f": pip install 'hydra-coreai-opt[{name}]'")
    choosing.check_installed(["power=1,2", "hydra/launcher=basic"])


def test_a_launcher_that_is_missing_is_told_by_the_command(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "is_installed", lambda plugin: False)
    assert refused("-m", "hydra/launcher=ray", "power=1,2") == (
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


@pytest.fixture
def entries(plan: Callable[..., Plan], tmp_path: Path) -> list[SweepJob]:
    return SweepFolder(tmp_path / "sweep").entries(plan("power=1,2").points)


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

    def submit(self, entries: Any, environments: Any) -> list[Any]:
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
    points = SweepFolder(tmp_path / "sweep").entries(plan("power=1,2,3,4,5").points)
    cluster, launcher = sbatch(9)
    assert launcher.launch(points, [None] * 5) == []
    assert cluster.arrays == [2, 2, 1]
    ids = [queue.read_job(entry.paths.job).id for entry in points]  # type: ignore[union-attr]
    assert ids == cluster.expected == ["1_0", "1_1", "2_0", "2_1", "3_0"]


def test_a_cluster_that_takes_nothing_is_refused_at_first_and_tried_again_later(
    entries: list[SweepJob], sbatch: Any, capsys: pytest.CaptureFixture[str]
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


def test_ctrl_c_waits_for_the_end_of_a_submission(entries: list[SweepJob], sbatch: Any) -> None:
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
