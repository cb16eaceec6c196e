"""Points of command lines: what counts, what is dropped, what is refused, what they are called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.identity import config_hash
from coreai_opt.sweep.plan import Plan

Planning = Callable[..., Plan]

WEIGHT = "pruning.global_config.op_state_spec.weight"

POINTS: dict[tuple[str, ...], list[str]] = {
    ("power=1,2", "seed=3"): ["power=1 seed=3", "power=2 seed=3"],
    ("power=1,2", "total_iters=200,400"): [
        "power=1 total_iters=200",
        "power=1 total_iters=400",
        "power=2 total_iters=200",
        "power=2 total_iters=400",
    ],
    ("schedule=poly,constant", "power=1,2"): [
        "schedule=poly power=1",
        "schedule=poly power=2",
        "schedule=constant",
    ],
    ("schedule=poly,exponential", "rate=0.1"): ["schedule=poly", "schedule=exponential rate=0.1"],
    ("schedule=poly,none", "target_sparsity=0.5,0.9"): [
        "schedule=poly target_sparsity=0.5",
        "schedule=poly target_sparsity=0.9",
        "schedule=none target_sparsity=0.5",
    ],
    ("schedule=poly,cubic", "power=3"): ["schedule=poly power=3"],
    ("power=2,2.0,1e0", "seed=range(1,3)"): [
        "power=2 seed=1",
        "power=2 seed=2",
        "power=1.0 seed=1",
        "power=1.0 seed=2",
    ],
    ("power=1,2", "total_iters=200,400", "seed=1,2", "sweep.zip=[power,total_iters]"): [
        "power=1 total_iters=200 seed=1",
        "power=1 total_iters=200 seed=2",
        "power=2 total_iters=400 seed=1",
        "power=2 total_iters=400 seed=2",
    ],
    (
        "schedule=poly,constant",
        "power=2,3",
        "seed=1,2",
        "target_sparsity=0.5,0.9",
        "sweep.zip=[[schedule,power],[seed,target_sparsity]]",
    ): [
        "schedule=poly power=2 seed=1 target_sparsity=0.5",
        "schedule=poly power=2 seed=2 target_sparsity=0.9",
        "schedule=constant seed=1 target_sparsity=0.5",
        "schedule=constant seed=2 target_sparsity=0.9",
    ],
    ("power=1", "power=2,3"): ["power=2", "power=3"],
    ("+trainer.fast_dev_run=true", "power=1,2"): [
        "+trainer.fast_dev_run=true power=1",
        "+trainer.fast_dev_run=true power=2",
    ],
    ("experiment=quick,high_sparsity", "model.hidden=[30]"): [
        "experiment=quick model.hidden=[30]",
        "experiment=high_sparsity",
    ],
    ("seed=1,2", "sweep_name=mine", "sweep.retry=none", "preview=false", "hydra.job.num=3"): [
        "seed=1",
        "seed=2",
    ],
    ("schedule=glob(c*)", "seed=1"): [
        "schedule=constant seed=1",
        "schedule=cosine seed=1",
        "schedule=cubic seed=1",
    ],
    ("+x={a: 1},{a: 2}", "+x={b: 10},{b: 20}"): [
        "+x={a:1} +x={b:10}",
        "+x={a:1} +x={b:20}",
        "+x={a:2} +x={b:10}",
        "+x={a:2} +x={b:20}",
    ],
    ("model=mlp", "model={hidden: [5]},{hidden: [6]}"): [
        "model=mlp model={hidden:[5]}",
        "model=mlp model={hidden:[6]}",
    ],
    ("~logger.csv", "+logger.csv={a: 1}", "power=1,2"): [
        "~logger.csv +logger.csv={a: 1} power=1",
        "~logger.csv +logger.csv={a: 1} power=2",
    ],
    ("optimizer.lr=0.1,-1",): ["optimizer.lr=0.1", "optimizer.lr=-1"],
}


@pytest.mark.parametrize(("typed", "points"), POINTS.items(), ids=lambda value: " ".join(value))
def test_the_points_of_a_command(plan: Planning, typed: tuple[str, ...], points: list[str]) -> None:
    assert [" ".join(point.overrides) for point in plan(*typed).points] == points


def test_each_point_has_the_config_that_its_run_will_have(
    plan: Planning, compose_config: Any
) -> None:
    from omegaconf import OmegaConf

    made = plan("schedule=poly,constant", "power=1,2", "optimizer=adamw", "model=convnet")
    for point in made.points:
        config: Any = OmegaConf.to_container(compose_config(*point.overrides), resolve=True)
        assert point.config_hash == config_hash(config)


def test_what_is_dropped_and_double_is_said(plan: Planning) -> None:
    made = plan("schedule=poly,constant,linear", "power=1,2", "seed=1,2")
    assert made.sentences == [
        "power does not count with schedule=constant, schedule=linear",
        "6 points are the same as another one and not run twice",
    ]
    assert len(made.points) == 6
    assert plan("power=1,2").sentences == []


GIVEN_TWICE: dict[tuple[str, ...], list[str]] = {
    ("seed=1,2", "seed=3"): ["seed=1,2 does not count: seed=3 is given after it"],
    ("seed=1,2", "++seed=3,4"): ["seed=1,2 does not count: ++seed=3,4 is given after it"],
    ("seed=1,2", "seed=1,2"): [],
    ("model.hidden=[5],[6]", "model.hidden=[7]"): [
        "model.hidden=[5],[6] does not count: model.hidden=[7] is given after it"
    ],
    ("power=1", "schedule.power=2,3"): [
        "power does not count in schedule.power, which is given itself: schedule.power=2"
    ],
    ("power=1,2", "schedule.power=3"): [
        "power does not count in schedule.power, which is given itself: schedule.power=3",
        "1 point is the same as another one and not run twice",
    ],
    ("power=2,3", "schedule={power: 4}"): [
        "power does not count in schedule.power, which is given itself: schedule={power: 4}",
        "1 point is the same as another one and not run twice",
    ],
    ("power=2", "seed=1,2", "schedule={begin_step: 1},{power: 4}"): [
        "power does not count in schedule.power, which is given itself: schedule={power:4}",
    ],
    ("sweep_name=a", "sweep_name=b", "seed=1,2"): [
        "sweep_name=a does not count: sweep_name=b is given after it"
    ],
    ("seed=1,2", "hydra.sweep.subdir=run_${hydra.job.num}"): [
        "hydra.sweep.subdir=run_${hydra.job.num} does not count: a sweep names the folder of a run "
        "by what varies, and finds it again by that"
    ],
}


@pytest.mark.parametrize(("typed", "said"), GIVEN_TWICE.items(), ids=str)
def test_what_does_not_count_is_said(
    plan: Planning, typed: tuple[str, ...], said: list[str]
) -> None:
    assert plan(*typed).sentences == said


DIRECTORIES = {
    "out/${hydra.job.name}": "out/app",
    "${paths.sweep_root}/mine": "multirun/mine",
    "out/${power}": "out/7",
    "out/${sweep_name}/a": "out/seed-7d9ce5/a",
}


@pytest.mark.parametrize(("typed", "place"), DIRECTORIES.items())
def test_a_directory_of_ones_own_may_refer_to_the_config(
    plan: Planning, typed: str, place: str
) -> None:
    numbered = "hydra.sweep.subdir=run_${hydra.job.num}"
    made = plan("seed=1,2", "power=7", f"hydra.sweep.dir={typed}", numbered)
    assert made.root == Path(place).absolute()


REFUSED: dict[tuple[str, ...], list[str]] = {
    ("schedule=constant,none", "power=1,2"): [
        "power=1: schedule=constant has no 'power'; allowed: begin_step; schedule=poly has it"
    ],
    ("powr=1,2", "sede=3"): ["powr=1: there is no key 'powr'", "sede=3: there is no key 'sede'"],
    ("power=1,-1,-2"): [
        "power=-1: should be greater than 0",
        "power=-2: should be greater than 0",
    ],
    ("power=1,abc",): ["power=abc: should be a valid number"],
    ("optimizer.lr=-2,-1",): ["optimizer.lr=-2: should", "optimizer.lr=-1: should"],
    ("schedule=poly,plo",): ["schedule=plo: there is no such option"],
    ("seed=-1", "power=1,2"): ["seed=-1: should be"],
    ("schedule=multistep", "levels=[0.5,1.0]", "milestones=[1,2],[2,1]"): ["milestones: [2, 1]"],
    ("total_iters=1000", "trainer.max_epochs=20,10"): ["total_iters=1000: the ramp ends"],
    ("power=1,2", "total_iters=1,2,3", "sweep.zip=[power,total_iters]"): [
        "sweep.zip=[power,total_iters]: power has 2 values, total_iters has 3 values; allowed: "
        "lists of one length"
    ],
    ("power=1,2", "seed=1", "sweep.zip=[power,seed]"): [
        "sweep.zip=[power,seed]: seed is not varied; allowed: power"
    ],
    ("power=1,2", "seed=1,2", "sweep.zip=[[power,seed],[seed,power]]"): [
        "sweep.zip: power is there twice; allowed: once"
    ],
    ("power=1,2", "sweep.zip=power"): ["sweep.zip=power: should be a valid list"],
    ("power=1,2", "sweep.zip=[3]"): ["sweep.zip: is neither names nor lists of names"],
    ("power=1,2", "sweep.retry=some"): ["sweep.retry=some: should be 'all', 'failed' or 'none'"],
    ("power=1,2", "sweep.on_code_change=no"): ["sweep.on_code_change=no: should be"],
    ("power=1,2", "sweep.fail_fast=3"): ["sweep.fail_fast=3"],
    ("power=1", "sweep_name=a,b", "sweep.retry=none,all"): [
        "sweep_name=a,b: the sweep's own, not its runs'; allowed: one value",
        "sweep.retry=none,all: the sweep's own, not its runs'; allowed: one value",
    ],
    ("power=interval(1,4)",): ["power=interval(1,4): a grid needs a list of values"],
    ("power=1,2", "sweep.foo=3"): ["sweep.foo=3: there is no key 'sweep.foo'"],
    ("power=1,2", "sweep_name=''"): ["sweep_name=: string should have at least 1"],
    ("power=1,2", "sweep_name=/.."): ["sweep_name=/..: names no directory"],
    ("+x={a: 1},{a: 2}", "+x={b: 1},{b: 2}", "seed=1,2", "sweep.zip=[+x,seed]"): [
        "sweep.zip: +x is given twice; allowed: once"
    ],
    ("seed=1,2", "+hydra.sweeper.n_trials=3"): [
        "hydra.sweeper.n_trials: the grid has no such key; allowed: hydra.sweeper.params, or a"
        " search: hydra/sweeper=optuna, typed or in a primary config (an experiment file cannot"
    ],
    ("seed=1,2", "hydra.sweep.dir=out/${nope}"): [
        "hydra.sweep.dir=out/${nope}: Interpolation key 'nope' not found"
    ],
    ("optimizer={lr: 0.1},{nope: 3}",): ["optimizer={nope:3}: Key 'nope' not in"],
    (f"{WEIGHT}.pruning_scheme={{type: n_m, n: 2}},{{type: n_m, n: 3}}",): [
        f"{WEIGHT}.pruning_scheme={{type:n_m,n:3}}: Key 'n' is not in struct; allowed: ++{WEIGHT}."
    ],
    ("seed=range(0,1000)", "split=range(0,1000)"): ["1000000 points; allowed: at most 20000"],
    ("init_from=???", "power=1,2"): ["init_from is not given; give init_from=VALUE"],
}


@pytest.mark.parametrize(("typed", "said"), REFUSED.items(), ids=str)
def test_what_is_wrong_is_said_all_at_once(plan: Planning, typed: Any, said: list[str]) -> None:
    typed = (typed,) if isinstance(typed, str) else typed
    with pytest.raises(ConfigError) as caught:
        plan(*typed)
    sentences = [str(problem) for problem in caught.value.problems]
    assert len(sentences) == len(said), sentences
    for sentence, start in zip(sentences, said, strict=True):
        assert sentence.startswith(start)


SAME_NAME = [
    (["power=1,2"], ["power=1,2,3"]),
    (["power=1,2"], ["power=range(5,7)"]),
    (["power=1,2", "total_iters=200,400"], ["total_iters=100,400", "power=3,1"]),
    (["schedule=poly,linear", "power=2"], ["schedule=constant,poly", "power=2"]),
    (["schedule=poly,exponential", "rate=0.1"], ["schedule=exponential,linear", "rate=1e-1"]),
    (["power=1,2"], ["power=1,2", "logger=tensorboard", "sweep.retry=all", "warmup=off"]),
    (["power=1,2"], ["power=1,2", "paths.sweep_root=multirun"]),
]


@pytest.mark.parametrize(("one", "other"), SAME_NAME, ids=str)
def test_more_points_meet_in_one_directory(
    plan: Planning, one: list[str], other: list[str]
) -> None:
    assert plan(*one).name == plan(*other).name


OTHER_NAME = [
    ["power=1,2", "model=convnet"],
    ["power=1,2", "seed=2"],
    ["power=1,2", "seed=1,2"],
    ["power=1,2", "total_iters=200"],
    ["target_sparsity=0.5,0.9"],
]


@pytest.mark.parametrize("other", OTHER_NAME, ids=str)
def test_another_experiment_has_another_name(plan: Planning, other: list[str]) -> None:
    assert plan("power=1,2").name != plan(*other).name


def test_the_directory_of_a_sweep(
    plan: Planning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan("power=1,2").root == tmp_path / "multirun" / plan("power=1,2").name
    assert plan("power=1,2", "sweep_name='my sweep/1'").root == tmp_path / "multirun/my-sweep-1"
    assert plan("power=1,2", "sweep_name=3").name == "3"
    assert plan("power=1", "paths.sweep_root=/a/b", "sweep_name=c").root == Path("/a/b/c")
    assert plan("power=1,2", "hydra.sweep.dir='a b=c'").root == tmp_path / "a b=c"
    assert plan("power=1,2", "++hydra.sweep.dir=there").root == tmp_path / "there"
    named = plan("power=1,2", "hydra.sweep.dir='x/${sweep_name}'")
    assert named.root == tmp_path / "x" / named.name


def test_a_point_that_is_known_to_be_bad_can_be_named_alone(plan: Planning) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1: should be greater"):
        plan("optimizer.lr=-1")
    assert len(plan("optimizer.lr=-1", "sweep_name=optimizer.lr-9ae035").points) == 1
