"""What several parts of the API share: the format of an export, and its errors and warnings."""

import warnings
from enum import EnumType, StrEnum
from typing import Any, Self

from coreai_opt.pruning._registry import nearest

__all__ = ["CoreMLExportError", "DependencyVersionWarning", "ExportBackend"]

# Former name -> name today. The former values are these names in lower case.
FORMER = {"MIL": "CoreML", "MLIR": "CoreAI"}


class _FormerNames(EnumType):
    """Lets former names of members through with a warning; they are no members."""

    def __getattr__(cls, name: str) -> Any:
        if name in FORMER:
            return _today(cls, name, stacklevel=3)
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")

    def __getitem__(cls, name: str) -> Any:
        return _today(cls, name, stacklevel=3) if name in FORMER else super().__getitem__(name)


def _today(cls: Any, former: str, stacklevel: int) -> Any:
    name = cls.__name__
    warnings.warn(
        f"{name}.{former} is deprecated; use {name}.{FORMER[former]}",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
    return cls.__members__[FORMER[former]]


class ExportBackend(StrEnum, metaclass=_FormerNames):
    """The format that a finalized model is meant for; each member is its string.

    ``MIL`` and ``MLIR`` are former names of ``CoreML`` and ``CoreAI``. They still work, as do their
    strings ``"mil"`` and ``"mlir"``, with a ``DeprecationWarning``.

    Raises:
        ValueError: a string that names no backend; the message lists those there are.

    Example:
        >>> ExportBackend("torch") is ExportBackend.Torch, ExportBackend.CoreML == "coreml"
        (True, True)
    """

    Torch = "torch"
    CoreML = "coreml"
    CoreAI = "coreai"

    @classmethod
    def _missing_(cls, value: object) -> Self:
        if isinstance(value, str) and value.upper() in FORMER:
            member: Self = _today(cls, value.upper(), stacklevel=5)
            return member
        allowed = nearest(str(value), [member.value for member in cls])
        raise ValueError(f"no export backend is called {value!r}; {allowed}")


class CoreMLExportError(ValueError, NotImplementedError):
    """A model cannot be exported to Core ML.

    ``finalize(backend=ExportBackend.CoreML)`` raises it for weights of types that
    Core ML does not have.
    """


class DependencyVersionWarning(UserWarning):
    """Base of warnings about the versions of packages that this one needs.

    The API names it for filters; nothing here raises it by itself.
    """
