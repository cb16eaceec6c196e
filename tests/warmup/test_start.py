"""Jobs of a sweep that start from a warm-up run end as those that train it themselves."""

from pathlib import Path

import pytest

from tests.helpers.same_runs import differences
from tests.helpers.warmups import OTHER, STEPS, Job, job

__all__ = ["job"]

slow = pytest.mark.slow


def in_epoch(schedule: str, *values: str) -> list[str]:
    return [f"schedule={schedule}", *values]


def layer(name: str, spec: str) -> str:
    return f"pruning.module_name_configs={{{name}:{{op_state_spec:{{weight:{spec}}}}}}}"


ROUNDS = (
    in_epoch("multistep", "milestones=[8,12]", "levels=[0.5,1.0]"),
    in_epoch("multistep", "milestones=[8,10,14]", "levels=[0.2,0.5,1.0]"),
)
EPOCHS = ["interval=epoch", "begin_step=1"]
RAMP = ["begin_step=5", "total_iters=9"]
EARLY = (
    "+callbacks.early_stopping={_target_:lightning_callbacks.TargetSparsityEarlyStopping,"
    "monitor:val/accuracy,mode:max,patience:1}"
)
FIRST = "network.layers.1"

# What two jobs have in common, what each has of its own, and the steps that they share.
CASES: dict[str, tuple[list[str], list[str], list[str], int]] = {
    "within an epoch": ([], STEPS, OTHER, 8),
    "nothing logged yet": (
        ["~callbacks.sparsity_monitor", "trainer.log_every_n_steps=6", "begin_step=1"],
        ["total_iters=12"],
        ["total_iters=12", "power=3"],
        1,
    ),
    "at the end of an epoch": (
        ["begin_step=6"],
        ["total_iters=4"],
        ["total_iters=9", "target_sparsity=0.5"],
        6,
    ),
    "a single step": (["begin_step=1", "total_iters=12"], ["power=1"], ["power=3"], 1),
    "epochs": (EPOCHS, ["total_iters=1"], ["total_iters=2", "target_sparsity=0.5"], 6),
    "percent": (["interval=percent", "begin_step=50"], ["total_iters=9"], ["total_iters=40"], 9),
    "accumulation": (
        ["trainer.accumulate_grad_batches=2", "begin_step=4"],
        ["total_iters=2"],
        ["total_iters=5"],
        4,
    ),
    "constant": (["schedule=constant", "begin_step=8"], [], ["target_sparsity=0.5"], 7),
    "rounds": ([], *ROUNDS, 7),
    "other curves": (RAMP, ["schedule=cosine"], ["schedule=exponential", "rate=2"], 5),
    "a rare update": (RAMP, ["update_frequency=3"], ["update_frequency=2"], 5),
    "erdos_renyi": ([*RAMP, "allocation=erdos_renyi"], [], ["target_sparsity=0.5"], 5),
    "global": ([*RAMP, "allocation=global"], [], ["target_sparsity=0.5"], 5),
    "taylor": ([*RAMP, "criterion=taylor"], [], ["update_frequency=2"], 5),
    "random": ([*RAMP, "criterion=random"], [], ["target_sparsity=0.5"], 5),
    "channels": ([*RAMP, "pruning=channel"], [], ["power=1"], 5),
    "adamw": ([*RAMP, "optimizer=adamw"], [], ["power=1"], 5),
    "a layer's own target": (
        RAMP,
        [layer(FIRST, "{target_sparsity:0.8}")],
        [layer(FIRST, "{target_sparsity:0.5}")],
        5,
    ),
    "tensorboard": ([*RAMP, "logger=tensorboard"], [], ["target_sparsity=0.5"], 5),
    "no logger": ([*RAMP, "logger=none"], [], ["target_sparsity=0.5"], 5),
    "no table": (
        [*RAMP, "callbacks.sparsity_monitor.csv_path=null"],
        [],
        ["target_sparsity=0.5"],
        5,
    ),
    "counted at every step": (
        [*RAMP, "callbacks.sparsity_monitor.every_n_steps=1", "trainer.log_every_n_steps=1"],
        [],
        ["target_sparsity=0.5"],
        5,
    ),
    "early stopping": (
        [*RAMP, EARLY],
        [],
        ["total_iters=3"],
        5,
    ),
}


QUICK_CASES = ("within an epoch", "tensorboard")


@pytest.mark.parametrize(
    "case", [name if name in QUICK_CASES else pytest.param(name, marks=slow) for name in CASES]
)
def test_who_starts_from_a_warm_up_ends_as_without_it(job: Job, tmp_path: Path, case: str) -> None:
    common, mine, theirs, steps = CASES[case]
    made = job("warmup", *common, *mine)
    taken = job("taker", *common, *theirs)
    job("alone", *common, *theirs)
    assert made["warmup"]["steps"] == taken["warmup"]["steps"] == steps
    assert differences(tmp_path / "taker", tmp_path / "alone") == []


def test_records_say_what_was_shared_and_the_user_is_told(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = job("warmup", *STEPS)
    assert capsys.readouterr().out == ""
    assert (made["kind"], made["status"], made["objective"]) == ("warmup", "completed", None)
    assert made["training"]["steps"] == 8
    facts = made["warmup"]
    assert facts["key"] == made["config_hash"]
    taken = job("taker", *OTHER)
    assert (taken["kind"], taken["resumed_at"]) == ("run", [])
    saved = taken["warmup"]["seconds_saved"]
    assert taken["warmup"] == {
        "key": facts["key"],
        "steps": 8,
        "seconds_saved": saved,
        "run": "warmup",
    }
    assert 0 < saved == facts["seconds"] <= made["wall_seconds"]
    said = f"dense warm-up: 8 steps from {tmp_path / 'warmup'} ({saved:.1f} s saved)\n"
    assert capsys.readouterr().out.startswith(said)
    assert [path.suffix for path in (tmp_path / "warmup" / "resume").iterdir()] == [".ckpt"]
    assert not (tmp_path / "warmup" / "weights.pt").exists()
