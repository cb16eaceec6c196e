"""State dicts of masks that others keep: plain weights, and masks for the pruner in place."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import SGD, AdamW, Optimizer

from coreai_opt.pruning import (
    InPlacePruner,
    MagnitudePruner,
    MagnitudePrunerConfig,
    PruningError,
    masks_of_state_dict,
    plain_optimizer_state,
    plain_state_dict,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.spec.prune_impl import as_bits
from tests.helpers.pruning.in_place import uniform
from tests.helpers.pruning.models import Tied

RAMP = PolynomialDecaySchedule(total_iters=8, power=2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 3)
        self.norm = nn.BatchNorm1d(8)
        self.recurrent = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, batch: Tensor) -> Tensor:
        hidden = self.norm(self.conv(batch)).relu().mT
        return self.head(self.recurrent(hidden)[0][:, -1])


INPUTS = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(1))


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


def pruned_by_torch(net: Net) -> Net:
    prune.ln_structured(net.conv, "weight", amount=3, n=2, dim=0)
    prune.random_unstructured(net.conv, "bias", amount=2)
    pairs = [(net.head, "weight"), (net.recurrent, "weight_hh_l0")]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.5)
    return net


def without_masks_of_torch(net: Net) -> Net:
    for module, name in [(net.conv, "weight"), (net.conv, "bias"), (net.head, "weight")]:
        prune.remove(module, name)
    prune.remove(net.recurrent, "weight_hh_l0")
    return net


def assert_same(one: Any, other: Any) -> None:
    assert set(one) == set(other)
    assert not [key for key in one if not torch.equal(one[key], other[key])]


def test_masks_of_torch_are_multiplied_into_plain_weights() -> None:
    net = pruned_by_torch(seeded(Net))
    state = net.state_dict()
    plain = plain_state_dict(state)
    expected = without_masks_of_torch(pruned_by_torch(seeded(Net))).state_dict()
    assert_same(plain, expected)
    assert int((plain["conv.weight"] == 0).sum()) == 3 * 2 * 3
    assert plain["head.bias"] is state["head.bias"]
    fresh = Net()
    fresh.load_state_dict(plain)
    assert torch.equal(fresh.eval()(INPUTS), net.eval()(INPUTS))


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod.", "module."])
def test_what_stands_before_the_keys_stays(prefix: str) -> None:
    state = pruned_by_torch(seeded(Net)).state_dict()
    put_before = {prefix + key: value for key, value in state.items()}
    expected = {prefix + key: value for key, value in plain_state_dict(state).items()}
    assert list(plain_state_dict(put_before)) == list(expected)
    assert_same(plain_state_dict(put_before), expected)


def test_the_order_is_that_of_a_plain_model_of_linear_layers_and_convolutions() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.Linear(4, 4))

    plain = list(make().state_dict())
    masked = make()
    MagnitudePruner(masked).prepare()
    assert list(plain_state_dict(masked.state_dict())) == plain
    by_torch = make()
    prune.l1_unstructured(by_torch[0], "weight", 2)
    prune.l1_unstructured(by_torch[2], "weight", 2)
    assert list(plain_state_dict(by_torch.state_dict())) == plain


def test_masks_of_the_magnitude_pruner_are_multiplied_into_plain_weights() -> None:
    net = seeded(Net)
    pruner = MagnitudePruner(net)
    pruner.prepare()
    state = net.state_dict()
    plain = plain_state_dict(state)
    pruner.finalize()
    assert_same(plain, net.state_dict())
    assert plain._metadata == net.state_dict()._metadata  # type: ignore[attr-defined]
    assert "head.parametrizations.weight.0" in state._metadata


def test_what_has_no_masks_passes_through() -> None:
    layer = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer[1])
    layer.register_buffer("attn_mask", torch.ones(3))
    layer.append(nn.utils.spectral_norm(nn.Linear(3, 3)))  # weight_orig, and no mask
    state = layer.state_dict()
    plain = plain_state_dict(state)
    assert list(plain) == list(state)
    assert all(plain[key] is state[key] for key in state)
    assert masks_of_state_dict(state) is None


def test_other_parametrizations_stay_beside_masks() -> None:
    net = nn.Sequential(nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 4)))
    MagnitudePruner(net, MagnitudePrunerConfig(module_name_configs={"1": None})).prepare()
    plain = plain_state_dict(net.state_dict())
    assert list(plain)[:2] == ["0.weight", "0.bias"]
    other = nn.Sequential(nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 4)))
    other.load_state_dict(plain)
    assert torch.equal(other(INPUTS[0, :, :4]), net(INPUTS[0, :, :4]))


def test_infinite_dense_values_become_zero_and_dtypes_stay() -> None:
    state = {
        "weight_orig": torch.tensor([torch.inf, 1.0, -2.0], dtype=torch.bfloat16),
        "weight_mask": torch.tensor([0.0, 1.0, 0.0]),
    }
    weight = plain_state_dict(state)["weight"]
    assert weight.tolist() == [0.0, 1.0, 0.0]
    assert weight.dtype is torch.bfloat16
    assert not weight.signbit().any()


def masked_entry(key: str, value: Any) -> dict[str, Any]:
    state: dict[str, Any] = {
        "a.parametrizations.weight.original": torch.ones(2, 2),
        "a.parametrizations.weight.0.mask": torch.eye(2),
        "a.parametrizations.weight.0.step_count": torch.tensor(3),
        "b.weight_orig": torch.ones(2),
        "b.weight_mask": torch.ones(2),
    }
    if value is None:
        del state[key]
        return state
    return {**state, key: value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a.parametrizations.weight.original", None, "'a.parametrizations.weight.0.mask' and not"),
        ("b.weight_orig", None, "mask 'b.weight_mask' and not its weight; allowed: 'b.weight_orig"),
        ("b.weight_mask", torch.ones(3), r"'b.weight_mask' is \[3\] and 'b.weight_orig' is \[2\]"),
        ("b.weight_mask", torch.full((2,), 0.5), "'b.weight_mask': mask has values other than 0"),
        ("a.parametrizations.weight.0.mask", torch.full((2, 2), 2), "'a.param.*values other than"),
        ("a.parametrizations.weight.1.v", torch.ones(2), "1.v' is of a parametrization on top"),
        ("b.weight", torch.ones(2), "has 'b.weight' and 'b.weight_mask'; allowed"),
        ("state_dict", {}, "whole checkpoint"),
    ],
)
def test_what_does_not_belong_together_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        plain_state_dict(masked_entry(key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a.parametrizations.weight.0.step_count", None, "has no step; allowed"),
        ("a.parametrizations.weight.0.step_count", torch.tensor(-1), "step_count is -1"),
    ],
)
def test_a_mask_without_its_step_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        masks_of_state_dict(masked_entry(key, value))


def test_masks_at_different_steps_are_refused_unless_one_has_not_begun() -> None:
    state = masked_entry("c.parametrizations.weight.0.mask", torch.ones(2))
    state["c.parametrizations.weight.original"] = torch.ones(2)
    step = "c.parametrizations.weight.0.step_count"
    masks = masks_of_state_dict({**state, step: torch.tensor(0)})
    assert masks is not None
    assert masks["step_count"] == 3
    with pytest.raises(PruningError, match=r"different steps: 'c.*mask' at 2 and 'a.*mask' at 3"):
        masks_of_state_dict({**state, step: torch.tensor(2)})


def test_masks_of_torch_have_no_step_and_are_none_of_ours() -> None:
    assert masks_of_state_dict(pruned_by_torch(Net()).state_dict()) is None


def train(pruner: Any, net: nn.Module, optimizer: Optimizer, until: int) -> None:
    while pruner.step_count < until:
        torch.manual_seed(pruner.step_count)
        net(torch.randn(4, 2, 9)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()


def grouped_adamw(net: nn.Module) -> Optimizer:
    """Groups by dimension, as many do: a mask puts weights behind biases in neither."""
    named = list(net.named_parameters())
    return AdamW(
        [
            {"params": [each for _, each in named if each.dim() > 1], "weight_decay": 0.1},
            {"params": [each for _, each in named if each.dim() == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )


def as_it_is(state: Any, path: Path) -> Any:
    return state


def through_torch_save(state: Any, path: Path) -> Any:
    torch.save(state, path / "state.pt")
    return torch.load(path / "state.pt", weights_only=True)


def through_safetensors(state: Any, path: Path) -> Any:
    """The step alone is left of the schedule, and the order is lost."""
    save_file(state, path / "state.safetensors")
    loaded = load_file(path / "state.safetensors")
    return OrderedDict((key, loaded[key]) for key in state)


def as_formerly(state: Any, path: Path) -> Any:
    """All numbers of a mask in one entry, as in the first checkpoints."""
    former: dict[str, Any] = {}
    for key, value in state.items():
        if key.endswith("step_count"):
            told = state._metadata[key.removesuffix(".step_count")]["pruning"]
            numbers = [told[each] for each in ("sparsity", "scheduled", "step_count", "revived")]
            former[key.replace("step_count", "_extra_state")] = as_bits(numbers)
        else:
            former[key] = value
    return former


@pytest.mark.parametrize(
    "carried", [as_it_is, through_torch_save, through_safetensors, as_formerly]
)
@pytest.mark.parametrize("stop", [0, 3, 10])
def test_a_training_goes_on_in_place_exactly(stop: int, carried: Any, tmp_path: Path) -> None:
    config = uniform(0.7, RAMP)
    net = seeded(Net)
    pruner = MagnitudePruner(net, config)
    pruner.prepare()
    optimizer = grouped_adamw(net)
    pruner.mask_optimizer_state(optimizer)
    train(pruner, net, optimizer, stop)
    state = carried(net.state_dict(), tmp_path)
    moments = copy.deepcopy(optimizer.state_dict())

    ours = Net()
    ours.load_state_dict(plain_state_dict(state))
    again = InPlacePruner(ours, config)
    again.prepare(state_dict=masks_of_state_dict(state))
    assert again.step_count == stop
    its_own = grouped_adamw(ours)
    its_own.load_state_dict(plain_optimizer_state(moments, state, ours, its_own))
    again.attach(its_own)

    train(pruner, net, optimizer, 13)
    train(again, ours, its_own, 13)
    last = net.state_dict()
    assert_same(plain_state_dict(last), ours.state_dict())
    rest = plain_optimizer_state(optimizer.state_dict(), last, ours, its_own)
    reached = its_own.state_dict()
    assert [group["params"] for group in rest["param_groups"]] != [[], []]
    for their, our in zip(rest["param_groups"], reached["param_groups"], strict=True):
        for former, now in zip(their["params"], our["params"], strict=True):
            assert_same(rest["state"][former], reached["state"][now])


@pytest.mark.parametrize("allocation", ["erdos_renyi", "global"])
@pytest.mark.parametrize("carried", [through_torch_save, through_safetensors])
@pytest.mark.parametrize("regrowth", [True, False])
def test_with_every_allocation(
    allocation: str, carried: Any, regrowth: bool, tmp_path: Path
) -> None:
    config = uniform(0.7, RAMP, allocation=allocation, allow_regrowth=regrowth)
    net = seeded(Net)
    pruner = MagnitudePruner(net, config)
    pruner.prepare()
    optimizer = SGD(net.parameters(), 0.1)
    pruner.mask_optimizer_state(optimizer)
    train(pruner, net, optimizer, 4)
    state = carried(net.state_dict(), tmp_path)
    ours = Net()
    ours.load_state_dict(plain_state_dict(state))
    again = InPlacePruner(ours, config)
    again.prepare(state_dict=masks_of_state_dict(state))
    its_own = SGD(ours.parameters(), 0.1)
    again.attach(its_own)
    train(pruner, net, optimizer, 10)
    train(again, ours, its_own, 10)
    assert_same(plain_state_dict(net.state_dict()), ours.state_dict())
    assert again.at_target()


def test_moments_would_go_to_other_parameters_without_a_new_order() -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    MagnitudePruner(net).prepare()
    optimizer = SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    plain = nn.Sequential(nn.Linear(4, 4))
    ours = SGD(plain.parameters(), 0.1, momentum=0.9)
    ours.load_state_dict(
        plain_optimizer_state(optimizer.state_dict(), net.state_dict(), plain, ours)
    )
    shapes = {
        tuple(each.shape): tuple(ours.state[each]["momentum_buffer"].shape) for each in ours.state
    }
    assert shapes == {(4, 4): (4, 4), (4,): (4,)}


def test_an_optimizer_of_other_groups_is_refused() -> None:
    net = nn.Linear(4, 4)
    optimizer = SGD([net.weight], 0.1)
    with pytest.raises(PruningError, match=r"groups of \[1\] parameters, and this one of \[2\]"):
        plain_optimizer_state(
            optimizer.state_dict(), net.state_dict(), net, SGD(net.parameters(), 0.1)
        )
    other = SGD([nn.Parameter(torch.ones(2))], 0.1)
    with pytest.raises(PruningError, match="not in the state dict of the model"):
        plain_optimizer_state(optimizer.state_dict(), net.state_dict(), net, other)


def test_a_tied_weight_has_one_mask_whatever_its_names() -> None:
    config = uniform(0.5, RAMP)
    net = seeded(Tied)
    pruner = MagnitudePruner(net, config)
    pruner.prepare()
    pruner.step(5)
    state = net.state_dict()
    masks = masks_of_state_dict(state)
    assert masks is not None
    assert {"first.weight", "second.weight"} <= set(masks["masks"])
    ours = Tied()
    ours.load_state_dict(plain_state_dict(state))
    again = InPlacePruner(ours, config)
    again.prepare(state_dict=masks)
    pruner.step(5)
    again.step(5)
    pruner.finalize()
    assert ours.first.weight is ours.second.weight
    assert_same(net.state_dict(), ours.state_dict())


def test_a_criterion_keeps_what_it_had() -> None:
    config = uniform(0.5, RAMP)
    spec = config.global_config.op_state_spec["*"]  # type: ignore[index, union-attr]
    assert spec is not None
    config.global_config.op_state_spec["*"] = type(spec)(target_sparsity=0.5, pruning_algo="random")  # type: ignore[index, union-attr]
    net = nn.Sequential(nn.Linear(8, 8))
    pruner = MagnitudePruner(net, config)
    pruner.prepare()
    pruner.step(4)
    ours = nn.Sequential(nn.Linear(8, 8))
    ours.load_state_dict(plain_state_dict(net.state_dict()))
    again = InPlacePruner(ours, config)
    again.prepare(state_dict=masks_of_state_dict(net.state_dict()))
    pruner.step(4)
    again.step(4)
    assert_same(plain_state_dict(net.state_dict()), ours.state_dict())
