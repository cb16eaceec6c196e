"""Logged values: sums of the epoch, last values, states of torchmetrics."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_callbacks._lightning.root import pl
from lightning_callbacks._lightning_internals import (
    cached_state,
    current_hook,
    last_values,
    logged_results,
    make_result,
    set_cached_state,
    set_current_hook,
)

# Of what is logged with self.log: all fields but for the function that synchronises.
FIELDS = (
    "fx",
    "name",
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "dataloader_idx",
    "metric_attribute",
)


def logged_values(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what ``self.log`` has gathered in the training epoch that is under way.

    Lightning keeps it in memory alone: a mean over an epoch that is resumed in its middle would be
    one over its second half.
    """
    return {
        "results": {key: _saved(metric) for key, metric in logged_results(trainer).items()},
        "last": {name: dict(values) for name, values in last_values(trainer).items()},
        "current_fx": current_hook(trainer),
        "metrics": {name: _metric_state(metric) for name, metric in _metrics(trainer)},
    }


def restore_logged_values(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Go on from what ``logged_values`` returned."""
    device = trainer.strategy.root_device
    known = dict(_metrics(trainer))
    for name, state in saved["metrics"].items():
        if name in known:
            _restore_metric(known[name], state, device)
    results = logged_results(trainer)
    for key, entry in saved["results"].items():
        results[key] = _restored(trainer, entry, known, device)
    for name, values in last_values(trainer).items():
        values.update({key: _moved(value, device) for key, value in saved["last"][name].items()})
    set_current_hook(trainer, saved["current_fx"])


def _saved(metric: Any) -> dict[str, Any]:
    meta = metric.meta
    entry: dict[str, Any] = {name: getattr(meta, name) for name in FIELDS}
    entry["reduce_fx"] = meta.reduce_fx.__name__
    entry["sync"] = {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only}
    entry["is_tensor"], entry["has_reset"] = metric.is_tensor, metric.has_reset
    entry["last"], entry["updates"] = cached_state(metric)
    if metric.is_tensor:
        entry["value"] = metric.value
        if meta.is_mean_reduction:
            entry["weight"] = metric.cumulated_batch_size
    return entry


def _restored(
    trainer: pl.Trainer, entry: dict[str, Any], known: dict[str, Metric], device: torch.device
) -> Any:
    fields = {name: entry[name] for name in FIELDS}
    reduce_fx = getattr(torch, entry["reduce_fx"])
    metric = make_result(trainer, fields, reduce_fx, entry["sync"], entry["is_tensor"])
    metric.to(device)
    if not entry["is_tensor"]:
        metric.value = known.get(entry["metric_attribute"])
    else:
        metric.value = _moved(entry["value"], device)
        if metric.meta.is_mean_reduction:
            metric.cumulated_batch_size = _moved(entry["weight"], device)
    set_cached_state(metric, _moved(entry["last"], device), entry["updates"])
    metric.has_reset = entry["has_reset"]
    return metric


def _metrics(trainer: pl.Trainer) -> Iterator[tuple[str, Metric]]:
    for name, module in trainer.lightning_module.named_modules():
        if isinstance(module, MetricCollection):
            # Of metrics that share their state only the first is kept up to date, until one asks.
            module.items(copy_state=False)
        if isinstance(module, Metric):
            yield name, module


def _metric_state(metric: Metric) -> dict[str, Any]:
    return {"values": dict(metric.metric_state), "updates": metric.update_count}


def _restore_metric(metric: Metric, state: dict[str, Any], device: torch.device) -> None:
    for name, value in state["values"].items():
        setattr(metric, name, _moved(value, device))
    set_cached_state(metric, cached_state(metric)[0], state["updates"])


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
