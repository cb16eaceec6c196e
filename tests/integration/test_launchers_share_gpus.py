"""Jobs that run side by side take free places on GPUs; the GPUs are told, not there."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from coreai_opt.distributed.gpu_slots import VARIABLE, gpu_slot
from tests.conftest import ROOT
from tests.helpers.launchers import needed, one_thread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Says which GPUs a job sees, and from when to when; the trainer itself computes on the CPU.
MINE = """
import json
import os
import time
from pathlib import Path

import pytorch_lightning as pl


class Note(pl.Callback):
    def on_fit_start(self, trainer, pl_module):
        self.told = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "from": time.time()}

    def on_train_epoch_start(self, trainer, pl_module):
        time.sleep(1)

    def on_fit_end(self, trainer, pl_module):
        self.told["to"] = time.time()
        Path(trainer.default_root_dir, "note.json").write_text(json.dumps(self.told))


class OnTheCPU(pl.Trainer):
    def __init__(self, accelerator, **given):
        super().__init__(accelerator="cpu", **given)
"""

SWEEP = [
    "experiment=quick",
    "trainer.max_epochs=3",
    "total_iters=30",
    "warmup=off",
    "trainer._target_=mine.OnTheCPU",
    "+callbacks.note._target_=mine.Note",
]


def notes(work: Path, *arguments: str) -> list[dict[str, object]]:
    (work / "mine.py").write_text(MINE)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SWEEP, *arguments]
    done = subprocess.run(
        command, cwd=work, env=one_thread({}), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return [json.loads(path.read_text()) for path in work.glob("multirun/*/*/note.json")]


def most_at_once(told: list[dict[str, object]]) -> Counter[str]:
    """Return how many jobs of each GPU ran at the same time, at most."""
    most: Counter[str] = Counter()
    for one in told:
        together = [
            other
            for other in told
            if other["gpu"] == one["gpu"] and other["from"] <= one["from"] < other["to"]  # type: ignore[operator]
        ]
        most[str(one["gpu"])] = max(most[str(one["gpu"])], len(together))
    return most


def test_joblibs_jobs_take_a_free_gpu_each(work: Path) -> None:
    needed("joblib")
    given = ["hydra/launcher=joblib", "hydra.launcher.gpus=[3,5]", "seed=1,2,3,4"]
    assert most_at_once(notes(work, *given)) == {"3": 1, "5": 1}


def test_joblibs_jobs_share_a_gpu_when_they_are_told_to(work: Path) -> None:
    needed("joblib")
    given = ["hydra/launcher=joblib", "hydra.launcher.gpus=1", "hydra.launcher.jobs_per_gpu=2"]
    assert most_at_once(notes(work, *given, "seed=1,2,3")) == {"0": 2}


@pytest.mark.ray
def test_rays_tasks_share_gpus_by_fractions(work: Path) -> None:
    needed("ray")
    ray = "hydra.launcher.ray"
    given = ["hydra/launcher=ray", f"{ray}.init.num_gpus=2", f"{ray}.init.num_cpus=3"]
    told = notes(work, *given, f"{ray}.remote.num_gpus=0.5", "seed=1,2,3")
    # Three at once on two GPUs, so that one of them is shared.
    assert set(most_at_once(told)) <= {"0", "1"}
    assert sorted(most_at_once(told).values())[-1] == 2


@pytest.mark.ray
def test_rays_tasks_take_a_whole_gpu_by_default(work: Path) -> None:
    needed("ray")
    ray = "hydra.launcher.ray"
    given = ["hydra/launcher=ray", f"{ray}.init.num_gpus=2", f"{ray}.init.num_cpus=3"]
    assert most_at_once(notes(work, *given, "seed=1,2,3")) == {"0": 1, "1": 1}


PROGRAM = """
import os, sys, time
from coreai_opt.distributed.gpu_slots import gpu_slot
with gpu_slot(["7", "8"], int(sys.argv[1])) as device:
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_process_that_is_killed_leaves_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = [sys.executable, "-c", PROGRAM]
    held = [
        subprocess.Popen([*command, "1", "100"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(2)
    ]
    try:
        seen = sorted(process.stdout.readline().strip() for process in held if process.stdout)
        assert seen == ["7 7", "8 8"]
        held[0].kill()
        held[0].wait()
        with gpu_slot(["7", "8"], 1) as device:
            assert device in ("7", "8")
    finally:
        for process in held:
            process.kill()
            process.communicate()
    monkeypatch.delenv(VARIABLE, raising=False)
