"""Loading of a prepared state dict: masks and step come from it instead of step 0."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.model.targets import masked_names
from coreai_opt.pruning.spec.mask_state import EXTRA_STATE, STEP_COUNT

PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.(\w+)\..*$")


def load_prepared(
    model: nn.Module, state_dict: Mapping[str, Any], unmasked: Collection[str] = ()
) -> None:
    """Load the state dict of a prepared model into one that was prepared by the same config.

    Where keys or shapes do not fit the model stays as it was; a RuntimeError says what differs.
    ``unmasked`` are the names of the weights that the config prunes and the state dict has no masks
    for; they are dense in the model.
    """
    if differences := _differences(model.state_dict(), state_dict, unmasked):
        raise RuntimeError(
            "the state dict does not fit the model as this config prepares it: "
            f"{'; '.join(differences)}; allowed: that of a model that was prepared with this config"
        )
    model.load_state_dict(state_dict)


def _differences(
    own: Mapping[str, Any], state: Mapping[str, Any], unmasked: Collection[str]
) -> list[str]:
    ours, theirs = masked_names(own) | set(unmasked), masked_names(state)
    told = ours ^ theirs
    parts = {
        "it has no mask of": ours - theirs,
        "it has a mask of what stays dense here": theirs - ours,
        "it lacks": _beyond(own, state, told),
        "it has what the model lacks": _beyond(state, own, told),
    }
    texts = [f"{what} {listed(sorted(keys))}" for what, keys in parts.items() if keys]
    shapes = {
        key: (value.shape, state[key].shape)
        for key, value in own.items()
        if isinstance(value, Tensor) and isinstance(state.get(key), Tensor)
        if key.rpartition(".")[2] not in (STEP_COUNT, EXTRA_STATE)
    }
    differing = [
        f"{key!r} is {list(there)} in it and {list(here)} here"
        for key, (here, there) in shapes.items()
        if here != there
    ]
    return [*texts, listed(differing, str, "; ")] if differing else texts


def _beyond(one: Mapping[str, Any], other: Mapping[str, Any], told: Collection[str]) -> list[str]:
    """Return the keys that only one has, without those of weights that are listed already."""
    return [
        key
        for key in one
        if key not in other
        and PARAMETRIZED.sub(r"\1\2", key) not in told
        and not _is_former(key, other)
    ]


def _is_former(key: str, other: Mapping[str, Any]) -> bool:
    """Return whether a key is of the state of a mask that stands under another key in the other."""
    prefix, _, name = key.rpartition(".")
    kinds = (STEP_COUNT, EXTRA_STATE)
    return name in kinds and any(f"{prefix}.{kind}" in other for kind in kinds)
