"""Adapters of PEFT are left alone unless a config names them; the weights below them are frozen."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coreai_opt.pruning import (
    MagnitudePruner,
    MagnitudePrunerConfig,
    ModuleMagnitudePrunerConfig,
    PruningError,
)
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.errors import LeftDenseWarning, MaskedMergeError, NoPrunableLayerError
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.spec import PruningSpec

peft = pytest.importorskip("peft", reason="needs the extra huggingface")

pytestmark = pytest.mark.apart

BASE = r"base_model\.model\.first\.base_layer"


class Net(nn.Module):
    """Layers of 64, 64 and 24 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        head: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return head


def adapted(**fields: Any) -> Any:
    """Return the model with adapters of rank 2 around its first layer."""
    config = peft.LoraConfig(r=2, target_modules=["first"], **fields)
    return peft.get_peft_model(Net(), config)


def half(schedule: Any = None) -> ModuleMagnitudePrunerConfig:
    spec = {"weight": PruningSpec(target_sparsity=0.5)}
    return ModuleMagnitudePrunerConfig(op_state_spec=spec, sparsity_schedule=schedule)


def pruned(model: nn.Module) -> list[str]:
    prefix = "base_model.model."
    return [tensor.name.removeprefix(prefix) for tensor in pruned_tensors(model)]


def trained(model: nn.Module, steps: int = 3) -> None:
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.rand(4, 8)) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "config",
    [None, MagnitudePrunerConfig(module_type_configs={nn.Linear: half()})],
    ids=["all", "by-type"],
)
def test_nothing_of_an_adapted_model_is_meant_without_a_name(
    config: MagnitudePrunerConfig | None,
) -> None:
    message = (
        r"nothing to prune: all that the config reaches is 3 weights frozen .*first\.base_layer.*"
        r" and 2 weights of adapters .*lora_A\.default\.weight.*lora_B\.default\.weight"
    )
    with pytest.raises(NoPrunableLayerError, match=message):
        MagnitudePruner(adapted(), config).prepare()


def test_a_whole_layer_that_is_trained_beside_adapters_is_pruned() -> None:
    model = adapted(modules_to_save=["head"])
    with pytest.warns(LeftDenseWarning, match=r"3 weights frozen .* and 2 weights of adapters"):
        MagnitudePruner(model).prepare()
    assert pruned(model) == ["head.modules_to_save.default.weight"]


@pytest.mark.parametrize("inputs", [None, torch.ones(2, 8)], ids=["by-type", "by-call"])
def test_the_weights_below_adapters_are_pruned_when_they_are_named(inputs: Any) -> None:
    model = adapted()
    config = MagnitudePrunerConfig(module_name_configs={BASE: half()})
    with pytest.warns(LeftDenseWarning):
        MagnitudePruner(model, config).prepare(inputs)
    assert pruned(model) == ["first.base_layer.weight"]


def test_adapters_are_pruned_when_they_are_named() -> None:
    model = adapted()
    config = MagnitudePrunerConfig(module_name_configs={r".*\.lora_A\..*": half()})
    with pytest.warns(LeftDenseWarning, match=r"and 1 weight of adapters"):
        MagnitudePruner(model, config).prepare()
    assert pruned(model) == ["first.lora_A.default.weight"]


def test_adapters_stay_dense_where_nothing_is_trained() -> None:
    model = adapted(inference_mode=True)
    model.requires_grad_(False)
    with pytest.warns(LeftDenseWarning, match=r"left dense: 2 weights of adapters"):
        MagnitudePruner(model).prepare()
    assert pruned(model) == ["first.base_layer.weight", "second.weight", "head.weight"]


def test_a_ramp_of_the_weights_below_goes_up_while_only_the_adapter_is_trained() -> None:
    model = adapted()
    config = MagnitudePrunerConfig(
        global_config=None,
        module_name_configs={BASE: half(PolynomialDecaySchedule(total_iters=4, power=1))},
    )
    pruner = MagnitudePruner(model, config)
    pruner.prepare()
    layer = model.base_model.model.first
    before = layer.base_layer.parametrizations.weight.original.detach().clone()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1)
    pruner.mask_optimizer_state(optimizer)
    shares = []
    for _ in range(5):
        optimizer.zero_grad()
        (model(torch.rand(4, 8)) - 1).square().mean().backward()
        optimizer.step()
        pruner.step()
        shares.append(int((layer.base_layer.weight == 0).sum()))
    assert shares == [10, 21, 32, 32, 32]  # floor(64 * 0.5 * k / 3)
    assert torch.equal(layer.base_layer.parametrizations.weight.original, before)
    assert layer.lora_B["default"].weight.count_nonzero() > 0


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
@pytest.mark.parametrize("safely", [True, False])
def test_merging_waits_until_the_masks_are_folded_in(merge: str, safely: bool) -> None:
    model = adapted()
    pruner = MagnitudePruner(
        model, MagnitudePrunerConfig(global_config=None, module_name_configs={BASE: half()})
    )
    pruner.prepare()
    trained(model)
    arguments = {"safe_merge": safely}
    with pytest.raises(MaskedMergeError, match=r"first' cannot be merged.*finalize") as refused:
        getattr(model, merge)(**arguments)
    assert isinstance(refused.value, PruningError)

    pruner.finalize()
    layer = model.base_model.model.first
    sparse = layer.base_layer.weight.detach().clone()
    delta = layer.get_delta_weight("default")
    inputs = torch.rand(3, 8)
    outputs = model(inputs)
    getattr(model, merge)(**arguments)
    merged = layer.base_layer.weight
    assert int((sparse == 0).sum()) == 32
    assert torch.equal(merged, sparse + delta)
    assert int((merged == 0).sum()) < 32  # what is merged is dense
    torch.testing.assert_close(model(inputs), outputs)


def test_a_model_whose_preparation_fails_can_be_merged() -> None:
    model = adapted()
    config = MagnitudePrunerConfig(global_config=None, module_name_configs={BASE: half()})
    model.base_model.model.first.base_layer.weight.data[0, 0] = torch.nan
    with pytest.raises(ArithmeticError):
        MagnitudePruner(model, config).prepare()
    model.merge_adapter()
    assert model.base_model.model.first.merged


def test_weights_that_were_merged_are_pruned_like_any() -> None:
    model = adapted().merge_and_unload()
    model.requires_grad_(True)
    MagnitudePruner(model).prepare()
    assert pruned(model) == ["first.weight", "second.weight", "head.weight"]


def test_adapters_that_keep_no_layers_are_left_alone() -> None:
    model = peft.get_peft_model(
        Net(), peft.IA3Config(target_modules=["first"], feedforward_modules=[])
    )
    config = MagnitudePrunerConfig(
        global_config=None, module_name_configs={r"base_model\.model\.first": half()}
    )
    MagnitudePruner(model, config).prepare()
    assert pruned(model) == ["first.base_layer.weight"]
    assert model.base_model.model.first.ia3_l["default"].requires_grad


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_encoder_of_prompts_is_an_adapter() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    tiny = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=2,
    )
    prompts = peft.PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, encoder_hidden_size=8
    )
    model = peft.get_peft_model(transformers.BertForSequenceClassification(tiny), prompts)
    with pytest.warns(LeftDenseWarning, match=r"3 weights of adapters \('prompt_encoder\.default"):
        MagnitudePruner(model).prepare()
    assert pruned(model) == ["base_model.classifier.modules_to_save.default.weight"]


@pytest.mark.slow
def test_peft_is_not_imported_to_look_for_its_layers() -> None:
    code = (
        "import sys, torch; from coreai_opt.pruning import MagnitudePruner; "
        "MagnitudePruner(torch.nn.Linear(2, 2)).prepare(); print('peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
