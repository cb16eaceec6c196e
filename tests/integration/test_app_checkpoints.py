"""Checkpoints of apps that know nothing of this package: theirs without it, and gone on from."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers.apps import (
    DICT_GROUP,
    LIST_ROOT,
    REGISTRY,
    Completed,
    Home,
    assert_at_target,
    below,
    ours,
    run_files,
    tensors,
    zeros,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# What Hydra and Lightning load of any plugin; none of it imports torch.
ENTRANCES = {
    "hydra_plugins.hydra_coreai_opt",
    "coreai_opt",
    "coreai_opt._lazy",
    "coreai_opt.plugin",
    "coreai_opt.plugin.factory",
}

# A callback of the app's that breaks a run off.
BREAK = """
import pytorch_lightning as pl


class Break(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 3:
            raise RuntimeError("the machine is gone")
"""


def test_without_the_line_an_app_runs_as_if_this_package_were_not_there(
    home: Home, tmp_path: Path
) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    done = home.run(where, "train.py", "hydra.run.dir=beside", program="-Ximporttime")
    assert done.returncode == 0, done.stderr
    imported = re.findall(r"^import time: .* ([\w.]+)$", done.stderr, re.MULTILINE)
    assert "torch" in imported
    assert ours(imported) <= ENTRANCES
    alone = _run_without_us(home, where, "train.py", "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    assert _shown(done) == _shown(alone)
    runs = ("beside", "alone")
    beside, without = (torch.load(where / run / "last.ckpt", weights_only=True) for run in runs)
    assert beside.keys() == without.keys()
    assert beside["callbacks"].keys() == without["callbacks"].keys()
    _assert_same(beside["state_dict"], without["state_dict"])
    _assert_same(beside["optimizer_states"], without["optimizer_states"])
    names = (
        [file.name for file in sorted((where / run).rglob("*"))] for run in ("beside", "alone")
    )
    assert next(names) == next(names)


def _run_without_us(home: Home, where: Path, *words: str) -> Completed:
    """Run a Python that has all that the one of an installation has, but for this package."""
    ask = (
        "import sys, sysconfig; "
        "print(sysconfig.get_path('purelib'), sys._base_executable, sep='\\n')"
    )
    paths = subprocess.run([home.python, "-c", ask], capture_output=True, text=True).stdout
    installed, base = map(Path, paths.splitlines())
    bare = where.parent / "site"
    (bare / "hydra_plugins").mkdir(parents=True)
    for entry in [*installed.iterdir(), *installed.glob("hydra_plugins/*")]:
        place = bare / entry.relative_to(installed)
        of_us = "coreai_opt" in entry.name or entry.name == "lightning_callbacks"
        if not of_us and not place.exists():
            place.symlink_to(entry)
    find = (
        "import importlib.util, sys; sys.exit(importlib.util.find_spec('coreai_opt') is not None)"
    )
    clean = {**os.environ, "PYTHONPATH": str(bare), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([base, "-c", find], env=clean, cwd=where).returncode == 0
    return subprocess.run([base, *words], cwd=where, env=clean, capture_output=True, text=True)


def _shown(done: Completed) -> list[str]:
    """Return what a run prints, without times and the directories of the run."""
    lines = done.stdout.splitlines()
    return [re.sub(r"^\[[^\]]*\]", "", line).replace("alone", "beside") for line in lines]


def _assert_same(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert list(one) == list(other)
        _assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, list):
        assert isinstance(other, list)
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _assert_same(mine, theirs)
    else:
        assert one == other


def test_going_on_from_the_last_checkpoint_of_a_run_that_broke_off_in_mid_ramp(
    home: Home, tmp_path: Path
) -> None:
    """It is the last state, and none was chosen as best."""
    where = home.copy(DICT_GROUP, tmp_path)
    (where / "breaking.py").write_text(BREAK.replace("pytorch_lightning", home.root))
    breaking = "+callbacks.breaking={_target_: breaking.Break}"
    broken = home.run(where, *DICT_GROUP.line, breaking, "hydra.run.dir=run")
    assert broken.returncode == 1
    assert "the machine is gone" in broken.stderr
    last = below(where / "run", DICT_GROUP.last)
    counted = zeros(tensors(home, DICT_GROUP, last))
    assert not list((where / "run").glob(DICT_GROUP.best))
    assert all(counted[name] for name in DICT_GROUP.pruned)
    with pytest.raises(AssertionError, match="not at"):
        assert_at_target(home, DICT_GROUP, last)
    done = home.run(where, *DICT_GROUP.line, f"ckpt_path={last}", "hydra.run.dir=again")
    assert done.returncode == 0, done.stdout + done.stderr
    for file in run_files(DICT_GROUP, where / "again"):
        assert_at_target(home, DICT_GROUP, file)


def test_going_on_from_a_dense_checkpoint_keeps_none_of_its_scores(
    home: Home, tmp_path: Path
) -> None:
    """In the same directory, whose best is a dense one: the app tests another one in the end."""
    where = home.copy(DICT_GROUP, tmp_path)
    dense = home.run(where, "hydra.run.dir=run", "trainer.max_epochs=3")
    assert dense.returncode == 0, dense.stderr
    last = below(where / "run", DICT_GROUP.last)
    assert not any(zeros(tensors(home, DICT_GROUP, last))[name] for name in DICT_GROUP.pruned)
    last.with_suffix(".plain").unlink()
    words = [f"ckpt_path={last}", "trainer.max_epochs=8", "hydra.run.dir=run"]
    done = home.run(where, *DICT_GROUP.line, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _tested(done) != _tested(dense)
    for file in (last, _tested(done), where / "run" / "weights.pt"):
        assert_at_target(home, DICT_GROUP, file)


def _tested(done: Completed) -> Path:
    """Return the checkpoint that a run has tested, as Lightning says it."""
    (path,) = re.findall(r"Loaded model weights from the checkpoint at (.*\.ckpt)", done.stderr)
    return Path(path)


def test_a_checkpoint_has_the_keys_that_it_has_without_pruning(home: Home, tmp_path: Path) -> None:
    where = home.copy(REGISTRY, tmp_path)
    for run, line in (("dense", []), ("pruned", REGISTRY.line)):
        done = home.run(where, *line, f"hydra.run.dir={run}", "epochs=4")
        assert done.returncode == 0, done.stderr
    dense, pruned = (
        torch.load(below(where / run, REGISTRY.last), weights_only=True)
        for run in ("dense", "pruned")
    )
    assert list(pruned["state_dict"]) == list(dense["state_dict"])
    assert dense.keys() <= pruned.keys()
    assert dense["hyper_parameters"] == pruned["hyper_parameters"]
    for one, other in zip(dense["optimizer_states"], pruned["optimizer_states"], strict=True):
        assert one["param_groups"] == other["param_groups"]
        assert one["state"].keys() == other["state"].keys()


def test_without_the_gate_the_best_checkpoint_is_dense_and_that_is_said(
    home: Home, tmp_path: Path
) -> None:
    where = home.copy(LIST_ROOT, tmp_path)
    done = home.run(
        where, *LIST_ROOT.words("constant", gate="false", begin_step=80), "hydra.run.dir=run"
    )
    assert done.returncode == 0, done.stderr
    best = zeros(tensors(home, LIST_ROOT, where / "run" / "best.ckpt"))
    assert not any(best[name] for name in LIST_ROOT.pruned)
    assert "below the target" in done.stdout + done.stderr
