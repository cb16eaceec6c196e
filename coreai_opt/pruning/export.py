"""Folding masks into plain weights."""

from torch import nn
from torch.nn.utils import parametrize

from coreai_opt.pruning.targets import pruned_tensors

__all__ = ["fold_masks"]


def fold_masks(model: nn.Module) -> nn.Module:
    """Write each mask into its weight and take the parametrizations away, in place.

    Raises:
        RuntimeError: the model carries no mask, it must be prepared first.
    """
    tensors = list(pruned_tensors(model))
    if not tensors:
        raise RuntimeError("the model carries no mask: it must be prepared for pruning first")
    for tensor in tensors:
        _own_class(tensor.module)
        parametrize.remove_parametrizations(
            tensor.module, tensor.parameter, leave_parametrized=True
        )
        _move_first(tensor.module, tensor.parameter)
    return model


def _own_class(module: nn.Module) -> None:
    # A deepcopy shares the class that torch made for the parametrized original, and removing the
    # parametrization deletes the property from that class, under the feet of the other.
    shared = type(module)
    content = {key: value for key, value in vars(shared).items() if key != "__dict__"}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _move_first(module: nn.Module, parameter: str) -> None:
    # A removed parametrization leaves its parameter last; in every prunable module it comes first,
    # and a state dict in another order looks like another model to a reader.
    rest = {name: value for name, value in module._parameters.items() if name != parameter}
    for name in rest:
        del module._parameters[name]
    module._parameters.update(rest)
