"""Deployment as a table for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text


def deployment_table(deployment: Mapping[str, Any]) -> Table:
    """Return the table of a record's ``deploy``: bytes, outputs, latencies, each beside dense."""
    sizes = [str(size) for size in deployment["batch_sizes"]]
    threads = deployment["threads"]
    title = f"deployed; p50 on {threads} thread{'s' if threads > 1 else ''}, in brackets dense"
    table = Table("target", title=title)
    for column in ("bytes", "zipped", "difference", "agreement"):
        table.add_column(column, justify="right")
    for size in sizes:
        table.add_column(f"p50, batch {size}", justify="right")
    for name, one in deployment["targets"].items():
        if one["error"] is None:
            latency = [_latency(one["latency"], size) for size in sizes]
            table.add_row(Text(name), *_sizes(one), *_outputs(one), *latency)
    return table


def deployment_sentences(deployment: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be said of each target: an error, why it cannot run here, a note."""
    for name, one in (deployment.get("targets") or {}).items():
        if one["error"] is not None:
            yield f"not deployed to {one['error']}"
        for sentence in (one.get("cannot_run"), one.get("note")):
            if sentence is not None:
                yield f"{name}: {sentence}"


def _sizes(one: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{one['bytes']:,} ({one['dense_bytes']:,})",
        f"{one['compressed_bytes']:,} ({one['dense_compressed_bytes']:,})",
    )


def _outputs(one: Mapping[str, Any]) -> tuple[str, str]:
    if one["largest_difference"] is None:
        return "", ""
    share = one["agreement"]
    return f"{one['largest_difference']:.1e}", "" if share is None else f"{100 * share:.2f} %"


def _latency(latency: Mapping[str, Any] | None, size: str) -> str:
    if latency is None or size not in latency:
        return ""
    one = latency[size]
    return f"{one['p50_ms']:.3g} ms ({one['dense_p50_ms']:.3g}), {one['speedup']:.2f}x"
