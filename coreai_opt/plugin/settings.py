"""Settings of a sweep of any app: the keys of ``hydra.sweeper``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import BeforeValidator, Field

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.field_problems import validated
from coreai_opt.config.schemas.settings import SweepSettings
from coreai_opt.sweep.apps.swept_app import is_grid

NODE = "hydra.sweeper"

GUESS = "auto"

MODES = {"maximize": "max", "minimize": "min", "max": "max", "min": "min"}


def _as_text(value: Any) -> Any:
    # hydra.sweeper.name=3 is a name too.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _off_of_yaml(value: Any) -> Any:
    # In a file of its own an unquoted off is false.
    return "off" if value is False else value


class AnySweepSettings(SweepSettings):
    """What a sweep of any app does with its runs."""

    name: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None, min_length=1, description="a name, null = from what varies"
    )
    preview: bool = Field(False, description="true or false")
    ignore: list[str] = Field(
        default_factory=list,
        description="patterns over dotted keys of what cannot change a result; !KEY = it can",
    )
    resume_key: str | None = Field(
        GUESS, min_length=1, description="key of the checkpoint to go on from, auto or null"
    )
    objective: str | None = Field(
        None, min_length=1, description="name of a metric, null = what the task returns"
    )
    direction: Literal["maximize", "minimize", "max", "min"] | None = Field(
        None, description="maximize or minimize"
    )
    warmup: Annotated[Literal["auto", "off"], BeforeValidator(_off_of_yaml)] = Field(
        "off", description="auto or off: whether runs share what they train before they prune"
    )
    params: dict[str, Any] | None = Field(None, description="{KNOB: 'VALUE,VALUE'}")

    @property
    def mode(self) -> str | None:
        """``max`` or ``min``, None where nobody says."""
        return None if self.direction is None else MODES[self.direction]

    @classmethod
    def of(cls, node: DictConfig) -> "AnySweepSettings":
        """Return the settings in Hydra's node of a sweeper.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        values: Any = OmegaConf.to_container(node, resolve=True)
        if not is_grid(values):
            values = _of_search(values)
        fields = {key: value for key, value in values.items() if not key.startswith("_")}
        settings, problems = validated(cls, fields, lambda path: ".".join(map(str, (NODE, *path))))
        if not isinstance(settings, cls):
            raise ConfigError(problems)
        return settings


def _of_search(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the node of a search, or of another sweeper, says besides that."""
    # Its params are ranges, and its direction may be one for each of several objectives.
    names = {*AnySweepSettings.model_fields} - {"params"}
    found = {name: values[name] for name in names if name in values}
    if isinstance(direction := found.get("direction"), list):
        found["direction"] = direction[0] if len(direction) == 1 else None
    return found


def search_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a search alone, with names of what the task returns.

    Args:
        values: Hydra's node of the sweeper, plain.

    Example:
        >>> search_values({"retry": "all", "direction": ["max", "min"], "objectives": None})
        {'direction': ['max', 'min'], 'objectives': ['objective.values.0', 'objective.values.1']}
    """
    ours = {*AnySweepSettings.model_fields} - {"params", "direction"}
    found = {name: values[name] for name in values if name not in ours}
    if found.get("objectives") is None:
        directions = found.get("direction")
        count = len(directions) if isinstance(directions, list) else 1
        several = [f"objective.values.{number}" for number in range(count)]
        found["objectives"] = several if count > 1 else ["objective"]
    return found


def defaults_of_sweep() -> dict[str, Any]:
    """Return the settings with their defaults, as plain values."""
    return AnySweepSettings().model_dump()
