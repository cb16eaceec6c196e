"""Shared dense warm-up in any Lightning app: its key, its run, and starting from it.

Off by default, ``hydra.sweeper.warmup=auto`` turns it on: runs that are the same until their first
mask train that part once, and start from its checkpoint by the app's own key for one.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from coreai_opt.plugin.knobs import Knobs
from coreai_opt.pruning.config.dense_reading import last_dense_reading
from coreai_opt.runs.paths import RunPaths
from coreai_opt.runs.resume import Start
from coreai_opt.runs.run_record import Record, code_of_this_run
from coreai_opt.runs.values import RunValues
from coreai_opt.warmup.run import WarmupNotPossibleError, WarmupRun
from coreai_opt.warmup.sources import sources_of_this_process
from lightning_callbacks._resume.checkpoint_files import checkpoint_files


def any_warmup_key(rest: Mapping[str, Any], knobs: Knobs | None) -> str | None:
    """Return 16 hexadecimal digits that are equal for runs with the same dense warm-up.

    None = the run shares none: it prunes nothing, or from its first step on, or checkpoints may be
    chosen before the ramp (``gate=false``).

    Args:
        rest: what can change the result besides the knobs of pruning, by dotted key.
        knobs: of pruning.
    """
    end = warmup_end(knobs)
    if knobs is None or end < 1:
        return None
    own = {name: knobs.values[name] for name in ("interval", "init_from", "monitor")}
    text = json.dumps([dict(rest), own, end], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


def warmup_end(knobs: Knobs | None) -> int:
    """Return the last reading of the schedule's clock without a mask; below 1 = there is none."""
    if knobs is None or knobs.is_dense or knobs.problems or knobs.schedule is None:
        return -1
    is_from_schedule = knobs.values["masks_from"] == "schedule"
    if not (is_from_schedule and knobs.values["gate"] and knobs.target > 0):
        return -1
    return last_dense_reading(knobs.schedule)


def start_from(paths: RunPaths, folder: str) -> tuple[Start, dict[str, Any] | None]:
    """Return how a run starts that a sweep has planned to start from a warm-up.

    Args:
        paths: of the run.
        folder: of the warm-up run, beside that of the run.

    Returns:
        The start, and what the record says of the warm-up; None where it cannot be used.
    """
    root = paths.root.parent / folder
    warmup = WarmupRun.at(root)
    problem = "it cannot be read" if warmup is None else warmup.problem(code_of_this_run())
    if warmup is None or problem is not None or warmup.checkpoint is None:
        told = f"the dense warm-up in {root} is not used: {problem}; this run trains its own"
        return Start(sentences=(told,)), None
    facts = warmup.facts
    saved = {"key": facts["key"], "steps": facts["steps"], "seconds_saved": facts["seconds"]}
    told = f"dense warm-up: {facts['steps']} steps from {root} ({facts['seconds']:.1f} s saved)"
    return Start(warmup.checkpoint.path, sentences=(told,)), {**saved, "run": folder}


def finish_warmup(record: Record, paths: RunPaths, key: str, values: RunValues) -> None:
    """Write into the record of a warm-up run what a run needs that starts from it.

    Raises:
        WarmupNotPossibleError: the training has ended before the warm-up did.
    """
    files = checkpoint_files(paths.resume)
    if not values.has_ended_warmup or not files:
        raise WarmupNotPossibleError(
            "the training ends before the warm-up does, or no Trainer trains here"
        )
    for file in files[1:]:
        file.path.unlink(missing_ok=True)
    facts = {
        "key": key,
        "steps": files[0].step,
        "seconds": round(record.seconds, 3),
        "root": os.path.realpath(paths.root),
        "sources": sources_of_this_process(),
    }
    record.update(warmup=facts)
