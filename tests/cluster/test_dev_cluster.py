"""The cluster that scripts/slurm-dev-cluster makes: up, what its settings do, and down."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import (
    SCRIPT,
    Slurm,
    alive,
    processes_with,
    running,
    script,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root")


def test_up_prints_how_to_reach_it(slurm: Slurm) -> None:
    assert slurm.said.stdout == f"export SLURM_CONF={slurm.directory}/slurm.conf\n"
    assert "2 nodes are up" in slurm.said.stderr


def test_its_nodes_are_idle(slurm: Slurm) -> None:
    nodes = slurm.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T")
    assert nodes.splitlines() == ["n1 idle", "n2 idle"]


def test_a_job_runs_and_is_accounted_for(slurm: Slurm, tmp_path: Path) -> None:
    slurm.run("sbatch", "--wait", "--output=out", "--wrap=srun hostname; exit 3", cwd=tmp_path)


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
