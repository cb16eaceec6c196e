"""One process makes a trunk and the others take it, whoever dies."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.warmup.claim import (
    Claim,
    Maker,
    SeenClaim,
    identity_of,
    process_is_gone,
    read_claim,
    remove,
    set_aside,
    temporary_name,
)
from coreai_opt.warmup.store import TrunkStore
from coreai_opt.warmup.upkeep import entries
from tests.conftest import ROOT
from tests.helpers.trunks import ID, OTHER, claim, names, not_waiting, put

# Claims, says what it got, makes the trunk when it is told so.
WORKER = """
import os, socket, sys
if sys.argv[3] == "elsewhere":
    socket.gethostname = lambda: "elsewhere"
from coreai_opt.warmup.claim import Claim
from coreai_opt.warmup.store import Trunk, TrunkStore

store, waits = TrunkStore(sys.argv[1]), []
def waiting(maker):
    if not waits:
        print("waiting", maker.pid, flush=True)
    waits.append(maker)
got = store.claim(sys.argv[2], waiting, 0.01)
if isinstance(got, Claim):
    print("claim", os.getpid(), flush=True)
    order = sys.stdin.readline().strip()
    if order == "make":
        store.put(sys.argv[2], lambda path: path.write_bytes(b"x" * 999), 5, 1.5, str(os.getpid()))
        got.release()
    elif order == "decline":
        store.decline(sys.argv[2], "too short")
        got.release()
    elif order == "raise":
        raise ZeroDivisionError
    elif order == "fork":
        if os.fork() == 0:
            got.release()
            sys.exit()
        os.wait()
        print("claimed", os.path.exists(sys.argv[1] + "/" + sys.argv[2] + ".claim"), flush=True)
else:
    print("trunk " + got.made_by if isinstance(got, Trunk) else "none", flush=True)
"""

Worker = subprocess.Popen[str]
Start = Callable[..., Worker]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Start a process that claims a trunk; end it with the test."""
    started: list[Worker] = []

    def make(host: str = "here", stderr: int | None = None) -> Worker:
        program = [sys.executable, "-c", WORKER, str(root), ID, host]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            program, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=stderr, text=True
        )
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.kill()
        worker.communicate()


def said(worker: Worker) -> list[str]:
    assert worker.stdout is not None
    return worker.stdout.readline().split()


def tell(worker: Worker, order: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(order + "\n")
    worker.stdin.flush()


def read(path: Path) -> Any:
    seen = read_claim(path)
    assert isinstance(seen, SeenClaim)
    return seen


def test_a_claim_says_who_makes_the_trunk_and_how_far_it_is(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claim, "RENEW_S", 0.01)
    path = root / f"{ID}.claim"
    with claim(store) as held:
        held.step, held.total_steps = 7, 40
        deadline = time.monotonic() + 60
        while (seen := read(path)).maker.step != 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen.maker == Maker(socket.gethostname(), os.getpid(), 7, 40, seen.maker.since)
        assert not seen.is_stale(time.time())
    assert names(root) == []
    assert "trunk-claim" not in {thread.name for thread in threading.enumerate()}
    held.release()


def test_the_thread_that_holds_a_claim_does_not_wait_for_itself(store: TrunkStore) -> None:
    with claim(store):
        assert store.claim(ID, not_waiting) is None
        claim(store, OTHER).release()


def test_two_processes_at_once_one_makes_and_the_other_takes(start: Start, root: Path) -> None:
    first = start()
    word, pid = said(first)
    second = start()
    assert (word, said(second)) == ("claim", ["waiting", pid])
    tell(first, "make")
    assert said(second) == ["trunk", pid]
    assert (first.wait(), second.wait()) == (0, 0)
    assert names(root) == [ID]


def test_a_trunk_that_was_declined_is_tried_by_nobody_else(
    start: Start, store: TrunkStore, root: Path
) -> None:
    first = start()
    assert said(first)[0] == "claim"
    second = start()
    assert said(second)[0] == "waiting"
    tell(first, "decline")
    assert said(second) == ["none"]
    assert first.wait() == 0
    assert (store.get(ID), store.declined(ID)) == (None, "too short")
    assert store.claim(ID, not_waiting) is None
    # Whoever can make it in spite of that, has made it.
    assert store.get(put(store).id) is not None
    assert (store.declined(ID), names(root)) == (None, [ID])


@pytest.mark.parametrize("order", ["return", "raise"])
def test_the_end_of_a_process_releases_its_claim(start: Start, root: Path, order: str) -> None:
    worker = start(stderr=subprocess.DEVNULL)
    assert said(worker)[0] == "claim"
    assert names(root) == [f"{ID}.claim"]
    tell(worker, order)
    assert worker.wait() == (order == "raise")
    assert names(root) == []


def test_a_forked_child_releases_nothing(start: Start, root: Path) -> None:
    worker = start()
    said(worker)
    tell(worker, "fork")
    assert said(worker) == ["claimed", "True"]
    worker.wait()
    assert names(root) == []


@pytest.mark.parametrize("reaped", [True, False])
def test_the_claim_of_a_killed_process_is_taken_over(
    start: Start, store: TrunkStore, root: Path, reaped: bool
) -> None:
    maker = start()
    said(maker)
    waiter = start()
    assert said(waiter)[0] == "waiting"
    maker.kill()
    if reaped:
        maker.wait()
    else:
        os.waitid(os.P_PID, maker.pid, os.WEXITED | os.WNOWAIT)
    assert said(waiter) == ["claim", str(waiter.pid)]
    tell(waiter, "make")
    waiter.wait()
    assert names(root) == [ID]


class StopWaiting(Exception):
    pass


def stop_waiting(maker: Maker) -> None:
    raise StopWaiting(maker.host)


def test_the_claim_of_another_node_holds_until_it_is_silent(
    start: Start, store: TrunkStore, root: Path
) -> None:
    maker = start("elsewhere")
    said(maker)
    maker.kill()
    maker.wait()
    with pytest.raises(StopWaiting, match="elsewhere"):
        store.claim(ID, stop_waiting)
    path = root / f"{ID}.claim"
    os.utime(path, (0, time.time() - Claim.SILENT_S + 30))
    with pytest.raises(StopWaiting):
        store.claim(ID, stop_waiting)
    os.utime(path, (0, time.time() - Claim.SILENT_S - 5))
    claim(store).release()
    assert names(root) == []


@pytest.mark.parametrize("text", [b"", b"\x00" * 600, b"{}", b"[" * 4096, b'{"host": "a"}'])
def test_a_claim_that_nobody_can_read_holds_until_it_is_silent(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    root.mkdir(parents=True)
    path = root / f"{ID}.claim"
    path.write_bytes(text)
    monkeypatch.setattr(time, "sleep", stop_waiting_in)
    with pytest.raises(StopWaiting):
        store.claim(ID, not_waiting)
    os.utime(path, (0, time.time() - Claim.SILENT_S - 5))
    claim(store).release()


def stop_waiting_in(seconds: float) -> None:
    raise StopWaiting(seconds)


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_silence_is_counted_by_the_clock_of_the_file_system(
    start: Start, store: TrunkStore, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """The clocks of node and server differ by an hour: a fresh claim holds all the same."""
    maker = start("elsewhere")
    said(maker)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    with pytest.raises(StopWaiting):
        store.claim(ID, stop_waiting)
    assert read(store.root / f"{ID}.claim").is_stale(real() + ahead)
    assert [entry.state for entry in entries(store.root)] == ["claimed"]


def test_a_process_id_that_was_given_again_is_another_process(root: Path) -> None:
    mine = temporary_name(ID, "part").split(".")[2]
    node, pid, begin = mine.split("-")
    assert not process_is_gone(mine)
    assert process_is_gone(f"{node}-{pid}-{int(begin) + 1}") == (begin != "0")
    assert not process_is_gone(f"{node}-{pid}-0")
    assert not process_is_gone(f"00000000-{pid}-{int(begin) + 1}")
    assert not process_is_gone(f"{node}-{10**30}-1")
    assert not process_is_gone("nonsense")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert process_is_gone(f"{node}-{ended.pid}-1")


def test_a_claim_that_was_broken_leaves_the_next_one_alone(store: TrunkStore, root: Path) -> None:
    path = root / f"{ID}.claim"
    first = claim(store)
    path.unlink()
    with claim(store):
        second_file = path.read_bytes()
        first.step = 9
        first._publish()
        first.release()
        assert path.read_bytes() == second_file
    assert names(root) == []


def test_what_is_not_what_was_judged_goes_back(tmp_path: Path) -> None:
    file, folder = tmp_path / f"{ID}.claim", tmp_path / ID
    file.write_text("new")
    folder.mkdir()
    (folder / "entry.json").write_text("new")
    for path in (file, folder):
        inode, moment = identity_of(path)
        assert set_aside(path, (inode, moment - 1)) is None
        assert set_aside(path, (inode + 1, moment)) is None
    assert names(tmp_path) == [ID, f"{ID}.claim"]
    assert (file.read_text(), (folder / "entry.json").read_text()) == ("new", "new")
    for path in (file, folder):
        aside = set_aside(path, identity_of(path))
        assert aside is not None
        assert set_aside(path, identity_of(aside)) is None
        remove(aside)
    assert names(tmp_path) == []


def test_many_processes_make_one_trunk(start: Start, root: Path) -> None:
    """With the claim of a dead one to break: two may come to make it, all take the same."""
    dead = start()
    said(dead)
    dead.kill()
    dead.wait()
    workers = [start() for _ in range(6)]
    for worker in workers:
        tell(worker, "make")
    taken = set()
    for worker in workers:
        out, _ = worker.communicate()
        assert worker.returncode == 0
        words = out.split("\n")[-2].split()
        if words[0] == "trunk":
            taken.add(words[1])
    assert names(root) == [ID]
    trunk = TrunkStore(root).get(ID)
    assert trunk is not None
    assert taken == {trunk.made_by}


def test_many_threads_make_each_trunk_once(store: TrunkStore, root: Path) -> None:
    made: list[str] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        for round in range(12):
            id = f"{round:016x}"
            together.wait(100)
            got = store.claim(id, lambda maker: None, period_s=0.001)
            if isinstance(got, Claim):
                with got:
                    made.append(id)
                    put(store, id=id)
            else:
                assert got is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(made) == [f"{round:016x}" for round in range(12)]
    assert names(root) == made
