"""Following a forward pass: which weights are found, under which names, and what is disturbed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import ModuleMagnitudePrunerConfig, OpMagnitudePrunerConfig
from coreai_opt.pruning.errors import AlreadyParametrizedError, UninitializedWeightError
from coreai_opt.pruning.model.operations import trace_forward, uses_by_call, uses_by_type
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec

# What does not run stays dense: here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")


class Functional(nn.Module):
    """Hands a parameter of its own to a function, as a keyword or by position."""

    def __init__(self, function: Any, shape: tuple[int, ...], keyword: bool) -> None:
        super().__init__()
        self.function, self.keyword = function, keyword
        self.kernel = nn.Parameter(torch.rand(shape))
        self.idle = nn.Parameter(torch.rand(shape))

    def forward(self, batch: Tensor) -> Tensor:
        given: dict[str, Any] = {"weight": self.kernel} if self.keyword else {}
        output: Tensor = self.function(batch, *([] if self.keyword else [self.kernel]), **given)
        return output


FUNCTIONS: list[tuple[Any, tuple[int, ...], tuple[int, ...]]] = [
    (F.linear, (4, 6), (2, 6)),
    (F.conv1d, (4, 3, 2), (2, 3, 5)),
    (F.conv2d, (4, 3, 2, 2), (2, 3, 5, 5)),
    (F.conv3d, (4, 3, 2, 2, 2), (2, 3, 4, 4, 4)),
    (F.conv_transpose1d, (3, 4, 2), (2, 3, 5)),
    (F.conv_transpose2d, (3, 4, 2, 2), (2, 3, 5, 5)),
    (F.conv_transpose3d, (3, 4, 2, 2, 2), (2, 3, 4, 4, 4)),
]


@pytest.mark.parametrize("keyword", [False, True], ids=["position", "keyword"])
@pytest.mark.parametrize(
    ("function", "shape", "batch"), FUNCTIONS, ids=[f.__name__ for f, _, _ in FUNCTIONS]
)
def test_a_parameter_handed_to_a_function_is_found(
    function: Any, shape: tuple[int, ...], batch: tuple[int, ...], keyword: bool
) -> None:
    model = nn.Sequential(Functional(function, shape, keyword))
    (use,) = uses_by_call(model, torch.rand(batch))
    assert (use.name, use.state, use.op_type) == ("0.kernel", "weight", function.__name__)
    assert use.op_names == (function.__name__, f"0.{function.__name__}")
    pruner = MagnitudePruner(model)
    pruner.prepare(torch.rand(batch))
    kernel = model.get_submodule("0").kernel
    assert int((kernel == 0).sum()) == kernel.numel() // 2
    assert int((model.get_submodule("0").idle == 0).sum()) == 0
    assert list(pruner.finalize().state_dict()) == ["0.kernel", "0.idle"]


class Attention(nn.Module):
    """Attention without its module."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Parameter(torch.rand(18, 6))
        self.outside = nn.Parameter(torch.rand(6, 6))

    def forward(self, query: Tensor, key: Tensor) -> Any:
        given = (query, key, key, 6, 2, self.inside, None, None, None, False, 0.0, self.outside)
        return F.multi_head_attention_forward(*given, out_proj_bias=None)


def test_attention_as_a_function_has_two_weights() -> None:
    model = Attention()
    tokens = torch.rand(3, 2, 6)
    uses = uses_by_call(model, (tokens, tokens))
    assert [(use.name, use.state) for use in uses] == [
        ("inside", "in_proj_weight"),
        ("outside", "weight"),
    ]
    assert {use.op_names for use in uses} == {("multi_head_attention_forward",) * 2}
    MagnitudePruner(model).prepare((tokens, tokens))
    assert [int((w == 0).sum()) for w in (model.inside, model.outside)] == [54, 18]


class Several(nn.Module):
    """Layers and functions together, one layer twice and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.plain = nn.Parameter(torch.rand(4, 4))
        self.second = nn.Parameter(torch.rand(4, 4))
        self.never = nn.Linear(4, 4)
        self.conv = nn.Conv1d(4, 4, 1)

    def forward(self, batch: Tensor, turned: bool = False) -> Tensor:
        batch = self.first(self.first(batch))
        batch = F.linear(F.linear(batch, self.plain), self.second)
        batch = torch.matmul(batch, self.plain)
        return self.conv(batch.T if turned else batch.T.contiguous())


def op(share: float | None) -> OpMagnitudePrunerConfig | None:
    if share is None:
        return None
    return OpMagnitudePrunerConfig(op_state_spec={"*": PruningSpec(target_sparsity=share)})


def module(share: float, **fields: Any) -> ModuleMagnitudePrunerConfig:
    spec = {"*": PruningSpec(target_sparsity=share)}
    return ModuleMagnitudePrunerConfig(op_state_spec=spec, **fields)  # type: ignore[arg-type]


def shares(model: nn.Module) -> dict[str, int]:
    return {t.name: int((~t.impl.mask).sum()) for t in pruned_tensors(model)}


def test_ops_are_numbered_within_the_module_that_calls_them() -> None:
    uses = uses_by_call(Several(), torch.rand(3, 4))
    assert [(use.name, use.op_names) for use in uses] == [
        ("first.weight", ("linear", "first.linear")),
        ("plain", ("linear", "linear")),
        ("second", ("linear_1", "linear_1")),
        ("conv.weight", ("conv1d", "conv.conv1d")),
    ]
    calls = trace_forward(Several(), torch.rand(3, 4))
    assert [(call.caller, call.op_name) for call in calls] == [
        ("first", "linear"),
        ("first", "linear"),
        ("", "linear"),
        ("", "linear_1"),
        ("", "product"),  # its operations count, its weight is not pruned for it
        ("conv", "conv1d"),
    ]


INPUTS: list[Any] = [
    pytest.param(torch.rand(3, 4), id="tensor"),
    pytest.param((torch.rand(3, 4),), id="tuple"),
    pytest.param([torch.rand(3, 4), True], id="list"),
    pytest.param({"batch": torch.rand(3, 4), "turned": True}, id="dict"),
]


@pytest.mark.parametrize("inputs", INPUTS)
def test_inputs_are_positional_or_named(inputs: Any) -> None:
    model = MagnitudePruner(Several()).prepare(inputs)
    assert shares(model) == {"first.weight": 8, "conv.weight": 8, "plain": 8, "second": 8}
    assert not hasattr(model.never, "parametrizations")


BY_OP: list[Any] = [
    pytest.param(
        {"op_type_config": {"conv1d": op(0.75)}}, {"c": 12, "f": 4, "p": 4, "s": 4}, id="type"
    ),
    pytest.param({"op_type_config": {"linear": None}}, {"c": 4}, id="no-type"),
    pytest.param(
        {"op_name_config": {"linear_1": op(0.75)}}, {"c": 4, "f": 4, "p": 4, "s": 12}, id="number"
    ),
    pytest.param(
        {"op_name_config": {"linear": op(0.75)}}, {"c": 4, "f": 12, "p": 12, "s": 4}, id="name"
    ),
    pytest.param(
        {"op_name_config": {r"first\.linear": None}}, {"c": 4, "p": 4, "s": 4}, id="dotted-name"
    ),
    pytest.param(
        {"op_name_config": {"linear.*": op(0.75)}, "op_type_config": {"linear": None}},
        {"c": 4, "f": 12, "p": 12, "s": 12},
        id="name-over-type",
    ),
]


@pytest.mark.parametrize(("fields", "expected"), BY_OP)
def test_ops_are_configured_by_trace(fields: Any, expected: dict[str, int]) -> None:
    config = MagnitudePrunerConfig(global_config=module(0.25, **fields))
    model = MagnitudePruner(Several(), config).prepare(torch.rand(3, 4))
    assert {name[0]: count for name, count in sorted(shares(model).items())} == expected


def test_ops_are_configured_by_type_without_inputs() -> None:
    fields: Any = {
        "op_type_config": {"linear": op(0.75)},
        "op_name_config": {r"never\.linear": None},
    }
    config = MagnitudePrunerConfig(global_config=module(0.25, **fields))
    model = MagnitudePruner(Several(), config).prepare()
    assert shares(model) == {"first.weight": 12, "conv.weight": 4}


def test_a_module_may_be_named_whose_parameters_a_function_takes() -> None:
    model = nn.ModuleDict({"body": Functional(F.linear, (4, 4), False)})
    model.forward = model["body"].forward
    config = MagnitudePrunerConfig(global_config=None, module_name_configs={"body": module(0.75)})
    assert shares(MagnitudePruner(model, config).prepare(torch.rand(3, 4))) == {"body.kernel": 12}


SIZES = [
    pytest.param({}, {"in_proj_weight": 54, "out_proj.weight": 18}, id="one-size"),
    pytest.param(
        {"kdim": 4, "vdim": 2},
        {"q_proj_weight": 18, "k_proj_weight": 12, "v_proj_weight": 6, "out_proj.weight": 18},
        id="own-sizes",
    ),
]


@pytest.mark.parametrize(("sizes", "expected"), SIZES)
@pytest.mark.parametrize("follows", [False, True], ids=["type", "trace"])
def test_attention_with_and_without_sizes_of_its_own(
    sizes: dict[str, int], expected: dict[str, int], follows: bool
) -> None:
    model = nn.MultiheadAttention(6, 2, **sizes).eval()
    inputs = tuple(torch.rand(3, 2, sizes.get(name, 6)) for name in ("qdim", "kdim", "vdim"))
    keys = list(model.state_dict())
    pruner = MagnitudePruner(model)
    pruner.prepare(inputs if follows else None)
    assert shares(model) == expected
    with torch.no_grad():
        output = model(*inputs)[0]
        assert list(pruner.finalize().state_dict()) == keys
        torch.testing.assert_close(model(*inputs)[0], output)


@pytest.mark.parametrize(("sizes", "expected"), SIZES)
def test_attention_is_configured_by_parameter_op_and_child(
    sizes: dict[str, int], expected: dict[str, int]
) -> None:
    inside = module(0.5).model_copy(update={"op_state_spec": {"in_proj_weight": PruningSpec()}})
    half = MagnitudePrunerConfig(global_config=inside)
    names = [name for name in expected if name != "out_proj.weight"]
    assert (
        list(shares(MagnitudePruner(nn.MultiheadAttention(6, 2, **sizes), half).prepare())) == names
    )
    outside = MagnitudePrunerConfig(global_config=None).set_module_name("out_proj", module(0.5))
    model = nn.MultiheadAttention(6, 2, **sizes)
    assert shares(MagnitudePruner(model, outside).prepare()) == {"out_proj.weight": 18}
    kind: Any = {"op_type_config": {"multi_head_attention_forward": op(0.75)}}
    most = MagnitudePrunerConfig(global_config=module(0.5, **kind))
    model = MagnitudePruner(nn.MultiheadAttention(6, 2, **sizes), most).prepare()
    assert shares(model) == {name: count * 3 // 2 for name, count in expected.items()}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_encoders_fast_path_is_not_taken_while_it_is_followed(training: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    tokens = torch.rand(2, 3, 8)
    followed = MagnitudePruner(model).prepare(tokens)
    assert model.training is training
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    typed = MagnitudePruner(nn.TransformerEncoder(layer, 2)).prepare()
    assert sorted(shares(followed).items()) == sorted(shares(typed).items())
    assert len(shares(followed)) == 8
    model.eval()
    with torch.no_grad():
        fast = model(tokens)
    torch.testing.assert_close(model(tokens).detach(), fast)


def test_a_lazy_model_is_initialised_by_its_inputs() -> None:
    model = nn.Sequential(nn.LazyConv1d(4, 2), nn.LazyBatchNorm1d(), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(UninitializedWeightError, match=r"'0' is not initialised.*example inputs"):
        MagnitudePruner(model).prepare()
    MagnitudePruner(model).prepare(torch.rand(2, 3, 5))
    assert shares(model) == {"0.weight": 12, "3.weight": 24}
    assert model[1].num_batches_tracked == 0
    assert model(torch.rand(2, 3, 5)).shape == (2, 3)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer)


NORMS: list[Any] = [
    pytest.param(parametrizations.weight_norm, id="weight_norm"),
    pytest.param(old_weight_norm, id="old-weight_norm"),
    pytest.param(parametrizations.spectral_norm, id="spectral_norm"),
    pytest.param(nn.utils.spectral_norm, id="old-spectral_norm"),
    pytest.param(parametrizations.orthogonal, id="orthogonal"),
    pytest.param(lambda layer: prune.l1_unstructured(layer, "weight", 0.5), id="torch-prune"),
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("inputs", [None, torch.rand(2, 4)], ids=["type", "trace"])
def test_a_weight_that_is_computed_is_refused_by_name_or_left_out(
    norm: Callable[[nn.Module], nn.Module], inputs: Any
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), norm(nn.Linear(4, 4)))
    keys = list(model.state_dict())
    with pytest.raises(AlreadyParametrizedError, match=r"^'1\.weight' already carries") as caught:
        MagnitudePruner(model).prepare(inputs)
    assert (caught.value.name, list(model.state_dict())) == ("1.weight", keys)
    pruner = MagnitudePruner(model, MagnitudePrunerConfig(module_name_configs={"1": None}))
    assert shares(pruner.prepare(inputs)) == {"0.weight": 8}
    assert model(torch.rand(2, 4)).shape == (2, 4)
    assert list(pruner.finalize().state_dict()) == keys


def test_a_computed_weight_that_never_runs_is_left_alone() -> None:
    model = Several()
    parametrizations.weight_norm(model.never)
    assert len(shares(MagnitudePruner(model).prepare(torch.rand(3, 4)))) == 4


def test_both_ways_of_looking_find_the_same_in_plain_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.ConvTranspose2d(4, 3, 2), nn.Linear(5, 2))
    typed, called = list(uses_by_type(model)), uses_by_call(model, torch.rand(1, 3, 5, 5))
    assert typed == called
