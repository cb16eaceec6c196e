"""Op search: which ops a model runs on which weights, by module type or by tracing a forward."""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from coreai_opt.pruning._torch_internals import buffers_of, children_of, parameters_of
from coreai_opt.pruning.model.products import ATTENTION, PRODUCTS, op_products, parameter_products
from coreai_opt.pruning.model.recurrent import (
    RECURRENT_OPS,
    RECURRENT_TYPES,
    RECURRENT_WEIGHT,
    recurrent_op,
    recurrent_weights,
)

PRODUCT = "product"  # with a parameter, by a function whose weights are not pruned

# Attention with sizes of its own for keys and values keeps the input projection in three parts.
PROJECTIONS = dict.fromkeys(
    ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), "in_proj_weight"
)

# Type of module -> the op it runs, and the parameters it hands over: path from the module -> the
# name by which specs know them.
MODULES: dict[type[nn.Module], tuple[str, dict[str, str]]] = {
    nn.Linear: ("linear", {"weight": "weight"}),
    nn.Conv1d: ("conv1d", {"weight": "weight"}),
    nn.Conv2d: ("conv2d", {"weight": "weight"}),
    nn.Conv3d: ("conv3d", {"weight": "weight"}),
    nn.ConvTranspose1d: ("conv_transpose1d", {"weight": "weight"}),
    nn.ConvTranspose2d: ("conv_transpose2d", {"weight": "weight"}),
    nn.ConvTranspose3d: ("conv_transpose3d", {"weight": "weight"}),
    nn.MultiheadAttention: (ATTENTION, {**PROJECTIONS, "out_proj.weight": "weight"}),
    # Their op and its weights depend on how they are built.
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN, *RECURRENT_TYPES[1:]), ("", {})),
}

# The same of packages that may not be there: (module, name of the type) -> as above. This one, of
# GPT-2 and its like, is a linear layer: torch.addmm with a weight of (inputs, outputs).
FOREIGN_MODULES: dict[tuple[str, str], tuple[str, dict[str, str]]] = {
    ("transformers.pytorch_utils", "Conv1D"): ("linear", {"weight": "weight"}),
}

# The functions that are followed -> type of op, and argument -> the name by which specs know it.
FUNCTIONS: dict[Callable[..., Any], tuple[str, dict[str, str]]] = {
    F.linear: ("linear", {"weight": "weight"}),
    torch.addmm: ("linear", {"mat2": "weight"}),  # only by FOREIGN_MODULES
    torch.conv1d: ("conv1d", {"weight": "weight"}),
    torch.conv2d: ("conv2d", {"weight": "weight"}),
    torch.conv3d: ("conv3d", {"weight": "weight"}),
    torch.conv_transpose1d: ("conv_transpose1d", {"weight": "weight"}),
    torch.conv_transpose2d: ("conv_transpose2d", {"weight": "weight"}),
    torch.conv_transpose3d: ("conv_transpose3d", {"weight": "weight"}),
    F.multi_head_attention_forward: (ATTENTION, {**PROJECTIONS, "out_proj_weight": "weight"}),
}


@dataclass(frozen=True)
class WeightUse:
    """A parameter, and an op that uses it.

    ``state`` is the name of what the op takes it for, ``weight`` or ``in_proj_weight``,
    ``op_names`` the op's name alone and behind the name of the module that runs it.
    """

    module_name: str
    module: nn.Module
    parameter: str
    state: str
    op_type: str
    op_names: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.module_name}.{self.parameter}".lstrip(".")

    @property
    def known_as(self) -> tuple[str, ...]:
        """The names by which a spec may mean the parameter, its own first."""
        return (self.parameter, self.state)


@dataclass(frozen=True)
class OpCall:
    """One call of an op in a forward pass.

    ``weights`` are the tensors that were handed over: the name by which specs know each, the
    tensor, and how many multiplications with its elements the call made. Calls of other functions
    that multiply with a parameter are there too, with the type ``product`` and no such name.
    """

    op_type: str
    caller: str
    op_name: str
    weights: tuple[tuple[str, Tensor, int], ...]


def supported_types() -> list[type[nn.Module]]:
    """Return the module types whose weights are pruned."""
    return list({**MODULES, **_foreign_modules()})


def prunable_types() -> list[str]:
    """Return the names of the module types whose weights are pruned."""
    return [kind.__name__ for kind in supported_types()]


def _foreign_modules() -> dict[type[nn.Module], tuple[str, dict[str, str]]]:
    """Return those of ``FOREIGN_MODULES`` that have been imported, and so may be in a model."""
    return {
        getattr(sys.modules[module], name): what
        for (module, name), what in FOREIGN_MODULES.items()
        if module in sys.modules
    }


def uses_by_type(model: nn.Module) -> Iterator[WeightUse]:
    """Yield the weights of linear, convolution, recurrent and attention layers, in order.

    A module that stands under several names is yielded under each.
    """
    known = {**MODULES, **_foreign_modules()}
    within_attention: set[int] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in within_attention or (layer := _layer(module, known)) is None:
            continue
        op_type, parameters = layer
        op_names = (op_type, f"{name}.{op_type}".lstrip("."))
        for path, state in parameters.items():
            child, _, parameter = path.rpartition(".")
            owner = module.get_submodule(child)
            if child:
                within_attention.add(id(owner))
            if _has(owner, parameter):
                owner_name = f"{name}.{child}".strip(".")
                yield WeightUse(owner_name, owner, parameter, state, op_type, op_names)


def _layer(
    module: nn.Module, known: Mapping[type[nn.Module], tuple[str, dict[str, str]]]
) -> tuple[str, dict[str, str]] | None:
    """Return the op of a prunable layer and its parameters as ``MODULES`` has them, else None."""
    if isinstance(module, RECURRENT_TYPES):
        names = [*parametrizations_of(module), *parameters_of(module)]
        return recurrent_op(module), dict.fromkeys(
            filter(RECURRENT_WEIGHT.fullmatch, names), "weight"
        )
    return next((known[kind] for kind in known if isinstance(module, kind)), None)


def parametrizations_of(module: nn.Module) -> Mapping[str, Any]:
    """Return the parametrizations of a module's own parameters, by the parameters' names."""
    # A compiled module answers is_parametrized for the one inside. What is scripted has no dict of
    # modules, only something like it.
    children = children_of(module)
    held = children["parametrizations"] if "parametrizations" in children else None  # noqa: SIM401
    return dict(held.items()) if isinstance(held, nn.ModuleDict) else {}


def _has(module: nn.Module, parameter: str) -> bool:
    # Reading a parametrized weight would compute it.
    if parametrize.is_parametrized(module, parameter):
        return True
    return getattr(module, parameter, None) is not None


def uses_by_call(model: nn.Module, example_inputs: Any) -> list[WeightUse]:
    """Return the weights that a forward pass hands to the ops, in the order of the calls.

    A weight that is computed on the way (transposed, scaled) is no parameter and is not found,
    unless it stands where a layer has its weight (weight norm and its like).
    """
    # A lazy layer has no parameter to be recognised by before it has run.
    if any(map(nn.parameter.is_lazy, model.parameters())):
        trace_forward(model, example_inputs)
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter, value in parameters_of(module).items():
            if value is not None:
                owners.setdefault(id(value), []).append((name, module, parameter))
    computed = [use for use in uses_by_type(model) if _is_computed(use)]
    uses: dict[tuple[str, str, tuple[str, ...]], WeightUse] = {}
    for call in trace_forward(model, example_inputs):
        if call.op_type == PRODUCT:
            continue
        op_names = (call.op_name, f"{call.caller}.{call.op_name}".lstrip("."))
        for use in computed:
            if op_names[1] == use.op_names[1]:
                uses.setdefault((use.module_name, use.parameter, op_names), use)
        for state, weight, _ in call.weights:
            for name, module, parameter in owners.get(id(weight), []):
                use = WeightUse(name, module, parameter, state, call.op_type, op_names)
                uses.setdefault((name, parameter, op_names), use)
    return list(uses.values())


def _is_computed(use: WeightUse) -> bool:
    return parameters_of(use.module).get(use.parameter) is None


def trace_forward(model: nn.Module, example_inputs: Any) -> list[OpCall]:
    """Run a model once, in evaluation mode and without gradients, and return the ops it called.

    The inputs are a tensor, a tuple or list of positional, or a dict of keyword arguments. Buffers,
    training flags and torch's random state are as before afterwards.
    """
    arguments, keywords = _arguments(example_inputs)
    with undisturbed(model), _ForwardTrace(model) as calls, torch.no_grad():
        model(*arguments, **keywords)
    return calls


class _ForwardTrace:
    """Records the calls of ops, and which module makes them, while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._model = model
        # Tensors with which a product is counted; masked ones are computed once (``undisturbed``).
        masked = [
            getattr(module, name)
            for module in model.modules()
            for name in parametrizations_of(module)
        ]
        self._known = {id(tensor) for tensor in [*model.parameters(), *masked]}
        self._stack: list[tuple[str, Counter[str]]] = [("", Counter())]
        self._calls: list[OpCall] = []
        self._exits = ExitStack()

    def __enter__(self) -> list[OpCall]:
        with ExitStack() as exits:
            for module in self._model.modules():
                # What is scripted takes no hooks, and its calls cannot be seen.
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                before = module.register_forward_pre_hook(self._enter)
                exits.callback(before.remove)
                after = module.register_forward_hook(self._leave, always_call=True)
                exits.callback(after.remove)
            exits.enter_context(_Mode(self._record))
            self._exits = exits.pop_all()
        return self._calls

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._stack.append((self._names[id(module)], Counter()))

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop()

    def _record(self, function: Any, arguments: Any, keywords: Any, output: Any) -> None:
        caller, counts = self._stack[-1]
        if function in PRODUCTS and not (function is torch.addmm and self._is_foreign(caller)):
            made = parameter_products(function, arguments, output, self._known)
            if products := tuple(("", tensor, count) for tensor, count in made):
                self._calls.append(OpCall(PRODUCT, caller, PRODUCT, products))
            return
        if function in RECURRENT_OPS:
            op_type, read = RECURRENT_OPS[function], recurrent_weights(arguments, keywords)
            weights = tuple(("weight", tensor, count) for tensor, count in read)
        else:
            op_type, parameters = FUNCTIONS[function]
            given = named_arguments(function, arguments, keywords)
            weights = tuple(
                (state, given[argument], op_products(op_type, argument, given, output))
                for argument, state in parameters.items()
                if isinstance(given.get(argument), Tensor)
            )
        number = counts[op_type]
        counts[op_type] += 1
        op_name = f"{op_type}_{number}" if number else op_type
        self._calls.append(OpCall(op_type, caller, op_name, weights))

    def _is_foreign(self, name: str) -> bool:
        return isinstance(self._model.get_submodule(name), tuple(_foreign_modules()))


class _Mode(TorchFunctionMode):
    def __init__(self, record: Callable[..., None]) -> None:
        super().__init__()
        self._record = record

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # Within this call the mode is off: what attention calls itself is not seen again.
        output = func(*args, **(kwargs or {}))
        if func in FUNCTIONS or func in RECURRENT_OPS or func in PRODUCTS:
            self._record(func, args, kwargs or {}, output)
        return output


def named_arguments(function: Any, arguments: Any, keywords: Any) -> dict[str, Any]:
    """Return the arguments of a call of one of ``FUNCTIONS`` by name, the weights among them."""
    if function is F.multi_head_attention_forward:
        return inspect.signature(function).bind(*arguments, **keywords).arguments
    names = ("input", "mat1", "mat2") if function is torch.addmm else ("input", "weight")
    return {**dict(zip(names, arguments, strict=False)), **keywords}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and afterwards all of it back to what it was.

    In between a parametrized weight is computed once, so that it is one tensor wherever it is read.
    """
    training = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # its buffers cannot be exchanged
        for name, buffer in buffers_of(module).items()
        if buffer is None or not nn.parameter.is_lazy(buffer)
    ]
    # Attention's and the encoder's fast path would call none of the functions that are followed.
    fast = torch.backends.mha.get_fastpath_enabled()
    devices = [parameter.device for parameter in model.parameters() if parameter.is_cuda]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))), parametrize.cached():
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        # The pass writes to copies: a write to the buffers themselves, even of the same values,
        # would invalidate a graph that waits for its backward pass.
        for module, name, buffer in buffers:
            buffers_of(module)[name] = None if buffer is None else buffer.clone()
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, flag in training.items():
                module.training = flag
            for module, name, buffer in buffers:
                buffers_of(module)[name] = buffer


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}
