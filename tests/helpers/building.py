"""What tests of building share."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from coreai_opt.training import build as module
from coreai_opt.training.build import Objects


def build(cfg: DictConfig, overrides: Sequence[str], quiet: bool) -> Objects:
    """Build what a composed config says."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return module.build(config, overrides, quiet)
