"""What a sweep tells a job besides its config; it travels in the job's environment."""

import os
from dataclasses import dataclass
from typing import Self

__all__ = ["JobEnvironment"]

VARIABLE = "COREAI_OPT_SWEEP"
AFRESH, FAIL_FAST = "afresh", "fail_fast"
THREADS, DEVICES, JOBS_PER_DEVICE = "threads=", "devices=", "jobs_per_device="
DIGEST = "digest="


@dataclass(frozen=True)
class JobEnvironment:
    """What a sweep tells a job.

    Attributes:
        since: when the sweep looked at the run's record, by the stamp of that file; 0 = there was
            none. What has been written later is another command's, and counts.
        token: tells this command from others on the same sweep.
        is_afresh: what lies in the directory is set aside, if it still is what the sweep saw.
        is_fail_fast: the job does not begin once another one has failed.
        threads: torch's threads within an operation, the job's share of the cores; None = its own
            default.
        devices: GPUs of which the job takes a free one; none = what it sees.
        jobs_per_device: how many jobs share one.
        digest: ``config_hash`` of the job as the sweep has planned it; empty = not told.
    """

    since: int = 0
    token: str = ""
    is_afresh: bool = False
    is_fail_fast: bool = False
    threads: int | None = None
    devices: tuple[str, ...] = ()
    jobs_per_device: int = 1
    digest: str = ""

    @classmethod
    def received(cls) -> Self | None:
        """Return the orders of this job, None where no sweep of ours has launched it."""
        words = os.environ.get(VARIABLE, "").split(":")
        if len(words) < 2:
            return None
        signs = words[2:]
        threads, devices = _value(signs, THREADS), _value(signs, DEVICES)
        return cls(
            int(words[0]),
            words[1],
            AFRESH in signs,
            FAIL_FAST in signs,
            None if threads is None else int(threads),
            tuple(devices.split(",")) if devices else (),
            int(_value(signs, JOBS_PER_DEVICE) or 1),
            _value(signs, DIGEST) or "",
        )

    def override(self) -> str:
        """Return the override of Hydra's settings that gives a job these orders."""
        signs = [AFRESH] * self.is_afresh + [FAIL_FAST] * self.is_fail_fast
        if self.threads is not None:
            signs.append(f"{THREADS}{self.threads}")
        if self.devices:
            signs.append(f"{DEVICES}{','.join(self.devices)}")
            signs.append(f"{JOBS_PER_DEVICE}{self.jobs_per_device}")
        if self.digest:
            signs.append(f"{DIGEST}{self.digest}")
        text = ":".join([str(self.since), self.token, *signs])
        return f"+hydra.job.env_set.{VARIABLE}='{text}'"


def _value(signs: list[str], name: str) -> str | None:
    return next((sign.removeprefix(name) for sign in signs if sign.startswith(name)), None)
