"""What a cluster does to the jobs of a sweep: each run goes on exactly, or has failed alone."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.launchers import one_thread
from tests.helpers.processes import Process, in_terminal, record_in, started, wait_for
from tests.helpers.slurm import IDLE, Slurm, running, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

SLURM = [
    "-m",
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "trainer=cpu",
]
QUIET = ["experiment=quick", "total_iters=60", "warmup=off"]

# Takes more memory than its job has asked for, in the run of one seed.
HOG = """
import os

import pytorch_lightning as pl


class Hog(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if os.environ["PL_GLOBAL_SEED"] == "4" and trainer.current_epoch == 3:
            self.taken = bytearray(os.urandom(1 << 20)) * 3000
"""


@dataclass
class Sweep:
    """A sweep through SLURM in a directory of its own."""

    work: Path
    cluster: Slurm
    arguments: list[str] = field(default_factory=list)

    @contextmanager
    def started(self, *more: str) -> Iterator[Process]:
        (self.work / "idle.py").write_text(IDLE)
        idle = "+callbacks.idle._target_=idle.Idle"
        given = [*SLURM, *QUIET, idle, *self.arguments, *more]
        environment = one_thread(self.cluster.environment)
        with started(self.work, *given, environment=environment) as process:
            yield process

    def folders(self) -> dict[int, Path]:
        """Return the folders of the runs by their seeds."""
        found = {}
        for file in self.work.glob("multirun/*/sweep.json"):
            for point in json.loads(file.read_text())["points"].values():
                seed = next(one for one in point["overrides"] if one.startswith("seed="))
                found[int(seed.removeprefix("seed="))] = file.parent / point["folder"]
        return found

    def folder(self, seed: int) -> Path | None:
        return self.folders().get(seed)

    def record(self, seed: int) -> dict[str, Any]:
        folder = self.folder(seed)
        return record_in(folder) if folder is not None and (folder / "result.json").exists() else {}

    def job(self, seed: int) -> str:
        folder = self.folder(seed)
        if folder is None or not (folder / "job.json").exists():
            return ""
        return str(json.loads((folder / "job.json").read_text())["id"])

    def progress(self, seed: int) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder(seed) / "progress.json").read_text()))
        except (FileNotFoundError, TypeError):
            return {}

    def trains(self, seed: int) -> bool:
        """Whether a run is at work and has a checkpoint to go on from."""
        folder = self.folder(seed)
        files = [] if folder is None else list(folder.glob("resume/step-*.ckpt"))
        return bool(files) and self.record(seed).get("status") == "running"

    def metrics(self) -> dict[int, Any]:
        return {seed: self.record(seed).get("metrics") for seed in sorted(self.folders())}


def undisturbed(work: Path, *arguments: str) -> dict[int, Any]:
    """Return the metrics of the runs where nothing happens to them."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", "trainer=cpu", *QUIET, *arguments]
    work.mkdir()
    done = subprocess.run(
        command, cwd=work, env=one_thread({}), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return Sweep(work, None).metrics()  # type: ignore[arg-type]


LONG = ["trainer.max_epochs=15"]
SHORTER = ["trainer.max_epochs=8"]
REQUEUED, CANCELLED, SIGNALLED, HUNGRY, LEFT_ALONE = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Disturbed:
    """A sweep whose jobs an administrator, a user and a kernel have disturbed."""

    sweep: Sweep
    code: int
    out: str
    errors: str
    whole: dict[int, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The metrics of the long runs where nothing happens to them."""
    return undisturbed(tmp_path_factory.mktemp("whole") / "runs", *LONG, "seed=1,2,3,5")


@pytest.fixture(scope="module")
def disturbed(
    slurm: Slurm, whole: dict[int, Any], tmp_path_factory: pytest.TempPathFactory
) -> Disturbed:
    folder = tmp_path_factory.mktemp("disturbed")
    work = folder / "it's a=b, ü"
    work.mkdir()
    (work / "hog.py").write_text(HOG)
    sweep = Sweep(work, slurm, [*LONG, "+callbacks.hog._target_=hog.Hog", "seed=1,2,3,4,5"])
    events = {
        REQUEUED: lambda job: slurm.run("scontrol", "requeue", job),
        CANCELLED: lambda job: slurm.run("scancel", job),
        SIGNALLED: lambda job: slurm.run("scancel", "--signal=USR2", job),
    }
    with sweep.started() as process:
        deadline = time.monotonic() + 240
        while events and process.poll() is None and time.monotonic() < deadline:
            for seed in [one for one in events if sweep.trains(one)]:
                events.pop(seed)(sweep.job(seed))
            time.sleep(0.05)
        out, errors = process.communicate(timeout=300)
    assert not events, (out, errors)
    return Disturbed(sweep, process.returncode, out, errors, whole)


def test_the_rest_goes_on_and_the_end_says_what_did_not_complete(disturbed: Disturbed) -> None:
    assert disturbed.code == 2, disturbed.errors
    assert ": 5 runs, 3 completed, 1 failed, 1 interrupted\n" in disturbed.out
    assert "Traceback" not in disturbed.errors
    assert disturbed.sweep.record(LEFT_ALONE)["attempts"] == 1
    assert disturbed.sweep.metrics()[LEFT_ALONE] == disturbed.whole[LEFT_ALONE]


def test_a_job_that_is_requeued_goes_on_exactly(disturbed: Disturbed) -> None:
    record = disturbed.sweep.record(REQUEUED)
    assert (record["status"], record["attempts"]) == ("completed", 2)
    assert record["resumed_at"][0] > 0
    assert disturbed.sweep.progress(REQUEUED)["job"]["restarts"] == 1
    assert record["metrics"] == disturbed.whole[REQUEUED]


def test_a_job_that_submitits_signal_ends_requeues_itself_and_goes_on_exactly(
    disturbed: Disturbed,
) -> None:
    record = disturbed.sweep.record(SIGNALLED)
    assert (record["status"], record["attempts"]) == ("completed", 2)
    assert disturbed.sweep.progress(SIGNALLED)["job"]["restarts"] == 1
    assert record["metrics"] == disturbed.whole[SIGNALLED]


def test_lightnings_own_handling_of_slurm_keeps_out(disturbed: Disturbed) -> None:
    assert not list(disturbed.sweep.work.rglob("hpc_ckpt*"))
    logs = [path.read_text() for path in disturbed.sweep.work.rglob("*_log.*")]
    assert logs
    assert not [text for text in logs if "SLURM auto-requeueing" in text]


def test_a_job_that_is_cancelled_is_interrupted_and_the_same_command_goes_on(
    disturbed: Disturbed,
) -> None:
    sweep = disturbed.sweep
    record = sweep.record(CANCELLED)
    assert (record["status"], record["attempts"]) == ("interrupted", 1)
    assert re.search(r"interrupted seed-2_\w+: SLURM job \d+_1 CANCELLED", disturbed.out)
    again = Sweep(sweep.work, sweep.cluster, [*sweep.arguments[:-1], "seed=2"])
    with again.started(f"sweep_name={record['sweep']}") as process:
        out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, (out, errors)
    assert ": 1 run, 1 to go on with\n" in out
    assert sweep.record(CANCELLED)["attempts"] == 2


def test_a_job_that_takes_too_much_memory_has_failed(disturbed: Disturbed) -> None:
    record = disturbed.sweep.record(HUNGRY)
    assert record["status"] == "failed"
    assert "memory" in record["error"]["message"], disturbed.out
    assert "hydra.launcher.mem_gb" in record["error"]["message"]


def test_a_job_that_is_preempted_goes_on_exactly(
    slurm: Slurm, whole: dict[int, Any], tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, slurm, [*LONG, "seed=1,2"])
    with sweep.started() as process:
        wait_for(process, lambda: sweep.trains(1) and sweep.trains(2), "training")
        job = slurm.sbatch(
            "--partition=high", "--nodes=2", "--exclusive", "--time=5", "--wrap=srun sleep 1"
        )
        wait_until(lambda: slurm.state(job) in ("RUNNING", "COMPLETED"), "preemption")
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    for seed in (1, 2):
        assert sweep.record(seed)["attempts"] == 2
        assert sweep.record(seed)["resumed_at"][0] > 0
    assert sweep.metrics() == {seed: whole[seed] for seed in (1, 2)}


def test_a_job_that_ends_at_its_time_limit_goes_on_exactly(slurm: Slurm, tmp_path: Path) -> None:
    # A minute is the shortest limit; the signal comes up to a minute earlier than it should.
    given = ["trainer.max_epochs=125", "trainer.limit_train_batches=5", "checkpoint.keep=1"]
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5"]
    sweep = Sweep(tmp_path, slurm, [*given, *limit, "seed=1"])
    with sweep.started() as process:
        whole = undisturbed(tmp_path / "whole", *given, "seed=1")
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    record = sweep.record(1)
    assert record["attempts"] == 1 + sweep.progress(1)["job"]["restarts"] >= 2
    assert sweep.metrics() == whole


def test_a_driver_that_is_killed_is_taken_over_by_the_same_command(
    slurm: Slurm, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, slurm, [*SHORTER, "hydra.launcher.cpus_per_task=2", "seed=1,2,3"])
    with sweep.started() as process:
        wait_for(process, lambda: sweep.trains(1), "training")
        process.kill()
        process.communicate()
    jobs = {seed: sweep.job(seed) for seed in (1, 2, 3)}
    with sweep.started() as process:
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    assert ": 3 runs, 3 completed\n" in out
    assert "at work in another process" in out
    assert {sweep.record(seed)["attempts"] for seed in jobs} == {1}
    assert {seed: sweep.job(seed) for seed in jobs} == jobs


def test_ctrl_c_leaves_the_jobs_in_the_queue_and_says_so(slurm: Slurm, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, slurm, [*LONG, "seed=1,2"])
    with sweep.started() as process:
        wait_for(process, lambda: sweep.trains(1), "training")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert "2 jobs stay in SLURM's queue, and the same command takes up what they do" in out
    told = next(line for line in out.splitlines() if line.startswith("  scancel "))
    slurm.run(*told.split())
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "an empty queue")


def test_the_table_shows_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    given = [*SLURM, *QUIET, "trainer.max_epochs=4", "seed=1,2,3,4,5"]
    program = [sys.executable, str(ROOT / "train.py"), *given]
    screen = in_terminal(program, tmp_path, one_thread(slurm.environment))
    assert "in the queue" in screen
    assert re.search(r"seed-5_\w+ SLURM job \d+_4 PENDING \(Resources\)", screen)
    assert re.search(r"seed-1_\w+ .*step \d+ of 300", screen)


def test_settings_that_the_cluster_does_not_take_are_one_sentence(
    slurm: Slurm, tmp_path: Path
) -> None:
    for setting, said in (
        ("hydra.launcher.partition=fast", "invalid partition specified: fast"),
        ("hydra.launcher.mem_gb=9000", "Memory specification can not be satisfied"),
        ("trainer=default", "hydra.launcher.gpus_per_node=null, or trainer.accelerator=cpu"),
    ):
        with Sweep(tmp_path, slurm, [*LONG, "seed=1,2", setting]).started() as process:
            out, errors = process.communicate(timeout=180)
        assert process.returncode == 1, (out, errors)
        assert said in errors
        assert errors.startswith("error: hydra/launcher=slurm: the jobs were not taken: ")
        assert "Traceback" not in errors


def test_the_jobs_of_a_node_that_goes_down_go_on_exactly(
    whole: dict[int, Any], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with running(tmp_path_factory.mktemp("down") / "cluster") as cluster:
        sweep = Sweep(tmp_path, cluster, [*LONG, "seed=1,2,3"])
        with sweep.started() as process:
            wait_for(process, lambda: all(map(sweep.trains, (1, 2, 3))), "training")
            cluster.kill_node("n1")
            on_n1 = "squeue --noheader --states=all --array --format=%T|%r"
            wait_until(lambda: "PENDING" in cluster.run(*on_n1.split()), "a requeue")
            cluster.start_node("n1")
            out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    assert sorted(sweep.record(seed)["attempts"] for seed in (1, 2, 3)) == [1, 2, 2]
    assert sweep.metrics() == {seed: whole[seed] for seed in (1, 2, 3)}


def test_a_run_in_two_tasks_is_requeued_and_goes_on_exactly(slurm: Slurm, tmp_path: Path) -> None:
    given = ["trainer=ddp", "trainer.accelerator=cpu", *SHORTER, "seed=1"]
    # The nodes of this cluster have names that lead nowhere.
    tasks = ["tasks_per_node=2", 'setup=["export MASTER_ADDR=127.0.0.1"]']
    sweep = Sweep(tmp_path, slurm, [*(f"hydra.launcher.{one}" for one in tasks), *given])
    with sweep.started() as process:
        wait_for(process, lambda: sweep.trains(1), "training")
        slurm.run("scontrol", "requeue", sweep.job(1))
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    record = sweep.record(1)
    assert (record["attempts"], len(record["resumed_at"])) == (2, 1)
    rows = (sweep.folders()[1] / "sparsity.csv").read_text().splitlines()
    assert len(rows) == len(set(rows))
    assert sweep.metrics() == undisturbed(tmp_path / "whole", *given)


def test_tasks_and_processes_have_to_be_as_many(slurm: Slurm, tmp_path: Path) -> None:
    for more in (["trainer=ddp", "trainer.accelerator=cpu"], ["hydra.launcher.tasks_per_node=2"]):
        with Sweep(tmp_path, slurm, [*more, "seed=1,2"]).started() as process:
            out, errors = process.communicate(timeout=180)
        assert (process.returncode, out) == (1, "")
        assert re.match(r"error: a job has \d tasks \(hydra.launcher.tasks_per_node times", errors)
    assert not list(tmp_path.glob("multirun/*/seed-*"))
