"""The configs of a sweep's jobs, composed once for each choice of options and filled in for each.

As the plan has been made, and what comes out is what Hydra composes: composing takes 0.1 s, and a
sweep composes for every run what its own process has composed for the one before.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

__all__ = ["JobConfigs"]

MOST_KEPT = 64  # choices of options; a composed config takes 0.2 MB


class JobConfigs(ConfigLoaderImpl):
    """Hydra's loader, for the jobs that one process runs one after the other.

    Args:
        loader: whose configs are composed.
    """

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self.config_search_path, self.repository = loader.config_search_path, loader.repository
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._seen: dict[tuple[str, ...], CachingConfigRepository] = {}

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: Sequence[str]
    ) -> DictConfig:
        """Return the config of a job.

        Args:
            master_config: the sweep's.
            sweep_overrides: the job's, besides those of Hydra's settings that the sweep has.
        """
        given: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        of_hydra = [str(one) for one in given]
        parsed = OverridesParser.create().parse_overrides(list(sweep_overrides))
        name = str(master_config.hydra.job.config_name)
        values = [one for one in parsed if self._sets_a_value(one, name, of_hydra)]
        chosen = [str(one.input_line) for one in parsed if one not in values]
        key = (name, *of_hydra, *chosen)
        if key not in self._bases:
            if len(self._bases) == MOST_KEPT:
                del self._bases[next(iter(self._bases))]
            self._bases[key] = self.load_configuration(name, [*of_hydra, *chosen], RunMode.RUN)
        config = deepcopy(self._bases[key])
        self._apply_overrides_to_config(values, config)
        self._tell(config, of_hydra, parsed)
        # The same moments and the like as the sweep's, as Hydra itself does it.
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bases": {}, "_seen": {}}

    def _sets_a_value(self, override: Override, name: str, of_hydra: list[str]) -> bool:
        """Return what Hydra decides by: whether there is such a group, where it looks for them."""
        key = (name, *of_hydra)
        if key not in self._seen:
            self._seen[key] = self._parse_overrides_and_create_caching_repo(name, of_hydra)[1]
        is_group = self._seen[key].group_exists(override.key_or_group)
        return isinstance(override.value(), dict) or not is_group

    def _tell(self, config: DictConfig, of_hydra: list[str], parsed: list[Override]) -> None:
        """Put into a config what it was made of."""
        job, overrides = config.hydra.job, config.hydra.overrides
        own = [one for one in parsed if not one.is_hydra_override()]
        hydras = [one.input_line for one in parsed if one.is_hydra_override()]
        overrides.hydra = [*of_hydra, *hydras]
        overrides.task = [one.input_line for one in own]
        with open_dict(config.hydra):
            for key in job.env_copy:
                job.env_set[key] = os.environ[key]
        told = job.config.override_dirname
        job.override_dirname = get_overrides_dirname(
            own, list(told.exclude_keys), told.item_sep, told.kv_sep
        )
