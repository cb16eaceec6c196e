"""Which sweeper a command line chooses, with and without Optuna installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coreai_opt.cli.sweep_command import planned_sweep
from coreai_opt.config.errors import ConfigError
from coreai_opt.config.hydra_internals import get_args_parser
from coreai_opt.config.schemas.nodes import register_nodes
from coreai_opt.sweep.plugins import take_names
from tests.conftest import ROOT

SEARCH = ["-m", "hydra/sweeper=optuna", "power=interval(1,4)"]


def planned(monkeypatch: pytest.MonkeyPatch, work: Path, *words: str) -> Any:
    monkeypatch.chdir(work)
    # Where Hydra looks for config files: from where its main function is decorated.
    register_nodes()
    take_names()
    arguments = get_args_parser().parse_args([*words, "--config-dir", str(ROOT / "conf")])
    return planned_sweep(arguments)


def refused(monkeypatch: pytest.MonkeyPatch, work: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(monkeypatch, work, *words)
    assert list(work.iterdir()) == []
    return str(caught.value)


def test_without_optuna_a_search_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    find = importlib.util.find_spec

    def find_others(name: str, *more: Any) -> Any:
        return None if name == "optuna" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    assert refused(monkeypatch, work, *SEARCH) == (
        "hydra/sweeper=optuna needs the package optuna: pip install 'hydra-coreai-opt[optuna]'"
    )


def test_a_grid_has_no_points_for_an_interval(monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    said = refused(monkeypatch, work, "-m", "power=interval(1,4)", "total_iters=200,400")
    assert said == (
        "power=interval(1,4): a grid needs a list of values; allowed: power=1,2,3 or so, or a "
        "search: hydra/sweeper=optuna, typed or in a primary config (an experiment file cannot "
        "choose it)"
    )


def test_a_search_is_planned_without_its_points(
    monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    schedules = "schedule=choice(poly,exponential)"
    sweep = planned(monkeypatch, work, *SEARCH, schedules, "rate=3", "seed=2")
    assert sweep.plan.knobs == ("power", "schedule")
    assert sweep.plan.points == ()
    # The default schedule has no rate: Hydra would refuse to compose with it.
    assert "seed=2" in sweep.fitting
    assert "rate=3" not in sweep.fitting
    assert list(work.iterdir()) == []


def test_optuna_is_imported_by_searches_alone() -> None:
    code = "import sys, coreai_opt.app; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=180).returncode == 0
