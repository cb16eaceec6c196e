"""What earlier processes have left in a run directory: is it done, at work, or to be gone on with?

Imports nothing heavy: it is asked before a directory is made.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from coreai_opt.config.identity import identity_config
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import process_exists
from coreai_opt.runs.run_record import finite, launch_in_cluster

State = Literal["completed", "failed", "interrupted", "running"]

SILENT_S = 60.0


@dataclass(frozen=True)
class ExistingRun:
    """A run directory that holds a record."""

    paths: RunPaths
    record: Mapping[str, Any]

    @classmethod
    def at(cls, root: Path) -> "ExistingRun | None":
        """Return the run of a directory, None where there is no record that can be read."""
        paths = RunPaths.at(root)
        record = read_json(paths.result)
        is_ours = record is not None and isinstance(record.get("config"), dict)
        return cls(paths, record) if record is not None and is_ours else None

    @property
    def has_form(self) -> bool:
        """Whether the record has the form that is written here, as far as a sweep relies on it."""
        nodes = ("objective", "error", "versions", "git", "data")
        seconds = self.record.get("wall_seconds")
        return (
            isinstance(self.record.get("status", ""), str)
            and all(isinstance(self.record.get(name) or {}, dict) for name in nodes)
            and isinstance((self.record.get("data") or {}).get("files") or {}, dict)
            and (seconds is None or _is_number(seconds))
        )

    @cached_property
    def progress(self) -> Mapping[str, Any]:
        """What ``progress.json`` says; empty where it cannot be read."""
        progress = read_json(self.paths.progress) or {}
        numbers = ("time", "pid", "step")
        return progress if all(_is_number(progress.get(name)) for name in numbers) else {}

    @property
    def state(self) -> State:
        """How the run stands: ``running`` is one whose process gives signs of life."""
        status: State = self.record.get("status", "interrupted")
        return "interrupted" if status == "running" and not self._is_alive() else status

    @property
    def step(self) -> int:
        """Optimizer steps that it had finished when it last said so."""
        return int(self.progress.get("step", 0))

    @property
    def seconds(self) -> float:
        """Wall time of all its processes so far."""
        told = self.record.get("wall_seconds"), self.progress.get("wall_seconds")
        return max(float(seconds or 0.0) for seconds in told)

    @property
    def is_in_this_process(self) -> bool:
        """Whether this very process is the one that last gave a sign of life."""
        me = (socket.gethostname(), os.getpid())
        return (self.progress.get("host"), self.progress.get("pid")) == me

    def _is_alive(self) -> bool:
        # A process that is gone has no heartbeat left; one that is silent may hang, or be a new one
        # with the number of the old.
        silent = time.time() - float(self.progress.get("time", 0.0)) > SILENT_S
        if silent or not self.progress or self._is_of_an_earlier_launch():
            return False
        if self.progress.get("host") != socket.gethostname():
            return True
        # A container that is started again has its name, and its first process its number.
        pid = int(self.progress["pid"])
        return pid != os.getpid() and process_exists(pid)

    def _is_of_an_earlier_launch(self) -> bool:
        # A cluster that has requeued this very job has ended the processes of its earlier launch,
        # whatever they said last, and on whichever node.
        theirs, ours = self.progress.get("job"), launch_in_cluster()
        if not isinstance(theirs, dict) or ours is None or theirs.get("id") != ours["id"]:
            return False
        restarts = theirs.get("restarts")
        return _is_number(restarts) and int(restarts or 0) < int(ours["restarts"])


def unfinished_runs(root: Path, digest: str) -> list[ExistingRun]:
    """Return the runs of an experiment that are interrupted or at work and have a checkpoint.

    The newest comes first.

    Args:
        root: where the directories of single runs lie, one or two levels below.
        digest: ``config_hash`` of the experiment.
    """
    found = [ExistingRun.at(folder) for folder in _with_checkpoints(root)]
    known = [run for run in found if run is not None and run.record.get("config_hash") == digest]
    unfinished = [run for run in known if run.state in ("interrupted", "running")]
    return sorted(unfinished, key=lambda run: str(run.record.get("started")), reverse=True)


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs of two configs in what can change the result, ``key: old -> new`` each.

    Example:
        >>> differing_keys({"seed": 1, "model": {"width": 8}}, {"seed": 2, "model": {"width": 8.0}})
        ['seed: 1 -> 2']
    """
    old, new = identity_config(finite(before)), identity_config(finite(now))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key}: {_shown(old, key)} -> {_shown(new, key)}" for key in keys]


def same_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two records are of one state of the code: commit, changes and version."""
    versions = [(record.get("versions") or {}).get("coreai_opt") for record in (before, now)]
    return versions[0] == versions[1] and before.get("git") == now.get("git")


def _with_checkpoints(root: Path) -> Iterator[Path]:
    # Only runs that have something to go on from: reading the record of every run takes seconds.
    folder = RunPaths(Path()).resume.name
    for pattern in (f"*/{folder}", f"*/*/{folder}"):
        for path in root.glob(pattern):
            if not RunPaths(path.parent).is_archived:
                yield path.parent


def _shown(values: Mapping[str, Any], key: str) -> str:
    return _text(values[key]) if key in values else "(none)"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
