"""What a person sees when a run ends: a table of layers, one line, a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coreai_opt.experiment.places import RunPaths
from coreai_opt.experiment.plot import draw_run
from coreai_opt.experiment.shortfall import shortfall

__all__ = ["layer_table", "show_result", "summary_line"]


def show_result(
    result: Mapping[str, Any], paths: RunPaths, quiet: bool, silent: bool = False
) -> None:
    """Draw the picture and print the summary; without a terminal the line alone.

    Args:
        result: the record.
        paths: the run's paths.
        quiet: print no table.
        silent: print nothing; in a sweep its driver says how runs end.
    """
    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    missing = draw_run(paths)
    if silent:
        return
    if not quiet:
        console.print(layer_table(result))
    if missing is not None:
        console.print(f"no picture of the run: {missing}")
    console.print(summary_line(result, paths.root))


def layer_table(result: Mapping[str, Any]) -> Table:
    """Return the table of layers: elements, kept, sparsity, target.

    Below are what stays dense, by the type of its module, and all weights of two or more dimensions
    together, if anything is pruned.
    """
    table = Table("layer", title="pruned weights")
    for column in ("elements", "kept", "sparsity", "target"):
        table.add_column(column, justify="right")
    sparsity = result["sparsity"]
    for layer in sparsity["layers"]:
        target = "dense" if layer["target"] is None else _percent(layer["target"])
        table.add_row(Text(layer["name"]), *_counts(layer["elements"], layer["nonzero"]), target)
    counted = [known for known in sparsity["layers"] if known["target"] is not None]
    counted = counted or sparsity["layers"]
    elements = sum(layer["elements"] for layer in counted)
    nonzero = sum(layer["nonzero"] for layer in counted)
    table.add_section()
    table.add_row("total", *_counts(elements, nonzero), _percent(sparsity["target"]))
    is_pruned = any(layer["target"] is not None for layer in sparsity["layers"])
    left_dense = sparsity.get("left_dense", ()) if is_pruned else ()
    if left_dense:
        table.add_section()
    for kind in left_dense:
        name = f"{kind['weights']:,} of {kind['type']}"
        table.add_row(name, *_counts(kind["elements"], kind["nonzero"]), "dense")
    if left_dense:
        table.add_row("all weights", *_counts(**sparsity["all_weights"]), "")
    return table


def summary_line(result: Mapping[str, Any], root: Path) -> str:
    """Return one line with accuracy, sparsity, size, time and the run directory."""
    metrics, objective, sparsity = result["metrics"], result["objective"], result["sparsity"]
    parts = [
        f"{name} {_percent(metrics[name])}"
        for name in ("test/accuracy", "val/accuracy")
        if name in metrics
    ]
    if not parts and objective["value"] is not None:
        parts = [f"{objective['name']} {objective['value']:.4g}"]
    size = result["parameters"]
    parts += [
        _sparsity(sparsity),
        f"{size['nonzero']:,} of {size['total']:,} parameters",
        f"{result['wall_seconds']:.1f} s",
        str(root),
    ]
    return ", ".join(parts)


def _sparsity(sparsity: Mapping[str, Any]) -> str:
    """Return the sparsity of what is pruned, and that of all weights where something is not."""
    pruned = shortfall(sparsity) or f"sparsity {_percent(sparsity['achieved'])}"
    overall = sparsity.get("of_all_weights", sparsity["achieved"])
    if _percent(overall) == _percent(sparsity["achieved"]):
        return pruned
    return f"{pruned} ({_percent(overall)} of all weights)"


def _counts(elements: int, nonzero: int) -> tuple[str, str, str]:
    share = 1 - nonzero / elements if elements else 0.0
    return f"{elements:,}", f"{nonzero:,}", _percent(share)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
