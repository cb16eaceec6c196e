"""What the public documentation of the API shows in its examples, with its names and arguments.

Its pages on pruning are an overview, the configs, checkpoints, a tutorial and the reference; what
needs Apple's converters is left out.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coreai_opt as opt
from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningSpec,
)
from coreai_opt.pruning.config import (
    PolynomialDecaySchedule,
)

INPUTS = (torch.rand(1, 1, 8, 8),)


class Digits(nn.Module):
    """A convolution of 72 weights and a linear layer of 1280."""

    def __init__(self, num_classes: int = 10, state_dict: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, num_classes),
        )
        if state_dict is not None:
            self.load_state_dict(state_dict)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.model(images)
        return output


def zeros(model: nn.Module) -> tuple[int, int]:
    layers: Any = [model.get_submodule("model.0"), model.get_submodule("model.4")]
    conv, linear = (int((layer.weight == 0).sum()) for layer in layers)
    return conv, linear


def pruned(config: MagnitudePrunerConfig | None) -> tuple[int, int]:
    return zeros(MagnitudePruner(Digits().eval(), config).prepare(INPUTS))


def test_one_shot_pruning() -> None:
    model = Digits().eval()
    pruner = MagnitudePruner(model, MagnitudePrunerConfig())
    prepared = pruner.prepare(INPUTS)
    assert zeros(prepared) == (36, 640)
    output = prepared(*INPUTS)
    finalized = pruner.finalize(backend=opt.ExportBackend.Torch)
    assert torch.equal(finalized.eval()(*INPUTS), output)
    assert finalized.state_dict().keys() == Digits().state_dict().keys()


def test_the_example_of_the_pruner() -> None:
    model = torch.nn.Linear(100, 50)
    pruner = MagnitudePruner(model, MagnitudePrunerConfig())
    pruner.prepare((torch.randn(1, 100),))
    pruner.finalize()
    assert int((model.weight == 0).sum()) == 2500
    assert pruned(None) == (36, 640)


GLOBAL_AND_LINEAR = """
magnitude_pruning_config:
  global_config:
    op_state_spec:
      weight:
        target_sparsity: 0.5
        pruning_scheme: { type: unstructured }
  module_type_configs:
    torch.nn.modules.linear.Linear:
      op_state_spec:
        weight:
          target_sparsity: 0.75
          pruning_scheme: { type: unstructured }
"""


def linear_at(sparsity: float) -> ModuleMagnitudePrunerConfig:
    return ModuleMagnitudePrunerConfig(
        op_state_spec={"weight": PruningSpec(target_sparsity=sparsity)}
    )


def test_more_for_linear_layers(tmp_path: Path) -> None:
    config = MagnitudePrunerConfig()
    config.set_module_type(nn.Linear, linear_at(0.75))
    assert config == MagnitudePrunerConfig().set_module_type(nn.Linear, linear_at(0.75))
    path = tmp_path / "config.yaml"
    path.write_text(GLOBAL_AND_LINEAR)
    for known in (config, MagnitudePrunerConfig.from_yaml(str(path))):
        assert pruned(known) == (36, 960)


def fine_tuned(epochs: int, **fields: Any) -> MagnitudePrunerConfig:
    return MagnitudePrunerConfig(
        global_config=ModuleMagnitudePrunerConfig(
            op_state_spec={"weight": PruningSpec(target_sparsity=0.7)},
            sparsity_schedule=PolynomialDecaySchedule(total_iters=epochs, **fields),
        )
    )


def train(model: nn.Module, pruner: MagnitudePruner, epochs: int) -> list[int]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    seen = []
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(4, 1, 8, 8)), torch.arange(4)).backward()
        optimizer.step()
        pruner.step()
        seen.append(zeros(model.eval())[1])
    return seen


def test_the_tutorial_with_fine_tuning() -> None:
    pretrained = Digits().state_dict()
    model = Digits(num_classes=10, state_dict=pretrained)
    pruner = MagnitudePruner(model, fine_tuned(5, begin_step=0, power=3.0))
    prepared = pruner.prepare(INPUTS)
    assert zeros(prepared) == (0, 0)
    # The updates of five steps are at 0 to 4: 0.7 - 0.7 * (1 - i / 4) ** 3.
    expected = [int(1280 * (0.7 - 0.7 * (1 - index / 4) ** 3)) for index in (1, 2, 3)]
    assert train(prepared, pruner, 5) == [*expected, 896, 896]
    final = pruner.finalize(backend=opt.ExportBackend.Torch)
    assert zeros(final) == (50, 896)


def test_a_checkpoint_is_prepared_from(tmp_path: Path) -> None:
    original, config = Digits(), fine_tuned(6)
    pruner = MagnitudePruner(copy.deepcopy(original), config)
    prepared = pruner.prepare(INPUTS)
    train(prepared, pruner, 3)
    torch.save(prepared.state_dict(), tmp_path / "prepared.pt")
    state = torch.load(tmp_path / "prepared.pt")
    again = MagnitudePruner(copy.deepcopy(original), config)
    loaded = again.prepare(INPUTS, state_dict=state)
    assert zeros(loaded) == zeros(prepared)
    assert torch.equal(loaded.eval()(*INPUTS), prepared.eval()(*INPUTS))
    for one in (pruner, again):
        one.step(3)
    assert zeros(loaded) == zeros(prepared) == (50, 896)
    for_evaluation = MagnitudePruner(copy.deepcopy(original), config)
    for_evaluation.prepare(INPUTS, state_dict=state)
    for_evaluation.finalize(backend="torch")
    with pytest.raises(RuntimeError, match="does not fit"):
        MagnitudePruner(copy.deepcopy(original), config).prepare(
            INPUTS, state_dict=original.state_dict()
        )
