"""What rank 0 decides before it can speak to the others, where a cluster starts all ranks at once.

Which directory the run has, and which checkpoint it starts from, is seen in files that rank 0
changes. So it writes down what it has decided, under what tells this launch from all others, and
the other ranks wait for that.
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
from coreai_opt.runs.record import write_json
from coreai_opt.runs.resume import Start

__all__ = [
    "await_warmup",
    "heard_directory",
    "heard_start",
    "publish_warmup",
    "refusal_told",
    "tell_directory",
    "tell_start",
]

PATIENCE_S = 120.0
POLL_S = 0.2
RECENT_S = 600.0  # a rank that is later than this has missed its training
DAY_S = 24 * 3600.0


def tell_directory(output_root: Path, launch: str, root: Path | None) -> None:
    """Say in which directory the run of a launch works, None = it is refused."""
    output_root.mkdir(parents=True, exist_ok=True)
    for old in output_root.glob(".launch-*.json"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > DAY_S:
                old.unlink()
    content = {"launch": launch, "root": None if root is None else str(root), "time": time.time()}
    write_json(_note(output_root, launch), content)


def heard_directory(output_root: Path, launch: str) -> Path:
    """Return the directory that rank 0 has chosen; waits for it.

    Raises:
        ConfigError: rank 0 has refused the run, or says nothing.
    """
    content = _wait(_note(output_root, launch), launch)
    if content["root"] is None:
        raise ConfigError.of("", "rank 0 has refused the run, and says why")
    return Path(str(content["root"]))


def tell_start(paths: RunPaths, launch: str, start: Start) -> None:
    """Say how the run of a launch starts."""
    checkpoint = None if start.checkpoint is None else str(start.checkpoint)
    content = {"launch": launch, "checkpoint": checkpoint, "is_done": start.is_done}
    write_json(paths.start, {**content, "time": time.time()})


def heard_start(paths: RunPaths, launch: str) -> Start:
    """Return how rank 0 has decided to start; waits for it.

    Raises:
        ConfigError: rank 0 has refused the run, or says nothing.
    """
    content = _wait(paths.start, launch)
    if "refused" in content:
        raise ConfigError.of("", f"rank 0 does not run: {content['refused']}")
    checkpoint, is_done = content.get("checkpoint"), bool(content.get("is_done"))
    path = None if checkpoint is None else Path(str(checkpoint))
    # Without a checkpoint what lies there is being set aside.
    earlier = ExistingRun.at(paths.root) if path is not None or is_done else None
    return Start(path, earlier, is_done=is_done)


def publish_warmup(paths: RunPaths, launch: str, folder: str) -> None:
    """Say which warm-up run a launch starts from; empty = none."""
    write_json(paths.warmup, {"launch": launch, "folder": folder, "time": time.time()})


def await_warmup(paths: RunPaths, launch: str) -> str:
    """Return the warm-up run that rank 0 has decided to start from; waits for it.

    Raises:
        ConfigError: rank 0 says nothing.
    """
    return str(_wait(paths.warmup, launch)["folder"])


@contextmanager
def refusal_told(paths: RunPaths, launch: str | None) -> Iterator[None]:
    """Let the other ranks of a launch know when rank 0 ends with an error, if they still wait."""
    try:
        yield
    except Exception as error:
        if launch is not None and is_main_process():
            reason = " ".join(str(error).split())
            with suppress(OSError):
                write_json(paths.start, {"launch": launch, "refused": reason, "time": time.time()})
        raise


def _note(output_root: Path, launch: str) -> Path:
    return output_root / f".launch-{launch}.json"


def _is_recent(content: Mapping[str, Any]) -> bool:
    # Launches by torchrun, and those of a cluster that counts its jobs anew, may share a name.
    return time.time() - float(content.get("time") or 0.0) < RECENT_S


def _wait(path: Path, launch: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        content = read_json(path)
        if content is not None and content.get("launch") == launch and _is_recent(content):
            return content
        if time.monotonic() > deadline:
            raise ConfigError.of(
                "",
                f"rank 0 has said nothing for {PATIENCE_S:g} s, and was to write {path}; see its "
                "output, and whether all machines have this directory",
            )
        time.sleep(POLL_S)
