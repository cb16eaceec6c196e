"""What Hydra calls before a run or a sweep makes its first directory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.experiment.aliases import shadowed_knobs
from coreai_opt.experiment.cluster import launch_id
from coreai_opt.experiment.errors import ConfigError, Problem, print_problems
from coreai_opt.experiment.launch_notes import heard_directory, tell_directory
from coreai_opt.experiment.places import RunPaths, is_main_process
from coreai_opt.experiment.resuming import (
    choose_directory,
    directory_problems,
    given_path,
    resume_problems,
)
from coreai_opt.experiment.validation import find_problems

__all__ = ["CheckConfig", "first_point", "task_config"]


class CheckConfig(Callback):
    """Refuses a bad config before a directory is made or anything is written over.

    Hydra turns exceptions of its callbacks into warnings: a refusal is printed here, and leaves as
    SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            own = Path(config.hydra.run.dir)
        except OmegaConfBaseException:  # it names what is not there
            _refuse(find_problems(task_config(config, ".")))
            raise
        task = task_config(config, str(own))
        _refuse(find_problems(task))
        plain: dict[str, Any] = OmegaConf.to_container(task, resolve=True)  # type: ignore[assignment]
        is_given = any(one.startswith("hydra.run.dir=") for one in config.hydra.overrides.hydra)
        launch, output_root = launch_id(os.environ), Path(plain["paths"]["output_root"])
        if not is_main_process():
            if launch is not None:
                with read_write(config):
                    config.hydra.run.dir = str(_heard_directory(output_root, launch))
            return
        root = own
        try:
            _refuse(resume_problems(plain, is_sweep=False))
            root, sentences = choose_directory(plain, own, is_given)
            _refuse(directory_problems(plain, RunPaths(root), is_sweep=False))
        except SystemExit:
            if launch is not None:
                tell_directory(output_root, launch, None)
            raise
        if launch is not None:
            tell_directory(output_root, launch, root)
        typed: Any = OmegaConf.to_container(config.hydra.overrides.task)
        for sentence in [*shadowed_knobs(typed, str(config.hydra.job.config_name)), *sentences]:
            print(sentence)
        with read_write(config), open_dict(config):
            # Hydra makes the directory that stands here when this hook returns.
            if root != own:
                config.hydra.run.dir = str(root)
            # The job may work in another directory: hydra.job.chdir=true.
            if (given := given_path(plain)) is not None:
                config.resume = str(given)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        resume = OmegaConf.select(config, "resume", default="auto")
        _refuse(resume_problems({"resume": resume}, is_sweep=True))
        if str(config.hydra.sweeper.get("_target_")).endswith((".GridSweeper", ".OptunaSearch")):
            return  # has looked at every point, or looks at each before it runs
        root, name = str(config.hydra.sweep.dir), config.hydra.job.config_name
        if Path(root).name == "None" and OmegaConf.select(config, "sweep_name") is None:
            sentence = "sweep_name is not given, and this sweeper makes none; give sweep_name=NAME"
            _refuse([Problem("sweep_name", sentence)])
        overrides = list(OmegaConf.to_container(config.hydra.overrides.task))  # type: ignore[arg-type]
        # Of a search the points are not known yet: defaults stand in the place of what it chooses.
        _refuse(_point_problems(first_point([str(one) for one in overrides]), name, root))


def _heard_directory(output_root: Path, launch: str) -> Path:
    try:
        return heard_directory(output_root, launch)
    except ConfigError as error:
        _refuse(error.problems)
        raise


def first_point(overrides: list[str]) -> list[str]:
    """Return the overrides with the first value of each list, as one run takes them.

    What a search chooses is left out.

    Example:
        >>> first_point(["power=1,2", "optimizer.lr=interval(0.1, 1)", "seed=3"])
        ['power=1', 'seed=3']
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    pairs = zip(parsed, overrides, strict=True)
    values = (next(_values(override, text), None) for override, text in pairs)
    return [value for value in values if value is not None]


def _values(override: Override, text: str) -> Iterator[str]:
    if not override.is_sweep_override():
        yield text
        return
    if not override.is_discrete_sweep():
        return
    for value in override.sweep_string_iterator():
        yield f"{override.get_key_element()}={value}"


def _point_problems(point: list[str], config_name: str, root: str) -> list[Problem]:
    try:
        config = compose(config_name, point, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        from coreai_opt.experiment.diagnosis import diagnose

        return diagnose(error, point)
    return find_problems(task_config(config, root))


def task_config(config: DictConfig, run_dir: str) -> DictConfig:
    """Return the config as the job will see it, with the directory that it will have."""
    config = config.copy()
    with read_write(config), open_dict(config):
        config.hydra.runtime.output_dir = os.path.abspath(run_dir)  # noqa: PTH100
        HydraConfig.instance().set_config(config)
        task = config.copy()
        del task["hydra"]
    return task


def _refuse(problems: list[Problem]) -> None:
    if not problems:
        return
    print_problems(problems)
    raise SystemExit(1)
