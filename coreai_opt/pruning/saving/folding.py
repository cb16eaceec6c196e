"""Folding of masks into plain weights."""

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from coreai_opt.pruning._torch_internals import give_plain_weights, parameters_of
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.masks.masking import mask_in_place
from coreai_opt.pruning.model.excluded import allow_merging
from coreai_opt.pruning.model.targets import masked_holders, pruned_tensors
from coreai_opt.pruning.saving.masks_beside import masks_beside, take_away


def remember_order(module: nn.Module) -> None:
    """Note the order of a module's parameters before the first of them gets a mask."""
    if ORDER not in module.__dict__:
        # On the class that torch makes for it, it would be shared by copies; as a plain attribute
        # it is copied with the module and dropped by fold_masks.
        module.__dict__[ORDER] = tuple(parameters_of(module))


def fold_masks(model: nn.Module, masked: bool = True) -> nn.Module:
    """Write each mask into its weight and take the parametrizations away, in place.

    Masks beside the model are no longer known afterwards. With ``masked=False`` weights stay dense.
    A model without masks is a RuntimeError.
    """
    pairs = list(masked_holders(model))
    holders = [holder for holder, _ in pairs]
    if not holders:
        raise RuntimeError("the model carries no mask: it must be prepared for pruning first")
    for holder, impl in pairs:
        if masks_beside(holder.module).get(holder.parameter) is impl:
            if masked:
                mask_in_place(holder.value(), impl.mask)
            take_away(holder.module, holder.parameter)
            continue
        _own_class(holder.module)
        parametrize.remove_parametrizations(
            holder.module, holder.parameter, leave_parametrized=masked
        )
    allow_merging(model)
    for _, impl in pairs:
        impl.release_gradients()
    for holder in holders:
        _restore_order(holder.module)
    for module in {id(holder.module): holder.module for holder in holders}.values():
        give_plain_weights(module)
    return model


def fold_former_masks(model: nn.Module) -> None:
    """Fold the masks in that a training which has ended has left beside a model, if any."""
    left = list(pruned_tensors(model))
    if any(not tensor.is_beside for tensor in left):
        raise PruningError(
            "the module carries masks of a MagnitudePruner; allowed: a module whose masks were "
            "folded in (pruner.finalize())"
        )
    if left:
        fold_masks(model)


ORDER = "_order_of_parameters"


def _own_class(module: nn.Module) -> None:
    # A deepcopy shares the class that torch made for the parametrized original, and removing the
    # parametrization deletes the property from that class, under the feet of the other.
    shared = type(module)
    content = {key: value for key, value in vars(shared).items() if key != "__dict__"}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _restore_order(module: nn.Module) -> None:
    # A removed parametrization leaves its parameter last, and a state dict in another order looks
    # like another model to a reader.
    order: tuple[str, ...] = module.__dict__.pop(ORDER, ())
    parameters: dict[str, Any] = dict(parameters_of(module))
    for name in order:
        if name in parameters:
            del parameters_of(module)[name]
            parameters_of(module)[name] = parameters.pop(name)
