"""Choice of the metric that runs are compared by, and of which way is better."""

import re
from collections import Counter
from collections.abc import Sequence

from coreai_opt.report.records import RunRow, mapping

PREFERRED = "test/accuracy"
# Names that say by themselves which way is better: parts of words, and whole words.
SMALLER_IS_BETTER = ("loss", "error", "perplexity", "mse", "mae", "latency", "regret", "wer", "nll")
SMALLER_WORDS = ("time", "seconds", "duration", "ppl", "cer", "fid", "bytes", "memory")
LARGER_IS_BETTER = ("acc", "f1", "auroc", "precision", "recall")


class MetricError(ValueError):
    """No completed run has the metric that was asked for."""


def chosen_metric(completed: Sequence[RunRow], metric: str | None) -> str:
    """Return the metric that runs are compared by.

    Args:
        completed: the completed runs.
        metric: asked for; default: ``test/accuracy`` if all have it, else the objective that most
            of them have, else the metric that most of them have; of several as frequent the first
            by name.

    Raises:
        MetricError: no completed run has the metric.
    """
    known = Counter(name for row in completed for name in mapping(row.record.get("metrics")))
    if metric is not None:
        if completed and all(row.metric(metric) is None for row in completed):
            allowed = ", ".join(sorted(known)) or "none, the runs have no metrics"
            raise MetricError(f"no completed run has the metric {metric!r}; allowed: {allowed}")
        return metric
    if all(row.metric(PREFERRED) is not None for row in completed):
        return PREFERRED
    names = Counter(row.objective for row in completed if row.objective is not None) or known
    return min(names, key=lambda name: (-names[name], name), default=PREFERRED)


def direction(metric: str, completed: Sequence[RunRow]) -> str | None:
    """Return which way of a metric is better, ``max`` or ``min``; None where nothing says it.

    What the records say of their objective counts, where that is the metric; else its name.
    """
    modes = [row.mode for row in completed if row.objective == metric and row.mode is not None]
    if modes:
        return "min" if modes.count("min") * 2 > len(modes) else "max"
    name = metric.rpartition("/")[2].lower()
    words = re.split("[^a-z0-9]+", name)
    if any(part in name for part in SMALLER_IS_BETTER) or set(words) & set(SMALLER_WORDS):
        return "min"
    return "max" if any(part in name for part in LARGER_IS_BETTER) else None
