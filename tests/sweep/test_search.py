"""``hydra/sweeper=optuna`` with stubs for runs: what is asked, run and told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

pytest.importorskip("optuna", reason="needs the extra optuna")


from tests.helpers.searching import Stub, make_quick, planned, search, states, study_in, target_of

POWER = "power=interval(1,4)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def test_a_search_makes_its_trials_and_finds_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, stub = search(tmp_path, POWER, "hydra.sweeper.n_trials=6")
    study = study_in(run)
    powers = [trial.params["power"] for trial in study.trials]
    assert all(1 <= power <= 4 for power in powers)
    assert study.best_value == pytest.approx(max(1 - abs(power - 2) / 10 for power in powers))
    assert [len(launch) for launch in stub.launches] == [1] * 6
    assert not run.has_failed
    assert "study power-" in (out := capsys.readouterr().out)
    assert "0 trials done before, 6 to make" in out
    assert "[6/6] completed" in out
    written = OmegaConf.load(run.plan.root / "optimization_results.yaml")
    assert written.best_params.power == study.best_params["power"]
    assert (written.name, written.best_value) == ("optuna", study.best_value)


def test_trials_carry_the_run(tmp_path: Path) -> None:
    steps = "total_iters=range(200,401,100)"
    run, stub = search(tmp_path, POWER, steps, "hydra.sweeper.n_trials=2")
    entered = json.loads((run.plan.root / "sweep.json").read_text())["points"]
    for trial, folder in zip(study_in(run).trials, stub.folders, strict=True):
        record = json.loads((run.plan.root / folder / "result.json").read_text())
        told = {key: trial.user_attrs[key] for key in ("run_id", "run_folder", "config_hash")}
        assert told == {
            "run_id": record["run_id"],
            "run_folder": folder,
            "config_hash": record["config_hash"],
        }
        assert entered[record["config_hash"]]["folder"] == folder
        assert folder.startswith(f"power-{trial.params['power']:.4g}_total_iters-")
        assert record["config"]["schedule"]["power"] == trial.params["power"]
        assert record["config"]["schedule"]["total_iters"] == trial.params["total_iters"]


def test_the_same_seed_gives_the_same_points(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    runs = [search(root, POWER, "hydra.sweeper.n_trials=3")[0] for root in roots]
    one, other = ([trial.params for trial in study_in(run).trials] for run in runs)
    assert one == other


def test_an_experiment_is_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, stub = search(tmp_path, "power=choice(1,2)", "hydra.sweeper.n_trials=6")
    assert sorted(folder[:7] for folder in stub.folders) == ["power-1", "power-2"]
    assert states(run) == ["COMPLETE"] * 6
    values = {trial.params["power"]: trial.value for trial in study_in(run).trials}
    assert values == {1: pytest.approx(0.9), 2: pytest.approx(1.0)}
    assert capsys.readouterr().out.count("run before)") == 4


def test_an_experiment_that_fails_is_run_once_in_a_command(tmp_path: Path) -> None:
    def value(config: Mapping[str, Any]) -> float:
        raise RuntimeError("diverged")

    command = ("power=choice(2)", "hydra.sweeper.n_trials=3")
    run, stub = search(tmp_path, *command, stub=Stub(value))
    assert states(run) == ["FAIL"] * 3
    assert len(stub.folders) == 1


def test_a_point_that_is_twice_in_a_batch_is_launched_once(tmp_path: Path) -> None:
    run, stub = search(
        tmp_path, "power=choice(2)", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3"
    )
    assert [len(launch) for launch in stub.launches] == [1]
    assert states(run) == ["COMPLETE"] * 3


def test_n_jobs_trials_are_launched_together(tmp_path: Path) -> None:
    _, stub = search(tmp_path, POWER, "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2")
    assert [len(launch) for launch in stub.launches] == [2, 2, 1]


def test_knobs_that_an_option_lacks_do_not_count(tmp_path: Path) -> None:
    choice = "schedule=choice(poly,constant)"
    run, stub = search(tmp_path, choice, POWER, "initial_sparsity=0", "hydra.sweeper.n_trials=5")
    assert states(run) == ["COMPLETE"] * 5
    chosen = [trial.params["schedule"] for trial in study_in(run).trials]
    assert {"poly", "constant"} == set(chosen)
    # All constant schedules are one experiment, whatever the power.
    assert len(stub.folders) == chosen.count("poly") + 1


def test_a_point_that_is_refused_is_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("total_iters=choice(200,90000)", "hydra.sweeper.n_trials=4")
    run, stub = search(tmp_path, *command)
    refused = [trial for trial in study_in(run).trials if trial.state.name == "PRUNED"]
    assert 0 < len(refused) < 4
    assert all(trial.params == {"total_iters": 90000} for trial in refused)
    assert refused[0].user_attrs["error"].startswith("total_iters=90000: the ramp ends")
    assert len(stub.folders) == 1
    assert "is refused: total_iters=90000: the ramp ends" in capsys.readouterr().out
    again, stub = search(tmp_path, *command)
    assert stub.folders == []
    assert len(states(again)) == 4


def test_two_objectives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def trade_off(config: Mapping[str, Any]) -> float:
        return 1 - target_of(config) ** 4

    command = ("target_sparsity=choice(0.5,0.8,0.9)", "power=choice(1,2)")
    pareto = ("hydra/sweeper=optuna_pareto", *command, "hydra.sweeper.n_trials=12")
    run, stub = search(tmp_path, *pareto, stub=Stub(trade_off))
    study = study_in(run, f"{run.plan.name}-val-accuracy-sparsity")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"] * 2
    assert all(trial.values[1] == trial.params["target_sparsity"] for trial in study.trials)
    written = OmegaConf.load(run.plan.root / "optimization_results.yaml")
    assert {tuple(one["values"]) for one in written.solutions} == {
        tuple(trial.values) for trial in study.best_trials
    }
    assert "trials that no other one beats" in capsys.readouterr().out

    # The same knobs with one objective: another study in the same directory, of the same runs.
    single, second = search(tmp_path, *command, "hydra.sweeper.n_trials=12", stub=Stub(trade_off))
    assert single.plan.root == run.plan.root
    assert not set(second.folders) & set(stub.folders)
    assert len(study_in(single).trials) == 12


def test_any_number_of_the_record_is_an_objective(tmp_path: Path) -> None:
    given = ("hydra.sweeper.objectives=[test/accuracy,parameters.nonzero]",)
    ways = "hydra.sweeper.direction=[maximize,minimize]"
    run, _ = search(tmp_path, POWER, *given, ways, "hydra.sweeper.n_trials=1")
    study = study_in(run, f"{run.plan.name}-test-accuracy-parameters.nonzero")
    assert study.trials[0].values == [0.5, 100]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_the_direction_follows_the_objective(tmp_path: Path) -> None:
    objective = ("objective.name=val/loss", "objective.mode=min")
    with planned(tmp_path, POWER, *objective) as run:
        assert run._settings.direction == ["minimize"]
        assert run._settings.objectives == ["val/loss"]


def test_the_space_may_stand_in_the_config(tmp_path: Path) -> None:
    params = "hydra.sweeper.params={power:'interval(1,4)',total_iters:'range(200,401,100)'}"
    run, _ = search(tmp_path, params, "hydra.sweeper.n_trials=1", "total_iters=300")
    assert run.plan.knobs == ("power",)  # what is typed counts
    [trial] = study_in(run).trials
    assert list(trial.params) == ["power"]


def suggest_more(config: Any, trial: Any) -> None:
    trial.suggest_int("begin_step", 0, 10 * int(trial.params["power"]))


def test_a_function_may_suggest_more(tmp_path: Path) -> None:
    own = f"hydra.sweeper.custom_search_space={__name__}.suggest_more"
    run, stub = search(tmp_path, POWER, own, "hydra.sweeper.n_trials=2")
    for trial, folder in zip(study_in(run).trials, stub.folders, strict=True):
        record = json.loads((run.plan.root / folder / "result.json").read_text())
        assert record["config"]["schedule"]["begin_step"] == trial.params["begin_step"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "cmaes"])
def test_samplers(tmp_path: Path, sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes", reason="needs the package cmaes")
    command = (POWER, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.storage=null")
    run, _ = search(tmp_path, *command, "hydra.sweeper.n_trials=3")
    assert not run.has_failed
    assert not (run.plan.root / "study.db").exists()
