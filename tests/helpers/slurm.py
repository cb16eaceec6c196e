"""A SLURM cluster of the tests' own, on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "slurm-dev-cluster"

# A callback that trains for longer than it computes: there is time to disturb it on any machine.
IDLE = """
import time

import pytorch_lightning as pl


class Idle(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        time.sleep(0.5)
"""

Completed = subprocess.CompletedProcess[str]


def script(*arguments: object, path: str | None = None) -> Completed:
    """Run ``scripts/slurm-dev-cluster ARGUMENTS``."""
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env={**os.environ, "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=180,
    )


def _stat(pid: int) -> list[str]:
    """Return the state of a process, its parent, ...; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """Say whether a process is there; one that nobody has waited for yet is not."""
    return _stat(pid)[:1] not in ([], ["Z"])


def parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes_with(*words: str) -> set[int]:
    """Return the processes that have all words in their command or environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if all(word.encode() in text for word in words) and int(process.name) != os.getpid():
            found.add(int(process.name))
    return found


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f"{what}: not so after {timeout_s} s")


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Slurm:
    """A cluster that is up.

    Args:
        directory: what the script was given as ``--dir``.
        said: what the script printed when it was started.
        environment: what a process needs in order to speak to the cluster.
    """

    directory: Path
    said: Completed
    environment: dict[str, str]

    def run(self, *command: object, cwd: Path | None = None, timeout: float = 60) -> str:
        """Return what a command prints; one that fails fails the test."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            cwd=cwd or self.directory.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def sbatch(self, *arguments: object, cwd: Path | None = None) -> int:
        """Submit a job and return its number."""
        return int(self.run("sbatch", "--parsable", *arguments, cwd=cwd))

    def state(self, job: int) -> str:
        """Return a job's state as squeue says it, such as RUNNING, also after its end."""
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    def accounted(self, job: int) -> list[str]:
        """Return state and exit code of each time that a job ran, as sacct says them."""
        options = ("--noheader", "--allocations", "--duplicates", "--parsable2")
        said = self.run("sacct", *options, f"--jobs={job}", "--format=state,exitcode")
        return said.replace("|", " ").splitlines()

    def pids(self) -> dict[str, int]:
        """Return the daemons by the names of their pid files, such as slurmd.n1."""
        files = (self.directory / "run").glob("*.pid")
        return {file.stem: int(file.read_text()) for file in files}

    def kill_node(self, node: str) -> None:
        """End a node as a power failure does: its daemon and all that it runs.

        A step names its node only in what it runs. One that runs nothing is just starting, here or
        on another node, or ending: it is looked at again.
        """
        conf = f"SLURM_CONF={self.directory}/slurm.conf\0"
        _kill({self.pids()[f"slurmd.{node}"]})

        def dead() -> bool:
            processes = processes_with(conf)
            of_jobs = processes_with(conf, f"SLURMD_NODENAME={node}\0")
            steps = {pid for pid in processes if name(pid) == "slurmstepd"}
            idle = steps - set(map(parent, processes))
            _kill(of_jobs | (steps & set(map(parent, of_jobs))))
            return not of_jobs and not idle

        wait_until(dead, f"the processes of {node} are gone")

    def start_node(self, node: str) -> None:
        """Start a node that was killed."""
        self.run("slurmd", "-f", self.directory / "slurm.conf", "-N", node)


@contextmanager
def running(directory: Path, *options: object) -> Iterator[Slurm]:
    """Start a cluster, and stop it whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("a cluster needs root")
    if shutil.which("slurmctld") is None:
        pytest.skip("needs SLURM: scripts/slurm-dev-cluster install")
    said = script("up", "--dir", directory, *options)
    try:
        assert said.returncode == 0, said.stderr
        ours = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SRUN_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**inherited, "PATH": path, "SLURM_CONF": f"{directory}/slurm.conf"}
        yield Slurm(directory, said, environment)
    finally:
        script("down", "--dir", directory)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A cluster of two nodes with accounting, for all tests that leave it as they found it."""
    with running(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster
