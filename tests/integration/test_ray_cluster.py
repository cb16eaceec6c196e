"""Ray: a cluster that runs already is joined, and one of a sweep's own is this machine's alone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT, no_space_in_the_path
from tests.helpers.launchers import needed, one_thread
from tests.helpers.processes import record_in, started, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]

SWEEP = ["experiment=quick", "trainer=cpu", "trainer.max_epochs=2", "total_iters=30", "warmup=off"]

# As a sweep starts its own: this machine's alone.
LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def of_session(leader: int) -> list[int]:
    """Return the processes that were started by one, and by those, and itself."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(words[1])
    found = [leader]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def until_it_blocks(lines: Iterable[str]) -> Iterator[str]:
    yield ""
    for line in lines:
        yield line
        if "--block" in line:
            return


@pytest.fixture
def address() -> Iterator[str]:
    """A cluster of two cores that somebody else has started."""
    needed("ray")
    told = f"127.0.0.1:{free_port()}"
    options = [f"--port={told.rpartition(':')[2]}", "--num-cpus=2", "--include-dashboard=false"]
    ray = Path(sys.executable).with_name("ray")
    deadline = time.monotonic() + 180
    while True:
        head = subprocess.Popen(
            [ray, "start", "--head", "--block", *options],
            env={**os.environ, **LOCAL},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert head.stdout is not None
        said = list(until_it_blocks(head.stdout))
        if "--block" in said[-1]:
            break
        # The cluster of an earlier test may take a while to end, and Ray wants none beside it.
        head.communicate()
        assert time.monotonic() < deadline, said
        time.sleep(3)
    try:
        yield told
        assert head.poll() is None, "the sweep has ended the cluster"
    finally:
        # Asked to end, it takes half a minute, and longer on a machine that is busy.
        for process in of_session(head.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        head.wait(timeout=180)
        head.stdout.close()


@no_space_in_the_path
def test_a_cluster_is_joined_by_its_address_and_left_as_it_was(address: str, work: Path) -> None:
    given = ["hydra/launcher=ray", f"hydra.launcher.ray.init.address='{address}'", "seed=1,2"]
    for more in (["sweep_name=by-address"], ["sweep_name=again"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), "-m", *SWEEP, *given, *more],
            cwd=work,
            env=one_thread({}),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert "Connecting to existing Ray cluster" in done.stderr
    records = [record_in(path.parent) for path in work.glob("multirun/*/*/result.json")]
    assert [record["status"] for record in records] == ["completed"] * 4


def test_an_address_where_no_cluster_is_is_one_sentence(work: Path) -> None:
    needed("ray")
    address = f"127.0.0.1:{free_port()}"
    told = f"hydra.launcher.ray.init.address='{address}'"
    with started(work, "-m", *SWEEP, "hydra/launcher=ray", told, "seed=1,2") as process:
        out, errors = process.communicate(timeout=180)
    assert process.returncode == 1, (out, errors)
    assert errors == (
        f"error: hydra.launcher.ray.init.address={address}: nobody answers there (Connection "
        "refused); allowed: HOST:PORT of a Ray cluster that runs, or null for one of its own\n"
    )


def test_a_cluster_of_its_own_listens_on_loopback_alone_and_ends_with_the_sweep(
    work: Path,
) -> None:
    needed("ray")
    if shutil.which("ss") is None:
        pytest.skip("needs ss, of Debian's iproute2")

    def of_ray() -> list[str]:
        listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True)
        lines = listed.stdout.splitlines()
        return [line for line in lines if re.search(r'"(raylet|gcs_server|ray::)', line)]

    before = of_ray()
    with started(work, "-m", *SWEEP, "hydra/launcher=ray", "seed=1,2") as process:
        wait_for(process, lambda: list(work.glob("multirun/*/*/result.json")), "record")
        sockets = [line for line in of_ray() if line not in before]
        out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, (out, errors)
    places = {line.split()[3].rpartition(":")[0] for line in sockets}
    assert places
    assert places <= {"127.0.0.1", "[::ffff:127.0.0.1]"}
    deadline = time.monotonic() + 180
    while set(of_ray()) & set(sockets) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not set(of_ray()) & set(sockets)
