"""Cost of pruning in a training step: time and memory.

Both ways are measured in one run: masks on the model (MagnitudePruner), and weights masked in place
(InPlacePruner).
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from bench_masks import WAYS, Clock
from benchmarking import add_device, at_least, parser, table, write
from gpu_counts import counted
from rich.table import Table
from step_models import MODELS, Case
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from coreai_opt.pruning import InPlacePruner, MagnitudePruner, MagnitudePrunerConfig
from coreai_opt.pruning.config import PolynomialDecaySchedule
from coreai_opt.pruning.model.targets import pruned_tensors

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda weights: SGD(weights, lr=0.01, momentum=0.9),
    "adamw": lambda weights: AdamW(weights, lr=1e-3),
}
# All end at 90 %; a ramp updates its masks in every step, or in one of ten.
PHASES: dict[str, dict[str, Any]] = {
    "ramp": {"every": 1},
    "ramp, every 10": {"every": 10},
    "after": {"every": 0},
    "ramp, no regrowth": {"every": 1, "allow_regrowth": False},
    "after, no regrowth": {"every": 0, "allow_regrowth": False},
}
WARM_UP = 3
NAMES = ("model", "optimizer", "way", "phase")


def main() -> None:
    """Time all models in all phases, print the table and write the JSON."""
    parsing = _parser()
    arguments = parsing.parse_args()
    if "resnet50" in arguments.models and find_spec("torchvision") is None:
        parsing.error("argument --models: resnet50 needs torchvision: pip install torchvision")
    clock = Clock(torch.device(arguments.device), 1)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # A hundred layers give gradients so small that what is timed is how a processor takes them.
    torch.set_flush_denormal(True)
    rows = []
    for name in arguments.models:
        for optimizer in arguments.optimizers:
            rows += compare(MODELS[name], optimizer, clock, arguments)
    results = {
        "device": clock.name,
        "threads": torch.get_num_threads(),
        "compiled": arguments.compile,
        "steps": arguments.steps,
        "rows": rows,
    }
    write(arguments.json, _command(arguments), results, _table(results))


def _parser() -> Any:
    made = parser("steps", __doc__)
    add_device(made)
    made.add_argument(
        "--steps", type=at_least(1), default=25, help="the median of so many (default: 25)"
    )
    made.add_argument("--compile", action="store_true", help="with torch.compile")
    made.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=["small-layers", "mlp", "conv", "transformer"],
        help="which",
    )
    made.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    made.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    made.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    return made


def _command(arguments: Any) -> str:
    options = [f"--models {' '.join(arguments.models)}", f"--device {arguments.device}"]
    return " ".join(["scripts/bench steps", *options, *(["--compile"] * arguments.compile)])


@dataclass
class Training:
    """A model in training, pruned or not."""

    model: nn.Module
    forward: Callable[..., Any]
    optimizer: Optimizer
    pruner: MagnitudePruner | InPlacePruner | None
    batch: tuple[Any, ...]

    def step(self) -> None:
        """Make a training step, as a loop of one's own would."""
        self.optimizer.zero_grad()
        *inputs, target = self.batch
        output = self.forward(*inputs)
        nn.functional.cross_entropy(output.flatten(0, -2), target.flatten()).backward()
        self.optimizer.step()
        if self.pruner is not None:
            self.pruner.step()

    @property
    def weights(self) -> int:
        """How many weights carry a mask."""
        return sum(tensor.impl.mask.numel() for tensor in pruned_tensors(self.model))


@dataclass(frozen=True)
class Variant:
    """How a model is trained; ``way`` and ``phase`` None = dense."""

    way: str | None = None
    phase: str | None = None


def make(case: Case, optimizer: str, variant: Variant, device: Any, compiled: bool) -> Training:
    """Return a training."""
    torch.manual_seed(0)
    model = case.model().to(device)
    pruner: Any = None
    if variant.way is not None and variant.phase is not None:
        pruner = WAYS[variant.way](model, _config(**PHASES[variant.phase]))
        pruner.prepare()
        pruner.step(2)
    made = OPTIMIZERS[optimizer](model.parameters())
    if isinstance(pruner, InPlacePruner):
        pruner.attach(made)
    elif pruner is not None:
        pruner.mask_optimizer_state(made)
    batch = tuple(part.to(device) for part in case.batch())
    forward = torch.compile(model) if compiled else model
    return Training(model, forward, made, pruner, batch)


def _config(every: int, allow_regrowth: bool = True) -> MagnitudePrunerConfig:
    ramp = PolynomialDecaySchedule(
        total_iters=10_000 if every else 1,
        initial_sparsity=0.5,
        power=1,
        update_frequency=every or 1,
    )
    config = MagnitudePrunerConfig.uniform(0.9, ramp)
    config.allow_regrowth = allow_regrowth
    return config


def compare(case: Case, optimizer: str, clock: Clock, arguments: Any) -> list[dict[str, Any]]:
    """Time the variants of one model side by side, and look at their memory one after another."""
    variants = [Variant(), *_variants(case, arguments)]
    given = clock.device, arguments.compile
    trainings = [make(case, optimizer, variant, *given) for variant in variants]
    times: list[list[float]] = [[] for _ in variants]
    rounds = _rounds(case)
    for step in range(WARM_UP + arguments.steps):
        for training, taken in zip(trainings, times, strict=True):
            whole = clock.once(lambda one=training: [one.step() for _ in range(rounds)]) / rounds
            if step >= WARM_UP:
                taken.append(whole)
    weights, medians = trainings[-1].weights, list(map(median, times))
    del trainings, training
    peaks = [_peak(case, optimizer, variant, *given) for variant in variants]
    counts = [_counts(make(case, optimizer, variant, *given)) for variant in variants]
    return [
        {"model": case.name, "optimizer": optimizer, "way": variant.way or "dense"}
        | {"phase": variant.phase or ""}
        | {"weights": weights, "step_s": medians[index], "ratio": medians[index] / medians[0]}
        | {"extra_bytes_a_weight": (peaks[index] - peaks[0]) / weights}
        | {"launches": counts[index][0] - counts[0][0], "waits_in_pruner": counts[index][1]}
        for index, variant in enumerate(variants)
    ]


def _variants(case: Case, arguments: Any) -> list[Variant]:
    return [
        Variant(way, phase)
        for way in arguments.ways
        for phase in arguments.phases
        if _rounds(case) % max(PHASES[phase]["every"], 1) == 0
    ]


def _rounds(case: Case) -> int:
    """Return how many steps are timed at once: those of a ramp with rare updates differ."""
    return 10 if case.name == "small-layers" else 1


def _counts(training: Training) -> tuple[int, int]:
    """Return the launches of a step and the waits of the pruner in it, as they were on a GPU."""
    for _ in range(2):
        training.step()
    launches = counted(training.step).launches
    return launches, 0 if training.pruner is None else counted(training.pruner.step).waits


def _peak(case: Case, optimizer: str, variant: Variant, device: Any, compiled: bool) -> int:
    """Return the most bytes that tensors held at once in some steps, what is there included."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        training = make(case, optimizer, variant, device, compiled)
        training.step()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            training.step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        training = make(case, optimizer, variant, device, compiled)
        for _ in range(3):
            training.step()
    # torch has no public name for the allocations that it recorded.
    events = profile.profiler.kineto_results.events()
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def _table(results: dict[str, Any]) -> Table:
    how = "compiled" if results["compiled"] else "eager"
    numbers = ("step ms", "ratio", "extra bytes a weight", "launches", "waits")
    made = table(f"a training step on {results['device']}, {how}", NAMES, numbers)
    for row in results["rows"]:
        made.add_row(
            *(row[name] for name in NAMES),
            f"{row['step_s'] * 1e3:.1f}",
            f"{row['ratio']:.3f}",
            f"{row['extra_bytes_a_weight']:.2f}",
            str(row["launches"]),
            str(row["waits_in_pruner"]),
        )
    return made


if __name__ == "__main__":
    main()
