"""Options that the plugin serves beside those of Hydra and of other plugins."""

import json
from pathlib import Path

import pytest

from coreai_opt.plugin.sweeps.served import LAUNCHERS, names_of, served
from tests.helpers.any_sweeps import AnyApp, copied, written
from tests.plugin.conftest import MakeApp

# What hydra-optuna-sweeper registers, without its old Optuna.
THEIRS = """
import hydra
from hydra.core.config_store import ConfigStore

store = ConfigStore.instance().store
store(name="optuna", group="hydra/sweeper", provider="optuna_sweeper",
      node={"_target_": "theirs.OptunaSweeper", "n_trials": 20, "defaults": [{"sampler": "tpe"}]})
store(name="tpe", group="hydra/sweeper/sampler", provider="optuna_sweeper",
      node={"_target_": "optuna.samplers.TPESampler", "seed": None})

@hydra.main(config_path=None, config_name=None, version_base=None)
def main(cfg):
    return cfg.x

main()
"""


@pytest.mark.parametrize("group", ["hydra/sweeper", "hydra/sweeper/sampler", "record", "resumable"])
def test_every_option_is_served(group: str) -> None:
    for name in names_of(group):
        node, _ = served(group, name)
        assert node._target_


@pytest.mark.slow
def test_launchers_are_ours_by_names_of_their_own(tmp_path: Path) -> None:
    app = copied("plain", tmp_path)
    pytest.importorskip("joblib")
    said = app.sweep("hydra/launcher=coreai_joblib", "hydra.launcher.n_jobs=2", "x=1,2,-1")
    assert said.code == 2, said.err
    assert said.last == "3 runs, 2 completed, 1 failed"
    wrong = app.sweep("hydra/launcher=coreai_joblib", "hydra.launcher.jobs_per_gpu=0", "x=1,2")
    assert wrong.code == 1
    assert wrong.err.startswith("error: hydra.launcher.jobs_per_gpu=0: is no such number; allowed")


@pytest.mark.slow
def test_a_launcher_of_ours_serves_hydras_own_sweeper_too(tmp_path: Path) -> None:
    app = copied("plain", tmp_path)
    pytest.importorskip("joblib")
    said = app.run("-m", "hydra/launcher=coreai_joblib", "hydra.launcher.n_jobs=2", "x=1,2")
    assert said.code == 0, said.err
    assert len(list(app.folder.glob("multirun/*/*/[01]"))) == 2
    assert app.runs == {}


COMPLETED = {
    "hydra/sweeper=": {"basic", "coreai_optuna", "coreai_optuna_pareto", "grid"},
    "hydra/sweeper/sampler=": {"cmaes", "nsgaii", "random", "tpe"},
    "hydra/launcher=coreai_j": {"coreai_joblib"},
    "hydra/launcher=coreai_s": {"coreai_slurm"},
}


@pytest.mark.parametrize("typed", COMPLETED)
def test_options_are_completed(tmp_path: Path, typed: str) -> None:
    app = copied("plain", tmp_path)
    assert completed(app, typed) >= {
        f"{typed.partition('=')[0]}={option}" for option in COMPLETED[typed]
    }


def test_settings_are_completed(tmp_path: Path) -> None:
    app = copied("plain", tmp_path)
    assert completed(app, "hydra/sweeper=grid hydra.sweeper.pre") == {"hydra.sweeper.preview="}
    trials = completed(app, "hydra/sweeper=coreai_optuna hydra.sweeper.n_t")
    assert trials == {"hydra.sweeper.n_trials="}


def completed(app: AnyApp, typed: str) -> set[str]:
    line = f"python app.py {typed}"
    said = app.run("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert (said.code, said.err) == (0, "")
    return set(said.out.split())


def test_a_launcher_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = copied("plain", tmp_path)
    program = "import sys; sys.modules['hydra_plugins.hydra_ray_launcher'] = None\n"
    text = (app.folder / "app.py").read_text()
    (app.folder / "app.py").write_text(text.replace('"""\n', f'"""\n{program}', 1))
    said = app.sweep("hydra/launcher=coreai_ray", "x=1,2")
    assert said.code == 1
    told = "hydra/launcher=coreai_ray needs the package hydra-ray-launcher: pip install "
    assert told in said.err


@pytest.mark.slow
def test_a_sweeper_named_optuna_stays_what_it_is(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    app = written(tmp_path, THEIRS)
    said = app.run("--cfg=hydra", "+x=1", "hydra/sweeper=optuna")
    assert "_target_: theirs.OptunaSweeper" in said.out
    # Ours works beside it, also with its samplers.
    ours = "hydra/sweeper=coreai_optuna"
    said = app.sweep("+x=range(1,9)", "hydra.sweeper.n_trials=3", sweeper=ours)
    assert said.code == 0, said.err


def test_an_app_that_uses_none_of_it_imports_none_of_it(app: MakeApp) -> None:
    for words in ((), ("-m", "lr=1,2")):
        said = app()(*words)
        assert said.code == 0, said.err
        for modules in said.told("MODULES"):
            ours = [one for one in modules if one.startswith(("coreai_opt", "lightning_callbacks"))]
            assert ours == []


def test_options_are_listed_where_hydra_lists_them(app: MakeApp) -> None:
    said = app()("--info=searchpath")
    assert said.code == 0, said.err
    said = app()("--hydra-help")
    assert said.code == 0
    assert "grid" in said.out
    assert all(name in said.out for name in LAUNCHERS)
    assert json.dumps(said.err) == '""'
