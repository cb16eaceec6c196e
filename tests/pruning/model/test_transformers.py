"""GPT-2 of transformers: its linear layers are of a type of their own, ``Conv1D``."""

from typing import Any

import pytest
import torch
from torch import nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    summary,
)
from coreai_opt.pruning.errors import NoPrunableLayerError
from coreai_opt.pruning.model.operations import uses_by_call, uses_by_type
from coreai_opt.pruning.spec import PruningSpec

pytestmark = pytest.mark.apart

LAYERS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
WEIGHTS = [f"transformer.h.0.{layer}.weight" for layer in LAYERS]
IDS = {"input_ids": torch.arange(6)[None]}


@pytest.fixture
def gpt2() -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval()


def zeros(model: nn.Module) -> dict[str, float]:
    parameters = dict(model.named_parameters())
    return {name: float((parameters[name] == 0).float().mean()) for name in WEIGHTS}


@pytest.mark.filterwarnings("ignore:left dense. 1 weight of Embedding .'transformer.wpe.weight'")
@pytest.mark.parametrize("inputs", [None, IDS], ids=["by type", "by call"])
def test_its_layers_are_pruned_as_the_linear_layers_they_are(gpt2: Any, inputs: Any) -> None:
    pruner = MagnitudePruner(gpt2, MagnitudePrunerConfig.uniform(0.5))
    pruner.prepare(inputs) if inputs else pruner.prepare()
    logits = gpt2(**IDS).logits
    pruner.finalize()
    assert zeros(gpt2) == dict.fromkeys(WEIGHTS, 0.5)
    torch.testing.assert_close(gpt2(**IDS).logits, logits)


def test_they_are_found_by_type_and_by_call(gpt2: Any) -> None:
    by_type = [(use.name, use.op_names) for use in uses_by_type(gpt2)]
    by_call = [(use.name, use.op_names) for use in uses_by_call(gpt2, IDS)]
    assert by_type[:4] == by_call[:4]
    assert [name for name, _ in by_type[:4]] == WEIGHTS
    assert by_type[0][1] == ("linear", "transformer.h.0.attn.c_attn.linear")


def test_their_multiplications_are_counted_as_of_any_linear_layer(gpt2: Any) -> None:
    # 6 tokens; c_attn (8, 24), c_proj (8, 8), c_fc (8, 32), c_proj (32, 8), head (50, 8).
    weights = 8 * 24 + 8 * 8 + 2 * 8 * 32 + 50 * 8
    assert summary(gpt2, IDS).total.flops_dense == 2 * 6 * weights


def test_a_config_names_their_type(gpt2: Any) -> None:
    half = ModuleMagnitudePrunerConfig(op_state_spec={"weight": PruningSpec(target_sparsity=0.75)})
    config = MagnitudePrunerConfig(
        global_config=None, module_type_configs={"transformers.pytorch_utils.Conv1D": half}
    )
    pruner = MagnitudePruner(gpt2, config)
    pruner.prepare()
    pruner.finalize()
    assert zeros(gpt2) == dict.fromkeys(WEIGHTS, 0.75)
    assert not (gpt2.lm_head.weight == 0).any()


def test_a_product_of_matrices_elsewhere_is_no_layer(gpt2: Any) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(x, x, self.weight)

    assert uses_by_call(Product(), torch.rand(4, 4)) == []
    with pytest.raises(NoPrunableLayerError, match="Conv1D"):
        MagnitudePruner(Product(), MagnitudePrunerConfig.uniform(0.5)).prepare()
