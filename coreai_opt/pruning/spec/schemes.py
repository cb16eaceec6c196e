"""In what pattern: pruning schemes."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from coreai_opt.pruning._registry import Registry

__all__ = ["PruningScheme", "Unstructured"]


class PruningScheme(BaseModel, Registry):
    """Base of all schemes: frozen, known by key, dumped with its ``type``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": type(self).registry_key(), **handler(self)}


@PruningScheme.register("unstructured")
class Unstructured(PruningScheme):
    """Any element may be pruned, whatever its neighbours are.

    Example:
        >>> Unstructured().model_dump()
        {'type': 'unstructured'}
    """
