"""Checkpoint files: whole or not there, the newest few kept, damaged ones passed over."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_callbacks._resume import checkpoint_files as _checkpoint_files
from lightning_callbacks._resume.checkpoint_files import (
    CheckpointFile,
    DamagedCheckpointWarning,
    checkpoint_files,
    newest_checkpoint,
    remove_after,
    remove_all,
    write_checkpoint,
)


def write(folder: Path, step: int, content: str = "content", keep: int = 2) -> CheckpointFile:
    written = write_checkpoint(
        folder, step, lambda path: path.write_text(f"{content} {step}"), finish=True, keep=keep
    )
    assert written is not None
    return written


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_name_holds_the_step_and_a_checksum(tmp_path: Path) -> None:
    written = write(tmp_path / "made" / "here", 12)
    assert written.path.name == f"step-00000012-{written.digest}.ckpt"
    assert names(written.path.parent) == [written.path.name]
    assert CheckpointFile.at(written.path) == written
    assert written.is_whole()
    assert written.path.read_text() == "content 12"


@pytest.mark.parametrize("name", ["last.ckpt", "step-5.ckpt", "step-00000005-xyz.ckpt", ".step-1"])
def test_files_of_others_are_none_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("theirs")
    assert CheckpointFile.at(tmp_path / name) is None
    assert newest_checkpoint(tmp_path) is None
    written = write(tmp_path, 1, keep=1)
    remove_after(tmp_path, 0)
    assert names(tmp_path) == [name]
    assert not written.is_whole()
    remove_all(tmp_path)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_are_kept(tmp_path: Path, keep: int) -> None:
    for step in range(1, 6):
        write(tmp_path, step, keep=keep)
    assert [file.step for file in checkpoint_files(tmp_path)] == [5, 4, 3][:keep]


def test_what_is_written_is_kept_even_when_later_steps_are_there(tmp_path: Path) -> None:
    write(tmp_path, 8)
    write(tmp_path, 9)
    write(tmp_path, 4)
    assert [file.step for file in checkpoint_files(tmp_path)] == [9, 4]


def test_a_step_of_nine_digits_is_newer_than_one_of_eight(tmp_path: Path) -> None:
    write(tmp_path, 99_999_999)
    write(tmp_path, 100_000_000)
    assert [file.step for file in checkpoint_files(tmp_path)] == [100_000_000, 99_999_999]


def test_of_equal_steps_the_one_written_last_is_newer(tmp_path: Path) -> None:
    first, second = write(tmp_path, 3, "first"), write(tmp_path, 3, "second")
    for file, seconds in ((first, 2_000), (second, 1_000)):
        os.utime(file.path, (seconds, seconds))
    assert newest_checkpoint(tmp_path) == first


def test_the_same_content_again_is_the_same_file(tmp_path: Path) -> None:
    assert write(tmp_path, 3) == write(tmp_path, 3)
    assert len(names(tmp_path)) == 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip, truncate, empty, replace_by_folder])
def test_a_damaged_file_is_told_and_passed_over(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    older, newer = write(tmp_path, 1), write(tmp_path, 2)
    damage(newer.path)
    with pytest.warns(DamagedCheckpointWarning, match=f"{newer.path} is damaged"):
        assert newest_checkpoint(tmp_path) == older


def test_there_may_be_none_that_is_whole(tmp_path: Path) -> None:
    empty(write(tmp_path, 1).path)
    with pytest.warns(DamagedCheckpointWarning):
        assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None
    assert newest_checkpoint(Path(__file__)) is None


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    left = [".step-00000003-77.ckpt", ".step-00000003-77.ckpt.tmp1"]
    for name in (*left, ".step-notes"):
        (tmp_path / name).write_text("half")
    written = write(tmp_path, 4)
    assert names(tmp_path) == sorted([".step-notes", written.path.name])


def test_another_rank_writes_and_neither_renames_nor_removes(tmp_path: Path) -> None:
    seen: list[Path] = []
    assert write_checkpoint(tmp_path / "r", 1, seen.append, finish=False, keep=1) is None
    assert len(seen) == 1
    assert not (tmp_path / "r").exists()


def no_space(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "write"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [write(tmp_path, 1), write(tmp_path, 2)]

    def half(path: Path) -> None:
        path.write_text("half")
        if call == "write":
            no_space()

    with monkeypatch.context() as patch:
        if call != "write":
            patch.setattr(call, no_space)
        with pytest.raises(OSError, match="No space"):
            write_checkpoint(tmp_path, 3, half, finish=True, keep=1)
    assert names(tmp_path) == sorted(file.path.name for file in before)
    assert all(file.is_whole() for file in before)


def test_a_folder_that_cannot_be_flushed_holds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = _checkpoint_files._flush
    monkeypatch.setattr(
        _checkpoint_files, "_flush", lambda path: no_space() if path.is_dir() else flush(path)
    )
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert [file.step for file in checkpoint_files(tmp_path)] == [3, 2]


def test_later_ones_are_removed(tmp_path: Path) -> None:
    for step in (3, 4, 5):
        write(tmp_path, step, keep=3)
    remove_after(tmp_path, 4)
    assert [file.step for file in checkpoint_files(tmp_path)] == [4, 3]
    remove_after(tmp_path / "missing", 4)


def test_all_are_removed_with_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(folder, 1)
    (folder / ".step-00000003-77.ckpt").write_text("half")
    remove_all(folder)
    assert not folder.exists()
    remove_all(folder)
