"""One run: check, build, fit, test, export, record. Torch is imported only once that has begun."""

import logging
import sys
import traceback
import warnings
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from coreai_opt.experiment.errors import ConfigError, RunFailedError
from coreai_opt.experiment.places import RunPaths, is_main_process
from coreai_opt.experiment.record import Heartbeat, Progress, Record
from coreai_opt.experiment.signals import exit_code_of, signals_end_run
from coreai_opt.experiment.validation import check_config, occupied

__all__ = ["run"]


def run(cfg: DictConfig) -> float | None:
    """Train, prune, test, export and record one run.

    Args:
        cfg: the composed config, without Hydra's own node.

    Returns:
        The objective, for sweepers; None when it was not logged.

    Raises:
        ConfigError: the config is wrong.
        RunFailedError: building or training failed; the record says how.
        SystemExit: 130 after Ctrl-C, 143 after SIGTERM.
    """
    check_config(cfg)
    paths = RunPaths(Path(cfg.paths.run_dir))
    if is_main_process() and (problems := occupied(paths)):
        raise ConfigError(problems)
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    record = Record(paths, {str(key): config[key] for key in config}, overrides, is_main_process())
    try:
        with signals_end_run():
            objective = _execute(cfg, paths, record, overrides)
    except BaseException as error:
        raise _failed(record, paths, error) from error
    if is_main_process():
        # After the record: what goes wrong here costs the picture or the line, not the run.
        from coreai_opt.experiment.present import show_result

        show_result(record.content, paths, quiet=not sys.stdout.isatty())
    return objective


def _execute(
    cfg: DictConfig, paths: RunPaths, record: Record, overrides: list[str]
) -> float | None:
    progress = Progress()
    with Heartbeat(paths.progress, progress, is_main_process()):
        _ignore_known_warnings()
        from coreai_opt.experiment.build import build
        from coreai_opt.experiment.train import train

        _quiet_lightning()
        objects = build(cfg, overrides, quiet=not sys.stdout.isatty())
        objective: float | None = train(cfg, objects, paths, record, progress)
    record.complete()
    return objective


def _failed(record: Record, paths: RunPaths, error: BaseException) -> BaseException:
    """Write the record of a run that did not complete, and return what to raise instead."""
    exit_code = exit_code_of(error)
    record.fail("interrupted" if exit_code is not None else "failed", error)
    if exit_code is not None:
        print(f"interrupted; the record is in {paths.result}", file=sys.stderr)
        return SystemExit(exit_code)
    if isinstance(error, ConfigError):
        return error
    sentence = " ".join(str(error).split()) or type(error).__name__
    if _is_plain(error):
        return ConfigError.of("", sentence)
    traceback.print_exception(error)
    return RunFailedError(f"{type(error).__name__}: {sentence}", paths.result)


def _is_plain(error: BaseException) -> bool:
    """Whether the message alone tells the user what to change."""
    if "torch" not in sys.modules:
        return False
    from coreai_opt.data import DataMismatchError, MissingPackageError
    from coreai_opt.pruning import PruningError

    return isinstance(error, DataMismatchError | MissingPackageError | PruningError)


def _quiet_lightning() -> None:
    # "GPU available: False" and its like, before every fit, validation and test. Lightning sets its
    # level when it is imported.
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _ignore_known_warnings() -> None:
    # A run directory is never empty: Hydra's files and the record are there first.
    warnings.filterwarnings("ignore", ".*[Ll]og.* directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty")
    # Lightning's own use of torch's pytree.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.. is deprecated")
    # Data in memory needs no workers.
    warnings.filterwarnings("ignore", ".*does not have many workers")
