"""Records of Lightning apps that know nothing of us, and trainings of theirs that go on."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.any_sweeps import AnyApp, environment, record_of
from tests.helpers.apps import DICT_GROUP, HARD_CODED, ZEN, App, Home, homes
from tests.helpers.processes import started, wait_for

SLOW = """
import time

import pytorch_lightning as pl


class Slow(pl.Callback):
    def on_train_batch_end(self, *given):
        time.sleep(0.05)
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def home() -> Home:
    return homes()[0]


def copied(home: Home, app: App, folder: Path) -> AnyApp:
    return AnyApp(home.copy(app, folder), ("train.py",))


def test_a_record_has_what_the_trainer_came_to(home: Home, tmp_path: Path) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    grid = ["+prune=poly", "prune.schedule=none,poly", "prune.target_sparsity=0.8,0.9"]
    said = app.sweep(*grid)
    assert said.code == 0, said.err
    # The dense control is one run, whatever it is crossed with.
    assert "prune.target_sparsity does not count with prune.schedule=none" in said.out
    assert sorted(app.runs) == [
        "prune.schedule-none",
        "prune.schedule-poly_prune.target_sparsity-0.8",
        "prune.schedule-poly_prune.target_sparsity-0.9",
    ]
    dense, pruned = (app.records[name] for name in (sorted(app.runs)[0], sorted(app.runs)[2]))
    assert set(pruned["metrics_by_stage"]) == {"fit", "test"}
    assert pruned["metrics"]["test/acc"] == pruned["objective"]["value"]
    assert {"train/loss", "val/acc"} <= set(pruned["metrics_by_stage"]["fit"])
    assert pruned["training"] == {"epochs": 6, "steps": 30, "steps_per_epoch": 5}
    assert pruned["device"]["accelerator"] == "cpu"
    assert pruned["parameters"]["total"] == dense["parameters"]["total"]
    sparsity = pruned["sparsity"]
    assert (sparsity["target"], sparsity["below_target"]) == (pytest.approx(0.9), False)
    assert sparsity["achieved"] == pytest.approx(0.899, abs=1e-3)
    assert [layer["name"] for layer in sparsity["layers"]] == list(DICT_GROUP.pruned)
    assert dense["sparsity"] is None
    assert "sparsity 89.90 %" in said.out
    assert app.sweep(*grid).first == "3 runs, 3 done before"


def test_a_typed_root_is_swept_over_by_params(home: Home, tmp_path: Path) -> None:
    app = copied(home, ZEN, tmp_path)
    lists = "hydra.sweeper.params={hydra.callbacks.prune.target_sparsity: '0.5,0.9'}"
    said = app.sweep("+prune_typed=poly", lists)
    assert said.code == 0, said.err
    reached = {name: one["sparsity"]["target"] for name, one in app.records.items()}
    assert reached == {
        "hydra.callbacks.prune.target_sparsity-0.5": pytest.approx(0.5),
        "hydra.callbacks.prune.target_sparsity-0.9": pytest.approx(0.9),
    }
    assert app.sweep("+prune_typed=poly", lists).first == "2 runs, 2 done before"


def test_single_runs_and_other_sweepers_have_records_too(home: Home, tmp_path: Path) -> None:
    app = copied(home, HARD_CODED, tmp_path)
    for words in (["+record=on"], ["-m", "+record=on", "seed=1,2"]):
        said = app.run(*words)
        assert said.code == 0, said.err
    found = [record_of(path.parents[1]) for path in app.folder.glob("**/.coreai/result.json")]
    assert [one["status"] for one in found] == ["completed"] * 3
    # Two folds are two Trainers.
    assert all({"fit", "fit-2"} <= set(one["metrics_by_stage"]) for one in found)
    assert {one["sweep"] for one in found} == {None}


def interrupted(app: AnyApp, number: int, *words: str) -> None:
    """Begin a sweep, and end it by a signal in the middle of its first training."""

    def is_in_mid_training() -> bool:
        files = app.folder.glob("multirun/*/*/.coreai/progress.json")
        return any(json.loads(file.read_text())["step"] > 12 for file in files)

    typed, program = app.command(*words)[2:], app.folder / app.program[0]
    with started(app.folder, *typed, program=program, environment=environment()) as process:
        wait_for(process, is_in_mid_training, "step")
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    # Ctrl-C ends the run at work, and the sweep goes on to its end.
    assert process.returncode == (143 if number == signal.SIGTERM else 2), (out, errors)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_training_goes_on_bit_for_bit_where_it_is_resumable(
    home: Home, tmp_path: Path, number: int
) -> None:
    whole, app = (copied(home, DICT_GROUP, tmp_path / name) for name in ("whole", "broken"))
    for one in (whole, app):
        (one.folder / "slow.py").write_text(SLOW)
    words = ["+prune=poly", "+resumable=on", "+callbacks.slow._target_=slow.Slow", "seed=1"]
    assert whole.sweep(*words).code == 0
    interrupted(app, number, *words)
    ((state, _),) = app.states.values()
    assert state == "interrupted"
    said = app.sweep(*words)
    assert said.code == 0, said.err
    assert re.search(
        r"goes on in \w+ from \.coreai/resume/step-\d+-\w+\.ckpt, by ckpt_path", said.out
    )
    assert "not bit for bit" not in said.out
    (expected,), (found,) = whole.records.values(), app.records.values()
    assert (found["status"], found["attempts"]) == ("completed", 2)
    for name in ("metrics", "sparsity", "objective", "training"):
        assert found[name] == expected[name], name
    assert not list(app.folder.glob("**/.coreai/resume/*"))


def test_a_training_goes_on_from_the_checkpoint_of_the_app(home: Home, tmp_path: Path) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    (app.folder / "slow.py").write_text(SLOW)
    words = ["+callbacks.slow._target_=slow.Slow", "seed=1"]
    interrupted(app, signal.SIGTERM, *words)
    (run,) = app.runs.values()
    newest = max(run.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    # Half a file, as of a process that was killed while it wrote, is none to go on from.
    damaged = newest.with_name("newer.ckpt")
    damaged.write_bytes(newest.read_bytes()[:-2000])
    said = app.sweep(*words, OMP_NUM_THREADS="2")
    assert said.code == 0, said.err
    assert f"{damaged} is damaged, and the one before it is used" in said.out
    assert re.search(r"goes on in \w+ from checkpoints/\w+\.ckpt, by ckpt_path", said.out)
    assert "not bit for bit: what the app keeps in no checkpoint begins anew" in said.out
    (record,) = app.records.values()
    # It computes with as many threads as before.
    assert (record["status"], record["attempts"], record["threads"]) == ("completed", 2, 1)


@pytest.mark.timeout(300)
def test_runs_on_several_devices_one_after_the_other(home: Home, tmp_path: Path) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    ddp = ["+trainer.strategy=ddp", "trainer.devices=2", "+prune=poly", "seed=1,2"]
    said = app.sweep(*ddp)
    assert said.code == 0, (said.out, said.err)
    records: list[dict[str, Any]] = list(app.records.values())
    assert [one["status"] for one in records] == ["completed", "completed"]
    assert {one["sparsity"]["below_target"] for one in records} == {False}
    # The other rank was that of the run: it has made no directory of its own.
    assert not (app.folder / "outputs").exists()
    assert len(list((app.folder / "multirun").glob("*/*/"))) == 2


def weights_of(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "weights.pt", weights_only=True))


@pytest.mark.timeout(300)
def test_runs_that_share_their_dense_warmup_end_as_those_that_do_not(
    home: Home, tmp_path: Path
) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    ramp = ["+prune=poly", "prune.begin_step=40", "prune.total_iters=30"]
    grid = [*ramp, "prune.schedule=none,poly,linear", "prune.target_sparsity=0.8,0.9"]
    shared = app.sweep(*grid, "hydra.sweeper.warmup=auto", "hydra.sweeper.name=shared")
    assert shared.code == 0, (shared.out, shared.err)
    assert "5 runs, 5 to run, after 1 dense warm-up that they share" in shared.out
    assert "dense warm-up completed: 12 steps" in shared.out
    assert app.sweep(*grid, "hydra.sweeper.name=alone").code == 0
    for run in (app.folder / "multirun" / "alone").glob("*/"):
        same = app.folder / "multirun" / "shared" / run.name
        expected, found = record_of(run), record_of(same)
        for name in ("metrics", "sparsity", "training", "objective"):
            assert found[name] == expected[name], (run.name, name)
        before, now = weights_of(run), weights_of(same)
        assert all(torch.equal(now[name], before[name]) for name in before)
        is_dense = run.name.startswith("prune.schedule-none")
        assert (found["warmup"] is None) == is_dense
        if not is_dense:
            assert found["warmup"]["steps"] == 12
    # A later command starts from it, too.
    more = [*ramp, "prune.schedule=cosine", "prune.target_sparsity=0.8,0.9"]
    later = app.sweep(*more, "hydra.sweeper.warmup=auto", "hydra.sweeper.name=shared")
    assert "2 runs start from the dense warm-up in warmup-" in later.out


def test_a_warmup_needs_a_key_to_start_from(home: Home, tmp_path: Path) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    none = ["hydra.sweeper.warmup=auto", "hydra.sweeper.resume_key=null"]
    said = app.sweep("+prune=poly", "seed=1,2", *none)
    assert said.code == 1
    told = "error: hydra.sweeper.warmup=auto: this app has no key for a checkpoint to start from"
    assert said.err.startswith(told), said.err


@pytest.mark.timeout(300)
def test_processes_that_a_strategy_spawns_tell_the_same(home: Home, tmp_path: Path) -> None:
    app = copied(home, DICT_GROUP, tmp_path)
    spawned = ["+trainer.strategy=ddp_spawn", "trainer.devices=2", "+prune=poly", "+resumable=on"]
    said = app.sweep(*spawned, "seed=1")
    assert said.code == 0, (said.out, said.err)
    (record,) = app.records.values()
    assert {"train/loss", "val/acc"} <= set(record["metrics_by_stage"]["fit"])
    assert record["metrics"]["test/acc"] == record["objective"]["value"]
    assert record["training"]["steps"] > 0
    assert (record["sparsity"]["below_target"], record["warning"]) == (False, None)
