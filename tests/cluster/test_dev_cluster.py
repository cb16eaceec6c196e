"""The cluster that scripts/slurm-dev-cluster makes: up, what its settings do, and down."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.slurm import SCRIPT, Slurm, alive, processes_with, running, script, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root")


def test_up_prints_how_to_reach_it(slurm: Slurm) -> None:
    assert slurm.said.stdout == f"export SLURM_CONF={slurm.directory}/slurm.conf\n"
    assert "2 nodes are up" in slurm.said.stderr


def test_its_nodes_are_idle(slurm: Slurm) -> None:
    nodes = slurm.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T")
    assert nodes.splitlines() == ["n1 idle", "n2 idle"]


def test_a_job_runs_and_is_accounted_for(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.sbatch(
        "--output=out", "--wrap=srun echo $SLURM_JOB_PARTITION; exit 3", cwd=tmp_path
    )
    wait_until(lambda: slurm.state(job) == "FAILED", "the job has ended")
    assert (tmp_path / "out").read_text() == "main\n"
    wait_until(lambda: slurm.accounted(job) == ["FAILED 3:0"], "sacct says so")


def test_up_again_changes_nothing(slurm: Slurm) -> None:
    before = slurm.pids()
    again = script("up", "--dir", slurm.directory, "--nodes", 1)
    assert (again.returncode, again.stdout) == (0, slurm.said.stdout)
    assert again.stderr == f"slurm-dev-cluster: the cluster in {slurm.directory} is up\n"
    assert slurm.pids() == before


def test_it_listens_on_loopback_alone(slurm: Slurm) -> None:
    job = slurm.sbatch("--output=/dev/null", "--wrap=srun sleep 60")
    wait_until(lambda: len(processes_with(str(slurm.directory), "srun")) > 1, "srun is there")
    ours = processes_with(str(slurm.directory)) | set(slurm.pids().values())
    sockets = []
    for line in slurm.run("ss", "-Hltnp").splitlines():
        if ours & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}:
            sockets.append(line.split()[3])
    slurm.run("scancel", job)
    assert len(sockets) > 4
    assert {address.rpartition(":")[0] for address in sockets} == {"127.0.0.1"}


@pytest.mark.slow
def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(
    slurm: Slurm, tmp_path: Path
) -> None:
    take = "import time; block = b'x' * 600_000_000; time.sleep(60)"
    job = slurm.sbatch("--mem=200M", f'--wrap=exec python -c "{take}"', cwd=tmp_path)
    wait_until(lambda: slurm.state(job) == "FAILED", "the job has ended")
    [output] = tmp_path.iterdir()
    assert "exceeded memory limit" in output.read_text()


REPORTS = """#!/bin/bash
#SBATCH --signal=B:USR2@60
#SBATCH --output=out
#SBATCH --open-mode=append
#SBATCH --exclusive
trap 'echo USR2' USR2
echo "began ${SLURM_RESTART_COUNT:-0}"
for _ in {1..600}; do sleep 0.1; done
"""


@pytest.mark.slow
def test_a_preempted_job_is_signalled_and_starts_again(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "job").write_text(REPORTS)
    job = slurm.sbatch("--nodelist=n1", "job", cwd=tmp_path)
    wait_until(lambda: (tmp_path / "out").exists(), "the job has begun")
    high = slurm.sbatch("--partition=high", "--nodelist=n1", "--exclusive", "--wrap=true")
    wait_until(lambda: slurm.state(high) == "COMPLETED", "the other one has run")
    wait_until(lambda: slurm.state(job) == "RUNNING", "the job is back")
    wait_until(lambda: "began 1" in (tmp_path / "out").read_text(), "the job says so")
    slurm.run("scancel", job)
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line for line in lines if "slurmstepd" not in line] == ["began 0", "USR2", "began 1"]
    assert slurm.accounted(job)[0] == "PREEMPTED 0:0"


@pytest.mark.slow
def test_a_killed_node_is_down_and_its_jobs_are_requeued(tmp_path: Path) -> None:
    with running(tmp_path / "cluster", "--nodes", 1, "--no-accounting") as slurm:
        kept = slurm.sbatch("--output=/dev/null", "--wrap=srun sleep 100")
        lost = slurm.sbatch("--output=/dev/null", "--no-requeue", "--wrap=sleep 100")
        wait_until(lambda: {slurm.state(kept), slurm.state(lost)} == {"RUNNING"}, "they run")
        slurm.kill_node("n1")
        assert processes_with(str(slurm.directory), "sleep") == set()
        wait_until(lambda: slurm.state(lost) == "NODE_FAIL", "the node is missed")
        assert slurm.state(kept) == "PENDING"
        slurm.start_node("n1")
        wait_until(lambda: slurm.state(kept) == "RUNNING", "the job is back")


@pytest.mark.slow
def test_down_leaves_nothing_and_does_no_harm_again(slurm: Slurm, tmp_path: Path) -> None:
    before = slurm.pids()
    with running(tmp_path / "cluster", "--nodes", 1, "--no-accounting") as other:
        deaf = "setsid sleep 1001 & trap '' TERM; srun sleep 1002; sleep 1003"
        other.sbatch("--output=/dev/null", f"--wrap={deaf}")
        wait_until(lambda: processes_with(f"SLURM_CONF={other.directory}", "sleep"), "it runs")
        pids = set(other.pids().values()) | processes_with(f"{other.directory}/")
        assert len(pids) > 5
        for told in (f"the cluster in {other.directory} is down", "there is no cluster in"):
            down = script("down", "--dir", other.directory)
            assert (down.returncode, down.stdout) == (0, "")
            assert told in down.stderr
            assert [pid for pid in pids if alive(pid)] == []
            assert processes_with(f"{other.directory}/") == set()
            assert not other.directory.exists()
    assert slurm.pids() == before
    assert all(alive(pid) for pid in before.values())


@root_only
def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    up = script("up", "--dir", tmp_path / "cluster", path="/usr/bin:/bin")
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr == (
        "slurm-dev-cluster: slurmctld is not in PATH; "
        "to get it: scripts/slurm-dev-cluster install\n"
    )


@root_only
def test_others_than_root_are_told_so(tmp_path: Path) -> None:
    up = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "bash", "-s", "--", "up"],
        input=SCRIPT.read_text(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr == (
        "slurm-dev-cluster: only root can start nodes that run jobs: "
        "sudo scripts/slurm-dev-cluster up\n"
    )


@pytest.mark.slow
def test_an_up_that_fails_says_why_and_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "slurmctld"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    path = f"{broken.parent}{os.pathsep}{os.environ['PATH']}"
    up = script("up", "--no-accounting", "--dir", tmp_path / "cluster", path=path)
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr == (
        "slurm-dev-cluster: slurmctld did not start; the end of its log:\nout of luck\n"
    )
    assert processes_with(f"{tmp_path}/cluster/") == set()
    assert not (tmp_path / "cluster").exists()


@pytest.mark.slow
def test_an_up_that_is_interrupted_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    up = subprocess.Popen([SCRIPT, "up", "--dir", directory], stderr=subprocess.PIPE)
    wait_until((directory / "db" / "data").exists, "the database is being made")
    up.terminate()
    up.communicate(timeout=30)
    assert up.returncode == -signal.SIGTERM
    assert processes_with(f"{directory}/") == set()
    assert not directory.exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--nodes", "0"], "--nodes 0: should be from 1 to 64"),
        (["--nodes", "two"], "--nodes two: should be a whole number"),
        (["--port"], "--port: should be followed by a value"),
        (["--node", "2"], "--node: there is no such option (scripts/slurm-dev-cluster --help"),
        (["--dir", "/tmp/it is"], "--dir /tmp/it is: should have letters, digits and . _ - /"),
    ],
)
def test_options_that_make_no_sense_are_named(given: list[str], told: str) -> None:
    up = script("up", *given)
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr.startswith(f"slurm-dev-cluster: {told}")


@root_only
def test_what_is_not_a_cluster_is_left_alone(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("mine")
    assert script("down", "--dir", tmp_path).returncode == 0
    up = script("up", "--dir", tmp_path)
    assert up.returncode == 1
    assert f"--dir {tmp_path}: should be empty or not be there" in up.stderr
    port = slurm.run("scontrol", "show", "config").partition("SlurmctldPort")[2].split()[1]
    up = script("up", "--dir", tmp_path / "cluster", "--port", port)
    assert up.returncode == 1
    assert f"--port {port}: a port from {port} to" in up.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
