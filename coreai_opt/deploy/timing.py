"""Timing: latencies of several functions, taken in turns so that a busy machine slows all of them.

Source of the method: percentiles over single calls after a warm-up, as MLPerf Inference has them
(Reddi et al. 2020, arXiv:1911.02549).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

WARM_UP_CALLS = 3
FEWEST_CALLS = 10


@dataclass(frozen=True)
class Latency:
    """Latencies of single calls.

    Attributes:
        p50_ms: half of the calls took at most so many milliseconds.
        p95_ms: 95 % of them did.
        mean_ms: their mean.
    """

    p50_ms: float
    p95_ms: float
    mean_ms: float


def latencies(functions: Sequence[Callable[[], object]], seconds: float = 0.3) -> list[Latency]:
    """Call functions in turns, and return the latencies of each.

    Args:
        functions: each called with nothing, after three calls to warm up.
        seconds: time that one function gets, > 0; each is called 10 times at least.
    """
    for function in functions:
        for _ in range(WARM_UP_CALLS):
            function()
    taken: list[list[float]] = [[] for _ in functions]
    end = perf_counter() + seconds * len(functions)
    while len(taken[0]) < FEWEST_CALLS or perf_counter() < end:
        for times, function in zip(taken, functions, strict=True):
            begin = perf_counter()
            function()
            times.append(perf_counter() - begin)
    return [_latency(times) for times in taken]


def _latency(times: Sequence[float]) -> Latency:
    p50, p95 = np.percentile(times, (50, 95))
    return Latency(1e3 * float(p50), 1e3 * float(p95), 1e3 * float(np.mean(times)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads of torch, >= 1."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
