"""Initial weights: the file that ``init_from`` names, loaded into a fresh model."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.parameter import is_lazy

from coreai_opt.config.errors import ConfigError
from coreai_opt.pruning import PruningError, plain_state_dict
from coreai_opt.pruning._text import listed
from lightning_callbacks._lightning.method_patches import MethodPatches
from lightning_callbacks._lightning.roots import of_root
from lightning_callbacks._resume.unsafe_globals import (
    NotUnpickled,
    foreign_in_file,
    load_without_foreign,
)

if TYPE_CHECKING:
    import pytorch_lightning as pl

SAFETENSORS = ".safetensors"
CONTAINERS = ("state_dict", "model_state_dict", "model")  # under which people save a state dict
# Stand-ins of torch for objects that it does not build with weights_only.
FOREIGN = re.compile(r"GLOBAL (\S+)")

STATE_DICT = "what torch.save(model.state_dict(), PATH) writes"
FILES = f"{STATE_DICT}, a Lightning checkpoint, or a {SAFETENSORS} file"


def start_from(model: "pl.LightningModule", network: nn.Module, path: Path) -> None:
    """Load weights before the training, as soon as the layers that they belong to are there.

    That is now; where the module makes layers in its ``setup`` or ``configure_model``, it is after
    the first call of that, and before masks are made.

    Args:
        model: in training.
        network: the part of it whose weights they are, or all of it.
        path: the file.

    Raises:
        ConfigError: as ``load_initial_weights``, now or out of the hook.
    """
    is_overridden = of_root(model, "utilities.model_helpers", "is_overridden")
    makers = [name for name in ("configure_model", "setup") if is_overridden(name, model)]
    if not makers:
        load_initial_weights(network, path)
        return
    waiting = [path]

    # Lightning calls the hook again before it validates and tests: those are the trained weights.
    def load_once() -> None:
        if waiting:
            load_initial_weights(network, waiting.pop())

    MethodPatches().after(model, makers[0], load_once)


def load_initial_weights(network: nn.Module, path: Path) -> None:
    """Load all weights of a network from a file, under exactly the names that they have there.

    The file is a state dict that ``torch.save`` has written, alone or under one of the keys
    ``state_dict`` (as in Lightning's checkpoints), ``model_state_dict`` and ``model``, or a
    safetensors file. Names may all carry one prefix more (``module.``, ``network.``). Of the names
    of a tied tensor one is enough.

    Nothing but weights is unpickled: what else a checkpoint holds, as the classes among the
    hyperparameters of a Lightning checkpoint, is neither imported nor called.

    Args:
        network: gets the weights.
        path: the file.

    Raises:
        ConfigError: the file is no checkpoint, or not one of this network; the network may hold
            some of the weights then.
    """
    state = _state_dict(_content(path), path)
    own = network.state_dict()
    consume_prefix_in_state_dict_if_present(state, _prefix(state, own))
    if state.keys() - own.keys():
        state = _plain(state, path)  # a network may have masks of its own
        consume_prefix_in_state_dict_if_present(state, _prefix(state, own))
    _complete_ties(state, network, path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(_differences(state, own)) or " ".join(str(error).split())
        allowed = "weights of this very model"
        raise _refusal(path, f"does not fit the model; {reason}", allowed) from error


def _plain(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return masked weights under a plain model's own keys, whoever has put masks on them."""
    try:
        return plain_state_dict(state)
    except PruningError as error:
        raise _refusal(path, f"holds masks that cannot be read: {error}", STATE_DICT) from error


def _content(path: Path) -> Any:
    try:
        return load_file(path) if path.suffix == SAFETENSORS else load_without_foreign(path)
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror or error}", FILES) from error
    except Exception as error:  # what torch makes of strange bytes can be anything
        named = FOREIGN.search(str(error)) if isinstance(error, UnpicklingError) else None
        foreign = [named[1]] if named else foreign_in_file(path)
        if foreign:
            raise _not_unpickled(path, foreign) from error
        raise _refusal(path, "is no checkpoint, or is cut off", FILES) from error


def _not_unpickled(path: Path, foreign: Collection[str]) -> ConfigError:
    reason = f"holds more than weights ({listed(foreign, str)}), and that is not unpickled"
    return _refusal(path, reason, STATE_DICT)


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    state = content
    if isinstance(content, dict):
        inner = (content.get(name) for name in CONTAINERS)
        state = next((value for value in inner if isinstance(value, dict)), content)
    if foreign := sorted(set(_foreign(state))):
        raise _not_unpickled(path, foreign)
    if not isinstance(state, dict):
        raise _refusal(path, f"holds no state dict, but a {type(state).__name__}", FILES)
    named = all(isinstance(key, str) for key in state)
    if not named or not any(isinstance(value, Tensor) for value in state.values()):
        keys = listed(state, str) or "none"
        where = ", ".join(CONTAINERS)
        reason = f"holds no tensors by their names; its keys are: {keys}"
        raise _refusal(path, reason, f"{FILES}; under one of {where}, or not under a key")
    return state


def _foreign(value: Any) -> Iterator[str]:
    """Yield the names of objects that were not unpickled in a state dict."""
    if isinstance(value, NotUnpickled) or (
        isinstance(value, type) and issubclass(value, NotUnpickled)
    ):
        yield value.path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _foreign(key)
            yield from _foreign(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _foreign(item)


def _prefix(keys: Collection[str], own: Collection[str]) -> str:
    """Return the prefix of all keys without which most of them are the network's own."""
    one = next(iter(keys))
    found = [one[: end + 1] for end, character in enumerate(one) if character == "."]
    shared = [prefix for prefix in found if all(key.startswith(prefix) for key in keys)]
    fitting = {
        prefix: sum(key.removeprefix(prefix) in own for key in keys) for prefix in ["", *shared]
    }
    return max(fitting, key=lambda prefix: fitting[prefix])


def _ties(network: nn.Module) -> list[list[str]]:
    """Return the names of each tensor that a state dict has under several."""
    names: dict[Any, list[str]] = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            names.setdefault(_identity(value), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _identity(tensor: Tensor) -> Any:
    if is_lazy(tensor) or tensor.is_meta or not tensor.numel():
        return id(tensor)
    place = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
    return tensor.device, *place, tensor.shape, tensor.stride()


def _complete_ties(state: dict[str, Any], network: nn.Module, path: Path) -> None:
    """Give a tensor of several names to all of them where the file has it under some."""
    for names in _ties(network):
        given = [name for name in names if name in state]
        for name in given[1:]:
            if not _equal(state[given[0]], state[name]):
                raise _refusal(
                    path,
                    f"holds different values under {given[0]} and {name}, which are one tensor in "
                    "the model",
                    "weights of a model in which they are tied as well",
                )
        if given:
            state.update({name: state[given[0]] for name in names if name not in state})


def _equal(one: Any, other: Any) -> bool:
    if _shape(one) != _shape(other) or not isinstance(one, Tensor):
        return True  # load_state_dict says what is wrong with it
    same = (one == other) | (one.isnan() & other.isnan())
    return bool(same.all())


def _differences(state: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return the differences between a state dict and the network's, a clause for each kind."""
    shapes = [
        f"{key} {_shape(value)} in the file, {_shape(own[key])} in the model"
        for key, value in state.items()
        if key in own and _shape(value) != _shape(own[key])
    ]
    found = {
        "missing keys": [key for key in own if key not in state],
        "unexpected keys": [key for key in state if key not in own],
        "other shapes": shapes,
    }
    return [
        f"{what}: {len(names)} ({listed(names, str)})" for what, names in found.items() if names
    ]


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _refusal(path: Path, reason: str, allowed: str) -> ConfigError:
    return ConfigError.of("init_from", f"init_from={path} {reason}; allowed: {allowed}")
