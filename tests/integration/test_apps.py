"""Apps that know nothing of this package, and one line: what scripts/compat runs everywhere."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.apps import (
    APPS,
    DICT_GROUP,
    EVAL_SCRIPT,
    HARD_CODED,
    OWN_EMA,
    REGISTRY,
    App,
    Completed,
    Home,
    assert_at_target,
    run_files,
    tensors,
    zeros,
)
from tests.integration.conftest import Pruned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_the_one_line_prunes_what_the_app_itself_writes(
    home: Home, pruned: Pruned, app: App
) -> None:
    where, completed = pruned(app)
    for file in run_files(app, where / "run"):
        assert_at_target(home, app, file)
    shown = completed.stdout + completed.stderr
    assert len([line for line in shown.splitlines() if "weights in" in line]) == app.folds, shown
    assert "below the target" not in shown


def test_the_test_phase_and_the_eval_script_see_the_same_pruned_network(
    home: Home, pruned: Pruned
) -> None:
    where, completed = pruned(DICT_GROUP)
    (best,) = (where / "run" / "checkpoints").glob("epoch_*.ckpt")
    evaluated = home.run(where, f"ckpt_path='{best}'", program="eval.py")
    assert evaluated.returncode == 0, evaluated.stderr
    assert accuracy(evaluated) == accuracy(completed) > 0.5


def accuracy(completed: Completed) -> float:
    (shown,) = re.findall(r"test/acc\w* *│? *\|? *([0-9.]+)", completed.stdout)
    return float(shown)


def test_a_script_without_lightning_loads_and_exports_the_pruned_network(
    home: Home, pruned: Pruned
) -> None:
    where, _ = pruned(EVAL_SCRIPT)
    done = home.run(where, "run/best.ckpt", "exported.pt2", program="evaluate.py")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("accuracy ")[2]) > 0.5
    read = (
        "import torch; state = torch.export.load('exported.pt2').state_dict;"
        " print(*[int((state[name] == 0).sum()) for name in ('0.weight', '2.weight')])"
    )
    counted = home.run(where, read, program="-c")
    expected = zeros(tensors(home, EVAL_SCRIPT, where / "run" / "best.ckpt"))
    assert [int(n) for n in counted.stdout.split()] == [expected[n] for n in EVAL_SCRIPT.pruned]


def test_a_sweep_over_schedules_has_a_dense_control_and_the_same_keys(
    home: Home, tmp_path: Path
) -> None:
    where = home.copy(REGISTRY, tmp_path)
    swept = ["prune.schedule=none,poly,linear", "seed=1,2", "hydra.sweep.dir=sweep"]
    done = home.run(where, "-m", "+prune=poly", *swept)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = sorted((where / "sweep").glob("[0-9]"), key=lambda job: int(job.name))
    assert len(jobs) == 6
    weights = [tensors(home, REGISTRY, job / "checkpoints" / "last.ckpt") for job in jobs]
    assert all(list(one) == list(weights[0]) for one in weights)
    for job, one in zip(jobs, weights, strict=True):
        if int(job.name) < 2:
            assert not any(zeros(one)[name] for name in REGISTRY.pruned)
        else:
            for file in run_files(REGISTRY, job):
                assert_at_target(home, REGISTRY, file)


def test_going_on_in_mid_ramp_goes_on_with_the_ramp(home: Home, pruned: Pruned) -> None:
    """In the checkpoints that follow the ramp has come as far as without a break."""
    where, _ = pruned(OWN_EMA)
    middle = "train.resume=run/epoch\\=1.ckpt"
    done = home.run(where, *OWN_EMA.line, middle, "hydra.run.dir=again")
    assert done.returncode == 0, done.stdout + done.stderr
    for epoch in (2, 3):
        whole, again = (
            zeros(tensors(home, OWN_EMA, where / run / f"epoch={epoch}.ckpt"))
            for run in ("run", "again")
        )
        assert [whole[name] for name in OWN_EMA.pruned] == [again[name] for name in OWN_EMA.pruned]
    halfway = zeros(tensors(home, OWN_EMA, where / "run" / "epoch=1.ckpt"))
    assert all(0 < halfway[name] < whole[name] for name in OWN_EMA.pruned)
    assert_at_target(home, OWN_EMA, where / "again" / "last.ckpt")


def test_every_fold_is_pruned_by_itself(home: Home, pruned: Pruned) -> None:
    where, _ = pruned(HARD_CODED)
    first, second = (
        tensors(home, HARD_CODED, where / "run" / name) for name in ("weights.pt", "weights-2.pt")
    )
    last = tensors(home, HARD_CODED, where / "run" / "fold_1" / "last.ckpt")
    assert all(bool((second[name] == last[name]).all()) for name in last)
    assert any(bool((first[name] != second[name]).any()) for name in first)


def test_its_sweeps_skip_what_is_done_and_record_what_was_trained(
    home: Home, tmp_path: Path
) -> None:
    where = home.copy(REGISTRY, tmp_path)
    grid = ["-m", "hydra/sweeper=grid", "+prune=poly", "prune.schedule=none,poly"]
    first = home.run(where, *grid, "prune.target_sparsity=0.8,0.9")
    assert first.returncode == 0, first.stdout + first.stderr
    assert ": 3 runs, 3 completed\n" in first.stdout
    found = where.glob("multirun/*/*/.coreai/result.json")
    records = [json.loads(path.read_text()) for path in found]
    targets = sorted((one["sparsity"] or {"target": 0})["target"] for one in records)
    assert targets == [0, pytest.approx(0.8), pytest.approx(0.9)]
    assert all(one["training"]["steps"] > 0 for one in records)
    assert all("fit" in one["metrics_by_stage"] for one in records)
    again = home.run(where, *grid, "prune.target_sparsity=0.8,0.9")
    assert ": 3 runs, 3 done before\n" in again.stdout
