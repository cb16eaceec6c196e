"""What Hydra calls before a run or a sweep makes its first directory."""

import os
import sys
from collections.abc import Iterator
from itertools import product
from math import prod
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

from coreai_opt.experiment.errors import Problem
from coreai_opt.experiment.places import RunPaths, is_main_process
from coreai_opt.experiment.resuming import (
    choose_directory,
    directory_problems,
    given_path,
    resume_problems,
)
from coreai_opt.experiment.validation import find_problems

__all__ = ["CheckConfig", "first_point", "print_problems", "sweep_points", "task_config"]

CROSSED_POINTS = 24  # of a sweep, all combinations are checked; of a larger one, all values


class CheckConfig(Callback):
    """Refuses a bad config before a directory is made or anything is written over.

    Hydra turns exceptions of its callbacks into warnings: a refusal is printed here, and leaves as
    SystemExit.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        own = Path(config.hydra.run.dir)
        task = task_config(config, str(own))
        _refuse(find_problems(task))
        if not is_main_process():
            return
        plain: dict[str, Any] = OmegaConf.to_container(task, resolve=True)  # type: ignore[assignment]
        _refuse(resume_problems(plain, is_sweep=False))
        is_given = any(one.startswith("hydra.run.dir=") for one in config.hydra.overrides.hydra)
        root, sentences = choose_directory(plain, own, is_given)
        _refuse(directory_problems(plain, RunPaths(root), is_sweep=False))
        for sentence in sentences:
            print(sentence)
        with read_write(config), open_dict(config):
            # Hydra makes the directory that stands here when this hook returns.
            if root != own:
                config.hydra.run.dir = str(root)
            # The job may work in another directory: hydra.job.chdir=true.
            if (given := given_path(plain)) is not None:
                config.resume = str(given)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        root, name = str(config.hydra.sweep.dir), config.hydra.job.config_name
        overrides = list(OmegaConf.to_container(config.hydra.overrides.task))  # type: ignore[arg-type]
        points = sweep_points([str(override) for override in overrides])
        # The config that Hydra hands over has the defaults in place of what is swept: what is wrong
        # with it counts when a point has it too.
        problems = find_problems(task_config(config, root))
        if problems and points:
            first = _point_problems(points[0], name, root)
            problems = [problem for problem in problems if problem in first]
        _refuse(problems)
        resume = OmegaConf.select(config, "resume", default="auto")
        _refuse(resume_problems({"resume": resume}, is_sweep=True))
        found: dict[str, Problem] = {}
        for point in points:
            for problem in _point_problems(point, name, root):
                found[problem.sentence] = problem
        _refuse(list(found.values()))


def print_problems(problems: list[Problem]) -> None:
    """Print one line for each problem."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def sweep_points(overrides: list[str]) -> list[list[str]]:
    """Return command lines that together hold every value of a sweep.

    They are all combinations where those are few, else as many as the longest list of values:
    every bad value shows, though not every bad combination. Each job checks its own config anyway.
    Without a swept value there is none.

    Example:
        >>> sweep_points(["power=1,2", "lr=0.1"])
        [['power=1', 'lr=0.1'], ['power=2', 'lr=0.1']]
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(one.is_sweep_override() and not one.is_discrete_sweep() for one in parsed):
        return []  # a searching sweeper: its points are not known yet
    columns = [
        list(_values(override, text)) for override, text in zip(parsed, overrides, strict=True)
    ]
    longest = max((len(column) for column in columns), default=0)
    if longest <= 1:
        return []
    if prod(len(column) for column in columns) <= CROSSED_POINTS:
        return [list(point) for point in product(*columns)]
    return [[column[row % len(column)] for column in columns] for row in range(longest)]


def first_point(overrides: list[str]) -> list[str]:
    """Return the overrides with the first value of each list, as one run takes them."""
    points = sweep_points(overrides)
    return points[0] if points else overrides


def _values(override: Override, text: str) -> Iterator[str]:
    if not override.is_sweep_override():
        yield text
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
