"""What Hydra calls before a run or a sweep makes its first directory."""

import os
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.aliases import shadowed_knobs
from coreai_opt.config.composing import first_point, task_config
from coreai_opt.config.errors import ConfigError, Problem, refuse
from coreai_opt.config.hydra_internals import writable
from coreai_opt.config.validation import ResolvedConfig, find_problems, hand_down, resolve
from coreai_opt.distributed.handoff import await_directory, publish_directory
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process, launch_id
from coreai_opt.runs.resume import choose_directory, directory_problems, given_path, resume_problems


class ValidateConfig(Callback):
    """Refuses a bad config before a directory is made or anything is written over.

    Hydra turns exceptions of its callbacks into warnings: a refusal is printed here, and leaves as
    SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            own = Path(config.hydra.run.dir)
        except OmegaConfBaseException:  # it names what is not there
            refuse(find_problems(task_config(config, ".")))
            raise
        resolved = resolve(task_config(config, str(own)))
        refuse(resolved.problems)
        plain = resolved.values
        is_given = any(one.startswith("hydra.run.dir=") for one in config.hydra.overrides.hydra)
        launch, output_root = launch_id(os.environ), Path(plain["paths"]["output_root"])
        if not is_main_process():
            root = own if launch is None else _heard_directory(output_root, launch)
            _finish(config, resolved, root)
            return
        root = own
        try:
            refuse(resume_problems(plain, is_sweep=False))
            root, sentences = choose_directory(plain, own, is_given)
            refuse(directory_problems(plain, RunPaths(root), is_sweep=False))
        except SystemExit:
            if launch is not None:
                publish_directory(output_root, launch, None)
            raise
        if launch is not None:
            publish_directory(output_root, launch, root)
        typed: Any = OmegaConf.to_container(config.hydra.overrides.task)
        for sentence in [*shadowed_knobs(typed, str(config.hydra.job.config_name)), *sentences]:
            print(sentence)
        _finish(config, resolved, root)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        resume = OmegaConf.select(config, "resume", default="auto")
        refuse(resume_problems({"resume": resume}, is_sweep=True))
        if str(config.hydra.sweeper.get("_target_")).endswith((".GridSweeper", ".OptunaSearch")):
            return  # has looked at every point, or looks at each before it runs
        root, name = str(config.hydra.sweep.dir), config.hydra.job.config_name
        if Path(root).name == "None" and OmegaConf.select(config, "sweep_name") is None:
            sentence = "sweep_name is not given, and this sweeper makes none; give sweep_name=NAME"
            refuse([Problem("sweep_name", sentence)])
        overrides = list(OmegaConf.to_container(config.hydra.overrides.task))  # type: ignore[arg-type]
        # Of a search the points are not known yet: defaults stand in the place of what it chooses.
        refuse(_point_problems(first_point([str(one) for one in overrides]), name, root))


def _finish(config: DictConfig, resolved: ResolvedConfig, root: Path) -> None:
    """Put the chosen directory and checkpoint into the config, and hand it down to the run."""
    given = given_path(resolved.values)
    if given is None and root == Path(config.hydra.run.dir):
        hand_down(resolved)
        return
    with writable(config):
        # Hydra makes the directory that stands here when this hook returns.
        config.hydra.run.dir = str(root)
        if given is not None:  # the job may work in another directory: hydra.job.chdir=true
            config.resume = str(given)
    hand_down(resolved, task_config(config, str(root)))


def _heard_directory(output_root: Path, launch: str) -> Path:
    try:
        return await_directory(output_root, launch)
    except ConfigError as error:
        refuse(error.problems)
        raise


def _point_problems(point: list[str], config_name: str, root: str) -> list[Problem]:
    try:
        config = compose(config_name, point, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        from coreai_opt.config.explain_errors import diagnose

        return diagnose(error, point)
    return find_problems(task_config(config, root))
