"""Export of a pruned model to files, and loading of these files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import (
    DivergedWeightError,
    SavedModelError,
    UninitializedWeightError,
)
from coreai_opt.pruning.magnitude_pruner import MagnitudePruner
from coreai_opt.pruning.masks.semi_structured import to_semi_structured
from coreai_opt.pruning.model.copying import copy_of
from coreai_opt.pruning.model.model_summary import summary
from coreai_opt.pruning.model.operations import uses_by_call
from coreai_opt.pruning.model.target_search import TargetSearch
from coreai_opt.pruning.model.targets import (
    GivenMask,
    PrunedTensor,
    Target,
    find_targets,
    holders_of,
    pruned_tensors,
)
from coreai_opt.pruning.saving import files as saved
from coreai_opt.pruning.saving.folding import fold_masks
from coreai_opt.pruning.spec.criteria import PruneImplBase
from coreai_opt.pruning.spec.schemes import PruningScheme
from coreai_opt.pruning.spec.spec import PruningSpec

__all__ = ["FixedPruneImpl", "load_pruned", "save_pruned", "to_semi_structured"]

ORIGINAL = re.compile(r"(^|\.)parametrizations\.(\w+)\.original$")


class FixedPruneImpl(PruneImplBase):
    """The criterion of a mask that was loaded and is to stay as it is: it has no scores."""


def save_pruned(model: nn.Module, directory: str | Path, example_inputs: Any = None) -> None:
    """Write a prepared model to a directory; the model itself stays as it is.

    There are three files, each written beside its place and renamed:

    - ``weights.safetensors``: the state dict of the unpruned model, pruned weights at 0. Of tied
      weights one is written, the metadata names the others.
    - ``masks.safetensors``: bool, True = keep, by the name of the weight in the unpruned model.
    - ``summary.json``: how each weight was pruned, and ``summary(model, example_inputs)``.

    The dense values of pruned weights, the step counter and the optimizer are not there: a training
    that is to go on as if nothing had happened needs ``model.state_dict()``.

    Args:
        model: a prepared model that can be copied with ``copy.deepcopy``.
        directory: made if it is not there; files of these names are replaced.
        example_inputs: what the model is called with, as for ``summary``; None = operations are not
            counted.

    Raises:
        RuntimeError: the model carries no mask.
        UninitializedWeightError: a lazy layer has not seen a batch.
        DivergedWeightError: a parameter has NaN; nothing is written.
    """
    tensors = list(pruned_tensors(model))
    if not tensors:
        raise RuntimeError(
            "the model carries no mask: only a model that is prepared, and not finalized yet, can "
            "be saved with its masks"
        )
    _refuse_lazy(model)
    _refuse_nan(model)
    amounts = summary(model, example_inputs).to_dict()
    copy = copy_of(model)
    saved.write(
        Path(directory),
        # Masks beside a model are not copied with it, and its weights are masked.
        fold_masks(copy) if any(pruned_tensors(copy)) else copy,
        {tensor.name: tensor.impl.mask for tensor in tensors},
        {tensor.name: _saved_spec(tensor) for tensor in tensors},
        amounts,
    )


def load_pruned(
    model: nn.Module,
    directory: str | Path,
    config: MagnitudePrunerConfig | None = None,
    example_inputs: Any = None,
) -> MagnitudePruner:
    """Load what ``save_pruned`` has written into a plain model, masks included.

    Without a config the masks stay as they are: ``step`` changes nothing, pruned weights get no
    gradient, ``finalize`` and ``save_pruned`` work.

    With a config the model is prepared by it, with the saved masks in place of those of step 0, and
    ``step`` goes on from them: between two updates of a schedule the saved mask stays, at an update
    the schedule decides. Its ``initial_sparsity`` should be the saved sparsity: below it weights
    come back, which start at 0. The clock starts at 0.

    Args:
        model: a plain model of the architecture that was saved, unpruned; changed in place, but not
            where anything is refused.
        directory: what ``save_pruned`` was given.
        config: what is pruned, how far and when; it must prune the weights that have a saved mask,
            and no others. None = the saved masks, for good.
        example_inputs: with a config, how its weights are found, as for ``prepare``.

    Returns:
        The pruner of the model, prepared.

    Raises:
        SavedModelError: a file is missing or damaged, or the model or the config does not fit.
        RuntimeError: the model has already been prepared.
        PruningError: what ``prepare`` refuses.
    """
    if any(pruned_tensors(model)):
        raise RuntimeError("the model has already been prepared for pruning; load into a plain one")
    uses = None
    if config is not None and example_inputs is not None:
        uses = uses_by_call(model, example_inputs)
    _refuse_lazy(model)
    files = saved.read(Path(directory))
    files.check_fits(model)
    if config is None:
        targets = _fixed_targets(model, files)
        config = MagnitudePrunerConfig(global_config=None)
    else:
        targets = _with_masks(find_targets(model, config, uses, files.masks), model, files)
    pruner = MagnitudePruner(model, config)
    _load(pruner.prepare_given(targets), files.weights)
    return pruner


def _saved_spec(tensor: PrunedTensor) -> saved.SavedSpec:
    impl = tensor.impl
    dumped = impl.spec.model_dump(mode="json")
    return saved.SavedSpec(
        scheme=dumped["pruning_scheme"],
        criterion=dumped["pruning_algo"],
        sparsity=impl.sparsity,
        scheduled=impl.scheduled,
        target=impl.target_sparsity,
    )


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UninitializedWeightError(name.rpartition(".")[0])


def _refuse_nan(model: nn.Module) -> None:
    diverged = [_plain(name) for name, value in model.named_parameters() if value.isnan().any()]
    if diverged:
        raise DivergedWeightError(diverged)


def _plain(key: str) -> str:
    """Return the name in the unpruned model of a parameter of a prepared one."""
    return ORIGINAL.sub(r"\1\2", key)


def _fixed_targets(model: nn.Module, files: saved.SavedModel) -> list[Target]:
    holders = holders_of(model)
    targets = []
    for name, weight, given in _given_masks(model, files):
        try:
            scheme = PruningScheme.maybe_build_from_dict(files.specs[name].scheme)
        except ValueError as error:
            text = f"the scheme of {name!r} cannot be built: {error}"
            raise SavedModelError(files.directory / saved.SUMMARY, text) from error
        spec = PruningSpec(
            target_sparsity=files.specs[name].target,
            pruning_scheme=scheme,
            pruning_algo=FixedPruneImpl,
        )
        targets.append(Target(holders[id(weight)], weight, spec, None, given))
    return targets


def _with_masks(found: TargetSearch, model: nn.Module, files: saved.SavedModel) -> list[Target]:
    """Return the targets of a config with their saved masks."""
    targets = found.targets
    given = {id(weight): (name, mask) for name, weight, mask in _given_masks(model, files)}
    pruned = {id(target.weight) for target in targets}
    without = [target.name for target in targets if id(target.weight) not in given]
    problems = {
        "it prunes without a saved mask": [*without, *found.unmasked],
        "it leaves dense with a saved mask": [
            name for key, (name, _) in given.items() if key not in pruned
        ],
    }
    if not any(problems.values()):
        targets = [replace(target, given=given[id(target.weight)][1]) for target in targets]
        problems["it has another target but no schedule for"] = _stuck(targets)
    if any(problems.values()):
        text = "; ".join(
            f"{what}: {listed(sorted(names), str)}" for what, names in problems.items() if names
        )
        raise SavedModelError(files.directory, f"the config does not fit the saved masks; {text}")
    return targets


def _stuck(targets: Sequence[Target]) -> list[str]:
    """Return the targets that no schedule would take from their saved mask to what is asked."""
    return [
        f"{target.name} ({target.given.scheduled:g} saved, {asked:g} asked)"
        for target in targets
        if target.schedule is None and target.given is not None
        if target.given.scheduled
        != (asked := target.spec.pruning_scheme.target_for(target.spec.target_sparsity))
    ]


def _given_masks(
    model: nn.Module, files: saved.SavedModel
) -> Iterator[tuple[str, nn.Parameter, GivenMask]]:
    # In the order of the model, whatever that of a file is: an optimizer's state goes by it.
    for name, weight in model.named_parameters(remove_duplicate=False):
        if name in files.masks:
            spec = files.specs[name]
            yield name, weight, GivenMask(files.masks[name], spec.sparsity, spec.scheduled)


def _load(prepared: nn.Module, weights: Mapping[str, Tensor]) -> None:
    state = prepared.state_dict()
    for key in state:
        # Another's parametrization has such a key in the unpruned model as well.
        name = _plain(key) if _plain(key) in weights else key
        state[key] = weights.get(name, state[key])
    prepared.load_state_dict(state)
