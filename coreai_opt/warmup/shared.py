"""The dense warm-up that jobs of a sweep share: one makes it, the others begin where it ends.

What a run with masks computes before it prunes does not depend on its schedule and target: its
checkpoint at that place serves every run that differs in those alone. What it has logged by then
does hold the target; the rows that are taken over get the target of the run that takes them.
"""

import csv
import io
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from coreai_opt.config.errors import ConfigError
from coreai_opt.pruning.model.stats import count_sparsity
from coreai_opt.pruning.model.targets import pruned_tensors
from coreai_opt.pruning.scheduling.groups import will_prune
from coreai_opt.runs.context import RunContext
from coreai_opt.warmup.claim import Claim, Maker
from coreai_opt.warmup.environment_fingerprint import circumstances
from coreai_opt.warmup.key import trunk_id
from coreai_opt.warmup.store import Trunk, TrunkStore
from lightning_callbacks import ScheduledPruning, SparsityMonitor
from lightning_callbacks._resume.dataloader_state import repeats_exactly
from lightning_callbacks._resume.logger_rewind import change_rows
from lightning_callbacks._resume.unsafe_globals import foreign_in_file

__all__ = ["SharedTrunk", "TrunkNotStoredWarning", "shared_trunk"]

ATTEMPTS = 3  # more than one is needed only when others remove the warm-up meanwhile


class TrunkNotStoredWarning(UserWarning):
    """A dense warm-up could not be put into the store; the run goes on."""


class SharedTrunk(pl.Callback):
    """Puts the warm-up of its run into the store, or gives its run what another has made.

    Args:
        session: the run.
        store: where the warm-ups are.
        id: what the warm-up is known by.
        pruning: the callback whose clock says when it ends.
        found: the warm-up, or the right to make it.
    """

    def __init__(
        self,
        session: RunContext,
        store: TrunkStore,
        id: str,
        pruning: ScheduledPruning,
        found: Trunk | Claim,
    ) -> None:
        self._session, self._store, self._id, self._pruning = session, store, id, pruning
        self._claim = found if isinstance(found, Claim) else None
        if self._claim is not None and pruning.interval == "step":
            self._claim.total_steps = pruning.dense_until
        self.trunk = found if isinstance(found, Trunk) else None
        self._began = time.monotonic()
        self._saving: dict[str, Any] = {}
        self._taken: dict[str, Any] = {}
        self._maker_root: str | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The file to begin from, None where this run makes it."""
        return None if self.trunk is None else _held_path(self._session)

    def release(self) -> None:
        """Let others make the warm-up, if this run has not."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        _held_path(self._session).unlink(missing_ok=True)

    def observe(self, trainer: pl.Trainer, write: Callable[[Path], None]) -> None:
        """Store the warm-up at the step boundary where it ends."""
        if self._claim is None:
            return
        self._claim.step = trainer.global_step
        if self._pruning.clock < self._pruning.dense_until:
            return
        if any(tensor.impl.sparsity > 0 for tensor in pruned_tensors(trainer.lightning_module)):
            self._store.decline(self._id, "the schedule's clock leaps over the end of the warm-up")
        elif not repeats_exactly(trainer):
            self._store.decline(self._id, "the data loader has workers and keeps no state")
        else:
            self._put(trainer, write)
        self.release()

    def state_dict(self) -> dict[str, Any]:
        return self._saving  # empty but for the store

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._taken = state_dict

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["callbacks"]
        # Those that keep files name them by where links lead, in the run that made the warm-up. So
        # do the files that it had kept by then, when one is evaluated.
        if self.state_key in states:
            self._maker_root = states[self.state_key]["root"]
        if self._maker_root is None:
            return
        old, new = self._maker_root, _real_root(self._session)
        for key, state in states.items():
            if isinstance(state, Mapping) and "dirpath" in state:
                states[key] = _relocated(state, old, new)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._taken:
            return
        _held_path(self._session).unlink(missing_ok=True)
        for name, content in self._taken["files"].items():
            file = _within(self._session.paths.root, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        report = count_sparsity(pl_module)
        targets = {"total": report.target, **{one.name: one.target for one in report.layers}}
        change_rows(trainer, lambda row: _with_target(row, "sparsity/target", report.target))
        if (path := _sparsity_file(trainer)) is not None:
            text = zlib.decompress(self._taken["sparsity"]).decode("utf-8")
            table = csv.DictReader(io.StringIO(text, newline=""))
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(table.fieldnames or []))
                writer.writeheader()
                for row in table:
                    writer.writerow(_with_target(row, "target", targets.get(row["layer"])))
        self._taken = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._claim is not None:
            # Else those who wait would train as far in turn, one after another.
            self._store.decline(self._id, "the training ends before the warm-up does")
            self.release()

    def _put(self, trainer: pl.Trainer, write: Callable[[Path], None]) -> None:
        root, real = str(self._session.paths.root), _real_root(self._session)
        steps, seconds = trainer.global_step, time.monotonic() - self._began
        try:
            path = _sparsity_file(trainer)
            text = b"" if path is None else path.read_bytes()
            self._saving = {
                "root": real,
                "sparsity": zlib.compress(text),
                "files": _kept_files(trainer, Path(real)),
            }
            self._store.put(self._id, _plain(write), steps, seconds, root)
        except OSError as error:
            reason = f"the dense warm-up could not be stored: {error.strerror or error}"
            warnings.warn(f"{reason}; the run goes on", TrunkNotStoredWarning, stacklevel=2)
            # For nobody to wait for one that cannot be made.
            self._store.decline(self._id, reason)
        else:
            trunk = {"id": self._id, "steps": steps, "seconds_saved": 0.0}
            self._session.record.update(trunk=trunk)
            self._session.record.save()  # now: a run that is killed writes nothing more
        finally:
            self._saving = {}


@contextmanager
def shared_trunk(
    config: Mapping[str, Any], trainer: pl.Trainer, model: pl.LightningModule, session: RunContext
) -> Iterator[SharedTrunk | None]:
    """Find what a run has to do with the warm-ups of others; None = nothing.

    While another process makes the warm-up, it waits for it.

    Args:
        config: the resolved config.
        trainer: with its callbacks.
        model: what is trained, without masks yet.
        session: the run; one that goes on from a checkpoint has its warm-up behind it.
    """
    shared = _find(config, trainer, model, session)
    try:
        yield shared
    finally:
        if shared is not None:
            shared.release()


def _find(
    config: Mapping[str, Any], trainer: pl.Trainer, model: pl.LightningModule, session: RunContext
) -> SharedTrunk | None:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    pruning = next((one for one in callbacks if isinstance(one, ScheduledPruning)), None)
    resumed = session.start.checkpoint is not None
    if pruning is None or pruning.dense_until < 1 or resumed or trainer.world_size > 1:
        return None
    # With a target of next to nothing a dense model is at target, and may be the best one.
    if not _curves_travel(trainer) or not will_prune(model, pruning.config):
        return None
    device = session.record.content["device"]
    id = trunk_id(config, pruning.dense_until, circumstances(config, device))
    store = TrunkStore(config["paths"]["trunks"])
    found = _claim(store, id, session)
    if found is None:
        return None
    if isinstance(found, Trunk):
        saved = f"{found.seconds:.1f} s saved"
        print(f"dense warm-up: {found.steps} steps from {found.path.parent} ({saved})")
        trunk = {"id": id, "steps": found.steps, "seconds_saved": found.seconds}
        session.record.update(trunk=trunk)
        session.record.save()  # now: a run that is killed writes nothing more
    return SharedTrunk(session, store, id, pruning, found)


def _claim(store: TrunkStore, id: str, session: RunContext) -> Trunk | Claim | None:
    """Return the warm-up, held for this run, or the right to make it; None = it is not shared."""
    for _ in range(ATTEMPTS):
        found = store.claim(id, _Waiting())
        if not isinstance(found, Trunk):
            return found
        try:
            _hold(found.path, _held_path(session))
        except FileNotFoundError:
            continue  # somebody has removed it meanwhile
        except OSError as error:
            reason = f"the dense warm-up cannot be taken: {error.strerror or error}"
            warnings.warn(f"{reason}; this run trains its own", TrunkNotStoredWarning, stacklevel=2)
            break
        return found
    return None


def _hold(path: Path, held: Path) -> None:
    """Give a file a second name: whoever removes the first one does not take it from this run."""
    held.unlink(missing_ok=True)
    try:
        held.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(path, held)
        except OSError:
            held.unlink(missing_ok=True)
            raise


def _held_path(session: RunContext) -> Path:
    return session.paths.root / ".trunk.ckpt"


def _real_root(session: RunContext) -> str:
    return os.path.realpath(session.paths.root)


def _curves_travel(trainer: pl.Trainer) -> bool:
    """Return whether metrics.csv holds what all loggers were told, under its own names."""
    tables = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return not trainer.loggers or (bool(tables) and not any(table._prefix for table in tables))


def _kept_files(trainer: pl.Trainer, root: Path) -> dict[str, bytes]:
    """Return the checkpoints that the callbacks of a run have kept, by their place in it."""
    files: dict[str, bytes] = {}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            last = callback.best_model_path, callback.last_model_path
            for path in map(Path, filter(None, {*callback.best_k_models, *last})):
                if path.is_relative_to(root) and path.is_file():
                    files[str(path.relative_to(root))] = path.read_bytes()
    return files


def _plain(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """Refuse to store what no other run would load."""

    def write_plain(path: Path) -> None:
        write(path)
        if foreign := foreign_in_file(path):
            raise OSError(f"it holds more than tensors and plain values ({', '.join(foreign)})")

    return write_plain


def _within(root: Path, name: str) -> Path:
    """Return a path below a directory; whoever stored the file may have named any place."""
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(os.path.realpath(root)):
        raise ConfigError.of("trunk", f"the stored warm-up names a file outside the run: {name}")
    return path


class _Waiting:
    """Says once in a while that, and for whom, a run waits."""

    PERIOD_S = 30.0

    def __init__(self) -> None:
        self._said = -self.PERIOD_S

    def __call__(self, maker: Maker) -> None:
        now = time.monotonic()
        if now - self._said >= self.PERIOD_S:
            self._said = now
            who = f"process {maker.pid} on {maker.host}"
            of_all = f" of {maker.total_steps}" if maker.total_steps else ""
            step = f"step {maker.step}{of_all}"
            print(f"waiting for the dense warm-up that {who} makes ({step})", flush=True)


def _sparsity_file(trainer: pl.Trainer) -> Path | None:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, SparsityMonitor) and callback.csv_path is not None:
            return Path(trainer.default_root_dir, callback.csv_path)
    return None


def _with_target(row: dict[str, str], column: str, target: float | None) -> dict[str, str]:
    if row.get(column):
        row[column] = "" if target is None else str(target)
    return row


def _relocated(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new + value[len(old) :] if Path(value).is_relative_to(old) else value
    if isinstance(value, dict):
        items = value.items()
        return {_relocated(key, old, new): _relocated(item, old, new) for key, item in items}
    return value
