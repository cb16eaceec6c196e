"""Formats of numbers and commands for people."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# Values that Hydra reads as the same text without quotes.
PLAIN = re.compile(r"[A-Za-z_][\w./+-]*")


def duration(seconds: float) -> str:
    """Return a span of time in the two units that matter.

    Example:
        >>> duration(42.4), duration(200), duration(7260)
        ('42 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short_value(name: str, value: Any) -> str:
    """Return a metric: shares of accuracy in percent, other numbers with four digits.

    Example:
        >>> short_value("val/accuracy", 0.9464), short_value("val/loss", 0.123456)
        ('94.64 %', '0.1235')
    """
    if value is None:
        return "none"
    if isinstance(value, int | float) and "accuracy" in name and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Return so many items at most, at equal distances, the first and the last among them.

    Example:
        >>> evenly("abcdef", 3), evenly("ab", 3)
        (['a', 'c', 'f'], ['a', 'b'])
    """
    count = min(len(items), most)
    return [items[at * (len(items) - 1) // max(count - 1, 1)] for at in range(count)]


def weight_spec(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pruning spec of most weights in a resolved config, empty where it has none."""
    node: Any = config.get("pruning")
    for key in ("global_config", "op_state_spec", "weight"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def n_m_patterns(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each n:m pattern of these configs; dense runs have none.

    Some tools count zeros in n, so each sentence names the kept weights and the share of zeros.

    Example:
        >>> weight = {"target_sparsity": 0.9, "pruning_scheme": {"type": "n_m", "n": 1, "m": 4}}
        >>> n_m_patterns([{"pruning": {"global_config": {"op_state_spec": {"weight": weight}}}}])
        ['pattern 1:4, n of m kept, 75 % zeros']
    """
    return list(dict.fromkeys(text for config in configs if (text := _n_m_pattern(config))))


def _n_m_pattern(config: Mapping[str, Any]) -> str:
    spec = weight_spec(config)
    scheme, is_dense = spec.get("pruning_scheme"), config.get("schedule", "unknown") is None
    if not isinstance(scheme, Mapping) or scheme.get("type") != "n_m" or is_dense:
        return ""
    n, m = scheme.get("n"), scheme.get("m")
    if not (isinstance(n, int) and isinstance(m, int) and m > 0 and spec.get("target_sparsity")):
        return ""
    return f"pattern {n}:{m}, n of m kept, {100 * (m - n) / m:.4g} % zeros"


def command_for(
    program: str,
    overrides: Sequence[str],
    sweep: str,
    of_hydra: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> str:
    """Return the command that runs one point of a sweep alone, in the sweep's own directory.

    Args:
        program: how the sweep was called.
        overrides: the point's.
        sweep: the sweep's name.
        of_hydra: overrides of Hydra's own settings that the sweep was given.
        flags: what the sweep was given besides, as ``--config-dir=DIR``.

    Example:
        >>> command_for("coreai-train", ["power=2"], "power-cf76cd")
        'coreai-train -m sweep_name=power-cf76cd power=2'
    """
    words = [*flags, "-m", f"sweep_name={quoted(sweep)}", *overrides, *of_hydra]
    return f"{program} {' '.join(shlex.quote(word) for word in words)}"


def quoted(value: str) -> str:
    """Return a text as a value of Hydra's override grammar, in quotes where it needs them.

    Example:
        >>> quoted("power-cf76cd"), quoted("my sweep's"), quoted("3")
        ('power-cf76cd', "'my sweep\\\\'s'", "'3'")
    """
    if PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
