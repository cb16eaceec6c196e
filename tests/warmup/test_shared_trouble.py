"""What goes wrong with a shared warm-up costs time, and never a run or its result."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import RunFailedError
from coreai_opt.warmup import shared as shared_trunk
from coreai_opt.warmup.shared import TrunkNotStoredWarning
from coreai_opt.warmup.store import TrunkStore
from tests.conftest import ROOT
from tests.helpers.same_runs import differences, record_of
from tests.warmup.test_shared import BASE, OTHER, STEPS, Job, _no_pictures, job

__all__ = ["_no_pictures", "job"]

slow = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "sweep" / "trunks"


@pytest.fixture
def alone(job: Job, tmp_path: Path) -> Path:
    """The run to compare with, which shares nothing."""
    job("alone", *OTHER, "trunk=off")
    return tmp_path / "alone"


def entry(store: Path) -> Path:
    (path,) = store.glob("*/trunk.ckpt")
    return path


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Let a signal arrive in that step of the next run."""
    from coreai_opt.models import Classifier

    original, left = Classifier.training_step, [times]

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", training_step)


def test_who_takes_a_warm_up_and_is_interrupted_later_goes_on(
    job: Job, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("maker", *STEPS)
    interrupt_at(10, monkeypatch)
    with pytest.raises(SystemExit) as caught:
        job("taker", *OTHER)
    assert caught.value.code == 143
    trunk = record_of(tmp_path / "taker")["trunk"]
    taken = job("taker", *OTHER)
    assert taken["resumed_at"] == [11]
    assert taken["trunk"] == trunk
    assert trunk["steps"] == 8
    assert differences(tmp_path / "taker", alone) == []


@slow
def test_a_maker_that_is_interrupted_before_lets_others_make_it(
    job: Job, tmp_path: Path, alone: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(3, monkeypatch)
    with pytest.raises(SystemExit):
        job("maker", *OTHER)
    assert list(store.iterdir()) == []
    # Its beginning is gone: it goes on by itself, and makes none.
    assert job("maker", *OTHER)["trunk"] is None
    assert differences(tmp_path / "maker", alone) == []
    assert list(store.iterdir()) == []
    assert job("next", *STEPS)["trunk"]["seconds_saved"] == 0
    assert job("taker", *OTHER)["trunk"]["seconds_saved"] > 0
    assert differences(tmp_path / "taker", alone) == []


@slow
def test_a_maker_that_fails_lets_others_make_it(
    job: Job, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coreai_opt.models import Classifier

    def fail(self: Any, batch: Any, batch_idx: int) -> None:
        raise ZeroDivisionError("in the step")

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", fail)
        with pytest.raises(RunFailedError, match="in the step"):
            job("maker", *STEPS)
    assert list(store.iterdir()) == []
    assert job("next", *OTHER)["trunk"]["seconds_saved"] == 0


@pytest.mark.parametrize("file", ["trunk.ckpt", pytest.param("entry.json", marks=slow)])
def test_a_damaged_warm_up_is_made_anew(
    job: Job, tmp_path: Path, alone: Path, store: Path, file: str
) -> None:
    job("maker", *STEPS)
    path = entry(store).with_name(file)
    path.write_bytes(path.read_bytes()[:-9] + b"damaged!\n")
    with pytest.warns(UserWarning, match="cannot be used, .* a new one is made"):
        taken = job("taker", *OTHER)
    assert taken["trunk"]["seconds_saved"] == 0
    assert differences(tmp_path / "taker", alone) == []
    assert job("another", *STEPS)["trunk"]["seconds_saved"] > 0


@pytest.mark.parametrize("place", ["a file", pytest.param("no directory can be made", marks=slow)])
def test_a_store_that_cannot_be_used_is_told_and_done_without(
    job: Job, tmp_path: Path, alone: Path, place: str
) -> None:
    root = Path("/proc/none")
    if place == "a file":
        root = tmp_path / "file"
        root.write_text("")
    with pytest.warns(UserWarning, match=r"cannot be used: .*trains its own trunk"):
        record = job("taker", *OTHER, f"paths.trunks={root}")
    assert record["trunk"] is None
    assert differences(tmp_path / "taker", alone) == []


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_and_nobody_waits_for_what_cannot_be_stored(
    job: Job, tmp_path: Path, alone: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("coreai_opt.warmup.store._sync", no_space)
        with pytest.warns(TrunkNotStoredWarning, match="No space left on device; the run goes on"):
            record = job("maker", *OTHER)
    assert record["trunk"] is None
    assert differences(tmp_path / "maker", alone) == []
    assert [path.suffix for path in store.iterdir()] == [".declined"]
    assert job("next", *STEPS)["trunk"] is None


@slow
def test_a_warm_up_that_cannot_be_taken_is_told_and_trained(
    job: Job, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("maker", *STEPS)
    monkeypatch.setattr(Path, "hardlink_to", no_space)
    monkeypatch.setattr(shared_trunk.shutil, "copyfile", no_space)
    with pytest.warns(TrunkNotStoredWarning, match="No space left .* this run trains its own"):
        record = job("taker", *OTHER)
    assert record["trunk"] is None
    assert differences(tmp_path / "taker", alone) == []


@slow
def test_where_links_are_not_possible_it_is_copied(
    job: Job, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("maker", *STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", no_space)
        assert job("taker", *OTHER)["trunk"]["seconds_saved"] > 0
    assert differences(tmp_path / "taker", alone) == []


@pytest.mark.parametrize(
    "when", ["before it is held", pytest.param("before it is read", marks=slow)]
)
def test_a_warm_up_that_is_removed_meanwhile_does_not_fail_a_run(
    job: Job, tmp_path: Path, alone: Path, store: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    job("maker", *STEPS)
    claim = TrunkStore.claim
    hold = shared_trunk._hold

    def claim_and_lose(self: TrunkStore, *args: Any, **kwargs: Any) -> Any:
        found = claim(self, *args, **kwargs)
        if list(store.glob("*/trunk.ckpt")):
            _remove(store)
        return found

    def hold_and_lose(path: Path, held: Path) -> None:
        hold(path, held)
        _remove(store)

    if when == "before it is held":
        monkeypatch.setattr(TrunkStore, "claim", claim_and_lose)
    else:
        monkeypatch.setattr(shared_trunk, "_hold", hold_and_lose)
    taken = job("taker", *OTHER)
    assert (taken["trunk"]["seconds_saved"] > 0) == (when == "before it is read")
    assert differences(tmp_path / "taker", alone) == []
    assert len(list(store.glob("*/trunk.ckpt"))) == (when == "before it is held")


def _remove(store: Path) -> None:
    directory = entry(store).parent
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def test_a_clock_that_leaps_over_the_end_makes_none_and_nobody_waits(
    job: Job, tmp_path: Path, store: Path
) -> None:
    given = ["interval=percent", "begin_step=40"]
    assert job("first", *given, "total_iters=20")["trunk"] is None
    (path,) = store.iterdir()
    assert "leaps over the end" in json.loads(path.read_text())["reason"]
    assert job("second", *given, "total_iters=30")["trunk"] is None
    job("alone", *given, "total_iters=30", "trunk=off")
    assert differences(tmp_path / "second", tmp_path / "alone") == []


@slow
def test_a_training_that_ends_before_makes_none_and_nobody_waits(
    job: Job, tmp_path: Path, store: Path
) -> None:
    stopping = (
        "+callbacks.stop={_target_:pytorch_lightning.callbacks.EarlyStopping,"
        "monitor:val/accuracy,mode:max,patience:0,min_delta:1.0}"
    )
    late = [stopping, "begin_step=14", "total_iters=3"]
    with pytest.warns(UserWarning, match="below the target sparsity: "):
        assert job("first", *late)["trunk"] is None
    (path,) = store.iterdir()
    assert "ends before" in json.loads(path.read_text())["reason"]


NOTHING_SHARED = {
    "the dense control": ["schedule=none"],
    "a sparse begin": ["begin_step=5", "total_iters=5", "initial_sparsity=0.1"],
    "pruned from the start": ["total_iters=5"],
    "switched off": [*STEPS, "trunk=off"],
    "no sweep": [*STEPS, "hydra.mode=RUN"],
    "a target that prunes nothing": [*STEPS, "target_sparsity=0.0005"],
    "curves in files that cannot be read back": [
        *STEPS,
        "logger=none",
        "+logger.own={_target_:pytorch_lightning.loggers.TensorBoardLogger,"
        "save_dir:${paths.run_dir},name:tensorboard,version:''}",
    ],
    "curves under other names": [*STEPS, "+logger.csv.prefix=my"],
}


@pytest.mark.parametrize("case", NOTHING_SHARED)
def test_what_has_no_warm_up_in_common_leaves_no_store(job: Job, store: Path, case: str) -> None:
    assert job("first", *NOTHING_SHARED[case])["trunk"] is None
    assert not store.exists()


JOB = """
import sys, time
from pathlib import Path
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.runs.paths import conf_dir
from coreai_opt.training.run import run
from coreai_opt.warmup.store import TrunkStore
from coreai_opt.models import Classifier
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write

directory, slow, *overrides = sys.argv[1:]
step = Classifier.training_step

def slowly(self, *args):
    Path(directory, "began").touch()
    while slow == "slow" and not Path(directory, "go").exists():
        time.sleep(0.05)
    return step(self, *args)

Classifier.training_step = slowly
register_nodes()
with initialize_config_dir(str(conf_dir()), version_base="1.3"):
    cfg = compose("config", overrides, return_hydra_config=True)
with read_write(cfg), open_dict(cfg):
    cfg.hydra.runtime.output_dir = directory
    HydraConfig.instance().set_config(cfg)
    del cfg["hydra"]
run(cfg)
"""


class Processes:
    """Jobs in processes of their own, which wait where they are told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep = ["hydra.mode=MULTIRUN", f"paths.sweep_root={root / 'sweep'}"]
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, speed: str, *overrides: str) -> "subprocess.Popen[str]":
        (self.root / name).mkdir()
        script = self.root / "job.py"
        script.write_text(JOB)
        arguments = [str(self.root / name), speed, *BASE, *self.sweep, *overrides]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def until(self, path: Path, process: "subprocess.Popen[str]") -> None:
        deadline = time.monotonic() + 90
        while not path.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


@slow
@pytest.mark.parametrize("end", ["makes it", "is killed"])
def test_others_wait_for_the_maker_as_long_as_it_lives(
    processes: Processes, tmp_path: Path, end: str
) -> None:
    maker = processes.start("maker", "slow", *STEPS)
    processes.until(tmp_path / "maker" / "began", maker)
    takers = [processes.start(f"taker{index}", "fast", *OTHER) for index in range(2)]
    words = f"waiting for the dense warm-up that process {maker.pid} on "
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline().startswith(words)
    assert not any((tmp_path / f"taker{index}" / "began").exists() for index in range(2))
    if end == "makes it":
        (tmp_path / "maker" / "go").touch()
    else:
        maker.kill()
    for taker in takers:
        output, _ = taker.communicate(timeout=90)
        assert taker.returncode == 0, output
    processes.start("alone", "fast", *OTHER, "trunk=off").communicate(timeout=90)
    saved = [record_of(tmp_path / f"taker{i}")["trunk"]["seconds_saved"] for i in range(2)]
    assert sorted(seconds > 0 for seconds in saved) == [end == "makes it", True]
    for index in range(2):
        assert differences(tmp_path / f"taker{index}", tmp_path / "alone") == []


@slow
def test_who_waits_can_be_ended(processes: Processes, tmp_path: Path) -> None:
    maker = processes.start("maker", "slow", *STEPS)
    processes.until(tmp_path / "maker" / "began", maker)
    taker = processes.start("taker", "fast", *OTHER)
    assert taker.stdout is not None
    assert taker.stdout.readline().startswith("waiting")
    taker.send_signal(signal.SIGTERM)
    assert taker.wait(timeout=60) == 143
    assert record_of(tmp_path / "taker")["status"] == "interrupted"
