"""Trial of a layer whose class has a forward pass of its own: do zeros of its weight arrive?

Such a layer may compute another tensor from the weight (weight standardisation), or write to the
weight (max-norm). A copy of it is called once, with zeros in its weight, and what the ops of torch
are given is looked at.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from coreai_opt.pruning.operations import FUNCTIONS, MODULES
from coreai_opt.pruning.products import PRODUCTS

__all__ = ["Trial", "has_own_forward", "noted_writes", "try_out"]

LARGE = 1e3  # so large that a bound on a norm or a value is exceeded

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Trial:
    """What a trial has shown.

    Attributes:
        zeros: ``arrive`` where an op was given the zeros of the weight, ``altered`` where the ops
            were given something else in its place, ``unseen`` where no op could be seen.
        writes: whether the forward pass has changed the weight.
    """

    zeros: Literal["arrive", "altered", "unseen"]
    writes: bool


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a linear or convolution layer is called otherwise than its class of torch."""
    kind = next((kind for kind in MODULES if isinstance(module, kind)), None)
    if kind is None or not issubclass(kind, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)):
        return False
    names = ("forward", "_conv_forward")
    return any(
        name in vars(module) or getattr(type(module), name, None) is not getattr(kind, name, None)
        for name in names
    )


def try_out(module: nn.Module, parameter: str) -> Trial:
    """Call a copy of a layer with zeros in its weight, and see what its ops are given.

    Nothing is left of it but what the forward pass does outside of the module.

    Args:
        module: one that ``has_own_forward``; it stays as it is.
        parameter: the name of its weight.
    """
    devices = [value.device for value in module.parameters() if value.is_cuda]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            twin = copy.deepcopy(module).train()
            weight = twin._parameters[parameter]
            assert weight is not None
            kept = torch.rand(weight.shape, device=weight.device) < 0.5
            with torch.no_grad():
                weight.copy_(torch.where(kept, torch.randn_like(weight) * LARGE, 0))
                before = weight.clone()
                seen = _Seen(kept)
                with seen:
                    twin.forward(_input_of(module, weight))
        except Exception:
            # It may want other arguments, or something that is not there yet.
            return Trial("unseen", False)
        now = twin._parameters.get(parameter)
        writes = now is None or not torch.equal(now, before)
        # One that was put on the module alone may hold on to that module, and not use the copy.
        is_sure = seen.zeros == "arrive" or "forward" not in vars(module)
        return Trial(seen.zeros if is_sure else "unseen", writes)


@contextmanager
def noted_writes(model: nn.Module) -> Iterator[set[int]]:
    """Note which parameters of a model are written to meanwhile: their ids, at the end."""
    before = {id(one): _content(one) for one in model.parameters() if not is_lazy(one)}
    written: set[int] = set()
    yield written
    for one in model.parameters():
        if id(one) in before and before[id(one)] != _content(one):
            written.add(id(one))


def _content(parameter: Tensor) -> tuple[int, int, float] | None:
    """Return what changes when somebody writes to a parameter, or puts other numbers behind it."""
    if is_lazy(parameter) or parameter.is_meta or parameter.layout is not torch.strided:
        return None
    value = parameter.detach()
    return value.data_ptr(), parameter._version, float(value.sum(dtype=torch.float64))


class _Seen(TorchFunctionMode):
    """Looks for a weight among what ops are given, by its zeros."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self._kept = kept
        self.zeros: Literal["arrive", "altered", "unseen"] = "unseen"

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in FUNCTIONS or func in PRODUCTS:
            for tensor in _tensors([*args, *(kwargs or {}).values()]):
                self._look_at(tensor)
        return func(*args, **(kwargs or {}))

    def _look_at(self, tensor: Tensor) -> None:
        if tensor.numel() != self._kept.numel() or self.zeros == "arrive":
            return
        # By their number: it may be turned, or have its axes joined.
        arrive = int((tensor == 0).sum()) >= int((~self._kept).sum())
        self.zeros = "arrive" if arrive else "altered"


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _input_of(module: Any, weight: Tensor) -> Tensor:
    """Return an input that a layer of this class and these sizes takes."""
    if isinstance(module, nn.Linear):
        shape = [3, module.in_features]
    else:
        sides = zip(module.kernel_size, module.dilation, strict=True)
        shape = [1, module.in_channels, *(dilation * (side - 1) + 1 for side, dilation in sides)]
    return torch.randn(shape, device=weight.device, dtype=weight.dtype)
