"""Life of one run: check, build, fit, test, export, record. Torch is imported after the checks."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coreai_opt.config.errors import ConfigError, RunFailedError, message_of
from coreai_opt.config.schemas.trainer import processes_of
from coreai_opt.config.validation import ResolvedConfig, resolve
from coreai_opt.distributed.gpu_slots import gpu_slot
from coreai_opt.distributed.handoff import await_start, publish_start, refusal_published
from coreai_opt.distributed.ranks import is_command, launch_problem
from coreai_opt.runs.context import RunContext, only_process_in
from coreai_opt.runs.existing_run import ExistingRun, read_json
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.outcome import missing_targets
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process, launch_id, starts_ranks
from coreai_opt.runs.resume import Start, follow_start, plan_start
from coreai_opt.runs.run_record import Heartbeat, Progress, Record
from coreai_opt.runs.signals import Interruptions, RunEnded, exit_code_of, signals_wait
from lightning_callbacks._resume.checkpoint_files import checkpoint_files, remove_all


def run(cfg: DictConfig) -> float | None:
    """Train, prune, test, export and record one run.

    Args:
        cfg: the composed config, without Hydra's own node.

    Returns:
        The objective, for sweepers; None when it was not logged.

    Raises:
        ConfigError: the config is wrong.
        RunFailedError: building or training failed; the record says how.
        SystemExit: 130 after Ctrl-C, 143 after SIGTERM, 140 after SIGUSR2.
    """
    # The user's own modules are looked up, and may import torch.
    with signals_wait() if _in_sweep() else nullcontext():
        config = _check(cfg)
    paths = RunPaths(Path(config.values["paths"]["run_dir"]))
    # First, so that no other process changes the directory before the start.
    launch, is_main = launch_id(os.environ), is_main_process()
    with refusal_published(paths, launch), only_process_in(paths) if is_main else nullcontext():
        start = _start(config.values, paths, _restarts(paths), launch)
        for sentence in start.sentences:
            print(sentence)
        if not start.is_done:
            return _run_in(config, paths, start)
        assert start.earlier is not None
        if is_main and missing_targets(config.values, start.earlier.record):
            from coreai_opt.training.deploy_run import complete_deployment

            complete_deployment(start.earlier, config.values)
        objective = start.earlier.record.get("objective") or {}
        value: float | None = objective.get("value")
        return value


def _check(cfg: DictConfig) -> ResolvedConfig:
    """Return the valid config; a job of a sweep records its mistakes."""
    try:
        resolved = resolve(cfg).checked()
        _check_launch(processes_of(resolved.values["trainer"]))
        return resolved
    except ConfigError as error:
        if _in_sweep() and is_main_process():
            paths = RunPaths(Path(HydraConfig.get().runtime.output_dir))
            if not paths.result.exists():
                config = _as_far_as_it_resolves(cfg)
                name, key = _sweep_name(), _warmup_key()
                record = Record(paths, config, _overrides(), sweep=name, warmup_key=key)
                record.fail("failed", error)
        raise


def _check_launch(processes: int | None) -> None:
    """Refuse a job of a sweep whose other ranks nobody can start."""
    if not _in_sweep():
        return
    launcher = str(HydraConfig.get().launcher.get("_target_"))
    problem = launch_problem(launcher, processes, is_command(), by_cluster=starts_ranks(os.environ))
    if problem is not None:
        raise ConfigError([problem])


def _as_far_as_it_resolves(cfg: DictConfig) -> dict[str, Any]:
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        config = OmegaConf.to_container(cfg, resolve=False)
    return dict(config)


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _sweep_name() -> str | None:
    """Return the name of the sweep that the run is a job of, None where it is none."""
    if not _in_sweep():
        return None
    content = read_json(Path(HydraConfig.get().sweep.dir, "sweep.json")) or {}
    return content.get("name")


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _environment() -> JobEnvironment | None:
    """Return what the sweep tells this job, None where this is none of a sweep's."""
    # The other ranks of a job are single runs, with the environment of rank 0.
    return JobEnvironment.received() if _in_sweep() or not is_main_process() else None


def _warmup_key() -> str | None:
    """Return the key of the warm-up that this job makes, None where it makes none."""
    environment = _environment()
    return None if environment is None else environment.warmup_key or None


def _restarts(paths: RunPaths) -> bool:
    """Return whether the run begins anew; a record that cannot be read is archived for that.

    Raises:
        RunFailedError: the run has failed in another command since the sweep looked at it.
    """
    environment = _environment() if is_main_process() else None
    if environment is None or not paths.result.exists():
        return False
    earlier = ExistingRun.at(paths.root)
    if paths.result.stat().st_mtime_ns == environment.mtime_ns:
        if environment.restart and earlier is None:
            paths.archive_attempt()
        return environment.restart and earlier is not None
    if earlier is not None and earlier.state == "failed":
        error = earlier.record.get("error") or {}
        raise RunFailedError(f"{error.get('type')}: {error.get('message')}", paths.result)
    return False


def _start(config: Mapping[str, Any], paths: RunPaths, restart: bool, launch: str | None) -> Start:
    if not is_main_process():
        if launch is not None:
            return await_start(paths, launch)
        return follow_start(config, paths)  # rank 0 has decided, and is at work on it
    if restart:
        start = Start(earlier=ExistingRun.at(paths.root))
    else:
        start = plan_start(config, paths, _in_sweep())
    if launch is not None:
        publish_start(paths, launch, start)
    return start


def _run_in(config: ResolvedConfig, paths: RunPaths, start: Start) -> float | None:
    overrides = _overrides()
    record = _record(paths, config.values, overrides, start)
    with Interruptions(_in_sweep()) as interruptions:
        progress = Progress(start.step)
        session = RunContext(paths, record, progress, start, interruptions, _environment())
        try:
            objective = _execute(config, session, overrides)
        except BaseException as error:
            outcome = _failed(record, paths, error)
            if isinstance(outcome, RunEnded):
                outcome.pressed = interruptions.pressed
            interruptions.pass_on(error)
            if outcome is error:
                raise
            raise outcome from error
    if is_main_process() and not record.is_warmup:  # the checkpoint is all that it is for
        # After the record: an error here costs the picture or the line, not the run.
        from coreai_opt.training.summary import show_result

        with suppress(OSError):
            remove_all(paths.resume)
        quiet = not sys.stdout.isatty()
        show_result(record.content, paths, quiet, silent=_in_sweep())
    return objective


def _record(
    paths: RunPaths, config: Mapping[str, Any], overrides: list[str], start: Start
) -> Record:
    earlier = start.earlier
    of_sweep: dict[str, Any] = {"sweep": _sweep_name(), "warmup_key": _warmup_key()}
    if earlier is None or not is_main_process():
        return Record(paths, config, overrides, is_main_process(), **of_sweep)
    before: Mapping[str, Any] = {"attempts": earlier.record.get("attempts")}
    if start.checkpoint is None:
        paths.archive_attempt()
        return Record(paths, config, overrides, earlier=before, **of_sweep)
    seconds = earlier.seconds
    return Record(paths, config, overrides, earlier=earlier.record, seconds=seconds, **of_sweep)


def _execute(config: ResolvedConfig, session: RunContext, overrides: list[str]) -> float | None:
    record = session.record
    path, write = session.paths.progress, is_main_process()
    with Heartbeat(path, session.progress, write, lambda: record.seconds):
        _ignore_known_warnings()
        with signals_wait():
            from coreai_opt.distributed.rank_processes import ranks_of_this_run
            from coreai_opt.training.build import build
            from coreai_opt.training.train import train

        quiet_lightning()
        with _gpu_slot_of_job(), _threads(session.start), ranks_of_this_run():
            # Copies: objects may change their config, and the record keeps the original.
            quiet = _in_sweep() or not sys.stdout.isatty()
            objects = build(deepcopy(config.values), overrides, quiet, config.schedule)
            _check_launch(objects.trainer.world_size)  # devices=auto is a number now
            objective: float | None = train(deepcopy(config.values), objects, session)
    record.complete()
    return objective


@contextmanager
def _gpu_slot_of_job() -> Iterator[None]:
    """Take a slot on one of the GPUs that the sweep gives to jobs of this machine, if any."""
    environment = _environment() if _in_sweep() else None
    if environment is None:
        yield
        return
    with gpu_slot(environment.devices, environment.jobs_per_device):
        yield


@contextmanager
def _threads(start: Start) -> Iterator[None]:
    """Compute with as many threads as the run did before: other numbers give other sums."""
    import torch

    before = torch.get_num_threads()
    environment = _environment() if _in_sweep() else None
    share = (environment.threads if environment is not None else None) or before
    earlier = start.earlier.record.get("threads") if start.checkpoint and start.earlier else None
    wanted = earlier or share
    if wanted != share:
        print(f"threads as before it was interrupted: {wanted}")
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _failed(record: Record, paths: RunPaths, error: BaseException) -> BaseException:
    """Write the record of a run that did not complete, and return the error to raise."""
    exit_code = exit_code_of(error)
    record.fail("interrupted" if exit_code is not None else "failed", error)
    if exit_code is not None:
        if is_main_process():
            onward = _way_on(record.content["config"], paths)
            print(f"interrupted ({onward}); the record is in {paths.result}", file=sys.stderr)
        return RunEnded(exit_code)
    if isinstance(error, ConfigError):
        return error
    sentence = " ".join(message_of(error).split()) or type(error).__name__
    if _is_plain(error):
        return ConfigError.of("", sentence)
    if not _in_sweep():  # whose output says how its runs end; the record has the rest
        traceback.print_exception(error)
    return RunFailedError(f"{type(error).__name__}: {sentence}", paths.result)


def _way_on(config: Mapping[str, Any], paths: RunPaths) -> str:
    """Return how an interrupted run is resumed."""
    files = checkpoint_files(paths.resume)
    if not files:
        return "no checkpoint"
    if _in_sweep():
        command = "the same sweep"
    else:
        is_auto = config.get("resume", "auto") == "auto"
        command = "the same command" if is_auto else f"resume={paths.root}"
    return f"{command} goes on from step {files[0].step}"


def _is_plain(error: BaseException) -> bool:
    """Whether the message alone is enough for the user."""
    if "torch" not in sys.modules:
        return False
    from coreai_opt.data import DataMismatchError, MissingPackageError
    from coreai_opt.pruning import PruningError

    return isinstance(error, DataMismatchError | MissingPackageError | PruningError)


def quiet_lightning() -> None:
    # "GPU available: False" and its like, before every fit, validation and test. Lightning sets its
    # level when it is imported.
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _ignore_known_warnings() -> None:
    # A run directory is never empty: Hydra's files and the record are there first.
    warnings.filterwarnings("ignore", ".*[Ll]og.* directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty")
    # The last model is exported then, and the record says what it is.
    warnings.filterwarnings("ignore", "TargetSparsityCheckpoint has chosen nothing")
    # Lightning's own use of torch's pytree.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.. is deprecated")
    # A machine that has SLURM's programs, and a run that is not to go there.
    warnings.filterwarnings("ignore", "The .srun. command is available on your system but is not")
    # Data in memory needs no workers.
    warnings.filterwarnings("ignore", ".*does not have many workers")
