"""Ramps in numbers, against the length of the training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coreai_opt.config.training_length import UNITS, planned_steps, schedule_of, steps_per_epoch
from coreai_opt.pruning.config.schedules import SparsityScheduleBase
from coreai_opt.report.formatting import weight_spec
from coreai_opt.sweep.preview.history import History

NEARLY = 1e-6


@dataclass(frozen=True)
class TrainingLength:
    """How long a training is; None where it is not known.

    Attributes:
        steps: optimizer steps.
        per_epoch: optimizer steps of an epoch.
        epochs: how many there are at most.
    """

    steps: int | None = None
    per_epoch: int | None = None
    epochs: int | None = None

    def in_units(self, interval: str) -> int | None:
        """Return the length as a schedule counts it, in ``step``, ``epoch`` or ``percent``."""
        if interval == "percent":
            return 100
        if interval == "step":
            return self.steps
        if self.steps is not None and self.per_epoch:
            return self.steps // self.per_epoch
        return self.epochs


@dataclass(frozen=True)
class Ramp:
    """A schedule in a training.

    Attributes:
        schedule: of sparsity over its clock.
        interval: unit of the clock: ``step``, ``epoch`` or ``percent``.
        target: sparsity at the end.
        length: of the training.
    """

    schedule: SparsityScheduleBase
    interval: str
    target: float
    length: TrainingLength

    @property
    def begin(self) -> int:
        """The reading of the clock at which it begins."""
        milestones = getattr(self.schedule, "milestones", None)
        return milestones[0] if milestones else int(getattr(self.schedule, "begin_step", 0))

    @property
    def end(self) -> int | None:
        """The reading of the clock from which the target is in force, None = not known."""
        return self.schedule.end_step

    @property
    def total(self) -> int | None:
        """The last reading of the clock, None = not known."""
        return self.length.in_units(self.interval)

    def text(self) -> str:
        """Return begin and end against the length.

        Example:
            >>> from coreai_opt.pruning.config import PolynomialDecaySchedule
            >>> ramp = PolynomialDecaySchedule(total_iters=400)
            >>> Ramp(ramp, "step", 0.9, TrainingLength(550, 55, 10)).text()
            '0 -> 400 of 550'
            >>> Ramp(ramp, "step", 0.9, TrainingLength()).text()
            '0 -> 400 of unknown'
        """
        unit = {"step": "", "epoch": " epochs", "percent": " %"}[self.interval]
        total = "unknown" if self.total is None else f"{self.total}"
        unit = f" ({unit.strip()})" if unit and self.total is None else unit
        end = "unknown" if self.end is None else f"{self.end}"
        through = f"at {end}" if self.begin == self.end else f"{self.begin} -> {end}"
        return f"{through} of {total}{unit}"

    @property
    def axis(self) -> str:
        """Unit of its horizontal axis: steps where their number is known, else its own clock."""
        has_clock = self.interval != "epoch" or bool(self.length.per_epoch)
        is_known = self.length.steps is not None and has_clock
        return "steps" if is_known else UNITS[self.interval]

    @property
    def span(self) -> int:
        """How far that axis goes."""
        if self.axis == "steps" and self.length.steps is not None:
            return self.length.steps
        return self.total if self.total is not None else max(1, ceil_to_tenth(self.end or 1))

    def at(self, position: float) -> float:
        """Return the sparsity at a position on the axis."""
        reading = self._reading(position) if self.axis == "steps" else int(position)
        return self.schedule.sparsity_at(reading, self.target)

    @property
    def final(self) -> float | None:
        """The sparsity when the training ends, None where its length is not known."""
        return None if self.total is None else self.schedule.sparsity_at(self.total, self.target)

    @property
    def is_never_reached(self) -> bool:
        """Whether the training ends below the target."""
        return self.final is not None and self.final < self.target - NEARLY

    @property
    def is_late(self) -> bool:
        """Whether the target comes into force in the last epoch: one validation at most follows."""
        steps, per_epoch = self.length.steps, self.length.per_epoch
        if self.end is None or self.is_never_reached:
            return False
        if self.interval == "epoch":
            return self.total is not None and self.end >= self.total
        if steps is None or not per_epoch:
            return False
        end = self.end if self.interval == "step" else self.end * steps / 100
        return end > (steps - 1) // per_epoch * per_epoch

    def _reading(self, step: float) -> int:
        if self.interval == "step":
            return int(step)
        if self.interval == "epoch":
            return int(step) // (self.length.per_epoch or 1)
        return min(100, 100 * int(step) // max(self.length.steps or 1, 1))


def ceil_to_tenth(end: int) -> int:
    """Return a little more than the end of a ramp, for an axis whose end is not known.

    Example:
        >>> ceil_to_tenth(400), ceil_to_tenth(3)
        (440, 4)
    """
    return end + (end + 9) // 10


def length_of(config: Mapping[str, Any], history: History) -> TrainingLength:
    """Return the length of a config's training: by its data, else by a record of an equal one."""
    epochs = (config.get("trainer") or {}).get("max_epochs", -1)
    known = epochs if isinstance(epochs, int) and epochs > 0 else None
    if (steps := planned_steps(config)) is not None:
        return TrainingLength(steps, steps_per_epoch(config), known)
    earlier = history.as_long(config)
    if earlier is None:
        return TrainingLength(epochs=known)
    return TrainingLength(earlier.steps, earlier.per_epoch, known)


def ramp_of(config: Mapping[str, Any], length: TrainingLength) -> Ramp | Literal["none", "unknown"]:
    """Return the ramp of a config, ``none`` of a dense control, ``unknown`` of a class not ours."""
    node = config.get("schedule")
    if node is None:
        return "none"
    schedule, target = schedule_of(node), target_of(config)
    if schedule is None or target is None:
        return "unknown"
    callback = (config.get("callbacks") or {}).get("scheduled_pruning") or {}
    return Ramp(schedule, str(callback.get("interval", "step")), target, length)


def target_of(config: Mapping[str, Any]) -> float | None:
    """Return the sparsity of most layers at the end, None where the config does not say it.

    Example:
        >>> weight = {"target_sparsity": 0.9, "pruning_scheme": {"type": "n_m", "n": 1, "m": 4}}
        >>> target_of({"pruning": {"global_config": {"op_state_spec": {"weight": weight}}}})
        0.75
    """
    spec = weight_spec(config)
    target, scheme = spec.get("target_sparsity"), spec.get("pruning_scheme")
    if not isinstance(target, int | float):
        return None
    if target and isinstance(scheme, Mapping) and scheme.get("type") == "n_m":
        return 1 - float(scheme["n"]) / float(scheme["m"])
    return float(target)
