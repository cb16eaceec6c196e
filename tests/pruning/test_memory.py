"""What pruning holds in memory: a bool mask a weight, and one masked copy in training."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from coreai_opt.pruning import MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.model.targets import pruned_tensors
from tests.helpers.pruning import RAMP, net

LAYERS = [
    pytest.param(lambda: nn.Linear(32, 16), (8, 32), id="linear"),
    pytest.param(lambda: nn.Conv2d(4, 8, 3), (2, 4, 9, 9), id="conv2d"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_mask_takes_one_byte_a_weight_and_is_all_that_is_added(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    plain = sum(value.nbytes for value in model.state_dict().values())
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
    MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, RAMP)).prepare()
    assert sum(buffer.nbytes for buffer in model.buffers()) == weights
    steps = 8 * len(list(pruned_tensors(model)))
    assert sum(value.nbytes for value in model.state_dict().values()) == plain + weights + steps


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_one_masked_copy_of_a_weight_lives_until_the_backward_pass(
    make: type[nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    MagnitudePruner(model, MagnitudePrunerConfig.uniform(0.5, RAMP)).prepare()
    (tensor,) = pruned_tensors(model)
    inputs = torch.randn(shape, requires_grad=True)
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved):
        model(inputs)
    known = [inputs, tensor.original, tensor.impl.mask, *model.parameters()]
    there_anyway = {value.untyped_storage().data_ptr() for value in known}
    new = [value for key, value in kept.items() if key not in there_anyway]
    assert [value.untyped_storage().nbytes() for value in new] == [tensor.original.nbytes]
