"""A pruned model in files: bit for bit, masks that stay, pruning that goes on, and refusals."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    load_pruned,
    save_pruned,
    summary,
)
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig, PolynomialDecaySchedule
from coreai_opt.pruning.errors import (
    NoPrunableLayerError,
    SavedModelError,
    UnreachableSparsityWarning,
)
from coreai_opt.pruning.spec import NMStructured, PruneImplBase, PruningSpec
from tests.helpers.pruning import impl, net, original, prepared, zeros

GO_ON = PolynomialDecaySchedule(total_iters=8, power=1, initial_sparsity=0.5, update_frequency=3)
NAMES = ["masks.safetensors", "summary.json", "weights.safetensors"]


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer as well, and modules of two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.body = nn.Linear(4, 4)
        self.again = self.body
        self.same = self.again_same = nn.Identity()
        self.same.register_buffer("scale", torch.rand(4))
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embedding.weight

    def forward(self, index: Tensor) -> Tensor:
        return self.head(self.again(self.body(self.embedding(index))) * self.same.scale)


def attention(module: nn.Module) -> Tensor:
    batch = torch.linspace(-1, 1, 48).view(4, 2, 6)
    return module(batch, batch, batch)[0]


def bf16() -> nn.Module:
    return net().to(torch.bfloat16)


Forward = Callable[[nn.Module], Tensor]
KINDS: dict[str, tuple[Callable[[], nn.Module], Forward]] = {
    "linear": (net, lambda m: m(torch.ones(2, 7))),
    "bf16": (bf16, lambda m: m(torch.ones(2, 7, dtype=torch.bfloat16))),
    "float64": (lambda: net().double(), lambda m: m(torch.ones(2, 7).double())),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4)).eval(),
        lambda m: m(torch.ones(1, 2, 5, 5)),
    ),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3), lambda m: m(torch.ones(1, 3, 5))),
    "attention": (lambda: nn.MultiheadAttention(6, 2), attention),
    "kdim": (
        lambda: nn.MultiheadAttention(6, 2, kdim=3, vdim=3),
        lambda m: m(torch.ones(4, 2, 6), torch.ones(4, 2, 3), torch.ones(4, 2, 3))[0],
    ),
    "ties": (Tied, lambda m: m(torch.tensor([1, 5]))),
    "spectral norm": (
        lambda: nn.Sequential(
            nn.Linear(7, 9), nn.utils.parametrizations.spectral_norm(nn.Conv1d(9, 5, 1))
        ).eval(),
        lambda m: m[0](torch.ones(2, 7)),
    ),
}


def config_for(kind: str) -> MagnitudePrunerConfig:
    config = MagnitudePrunerConfig.uniform(0.7)
    return config.without("1") if kind == "spectral norm" else config


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.clone() for name, value in model.state_dict().items() if name.endswith(".mask")
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def directory(work: Path) -> Path:
    """A directory that is not there yet, in one with a name as people make them."""
    return work / "run [1]; $HOME" / "ü=1"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_comes_back_bit_for_bit(kind: str, directory: Path) -> None:
    make, forward = KINDS[kind]
    pruner = MagnitudePruner(make(), config_for(kind))
    before = copy.deepcopy(pruner.prepare().state_dict())
    save_pruned(pruner.model, str(directory))
    assert sorted(path.name for path in directory.iterdir()) == NAMES
    assert same(before, pruner.model.state_dict())
    final = pruner.finalize(copy.deepcopy(pruner.model))
    # A program without this package.
    plain = make()
    load_model(plain, directory / "weights.safetensors")
    assert same(plain.state_dict(), final.state_dict())
    # Fine-tuning: the masks stay.
    torch.manual_seed(7)
    tuned = load_pruned(make(), directory)
    assert same(masks(tuned.model), masks(pruner.model))
    assert same(tuned.finalize(copy.deepcopy(tuned.model)).state_dict(), final.state_dict())
    assert torch.equal(forward(tuned.model), forward(pruner.model))
    forward(tuned.model).square().sum().backward()
    optimizer = torch.optim.SGD(tuned.model.parameters(), lr=0.1)
    optimizer.step()
    tuned.step(5)
    assert same(masks(tuned.model), masks(pruner.model))
    assert tuned.at_target()
    finished = tuned.finalize()
    assert list(finished.state_dict()) == list(final.state_dict())
    counts = [layer.nonzero for layer in summary(pruner.model).layers if layer.sparsity > 0]
    assert counts == [layer.nonzero for layer in summary(finished).layers if layer.sparsity > 0]


def test_ties_are_still_ties(directory: Path) -> None:
    save_pruned(MagnitudePruner(Tied()).prepare(), directory)
    assert set(load_file(directory / "masks.safetensors")) == {"embedding.weight", "body.weight"}
    model = load_pruned(Tied(), directory).finalize()
    assert model.head.weight is model.embedding.weight
    assert model.again is model.body


def uniform(sparsity: float) -> ModuleMagnitudePrunerConfig:
    spec = PruningSpec(target_sparsity=sparsity)
    return ModuleMagnitudePrunerConfig(op_state_spec={"*": spec})


def on_its_way() -> MagnitudePruner:
    """A layer at 50 %, and one that has gone half of its way to 2:4."""
    ramp = PolynomialDecaySchedule(total_iters=5, power=1)
    spec = PruningSpec(pruning_scheme=NMStructured(n=2, m=4), pruning_algo="random")
    four = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=ramp)
    config = MagnitudePrunerConfig(module_name_configs={"1": four})
    pruner = MagnitudePruner(nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 8)), config)
    pruner.prepare()
    pruner.step(2)
    return pruner


SPECS = {
    "0.weight": {
        "scheme": {"type": "unstructured"},
        "criterion": "default",
        "sparsity": 0.5,
        "scheduled": 0.5,
        "target": 0.5,
    },
    "1.weight": {
        "scheme": {"type": "n_m", "n": 2, "m": 4, "axis": -1},
        "criterion": "random",
        "sparsity": 0.25,
        "scheduled": 0.25,
        "target": 0.5,
    },
}


def test_the_files_say_what_they_hold(directory: Path) -> None:
    model, batch = on_its_way().model, torch.rand(3, 7)
    save_pruned(model, directory, batch)
    saved_masks = load_file(directory / "masks.safetensors")
    assert {mask.dtype for mask in saved_masks.values()} == {torch.bool}
    assert torch.equal(saved_masks["1.weight"], impl(model, "1").mask)
    content = json.loads((directory / "summary.json").read_text())
    assert list(content) == ["schema", "tensors", "summary"]
    assert (content["schema"], content["tensors"]) == (1, SPECS)
    assert content["summary"] == summary(model, batch).to_dict()
    assert content["summary"]["total"]["flops_dense"] == 2 * 3 * (28 + 32)


def test_masks_on_their_way_stay_there_and_can_be_saved_again(directory: Path) -> None:
    model = on_its_way().model
    save_pruned(model, directory)
    tuned = load_pruned(nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 8)), directory)
    tuned.step(9)
    assert same(masks(tuned.model), masks(model))
    assert not tuned.at_target()
    save_pruned(tuned.model, directory)
    again = json.loads((directory / "summary.json").read_text())["tensors"]
    fixed = {"criterion": "coreai_opt.pruning.saving.export.FixedPruneImpl"}
    assert again == {name: spec | fixed for name, spec in SPECS.items()}


@pytest.mark.parametrize("regrowth", [True, False])
def test_gradients_take_over_from_masks_by_magnitude(regrowth: bool, directory: Path) -> None:
    save_pruned(prepared(0.5)[1], directory)
    spec = PruningSpec(target_sparsity=0.9, pruning_algo="taylor")
    taylor = ModuleMagnitudePrunerConfig(op_state_spec={"*": spec}, sparsity_schedule=GO_ON)
    config = MagnitudePrunerConfig(global_config=taylor, allow_regrowth=regrowth)
    pruner = load_pruned(net(), directory, config)
    before = masks(pruner.model)
    pruner.model(torch.rand(8, 7)).square().sum().backward()
    pruner.step(8)
    assert zeros(pruner.model) == [56, 40]
    assert all((mask <= before[name]).all() for name, mask in masks(pruner.model).items())


def test_pruning_goes_on_from_the_saved_masks(directory: Path) -> None:
    first, _ = prepared(0.5, PolynomialDecaySchedule(total_iters=4))
    first.step(6)
    with torch.no_grad():  # other weights would be pruned now: the saved masks say which were
        original(first.model).copy_(original(first.model).flip(0))
    save_pruned(first.model, directory)
    pruner = load_pruned(net(), directory, MagnitudePrunerConfig.uniform(0.9, GO_ON))
    saved = masks(first.model)
    assert same(masks(pruner.model), saved)
    assert [impl(pruner.model, name).sparsity for name in ("0", "2")] == [0.5, 0.5]
    assert not pruner.at_target()
    seen = []
    for _ in range(8):
        pruner.step()
        seen.append(zeros(pruner.model))
        if pruner.step_count < 3:
            assert same(masks(pruner.model), saved)
    # Updates at 3 and 6: 0.7 and 0.9 of 63 and 45.
    assert seen == [[31, 22]] * 2 + [[44, 31]] * 3 + [[56, 40]] * 3
    assert pruner.at_target()
    now = masks(pruner.model)
    assert all((now[name] <= saved[name]).all() for name in saved)


def test_masks_of_several_sparsities_each_stay_until_the_next_update(directory: Path) -> None:
    config = MagnitudePrunerConfig(module_name_configs={"0": uniform(0.4), "2": uniform(0.6)})
    first = MagnitudePruner(net(), config)
    save_pruned(first.prepare(), directory)
    assert zeros(first.model) == [25, 27]
    pruner = load_pruned(net(), directory, MagnitudePrunerConfig.uniform(0.9, GO_ON))
    pruner.step(2)
    assert zeros(pruner.model) == [25, 27]
    pruner.step()
    assert zeros(pruner.model) == [44, 31]


@pytest.mark.parametrize("allocation", ["erdos_renyi", "global"])
def test_an_allocation_goes_on(allocation: Any, directory: Path) -> None:
    config = MagnitudePrunerConfig.uniform(0.5).model_copy(update={"allocation": allocation})
    save_pruned(MagnitudePruner(net(), config).prepare(), directory)
    further = MagnitudePrunerConfig.uniform(0.75, GO_ON).model_copy(
        update={"allocation": allocation}
    )
    assert load_pruned(net(), directory).at_target()
    pruner = load_pruned(net(), directory, further)
    before = masks(pruner.model)
    pruner.step(2)
    assert same(masks(pruner.model), before)
    pruner.step(6)
    assert pruner.at_target()
    # The tensors still share: as those of a model that was pruned that far at once.
    model = net()
    load_model(model, directory / "weights.safetensors")
    straight = further.model_copy(update={"global_config": uniform(0.75)})
    MagnitudePruner(model, straight).prepare()
    assert zeros(pruner.model) == zeros(model)


def test_a_config_without_a_schedule_keeps_what_is_at_its_target(directory: Path) -> None:
    save_pruned(prepared(0.5)[1], directory)
    pruner = load_pruned(net(), directory, MagnitudePrunerConfig())
    before = masks(pruner.model)
    pruner.step(3)
    assert same(masks(pruner.model), before)
    with pytest.raises(SavedModelError, match=r"no schedule for: 0\.weight \(0\.5 saved, 0\.9 "):
        load_pruned(net(), directory, MagnitudePrunerConfig.uniform(0.9))


def test_what_a_module_hands_over_itself_is_found_by_inputs(directory: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 4))

        def forward(self, batch: Tensor) -> Tensor:
            return nn.functional.linear(batch, self.kernel)

    batch = torch.rand(2, 4)
    save_pruned(MagnitudePruner(Own()).prepare(batch), directory)
    assert load_pruned(Own(), directory).finalize().kernel.count_nonzero() == 8
    load_pruned(Own(), directory, MagnitudePrunerConfig(), example_inputs=batch)
    with pytest.raises(NoPrunableLayerError):
        load_pruned(Own(), directory, MagnitudePrunerConfig())


def test_masks_of_a_criterion_that_is_not_here_can_be_fixed(directory: Path) -> None:
    @PruneImplBase.register("largest_first")
    class LargestFirst(PruneImplBase):
        def score(self, weight: Tensor) -> Tensor:
            return -weight.abs()

    spec = PruningSpec(pruning_algo="largest_first")
    config = MagnitudePrunerConfig(
        global_config=ModuleMagnitudePrunerConfig(op_state_spec={"*": spec})
    )
    model = MagnitudePruner(net(), config).prepare()
    save_pruned(model, directory)
    del PruneImplBase.REGISTRY["largest_first"]
    assert same(masks(load_pruned(net(), directory).model), masks(model))


def test_a_warning_names_the_line_that_prepares() -> None:
    spec = PruningSpec(target_sparsity=0.9, pruning_scheme=NMStructured(n=2, m=4))
    config = MagnitudePrunerConfig(
        global_config=ModuleMagnitudePrunerConfig(op_state_spec={"*": spec})
    )
    with pytest.warns(UnreachableSparsityWarning) as caught:
        MagnitudePruner(nn.Linear(4, 4), config).prepare()
    assert [warning.filename for warning in caught] == [__file__]


def test_parameters_without_elements_are_never_tied(directory: Path) -> None:
    def make() -> nn.Module:
        model = nn.Linear(4, 4)
        model.one = model.other = nn.Parameter(torch.empty(0))
        return model

    save_pruned(MagnitudePruner(make()).prepare(), directory)
    assert load_pruned(make(), directory).at_target()
