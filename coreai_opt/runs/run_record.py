"""The record of a run: ``result.json`` from its start to its end, ``progress.json`` in between."""

import hashlib
import json
import math
import os
import platform
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from omegaconf import ListConfig

from coreai_opt import __version__
from coreai_opt.config.errors import message_of
from coreai_opt.config.identity import config_hash
from coreai_opt.config.locations import conf_dir, typed_path
from coreai_opt.runs.job_environment import JobEnvironment
from coreai_opt.runs.paths import RunPaths

SCHEMA = 1
PRIMARY = "config"
PACKAGES = {
    "torch": "torch",
    "pytorch_lightning": "pytorch-lightning",
    "lightning": "lightning",
    "hydra": "hydra-core",
}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file beside its place and rename it: a reader never sees half of one.

    Numbers that are not finite are written as null: JSON has none.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(finite(content), indent=2, allow_nan=False)
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)


def finite(value: Any) -> Any:
    """Return a value as a record holds it: null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Record:
    """``result.json``: written when the run starts, rewritten when it ends, however it ends.

    Args:
        paths: the run's paths.
        config: the resolved config.
        overrides: what the user set, ``key=value`` each.
        write: whether this process writes; false on ranks other than 0.
        earlier: the record of the interrupted run that is gone on with, or begun anew.
        seconds: wall time that was spent on it.
        sweep: name of the sweep that the run is a job of.
        warmup_key: key of the warm-up that the run makes, None = it is no warm-up run.
        experiment: hash of what can change the result, None = that of our own app's config.
        more: further fields.
    """

    def __init__(
        self,
        paths: RunPaths,
        config: Mapping[str, Any],
        overrides: list[str],
        write: bool = True,
        earlier: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        sweep: str | None = None,
        warmup_key: str | None = None,
        experiment: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._paths, self._write = paths, write
        self._began = time.monotonic() - seconds
        # Runs of one key may have other schedules: a warm-up run is known by its key alone.
        digest = warmup_key or experiment or config_hash(config)
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "run" if warmup_key is None else "warmup",
            "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{digest[:8]}-{os.getpid()}",
            "sweep": sweep,
            "status": "running",
            "started": _now(),
            "finished": None,
            "wall_seconds": None,
            "attempts": 1,
            "resumed_at": [],
            "overrides": overrides,
            "choices": _choices(),
            "flags": _flags(),
            "config": dict(config),
            "config_hash": digest,
            "planned_hash": _planned_otherwise(digest),
            "seed": config.get("seed"),
            **code_of_this_run(),
            **dict.fromkeys(("data", "threads", "device", "training", "objective")),
            "metrics": {},
            "sparsity": None,
            "parameters": None,
            "operations": None,
            "deploy": None,
            "checkpoints": None,
            "warmup": None,
            "error": None,
            **(more or {}),
        }
        if earlier is not None:
            self._continue(earlier)
        self.save()

    @property
    def is_warmup(self) -> bool:
        """Whether the run ends where its first mask would be made, for others to start from."""
        return bool(self.content["kind"] == "warmup")

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, that of earlier processes included."""
        return time.monotonic() - self._began

    def update(self, **fields: Any) -> None:
        """Set fields that the record has.

        Raises:
            KeyError: there is no such field.
        """
        for name in fields:
            self.content[name]  # a misspelt field must not become a new one
        self.content.update(fields)

    def complete(self) -> None:
        """Say that the run has completed."""
        self._finish("completed", None)

    def fail(self, status: str, error: BaseException) -> None:
        """Say that the run has failed or was interrupted, and by what."""
        text = "".join(traceback.format_exception(error))
        self._finish(
            status,
            {"type": type(error).__name__, "message": message_of(error), "traceback": text},
        )

    def save(self) -> None:
        """Write the record as it stands."""
        if self._write:
            write_json(self._paths.result, self.content)

    def _continue(self, earlier: Mapping[str, Any]) -> None:
        self.content["attempts"] = int(earlier.get("attempts") or 1) + 1
        # Threads: they are not known before torch is there, and a run may be killed until then.
        for name in ("run_id", "started", "resumed_at", "threads", "warmup"):
            self.content[name] = earlier.get(name, self.content[name])

    def _finish(self, status: str, error: dict[str, str] | None) -> None:
        seconds = round(self.seconds, 3)
        self.update(status=status, finished=_now(), wall_seconds=seconds, error=error)
        self.save()


@dataclass
class Progress:
    """Optimizer steps finished and in all, None = not known (yet).

    The training sets it and the heartbeat reads it: a thread of its own must not ask the trainer,
    whose answers may load data or wait for other ranks.
    """

    step: int = 0
    total_steps: int | None = None


class Heartbeat:
    """Renews ``progress.json`` for as long as the process lives.

    Every five seconds, and every second of the first minute: many runs last no longer.

    Args:
        path: the file.
        progress: what to write of the training.
        write: whether this process writes.
        seconds: returns the wall time of the run so far.
    """

    PERIOD_S = 5.0
    FIRST_PERIOD_S, FIRST_S = 1.0, 60.0

    def __init__(
        self,
        path: Path,
        progress: Progress,
        write: bool = True,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._progress, self._write = path, progress, write
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        if self._write:
            self.beat()
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._write:
            self._stop.set()
            self._thread.join()
            self.beat()

    def beat(self) -> None:
        """Write the file now."""
        content = {
            "step": self._progress.step,
            "total_steps": self._progress.total_steps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
            "wall_seconds": round(self._seconds(), 3),
            "job": launch_in_cluster(),
        }
        write_json(self._path, content)

    def _run(self) -> None:
        began = time.monotonic()
        period = min(self.FIRST_PERIOD_S, self.PERIOD_S)
        while not self._stop.wait(period):
            if time.monotonic() - began > self.FIRST_S:
                period = self.PERIOD_S
            with suppress(OSError):  # a full disk: there may be room again when the next one is due
                self.beat()


def launch_in_cluster() -> dict[str, Any] | None:
    """Return which job of SLURM this process belongs to and how often that was requeued.

    None outside of SLURM.
    """
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID")
    if names[1] not in os.environ:
        return None
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return {"id": "/".join(os.environ.get(name, "") for name in names), "restarts": restarts}


def _choices() -> dict[str, Any]:
    """Return the option of each group, those of Hydra's own settings left out."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices.items()
    return {
        str(group): list(option) if isinstance(option, ListConfig) else option
        for group, option in chosen
        if option is not None and not str(group).startswith("hydra/")
    }


def _flags() -> list[str]:
    """Return what a command needs to find the config, as ``--config-dir=DIR``."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    name, sources = hydra.job.config_name, hydra.runtime.config_sources
    folders = [one.path for one in sources if one.provider == "command-line"]
    main = [one.path for one in sources if one.provider == "main" and one.schema == "file"]
    elsewhere = [one for one in main if Path(one) != conf_dir()]
    return [
        *(f"--config-path={folder}" for folder in elsewhere),
        *([f"--config-name={name}"] if name not in (None, PRIMARY) else []),
        *(f"--config-dir={folder}" for folder in folders),
    ]


def _planned_otherwise(digest: str) -> str | None:
    """Return the hash of the experiment that a sweep has planned, None where it is this one."""
    environment = JobEnvironment.received()
    planned = "" if environment is None else environment.config_hash
    return planned if planned not in ("", digest) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _versions() -> dict[str, str]:
    packages = {}
    for name, package in PACKAGES.items():
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(package)
    return {"python": platform.python_version(), **packages, "coreai_opt": __version__}


def code_and_versions() -> dict[str, Any]:
    """Return the fields of a record that say with what code a run is made."""
    return {"git": _git(), "versions": _versions()}


def code_of_this_run() -> dict[str, Any]:
    """Return the same for the run that is made here.

    The jobs of one sweep in one process are of the code that the first of them has found: what is
    changed in files later is not imported again.
    """
    environment = JobEnvironment.received()
    if environment is None:
        return deepcopy(code_and_versions())
    return deepcopy(_code_in_sweep(environment.command_id))


@lru_cache(maxsize=1)
def _code_in_sweep(command_id: str) -> dict[str, Any]:
    return code_and_versions()


def _git() -> dict[str, Any] | None:
    """Return commit and changes of the checkout that the run is started in, None outside one."""
    try:
        sha = _git_output("rev-parse", "HEAD")
        dirty = bool(_git_output("status", "--porcelain", "-uno"))
        changes = _git_output("diff", "HEAD") if dirty else ""
        digest = hashlib.sha256(changes.encode()).hexdigest()[:16] if dirty else None
        return {"sha": sha, "dirty": dirty, "changes": digest}
    except (OSError, subprocess.SubprocessError):
        return None


def _git_output(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=typed_path("."),
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
