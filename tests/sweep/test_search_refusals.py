"""What a search reads, and what it refuses before the first run."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="needs the extra optuna")

from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from coreai_opt.config.errors import ConfigError
from coreai_opt.sweep.search.settings import SearchSettings
from coreai_opt.sweep.search.space import distribution_of
from coreai_opt.sweep.search.study import value_of
from tests.helpers.searching import Stub, make_quick, search, study_in

POWER = "power=interval(1,4)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


DISTRIBUTIONS = [
    ("k=interval(1,4)", FloatDistribution(1.0, 4.0)),
    ("k=interval(0.5,4)", FloatDistribution(0.5, 4.0)),
    ("k=int(interval(1,4))", IntDistribution(1, 4)),
    ("k=tag(log,interval(0.001,1))", FloatDistribution(0.001, 1.0, log=True)),
    ("k=tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
    ("k=range(1,4)", IntDistribution(1, 4)),
    ("k=range(200,401,100)", IntDistribution(200, 400, step=100)),
    ("k=range(0.5,2,0.5)", FloatDistribution(0.5, 2.0, step=0.5)),
    ("k=range(1,3,0.5)", FloatDistribution(1.0, 3.0, step=0.5)),
    ("k=1,2", CategoricalDistribution([1, 2])),
    ("k=choice(a,b)", CategoricalDistribution(["a", "b"])),
    ("k=1.5,true,null", CategoricalDistribution([1.5, True, "null"])),
    ("k=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
    ("k=shuffle(choice(c,a,b))", CategoricalDistribution(["c", "a", "b"])),
    ("k=shuffle(range(1,4))", CategoricalDistribution([1, 2, 3])),
]


@pytest.mark.parametrize(("text", "expected"), DISTRIBUTIONS, ids=[row[0] for row in DISTRIBUTIONS])
def test_a_sweep_is_read_as_hydras_own_optuna_sweeper_reads_it(text: str, expected: Any) -> None:
    [override] = OverridesParser.create().parse_overrides([text])
    assert distribution_of(override) == expected


def test_what_optuna_cannot_choose_from_is_a_sentence() -> None:
    [override] = OverridesParser.create().parse_overrides(["k=tag(log,interval(0,1))"])
    with pytest.raises(ConfigError, match=r"^k=tag\(log,interval\(0,1\)\): .*low.*; allowed: "):
        distribution_of(override)


RECORD = {
    "objective": {"name": "val/loss", "value": 2},
    "metrics": {"val/accuracy": 0.25, "bad": None, "flag": True, "huge": math.inf},
    "sparsity": {"achieved": 0.5, "target": 0.75},
}

VALUES = [
    ("val/loss", 2.0),
    ("val/accuracy", 0.25),
    ("sparsity", 0.5),
    ("sparsity.target", 0.75),
    ("bad", None),
    ("flag", None),
    ("huge", None),
    ("metrics", None),
    ("sparsity.target.more", None),
    ("nothing", None),
]


@pytest.mark.parametrize(("name", "value"), VALUES, ids=[row[0] for row in VALUES])
def test_objectives_are_looked_up_in_the_record(name: str, value: float | None) -> None:
    assert value_of(RECORD, name) == value
    assert value_of({}, name) is None


REFUSED = [
    ([], "hydra/sweeper=optuna: nothing varies; allowed: KNOB=interval"),
    ([POWER, "sweep.zip=[power,total_iters]"], "sweep.zip: a search pairs no lists"),
    ([POWER, "seed=-1"], "seed=-1: should be"),
    ([POWER, "seeed=1"], "seeed"),
    (["powr=interval(1,4)"], "powr"),
    (["power=interval(4,1)"], r"power=interval(4,1): "),
    ([POWER, "hydra.sweeper.storage=postgres"], "hydra.sweeper.storage=postgres: "),
    ([POWER, "+hydra.sweeper.sampler.seeed=1"], "hydra.sweeper.sampler"),
    (
        [POWER, "hydra.sweeper.sampler._target_=optuna.study.Study"],
        "hydra.sweeper.sampler=optuna.study.Study: ",
    ),
    ([POWER, "hydra.sweeper.custom_search_space=no.thing"], "hydra.sweeper.custom_search_space=no"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_is_wrong_is_said_before_the_first_run(
    tmp_path: Path, overrides: list[str], said: str
) -> None:
    stub = Stub()
    with pytest.raises(ConfigError) as caught:
        search(tmp_path, *overrides, stub=stub)
    assert str(caught.value).startswith(said)
    assert len(caught.value.problems) == 1
    assert stub.launches == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n_trials": 0}, "hydra.sweeper.n_trials=0: should be greater than or equal to 1"),
    ({"direction": "up"}, "hydra.sweeper.direction.0=up: should be 'maximize' or 'minimize'"),
    ({"trials": 3}, "hydra.sweeper.trials: there is no such key; allowed: n_trials, "),
    ({"max_failure_rate": 2}, "hydra.sweeper.max_failure_rate=2: should be less"),
    (
        {"objectives": ["val/loss", "sparsity"]},
        "hydra.sweeper.direction: 1 for 2 objectives; allowed: one for each",
    ),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=[next(iter(row[0])) for row in WRONG])
def test_settings_that_are_wrong_are_sentences(given: dict[str, Any], said: str) -> None:
    right = {"objectives": "val/loss", "direction": "min", "sampler": {}, "_target_": "x"}
    assert SearchSettings.of(right).direction == ["minimize"]
    with pytest.raises(ConfigError) as caught:
        SearchSettings.of({**right, **given})
    assert str(caught.value).startswith(said)


def test_a_study_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    few = "hydra.sweeper.n_trials=1"
    search(tmp_path, "power=choice(1,2)", few)
    with pytest.raises(ConfigError, match=r"power: .* from choice\(1,2\), and now it is choice"):
        search(tmp_path, "power=choice(1,2,3)", "hydra.sweeper.n_trials=2")
    with pytest.raises(ConfigError, match="is to maximize val/accuracy, not minimize val/accuracy"):
        search(tmp_path, "power=choice(1,2)", "hydra.sweeper.direction=min")
    run, _ = search(tmp_path, "power=choice(1,2,3)", few, "hydra.sweeper.study_name=wider")
    assert len(study_in(run, "wider").trials) == 1
