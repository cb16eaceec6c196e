"""The callback with what is written for the documented API: schedules, names, checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coreai_opt.pruning import count_sparsity
from lightning_callbacks import ScheduledPruning
from tests.helpers.lightning import SaveAt, TinyModule, loader, make_trainer, zeros


class Late:
    """Two parameters, dense for four steps and at the target after twelve."""

    begin_step = 4

    def compute_sparsity(self, step_count: int, target_sparsity: float) -> float:
        return target_sparsity * min(max(step_count - 4, 0), 8) / 8


def train(root: Path, *callbacks: Any, seed: int = 0, **given: Any) -> TinyModule:
    torch.manual_seed(seed)
    module, pruning = TinyModule(), ScheduledPruning(Late(), target_sparsity=0.5)
    assert pruning.dense_until == 4
    make_trainer(root, pruning, *callbacks).fit(module, loader(8), **given)
    return module


def test_a_schedule_with_two_parameters_trains_and_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "cut.ckpt"
    whole = train(tmp_path, SaveAt(path, 7, "batch"))
    assert zeros(whole.first.weight) == 0.5
    resumed = train(tmp_path, seed=1, ckpt_path=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert count_sparsity(whole).regrown == count_sparsity(resumed).regrown


class Functional(TinyModule):
    def __init__(self) -> None:
        super().__init__()
        self.conv_weight = nn.Parameter(torch.rand(8, 8))
        self.example_input_array = torch.rand(2, 8)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.linear(features, self.conv_weight))


@pytest.mark.parametrize("follow_calls", [True, False])
def test_specs_name_the_parameters_of_functional_calls(tmp_path: Path, follow_calls: bool) -> None:
    specs = {"op_state_spec": {"conv_weight": {"target_sparsity": 0.75}}}
    config = {"global_config": None, "module_name_configs": {"": specs}}
    pruning = ScheduledPruning(config=config, follow_calls=follow_calls)
    module, trainer = Functional(), make_trainer(tmp_path, pruning, max_steps=2)
    if follow_calls:
        trainer.fit(module, loader(2))
        assert [zeros(module.conv_weight), zeros(module.first.weight)] == [0.75, 0.0]
        return
    with pytest.raises(ValueError, match=r"'conv_weight' is no parameter .*follow_calls=True"):
        trainer.fit(module, loader(2))
