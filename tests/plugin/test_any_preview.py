"""Preview of sweeps of any app: nothing of the app runs, and nothing heavy is imported."""

from pathlib import Path

import pytest

from tests.helpers.any_sweeps import AnyApp, copied, written

APP = """
import atexit
import sys
import hydra

atexit.register(lambda: print("HEAVY", sorted({"torch", "pytorch_lightning"} & set(sys.modules))))

@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    print("CALLED", cfg.lr)

main()
"""
SHOW = "hydra.sweeper.preview=true"


@pytest.fixture
def app(tmp_path: Path) -> AnyApp:
    return written(tmp_path / "a", APP, conf__config="lr: 1\nseed: 0\n")


def test_states_doubles_and_times_are_shown_and_nothing_runs(tmp_path: Path) -> None:
    plain = copied("plain", tmp_path)
    shown = plain.sweep("x=1,1.0,2", "seed=1,2", SHOW)
    assert (shown.code, shown.called) == (0, []), shown.err
    assert "2 points are the same as another one and not run twice" in shown.out
    assert "how long that takes is unknown, no earlier record tells" in shown.out
    # Nothing is pruned here, and nothing is said of it.
    assert not any(word in shown.out for word in ("ramp", "target", "steps", "dense"))
    assert not (plain.folder / "multirun").exists()
    plain.sweep("x=1,-1", "seed=1,2", "hydra.sweeper.name=mine")
    shown = plain.sweep("x=1,-1,2", "seed=1,2", "hydra.sweeper.name=mine", SHOW)
    lines = [line.split("│") for line in shown.out.splitlines() if "│" in line]
    states = [[cell.strip() for cell in line][3] for line in lines]
    assert states == ["2 done", "2 failed, runs again", "2 new"]
    assert "to run: 4 of 6; about 0 s one after the other, by 2 earlier records" in shown.out


def test_the_curves_of_pruning_are_drawn_without_torch(app: AnyApp) -> None:
    grid = ["+prune=poly", "prune.schedule=none,poly", "prune.power=1,3", "seed=1,2,3"]
    shown = app.sweep(*grid, SHOW)
    assert shown.code == 0, shown.err
    assert "HEAVY []" in shown.out
    assert "CALLED" not in shown.out
    assert "prune.power does not count with prune.schedule=none" in shown.out
    assert "10 -> 70 of 100 %" in shown.out
    assert "  b prune.power=3" in shown.out
    assert "no dense control" not in shown.out
    shown = app.sweep("+prune=poly", "prune.power=1,-3", SHOW)
    assert "no dense control to compare with: prune.schedule=none is one" in shown.out
    # A wrong point fails alone.
    assert shown.code == 0
    assert "warning: a run will fail: prune.power=-3: should be greater than 0" in shown.out
    assert "dense │" not in shown.out
    assert app.sweep("+prune=poly", "prune.power=-3", "lr=1,2", SHOW).code == 1


def test_what_is_in_the_way_is_told(app: AnyApp) -> None:
    assert app.sweep("lr=1,2", "hydra.sweeper.name=one", "hydra.sweep.dir=here").code == 0
    shown = app.sweep("lr=1,2", "hydra.sweeper.name=two", "hydra.sweep.dir=here", SHOW)
    assert shown.code == 1
    assert "belongs to the sweep 'one', this one is called 'two'; allowed: " in shown.err
