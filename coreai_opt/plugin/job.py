"""Hydra's callback of a job that prunes: refuses bad knobs, and says when nothing was pruned.

Hydra turns exceptions of its callbacks into warnings: a refusal is printed here, and leaves as
SystemExit.
"""

import logging
import sys
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from coreai_opt.config.errors import refuse
from coreai_opt.plugin.asked import asked_of, swept_names
from coreai_opt.plugin.fits import fits_of

log = logging.getLogger(__name__)


class PruneJob(Callback):
    """Checks the knobs of ``+prune=...`` when a job starts, and its fits when it ends.

    A single run with bad knobs ends before the app's code runs, a multirun before its first job
    where no swept value can mend them. A swept point with bad knobs fails alone, where its Trainer
    is made.

    Args:
        knobs: as the served options have them. Each job reads its own from its config: those here
            are of the whole multirun.
    """

    def __init__(self, **knobs: Any) -> None:
        pass

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        knobs = asked_of(config.hydra)
        if knobs is not None:
            refuse(knobs.fixed_problems(swept_names(config.hydra)))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        knobs = asked_of(config.hydra)
        if knobs is None:
            return
        fits_of(config.hydra.runtime.output_dir, anew=True)
        if config.hydra.mode != RunMode.MULTIRUN:
            refuse(knobs.problems)
        for problem in knobs.problems:
            log.error("%s", problem)
        for sentence in knobs.ignored:
            log.info("%s", sentence)
        if not knobs.problems:
            log.info("%s", knobs.summary)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        knobs = asked_of(config.hydra)
        fits = fits_of(config.hydra.runtime.output_dir)
        has_fitted = fits.any
        fits.forget()
        if knobs is None or knobs.is_dense or has_fitted:
            return
        if job_return.status == JobStatus.COMPLETED:
            seen = "the Lightning Trainer of this job did not fit"
            if not fits.trainers:
                seen = "no Lightning Trainer was made in this job"
            # Not by logging, which an app may have turned off.
            print(
                f"warning: nothing was pruned, although {knobs.option} was given: {seen}; "
                "allowed: a job that trains with a Trainer which it makes itself",
                file=sys.stderr,
            )
