"""Printing of a preview; imports no torch and runs nothing."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from coreai_opt.config.aliases import shadowed_knobs
from coreai_opt.config.composing import command_context, task_config
from coreai_opt.config.errors import ConfigError, Problem
from coreai_opt.config.locations import typed_path
from coreai_opt.config.validation import resolve
from coreai_opt.report.formatting import duration
from coreai_opt.report.text import plural
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.resume import choose_directory, directory_problems, given_path, resume_problems
from coreai_opt.runs.run_record import code_and_versions
from coreai_opt.sweep.folder import SweepFolder
from coreai_opt.sweep.plan import Plan, Planner, Point
from coreai_opt.sweep.preview.cautions import caution
from coreai_opt.sweep.preview.forecast import Forecast
from coreai_opt.sweep.preview.history import History
from coreai_opt.sweep.preview.planned import Preview, Standing, planned_run, standing
from coreai_opt.sweep.preview.png import draw_preview
from coreai_opt.sweep.preview.ramps import length_of
from coreai_opt.sweep.preview.search_space import SearchSpace, search_space, space_table
from coreai_opt.sweep.preview.table import console, print_preview, say
from coreai_opt.sweep.scheduler import WAITED_FOR
from coreai_opt.sweep.selection import select
from coreai_opt.sweep.warmups import add_warmups, counted
from lightning_callbacks._resume.checkpoint_files import CheckpointFile


def preview_command(arguments: Namespace, is_sweep: bool, png: bool) -> None:
    """Print the runs of a command.

    Args:
        arguments: as Hydra's own parser returns them, without the preview's own.
        is_sweep: whether lists of values are crossed.
        png: whether to draw ``preview.png`` in the current directory.

    Raises:
        ConfigError: everything wrong with the command line, or in the way of its runs.
    """
    with command_context(arguments) as config_name:
        loader = GlobalHydra.instance().config_loader()
        overrides = list(arguments.overrides)
        if not is_sweep:
            preview, problems = _of_run(config_name, overrides)
        else:
            planner = Planner(loader, config_name, overrides)
            if not planner.is_grid:
                _show_search(planner, loader)
                return
            preview, problems = _of_sweep(planner.plan())
    caution(preview)
    print_preview(preview)
    if png:
        say(console(), draw_preview(preview, Path.cwd()))
    if problems:
        raise ConfigError(problems)


def show_sweep(plan: Plan) -> list[Problem]:
    """Print the runs of a sweep, and return what is in their way."""
    preview, problems = _of_sweep(plan)
    caution(preview)
    print_preview(preview)
    return problems


def _of_sweep(plan: Plan) -> tuple[Preview, list[Problem]]:
    folder, forecast = SweepFolder(plan.root, plan.app), plan.app.forecast(plan)
    problems = [*folder.problems(plan), *forecast.problems]
    entries, warnings = folder.entries(plan.points), []
    try:
        selection = select(entries, plan.settings, plan.app)
    except ConfigError as error:
        warnings = [str(problem) for problem in error.problems]
        mild = plan.settings.model_copy(update={"on_code_change": "warn"})
        selection = select(entries, mild, plan.app)
    else:
        warnings = list(selection.sentences)
    known = len(selection.sentences)
    if plan.app.shares_warmups:
        add_warmups(selection, plan.root, plan.settings)
    chosen = {entry.config_hash for entry in selection.to_run}
    runs = []
    for entry in entries:
        state, digest = selection.states[entry.config_hash], entry.config_hash
        will_run = digest in chosen and state not in WAITED_FOR
        runs.append(forecast.run(entry, state, will_run))
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    title = f"preview, nothing is run: sweep {plan.name} in {plan.root}, {count}"
    preview = Preview(title, plan.knobs, tuple(runs), is_sweep=True)
    preview.earlier = forecast.count([run.point for run in preview.to_run])
    preview.of_what, preview.prunes = forecast.of_what, forecast.prunes
    preview.control = forecast.control
    preview.sentences = [*plan.sentences, *selection.sentences[known:]]
    if selection.warmups:
        number = len(selection.warmup_of)
        told = f"{number} runs share {counted(len(selection.warmups))}, run before them"
        preview.sentences.append(told)
    preview.warnings = [*warnings, *_failures(plan, forecast.failures), *_changes()]
    return preview, problems


def _failures(plan: Plan, more: Sequence[Problem]) -> list[str]:
    """Return a sentence for each cause that makes runs fail."""
    problems = [problem for point in plan.points for problem in point.problems]
    sentences = dict.fromkeys(map(str, [*problems, *more]))
    return [f"a run will fail: {sentence}" for sentence in sentences]


def _of_run(config_name: str, overrides: list[str]) -> tuple[Preview, list[Problem]]:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config(config_name, overrides, RunMode.RUN, with_log_configuration=False)
    own = Path(config.hydra.run.dir)
    reading = resolve(task_config(config, str(own)))
    if problems := list(reading.problems) or resume_problems(reading.values, is_sweep=False):
        raise ConfigError(problems)
    is_given = any(one.startswith("hydra.run.dir=") for one in config.hydra.overrides.hydra)
    root, sentences = choose_directory(reading.values, own, is_given)
    how, notes = _standing_of_run(reading.values, RunPaths(root))
    if is_given and not notes:
        notes = [f"in {root}"]
    point = Point(tuple(config.hydra.overrides.task), {}, (), reading.values)
    history = _history(reading.values)
    preview = Preview(
        "preview, nothing is run: 1 run", (), (planned_run(point, how, history),), is_sweep=False
    )
    preview.earlier = history.count([reading.values])
    notes += shadowed_knobs(overrides, config_name)
    preview.sentences, preview.warnings = [*notes, *sentences], _changes()
    return preview, directory_problems(reading.values, RunPaths(root), is_sweep=False)


def _standing_of_run(config: Mapping[str, Any], paths: RunPaths) -> tuple[Standing, list[str]]:
    given, run = given_path(config), ExistingRun.at(paths.root)
    if given is not None and given.is_file() and (file := CheckpointFile.at(given)) is not None:
        return Standing("interrupted", True, file.step), [f"goes on from {given}"]
    if run is None:
        return Standing("unreadable" if paths.result.exists() else "new"), []
    will_run = run.state in ("interrupted", "failed")
    how = standing(paths, run.state, will_run, config.get("resume"))
    if run.state != "interrupted":
        return how, []
    if how.step is None:
        return how, [f"begins anew in {paths.root}"]
    total = run.progress.get("total_steps")
    of_all = f" of {total}" if total else ""
    return how, [f"goes on in {paths.root} from step {how.step}{of_all}"]


def show_space(space: SearchSpace, sentences: Sequence[str] = ()) -> None:
    """Print what a search chooses from, and its settings."""
    out = console()
    say(out, f"preview, nothing is run: a search by hydra/sweeper={space.sweeper}")
    out.print(space_table(space))
    if space.settings:
        say(out, ", ".join(f"{key}={value}" for key, value in space.settings.items()))
    for sentence in sentences:
        say(out, sentence)


def _show_search(planner: Planner, loader: ConfigLoader) -> None:
    if problems := list(planner.common.problems):
        raise ConfigError(problems)
    space, config = search_space(planner, loader), planner.common.values
    notes = planner.told([])
    out = console()
    show_space(space, notes)
    history = _history(config)
    length = length_of(config, history)
    seconds = history.seconds(config, length.steps)
    steps = "unknown" if length.steps is None else f"{length.steps} steps"
    say(out, f"length of the training: {steps}")
    say(out, time_of_search(space, seconds, history.count([config]), Forecast.of_what))


def time_of_search(space: SearchSpace, seconds: float | None, records: int, of_what: str) -> str:
    """Return how long the trials of a search take, in one sentence.

    Args:
        space: of the search, with the number of trials.
        seconds: of a run, None = not known.
        records: how many earlier ones tell it.
        of_what: they are.
    """
    if seconds is None:
        return "how long a run takes is unknown: no earlier record tells"
    by = plural(records, "earlier record")
    estimate = f"a run takes about {duration(seconds)}, by {by} of {of_what}"
    if space.trials is None:
        return estimate
    return f"{estimate}; {space.trials} one after the other {duration(seconds * space.trials)}"


def _history(config: Mapping[str, Any], *first: Path) -> History:
    paths = config["paths"]
    return History.read([*first, typed_path(paths["sweep_root"]), typed_path(paths["output_root"])])


def _changes() -> list[str]:
    git = code_and_versions()["git"]
    if not git or not git["dirty"]:
        return []
    return ["files differ from the last commit; the records keep a hash of the changes"]
