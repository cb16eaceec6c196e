"""Searches without training: the command line is read as always, the runs are stubs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig

from coreai_opt.config.hydra_internals import ConfigLoaderImpl
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.run_record import Record
from coreai_opt.sweep.folder import SweepJob
from coreai_opt.sweep.plan import Planner
from coreai_opt.sweep.plugins import take_names
from coreai_opt.sweep.search.run import SearchRun
from coreai_opt.sweep.search.sweeper import planned_search
from coreai_opt.sweep.sweeper import place_sweep

Value = Callable[[Mapping[str, Any]], float | None]

OPTUNA = "hydra/sweeper=optuna"

# What stands for a database: making one takes longer than a whole search with stubs.
STORAGES: dict[str, optuna.storages.InMemoryStorage] = {}


def storage_named(name: str) -> optuna.storages.InMemoryStorage:
    """Return the storage of this name; the config describes it by this function's path."""
    return STORAGES.setdefault(name, optuna.storages.InMemoryStorage())


IN_MEMORY = (
    "hydra.sweeper.storage={_target_:tests.helpers.searching.storage_named,"
    "name:'${hydra.sweep.dir}'}"
)


def closeness(config: Mapping[str, Any]) -> float:
    """An objective whose best point is known: power 2."""
    return 1 - abs(float(config["schedule"].get("power", 0)) - 2) / 10


def target_of(config: Mapping[str, Any]) -> float:
    """Return the sparsity that a config asks for."""
    target: float = config["target_sparsity"]
    return target


COMPOSED: dict[tuple[Any, ...], DictConfig] = {}


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask git nothing and compose what is equal once: both take longer than everything else."""
    monkeypatch.setattr("coreai_opt.runs.run_record._git", lambda: None)
    compose = ConfigLoaderImpl.load_configuration

    def load(
        self: Any, config_name: str, overrides: list[str], run_mode: RunMode, **more: Any
    ) -> DictConfig:
        key = (config_name, *overrides, run_mode)
        if key not in COMPOSED:
            COMPOSED[key] = compose(self, config_name, overrides, run_mode, **more)
        return COMPOSED[key].copy()

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", load)


@dataclass
class Stub:
    """A launcher whose runs write records at once.

    Attributes:
        value: the objective of a config; an exception that it raises is the run's.
        launches: the folders of each launch.
    """

    value: Value = closeness
    launches: list[list[str]] = field(default_factory=list)
    isolates: bool = False
    starts_in_turn: bool = False
    turn: Any = None

    def share(self, jobs: int) -> dict[str, Any]:
        return {}

    def problem(self, processes: int | None) -> None:
        return None

    def launch(
        self, entries: Sequence[SweepJob], environments: Sequence[JobEnvironment]
    ) -> list[JobReturn]:
        assert len(environments) == len(entries)
        self.launches.append([entry.paths.root.name for entry in entries])
        return [self._run(entry) for entry in entries]

    def _run(self, entry: SweepJob) -> JobReturn:
        entry.paths.root.mkdir(exist_ok=True)
        point = entry.point
        record = Record(entry.paths, point.config, list(point.overrides))
        job = JobReturn(status=JobStatus.COMPLETED)
        try:
            value = self.value(point.config)
        except Exception as error:
            record.fail("failed", error)
            job.status, job.return_value = JobStatus.FAILED, error
            return job
        target = target_of(point.config)
        record.update(
            objective={"name": "val/accuracy", "mode": "max", "value": value},
            sparsity={"achieved": target, "target": target, "layers": []},
            metrics={"test/accuracy": 0.5, "test/loss": float("nan")},
            parameters={"total": 1000, "nonzero": 100},
        )
        record.complete()
        return job

    @property
    def folders(self) -> list[str]:
        """What was launched, in order."""
        return [folder for launch in self.launches for folder in launch]


@contextmanager
def planned(root: Path, *overrides: str) -> Iterator[SearchRun]:
    """Yield what a command line plans, with its settings read."""
    register_nodes()
    take_names()
    texts = [f"paths.sweep_root='{root}'", *overrides]
    if not any(text.startswith("hydra/sweeper=") for text in texts):
        texts.insert(0, OPTUNA)
    if not any(text.startswith("hydra.sweeper.storage=") for text in texts):
        texts.append(IN_MEMORY)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        planner = Planner(loader, "config", texts)
        run = planned_search(planner, loader, "config")
        assert run is not None
        objective = [text for text in texts if text.startswith("objective.")]
        config = loader.load_configuration(
            "config", [*planner.of_hydra, *objective], RunMode.MULTIRUN, from_shell=False
        )
        place_sweep(config, run.plan.root)
        run.configure(config)
        run.plan.root.mkdir(parents=True, exist_ok=True)
        yield run


def search(root: Path, *overrides: str, stub: Stub | None = None) -> tuple[SearchRun, Stub]:
    """Search as a command does, and return the search and its launcher."""
    stub = stub or Stub()
    with planned(root, *overrides) as run:
        run.run(stub)  # type: ignore[arg-type]
    return run, stub


def study_in(run: SearchRun, name: str | None = None) -> optuna.Study:
    """Return the study that a search has left in its directory."""
    storage = storage_named(str(run.plan.root))
    return optuna.load_study(study_name=name or run.plan.name, storage=storage)


def states(run: SearchRun) -> list[str]:
    """Return how the trials ended."""
    return [trial.state.name for trial in study_in(run).trials]
