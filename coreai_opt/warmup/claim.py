"""Who makes a trunk: a claim in a file that all processes and nodes of a sweep see.

The claim is not a ``filelock.SoftFileLock``, nor its ``SoftFileLease``, though they mean the same:
they break the lock of a dead holder by exchanging two files in one step, NFS cannot do that, and
there they wait for the dead forever. Here a claim is a hint and not a promise: if two processes
come to hold one, both make the trunk and the store keeps the first. That allows a plain rename.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = [
    "Claim",
    "Identity",
    "Maker",
    "SeenClaim",
    "clock_ahead",
    "identity_of",
    "process_is_gone",
    "read_claim",
    "remove",
    "set_aside",
    "temporary_name",
]

Identity = tuple[int, int]


@dataclass(frozen=True)
class Maker:
    """The process that makes a trunk, and how far it is.

    Args:
        host: the name of its node.
        pid: its process id there.
        step: optimizer steps finished, some seconds ago.
        total_steps: optimizer steps of the whole trunk, None = not known (yet).
        since: when it began, ISO 8601 in UTC.
    """

    host: str
    pid: int
    step: int
    total_steps: int | None
    since: str


@dataclass(frozen=True)
class SeenClaim:
    """A claim as it stood in its file.

    Args:
        identity: tells this state of this file from others that have its name.
        renewed: when it was renewed, in seconds of Unix time by the clock of the file system.
        process: the name of the process, None where the file is not a claim's (yet).
        thread: the thread that took it.
        maker: what it says, None where the file is not a claim's (yet).
    """

    identity: Identity
    renewed: float
    process: str | None = None
    thread: int | None = None
    maker: Maker | None = None

    def is_stale(self, now: float) -> bool:
        """Return whether its process is gone, or has been silent for so long that it may be.

        Args:
            now: seconds of Unix time by the clock of the file system.
        """
        # A time in the future is as wrong as one long past, and must not block for as long.
        if abs(now - self.renewed) > Claim.SILENT_S:
            return True
        return self.process is not None and process_is_gone(self.process)

    def is_of_this_thread(self) -> bool:
        """Return whether the calling thread itself holds the claim: waiting would never end."""
        return self.process == _process_name() and self.thread == threading.get_ident()


class Claim:
    """This process makes the trunk; others see that until ``release()``, or the process ends.

    A context manager. ``step`` and ``total_steps`` may be set at any time; a thread publishes them
    every five seconds.

    Args:
        path: the file, in a directory that is there.

    Raises:
        FileExistsError: the trunk is claimed already.
        OSError: the file cannot be written.
    """

    RENEW_S = 5.0
    SILENT_S = 60.0

    def __init__(self, path: Path) -> None:
        self.step = 0
        self.total_steps: int | None = None
        self._path, self._pid, self._thread_id = path, os.getpid(), threading.get_ident()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._released = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunk-claim", daemon=True)
        # Open until the release: what is written reaches this file alone, also when somebody has
        # broken the claim and another file has its name.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            self._publish()
            self._thread.start()
        except BaseException:
            self._unlink()
            os.close(self._file)
            raise
        atexit.register(self.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others make the trunk, or take it; a forked child releases nothing."""
        if self._released or os.getpid() != self._pid:
            return
        self._released = True
        self._stop.set()
        self._thread.join()
        self._unlink()
        os.close(self._file)
        atexit.unregister(self.release)

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._file), self._path.lstat()):
                self._path.unlink()

    def _publish(self) -> None:
        content = {
            "host": socket.gethostname(),
            "pid": self._pid,
            "step": self.step,
            "total_steps": self.total_steps,
            "since": self._since,
            "process": _process_name(),
            "thread": self._thread_id,
        }
        # One write of one length: a reader never sees the end of an older, longer text.
        os.pwrite(self._file, json.dumps(content).encode().ljust(511) + b"\n", 0)
        os.fsync(self._file)

    def _run(self) -> None:
        while not self._stop.wait(self.RENEW_S):
            # What cannot be written now (a server that restarts) may be so the next time.
            with contextlib.suppress(OSError):
                self._publish()


def read_claim(path: Path) -> SeenClaim | None:
    """Return the claim in a file, None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        # Over NFS it is the opening that asks the server for what has changed.
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            text = file.read(4096)
    except FileNotFoundError:
        return None
    identity = (stat.st_ino, stat.st_mtime_ns)
    try:
        content: dict[str, Any] = json.loads(text)
        fields = {name: content[name] for name in Maker.__dataclass_fields__}
        process, thread = str(content["process"]), content["thread"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return SeenClaim(identity, stat.st_mtime)
    return SeenClaim(identity, stat.st_mtime, process, thread, Maker(**fields))


def clock_ahead(path: Path) -> float:
    """Return the seconds that a file system's clock is ahead of this node's.

    It sets the times of claims, and a server's may differ from those of its clients.

    Args:
        path: the claim.

    Raises:
        OSError: no file can be made beside it.
    """
    name = temporary_name(path.name[:16], "")
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=name, suffix=".gone") as file:
        return os.fstat(file.fileno()).st_mtime - time.time()


def identity_of(path: Path) -> Identity:
    """Return what tells a file or directory from later ones of its name; a rename keeps it.

    The time belongs to it because file systems use the number of a removed file again.

    Raises:
        OSError: it is not there, or cannot be asked.
    """
    stat = path.lstat()
    return stat.st_ino, stat.st_mtime_ns


def set_aside(path: Path, judged: Identity) -> Path | None:
    """Move what was judged useless out of the way of a new one.

    Between the judgement and the move somebody else may have done the same, and made a new one:
    what turns out to be another than the judged goes back.

    Returns:
        Its temporary name, None when what was judged is not there any more.

    Raises:
        OSError: it cannot be moved.
    """
    aside = path.with_name(temporary_name(path.name[:16], "gone"))
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    if identity_of(aside) == judged:
        return aside
    # Neither of the two replaces a newer one. Then this one is lost, and nothing with it: an entry
    # of the name is there, or two processes make one.
    with contextlib.suppress(OSError):
        if aside.is_dir():
            aside.rename(path)
        else:
            path.hardlink_to(aside)
    with contextlib.suppress(OSError):
        remove(aside)
    return None


def remove(path: Path) -> None:
    """Remove a file or a directory with what is in it; one that is not there is no error.

    Raises:
        OSError: it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def temporary_name(id: str, kind: str) -> str:
    """Return a new name that says whose it is, for when it is left behind.

    Args:
        id: the trunk's.
        kind: ``part`` for what is being written, ``gone`` for what is being removed.
    """
    return f".{id}.{_process_name()}.{secrets.token_hex(4)}.{kind}"


def process_is_gone(process: str) -> bool:
    """Return whether a process of this node is known to have ended; of others nothing is known.

    Args:
        process: its name, as a claim or a temporary file has it.
    """
    match = re.fullmatch(r"([0-9a-f]{8})-(\d+)-(\d+)", process)
    if match is None or match[1] != _node():
        return False
    pid, start = int(match[2]), int(match[3])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    state, current = _state(pid)
    # One that nobody has waited for keeps its number, and a number is given again: with another
    # start. 0 is a start that is not known.
    return state == "Z" or (0 not in (start, current) and start != current)


def _process_name() -> str:
    return f"{_node()}-{os.getpid()}-{_state(os.getpid())[1]}"


@functools.cache
def _node() -> str:
    """Return a hash of where process ids mean the same: a host since its boot, or a container."""
    parts = [socket.gethostname()]
    for read in (_boot, _namespace):
        with contextlib.suppress(OSError):  # no /proc: the name of the host is what there is
            parts.append(read())
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:8]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _state(pid: int) -> tuple[str, int]:
    """Return state and start of a process of this node, ``("", 0)`` where they cannot be known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
        # The name of the program, in parentheses, may hold spaces and parentheses itself.
        fields = text.rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, ValueError, IndexError):
        return "", 0
