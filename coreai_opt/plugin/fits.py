"""Fits of a job: whether a Trainer has trained under it, here or in a process that it started."""

import os
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

# Job -> its record. A job is known by its output directory; the basic launcher runs several here.
_jobs: dict[str, "Fits"] = {}


class Fits:
    """Whether a Trainer of a job has fitted, told from any process that a copy of this is sent to.

    A spawned rank fits in a process of its own: it leaves an empty file where temporary files are,
    which ``forget`` removes.
    """

    def __init__(self) -> None:
        self.trainers = 0
        self.weights: list[Any] = []  # the PrunedWeights of Trainers that have fitted
        self._has_fitted = False
        self._pid = os.getpid()
        self._marker = Path(tempfile.gettempdir(), f"coreai-fit-{uuid4().hex}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Fits":
        return self  # a Trainer that is copied is one of the job

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"weights": []}

    def record(self) -> None:
        """Note that a fit has begun."""
        if os.getpid() == self._pid:
            self._has_fitted = True
        else:
            self._marker.touch()

    @property
    def any(self) -> bool:
        """Whether a fit has begun."""
        return self._has_fitted or self._marker.exists()

    def forget(self) -> None:
        """Take away what a rank has left."""
        self._marker.unlink(missing_ok=True)


def fits_of(job: str, anew: bool = False) -> Fits:
    """Return the record of a job.

    Args:
        job: its output directory.
        anew: whether the job begins.
    """
    if anew or job not in _jobs:
        _jobs[job] = Fits()
    return _jobs[job]
