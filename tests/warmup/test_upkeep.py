"""What a store of trunks has, and what dead makers leave in it."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coreai_opt.warmup.claim import temporary_name
from coreai_opt.warmup.store import TrunkStore
from coreai_opt.warmup.upkeep import entries, prune
from tests.helpers.trunks import ID, OTHER, claim, names, put, write


def test_entries_tell_what_state_they_are_in(store: TrunkStore, root: Path) -> None:
    put(store, id="a" * 16)
    put(store, id="b" * 16)
    (root / ("b" * 16) / "entry.json").write_text("{")
    store.decline("c" * 16, "too short")
    with claim(store, "d" * 16):
        (root / f"{'e' * 16}.claim").write_text("")
        os.utime(root / f"{'e' * 16}.claim", (0, 0))
        states = {entry.id[0]: (entry.state, entry.reason) for entry in entries(root)}
    assert states == {
        "a": ("ok", ""),
        "b": ("incomplete", "its entry.json is damaged"),
        "c": ("declined", "too short"),
        "d": ("claimed", ""),
        "e": ("leftover", ""),
    }


def test_the_newest_comes_first(store: TrunkStore, root: Path) -> None:
    for number, age in enumerate((50, 10, 90)):
        path = root / f"{number:016x}.declined"
        store.decline(path.stem, "too short")
        os.utime(path, (0, time.time() - age))
    assert [int(entry.id, 16) for entry in entries(root)] == [1, 0, 2]


def test_what_dead_makers_leave_behind_is_removed_and_what_is_written_stays(
    store: TrunkStore, root: Path
) -> None:
    put(store)
    mine = root / temporary_name(OTHER, "part")
    node, pid, _ = mine.name.split(".")[2].split("-")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = root / f".{OTHER}.{node}-{ended.pid}-1.0a.part"
    silent = root / f".{OTHER}.00000000-{pid}-1.0a.gone"
    foreign = root / f".{OTHER}.00000000-{pid}-2.0a.part"
    for folder in (mine, dead, silent, foreign):
        folder.mkdir()
        write(folder / "trunk.ckpt")
    for path in (silent / "trunk.ckpt", silent):
        os.utime(path, (0, 0))
    done = prune(root, lambda entry: False)
    assert (done.removed, done.kept, done.failed, done.bytes) == ([], [], [], 2048)
    assert names(root) == sorted([ID, mine.name, foreign.name])
    done = prune(root, lambda entry: entry.id == OTHER, force=True)
    assert [entry.id for entry in done.kept] == [OTHER]
    assert names(root) == sorted([ID, mine.name, foreign.name])


def test_a_path_that_cannot_be_removed_is_said(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)

    def fixed(path: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", fixed)
    done = prune(root, lambda entry: True)
    assert (len(done.failed), done.removed, done.bytes) == (1, [], 0)
    assert done.failed[0].endswith("cannot be removed: Permission denied")
    assert store.get(ID) is not None
