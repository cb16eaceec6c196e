"""Learning-rate schedules that know the length of the training."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0
) -> LambdaLR:
    """A linear warm-up, then half a cosine down to ``final`` times the learning rate.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts.

    Args:
        optimizer: the optimizer.
        total_steps: optimizer steps of the whole training, >= 1.
        warmup_steps: steps until the full learning rate, >= 0.
        final: factor at the end, in [0, 1].
    """
    _check_warmup(warmup_steps)
    length = max(total_steps - warmup_steps, 1)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min((step - warmup_steps) / length, 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """A linear warm-up, then the learning rate as it is.

    Args:
        optimizer: the optimizer.
        total_steps: not used; here because every schedule is called with it.
        warmup_steps: steps until the full learning rate, >= 0.
    """
    _check_warmup(warmup_steps)
    return LambdaLR(optimizer, lambda step: min((step + 1) / max(warmup_steps, 1), 1.0))


def _check_warmup(warmup_steps: int) -> None:
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps is {warmup_steps}; allowed: 0 or more")
