"""Cost of a mask: against topk and a scatter, from 1e4 to 1e8 weights."""

import time
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import torch
from benchmarking import add_device, at_least, parser, table, write
from rich.table import Table
from torch import Tensor, nn

from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.masks.of_scores import unstructured_mask
from coreai_opt.pruning.masks.selection import Magnitude
from coreai_opt.pruning.spec import MagnitudePruneImpl, PruningSpec

SPARSITIES = (0.3, 0.5, 0.7, 0.9)
SIDE = 4096
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
# As many weights in layers of 10,000 as in one.
LAYERS, SMALL = 500, 100
WAYS = {"on the model": MagnitudePruner, "in place": InPlacePruner}


def main() -> None:
    """Run all comparisons, print their tables and write the JSON."""
    arguments = _parser().parse_args()
    torch.manual_seed(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = Clock(torch.device(arguments.device), arguments.repeats)
    sides, sizes = (arguments.side, [size for size in SIZES if size <= arguments.largest])
    results = {
        "device": clock.name,
        "threads": torch.get_num_threads(),
        "weights": sides**2,
        "masks": against_topk(clock, sides),
        "sizes": by_size(clock, sizes),
        "layers": by_layers(clock, arguments.layers),
    }
    write(arguments.json, "scripts/bench masks", results, *tables(results))


def _parser() -> Any:
    made = parser("masks", __doc__)
    add_device(made)
    made.add_argument(
        "--repeats", type=at_least(1), default=9, help="the median of so many (default: 9)"
    )
    made.add_argument("--side", type=at_least(2), default=SIDE, help="of the square weight")
    made.add_argument(
        "--largest",
        type=at_least(SIZES[0]),
        default=SIZES[-1],
        help="weights of the largest, from 10,000 on",
    )
    made.add_argument("--layers", type=at_least(1), default=LAYERS, help="layers of 10,000 weights")
    return made


class Clock:
    """Times functions on a device, in seconds."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        on_gpu = device.type == "cuda"
        self.name = torch.cuda.get_device_name(device) if on_gpu else "cpu"
        self._wait: Callable[[], None] = torch.cuda.synchronize if on_gpu else lambda: None

    def median(self, function: Callable[[], object], repeats: int | None = None) -> float:
        """Return the median over the repeats, after one that does not count."""
        function()
        return median(self.once(function) for _ in range(repeats or self.repeats))

    def once(self, function: Callable[[], object]) -> float:
        self._wait()
        began = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - began


def topk_and_scatter(weight: Tensor, sparsity: float) -> Tensor:
    """Return the mask as it is often made: ones at the places of the largest magnitudes."""
    kept = weight.numel() - int(weight.numel() * sparsity)
    places = weight.abs().flatten().topk(kept).indices
    return torch.zeros(weight.numel(), device=weight.device).scatter_(0, places, 1.0)


def against_topk(clock: Clock, side: int) -> list[dict[str, float]]:
    """Time a mask from scratch, and the update of a ramp that has gone on by one step."""
    weight = torch.randn(side, side, device=clock.device) * 0.02
    read = clock.median(weight.sum)
    rows = []
    for sparsity in SPARSITIES:
        topk = clock.median(lambda s=sparsity: topk_and_scatter(weight, s), 3)
        mask = clock.median(lambda s=sparsity: unstructured_mask(Magnitude(weight), s))
        update = _update(clock, weight, sparsity)
        rows.append(
            {"sparsity": sparsity, "read_s": read, "topk_s": topk, "mask_s": mask}
            | {"update_s": update, "ratio": topk / mask, "update_ratio": topk / update}
        )
    return rows


def _update(clock: Clock, weight: Tensor, sparsity: float) -> float:
    """Time what a pruner does for a weight: a new mask in force, what comes back counted."""
    impl = MagnitudePruneImpl(weight, PruningSpec(target_sparsity=sparsity))
    times, moving = [], weight.clone()
    for step in range(7):
        moving.add_(torch.randn_like(weight), alpha=1e-4)
        share = sparsity - (7 - step) * 1e-3
        times.append(clock.once(lambda s=share: impl.update(moving, s)))
    return median(times[1:])


def by_size(clock: Clock, sizes: list[int]) -> list[dict[str, float]]:
    """Time masks of one tensor, small to large."""
    rows = []
    for size in sizes:
        weight = torch.randn(size, device=clock.device)
        repeats = 200 if size <= 100_000 else None
        seconds = clock.median(lambda w=weight: unstructured_mask(Magnitude(w), 0.7), repeats)
        rows.append({"weights": size, "mask_s": seconds, "ns_a_weight": seconds * 1e9 / size})
    return rows


def by_layers(clock: Clock, layers: int) -> list[dict[str, Any]]:
    """Time a step of a pruner whose masks all change, of many small layers and of a large one."""
    side = round((layers * SMALL**2) ** 0.5)
    cases = [(way, *each) for way in WAYS for each in ((layers, SMALL), (1, side))]
    pruners = [_pruner(clock, *case) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    for turn in range(3 * clock.repeats + 1):
        for pruner, taken in zip(pruners, times, strict=True):
            seconds = clock.once(lambda one=pruner: one.step(100))
            taken += [seconds] if turn else []
    rows: list[dict[str, Any]] = []
    for (way, count, width), taken in zip(cases, times, strict=True):
        weights, seconds = count * width**2, median(taken)
        rows.append(
            {"way": way, "layers": count, "weights": weights, "step_s": seconds}
            | {"ns_a_weight": seconds * 1e9 / weights}
        )
    return rows


def _pruner(clock: Clock, way: str, count: int, width: int) -> Any:
    many = [nn.Linear(width, width, bias=False) for _ in range(count)]
    model = nn.Sequential(*many).to(clock.device)
    ramp = PolynomialDecaySchedule(total_iters=100_000, initial_sparsity=0.5, power=1)
    pruner = WAYS[way](model, MagnitudePrunerConfig.uniform(0.9, ramp))
    pruner.prepare()
    return pruner


def tables(results: dict[str, Any]) -> list[Table]:
    """Return what is printed."""
    masks = results["masks"]
    title = f"a mask of {results['weights']:,} weights on {results['device']}"
    columns = ("sparsity", "topk ms", "mask ms", "times", "update ms", "times", "read once ms")
    first = table(f"{title}, {results['threads']} threads", [], columns)
    for row in masks:
        first.add_row(
            str(row["sparsity"]),
            *(f"{row[key] * 1e3:.1f}" for key in ("topk_s", "mask_s")),
            f"{row['ratio']:.0f}",
            f"{row['update_s'] * 1e3:.1f}",
            f"{row['update_ratio']:.0f}",
            f"{row['read_s'] * 1e3:.2f}",
        )
    means = [geometric_mean(row[key] for row in masks) for key in ("ratio", "update_ratio")]
    first.add_row("mean", "", "", f"{means[0]:.0f}", "", f"{means[1]:.0f}", "")
    return [
        first,
        _all_of("by size", results["sizes"]),
        _all_of("a step of a pruner, by layers", results["layers"]),
    ]


def _all_of(title: str, rows: list[dict[str, Any]]) -> Table:
    made = table(title, [], [key.replace("_", " ") for key in rows[0]])
    for row in rows:
        made.add_row(*map(_number, row.values()))
    return made


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    main()
