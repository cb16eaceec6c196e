"""Private names of Lightning, all in this file; known to work in 2.2.5, 2.4.0 and 2.6.6.

They are looked for on the object, which may be of either import root. A missing name is an error
that says the versions; no name is assigned that was not there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreai_opt.pruning import PruningError
from lightning_callbacks._lightning.roots import of_root

if TYPE_CHECKING:
    import pytorch_lightning as pl

KNOWN = "Lightning 2.2 to 2.6"

# Methods that are replaced on single objects, see MethodPatches.
CHECK_OF_STOPPING = "_run_early_stopping_check"
SAVING_OF_LAST = "_save_last_checkpoint"
LOADERS_LOADED = "_load_combined_loader_states"
BEFORE_FETCH = "_on_before_fetch"
PROCESS_OBSERVER = "_launch_process_observer"  # of a module, not of an object

OF_CHECKPOINT = (
    SAVING_OF_LAST,
    "_last_checkpoint_saved",
    "_last_global_step_saved",
    "_monitor_candidates",
)
OF_STOPPING = (CHECK_OF_STOPPING,)
OF_TRAINER = ("_logger_connector", "_checkpoint_connector")
OF_LOOP = (LOADERS_LOADED, "_combined_loader", "_data_fetcher")
OF_RESTART = ("_resuming_from_checkpoint", "_loaded_from_state_dict")
OF_EPOCH_LOOP = (BEFORE_FETCH, "_results", "_batches_that_stepped")

LAST_VALUES = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
RESULT = "trainer.connectors.logger_connector.result"


def csv_prefix(logger: Any) -> str:
    """Return what a ``CSVLogger`` puts before the names of metrics; mostly empty."""
    return str(_get(logger, "_prefix"))


def require_names(owner: object, *names: str) -> None:
    """Refuse an object that lacks one of some names."""
    for name in names:
        if not hasattr(owner, name):
            kind = getattr(owner, "__name__", type(owner).__name__)
            raise PruningError(
                f"{kind} has no {name}, which is needed here; allowed: {KNOWN}, and callbacks "
                "that call the __init__ of their class"
            )


def require_private(callback: object) -> None:
    """Look for the private names of a ``ModelCheckpoint`` or an ``EarlyStopping``."""
    is_checkpoint = hasattr(callback, "best_model_path")
    require_names(callback, *(OF_CHECKPOINT if is_checkpoint else OF_STOPPING))


def require_loop_names(trainer: "pl.Trainer") -> None:
    """Look for all names that an exact resume needs, before the training begins."""
    require_names(trainer, *OF_TRAINER)
    require_names(trainer.fit_loop, *OF_LOOP, *OF_RESTART)
    require_names(trainer.fit_loop.epoch_loop, *OF_EPOCH_LOOP)


def _get(owner: object, name: str) -> Any:
    require_names(owner, name)
    return getattr(owner, name)


def _set(owner: object, name: str, value: Any) -> None:
    require_names(owner, name)
    setattr(owner, name, value)


# Checkpoints


def count_as_saved(checkpoint: Any, step: int) -> None:
    """Make a checkpoint write its last state at a step at which it has chosen none as best.

    Lightning 2.6 writes it only at steps at which it has written another.
    """
    _set(checkpoint, "_last_global_step_saved", step)


def drop_link(checkpoint: Any, trainer: "pl.Trainer") -> None:
    """Make a checkpoint with ``save_last="link"`` write a file, because there is none to link to.

    The file takes the place of a link, and does not go through it.
    """
    _set(checkpoint, "_last_checkpoint_saved", "")
    last = Path(checkpoint.last_model_path)
    if trainer.is_global_zero and last.is_symlink():
        last.unlink()


def save_last(checkpoint: Any, trainer: "pl.Trainer") -> None:
    """Write the last state of a checkpoint that is to keep it, unless that is written already."""
    if _get(checkpoint, "_last_global_step_saved") != trainer.global_step:
        checkpoint._save_last_checkpoint(trainer, checkpoint._monitor_candidates(trainer))


def dump_checkpoint(trainer: "pl.Trainer") -> dict[str, Any]:
    """Return the content of a checkpoint of now.

    ``trainer.save_checkpoint`` would make all ranks wait for a rank that cannot write.
    """
    content: dict[str, Any] = _get(trainer, "_checkpoint_connector").dump_checkpoint(
        weights_only=False
    )
    return content


def drop_sigterm(trainer: "pl.Trainer") -> None:
    """Make Lightning not act on a SIGTERM that has arrived before the training began."""
    _set(_get(trainer, "_signal_connector"), "received_sigterm", False)


# Loops


def end_restart(trainer: "pl.Trainer") -> None:
    """Make the loops go on as loops that were never restarted."""
    of_root(trainer, "loops.loop", "_Loop").restarting.fset(trainer.fit_loop, False)


def start_epoch_anew(trainer: "pl.Trainer") -> None:
    """Make a restored epoch get a new iterator, drawn from the restored random state."""
    for name in OF_RESTART:
        _set(trainer.fit_loop, name, False)


def logging_step(trainer: "pl.Trainer") -> int:
    """Return the step that Lightning itself logs under.

    ``LearningRateMonitor`` uses it too: with several optimizers ``global_step`` runs ahead of it.
    """
    return int(_get(trainer.fit_loop.epoch_loop, "_batches_that_stepped"))


# Data loaders


def data_fetcher(trainer: "pl.Trainer") -> Any:
    """Return what fetches the batches of the training."""
    return _get(trainer.fit_loop, "_data_fetcher")


def module_fetches(trainer: "pl.Trainer") -> bool:
    """Return whether the module fetches its batches itself (``training_step(dataloader_iter)``)."""
    return _fetches_by(trainer, "_DataLoaderIterDataFetcher")


def is_prefetching(trainer: "pl.Trainer") -> bool:
    """Return whether batches may be fetched ahead."""
    return _fetches_by(trainer, "_PrefetchDataFetcher")


def _fetches_by(trainer: "pl.Trainer", kind: str) -> bool:
    return isinstance(data_fetcher(trainer), of_root(trainer, "loops.fetchers", kind))


def combined_loader(trainer: "pl.Trainer") -> Any:
    """Return the training data loaders, combined; None before they are set up."""
    return _get(trainer.fit_loop, "_combined_loader")


def loader_states(trainer: "pl.Trainer") -> list[Any]:
    """Return the states of the data loaders that keep one."""
    states: list[Any] = _get(combined_loader(trainer), "_state_dicts")()
    return states


def load_loader_states(trainer: "pl.Trainer", states: list[Any]) -> None:
    """Give the data loaders the states that ``loader_states`` returned."""
    _get(combined_loader(trainer), "_load_state_dicts")(states)


# Logged values


def logged_results(trainer: "pl.Trainer") -> dict[str, Any]:
    """Return what ``self.log`` gathers in the training epoch, by its key; may be changed."""
    results: dict[str, Any] = _get(trainer.fit_loop.epoch_loop, "_results")
    return results


def last_values(trainer: "pl.Trainer") -> dict[str, dict[str, Any]]:
    """Return the last value of each metric, for callbacks, loggers and the progress bar."""
    connector = _get(trainer, "_logger_connector")
    return {name: _get(connector, name) for name in LAST_VALUES}


def current_hook(trainer: "pl.Trainer") -> str | None:
    """Return the hook in which a module has logged last."""
    name: str | None = _get(_get(trainer, "_logger_connector"), "_current_fx")
    return name


def set_current_hook(trainer: "pl.Trainer", name: str | None) -> None:
    """Set the hook in which a module has logged last."""
    _set(_get(trainer, "_logger_connector"), "_current_fx", name)


def continue_logging(trainer: "pl.Trainer") -> None:
    """Make the next ``self.log`` add to what was logged in this epoch, and not begin anew."""
    _set(_get(trainer, "_logger_connector"), "_first_loop_iter", False)


def make_result(
    trainer: "pl.Trainer",
    fields: Mapping[str, Any],
    reduce_fx: Any,
    sync: Mapping[str, Any],
    is_tensor: bool,
) -> Any:
    """Return an entry of ``logged_results`` without a value, from its metadata.

    ``sync`` is ``should`` and ``rank_zero_only`` of its synchronisation; what is no tensor is a
    torchmetrics ``Metric``.
    """
    meta = of_root(trainer, RESULT, "_Metadata")(**fields, reduce_fx=reduce_fx)
    # Lightning compares this with what the next self.log brings: it has to be the same function.
    reduce: Any = trainer.strategy.reduce
    meta.sync = of_root(trainer, RESULT, "_Sync")(reduce, sync["should"], sync["rank_zero_only"])
    return of_root(trainer, RESULT, "_ResultMetric")(meta, is_tensor)


def cached_state(metric: Any) -> tuple[Any, int]:
    """Return the last value of a torchmetrics ``Metric``, and how often it was updated."""
    return _get(metric, "_forward_cache"), _get(metric, "_update_count")


def set_cached_state(metric: Any, last: Any, updates: int) -> None:
    """Set what ``cached_state`` returns, and drop the value that was computed from the state."""
    _set(metric, "_forward_cache", last)
    _set(metric, "_update_count", updates)
    _set(metric, "_computed", None)


# Other callbacks and loggers


def finder_attribute(finder: Any) -> str:
    """Return the attribute that a finder sets; empty = one that is called like a learning rate."""
    if hasattr(finder, "_batch_arg_name"):
        return str(finder._batch_arg_name)
    return _get(finder, "_attr_name") or ""


def epoch_average(callback: Any) -> Any:
    """Return the averaged model of a ``WeightAveraging`` callback; None = there is none yet."""
    return _get(callback, "_average_model")


def event_file_name(writer: Any) -> str | None:
    """Return the name of the file that a TensorBoard ``SummaryWriter`` writes to, if it is open."""
    inner = getattr(writer.file_writer, "event_writer", None)
    name = getattr(inner, "_file_name", None)
    return Path(name).name if name else None
