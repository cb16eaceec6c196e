"""Which of our ways to launch goes with one of Hydra's launchers, and what is not installed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.plugins.launcher import Launcher

from coreai_opt.config.errors import ConfigError
from coreai_opt.config.group_options import option_problems
from coreai_opt.sweep.plugins import GROUP, PLUGINS, is_installed

if TYPE_CHECKING:
    from coreai_opt.sweep.launchers.base import SweepLauncher

# Option of hydra/launcher -> the extra of ours that it comes with, and its plugin.
EXTRAS = {
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit_local": ("slurm", "hydra_submitit_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
}


def check_installed(overrides: Sequence[str]) -> None:
    """Refuse options that cannot be chosen, before Hydra composes anything.

    Args:
        overrides: as typed, those of Hydra's own settings among them.

    Raises:
        ConfigError: a launcher's package is not installed, with the command that installs it, or a
            list has something else than names of options.
    """
    if problems := option_problems(overrides):
        raise ConfigError(problems)
    chosen = [one.partition("=")[2] for one in overrides if one.partition("=")[0] == GROUP]
    if not chosen or chosen[-1] not in EXTRAS:
        return
    extra, plugin = EXTRAS[chosen[-1]]
    if not is_installed(plugin):
        sentence = f"{GROUP}={chosen[-1]} needs the package {plugin.replace('_', '-')}"
        raise ConfigError.of(GROUP, f"{sentence}: pip install 'hydra-coreai-opt[{extra}]'")


def sweep_launcher(launcher: Launcher, accelerator: str) -> "SweepLauncher":
    """Return our way to launch with one of Hydra's launchers.

    Args:
        launcher: as Hydra has made it.
        accelerator: what the runs compute on, ``auto`` where nobody says.
    """
    kind = type(launcher)
    package, name = kind.__module__.split(".")[:2], kind.__name__
    if package == [PLUGINS, "hydra_joblib_launcher"]:
        from coreai_opt.sweep.launchers.joblib_launcher import JoblibLauncher

        return JoblibLauncher(launcher, accelerator)
    if package == [PLUGINS, "hydra_submitit_launcher"]:
        from coreai_opt.sweep.launchers.submitit_launcher import (
            LocalSubmititLauncher,
            SlurmLauncher,
        )

        ours = SlurmLauncher if name == "SlurmLauncher" else LocalSubmititLauncher
        return ours(launcher, accelerator)
    if package == [PLUGINS, "hydra_ray_launcher"] and name == "RayLauncher":
        from coreai_opt.sweep.launchers.ray_launcher import RayLauncher

        return RayLauncher(launcher, accelerator)
    from coreai_opt.sweep.launchers.base import SweepLauncher

    return SweepLauncher(launcher, accelerator)
