"""Searches of apps that know nothing of us: by what their task returns."""

from pathlib import Path

import pytest
import yaml

from tests.helpers.any_sweeps import AnyApp, copied, written

SEARCH = "hydra/sweeper=coreai_optuna"

SEVERAL = """
import hydra

@hydra.main(config_path=None, config_name=None, version_base=None)
def main(cfg):
    if cfg.x > 8:
        raise ValueError("too large")
    return cfg.x, -cfg.x

main()
"""


@pytest.fixture
def plain(tmp_path: Path) -> AnyApp:
    pytest.importorskip("optuna")
    return copied("plain", tmp_path)


@pytest.mark.slow
def test_a_search_minimizes_what_the_task_returns_and_goes_on(plain: AnyApp) -> None:
    typed = ["x=interval(0,6)", "y=choice(1,2)", "hydra.sweeper.n_trials=6"]
    shown = plain.sweep(*typed, "hydra.sweeper.preview=true", sweeper=SEARCH)
    assert (shown.code, shown.called) == (0, []), shown.err
    assert "preview, nothing is run: a search by hydra/sweeper=coreai_optuna" in shown.out
    assert "how long a run takes is unknown: no earlier record tells" in shown.out
    assert not plain.runs
    said = plain.sweep(*typed, "hydra/sweeper/sampler=random", sweeper=SEARCH)
    assert said.code == 0, said.err
    assert len(said.called) == 6
    (folder,) = {run.parent for run in plain.runs.values()}
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    values = [one["objective"]["value"] for one in plain.records.values()]
    assert {one["objective"]["mode"] for one in plain.records.values()} == {"min"}
    assert best["best_value"] == pytest.approx(min(values))
    more = plain.sweep(*typed[:2], "hydra.sweeper.n_trials=8", sweeper=SEARCH)
    assert "6 trials done before, 2 to make" in more.out
    assert len(more.called) == 2
    shown = plain.sweep(*typed, "hydra.sweeper.preview=true", sweeper=SEARCH)
    assert "a run takes about 0 s, by 8 earlier records of this app; 6 one after" in shown.out


@pytest.mark.slow
def test_several_returned_values_are_several_objectives(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "app.py").write_text(SEVERAL)
    app = AnyApp(tmp_path, ("app.py",))
    directions = "hydra.sweeper.direction=[minimize,minimize]"
    said = app.sweep("+x=range(1,12)", "hydra.sweeper.n_trials=5", directions, sweeper=SEARCH)
    failed = sum(one["status"] == "failed" for one in app.records.values())
    assert said.code == (2 if failed else 0), said.err
    assert "python app.py -m hydra/sweeper=grid hydra.sweeper.name=" in said.out or not failed
    done = [one["objective"]["values"] for one in app.records.values() if one["objective"]]
    # No one of them beats another one in both.
    (folder,) = {run.parent for run in app.runs.values()}
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert len(best["solutions"]) == len(done)


@pytest.mark.slow
def test_a_search_by_a_metric_tries_failed_points_again(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    program = SEVERAL.replace("return cfg.x, -cfg.x", "record(half=cfg.x / 2, note='text')")
    program = program.replace("import hydra", "import hydra\nfrom coreai_opt.runs import record")
    app = written(tmp_path, program)
    words = ["+x=choice(2,4,9)", "hydra.sweeper.direction=maximize", "hydra/sweeper/sampler=random"]
    words += ["hydra.sweeper.objectives=half", "hydra.sweeper.n_trials=8"]
    said = app.sweep(*words, sweeper=SEARCH)
    assert said.code == 2, said.err  # x=9 has failed
    assert {one["status"] for one in app.records.values()} == {"completed", "failed"}
    (folder,) = {run.parent for run in app.runs.values()}
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert (best["best_params"], best["best_value"]) == ({"+x": 4}, 2.0)
    (tmp_path / "app.py").write_text(program.replace("cfg.x > 8", "cfg.x > 10"))
    said = app.sweep(*words, sweeper=SEARCH)
    assert said.code == 0, said.err
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"+x": 9}


def test_a_search_of_nothing_is_named_as_it_was_chosen(plain: AnyApp) -> None:
    said = plain.sweep("x=1", sweeper=SEARCH)
    assert said.code == 1
    assert said.err.startswith(f"error: {SEARCH}: nothing varies; allowed: KNOB=interval")
    assert not plain.runs


def test_the_old_optuna_of_another_sweeper_is_told(tmp_path: Path) -> None:
    # hydra-optuna-sweeper asks for Optuna below 3.
    app = written(tmp_path, SEVERAL)
    (tmp_path / "optuna.py").write_text("")
    (tmp_path / "optuna-2.10.1.dist-info").mkdir()
    (tmp_path / "optuna-2.10.1.dist-info" / "METADATA").write_text(
        "Name: optuna\nVersion: 2.10.1\n"
    )
    said = app.sweep("+x=range(1,12)", sweeper=SEARCH)
    assert said.code == 1
    told = f"error: {SEARCH} needs the package optuna>=4 (2.10.1 is installed): pip install "
    assert said.err.startswith(told), said.err
