"""Which warm-up the ranks start from that a cluster starts: rank 0 decides, and publishes it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import LightningModule

from coreai_opt.distributed import handoff
from coreai_opt.runs.context import RunContext
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.resume import Start
from coreai_opt.runs.run_record import Progress, Record
from coreai_opt.runs.signals import Interruptions
from coreai_opt.warmup.run import WarmupRun
from coreai_opt.warmup.start import choose_warmup
from tests.helpers.warmups import STEPS, Job, job

__all__ = ["job"]

LAUNCH = "slurm-7-0-0"


@pytest.fixture
def second_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], WarmupRun | None]:
    """Return what the second of two ranks decides on, whose sweep has named a warm-up run."""
    step = {"JOB_ID": "7", "STEP_ID": "0", "PROCID": "1", "STEP_NUM_TASKS": "2"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    def decide(warmup: str) -> WarmupRun | None:
        paths = RunPaths(tmp_path / "taker")
        record = Record(paths, {}, [], write=False)
        environment = JobEnvironment(warmup=warmup)
        context = RunContext(paths, record, Progress(), Start(), Interruptions(), environment)
        two_ranks: Any = SimpleNamespace(world_size=2)
        return choose_warmup(context, two_ranks, LightningModule())

    return decide


@pytest.mark.parametrize("folder", ["warmup", ""])
def test_the_second_rank_starts_as_rank_0_has_decided(
    job: Job, second_rank: Callable[[str], WarmupRun | None], tmp_path: Path, folder: str
) -> None:
    with pytest.MonkeyPatch.context() as alone:
        alone.delenv("SLURM_JOB_ID")
        job("warmup", *STEPS)
    paths = RunPaths(tmp_path / "taker")
    paths.root.mkdir()
    handoff.publish_warmup(paths, "slurm-7-0-1", "of another launch")
    told: list[WarmupRun | None] = []
    listener = threading.Thread(target=lambda: told.append(second_rank("warmup")))
    listener.start()
    time.sleep(0.5)
    assert listener.is_alive()
    handoff.publish_warmup(paths, LAUNCH, folder)
    listener.join(10)
    expected = tmp_path / "warmup" if folder else None
    assert [one and one.run.paths.root for one in told] == [expected]


def test_a_rank_that_cannot_read_what_rank_0_starts_from_fails(
    second_rank: Callable[[str], WarmupRun | None], tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path / "taker")
    paths.root.mkdir()
    handoff.publish_warmup(paths, LAUNCH, "warmup")
    with pytest.raises(OSError, match="this process cannot read it"):
        second_rank("warmup")


def test_it_waits_for_no_word_where_nothing_is_shared(
    second_rank: Callable[[str], WarmupRun | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, "PATIENCE_S", 0.1)
    assert second_rank("") is None
