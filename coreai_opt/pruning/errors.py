"""What can go wrong in pruning; each error carries the object that it is about."""

from collections.abc import Sequence

from coreai_opt.pruning._registry import nearest

__all__ = [
    "AlreadyParametrizedError",
    "DivergedWeightError",
    "NoPrunableLayerError",
    "PruningError",
    "TiedWeightError",
    "UninitializedWeightError",
    "UnknownModuleError",
]


class PruningError(ValueError):
    """Base of all errors that concern what is pruned, and when."""


class NoPrunableLayerError(PruningError):
    """The model, with this config, has no weight to prune."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        super().__init__(
            "nothing to prune: the model has no layer of a prunable kind that the config reaches; "
            f"prunable: {', '.join(self.kinds)}"
        )


class UnknownModuleError(PruningError):
    """A name in the config matches no module, or no module with a weight to prune."""

    def __init__(self, pattern: str, existing: Sequence[str]) -> None:
        self.pattern = pattern
        self.existing = list(existing)
        super().__init__(
            f"{pattern!r} matches no module with a prunable weight; "
            f"{nearest(pattern, self.existing)}"
        )


class UninitializedWeightError(PruningError):
    """A lazy layer has no weight yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the weight of {name!r} is not initialised (a lazy layer): "
            "run the model once on a batch before it is prepared for pruning"
        )


class AlreadyParametrizedError(PruningError):
    """The weight carries a parametrization of somebody else (weight norm, LoRA, ...)."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"{name!r} already carries a parametrization; leave it out with "
            "module_name_configs={name: None}, or remove the parametrization first"
        )


class DivergedWeightError(ArithmeticError):
    """A weight has become NaN: no mask of it means anything."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"the training has diverged: NaN in {', '.join(repr(name) for name in self.names)}; "
            "a lower learning rate or gradient clipping may help"
        )


class TiedWeightError(PruningError):
    """One tensor serves two modules: a mask on one would untie them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"{' and '.join(repr(name) for name in self.names)} share one tensor, and a mask on "
            "one would untie them; leave them out with module_name_configs={name: None}"
        )
