"""Conversion of state dicts: plain weights and in-place masks from models with masks.

Knows the masks of ``torch.nn.utils.prune`` and those of ``MagnitudePruner``.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coreai_opt.pruning._torch_internals import metadata_of, set_metadata
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.state import FORMAT, packed
from coreai_opt.pruning.spec.mask_state import (
    EXTRA_STATE,
    MASK,
    STEP_COUNT,
    ScheduleState,
    mask_of,
    step_of,
)
from coreai_opt.pruning.spec.prune_impl import from_bits

IN_CHAIN = re.compile(r"(?P<module>.*\.)?parametrizations\.(?P<parameter>\w+)\.(?P<rest>.+)")
# What torch's layers call their parameters.
PARAMETERS = re.compile(
    r"(weight|bias)(_[ih]h_\w+|_hr_\w+)?|in_proj_(weight|bias)|[qkv]_proj_weight"
)

NUMBERS = len(ScheduleState._fields)  # in the one entry of former checkpoints


class _Masked(NamedTuple):
    """A weight with a mask in a state dict: keys, and the two tensors."""

    module: str  # with a dot at its end, "" for the root
    parameter: str
    weight_key: str
    mask_key: str
    weight: Tensor
    mask: Tensor  # bool, True = keep
    own_keys: tuple[str, ...]  # of all entries that stand for it

    @property
    def name(self) -> str:
        return self.module + self.parameter

    @property
    def prefix(self) -> str:
        """Of the entries of a mask of ``MagnitudePruner``."""
        return self.mask_key.removesuffix(MASK)


@torch.no_grad()
def plain_state_dict(state_dict: Mapping[str, Any]) -> "OrderedDict[str, Any]":
    """Return the state dict of the unpruned model: masked weights under its own keys.

    Masks of ``torch.nn.utils.prune`` (``weight_orig`` and ``weight_mask``, of any parameter) and of
    ``MagnitudePruner`` are multiplied with their weights. Everything else stays as it is: other
    parametrizations (weight norm), buffers, whatever stands before the keys (``model.``).

    A masked weight comes first among the entries of its module, where torch's layers have it; its
    place among several is the one of their masks. All other entries keep their order.

    Args:
        state_dict: of a model; of a Lightning checkpoint its entry ``"state_dict"``.

    Returns:
        A new dict. Masked weights are new tensors, of their dtypes and on their devices, with +0.0
        where they are pruned; the others are those that were given.

    Raises:
        PruningError: a mask has no weight, another shape than its weight or values other than 0 and
            1; a weight has something on top of its mask, or is there twice.

    Example:
        >>> from torch.nn.utils import prune
        >>> layer = prune.l1_unstructured(nn.Linear(4, 1), "weight", amount=3)
        >>> list(layer.state_dict())
        ['bias', 'weight_orig', 'weight_mask']
        >>> plain = plain_state_dict(layer.state_dict())
        >>> list(plain), int(plain["weight"].count_nonzero())
        (['weight', 'bias'], 1)
    """
    masked = list(_masked_weights(state_dict))
    gone = {key for one in masked for key in one.own_keys}
    waiting: dict[str, list[_Masked]] = {}
    for one in masked:
        if one.name in state_dict:
            raise PruningError(
                f"the state dict has {one.name!r} and {one.mask_key!r}; allowed: a weight with "
                "its mask, or without one"
            )
        waiting.setdefault(one.module, []).append(one)
    result: OrderedDict[str, Any] = OrderedDict()
    for key, value in state_dict.items():
        for module in _modules_around(key):
            for one in waiting.pop(module, ()):
                result[one.name] = torch.where(one.mask.to(one.weight.device), one.weight, 0)
        if key not in gone:
            result[key] = value
    if metadata := metadata_of(state_dict):
        set_metadata(result, _plain_metadata(metadata, masked))
    return result


@torch.no_grad()
def masks_of_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return masks, dense values and step of a ``MagnitudePruner``, for an ``InPlacePruner``.

    ``InPlacePruner.prepare(state_dict=...)`` goes on from it where the training stopped, with
    weights from ``plain_state_dict`` and moments from ``plain_optimizer_state``.

    Args:
        state_dict: of a model that ``MagnitudePruner`` had prepared, of this package or of the
            documented API; of a Lightning checkpoint its entry ``"state_dict"``.

    Returns:
        What ``InPlacePruner.state_dict`` returns. None where there are no such masks: those of
        ``torch.nn.utils.prune`` have no step, and are taken by ``masks_from="zeros"``.

    Raises:
        PruningError: what ``plain_state_dict`` refuses, or the steps of the masks are missing or
            differ.
    """
    masked = [one for one in _masked_weights(state_dict) if one.mask_key.endswith(f".0.{MASK}")]
    if not masked:
        return None
    steps = {one.mask_key: _step(state_dict, one.prefix) for one in masked}
    # A mask without a schedule may stand at 0 where others have gone on.
    step = max(steps.values())
    if apart := [key for key, value in steps.items() if value not in (0, step)]:
        ahead = max(steps, key=lambda key: steps[key])
        raise PruningError(
            f"the masks stand at different steps: {apart[0]!r} at {steps[apart[0]]} and {ahead!r} "
            f"at {step}; allowed: one step for all masks of a model"
        )
    masks = {one.name: _mask_state(state_dict, one, steps[one.mask_key]) for one in masked}
    return {"format": FORMAT, STEP_COUNT: step, "masks": masks}


def plain_optimizer_state(
    saved: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
) -> dict[str, Any]:
    """Return the state of an optimizer in the order of a plain model's parameters.

    An optimizer knows its parameters by their places. Masks on a model (``MagnitudePruner``,
    ``torch.nn.utils.prune``) put a pruned weight behind the bias of its layer, so that moments
    would go to the wrong one.

    Args:
        saved: the state dict of an optimizer of the model with masks; groups of parameters were
            filled in the order of ``named_parameters()``.
        state_dict: of that model, in the order in which ``model.state_dict()`` gave it.
        model: the plain model.
        optimizer: the one that is to load the state, with groups of the same parameters.

    Returns:
        The same state, parameters at their places in ``optimizer``.

    Raises:
        PruningError: the groups differ in number or length, or a parameter of the optimizer is not
            in ``state_dict``.
    """
    names = {one.weight_key: one.name for one in _masked_weights(state_dict)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    former: dict[int, int] = {}
    for key in state_dict:
        if (parameter := parameters.get(names.get(key, key))) is not None:
            former.setdefault(id(parameter), len(former))
    theirs, ours = saved["param_groups"], optimizer.param_groups
    lengths = [[len(group["params"]) for group in groups] for groups in (theirs, ours)]
    if lengths[0] != lengths[1]:
        raise PruningError(
            f"the saved optimizer has groups of {lengths[0]} parameters, and this one of "
            f"{lengths[1]}; allowed: groups of the same parameters"
        )
    groups = []
    for their, our in zip(theirs, ours, strict=True):
        if any(id(parameter) not in former for parameter in our["params"]):
            raise PruningError(
                "the optimizer has a parameter that is not in the state dict of the model; "
                "allowed: the state dict of the model that the saved optimizer trained"
            )
        order = sorted(range(len(our["params"])), key=lambda at: former[id(our["params"][at])])
        params = dict(zip(order, their["params"], strict=True))
        groups.append({**their, "params": [params[place] for place in range(len(params))]})
    return {**saved, "param_groups": groups}


def _masked_weights(state_dict: Mapping[str, Any]) -> Iterator[_Masked]:
    """Yield the weights that have masks in a state dict, in the order of their masks."""
    if isinstance(state_dict.get("state_dict"), Mapping):
        raise PruningError(
            "this is a whole checkpoint, with a 'state_dict' among its entries; allowed: that entry"
        )
    chains: dict[str, list[str]] = {}
    for key in state_dict:
        if match := IN_CHAIN.fullmatch(key):
            chains.setdefault(key[: match.start("rest")], []).append(key)
    for key, value in state_dict.items():
        if (match := IN_CHAIN.fullmatch(key)) and match["rest"] == f"0.{MASK}":
            yield _of_chain(state_dict, key, match, chains[key[: match.start("rest")]])
        elif key.endswith("_mask") and isinstance(value, Tensor):
            module, _, name = key.rpartition(".")
            parameter, module = name.removesuffix("_mask"), f"{module}." if module else ""
            weight_key = f"{module}{parameter}_orig"
            if weight_key in state_dict:
                yield _checked(state_dict, module, parameter, weight_key, key, (weight_key, key))
            elif PARAMETERS.fullmatch(parameter) and module + parameter not in state_dict:
                raise PruningError(_without_weight(key, weight_key))


def _of_chain(
    state_dict: Mapping[str, Any], key: str, match: "re.Match[str]", chained: list[str]
) -> _Masked:
    chain = key.removesuffix(f"0.{MASK}")
    weight_key = f"{chain}original"
    if weight_key not in state_dict:
        raise PruningError(_without_weight(key, weight_key))
    own = tuple(one for one in chained if one == weight_key or one.startswith(f"{chain}0."))
    if above := [one for one in chained if one not in own]:
        raise PruningError(
            f"{above[0]!r} is of a parametrization on top of the mask {key!r}, which cannot be "
            "taken away alone; allowed: a mask on the weight itself"
        )
    module, parameter = match["module"] or "", match["parameter"]
    return _checked(state_dict, module, parameter, weight_key, key, own)


def _without_weight(mask_key: str, weight_key: str) -> str:
    return f"the state dict has the mask {mask_key!r} and not its weight; allowed: {weight_key!r}"


def _checked(
    state_dict: Mapping[str, Any],
    module: str,
    parameter: str,
    weight_key: str,
    mask_key: str,
    own_keys: tuple[str, ...],
) -> _Masked:
    weight = state_dict[weight_key]
    try:
        mask = mask_of(state_dict[mask_key])
    except ValueError as error:
        raise PruningError(f"{mask_key!r}: {error}") from error
    if not isinstance(weight, Tensor) or weight.shape != mask.shape:
        shape = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise PruningError(
            f"{mask_key!r} is {list(mask.shape)} and {weight_key!r} is {shape}; allowed: one shape"
        )
    return _Masked(module, parameter, weight_key, mask_key, weight.detach(), mask, own_keys)


def _modules_around(key: str) -> Iterator[str]:
    """Yield the names of the modules around an entry, from the outside in, each with its dot."""
    yield ""
    for place, letter in enumerate(key):
        if letter == ".":
            yield key[: place + 1]


def _plain_metadata(
    metadata: Mapping[str, Any], masked: "list[_Masked]"
) -> "OrderedDict[str, Any]":
    chains = {
        one.mask_key.removesuffix(f".0.{MASK}")
        for one in masked
        if one.mask_key.endswith(f".0.{MASK}")
    }
    gone = chains | {f"{chain}.0" for chain in chains}
    kept = OrderedDict((key, value) for key, value in metadata.items() if key not in gone)
    for holder in {chain.rpartition(".")[0] for chain in chains}:
        if not any(key.startswith(f"{holder}.") for key in kept):
            kept.pop(holder, None)
    return kept


def _step(state_dict: Mapping[str, Any], prefix: str) -> int:
    try:
        if prefix + STEP_COUNT in state_dict:
            return step_of(state_dict[prefix + STEP_COUNT])
    except ValueError as error:
        raise PruningError(f"{prefix}{error}") from error
    if prefix + EXTRA_STATE in state_dict:
        return ScheduleState.former(from_bits(state_dict[prefix + EXTRA_STATE])).step_count
    raise PruningError(
        f"the mask {prefix + MASK!r} has no step; allowed: {prefix + STEP_COUNT!r} beside it"
    )


def _mask_state(state_dict: Mapping[str, Any], one: _Masked, step: int) -> dict[str, Any]:
    mask = one.mask.to(one.weight.device)
    state: dict[str, Any] = {"bits": packed(mask), "shape": list(mask.shape)}
    metadata = metadata_of(state_dict).get(one.prefix.removesuffix("."), {})
    saved = ScheduleState.read(metadata, step)
    if saved is None and one.prefix + STEP_COUNT not in state_dict:
        saved = ScheduleState.former(from_bits(state_dict[one.prefix + EXTRA_STATE]))
    if saved is not None:
        state |= {"sparsity": saved.sparsity, "scheduled": saved.scheduled}
        state["revived"] = saved.revived
    state["dense"] = one.weight[~mask].cpu()
    criterion: dict[str, Any] = {}
    for key in one.own_keys:
        name, value = key.removeprefix(one.prefix), state_dict[key]
        is_former = name == EXTRA_STATE and value.numel() == NUMBERS  # and of the schedule alone
        if key != one.weight_key and name not in (MASK, STEP_COUNT) and not is_former:
            criterion[name] = value.detach().cpu() if isinstance(value, Tensor) else value
    return {**state, "criterion": criterion} if criterion else state
