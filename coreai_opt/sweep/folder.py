"""The directory of a sweep: ``sweep.json``, the folders of its runs, how each of them stands."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from coreai_opt.config.errors import Problem
from coreai_opt.runs.existing_run import ExistingRun, State, read_json
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.run_record import write_json
from coreai_opt.sweep.apps.own_app import OwnApp
from coreai_opt.sweep.apps.swept_app import SweptApp
from coreai_opt.sweep.launchers.slurm_queue import Job, read_job, slurm_queue
from coreai_opt.sweep.plan import Plan, Point

OWN = OwnApp()
SCHEMA = 1
LOCK_S = 20.0

EntryState = State | Literal["new", "unreadable", "queued"]


@dataclass(frozen=True)
class SweepJob:
    """A point of a sweep and its directory."""

    point: Point
    paths: RunPaths
    app: SweptApp = OWN

    @property
    def config_hash(self) -> str:
        """That of its point."""
        return self.point.config_hash

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.paths.root.name

    def earlier(self) -> ExistingRun | None:
        """Return the run that its directory holds now, None where it is not this point's.

        A run whose config came out otherwise than it was planned says what had been planned.
        """
        run = self.found()
        if run is None:
            return None
        hashes = (run.record.get("config_hash"), run.record.get("planned_hash"))
        return run if self.point.config_hash in hashes else None

    def found(self) -> ExistingRun | None:
        """Return the run that its directory holds now, whichever experiment it is."""
        run = ExistingRun.at(self.paths.root)
        return run if run is not None and run.has_form else None

    def state(self) -> EntryState:
        """Return how it stands now; ``queued`` is one that a cluster will run (again) by itself."""
        run = self.earlier()
        state: EntryState = "new" if run is None else run.state
        if run is None and self.paths.result.exists():
            state = "unreadable"
        job = None if state == "running" else self.job()
        # What has ended since the job was submitted has ended in it.
        has_ended = state in ("completed", "failed")
        is_over = job is not None and has_ended and self.mtime_ns() != job.since
        return (
            "queued" if job is not None and not is_over and slurm_queue().is_active(job) else state
        )

    def job(self) -> Job | None:
        """Return the job of a cluster that was last submitted for it, None where there is none."""
        return read_job(self.paths.job)

    def mtime_ns(self) -> int:
        """Return something that changes when the run is begun or ends, 0 where it never was."""
        try:
            return self.paths.result.stat().st_mtime_ns
        except OSError:
            return 0


class SweepFolder:
    """The directory of a sweep.

    Args:
        root: the directory, which need not be there.
        app: whose runs it holds.
    """

    def __init__(self, root: Path, app: SweptApp = OWN) -> None:
        self.root, self._app = root, app

    @property
    def file(self) -> Path:
        return self.root / "sweep.json"

    def stop(self, command_id: str) -> Path:
        """Is there when no more runs of a command are to begin.

        Args:
            command_id: the command's.
        """
        return self.root / f".stop-{command_id}"

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What ``sweep.json`` says; empty where it is not there or cannot be read."""
        content = read_json(self.file) or {}
        # What does not have the form that is written here counts as not there.
        return {key: value for key, value in content.items() if _has_form(key, value)}

    @property
    def name(self) -> str | None:
        """The name of the sweep that it belongs to, None where that is not known."""
        name = self.content.get("name")
        return None if name is None else str(name)

    def problems(self, plan: Plan) -> list[Problem]:
        """Return why a sweep must not go into this directory."""
        key = self._app.knob("name")
        if self.root.exists() and not self.root.is_dir():
            allowed = f"allowed: another {key} or hydra.sweep.dir"
            return [Problem(key, f"{self.root} is not a directory; {allowed}")]
        if self.name in (None, plan.name):
            return []
        sentence = (
            f"{self.root} belongs to the sweep {self.name!r}, this one is called {plan.name!r}; "
            f"allowed: another directory or {key}, or {key}={self.name!r} to join it"
        )
        return [Problem(key, sentence)]

    def entries(self, points: Iterable[Point]) -> list[SweepJob]:
        """Return the points with their folders; an experiment that has one keeps it."""
        known = self._folders()
        names = ((point, known.get(point.config_hash, point.folder)) for point in points)
        return [
            SweepJob(point, RunPaths(self.root / name, self._app.inner), self._app)
            for point, name in names
        ]

    def enter(self, plan: Plan, entries: Iterable[SweepJob]) -> None:
        """Write the points into ``sweep.json``, beside those of earlier commands."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self.__dict__.pop("content", None)
            before = self.content
            command = list(plan.command)
            commands = [one for one in before.get("commands") or [] if one != command]
            points = {
                entry.config_hash: {
                    "folder": entry.name,
                    "overrides": list(entry.point.overrides),
                }
                for entry in entries
            }
            content = {
                "schema": SCHEMA,
                "name": plan.name,
                "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
                "knobs": sorted({*(before.get("knobs") or []), *plan.knobs}),
                "commands": [*commands, command],
                "points": {**(before.get("points") or {}), **points},
            }
            write_json(self.file, content)
            self.__dict__.pop("content", None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other commands from writing meanwhile, as far as the file system can."""
        lock = FileLock(self.root / ".sweep.lock", timeout=LOCK_S, fallback_to_soft=False)
        try:
            held: AbstractContextManager[Any] = lock.acquire()
        except (Timeout, NotImplementedError, OSError):
            # What two commands write at once differs in points, and each has its own in mind.
            held = nullcontext()
        with held:
            yield

    def _folders(self) -> dict[str, str]:
        """Return the folders by the hash of their experiment, of those that hold a record."""
        points = self.content.get("points") or {}
        told = {
            digest: Path(str(point["folder"])).name
            for digest, point in points.items()
            if point.get("folder")
        }
        if not self.root.is_dir():
            return told
        found, planned = {}, {}
        pattern = RunPaths(Path("*"), self._app.inner).result
        for path in sorted(self.root.glob(str(pattern))):
            folder = self.root / path.relative_to(self.root).parts[0]
            run = ExistingRun.at(folder)
            if run is not None:
                found[str(run.record.get("config_hash"))] = folder.name
                planned[str(run.record.get("planned_hash"))] = folder.name
        return {**told, **planned, **found}


def _has_form(key: str, value: Any) -> bool:
    if key == "points":
        return isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
    return isinstance(value, {"knobs": list, "commands": list, "schema": int}.get(key, str))
