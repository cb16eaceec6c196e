"""Our own app: ``train.py`` and whatever else runs on the project's config tree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from coreai_opt.config.aliases import shadowing
from coreai_opt.config.composing import typed_flags
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.explain_errors import diagnose
from coreai_opt.config.identity import identity_config
from coreai_opt.config.locations import typed_path
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.config.schemas.trainer import processes_of
from coreai_opt.config.validation import ResolvedConfig, resolve
from coreai_opt.report.formatting import command_for
from coreai_opt.runs.existing_run import ExistingRun, differing_keys
from coreai_opt.runs.outcome import missing_targets, summary_line
from coreai_opt.sweep.apps.swept_app import SweptApp, is_grid
from coreai_opt.sweep.axes import HOW_TO_SEARCH
from coreai_opt.warmup.key import warmup_key

if TYPE_CHECKING:
    from coreai_opt.sweep.plan import Plan, Planner, Point
    from coreai_opt.sweep.preview.forecast import Forecast

# A value that the optimizer does not take is the failure of that run, and the others go on: rates
# are searched over wide ranges. Anything else that is wrong is said before the first run.
LEFT_TO_THE_RUN = "optimizer."

# As it stands in the primary config: the planner puts name and root together.
DEFAULT_DIR = "${paths.sweep_root}/${sweep_name}"

OF_HYDRA = ("hydra.", "hydra/")


class OwnApp(SweptApp):
    """The app of our config tree; its sweep's settings have short names at the root."""

    of_the_sweep = ("sweep.", "sweep_name", "preview", *OF_HYDRA)

    @property
    def shares_warmups(self) -> bool:
        return True

    def warmup_key(self, point: "Point") -> str | None:
        return warmup_key(point.config)

    def knob(self, name: str) -> str:
        return "sweep_name" if name == "name" else f"sweep.{name}"

    def read(self, task: DictConfig, hydra: DictConfig) -> ResolvedConfig:
        return resolve(task)

    def refusal(self, error: Any, typed: Sequence[str]) -> ConfigError:
        return ConfigError(diagnose(error, list(typed)))

    def is_left_to_the_run(self, problem: Problem) -> bool:
        return problem.key.startswith(LEFT_TO_THE_RUN)

    def settings(self, planner: "Planner") -> SweepSettings:
        _check_grid(planner.composer.hydra(planner.options).sweeper)
        common = planner.common
        if own := [one for one in common.problems if one.key.startswith(("sweep", "preview"))]:
            raise ConfigError(own)
        return SweepSettings(**common.values.get("sweep", {}))

    def given_name(self, planner: "Planner") -> str | None:
        given = planner.common.values.get("sweep_name")
        return None if given is None else str(given)

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return identity_config(values)

    def place(self, planner: "Planner", name: str) -> Path:
        values, composer = planner.common.values, planner.composer
        raw = composer.raw_sweep_dir(planner.options)
        if raw != DEFAULT_DIR:
            raw = raw.replace("${sweep_name}", name)
            return typed_path(composer.sweep_dir(planner.options, planner.fitting_values, raw))
        if "paths" not in values:
            raise ConfigError(list(planner.common.problems))
        return typed_path(values["paths"]["sweep_root"]) / name

    def told(self, planner: "Planner", given: Mapping[str, str]) -> list[str]:
        def alias(key: str) -> str | None:
            return planner.composer.alias(planner.options, key)

        return shadowing(given, given, alias)

    def objective(self, config: Mapping[str, Any]) -> tuple[str, str | None]:
        node = config.get("objective") or {}
        return node.get("name", "objective"), node.get("mode", "max")

    def processes(self, config: Mapping[str, Any]) -> int | None:
        return processes_of(config.get("trainer") or {})

    def accelerator(self, config: Mapping[str, Any]) -> str:
        return str((config.get("trainer") or {}).get("accelerator", "auto"))

    def differences(self, point: "Point", run: ExistingRun) -> list[str]:
        return differing_keys(point.config, run.record.get("config") or {})

    def is_whole(self, point: "Point", record: Mapping[str, Any]) -> bool:
        # A warm-up run has no model to deploy.
        return point.warmup_key is not None or not missing_targets(point.config, record)

    def summary(self, record: Mapping[str, Any], name: str) -> str:
        return summary_line(record, Path(name))

    def forecast(self, plan: "Plan") -> "Forecast":
        from coreai_opt.sweep.preview.forecast import OwnForecast

        return OwnForecast(plan)

    def alone(self, plan: "Plan", point: "Point") -> str:
        of_hydra = [text for text in plan.command if text.startswith(OF_HYDRA)]
        program = typed_flags.get().program
        return command_for(program, point.overrides, plan.name, of_hydra, plan.flags)


def _check_grid(sweeper: Mapping[str, Any]) -> None:
    """Refuse settings of another sweeper, given the node of the grid.

    Raises:
        ConfigError: there are such.
    """
    known = ("_target_", "params")
    foreign = [f"hydra.sweeper.{key}" for key in sweeper if key not in known]
    if is_grid(sweeper) and foreign:
        sentence = f"{', '.join(foreign)}: the grid has no such key"
        allowed = f"allowed: hydra.sweeper.params, or {HOW_TO_SEARCH}"
        raise ConfigError.of(foreign[0], f"{sentence}; {allowed}")
