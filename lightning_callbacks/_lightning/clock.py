"""The schedule's clock: what counts as a step."""

from coreai_opt.pruning.scheduling.optimizer_steps import OptimizerSteps

__all__ = ["OptimizerSteps"]
