"""Knobs of a job: everything that is wrong with them, and the schedule and config they mean."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.field_problems import Path, file_problems, name_of, named_once, validated
from coreai_opt.config.schemas.nodes import Node, nodes
from coreai_opt.config.schemas.settings import ScheduledPruningSettings, Settings
from coreai_opt.config.training_length import ramp_problem
from coreai_opt.plugin.options import OF_THE_JOB, PATTERNS, SCHEDULES, defaults, knobs_of, node_of
from coreai_opt.pruning._registry import nearest
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.config.schedules import SparsityScheduleBase

# The dotted name of a class: torch.nn.Conv2d. A module is hardly called so.
TYPE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\.[A-Z]\w*")

OF_A_RAMP = ("schedule", "interval", "begin_step", "total_iters", "milestones")

# Of two knobs that are checked together the problem has the name of one.
TOGETHER = (("n", "m"), ("milestones", "levels"))


class JobSettings(Settings):
    """The knobs of a job besides those of its schedule and of its pattern."""

    schedule: Literal[SCHEDULES] = Field(description=", ".join(SCHEDULES))  # type: ignore[valid-type]
    interval: Literal["step", "epoch", "percent"] = Field(
        description=ScheduledPruningSettings.model_fields["interval"].description
    )
    pattern: Literal[tuple(PATTERNS)] = Field(description=", ".join(PATTERNS))  # type: ignore[valid-type]
    dense: list[Annotated[str, Field(min_length=1)]] = Field(
        description="list of layers to leave dense: regular expressions of module names, or dotted "
        "names of types"
    )
    masks_from: Literal["schedule", "zeros"] = Field(
        description=ScheduledPruningSettings.model_fields["masks_from"].description
    )
    init_from: str | None = Field(
        min_length=1, description="file with the weights to start from, null = the app's own"
    )
    gate: bool = Field(
        description="whether the app's checkpoints and early stopping wait for the target"
    )
    monitor: bool = Field(description="whether zeros are counted for loggers and sparsity.csv")


class Knobs:
    """The knobs of one job.

    Args:
        values: the node as it stands in the job's config, plain values.
        prefix: the key that the node is at: ``prune``.
        typed: names of knobs that were typed. One that the job's schedule or pattern lacks is a
            problem; where it stems from the option's defaults, it does not count.
        is_sweep: whether the job is one of several: then what was typed for others does not count.
        unread: what is wrong with values that are not among ``values`` for it.

    Attributes:
        values: name -> value, null ones filled in.
        problems: all that is wrong.
        ignored: a sentence for each typed knob that does not count.
        schedule: None for the dense control, and where its values are wrong.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        prefix: str,
        typed: Collection[str] = (),
        is_sweep: bool = False,
        unread: Sequence[Problem] = (),
    ) -> None:
        self._prefix, self._typed, self._is_sweep = prefix, typed, is_sweep
        self.ignored: list[str] = []
        self.schedule: SparsityScheduleBase | None = None
        self.problems = [*unread, *self._unknown(values)]
        self.values = self._filled_in(values)
        self.problems = named_once([*self.problems, *self._wrong()]) or self._too_long()

    @property
    def is_dense(self) -> bool:
        """Whether the job is the dense control."""
        return bool(self.values["schedule"] == "none")

    def check(self) -> None:
        """Raise a ``ConfigError`` with all problems."""
        if self.problems:
            raise ConfigError(self.problems)

    def fixed_problems(self, swept: Collection[str]) -> list[Problem]:
        """Return the problems that no value of a swept knob can mend.

        Args:
            swept: names of knobs.
        """
        moved = {*swept, *(name for pair in TOGETHER if {*pair} & {*swept} for name in pair)}
        if {*OF_A_RAMP} & moved:
            moved |= {one.key.rpartition(".")[2] for one in self._too_long()}
        mended = set(map(self._name, moved))
        return [one for one in self.problems if one.key not in mended]

    def config(self, without_torch: bool = False) -> MagnitudePrunerConfig:
        """Return what is pruned how far.

        Args:
            without_torch: leave dotted names of types as they are, and import nothing.
        """
        context = {"without_torch": without_torch}
        return MagnitudePrunerConfig.model_validate(self._pruning, context=context)

    @property
    def prefix(self) -> str:
        """The key that the node is at."""
        return self._prefix

    @property
    def own(self) -> set[str]:
        """The knobs that the job has: those of its schedule and of its pattern among them."""
        return {"schedule", "init_from", "monitor"} if self.is_dense else {*self.values}

    @property
    def experiment(self) -> dict[str, Any]:
        """What of the knobs can change the result of a job, in one form for equal jobs."""
        start = {"init_from": self.values["init_from"]}
        if self.problems:
            return {**start, "knobs": self.values}
        if self.is_dense or self.schedule is None:
            return {**start, "schedule": None}
        ramp = {"type": type(self.schedule).__name__, **self.schedule.model_dump(mode="json")}
        others = {name: self.values[name] for name in ("interval", "masks_from", "gate")}
        return {**start, **others, "schedule": ramp, "config": self._pruning}

    @property
    def option(self) -> str:
        """What the job asks for, as it is typed: ``prune.schedule=poly``."""
        return f"{self._name('schedule')}={self.values['schedule']}"

    @property
    def target(self) -> float:
        """The sparsity to arrive at, which n and m say where they are given."""
        spec: Any = self.config(without_torch=True).global_config.op_state_spec["weight"]  # type: ignore[union-attr, index]
        return float(spec.pruning_scheme.target_for(spec.target_sparsity))

    @property
    def summary(self) -> str:
        """The job in half a sentence: schedule, target and pattern."""
        if self.is_dense:
            return f"{self.option}, the dense control"
        told = [
            f"{name}={self.values[name]}" for name in ("schedule", "target_sparsity", "pattern")
        ]
        target = self.target
        is_asked = target == self.values["target_sparsity"]
        fixed = "" if is_asked else f", whose n and m make the target {target:g}"
        return f"{self._prefix}: {' '.join(told)}{fixed}"

    def _name(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def _unknown(self, values: Mapping[str, Any]) -> Iterator[Problem]:
        known = list(dict.fromkeys(name for one in SCHEDULES for name in defaults(one)))
        for name in values:
            if name not in known:
                sentence = f"{self._name(name)}: there is no such key; {nearest(name, known)}"
                yield Problem(self._name(name), sentence)

    def _filled_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the knobs that the job has, and note what was typed in vain."""
        found = {name: values.get(name) for name in ("schedule", "interval", "pattern")}
        found |= {name: values.get(name, value) for name, value in OF_THE_JOB.items()}
        for kind, options in (("schedule", SCHEDULES), ("pattern", PATTERNS)):
            chosen = _known(values.get(kind), options)
            own = knobs_of(kind, chosen)
            given = {name: values[name] for name in own if values.get(name) is not None}
            found |= own | given
            others = {name for option in options for name in knobs_of(kind, option)} - {*own}
            for name in (name for name in values if name in others & {*self._typed}):
                if chosen == values.get(kind) and values[name] is not None:
                    self._refuse(kind, chosen, name, values[name])
        return found

    def _refuse(self, kind: str, chosen: str, name: str, value: Any) -> None:
        option = f"{self._name(kind)}={chosen}"
        if self._is_sweep:
            self.ignored.append(f"{self._name(name)}={value} does not count with {option}")
            return
        names = SCHEDULES if kind == "schedule" else PATTERNS
        having = [f"{self._name(kind)}={one}" for one in names if name in knobs_of(kind, one)]
        own = ", ".join(map(self._name, knobs_of(kind, chosen))) or "none"
        sentence = f"{option} has no {name!r}; allowed: {own}; {' and '.join(having)} has it"
        self.problems.append(Problem(self._name(name), f"{self._name(name)}={value}: {sentence}"))

    def _wrong(self) -> list[Problem]:
        settings = {name: self.values[name] for name in JobSettings.model_fields}
        found = validated(JobSettings, settings, lambda path: self._name(str(path[0])))[1]
        if (node := self._schedule_node) is not None:
            made, problems = validated(node.model, self._schedule_fields, self._named)
            self.schedule = made if isinstance(made, SparsityScheduleBase) else None
            found += problems
        found += validated(MagnitudePrunerConfig, self._pruning, self._named)[1]
        allowed = JobSettings.model_fields["init_from"].description
        return found + file_problems(self.values["init_from"], self._name("init_from"), allowed)

    def _too_long(self) -> list[Problem]:
        callback = {"interval": self.values["interval"]}
        found = ramp_problem(self.schedule, {"callbacks": {"scheduled_pruning": callback}})
        return [Problem(self._name(one.key), self._name(one.sentence)) for one in found]

    @cached_property
    def _schedule_node(self) -> Node | None:
        node = node_of("schedule", _known(self.values["schedule"], SCHEDULES))
        if node is None:
            return None
        return next(one for one in nodes() if (one.group, one.name) == ("schedule", node["base"]))

    @cached_property
    def _schedule_fields(self) -> dict[str, Any]:
        node = node_of("schedule", self.values["schedule"]) or {}
        fields = {name: value for name, value in node.items() if name != "base"}
        return dict(self._filled(fields, ()))

    @cached_property
    def _pruning(self) -> dict[str, Any]:
        given = self.values["dense"]
        node = {**(node_of("pattern", _known(self.values["pattern"], PATTERNS)) or {})}
        del node["base"]
        dense = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
        types = [name for name in dense if TYPE.fullmatch(name)]
        node["module_type_configs"] = dict.fromkeys(types)
        node["module_name_configs"] = dict.fromkeys(name for name in dense if name not in types)
        return dict(self._filled(node, ()))

    @cached_property
    def _names(self) -> dict[Path, str]:
        dense = self._name("dense")
        return {("module_name_configs",): dense, ("module_type_configs",): dense}

    def _named(self, path: Path) -> str:
        return name_of(path, self._names)

    def _filled(self, node: Any, path: Path) -> Any:
        """Return a node with the values of the knobs, and note which value is of which knob."""
        if isinstance(node, Mapping):
            return {key: self._filled(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, str) and node.startswith("${"):
            name = node[2:-1]
            self._names[path] = self._name(name)
            return self.values[name]
        return node


def _known(chosen: Any, options: Iterable[str]) -> str:
    """Return an option, the first one where there is none of the name: some knobs are of all."""
    first, *others = options
    return chosen if isinstance(chosen, str) and chosen in others else first
