"""What is said at the end of a sweep."""

from types import SimpleNamespace
from typing import Any

from coreai_opt.sweep.summary import below_target


def outcome(name: str, achieved: float, end: str = "completed") -> Any:
    layers = [{"elements": 1000, "nonzero": round(1000 * (1 - achieved)), "target": 0.9}]
    record = {"sparsity": {"target": 0.9, "achieved": achieved, "layers": layers}}
    entry = SimpleNamespace(name=name, earlier=lambda: SimpleNamespace(record=record))
    return SimpleNamespace(entry=entry, end=end)


def test_runs_below_their_target_are_named() -> None:
    outcomes = [outcome("a", 0.9), outcome("b", 0.5), outcome("c", 0.4, "failed")]
    assert below_target(outcomes) == [
        "1 run is below the target sparsity:",
        "  b: sparsity 50.00 % is below the target, 90.00 %",
    ]
    assert below_target(outcomes[:1]) == []
