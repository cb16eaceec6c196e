"""Errors and warnings of pruning; each carries the object that it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning._text import listed

__all__ = [
    "AllocationError",
    "AlreadyParametrizedError",
    "ConflictingConfigError",
    "DenseWeight",
    "DivergedWeightError",
    "LeftDenseWarning",
    "LostWriteWarning",
    "MaskedMergeError",
    "MissingZerosWarning",
    "NoGradientError",
    "NoPrunableLayerError",
    "PreparationWarning",
    "PruningError",
    "SavedModelError",
    "SparseGradientError",
    "UninitializedWeightError",
    "UnknownModuleError",
    "UnknownOpError",
    "UnknownParameterError",
    "UnknownTypeError",
    "UnreachableSparsityWarning",
    "UnseenForwardWarning",
    "UnsuitableShapeError",
]


WITH_INPUTS = (
    "a parameter that a module hands to torch.nn.functional itself is found only with example "
    "inputs (prepare(example_inputs), in the callback follow_calls=True)"
)


class PruningError(ValueError):
    """Base of all errors of pruning."""


class NoPrunableLayerError(PruningError):
    """The model, with this config, has no weight to prune.

    Attributes:
        kinds: the kinds of layers that are prunable.
        excluded: weights that the config reaches and does not name -> why they stay dense.
    """

    def __init__(self, kinds: Sequence[str], excluded: Mapping[str, str] | None = None) -> None:
        self.kinds, self.excluded = list(kinds), dict(excluded or {})
        if self.excluded:
            super().__init__(
                f"nothing to prune: all that the config reaches is {_counted(self.excluded)}; "
                "allowed: a config for them by name (module_name_configs)"
            )
            return
        super().__init__(
            "nothing to prune: the model has no layer of a prunable kind that the config reaches; "
            f"prunable: {', '.join(self.kinds)}"
        )


class UnknownModuleError(PruningError):
    """A name in the config matches no module, or no module with a weight to prune."""

    def __init__(self, pattern: str, existing: Sequence[str], by_type: bool = False) -> None:
        self.pattern = pattern
        self.existing = list(existing)
        hint = f"; {WITH_INPUTS}" if by_type else ""
        super().__init__(
            f"{pattern!r} matches no module with a prunable weight; "
            f"{nearest(pattern, self.existing)}{hint}"
        )


class UnknownTypeError(PruningError):
    """A type in the config is that of no module with a weight to prune."""

    def __init__(self, name: str, existing: Sequence[str]) -> None:
        self.name = name
        self.existing = list(existing)
        super().__init__(
            f"{name!r} is the type of no module with a prunable weight; "
            f"{nearest(name, self.existing)}"
        )


class UnknownOpError(PruningError):
    """A type or name of an op in the config matches none that the config reaches."""

    def __init__(self, pattern: str, existing: Sequence[str]) -> None:
        self.pattern = pattern
        self.existing = list(existing)
        found = nearest(pattern, self.existing) if existing else "the config reaches none at all"
        super().__init__(f"{pattern!r} matches no op that its config reaches; {found}")


class UnknownParameterError(PruningError):
    """A name of a parameter in a spec is that of no weight of an op.

    Attributes:
        name: the name.
        existing: the names of the parameters that there are.
    """

    def __init__(self, name: str, existing: Sequence[str], by_type: bool = False) -> None:
        self.name, self.existing = name, list(existing)
        found = nearest(name, [*self.existing, "*"]) if existing else "its config reaches none"
        hint = f"; {WITH_INPUTS}" if by_type else ""
        super().__init__(
            f"{name!r} is no parameter that an op has as its weight where its config reaches; "
            f"{found}{hint}"
        )


class UninitializedWeightError(PruningError):
    """A lazy layer has no weight yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the weight of {name!r} is not initialised (a lazy layer): "
            "give prepare() example inputs, or run the model once on a batch before"
        )


class NoGradientError(PruningError):
    """A criterion of gradients is asked for a mask, and no gradient has reached the weight."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        weight = "the weight" if name is None else repr(name)
        super().__init__(
            f"the criterion 'taylor' needs gradients, and none has reached {weight} yet; allowed: "
            "a schedule that prunes after the first backward pass (poly, or constant with "
            "begin_step >= 1), and weights that are trained: leave others out with "
            "module_name_configs={name: None}"
        )


class AllocationError(PruningError):
    """A tensor cannot take part in an allocation."""

    def __init__(self, name: str, allocation: str, reason: str) -> None:
        self.name, self.allocation = name, allocation
        super().__init__(
            f"{name!r} cannot take part in allocation={allocation}: {reason}; "
            "allowed: allocation=uniform, or another scheme or criterion"
        )


class MaskedMergeError(PruningError):
    """An adapter is to be merged into a weight that carries a mask."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the adapter {name!r} cannot be merged: the weight below it carries a mask, and what "
            "is merged would be lost; fold the masks in first (pruner.finalize())"
        )


class AlreadyParametrizedError(PruningError):
    """The weight carries a parametrization or mask of somebody else (weight norm, LoRA, ...)."""

    def __init__(self, name: str, masked_by_torch: bool = False) -> None:
        self.name = name
        if masked_by_torch:
            carries = "a mask of torch.nn.utils.prune, and one of the two pruners has to go"
            way = f"or fold it in: torch.nn.utils.prune.remove(MODULE, {name.split('.')[-1]!r})"
        else:
            carries = "a parametrization, or is computed from other parameters (weight norm, LoRA)"
            way = "or remove the parametrization first"
        super().__init__(
            f"{name!r} already carries {carries}; leave it out with "
            f"module_name_configs={{name: None}}, {way}"
        )


class SparseGradientError(PruningError):
    """An embedding gives sparse gradients, which do not pass a mask."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"{name!r} is given sparse gradients, which do not pass a mask; allowed: an embedding "
            "with sparse=False, or None for it"
        )


class DivergedWeightError(ArithmeticError):
    """A weight has become NaN: no mask of it means anything."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"the training has diverged: NaN in {listed(self.names)}; "
            "a lower learning rate or gradient clipping may help"
        )


class ConflictingConfigError(PruningError):
    """One tensor has several users (tied weights, a shared module), and they ask for two things."""

    def __init__(self, name: str, other: str) -> None:
        self.name, self.other = name, other
        users = repr(name) if name == other else f"{name!r} and {other!r}"
        super().__init__(
            f"one tensor serves as {users}, and the config asks for different things; "
            "allowed: one config for both, or None for both"
        )


class UnsuitableShapeError(PruningError):
    """A weight's shape does not fit the pattern that it is to be pruned in."""

    def __init__(self, name: str, shape: tuple[int, ...], problem: str) -> None:
        self.name, self.shape = name, shape
        super().__init__(
            f"{name!r} of shape {list(shape)} does not fit the pruning scheme: {problem}; "
            "leave it out with module_name_configs={name: None}, or give it another scheme"
        )


class SavedModelError(PruningError):
    """A directory of a pruned model, or a file in it, cannot be used as asked."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


class PreparationWarning(UserWarning):
    """Base of the warnings of ``prepare``, which are the same in every process."""


@dataclass(frozen=True)
class DenseWeight:
    """A weight that stays dense: its name, the type of the module that holds it, its elements."""

    name: str
    kind: str
    elements: int


class LeftDenseWarning(PreparationWarning):
    """Weights stay dense that a config does not leave dense by itself.

    They are frozen, or those of adapters, or their layer computes another tensor from them, or they
    have two or more dimensions and no op that prunes uses them (embeddings, ``x @ w``, ...).

    Attributes:
        excluded: name of a weight that an op uses -> why.
        unreached: the others.
        traced: whether a forward pass was followed.
    """

    def __init__(
        self,
        excluded: Mapping[str, str],
        unreached: Sequence[DenseWeight] = (),
        traced: bool = False,
    ) -> None:
        self.excluded, self.unreached = dict(excluded), list(unreached)
        self.traced = traced
        kinds: dict[str, list[DenseWeight]] = {}
        for weight in unreached:
            kinds.setdefault(weight.kind, []).append(weight)
        parts = [_counted(excluded)] if excluded else []
        parts += [
            f"{_named([weight.name for weight in weights], f'of {kind}')}, "
            f"{sum(weight.elements for weight in weights):,} elements"
            for kind, weights in kinds.items()
        ]
        more = "; example_inputs (follow_calls) finds what a forward pass hands to torch itself"
        super().__init__(
            f"left dense: {' and '.join(parts)}; a config by name (module_name_configs) prunes "
            "them where they can be pruned, or says that they are meant to stay dense: NAME: null"
            f"{more if unreached and not traced else ''}"
        )


class UnseenForwardWarning(PreparationWarning):
    """Layers have a forward pass of their own that could not be traced.

    Attributes:
        names: of their weights.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"{_named(names, 'whose layers compute in a way of their own')} cannot be followed: "
            "whether they compute with the zeros of a mask is not known; give prepare() "
            "example_inputs (follow_calls), or leave them out with module_name_configs"
        )


class LostWriteWarning(PreparationWarning):
    """Forward passes write to weights that carry a mask, and what they write is lost.

    Attributes:
        names: of the weights.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"{_named(names, 'written to in a forward pass')}: a masked weight is computed anew "
            "whenever it is read, and what is written to it (a bound on a norm or a value, merged "
            "or tied weights) is lost; write to module.parametrizations.NAME.original, or leave "
            "them out with module_name_configs"
        )


class MissingZerosWarning(UserWarning):
    """A model that was finalized has fewer zeros than the pruner's own.

    Attributes:
        missing: name of the weight -> its zeros, and how many the mask of the pruner's own prunes.
    """

    def __init__(self, missing: Mapping[str, tuple[int, int]]) -> None:
        self.missing = dict(missing)
        zeros, pruned = (sum(counts) for counts in zip(*missing.values(), strict=True))
        super().__init__(
            f"the finalized model has {zeros:,} zeros where the masks of the pruner's own model "
            f"prune {pruned:,}: {_named(list(missing), 'with fewer')}; an average or a copy has "
            "masks of its own, which do not follow: copy its parameters into the pruner's model "
            "and finalize that"
        )


class UnreachableSparsityWarning(PreparationWarning):
    """A scheme cannot prune exactly as much as is asked; the message is a table of the layers."""


def _counted(excluded: Mapping[str, str]) -> str:
    """Return the number of excluded weights by reason, and the first names."""
    parts = []
    reasons = {
        "frozen": "frozen (requires_grad=False)",
        "adapter": "of adapters",
        "altered": "from which their layers compute another tensor, without the zeros",
    }
    for reason, what in reasons.items():
        names = [name for name, why in excluded.items() if why == reason]
        if names:
            parts.append(_named(names, what))
    return " and ".join(parts)


def _named(names: Sequence[str], what: str) -> str:
    """Return the number of weights, the trouble with them, and the first names."""
    word = "weight" if len(names) == 1 else "weights"
    return f"{len(names)} {word} {what} ({listed(names)})"
