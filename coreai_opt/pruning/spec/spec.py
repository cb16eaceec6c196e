"""PruningSpec: target, scheme and criterion of one tensor."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.spec.schemes import PruningScheme, Unstructured

if TYPE_CHECKING:
    from coreai_opt.pruning.spec.prune_impl import PruneImplBase

# Known without importing torch, which the classes behind them need.
CRITERIA = ("default", "random", "taylor")

# Made without validation, which would build the class's validator whenever this is imported; the
# first validator looks for pydantic's plugins in all installed packages.
UNSTRUCTURED = Unstructured.model_construct()


class PruningSpec(BaseModel):
    """How far (``target_sparsity``), in what pattern and by what criterion a tensor is pruned.

    Args:
        target_sparsity: share of the elements to prune, in [0, 1].
        pruning_scheme: a ``PruningScheme``, or a dict with its ``type``.
        pruning_algo: the criterion: a key of the ``PruneImplBase`` registry, a subclass of it, or
            the dotted path of one; stored as the class. ``"default"`` is magnitude, ``"random"``
            the control, ``"taylor"`` looks at gradients.

    Raises:
        ValueError: a value outside its range, an unknown field, scheme or criterion.

    Example:
        >>> PruningSpec(target_sparsity=0.9).pruning_algo.__name__
        'MagnitudePruneImpl'
        >>> PruningSpec(**PruningSpec().model_dump()) == PruningSpec()
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    target_sparsity: float = Field(0.5, ge=0, le=1, description="share of weights to prune, 0 to 1")
    pruning_scheme: Annotated[
        SerializeAsAny[PruningScheme], BeforeValidator(PruningScheme.maybe_build_from_dict)
    ] = Field(UNSTRUCTURED, description="pattern in which weights are pruned")
    pruning_algo: Any = Field(
        "default", description="criterion: default, random, taylor, or the dotted path of a class"
    )

    @field_validator("pruning_algo")
    @classmethod
    def _as_class(cls, value: Any, info: ValidationInfo) -> "type[PruneImplBase] | str":
        # A config is checked before torch is imported: the criteria are looked up when it is used.
        if isinstance(value, str) and (info.context or {}).get("without_torch"):
            return _plausible(value)
        from coreai_opt.pruning.spec.criteria import PruneImplBase

        if isinstance(value, str):
            value = PruneImplBase.get_class(value)
        if isinstance(value, type) and issubclass(value, PruneImplBase):
            return value
        raise ValueError(f"{value!r} is neither a registered key nor a subclass of PruneImplBase")

    @field_serializer("pruning_algo", when_used="json")
    def _name_of_algo(self, value: "type[PruneImplBase]") -> str:
        return value.registry_key() or f"{value.__module__}.{value.__qualname__}"


def _plausible(name: str) -> str:
    if name in CRITERIA or "." in name:
        return name
    raise ValueError(
        f"no criterion is called {name!r}; {nearest(name, list(CRITERIA))}, "
        "or the dotted path of your own class"
    )


def default_weight_pruning_spec() -> PruningSpec:
    """Return the spec of a weight that nothing is said about: 50 %, unstructured, by magnitude."""
    return PruningSpec()
