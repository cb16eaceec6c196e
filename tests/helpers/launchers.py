"""The launchers that sweeps are tested with, each as a user would choose it on two cores."""

import importlib.util
import os
from dataclasses import dataclass, field
from typing import Any

import pytest

MINE = """
import json
import importlib.util
import os
from pathlib import Path

import pytorch_lightning as pl
import torch


class Note(pl.Callback):
    def on_fit_start(self, trainer, pl_module):
        told = {"threads": torch.get_num_threads(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        Path(trainer.default_root_dir, "note.json").write_text(json.dumps(told))
"""

# A callback of the user's own, in a module beside where the command is typed.
NOTE = "+callbacks.note._target_=mine.Note"


@dataclass(frozen=True)
class Chosen:
    """A launcher, with what makes a job compute with one thread.

    Attributes:
        name: of the option.
        overrides: what is typed.
        is_the_command: the command's own process runs the jobs.
        environment: what the command needs in its environment.
    """

    name: str
    overrides: tuple[str, ...] = ()
    is_the_command: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """What is typed in an app of somebody else, where our launchers have other names."""
        ours = f"hydra/launcher={self.name}"
        theirs = ours if self.name == "submitit_local" else f"hydra/launcher=coreai_{self.name}"
        words = tuple(theirs if word == ours else word for word in self.overrides)
        # Where nobody says that the app computes on the CPU, a job asks for a GPU.
        return (*words, "hydra.launcher.gpus_per_node=null") if self.name == "slurm" else words


def chosen(name: str, request: Any = None) -> Chosen:
    """Return a launcher of the contract; SLURM's cluster is started when it is first asked for."""
    if name == "basic":
        return Chosen(name, is_the_command=True)
    if name == "joblib":
        return Chosen(name, ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    if name == "submitit_local":
        return Chosen(name, ("hydra/launcher=submitit_local",))
    if name == "ray":
        two = "hydra.launcher.ray.init.num_cpus=2"
        return Chosen(name, ("hydra/launcher=ray", two))
    one = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
    slurm = request.getfixturevalue("slurm")
    return Chosen(name, ("hydra/launcher=slurm", *one), environment=dict(slurm.environment))


LAUNCHERS = [
    "basic",
    "joblib",
    "submitit_local",
    pytest.param("ray", marks=pytest.mark.ray),
    pytest.param("slurm", marks=pytest.mark.cluster),
]

PACKAGES = {"joblib": "joblib", "submitit_local": "submitit", "ray": "ray", "slurm": "submitit"}


def needed(name: str) -> None:
    """Skip a test where the launcher's package is not installed."""
    # Not importorskip: Ray changes the environment when it is imported.
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")


def one_thread(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command whose own process computes with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **environment}
