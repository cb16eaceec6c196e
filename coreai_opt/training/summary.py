"""Summary of a run for its terminal: a table of layers, one line, a picture."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coreai_opt.deploy.terminal import deployment_sentences, deployment_table
from coreai_opt.runs.outcome import percent, summary_line
from coreai_opt.runs.paths import RunPaths
from coreai_opt.training.plot import draw_run


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
    deployed = result.get("deploy") or {}
    if not quiet and any(one["error"] is None for one in (deployed.get("targets") or {}).values()):
        console.print(deployment_table(deployed))
    for sentence in deployment_sentences(deployed):
        console.print(sentence)
    if missing is not None:
        console.print(f"no picture of the run: {missing}")
    console.print(summary_line(result, paths.root))


def layer_table(result: Mapping[str, Any]) -> Table:
    """Return the table of layers: elements, kept, sparsity, target.

    Rows below have the dense weights by type of module, and all weights of two or more dimensions,
    if anything is pruned.
    """
    table = Table("layer", title="pruned weights")
    for column in ("elements", "kept", "sparsity", "target"):
        table.add_column(column, justify="right")
    sparsity = result["sparsity"]
    for layer in sparsity["layers"]:
        target = "dense" if layer["target"] is None else percent(layer["target"])
        table.add_row(Text(layer["name"]), *_counts(layer["elements"], layer["nonzero"]), target)
    counted = [known for known in sparsity["layers"] if known["target"] is not None]
    counted = counted or sparsity["layers"]
    elements = sum(layer["elements"] for layer in counted)
    nonzero = sum(layer["nonzero"] for layer in counted)
    table.add_section()
    table.add_row("total", *_counts(elements, nonzero), percent(sparsity["target"]))
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


def _counts(elements: int, nonzero: int) -> tuple[str, str, str]:
    share = 1 - nonzero / elements if elements else 0.0
    return f"{elements:,}", f"{nonzero:,}", percent(share)
