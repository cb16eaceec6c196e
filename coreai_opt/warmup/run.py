"""Usable warm-up: whether the warm-up run in a directory is what a job would train itself.

A sweep asks before it plans, and a job before it starts from it. Without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coreai_opt.runs.data_files import changed_files
from coreai_opt.runs.existing_run import ExistingRun
from coreai_opt.warmup.sources import changed_sources
from lightning_callbacks._resume.checkpoint_files import CheckpointFile, checkpoint_files


class WarmupNotPossibleError(Exception):
    """No run can start from this warm-up, however often it is trained."""


@dataclass(frozen=True)
class WarmupRun:
    """A run that has ended where its first mask would have been made.

    Attributes:
        run: its directory and record.
    """

    run: ExistingRun

    @classmethod
    def at(cls, root: Path) -> "WarmupRun | None":
        """Return the warm-up run of a directory, None where there is none."""
        run = ExistingRun.at(root)
        is_warmup = run is not None and run.has_form and run.record.get("kind") == "warmup"
        return cls(run) if run is not None and is_warmup else None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its record says of the warm-up: key, steps, seconds, root and sources."""
        facts = self.run.record.get("warmup")
        return facts if isinstance(facts, dict) else {}

    @cached_property
    def checkpoint(self) -> CheckpointFile | None:
        """Its last state; None where that cannot be read."""
        files = checkpoint_files(self.run.paths.resume)
        is_last = bool(files) and files[0].step == self.facts.get("steps")
        return files[0] if is_last and files[0].is_whole() else None

    def change(self, code: Mapping[str, Any]) -> str | None:
        """Return what has changed since it was trained, in one clause; None = nothing.

        Args:
            code: the fields of a record that say what code is used now.
        """
        record = self.run.record
        for name in ("git", "versions"):
            if record.get(name) != code.get(name):
                return "it was trained by other code or versions"
        sources = self.facts.get("sources")
        if sources and (changed := changed_sources(sources)):
            return f"its code has changed: {', '.join(changed)}"
        if files := changed_files(record):
            return f"its data has changed: {', '.join(files)}"
        return None

    def problem(self, code: Mapping[str, Any]) -> str | None:
        """Return why no job can start from it, in one clause; None where one can.

        Args:
            code: the fields of a record that say what code is used now.
        """
        if self.run.state != "completed":
            state = self.run.state
            return f"it has {state}" if state == "failed" else f"it is {state}"
        if (changed := self.change(code)) is not None:
            return changed
        return "its checkpoint cannot be read" if self.checkpoint is None else None
