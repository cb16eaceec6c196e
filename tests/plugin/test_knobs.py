"""What is wrong with the knobs of a job: all of it at once, in sentences."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.plugin.knobs import Knobs
from coreai_opt.plugin.options import SCHEDULES, defaults
from coreai_opt.pruning.config import (
    ConstantSparsitySchedule,
    CosineSparsitySchedule,
    ExponentialSparsitySchedule,
    MultiStepSparsitySchedule,
    PolynomialDecaySchedule,
)

RAMP = {"total_iters": 60, "begin_step": 10}

MADE = {
    "none": None,
    "constant": ConstantSparsitySchedule(begin_step=10),
    "linear": PolynomialDecaySchedule(power=1, **RAMP),
    "poly": PolynomialDecaySchedule(power=3, **RAMP),
    "cubic": PolynomialDecaySchedule(power=3, **RAMP),
    "cosine": CosineSparsitySchedule(**RAMP),
    "exponential": ExponentialSparsitySchedule(**RAMP),
    "multistep": MultiStepSparsitySchedule(
        milestones=(25, 40, 55, 70), levels=(0.5, 0.75, 0.9, 1.0)
    ),
}


def knobs(option: str = "poly", *, is_sweep: bool = False, **typed: Any) -> Knobs:
    """Return the knobs of ``+prune=OPTION prune.KEY=VALUE ...``."""
    return Knobs({**defaults(option), **typed}, "prune", typed, is_sweep)


def said(made: Knobs) -> list[str]:
    return [str(problem) for problem in made.problems]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("option", ["own", "poly", "none"])
def test_a_schedule_is_made_whichever_option_was_chosen(option: str, schedule: str) -> None:
    # prune.schedule=linear leaves the knobs of +prune=poly standing there.
    made = knobs(schedule if option == "own" else option, schedule=schedule)
    assert (made.schedule, made.ignored, said(made)) == (MADE[schedule], [], [])
    assert made.is_dense == (schedule == "none")
    assert pickle.loads(pickle.dumps(made)).schedule == MADE[schedule]


BAD = {
    "a target": ({"target_sparsity": 1.5}, "prune.target_sparsity=1.5: should be less than or "),
    "a text": ({"power": "two"}, "prune.power=two: should be a valid number"),
    "a power": ({"power": -1}, "prune.power=-1: should be greater than 0; allowed: exponent"),
    "a schedule": ({"schedule": "polly"}, "prune.schedule=polly: should be 'none', 'constant'"),
    "a list": ({"schedule": ["poly"]}, "prune.schedule: should be 'none', 'constant', "),
    "patterns": ({"pattern": ["n_m"]}, "prune.pattern: should be 'unstructured', 'n_m', 'block'"),
    "no schedule": ({"schedule": None}, "prune.schedule=None: should be 'none', "),
    "a pattern": ({"pattern": "rows"}, "prune.pattern=rows: should be 'unstructured', 'n_m'"),
    "an interval": ({"interval": "steps"}, "prune.interval=steps: should be 'step', 'epoch' or"),
    "an allocation": ({"allocation": "erdos"}, "prune.allocation=erdos: should be 'uniform'"),
    "a criterion": ({"criterion": "magnitud"}, "no criterion is called 'magnitud'; allowed: def"),
    "regrowth": ({"allow_regrowth": "maybe"}, "prune.allow_regrowth=maybe: should be a valid bo"),
    "masks": ({"masks_from": "file"}, "prune.masks_from=file: should be 'schedule' or 'zeros'"),
    "a gate": ({"gate": 3}, "prune.gate=3: should be a valid boolean"),
    "a monitor": ({"monitor": "x"}, "prune.monitor=x: should be a valid boolean"),
    "n": ({"pattern": "n_m", "n": 5}, "m=4: n is 5, more than m; allowed: n from 1 to m"),
    "a shape": ({"pattern": "block", "block_shape": [0]}, "(0,) has a 0; allowed: sizes >= 1"),
    "layers": ({"dense": "head"}, "prune.dense=head: should be a valid list; allowed: list of lay"),
    "a layer": ({"dense": [""]}, "prune.dense=: string should have at least 1 character"),
    "an expression": ({"dense": ["("]}, "prune.dense: '(' is no regular expression"),
    "a key": ({"powr": 2}, "prune.powr: there is no such key; allowed: schedule, "),
    "a file": ({"init_from": "no.pt"}, "prune.init_from=no.pt: there is no such file; allowed: "),
    "a directory": ({"init_from": "."}, "prune.init_from=.: is a directory; allowed: file with"),
    "a ramp": ({"total_iters": 95}, "prune.total_iters=95: the ramp ends after 105 percent (it "),
    "no room": ({"schedule": "constant", "begin_step": 101}, "prune.begin_step=101: the ramp end"),
    "rounds": (
        {"schedule": "multistep", "milestones": [50, 120], "levels": [0.5, 1]},
        "prune.milestones=[50, 120]: the target is reached at milestone 120 and the training has",
    ),
    "levels": (
        {"schedule": "multistep", "levels": [0.5, 1]},
        "should have as many values as there are milestones, 4 and not 2",
    ),
}


@pytest.mark.parametrize(("typed", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_one_sentence(typed: dict[str, Any], sentence: str) -> None:
    found = said(knobs(**typed))
    assert len(found) == 1, found
    assert sentence in found[0]
    assert found[0].startswith("prune.")
    assert found[0].count("allowed: ") <= 1


def test_the_nearest_key_is_named() -> None:
    assert said(knobs(powr=2))[0].endswith("; did you mean 'power'?")


def test_all_problems_are_found_at_once() -> None:
    bad = {"power": 0, "target_sparsity": 2, "interval": "hour", "dense": 1, "x": 1, "gate": 3}
    assert sorted(problem.key for problem in knobs(**bad).problems) == sorted(
        f"prune.{key}" for key in bad
    )
    with pytest.raises(ConfigError) as refused:
        knobs(**bad).check()
    assert len(refused.value.problems) == len(bad)


LACKING = {
    "linear": (
        {"schedule": "linear", "power": 2},
        "prune.power=2: prune.schedule=linear has no 'power'; allowed: prune.total_iters, "
        "prune.begin_step, prune.initial_sparsity, prune.update_frequency; prune.schedule=poly "
        "has it",
    ),
    "none": (
        {"schedule": "none", "power": 2},
        "prune.power=2: prune.schedule=none has no 'power'; allowed: none; prune.schedule=poly "
        "has it",
    ),
    "unstructured": (
        {"n": 2},
        "prune.n=2: prune.pattern=unstructured has no 'n'; allowed: prune.target_sparsity, "
        "prune.allocation, prune.criterion, prune.allow_regrowth; prune.pattern=n_m has it",
    ),
}


@pytest.mark.parametrize(("typed", "sentence"), LACKING.values(), ids=LACKING.keys())
def test_a_typed_knob_that_the_job_lacks(typed: dict[str, Any], sentence: str) -> None:
    assert said(knobs(**typed)) == [sentence]
    of_a_sweep = knobs(is_sweep=True, **typed)
    assert said(of_a_sweep) == []
    key, value = list(typed.items())[-1]
    (ignored,) = of_a_sweep.ignored
    assert ignored.startswith(f"prune.{key}={value} does not count with prune.")


def test_a_knob_in_a_file_that_the_job_lacks_does_not_count() -> None:
    made = Knobs({**defaults("linear"), "power": 2, "n": 1}, "prune")
    assert (said(made), made.ignored) == ([], [])
    assert made.schedule == MADE["linear"]


def test_a_ramp_in_other_units_is_not_measured_yet() -> None:
    assert said(knobs(interval="epoch", begin_step=0, total_iters=1000)) == []


def test_layers_are_left_dense_by_name_and_by_type() -> None:
    config = knobs(dense=["head", r"blocks\.0", "torch.nn.Conv2d"]).config()
    import torch

    assert config.module_name_configs == {"head": None, r"blocks\.0": None}
    assert config.module_type_configs == {torch.nn.Conv2d: None}


def test_n_and_m_make_the_target() -> None:
    assert knobs().summary == "prune: schedule=poly target_sparsity=0.9 pattern=unstructured"
    told = knobs(pattern="n_m", n=1).summary
    assert told.endswith("pattern=n_m, whose n and m make the target 0.75")
    assert "make" not in knobs(pattern="n_m", n=1, target_sparsity=0.75).summary
    assert knobs("none").summary == "prune.schedule=none, the dense control"


FIXED = {
    "another knob": (["power"], {"power": -1, "gate": 3}, ["prune.gate"]),
    "the ramp": (["begin_step"], {"total_iters": 95}, []),
    "its length": (["total_iters"], {"total_iters": 0}, []),
    "the interval": (["interval"], {"total_iters": 95}, []),
    "n of m": (["n"], {"pattern": "n_m", "m": 1}, []),
    "nothing near": (["target_sparsity"], {"total_iters": 95}, ["prune.total_iters"]),
    "the schedule": (["schedule"], {"power": -1}, ["prune.power"]),
}


@pytest.mark.parametrize(("swept", "typed", "keys"), FIXED.values(), ids=FIXED.keys())
def test_what_a_sweep_cannot_mend(swept: list[str], typed: dict[str, Any], keys: list[str]) -> None:
    made = knobs(is_sweep=True, **typed)
    assert [problem.key for problem in made.fixed_problems(swept)] == keys


def test_a_file_is_looked_for_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dense.pt").write_bytes(b"x")
    assert said(knobs(init_from="dense.pt")) == []
