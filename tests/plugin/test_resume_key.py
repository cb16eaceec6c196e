"""Going on in any app: the key that takes a checkpoint, and the newest whole one."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.plugin.jobs.resume_key import newest_in, resume_key
from coreai_opt.runs.paths import INNER, RunPaths

LIGHTNING = b"pytorch-lightning_version"
WHOLE = LIGHTNING + b" optimizer_states"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"ckpt_path": None, "resume": None}, "ckpt_path"),
        ({"train": {"resume": None}}, "train.resume"),
        ({"trainer": {"resume_from_checkpoint": None}}, "trainer.resume_from_checkpoint"),
        ({"checkpoint": None}, "checkpoint"),
        # Weights that a model begins with, a switch, and a node.
        ({"model": {"ckpt_path": None, "checkpoint": None}}, None),
        ({"resume": False}, None),
        ({"run": {"resume": None}, "wandb": {"resume": "allow"}}, None),
        # What a user has chosen stays.
        ({"ckpt_path": "a.ckpt"}, None),
        ({"checkpoint": {"dirpath": "a"}}, None),
    ],
    ids=str,
)
def test_common_names_are_guessed(config: dict[str, Any], expected: str | None) -> None:
    assert resume_key(config, "auto") == expected
    assert resume_key(config, None) is None


def test_a_key_that_is_named_must_be_there() -> None:
    assert resume_key({"model": {"ckpt_path": None}}, "model.ckpt_path") == "model.ckpt_path"
    with pytest.raises(ConfigError, match=r"resume_key=model\.path: this app has no such key"):
        resume_key({"model": {"ckpt_path": None}}, "model.path")


def saved(path: Path, content: bytes, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", b"\0" * 1000)
    os.utime(path, ns=(0, 10**18 - age))
    return path


def test_the_newest_whole_checkpoint_of_lightning_is_found(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path, INNER)
    assert newest_in(paths, is_guessed=True) is None
    old = saved(tmp_path / "checkpoints" / "epoch=1.ckpt", WHOLE, 30)
    saved(tmp_path / "weights.pt", b"state_dict", 0)  # newer, and no training goes on from it
    saved(tmp_path / "weights_only.ckpt", LIGHTNING, 5)
    saved(tmp_path / "attempt-1" / "last.ckpt", WHOLE, 1)
    elsewhere = tmp_path / "data"
    elsewhere.symlink_to(tmp_path, target_is_directory=True)  # which leads back
    found = newest_in(paths, is_guessed=True)
    assert found is not None
    assert (found.path, found.is_exact, found.damaged) == (old, False, ())
    damaged = saved(tmp_path / "checkpoints" / "last.ckpt", WHOLE, 10)
    content = bytearray(damaged.read_bytes())
    content[300] ^= 1
    damaged.write_bytes(bytes(content))
    os.utime(damaged, ns=(0, 10**18 - 10))
    found = newest_in(paths, is_guessed=True)
    assert found is not None
    assert (found.path, found.damaged) == (old, (damaged,))


def test_files_of_torch_count_where_there_is_nothing_of_lightning(tmp_path: Path) -> None:
    saved(tmp_path / "state-1.pt", b"a", 20)
    newest = saved(tmp_path / "state-2.pt", b"a", 10)
    (tmp_path / "state-3.pt").write_bytes(b"half a file")
    # The parts of checkpoints that are folders are none.
    saved(tmp_path / "checkpoint-9" / "optimizer.pt", b"a", 0)
    saved(tmp_path / "sharded.ckpt" / "part.pt", b"a", 0)
    # They may be anything: the user says which key takes them.
    assert newest_in(RunPaths(tmp_path, INNER), is_guessed=True) is None
    found = newest_in(RunPaths(tmp_path, INNER), is_guessed=False)
    assert found is not None
    assert found.path == newest
