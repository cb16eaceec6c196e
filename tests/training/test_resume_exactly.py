"""A run that is stopped and gone on with ends as the one that never stopped, bit for bit."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.quick_runs import QUICK
from tests.helpers.stopping import Stop, assert_same, left_by, record_of, run_in, run_until_done

pytestmark = pytest.mark.usefixtures("without_picture")

BASE = [item for item in QUICK if not item.startswith("total_iters")]
# Overrides, and after how many of 18 batches (6 in an epoch) the run is stopped. Every option of
# every group stands in one of them; all pairs of options are tried by test_resume_pairs.py.
CASES = {
    "total_iters=8": [5, 6],
    "schedule=linear total_iters=5 criterion=taylor pruning=channel "
    "trainer.accumulate_grad_batches=3": [8],
    "schedule=cubic total_iters=13 update_frequency=4 criterion=random allocation=global "
    "optimizer=adamw": [7],
    "schedule=cosine interval=percent begin_step=10 total_iters=60 pruning=n_m": [12],
    "schedule=exponential total_iters=9 allow_regrowth=false allocation=erdos_renyi "
    "optimizer=adamw optimizer.lr_schedule=null trainer.check_val_every_n_epoch=2": [5],
    "schedule=linear interval=epoch total_iters=3 trainer.check_val_every_n_epoch=2": [17],
    "schedule=linear total_iters=15 trainer.max_steps=16 trainer.check_val_every_n_epoch=3": [14],
    "schedule=multistep milestones=[2,4] levels=[0.5,1.0] pruning=block target_sparsity=0.75 "
    "trainer.accumulate_grad_batches=3 callbacks=[default,early_stopping]": [10, 17],
    "schedule=constant interval=epoch begin_step=1 optimizer.momentum=0": [13],
    "schedule=linear interval=epoch total_iters=2 criterion=random "
    "trainer.limit_train_batches=5 +trainer.val_check_interval=2": [8],
    "schedule=none +trainer.gradient_clip_val=0.5": [1, 18],
}


@pytest.mark.parametrize(
    ("overrides", "stops"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (index in (3, 4, 5, 6, 8)))
        for index, case in enumerate(CASES.items())
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    compose_config: Any, tmp_path: Path, overrides: str, stops: list[int]
) -> None:
    command = [*BASE, *overrides.split()]
    run_in(compose_config, tmp_path / "whole", *command)
    run_until_done(lambda: run_in(compose_config, tmp_path / "cut", *command), stops)
    assert_same(left_by(tmp_path / "cut"), left_by(tmp_path / "whole"))
    record = record_of(tmp_path / "cut")
    assert record["attempts"] == 1 + len(stops)
    each = 3 if "trainer.accumulate_grad_batches=3" in overrides else 1
    assert record["resumed_at"] == [-(-stop // each) for stop in stops]


def test_workers_that_load_ahead_are_gone_on_with_exactly(
    compose_config: Any, tmp_path: Path
) -> None:
    command = [*QUICK, "trainer.max_epochs=2"]
    run_in(compose_config, tmp_path / "whole", *command)
    with_workers = [*command, "data.num_workers=2"]
    Stop.at = [3]
    with pytest.raises(SystemExit):
        run_in(compose_config, tmp_path / "cut", *with_workers)
    run_in(compose_config, tmp_path / "cut", *command)
    cut, whole = left_by(tmp_path / "cut"), left_by(tmp_path / "whole")
    for left in (cut, whole):
        del left["record overrides"], left["record config"]
    assert_same(cut, whole)
