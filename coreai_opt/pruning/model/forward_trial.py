"""Forward trial: do the zeros of a weight reach the ops of a layer with its own forward pass?

Such a layer may compute another tensor from the weight (weight standardisation), or write to the
weight (max-norm). A copy of it is called once, with zeros in its weight, and what the ops of torch
are given is looked at.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from coreai_opt.pruning._torch_internals import CONVOLUTION_FORWARD, parameters_of, version_of
from coreai_opt.pruning.model.operations import FUNCTIONS, MODULES, named_arguments
from coreai_opt.pruning.model.products import PRODUCTS

LARGE = 1e3  # so large that a bound on a norm or a value is exceeded

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


Zeros = Literal["arrive", "altered", "unseen"]


@dataclass(frozen=True)
class Trial:
    """What a trial has shown.

    Attributes:
        zeros: ``arrive`` where the ops were given the zeros of the weight, ``altered`` where they
            were given something else in its place, ``unseen`` where neither can be said.
        writes: whether the forward pass has changed the weight.
    """

    zeros: Zeros
    writes: bool


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a layer that is pruned is called otherwise than its class of torch."""
    kind = next((kind for kind in MODULES if isinstance(module, kind)), None)
    if kind is None:
        return False
    names = ("__call__", "forward", CONVOLUTION_FORWARD)
    return any(
        name in vars(module) or getattr(type(module), name, None) is not getattr(kind, name, None)
        for name in names
    )


def kind_of_trial(module: nn.Module) -> Any:
    """Return what two layers have in common that compute alike: their class, and plain settings."""
    plain = (bool, int, float, str, tuple, type(None))
    settings = {name: value for name, value in vars(module).items() if isinstance(value, plain)}
    return type(module), "forward" in vars(module), str(sorted(settings.items()))


def try_out(module: nn.Module, parameter: str) -> Trial:
    """Call copies of a layer with zeros in its weight, and see what its ops are given.

    What happens in evaluation decides: noise on a weight in training is another thing. Zeros that
    arrive only as long as other tensors of the layer are as they are now (the factors of an adapter
    begin with 0) are no promise: they are ``unseen``.

    Nothing is left of it but what the forward pass does outside of the module.
    """
    # A function that was put on one layer goes on with that layer, also on a copy.
    is_put_on = not isinstance(vars(module).get("forward", module.forward), MethodType)
    if is_put_on or not isinstance(module, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)):
        return Trial("unseen", False)
    devices = [value.device for value in module.parameters() if value.is_cuda]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        as_it_is, trained = (_trial(module, parameter, mode) for mode in (False, True))
        later = _trial(module, parameter, False, filled=True)
    zeros = trained.zeros if as_it_is.zeros == "unseen" else as_it_is.zeros
    if zeros == "arrive" and later.zeros == "altered":
        zeros = "unseen"
    return Trial(zeros, as_it_is.writes or trained.writes)


def _trial(module: nn.Module, parameter: str, training: bool, filled: bool = False) -> Trial:
    """Call one copy, in training or in evaluation; ``filled``: with noise in all else it holds."""
    try:
        twin: Any = copy.deepcopy(module).train(training)
        weight = parameters_of(twin)[parameter]
        kept = torch.rand(weight.shape, device=weight.device) < 0.5
        with torch.no_grad():
            if filled:
                _fill(twin, weight)
            weight.copy_(torch.where(kept, torch.randn_like(weight) * LARGE, 0))
            before = weight.clone()
            seen = _Seen(kept)
            call = twin if type(twin).__call__ is not nn.Module.__call__ else twin.forward
            with seen:
                call(_input_of(module, weight))
    except Exception:
        # It may want other arguments, or something that is not there yet.
        return Trial("unseen", False)
    now = parameters_of(twin).get(parameter)
    return Trial(seen.zeros, now is None or not torch.equal(now, before))


def _fill(module: nn.Module, weight: Tensor) -> None:
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor is not weight and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)


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
    return value.data_ptr(), version_of(parameter), float(value.sum(dtype=torch.float64))


class _Seen(TorchFunctionMode):
    """Looks for a weight among what ops are given, by its zeros."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self._kept = kept
        self._arrived: set[bool] = set()

    @property
    def zeros(self) -> Zeros:
        """What was seen; where only some ops were given the zeros, nothing is sure."""
        if self._arrived == {True}:
            return "arrive"
        return "altered" if self._arrived == {False} else "unseen"

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for tensor in _operands(func, args, kwargs or {}):
            if tensor.numel() == self._kept.numel():
                self._arrived.add(self._are_in(tensor))
        return func(*args, **(kwargs or {}))

    def _are_in(self, tensor: Tensor) -> bool:
        turned = [self._kept, self._kept.t()] if self._kept.dim() == 2 else [self._kept]
        alike = [kept for kept in turned if kept.shape == tensor.shape]
        if alike:
            return any(bool((tensor[~kept] == 0).all()) for kept in alike)
        # By their number: it may have its axes joined.
        return int((tensor == 0).sum()) >= int((~self._kept).sum())


def _operands(function: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield what an op takes as its weight; of a product it may be any operand."""
    if function in PRODUCTS:
        yield from _tensors([*args, *kwargs.values()])
    elif function in FUNCTIONS:
        given = named_arguments(function, args, kwargs)
        yield from _tensors(given.get(name) for name in FUNCTIONS[function][1])


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _input_of(module: Any, weight: Tensor) -> Tensor:
    """Return an input that a layer of this class and these sizes takes.

    It has more elements than the weight, so that none is taken for the other.
    """
    if isinstance(module, nn.Linear):
        shape = [module.out_features + 1, module.in_features]
    else:
        sides = zip(module.kernel_size, module.dilation, strict=True)
        batch = 2 * module.out_channels + 1
        shape = [batch, module.in_channels, *(gap * (side - 1) + 1 for side, gap in sides)]
    return torch.randn(shape, device=weight.device, dtype=weight.dtype)
