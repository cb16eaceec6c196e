"""Jobs of a sweep in this process: a warm-up run, those that start from it, those that do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from coreai_opt.runs.job_environment import VARIABLE, JobEnvironment
from coreai_opt.training.run import run
from coreai_opt.warmup.key import warmup_key
from tests.helpers.quick_runs import QUICK
from tests.helpers.same_runs import record_of

__all__ = ["BASE", "OTHER", "STEPS", "Job", "give", "job"]

Job = Callable[..., dict[str, Any]]

BASE = [item for item in QUICK if not item.startswith("total_iters")]
STEPS = ["begin_step=8", "total_iters=4"]
OTHER = ["begin_step=8", "total_iters=8", "power=1", "target_sparsity=0.5"]

WARMUP, ALONE = "warmup", "alone"


def give(monkeypatch: pytest.MonkeyPatch, environment: JobEnvironment) -> None:
    """Put the environment of a job where the job finds it."""
    monkeypatch.setenv(VARIABLE, environment.override().partition("=")[2].strip("'"))


@pytest.fixture
def job(compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run a job of a sweep and return its record.

    The one that is called ``warmup`` makes the warm-up, ``alone`` shares nothing, and the others
    start from the warm-up, whose key the sweep has planned as its config says, or as ``planned``.
    """
    monkeypatch.setattr("coreai_opt.training.summary.draw_run", lambda paths: None)

    def make(
        name: str, *overrides: str, base: list[str] = BASE, planned: str = ""
    ) -> dict[str, Any]:
        sweep = ["hydra.mode=MULTIRUN", f"paths.sweep_root={tmp_path / 'sweep'}"]
        cfg = compose_config(*base, *sweep, *overrides, run_dir=tmp_path / name)
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        environment = JobEnvironment(
            command_id="warm-up",
            warmup="" if name in (WARMUP, ALONE) else WARMUP,
            warmup_key=planned or warmup_key(config) or "none" if name == WARMUP else "",
        )
        with monkeypatch.context() as patch:
            give(patch, environment)
            run(cfg)
        return record_of(tmp_path / name)

    return make
