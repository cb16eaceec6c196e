"""Files of an exported model: their content, their checks and how they are written."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import SavedModelError

SCHEMA = 1
WEIGHTS, MASKS, SUMMARY = "weights.safetensors", "masks.safetensors", "summary.json"

Ties = frozenset[frozenset[str]]


@dataclass(frozen=True)
class SavedSpec:
    """How a weight was pruned; sparsities in [0, 1].

    Attributes:
        scheme: the pruning scheme as a dict with its ``type``.
        criterion: key or dotted path of the criterion.
        sparsity: what the mask was computed for.
        scheduled: what the schedule had asked for.
        target: what it was to arrive at.
    """

    scheme: dict[str, Any]
    criterion: str
    sparsity: float
    scheduled: float
    target: float

    def __post_init__(self) -> None:
        for name in ("sparsity", "scheduled", "target"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 to 1")


@dataclass(frozen=True)
class SavedModel:
    """What the files hold.

    Attributes:
        directory: where they are.
        weights: the state dict of the unpruned model, tied weights under all their names.
        ties: the groups of names that stand for one tensor.
        masks: True = keep, by the name of the weight in the unpruned model.
        specs: how each of these weights was pruned.
    """

    directory: Path
    weights: dict[str, Tensor]
    ties: Ties
    masks: dict[str, Tensor]
    specs: dict[str, SavedSpec]

    def check_fits(self, model: nn.Module) -> None:
        """Raise a SavedModelError that says all in which a plain model is another one."""
        state = model.state_dict()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        found = {
            "missing in the file": state.keys() - self.weights.keys(),
            "unexpected in the file": self.weights.keys() - state.keys(),
            "different": self._differences(state),
            "masks without a parameter": self.masks.keys() - parameters.keys(),
        }
        if not any(found.values()):
            own = {frozenset(group & parameters.keys()) for group in self.ties}
            ties = {group for group in own if len(group) > 1}
            apart = ties ^ ties_of(model)
            found["tied only in the file, or only in the model"] = {
                " = ".join(sorted(group)) for group in apart
            }
        problems = [
            f"{what}: {listed(sorted(names), str)}" for what, names in found.items() if names
        ]
        if problems:
            text = "the model is not the one that was saved; " + "; ".join(problems)
            raise SavedModelError(self.directory / WEIGHTS, text)

    def _differences(self, state: Mapping[str, Tensor]) -> list[str]:
        pairs = [(key, value, state[key]) for key, value in self.weights.items() if key in state]
        return [
            f"{key} ({_kind(saved)} in the file, {_kind(own)} in the model)"
            for key, saved, own in pairs
            if _kind(saved) != _kind(own)
        ]


def ties_of(model: nn.Module) -> Ties:
    """Return the groups of names under which one parameter stands."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # Nothing is shared by tensors without elements, as the file has it.
        if parameter.numel():
            names.setdefault(id(parameter), set()).add(name)
    return frozenset(frozenset(group) for group in names.values() if len(group) > 1)


def write(
    directory: Path,
    final: nn.Module,
    masks: Mapping[str, Tensor],
    specs: Mapping[str, SavedSpec],
    summary: Mapping[str, Any],
) -> None:
    """Write the files of a finalized model; all beside their places, then they are renamed."""
    others = [key for key, value in final.state_dict().items() if not isinstance(value, Tensor)]
    if others:
        text = f"only tensors can be written, and these are none: {listed(sorted(others), str)}"
        raise SavedModelError(directory / WEIGHTS, text)
    directory.mkdir(parents=True, exist_ok=True)
    beside = {name: directory / f".{name}.{os.getpid()}" for name in (WEIGHTS, MASKS, SUMMARY)}
    content = {
        "schema": SCHEMA,
        "tensors": {name: asdict(spec) for name, spec in specs.items()},
        "summary": summary,
    }
    try:
        save_model(final, str(beside[WEIGHTS]))
        save_file({name: mask.contiguous() for name, mask in masks.items()}, beside[MASKS])
        text = json.dumps(content, indent=2, allow_nan=False)
        beside[SUMMARY].write_text(text + "\n", encoding="utf-8")
        for name, path in beside.items():
            path.replace(directory / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


def read(directory: Path) -> SavedModel:
    """Read what ``write`` has written; what is missing, damaged or of another is an error."""
    weights, dropped = _tensors(directory / WEIGHTS)
    masks, _ = _tensors(directory / MASKS)
    specs = _specs(directory / SUMMARY)
    groups: dict[str, set[str]] = {}
    for name, kept in dropped.items():
        if kept in weights and name not in weights:
            groups.setdefault(kept, {kept}).add(name)
    for kept, names in groups.items():
        weights |= dict.fromkeys(names, weights[kept])
    ties = frozenset(frozenset(names) for names in groups.values())
    _check_masks(directory, weights, masks, specs)
    return SavedModel(directory, weights, ties, masks, specs)


def _check_masks(
    directory: Path,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    specs: Mapping[str, SavedSpec],
) -> None:
    if apart := masks.keys() ^ specs.keys():
        text = f"does not belong to {MASKS}: only one of them knows {listed(sorted(apart), str)}"
        raise SavedModelError(directory / SUMMARY, text)
    for name, mask in masks.items():
        weight = weights.get(name)
        fits = weight is not None and mask.shape == weight.shape and mask.dtype == torch.bool
        if weight is None or not fits or torch.count_nonzero(weight[~mask]):
            text = f"does not belong to {WEIGHTS}: {name!r} is not pruned by this mask there"
            raise SavedModelError(directory / MASKS, text)


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, and its metadata: names of tied tensors left out -> kept."""
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 no dict
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise SavedModelError(path, f"cannot be read, it may be cut off: {error}") from error


def _specs(path: Path) -> dict[str, SavedSpec]:
    _check_there(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}; allowed: {SCHEMA}")
        return {name: SavedSpec(**fields) for name, fields in content["tensors"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SavedModelError(path, f"cannot be read, it may be cut off: {error!r}") from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise SavedModelError(path, "there is no such file; allowed: what save_pruned has written")


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
