"""What tests share: isolation from each other, and the ways to run the project."""

import functools
import gc
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from coreai_opt.pruning.spec import PruneImplBase, PruningScheme
from coreai_opt.sweep.plan import Plan, Planner
from coreai_opt.sweep.plugins import take_names
from coreai_opt.train import main as train
from tests.helpers.quick_runs import quick_run, user_module
from tests.helpers.slurm import slurm

__all__ = ["quick_run", "slurm", "user_module"]  # fixtures for all tests

ROOT = Path(__file__).resolve().parents[1]

# Of tests of what others have made, and of nothing of ours.
no_space_in_the_path = pytest.mark.skipif(
    " " in f"{ROOT}{sys.executable}",
    reason="Hydra's script for bash, inductor and `ray start`"
    " know no space in the path of a program",
)

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Compose = Callable[..., DictConfig]
Refused = Callable[..., str]


def pytest_collection_finish() -> None:
    """Have the collector of garbage look only at what tests make: a tenth of the whole time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Give each test the same random state, and fail one that leaks what others would see."""
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    registries = (SparsityScheduleBase, PruneImplBase, PruningScheme)
    known = [dict(registry.REGISTRY) for registry in registries]
    threads = torch.get_num_threads()
    for name in ("pytorch_lightning", "lightning_fabric"):
        # As Lightning sets it: a run of ours in this process may have quieted it.
        logging.getLogger(name).setLevel(logging.INFO)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    for registry, before in zip(registries, known, strict=True):
        registry.REGISTRY = before
    assert torch.get_num_threads() == threads, "the number of threads leaked"
    changed = {
        key for key in environment | dict(os.environ) if os.environ.get(key) != environment.get(key)
    }
    # What pytest, torch and Lightning themselves set, once or at every run.
    theirs = ("PYTEST_", "PL_", "KMP_", "TORCHINDUCTOR_", "_TORCHINDUCTOR_", "PYTORCH_NVML_")
    changed = {key for key in changed if not key.startswith(theirs)}
    os.environ.pop("PL_GLOBAL_SEED", None)
    os.environ.pop("PL_SEED_WORKERS", None)
    assert not changed, f"environment variables leaked: {changed}"
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@functools.cache
def _composed(cwd: Path, overrides: tuple[str, ...]) -> DictConfig:
    """Compose once: it takes half as long as the training of a test, and is often asked again."""
    register_nodes()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def composed(directory: Path, *overrides: str) -> DictConfig:
    """Compose the project's config as a job in its own directory sees it."""
    cfg = _composed(Path.cwd(), overrides).copy()
    directory.mkdir(parents=True, exist_ok=True)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(directory)
        HydraConfig.instance().set_config(cfg)
        task = cfg.copy()
        del task["hydra"]
    return task


@pytest.fixture
def compose_config(tmp_path: Path) -> Compose:
    """Compose the project's config for a run in a directory of the test."""

    def make(*overrides: str, run_dir: Path | None = None) -> DictConfig:
        return composed(run_dir or tmp_path / "run", *overrides)

    return make


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """Plan a command line, as the sweeper does."""

    def make(*overrides: str) -> Plan:
        return _plan(Path.cwd(), overrides)

    return make


@functools.cache
def _plan(cwd: Path, overrides: tuple[str, ...]) -> Plan:
    return Planner(_loader(), "config", overrides).plan()


@pytest.fixture
def loader() -> ConfigLoader:
    """Find config files, as the command does."""
    return _loader()


@functools.cache
def _loader() -> ConfigLoader:
    register_nodes()
    take_names()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader: ConfigLoader = GlobalHydra.instance().config_loader()
        return loader


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory to type commands in, with a name as people make them."""
    directory = tmp_path / "it's a=b, ü"
    directory.mkdir()
    return directory


@pytest.fixture
def command(work: Path) -> Command:
    """Run ``python train.py ARGUMENTS`` as a user does, in a directory of its own."""

    def run(*arguments: str, timeout: float = 180) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Type a command that is refused, in this process, and return what it says."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(work)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as left:
            train()
        said = capsys.readouterr()
        assert (left.value.code, said.out) == (1, "")
        return said.err

    return run
