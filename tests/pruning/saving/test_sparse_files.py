"""Files that somebody has pruned in one shot, tuned under their zeros; adapters on top."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from coreai_opt.pruning import InPlacePruner, plain_state_dict
from coreai_opt.pruning.spec import NMStructured, PruneImplBase, Unstructured
from tests.helpers.pruning import asking
from tests.helpers.pruning.sparse_starts import net, started, train, zeros_of


class Block(nn.Module):
    """A block of a decoder as others name its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(16)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self.add_module(name, nn.Linear(16, 16, bias=False))
        self.up_proj, self.down_proj = nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.input_layernorm(hidden)
        q, k, v = self.q_proj(normed), self.k_proj(normed), self.v_proj(normed)
        hidden = hidden + self.o_proj(nn.functional.scaled_dot_product_attention(q, k, v))
        return hidden + self.down_proj(self.up_proj(hidden).relu())


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(24, 16)
        self.layers = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(16, 24, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed_tokens(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.lm_head(hidden)


def sparse_file(path: Path, scheme: Any, named: Sequence[str]) -> None:
    """What pruning in one shot leaves: weights of the layers with zeros, bf16, no masks."""
    torch.manual_seed(0)
    model = Decoder().bfloat16()
    for name, weight in model.named_parameters():
        if any(part in name for part in named):
            criterion = PruneImplBase.get_class("default")
            weight.data *= criterion.compute_mask(weight, 0.5, scheme)
    save_file(model.state_dict(), path)


@pytest.mark.filterwarnings("ignore::coreai_opt.pruning.errors.LeftDenseWarning")
@pytest.mark.parametrize("scheme", [Unstructured(), NMStructured(n=2, m=4)], ids=str)
@pytest.mark.parametrize("asked", [True, False])
def test_a_file_that_was_pruned_in_one_shot_is_tuned_under_its_zeros(
    scheme: Any, asked: bool, tmp_path: Path
) -> None:
    sparse_file(tmp_path / "model.safetensors", scheme, ["_proj"])
    model = Decoder().bfloat16()
    model.load_state_dict(plain_state_dict(load_file(tmp_path / "model.safetensors")))
    there = zeros_of(model)
    config = None
    if asked:
        config = asking(pruning_scheme=scheme, target_sparsity=0.5).set_module_name("lm_head", None)
    pruner = InPlacePruner(model, config)
    pruner.prepare(masks_from="zeros")
    optimizer = AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    pruner.attach(optimizer)
    before = copy.deepcopy(model.state_dict())
    for step in range(4):
        torch.manual_seed(step)
        tokens = torch.randint(24, (2, 8))
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert sum(map(int, [zeros.sum() for zeros in there.values()])) == 2 * (4 * 128 + 2 * 256)
    for name, zeros in there.items():
        weight = model.get_parameter(name)
        assert not weight[zeros].any()
        assert not torch.equal(weight, before[name])
        assert weight.dtype is torch.bfloat16
    assert pruner.at_target()


def test_an_adapter_that_is_merged_stays_under_the_mask() -> None:
    model = net(0.5, 0.5)
    there = zeros_of(model)
    pruner, optimizer = started(model, asking(target_sparsity=0.5))
    up, down = torch.randn(8, 2), torch.randn(2, 8)
    weight = model[0].weight
    expected = torch.where(there["0.weight"], 0.0, weight.detach() + up @ down)
    with torch.no_grad():
        weight += up @ down  # seen at once
    pruner.mask_weights()
    assert torch.equal(weight, expected)
    weight.data += up @ down  # behind autograd's back, as PEFT does
    assert weight[there["0.weight"]].any()
    pruner.mask_weights()
    assert weight[there["0.weight"]].any()
    pruner.mask_weights(also_data=True)
    assert not weight[there["0.weight"]].any()
    weight.data += up @ down  # the next step sees to it
    train(pruner, optimizer, 1)
    assert torch.equal(weight == 0, there["0.weight"])
