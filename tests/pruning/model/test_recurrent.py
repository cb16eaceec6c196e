"""Recurrent layers: their op gets masked weights, and nothing else of them changes."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    OpMagnitudePrunerConfig,
    count_sparsity,
    load_pruned,
    save_pruned,
    summary,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import AlreadyParametrizedError, UnknownOpError
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec

LAYERS = {
    "LSTM": lambda: nn.LSTM(6, 8, num_layers=2),
    "LSTM, projected, both ways": lambda: nn.LSTM(
        6, 8, num_layers=2, proj_size=3, bidirectional=True
    ),
    "LSTM without bias": lambda: nn.LSTM(6, 8, bias=False),
    "GRU, both ways": lambda: nn.GRU(6, 8, num_layers=2, bidirectional=True),
    "RNN": lambda: nn.RNN(6, 8),
    "RNN with relu": lambda: nn.RNN(6, 8, nonlinearity="relu", batch_first=True),
    "large LSTM": lambda: nn.LSTM(6, 100),  # masked copies in memory of our own
}
CELLS = {
    "LSTMCell": lambda: nn.LSTMCell(6, 8),
    "GRUCell": lambda: nn.GRUCell(6, 8),
    "RNNCell": lambda: nn.RNNCell(6, 8, nonlinearity="relu"),
}
SEQUENCE = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(1))
PACKED = pack_sequence([SEQUENCE[:, 0], SEQUENCE[:3, 1], SEQUENCE[:2, 2]])


def everything(sparsity, **keywords):
    config = MagnitudePrunerConfig.uniform(sparsity, keywords.pop("schedule", None))
    return config.model_copy(update=keywords)


def masked_twin(layer, pruner):
    """Return a plain layer whose weights are multiplied by the masks of the other."""
    twin = copy.deepcopy(layer)
    pruner.prepare()
    with torch.no_grad():
        for tensor in pruned_tensors(layer):
            getattr(twin, tensor.parameter).mul_(tensor.impl.mask)
    return twin


def outputs(layer, given):
    torch.manual_seed(7)  # of the dropout
    result = layer(given)
    flat = []
    for part in result if isinstance(result, tuple) and not hasattr(result, "data") else [result]:
        flat += part if isinstance(part, tuple) and not hasattr(part, "data") else [part]
    return [part.data if hasattr(part, "batch_sizes") else part for part in flat]


def assert_same(layer, twin, given):
    ours, theirs = outputs(layer, given), outputs(twin, given)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for module, parts in ((layer, ours), (twin, theirs)):
        module.zero_grad()
        sum(part.square().sum() for part in parts).backward()
    gradients = {name: value.grad for name, value in twin.named_parameters()}
    masks = {tensor.name: tensor.impl.mask for tensor in pruned_tensors(layer)}
    for name, value in layer.named_parameters():
        plain = name.removeprefix("parametrizations.").removesuffix(".original")
        expected = gradients[plain]
        if plain in masks:
            expected = torch.where(masks[plain], expected, 0)
        torch.testing.assert_close(value.grad, expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("regrowth", [True, False])
@pytest.mark.parametrize("make", [*LAYERS.values(), *CELLS.values()], ids=[*LAYERS, *CELLS])
def test_op_gets_the_masked_weights(make, regrowth):
    torch.manual_seed(0)
    layer = make()
    pruner = MagnitudePruner(layer, everything(0.75, allow_regrowth=regrowth))
    twin = masked_twin(layer, pruner)
    inputs = [SEQUENCE[0]] if isinstance(layer, nn.RNNCellBase) else [SEQUENCE, PACKED]
    for given in inputs:
        for mode in (True, False):
            layer.train(mode)
            twin.train(mode)
            assert_same(layer, twin, given)
    weights = [name for name in dict(twin.named_parameters()) if "weight" in name]
    assert [tensor.name for tensor in pruned_tensors(layer)] == weights
    final = pruner.finalize()
    assert type(final) is type(twin)
    assert list(final.state_dict()) == list(twin.state_dict())
    for name, value in final.named_parameters():
        torch.testing.assert_close(value, twin.get_parameter(name), rtol=0, atol=0)
    assert_same(final, twin, inputs[0])


def test_op_gets_the_masked_weights_with_dropout():
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8, num_layers=3, dropout=0.5)
    twin = masked_twin(layer, MagnitudePruner(layer, everything(0.75)))
    assert_same(layer, twin, SEQUENCE)


def test_following_the_calls_finds_the_same_weights():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.GRU(6, 8, num_layers=2, batch_first=True)
            self.cell = nn.LSTMCell(8, 4)
            self.unused = nn.LSTM(6, 8)

        def forward(self, sequence):
            return self.cell(self.body(sequence)[0][:, -1])[0]

    model = Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what does not run stays dense
        MagnitudePruner(model, everything(0.5)).prepare(torch.zeros(2, 5, 6))
    names = [tensor.name for tensor in pruned_tensors(model)]
    assert names == [
        *[f"body.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")],
        "cell.weight_ih",
        "cell.weight_hh",
    ]


def test_defaults_prune_recurrent_weights_by_half():
    layer = nn.LSTM(6, 8)
    MagnitudePruner(layer).prepare()
    assert count_sparsity(layer).achieved == 0.5
    assert count_sparsity(layer).elements == 4 * 8 * (6 + 8)


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ({"weight": 0.5}, [0.5, 0.5]),
        ({"*": 0.5}, [0.5, 0.5]),
        ({"weight_hh_l0": 0.75, "weight": 0.5}, [0.5, 0.75]),
        ({"weight_hh_l0": 0.75}, [0.0, 0.75]),
        ({"weight_hh_l0": None, "*": 0.5}, [0.5, 0.0]),
    ],
)
@pytest.mark.parametrize("level", ["op_state_spec", "op_type_config", "op_name_config"])
def test_weights_are_keys_of_a_spec(specs, expected, level):
    layer = nn.LSTM(6, 8)
    given = {
        key: None if share is None else PruningSpec(target_sparsity=share)
        for key, share in specs.items()
    }
    inner = {"lstm": OpMagnitudePrunerConfig(op_state_spec=given)}
    config = ModuleMagnitudePrunerConfig(**{level: given if level == "op_state_spec" else inner})
    MagnitudePruner(layer, MagnitudePrunerConfig(global_config=config)).prepare()
    found = [
        float((getattr(layer, f"weight_{kind}_l0") == 0).float().mean()) for kind in ("ih", "hh")
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("layer", "op_type"),
    [
        (nn.LSTM(2, 2), "lstm"),
        (nn.GRU(2, 2), "gru"),
        (nn.RNN(2, 2), "rnn_tanh"),
        (nn.RNN(2, 2, nonlinearity="relu"), "rnn_relu"),
        (nn.LSTMCell(2, 2), "lstm_cell"),
        (nn.GRUCell(2, 2), "gru_cell"),
        (nn.RNNCell(2, 2), "rnn_tanh_cell"),
        (nn.RNNCell(2, 2, nonlinearity="relu"), "rnn_relu_cell"),
    ],
)
def test_each_layer_has_the_op_that_torch_names(layer, op_type):
    model = nn.ModuleList([layer, nn.Linear(4, 4)])
    dense = ModuleMagnitudePrunerConfig(op_type_config={op_type: None})
    MagnitudePruner(model, MagnitudePrunerConfig(global_config=dense)).prepare()
    assert [tensor.name for tensor in pruned_tensors(model)] == ["1.weight"]


def test_op_type_that_the_model_has_not_is_an_error():
    config = ModuleMagnitudePrunerConfig(op_type_config={"gru": None})
    with pytest.raises(UnknownOpError, match=r"'gru' matches no op.*lstm"):
        MagnitudePruner(nn.LSTM(2, 2), MagnitudePrunerConfig(global_config=config)).prepare()


def test_state_dict_copies_and_types_go_on():
    torch.manual_seed(0)
    ramp = PolynomialDecaySchedule(total_iters=4, power=1)
    config = everything(0.75, schedule=ramp)
    layer, fresh = nn.LSTM(6, 8, num_layers=2), nn.LSTM(6, 8, num_layers=2)
    pruner, other = MagnitudePruner(layer, config), MagnitudePruner(fresh, config)
    pruner.prepare()
    pruner.step(2)
    layer(SEQUENCE)[0].sum().backward()  # a copy is made of what has run
    copied = copy.deepcopy(layer)
    other.prepare()
    fresh.load_state_dict(layer.state_dict())
    for twin in (copied, fresh):
        assert torch.equal(twin(SEQUENCE)[0], layer(SEQUENCE)[0])
    pruner.step(2)
    other.step(2)
    assert torch.equal(fresh(SEQUENCE)[0], layer(SEQUENCE)[0])
    assert not torch.equal(copied(SEQUENCE)[0], layer(SEQUENCE)[0])
    layer.flatten_parameters()
    expected = layer(SEQUENCE)[0]
    layer.to(torch.float64)
    result = layer(SEQUENCE.double())[0]
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, expected.double(), rtol=1e-5, atol=1e-6)
    copied.load_state_dict(fresh.state_dict(), assign=True)
    assert torch.equal(copied(SEQUENCE)[0], expected)
    final = pruner.finalize()
    torch.testing.assert_close(final(SEQUENCE.double())[0], result, rtol=0, atol=0)
    assert torch.equal(copied(SEQUENCE)[0], expected)  # it has a class and weights of its own


def test_pruned_weights_stay_where_they_are():
    torch.manual_seed(0)
    layer = nn.GRU(6, 8)
    pruner = MagnitudePruner(layer, everything(0.75))
    pruner.prepare()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    pruner.mask_optimizer_state(optimizer)
    tensors = list(pruned_tensors(layer))
    before = [tensor.original.detach().clone() for tensor in tensors]
    for _ in range(3):
        optimizer.zero_grad()
        layer(SEQUENCE)[0].square().sum().backward()
        optimizer.step()
        pruner.step()
    for tensor, old in zip(tensors, before, strict=True):
        mask = tensor.impl.mask
        assert torch.equal(tensor.original[~mask], old[~mask])
        assert not torch.equal(tensor.original[mask], old[mask])


def test_shared_layer_has_one_mask_and_stays_shared():
    shared = nn.LSTM(6, 6)
    model = nn.ModuleDict({"one": shared, "two": shared})
    pruner = MagnitudePruner(model, everything(0.5))
    pruner.prepare()
    assert len(list(pruned_tensors(model))) == 2
    shared(shared(SEQUENCE)[0])[0].sum().backward()
    pruner.finalize()
    assert model["one"] is model["two"]


def test_tied_weights_of_two_layers_stay_tied():
    model = nn.ModuleList([nn.GRU(6, 8), nn.GRU(6, 8)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    pruner = MagnitudePruner(model, everything(0.5))
    pruner.prepare()
    model[0](SEQUENCE)[0].sum().backward()
    model[1](SEQUENCE)[0].sum().backward()
    pruner.finalize()
    assert model[1].weight_hh_l0 is model[0].weight_hh_l0
    assert int((model[1].weight_hh_l0 == 0).sum()) == model[0].weight_hh_l0.numel() // 2
    assert model[1]._flat_weights[1] is model[0].weight_hh_l0


def test_files_hold_masks_of_recurrent_weights(tmp_path):
    layer, fresh = nn.LSTM(6, 8), nn.LSTM(6, 8)
    MagnitudePruner(layer, everything(0.75)).prepare()
    save_pruned(layer, tmp_path)
    load_pruned(fresh, tmp_path)
    assert torch.equal(fresh(SEQUENCE)[0], layer(SEQUENCE)[0])


@pytest.mark.parametrize("given", [SEQUENCE, PACKED], ids=["padded", "packed"])
def test_operations_are_counted_by_token(given):
    layer = nn.LSTM(6, 8, bidirectional=True)
    MagnitudePruner(layer, everything(0.75)).prepare()
    weights = summary(layer, (given,)).weights
    tokens = 15 if given is SEQUENCE else 10
    assert weights.flops_dense == 2 * tokens * 2 * 4 * 8 * (6 + 8)
    assert weights.flops_effective == weights.flops_dense // 4


def test_user_who_reads_the_flat_weights_gets_masked_ones():
    class Own(nn.LSTM):
        def forward(self, inputs):
            return torch.lstm(
                inputs, (inputs.new_zeros(1, 3, 8),) * 2, self._flat_weights,
                True, 1, 0.0, self.training, False, False,
            )  # fmt: skip

    layer = Own(6, 8)
    plain = nn.LSTM(6, 8)
    plain.load_state_dict(layer.state_dict())
    twin = masked_twin(plain, MagnitudePruner(plain, everything(0.75)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MagnitudePruner(layer, everything(0.75)).prepare()
    assert torch.equal(layer(SEQUENCE)[0], twin(SEQUENCE)[0])


def test_weights_that_others_compute_are_left_to_them():
    layer = nn.LSTM(6, 8)
    plain = [value.clone() for value in layer.state_dict().values()]
    nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    with pytest.raises(AlreadyParametrizedError, match="weight_hh_l0"):
        MagnitudePruner(layer, everything(0.75)).prepare()
    spec = {"weight_ih_l0": PruningSpec(target_sparsity=0.75)}
    config = ModuleMagnitudePrunerConfig(op_state_spec=spec)
    twin = nn.LSTM(6, 8)  # a copy would have the class of the other, to which torch adds
    twin.load_state_dict(dict(zip(twin.state_dict(), plain, strict=True)))
    pruner = MagnitudePruner(layer, MagnitudePrunerConfig(global_config=config))
    pruner.prepare()
    with torch.no_grad():
        twin.weight_ih_l0.mul_(layer.parametrizations.weight_ih_l0[0].mask)
    torch.testing.assert_close(layer(SEQUENCE)[0], twin(SEQUENCE)[0])
    pruner.finalize()
    torch.testing.assert_close(layer(SEQUENCE)[0], twin(SEQUENCE)[0])
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(2)
    assert not torch.allclose(layer(SEQUENCE)[0], twin(SEQUENCE)[0], atol=1e-3)


def test_other_tensors_may_be_called_with():
    layer = nn.GRU(6, 8)
    MagnitudePruner(layer, everything(0.75)).prepare()
    others = {name: value.detach() + 1 for name, value in layer.named_parameters()}
    expected = copy.deepcopy(layer)
    expected.load_state_dict(others, strict=False)
    result = torch.func.functional_call(layer, others, (SEQUENCE,))[0]
    assert torch.equal(result, expected(SEQUENCE)[0])


def test_error_in_the_forward_pass_leaves_nothing_behind():
    layer = nn.LSTM(6, 8)
    MagnitudePruner(layer, everything(0.5)).prepare()
    with pytest.raises(RuntimeError):
        layer(torch.zeros(5, 3, 7))
    copy.deepcopy(layer)(SEQUENCE)


@pytest.mark.slow
def test_compiled_layer_gets_masked_weights():
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8)
    twin = masked_twin(layer, MagnitudePruner(layer, everything(0.75)))
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(SEQUENCE)[0], twin(SEQUENCE)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, for a plain layer as well
def test_traced_layer_has_masked_weights():
    layer = nn.LSTM(6, 8)
    twin = masked_twin(layer, MagnitudePruner(layer, everything(0.75)))
    traced = torch.jit.trace(layer, SEQUENCE)
    torch.testing.assert_close(traced(SEQUENCE)[0], twin(SEQUENCE)[0])
