"""Settings of ``hydra/sweeper=optuna``: the keys of ``hydra.sweeper``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.field_problems import validated
from coreai_opt.config.schemas.settings import Settings, Share

NODE = "hydra.sweeper"

WORDS = {"max": "maximize", "min": "minimize"}


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _directions(value: Any) -> Any:
    return [WORDS.get(str(one), one) for one in _listed(value)]


class SearchSettings(Settings):
    """The settings of a search, named as those of Hydra's own Optuna sweeper."""

    n_trials: int = Field(20, ge=1, description="trials of the whole study, >= 1")
    n_jobs: int = Field(1, ge=1, description="trials launched together, >= 1")
    objectives: Annotated[list[str], BeforeValidator(_listed)] = Field(
        min_length=1, description="names: objective.name, sparsity, a metric or a key of the record"
    )
    direction: Annotated[list[Literal["maximize", "minimize"]], BeforeValidator(_directions)] = (
        Field(description="maximize or minimize, for each of the objectives")
    )
    study_name: str | None = Field(None, min_length=1, description="a name, null = the sweep's")
    storage: Any = Field(None, description="a URL of Optuna's, null = in memory")
    max_failure_rate: Share = Field(1.0, description="share of trials that may fail, 0 to 1")
    params: dict[str, Any] | None = Field(None, description="{KNOB: interval(LOW,HIGH)}")
    custom_search_space: str | None = Field(None, description="dotted path of a function")
    sampler: dict[str, Any] = Field(description="hydra/sweeper/sampler=tpe, random, nsgaii, cmaes")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SearchSettings":
        """Return the settings in a config node.

        Args:
            values: the resolved node.

        Raises:
            ConfigError: everything that is wrong with it.
        """
        fields = {key: value for key, value in values.items() if not key.startswith("_")}
        settings, problems = validated(cls, fields, lambda path: ".".join(map(str, (NODE, *path))))
        if not isinstance(settings, cls):
            raise ConfigError(problems)
        counts = len(settings.direction), len(settings.objectives)
        if counts[0] != counts[1]:
            sentence = f"{NODE}.direction: {counts[0]} for {counts[1]} objectives"
            raise ConfigError.of(f"{NODE}.direction", f"{sentence}; allowed: one for each")
        return settings
