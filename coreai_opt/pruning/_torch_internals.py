"""Private names of torch, all in this file; known to work in torch 2.6 to 2.13."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.utils.hooks import RemovableHandle

from coreai_opt._private_names import private_name

KNOWN = "torch 2.6 to 2.13"

_queue_callback = private_name(Variable, "_execution_engine.queue_callback", KNOWN)
_current_task = private_name(torch, "_C._current_graph_task_id", KNOWN)
_transforms_active = private_name(torch, "_C._are_functorch_transforms_active", KNOWN)
_storage = private_name(torch, "_C._has_storage", KNOWN)
_multiply = private_name(torch, "_foreach_mul_", KNOWN)
_copy = private_name(torch, "_foreach_copy_", KNOWN)

# Attributes of objects: looked for on an object or a class that must have them.
STEP_HOOKS = "_optimizer_step_pre_hooks"  # renamed, no optimizer would be taken for one
CONVOLUTION_FORWARD = "_conv_forward"
"""The method by which a convolution of torch computes."""
FLAT_WEIGHTS = ("_flat_weights", "_flat_weights_names", "_flat_weight_refs")
MAKING_FLAT_WEIGHTS = ("_update_flat_weights", "_init_flat_weights")

for _owner, _names in (
    (nn.Module(), ("_parameters", "_buffers", "_modules")),
    (Tensor, ("_version", "_base")),
    (nn.Conv2d, (CONVOLUTION_FORWARD,)),
    (nn.RNN(1, 1, device="meta"), (*FLAT_WEIGHTS, *MAKING_FLAT_WEIGHTS)),
):
    for _name in _names:
        private_name(_owner, _name, KNOWN)

COMPILED_PREFIX = "_orig_mod."
"""Part of a parameter's name in a model from ``torch.compile``."""


def current_backward() -> int:
    """Return the number of the backward pass that runs now; -1 = no pass runs.

    DistributedDataParallel and torch's own hooks for several gradients use the same number.
    """
    return int(_current_task())


def after_backward(action: Callable[[], None]) -> None:
    """Call an action at the end of the current backward pass, behind those queued before."""
    _queue_callback(action)


def in_function_transform() -> bool:
    """Return whether ``torch.func`` transforms the function that runs now."""
    return bool(_transforms_active())


def has_storage(tensor: Tensor) -> bool:
    """Return whether a tensor has memory; a tensor that ``vmap`` has batched has none."""
    return bool(_storage(tensor))


def has_step_hooks(optimizer: Any) -> bool:
    """Return whether an object calls hooks of its own in ``step``, as an optimizer of torch does.

    A wrapper that only passes on the attributes of its optimizer does not.
    """
    return STEP_HOOKS in getattr(optimizer, "__dict__", {})


def run_first(handle: RemovableHandle) -> RemovableHandle:
    """Move a hook to the front of its list, and return its handle."""
    hooks = handle.hooks_dict_ref()
    if hooks is not None:
        hooks.move_to_end(handle.id, last=False)
    return handle


def multiply_all(values: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor with its factor in place, in as few kernels as torch can do with."""
    _multiply(list(values), list(factors))


def copy_all(values: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Copy each of other tensors into one in place, in as few kernels as torch can do with."""
    if values:  # torch refuses an empty list
        _copy(list(values), list(others))


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to, as autograd counts it."""
    return tensor._version


def base_of(tensor: Tensor) -> Tensor | None:
    """Return the tensor that a view is of; None = it is no view."""
    return tensor._base


def parameters_of(module: nn.Module) -> dict[str, Any]:
    """Return a module's own parameters by name, as the module holds them."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return a module's own buffers by name, as the module holds them."""
    return module._buffers


def children_of(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """Return a module's own submodules by name; a compiled module has one, its ``_orig_mod``."""
    return module._modules


def metadata_of(state_dict: Any) -> Mapping[str, Any]:
    """Return the metadata of a state dict by module; empty for a plain dict."""
    return getattr(state_dict, "_metadata", {})


def set_metadata(state_dict: Any, metadata: Mapping[str, Any]) -> None:
    """Give a state dict, which must be an ``OrderedDict``, its metadata."""
    state_dict._metadata = metadata


def compiled_module_type() -> Any:
    """Return the class of modules from ``torch.compile``; None = nothing was compiled yet."""
    # torch imports this module when something is compiled.
    frames = sys.modules.get("torch._dynamo.eval_frame")
    return None if frames is None else private_name(frames, "OptimizedModule", KNOWN)


COMPUTED = "masked_flat_weights"  # in the __dict__ of a recurrent module, during a forward pass


def give_masked_weights(module: nn.Module) -> None:
    """Make a recurrent layer hand its op the computed values of its parametrized weights.

    ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` hand their op a list of tensors that they keep beside
    their parameters. Nothing is changed but the class that torch has made for this parametrized
    module; any other module is left as it is. The list is computed at the beginning of a forward
    pass and dropped at its end, so that no copy of the module and no file contains it.
    ``flatten_parameters`` does nothing until the masks are folded in: cuDNN lays the weights out
    anew in every call, and torch may warn of that once.
    """
    cls: Any = type(module)
    if not isinstance(module, nn.RNNBase) or FLAT_WEIGHTS[0] in vars(cls):
        return
    forward = cls.forward

    @wraps(forward)
    def forward_with_masks(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__[COMPUTED] = _computed(self)
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.__dict__.pop(COMPUTED, None)

    cls.forward = forward_with_masks
    cls._flat_weights = property(_flat_weights, _do_nothing)
    for name in (*MAKING_FLAT_WEIGHTS, "flatten_parameters"):
        setattr(cls, name, _do_nothing)
    cls.__jit_unused_properties__ = [*cls.__jit_unused_properties__, FLAT_WEIGHTS[0]]
    # Their former contents would be copied along with the module.
    vars(module).update(_flat_weights=[], _flat_weight_refs=[])


def give_plain_weights(module: nn.Module) -> None:
    """Take back what ``give_masked_weights`` has changed, once the masks are gone."""
    if not isinstance(module, nn.RNNBase):
        return
    cls: Any = type(module)
    if FLAT_WEIGHTS[0] in vars(cls):  # somebody else's parametrization is still there
        replaced = (FLAT_WEIGHTS[0], *MAKING_FLAT_WEIGHTS, "flatten_parameters", "forward")
        for name in (*replaced, "__jit_unused_properties__"):
            delattr(cls, name)
    module._init_flat_weights()


def _flat_weights(module: Any) -> list[Tensor | None]:
    given: list[Tensor | None] | None = vars(module).get(COMPUTED)
    return _computed(module) if given is None else given


def _computed(module: Any) -> list[Tensor | None]:
    return [getattr(module, name, None) for name in module._flat_weights_names]


def _do_nothing(module: Any, *args: Any) -> None:
    """Stand in for methods that would make the list, which is computed when it is read."""
