"""Rank-0 handoff: run directory and checkpoint, published to the other ranks in a file.

A cluster starts all ranks at once, before they can talk. Rank 0 changes the files by which the
others would decide, so they wait for its decision, which carries the identity of this launch.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coreai_opt.config.errors import ConfigError
from coreai_opt.runs.existing_run import ExistingRun, read_json
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.processes import is_main_process
from coreai_opt.runs.resume import Start
from coreai_opt.runs.run_record import write_json

PATIENCE_S = 120.0
POLL_S = 0.2
RECENT_S = 600.0  # a rank that is later than this has missed its training
DAY_S = 24 * 3600.0


def publish_directory(output_root: Path, launch: str, root: Path | None) -> None:
    """Publish the run directory of a launch; None = the run is refused."""
    output_root.mkdir(parents=True, exist_ok=True)
    for old in output_root.glob(".launch-*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > DAY_S:
                old.unlink()
    _publish(_note(output_root, launch), launch, root=None if root is None else str(root))


def await_directory(output_root: Path, launch: str) -> Path:
    """Wait for the directory that rank 0 has chosen, and return it.

    Raises:
        ConfigError: rank 0 has refused the run, or says nothing.
    """
    content = _wait(_note(output_root, launch), launch)
    if content["root"] is None:
        raise ConfigError.of("", "rank 0 has refused the run, and says why")
    return Path(str(content["root"]))


def publish_start(paths: RunPaths, launch: str, start: Start) -> None:
    """Publish how the run of a launch starts."""
    checkpoint = None if start.checkpoint is None else str(start.checkpoint)
    _publish(paths.start, launch, checkpoint=checkpoint, is_done=start.is_done)


def await_start(paths: RunPaths, launch: str) -> Start:
    """Wait for the start that rank 0 has decided on, and return it.

    Raises:
        ConfigError: rank 0 has refused the run, or says nothing.
    """
    content = _wait(paths.start, launch)
    if "refused" in content:
        raise ConfigError.of("", f"rank 0 does not run: {content['refused']}")
    checkpoint, is_done = content.get("checkpoint"), bool(content.get("is_done"))
    path = None if checkpoint is None else Path(str(checkpoint))
    # Without a checkpoint the earlier attempt is being archived.
    earlier = ExistingRun.at(paths.root) if path is not None or is_done else None
    return Start(path, earlier, is_done=is_done)


def publish_warmup(paths: RunPaths, launch: str, folder: str) -> None:
    """Say which warm-up run a launch starts from; empty = none."""
    _publish(paths.warmup, launch, folder=folder)


def await_warmup(paths: RunPaths, launch: str) -> str:
    """Return the warm-up run that rank 0 has decided to start from; waits for it.

    Raises:
        ConfigError: rank 0 says nothing.
    """
    return str(_wait(paths.warmup, launch)["folder"])


@contextmanager
def refusal_published(paths: RunPaths, launch: str | None) -> Iterator[None]:
    """Publish an error of rank 0 to the ranks that still wait."""
    try:
        yield
    except Exception as error:
        if launch is not None and is_main_process():
            with suppress(OSError):
                _publish(paths.start, launch, refused=" ".join(str(error).split()))
        raise


def _note(output_root: Path, launch: str) -> Path:
    return output_root / f".launch-{launch}.json"


def _publish(path: Path, launch: str, **content: Any) -> None:
    write_json(path, {"launch": launch, "time": time.time(), **content})


def _wait(path: Path, launch: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        content = read_json(path) or {}
        # Launches by torchrun, and those of a cluster that counts its jobs anew, may share a name.
        is_recent = time.time() - float(content.get("time") or 0.0) < RECENT_S
        if is_recent and content.get("launch") == launch:
            return content
        if time.monotonic() > deadline:
            raise ConfigError.of(
                "",
                f"rank 0 has said nothing for {PATIENCE_S:g} s, and was to write {path}; see its "
                "output, and whether all machines have this directory",
            )
        time.sleep(POLL_S)
