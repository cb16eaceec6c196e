"""Job environment: what a sweep tells a job besides its config, as JSON in one variable."""

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

VARIABLE = "COREAI_OPT_SWEEP"


@dataclass(frozen=True)
class JobEnvironment:
    """What a sweep tells a job.

    Attributes:
        mtime_ns: time of change of the run's record when the sweep looked at it; 0 = there was
            none. A record that has been written later is another command's, and counts.
        command_id: tells this command from others on the same sweep.
        restart: the run begins anew, and its earlier attempt is archived, if the record still is
            the one that the sweep saw.
        fail_fast: the job does not begin once another one has failed.
        threads: torch's threads within an operation, the job's share of the cores; None = its own
            default.
        devices: GPUs of which the job takes a free one; none = what it sees.
        jobs_per_device: how many jobs share one.
        config_hash: that the sweep expects in the job's record; empty = not known.
        warmup: folder of the warm-up run beside the run's own, from which the job starts; empty =
            it trains its own.
        warmup_key: of the warm-up run that the job is; it ends where the first mask would be made.
            Empty = the job is none.
        ignore: patterns of keys of another app's config that do not count in its hash, besides
            those that the sweeper's settings name.
    """

    mtime_ns: int = 0
    command_id: str = ""
    restart: bool = False
    fail_fast: bool = False
    threads: int | None = None
    devices: tuple[str, ...] = ()
    jobs_per_device: int = 1
    config_hash: str = ""
    warmup: str = ""
    warmup_key: str = ""
    ignore: tuple[str, ...] = ()

    @classmethod
    def received(cls) -> Self | None:
        """Return the environment of this job, None where no sweep of ours has launched it."""
        try:
            told: Any = json.loads(os.environ.get(VARIABLE, ""))
            lists = {name: tuple(told.get(name, ())) for name in ("devices", "ignore")}
            return cls(**{**told, **lists})
        except (ValueError, TypeError, AttributeError):
            return None  # a variable of another version of this project

    def override(self) -> str:
        """Return the override of Hydra's settings that gives a job this environment."""
        given = asdict(self)
        told = {one.name: given[one.name] for one in fields(self) if given[one.name] != one.default}
        text = json.dumps(told or {"mtime_ns": 0}, separators=(",", ":"))
        text = text.replace("\\", "\\\\").replace("'", "\\'")
        return f"+hydra.job.env_set.{VARIABLE}='{text}'"
