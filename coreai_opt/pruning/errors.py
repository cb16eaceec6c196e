"""What can go wrong in pruning; each error carries the object that it is about."""

from collections.abc import Sequence

__all__ = [
    "AlreadyParametrizedError",
    "NoPrunableLayerError",
    "PruningError",
    "TiedWeightError",
    "UninitializedWeightError",
    "UnknownModuleError",
]

_LISTED = 40  # names shown of a model; a transformer has hundreds


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

    def __init__(self, pattern: str, existing: Sequence[str], nearest: str | None = None) -> None:
        self.pattern = pattern
        self.existing = list(existing)
        shown = ", ".join(self.existing[:_LISTED]) or "none"
        more = len(self.existing) - _LISTED
        tail = f" and {more} more" if more > 0 else ""
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(
            f"{pattern!r} matches no module with a prunable weight; "
            f"prunable layers: {shown}{tail}{hint}"
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


class TiedWeightError(PruningError):
    """One tensor serves two modules: a mask on one would untie them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(
            f"{' and '.join(repr(name) for name in self.names)} share one tensor, and a mask on "
            "one would untie them; leave them out with module_name_configs={name: None}"
        )
