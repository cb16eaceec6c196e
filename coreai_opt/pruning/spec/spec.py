"""How far and how one tensor is pruned."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
)

from coreai_opt.pruning.spec.schemes import PruningScheme, Unstructured

if TYPE_CHECKING:
    from coreai_opt.pruning.spec.prune_impl import PruneImplBase

__all__ = ["PruningSpec", "default_weight_pruning_spec"]


class PruningSpec(BaseModel):
    """How far (``target_sparsity``), in what pattern and by what criterion a tensor is pruned.

    Args:
        target_sparsity: share of the elements to prune, in [0, 1].
        pruning_scheme: a ``PruningScheme``, or a dict with its ``type``.
        pruning_algo: the criterion: a key of the ``PruneImplBase`` registry or a subclass of it;
            stored as the class. ``"default"`` is magnitude.

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
    ] = Field(Unstructured(), description="pattern in which weights are pruned")
    pruning_algo: Any = Field("default", description="criterion by which weights are pruned")

    @field_validator("pruning_algo")
    @classmethod
    def _as_class(cls, value: Any, info: ValidationInfo) -> "type[PruneImplBase] | str":
        # A config is checked before torch is imported: the criteria are looked up when it is used.
        if isinstance(value, str) and (info.context or {}).get("without_torch"):
            return value
        from coreai_opt.pruning.spec.prune_impl import PruneImplBase

        if isinstance(value, type) and issubclass(value, PruneImplBase):
            return value
        if isinstance(value, str):
            return PruneImplBase.get_class(value)
        raise ValueError(f"{value!r} is neither a registered key nor a subclass of PruneImplBase")


def default_weight_pruning_spec() -> PruningSpec:
    """Return the spec of a weight that nothing is said about: 50 %, unstructured, by magnitude."""
    return PruningSpec()
