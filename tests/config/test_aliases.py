"""A knob at the root beside the key of the node that takes its value from it."""

import pytest
from hydra import initialize_config_dir

from coreai_opt.config import aliases
from coreai_opt.config.aliases import shadowed_knobs
from coreai_opt.config.locations import conf_dir
from coreai_opt.config.schemas.nodes import register_nodes

WEIGHT = "pruning.global_config.op_state_spec.weight"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["power=1", "schedule.power=2"],
            ["power does not count in schedule.power, which is given itself: schedule.power=2"],
        ),
        (
            ["criterion=random", f"{WEIGHT}.pruning_algo=taylor"],
            [
                f"criterion does not count in {WEIGHT}.pruning_algo, "
                f"which is given itself: {WEIGHT}.pruning_algo=taylor"
            ],
        ),
        (
            ["power=1", "schedule=poly", "schedule={power: 4}"],
            ["power does not count in schedule.power, which is given itself: schedule={power: 4}"],
        ),
        (
            ["criterion=random", f"{WEIGHT}={{pruning_algo: taylor}}"],
            [
                f"criterion does not count in {WEIGHT}.pruning_algo, "
                f"which is given itself: {WEIGHT}={{pruning_algo: taylor}}"
            ],
        ),
        (["interval=epoch", "+trainer.interval=3"], []),
        (["power=1", "seed=2"], []),
        (["schedule.power=1", "trainer.max_epochs=2"], []),
    ],
    ids=str,
)
def test_what_does_not_count_is_said(overrides: list[str], said: list[str]) -> None:
    register_nodes()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert shadowed_knobs(overrides, "config") == said


def test_nothing_is_composed_where_no_two_overrides_can_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aliases, "compose", None)
    usual = ["experiment=quick", "trainer.max_epochs=1", "total_iters=20", "seed=2"]
    assert shadowed_knobs(usual, "config") == []
