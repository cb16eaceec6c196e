"""What is taken from a store of trunks is what was put there, whatever the disk does."""

import errno
import itertools
import json
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreai_opt.warmup import store as trunk_store
from coreai_opt.warmup.claim import Claim, remove
from coreai_opt.warmup.store import TrunkStore
from coreai_opt.warmup.upkeep import entries
from tests.helpers.trunks import ID, names, not_waiting, put, write


def test_what_is_put_is_there_with_all_that_was_said_of_it(store: TrunkStore, root: Path) -> None:
    assert store.get(ID) is None
    made = put(store)
    taken = TrunkStore(str(root)).get(ID)
    assert taken == made
    assert (made.id, made.path, made.steps, made.seconds) == (ID, root / ID / "trunk.ckpt", 40, 2.5)
    assert (made.bytes, made.made_by) == (1024, "runs/1")
    assert made.path.read_bytes() == bytes(range(256)) * 4
    assert made.created.endswith("+00:00")
    assert names(root) == [ID]


def test_nothing_is_written_by_looking(store: TrunkStore, root: Path) -> None:
    assert (store.get(ID), store.declined(ID), entries(root)) == (None, None, [])
    assert not root.exists()


@pytest.mark.parametrize("id", ["", "0123", "0123456789ABCDEF", "../456789abcdef", ID + "\n"])
def test_an_id_is_16_hexadecimal_digits(store: TrunkStore, id: str) -> None:
    for use in (store.get, store.declined, lambda id: store.claim(id, not_waiting)):
        with pytest.raises(ValueError, match="allowed: 16 hexadecimal digits"):
            use(id)


def test_the_first_entry_is_kept(store: TrunkStore, root: Path) -> None:
    assert put(store, "runs/1").made_by == "runs/1"
    assert put(store, "runs/2").made_by == "runs/1"
    assert names(root) == [ID]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_a_field(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["steps"]
    path.write_text(json.dumps(content))


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "flipped": ("trunk.ckpt", flip, "the checksum of its trunk.ckpt is wrong"),
    "truncated": ("trunk.ckpt", lambda path: os.truncate(path, 5), "has 5 of 1,024 bytes"),
    "no checkpoint": ("trunk.ckpt", Path.unlink, "it has no trunk.ckpt"),
    "no entry": ("entry.json", Path.unlink, "it has no entry.json"),
    "garbage": ("entry.json", lambda path: path.write_bytes(b"\xff{"), "entry.json is damaged"),
    "deep": ("entry.json", lambda path: path.write_text("[" * 99999), "entry.json is damaged"),
    "a list": ("entry.json", lambda path: path.write_text("[1]"), "entry.json is damaged"),
    "no field": ("entry.json", without_a_field, "entry.json is damaged"),
    "empty": ("entry.json", lambda path: path.write_text(""), "entry.json is damaged"),
}


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_removed_and_made_anew(
    store: TrunkStore, root: Path, name: str, damage: Callable[[Path], object], reason: str
) -> None:
    put(store)
    damage(root / ID / name)
    with pytest.warns(UserWarning, match=rf"{ID}.*{reason}; a new one is made$") as warned:
        assert store.get(ID) is None
    assert len(warned) == 1
    assert names(root) == []
    assert put(store, "runs/2").made_by == "runs/2"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["trunk.ckpt", "entry.json"]), st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_changes_what_is_taken(name: str, place: int, change: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = TrunkStore(folder)
        made = put(store)
        content = bytearray((Path(folder) / ID / name).read_bytes())
        content[place % len(content)] ^= change
        (Path(folder) / ID / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            taken = store.get(ID)
        # Only a change that says the same, such as a line end in place of a space, is no damage.
        assert taken in (None, made)
        assert len(warned) == (taken is None)


def test_an_entry_that_somebody_replaced_meanwhile_is_not_removed(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    flip(root / ID / "trunk.ckpt")
    real: Callable[[Path], str] = trunk_store._sha256
    calls = itertools.count()

    def slow(path: Path) -> str:
        found = real(path)
        if next(calls) == 0:  # the checksum of the damaged one; here comes another process
            remove(path.parent)
            time.sleep(0.02)
            put(TrunkStore(root), "runs/2")
        return found

    monkeypatch.setattr(trunk_store, "_sha256", slow)
    taken = store.get(ID)
    assert taken is not None
    assert taken.made_by == "runs/2"


def test_a_damaged_entry_does_not_stop_another_from_being_put(
    store: TrunkStore, root: Path
) -> None:
    put(store, "runs/1")
    flip(root / ID / "trunk.ckpt")
    with pytest.warns(UserWarning, match="checksum"):
        assert put(store, "runs/2").made_by == "runs/2"
    assert names(root) == [ID]


def test_an_entry_under_the_name_of_another_is_none(store: TrunkStore, root: Path) -> None:
    put(store)
    (root / ID).rename(root / ID[::-1])
    with pytest.warns(UserWarning, match=r"its entry\.json is damaged"):
        assert store.get(ID[::-1]) is None


def test_a_store_that_is_only_read_gives_what_it_has(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put(store)
    store.decline(ID[::-1], "too short")

    def read_only(path: Path) -> Claim:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(trunk_store, "Claim", read_only)
    assert store.claim(ID, not_waiting) == made
    assert store.claim(ID[::-1], not_waiting) is None
    with pytest.warns(UserWarning, match="Read-only file system; this run trains its own"):
        assert store.claim("0" * 16, not_waiting) is None


@pytest.mark.parametrize("made", [True, False])
def test_a_maker_may_finish_between_the_look_and_the_claim(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    def late(path: Path) -> Claim:
        if made:
            put(TrunkStore(root), "runs/2")
        else:
            TrunkStore(root).decline(ID, "too short")
        return Claim(path)

    monkeypatch.setattr(trunk_store, "Claim", late)
    got = store.claim(ID, not_waiting)
    assert got == (store.get(ID) if made else None)
    assert names(root) == [ID if made else f"{ID}.declined"]


def test_a_directory_that_is_not_an_entry_is_left_alone(store: TrunkStore, root: Path) -> None:
    (root / ID).mkdir(parents=True)
    (root / ID / "thesis.tex").write_text("x")
    with pytest.warns(UserWarning, match=r"it has no entry\.json"):
        assert store.get(ID) is None
    with pytest.warns(UserWarning, match=r"no entry\.json"), pytest.raises(OSError, match=ID):
        put(store)
    assert names(root) == [ID]
    assert names(root / ID) == ["thesis.tex"]


class Failing(Exception):
    pass


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), Failing(), KeyboardInterrupt()])
def test_a_put_that_fails_midway_leaves_nothing(
    store: TrunkStore, root: Path, error: BaseException
) -> None:
    def fail(path: Path) -> None:
        write(path)
        raise error

    with pytest.raises(type(error)):
        store.put(ID, fail, 40, 2.5, "runs/1")
    assert names(root) == []


def test_a_write_that_writes_nothing_is_an_error(store: TrunkStore, root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put(ID, lambda path: None, 40, 2.5, "runs/1")
    assert names(root) == []


@pytest.mark.parametrize("name", ["fsync", "rename"])
def test_a_disk_that_is_full_at_any_call_leaves_nothing(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if name == "fsync" else Path, name, full)
    with pytest.raises(OSError, match="No space"):
        put(store)
    assert names(root) == []


def test_a_claim_that_cannot_be_written_is_none_and_leaves_nothing(
    store: TrunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="No space left on device; this run trains its own") as all:
        assert store.claim(ID, not_waiting) is None
    assert len(all) == 1
    assert names(root) == []


def test_what_was_declined_counts_for_an_hour(store: TrunkStore, root: Path) -> None:
    store.decline(ID, "too short")
    path = root / f"{ID}.declined"
    for age_s, reason in ((3500, "too short"), (3700, None)):
        os.utime(path, (time.time() - age_s,) * 2)
        assert store.declined(ID) == reason


def look_at(store: TrunkStore) -> None:
    assert store.get(ID) is None
    assert store.claim(ID, not_waiting) is None
    store.decline(ID, "too short")
    assert store.declined(ID) is None


@pytest.mark.parametrize("where", ["a file", "below a file", "/proc/none"])
def test_a_store_that_cannot_be_is_one_warning(tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_text("x")
    places = {"a file": tmp_path / "a file", "below a file": tmp_path / "a file" / "b"}
    store = TrunkStore(places.get(where, Path("/proc/none/trunks")))
    with pytest.warns(UserWarning, match="cannot be used: .*; this run trains its own") as warned:
        look_at(store)
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="this run trains its own"):
        TrunkStore(store.root).decline(ID, "too short")
    with pytest.raises(OSError, match=r"none|a file"):
        put(store)
    assert (tmp_path / "a file").read_text() == "x"


def too_much(path: Path) -> None:
    path.write_bytes(b"x" * 10**6)


def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "trunks", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    try:
        store = TrunkStore(disk)
        with pytest.raises(OSError, match="No space left") as raised:
            store.put(ID, too_much, 40, 2.5, "runs/1")
        assert raised.value.errno == errno.ENOSPC
        assert names(disk) == []
        with pytest.raises(OSError, match="No space left"):
            (disk / "other").write_bytes(b"x" * 10**6)
        assert store.get(ID) is None
        with pytest.warns(UserWarning, match="No space left on device; this run trains its own"):
            assert store.claim(ID, not_waiting) is None
        assert names(disk) == ["other"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
