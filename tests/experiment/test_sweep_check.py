"""What is refused before a sweep starts, and what must not be."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict, read_write

from coreai_opt.experiment.hooks import CheckConfig
from coreai_opt.experiment.nodes import register_nodes
from coreai_opt.experiment.places import conf_dir


def refused(capsys: pytest.CaptureFixture[str], fixed: list[str], swept: list[str]) -> list[str]:
    """Return the lines that the check prints, none where it lets the sweep pass."""
    register_nodes()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        # As Hydra does it: the swept values are not in the config that the hook is given.
        cfg = compose("config", fixed, return_hydra_config=True)
        with read_write(cfg), open_dict(cfg):
            cfg.hydra.job.config_name = "config"
            cfg.hydra.overrides.task = [*fixed, *swept]
        code: int | str | None = 0
        try:
            CheckConfig().on_multirun_start(cfg)
        except SystemExit as error:
            code = error.code
    lines = capsys.readouterr().err.splitlines()
    assert code == (1 if lines else 0)
    return lines


PASSING = [
    (["schedule=multistep", "levels=[0.5,1.0]"], ["milestones=[10,20],[30,40]"]),
    (["schedule=multistep"], ["milestones=[1,2],[1,3]", "levels=[0.5,1.0],[0.2,1.0]"]),
    (["total_iters=1000"], ["trainer.max_epochs=20,30"]),
    (["power=2"], []),
]


@pytest.mark.parametrize(("fixed", "swept"), PASSING, ids=str)
def test_what_is_valid_at_every_point_passes(
    capsys: pytest.CaptureFixture[str], fixed: list[str], swept: list[str]
) -> None:
    assert refused(capsys, fixed, swept) == []


REFUSED = [
    (
        ["schedule=multistep", "levels=[0.5,1.0]"],
        ["milestones=[1,2],[2,1]"],
        ["milestones: [2, 1]"],
    ),
    (["total_iters=1000"], ["trainer.max_epochs=20,10"], ["total_iters=1000: the ramp ends"]),
    (["seed=-1"], ["power=1,2"], ["seed=-1: should be"]),
    (["seed=-1"], [], ["seed=-1: should be"]),
    (["init_from=???"], ["power=1,2"], ["init_from is not given; give init_from=VALUE"]),
    ([], ["power=1,-1,-2"], ["power=-1: should be", "power=-2: should be"]),
]


@pytest.mark.parametrize(("fixed", "swept", "said"), REFUSED, ids=str)
def test_what_is_wrong_at_one_point_is_refused(
    capsys: pytest.CaptureFixture[str], fixed: list[str], swept: list[str], said: list[str]
) -> None:
    lines = refused(capsys, fixed, swept)
    assert len(lines) == len(said), lines
    for line, start in zip(lines, said, strict=True):
        assert line.startswith(f"error: {start}")
