"""Any app as sweeps see it: its config has no schema of ours, its runs have no keys of ours."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from coreai_opt.config.any_config import (
    IGNORED,
    NOW,
    anywhere,
    differences,
    identity_of,
)
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.identity import is_ignored
from coreai_opt.config.locations import typed_path
from coreai_opt.plugin.asked import knobs_in
from coreai_opt.plugin.experiment import (
    RETURNED,
    AnyConfig,
    any_config,
    beside_knobs,
    counting,
)
from coreai_opt.plugin.jobs.resume_key import resume_key
from coreai_opt.plugin.jobs.warmup import any_warmup_key
from coreai_opt.plugin.settings import NODE, AnySweepSettings, search_values
from coreai_opt.report.formatting import quoted, short_value
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.outcome import shortfall
from coreai_opt.runs.paths import INNER
from coreai_opt.sweep.apps.swept_app import SweptApp

if TYPE_CHECKING:
    from coreai_opt.sweep.plan import Plan, Planner, Point
    from coreai_opt.sweep.preview.forecast import Forecast


class AnyApp(SweptApp):
    """An app of somebody else.

    Args:
        name: of the app.
        program: how it was called, ``python their_app.py``.
        flags: what was typed besides overrides, as ``--config-dir=DIR``.
    """

    inner = INNER
    of_the_sweep = ("hydra.sweeper.", "hydra/")

    def __init__(self, name: str, program: str, flags: Sequence[str] = ()) -> None:
        self.name = name
        self.program, self.flags = program, tuple(flags)
        self._settings = AnySweepSettings()
        self._more: tuple[str, ...] = ()

    def knob(self, name: str) -> str:
        return f"{NODE}.{name}"

    def read(self, task: DictConfig, hydra: DictConfig) -> AnyConfig:
        return any_config(task, hydra, self._settings, self._more)

    def refusal(self, error: Exception, typed: Sequence[str]) -> ConfigError:
        # Hydra's own words: what it allows is said there.
        return ConfigError.of("", " ".join(str(error).split()))

    def is_left_to_the_run(self, problem: Problem) -> bool:
        return False

    def settings(self, planner: "Planner") -> AnySweepSettings:
        return self._settings

    @property
    def is_preview(self) -> bool:
        """Whether the command only asks what would be run."""
        return self._settings.preview

    def prepare(self, planner: "Planner") -> None:
        """Read the settings, and look which keys count; before anything else is asked.

        Raises:
            ConfigError: a setting is wrong.
        """
        self._settings = AnySweepSettings.of(planner.composer.hydra(planner.options).sweeper)
        first, again = (self.read_of(planner) for _ in range(2))
        # An app may make a name of its run anew each time that it is asked.
        changing = [key for key in first if first[key] != again.get(key)]
        varied = {one.key_or_group for one in planner.of_task if one.is_sweep_override()}
        patterns = [*IGNORED, *self._settings.ignore]
        # What somebody sweeps over counts.
        counting = [f"!{key}" for key in sorted(varied) if is_ignored(key, patterns)]
        self._more = (*changing, *counting)
        planner.__dict__.pop("common", None)
        key = resume_key(planner.common.values, self._settings.resume_key)
        if self.shares_warmups and key is None:
            told = f"{NODE}.warmup=auto: this app has no key for a checkpoint to start from"
            raise ConfigError.of(
                f"{NODE}.warmup", f"{told}; allowed: {NODE}.resume_key=KEY, or off"
            )

    def read_of(self, planner: "Planner") -> Mapping[str, Any]:
        """Return the identity of what does not vary, read anew."""
        planner.__dict__.pop("common", None)
        config: Any = planner.common
        identity: Mapping[str, Any] = config.identity
        return identity

    def search_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return search_values(values)

    def given_name(self, planner: "Planner") -> str | None:
        return self._settings.name

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return identity_of(values, [*IGNORED, *self._settings.ignore, *self._more])

    def place(self, planner: "Planner", name: str) -> Path:
        """Return the app's own place of sweeps without the time in it, and the name below."""
        options, composer = planner.options, planner.composer
        raw = composer.raw_sweep_dir(options)
        with anywhere(composer.hydra(options)):
            given = composer.sweep_dir(options, planner.fitting_values, raw)
        is_typed = any(one.startswith("hydra.sweep.dir=") for one in planner.of_hydra)
        if is_typed and NOW not in given:
            return typed_path(given)
        lasting = [part for part in Path(given).parts if NOW not in part]
        return typed_path(str(Path(*lasting, name)))

    def told(self, planner: "Planner", given: Mapping[str, str]) -> list[str]:
        changing = [key for key in self._more if not key.startswith("!")]
        return [
            f"{key} is another value each time that it is read, and does not count in what tells "
            "runs apart"
            for key in changing
        ]

    def objective(self, config: Mapping[str, Any]) -> tuple[str, str | None]:
        return self._settings.objective or RETURNED, self._settings.mode

    @property
    def shares_warmups(self) -> bool:
        return self._settings.warmup == "auto"

    def warmup_key(self, point: "Point") -> str | None:
        knobs = knobs_in(point.config)
        if knobs is None:
            return None
        return any_warmup_key(self.identity(beside_knobs(point.config, knobs)), knobs)

    def processes(self, config: Mapping[str, Any]) -> int | None:
        return None

    def accelerator(self, config: Mapping[str, Any]) -> str:
        trainer = config.get("trainer")
        given = trainer.get("accelerator") if isinstance(trainer, Mapping) else None
        return str(given or "auto")

    def differences(self, point: "Point", run: ExistingRun) -> list[str]:
        planned = self.identity(counting(point.config, knobs_in(point.config)))
        return differences(planned, run.record.get("identity") or {})

    def summary(self, record: Mapping[str, Any], name: str) -> str:
        return any_summary(record, name)

    def forecast(self, plan: "Plan") -> "Forecast":
        from coreai_opt.plugin.sweeps.forecast import AnyForecast

        return AnyForecast(plan, self.name)

    def alone(self, plan: "Plan", point: "Point") -> str:
        of_hydra = [text for text in plan.command if text.startswith(("hydra.", "hydra/"))]
        named = f"{NODE}.name="
        said_here = (named, "hydra.mode=")
        kept = [text for text in of_hydra if not text.startswith(said_here)]
        if not any(text.startswith("hydra/sweeper=") for text in kept):
            kept.insert(0, "hydra/sweeper=grid")
        words = [*plan.flags, "-m", *kept, f"{named}{quoted(plan.name)}", *point.overrides]
        return f"{self.program} {shlex.join(words)}"


def any_summary(record: Mapping[str, Any], name: str) -> str:
    """Return one line with what a run came to: objective, metrics, sparsity, time, directory."""
    objective, metrics = record.get("objective") or {}, record.get("metrics") or {}
    known = {str(objective.get("name")): objective.get("value"), **metrics}
    names = sorted(known, key=lambda key: _rank(key, objective))
    parts = [
        f"{key} {short_value(key, known[key])}"
        for key in names[:MOST_METRICS]
        if known[key] is not None
    ]
    sparsity = record.get("sparsity")
    if sparsity and sparsity.get("target") is not None:
        reached = f"sparsity {100 * sparsity['achieved']:.2f} %"
        parts.append(shortfall(sparsity) or reached)
    if record.get("warning"):
        parts.append(f"not what was asked: {record['warning']}")
    return ", ".join([*parts, f"{record['wall_seconds']:.1f} s", name])


MOST_METRICS = 4

# Metrics that are told first: by the beginning of their names.
TOLD_FIRST = ("test", "val")


def _rank(key: str, objective: Mapping[str, Any]) -> int:
    if key == objective.get("name"):
        return 0
    begins = (at for at, word in enumerate(TOLD_FIRST, start=1) if key.startswith(word))
    return next(begins, len(TOLD_FIRST) + 1 + key.endswith("_step"))
