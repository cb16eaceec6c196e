"""What a sweep tells a job besides its config; it travels in the job's environment."""

import os
from dataclasses import dataclass
from typing import Self

__all__ = ["Orders"]

VARIABLE = "COREAI_OPT_SWEEP"
AFRESH, FAIL_FAST = "afresh", "fail_fast"


@dataclass(frozen=True)
class Orders:
    """What a sweep tells a job.

    Attributes:
        since: when the sweep looked at the run's record, by the stamp of that file; 0 = there was
            none. What has been written later is another command's, and counts.
        token: tells this command from others on the same sweep.
        is_afresh: what lies in the directory is set aside, if it still is what the sweep saw.
        is_fail_fast: the job does not begin once another one has failed.
    """

    since: int = 0
    token: str = ""
    is_afresh: bool = False
    is_fail_fast: bool = False

    @classmethod
    def received(cls) -> Self | None:
        """Return the orders of this job, None where no sweep of ours has launched it."""
        words = os.environ.get(VARIABLE, "").split(":")
        if len(words) < 2:
            return None
        return cls(int(words[0]), words[1], AFRESH in words[2:], FAIL_FAST in words[2:])

    def override(self) -> str:
        """Return the override of Hydra's settings that gives a job these orders."""
        signs = [AFRESH] * self.is_afresh + [FAIL_FAST] * self.is_fail_fast
        text = ":".join([str(self.since), self.token, *signs])
        return f"+hydra.job.env_set.{VARIABLE}='{text}'"
