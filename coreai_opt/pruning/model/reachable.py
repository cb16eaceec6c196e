"""Reachable sparsity: a table of layers whose scheme cannot reach their target."""

from collections.abc import Sequence
from math import prod

from rich import box
from rich.table import Table

from coreai_opt.pruning._text import as_text
from coreai_opt.pruning.model.targets import PrunedTensor
from coreai_opt.pruning.spec.schemes import NMStructured, PruningScheme


def unreachable_table(tensors: Sequence[PrunedTensor]) -> str:
    """Return a table of the layers that cannot be pruned exactly as far as is asked, "" for none.

    A layer counts when what its scheme reaches differs by one element or more.
    """
    rows = [row for tensor in tensors if (row := _row(tensor)) is not None]
    if not rows:
        return ""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("layer", "shape", "scheme"):
        table.add_column(column)
    for column in ("requested", "reachable"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return "not every layer can be pruned exactly as far as is asked:\n" + as_text(table)


def _row(tensor: PrunedTensor) -> tuple[str, ...] | None:
    impl, shape = tensor.impl, tensor.shape
    if impl.floor is not None and impl.sparsity == impl.target_sparsity:
        return None  # zeros that are there are not to be reached
    scheme, total = impl.spec.pruning_scheme, prod(tensor.shape)
    fixed = scheme.target_for(impl.spec.target_sparsity) != impl.spec.target_sparsity
    requested = impl.spec.target_sparsity if fixed else impl.target_sparsity
    pruned = tensor.asked
    if abs(pruned - requested * total) < 1:
        return None
    shown = "x".join(map(str, shape))
    return tensor.name, shown, _kind(scheme), f"{requested:.2%}", f"{pruned / total:.2%}"


def _kind(scheme: PruningScheme) -> str:
    name = type(scheme).__name__
    return f"{name} {scheme.n}:{scheme.m} kept" if isinstance(scheme, NMStructured) else name
