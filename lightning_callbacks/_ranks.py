"""Whether the processes of one training agree on what must be the same on all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from coreai_opt.pruning import PruningError
from coreai_opt.pruning.mask_digest import mask_digest
from coreai_opt.pruning.targets import pruned_tensors
from lightning_callbacks._lightning import pl
from lightning_callbacks._roots import of_root

__all__ = [
    "MaskMismatchError",
    "StepMismatchError",
    "check_masks",
    "check_steps",
    "deviating_ranks",
    "may_step_apart",
]


class MaskMismatchError(PruningError):
    """The masks of a training in several processes are not the same on all of them.

    Attributes:
        ranks: by the name of the weight, the ranks whose mask deviates from that of most.
    """

    def __init__(self, ranks: Mapping[str, Sequence[int]], when: str) -> None:
        self.ranks = {name: list(deviating) for name, deviating in ranks.items()}
        layers = "; ".join(f"{name!r} on {_ranks(those)}" for name, those in self.ranks.items())
        super().__init__(
            f"masks differ between the processes {when}: {layers}; something has changed weights "
            "or masks on some ranks alone (a callback, a hook or a criterion of your own)"
        )


class StepMismatchError(PruningError):
    """The processes of a training have not made the same number of optimizer steps.

    Attributes:
        steps: optimizer steps that have changed the schedule's clock, by rank.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = list(steps)
        counts = ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(steps))
        super().__init__(
            f"the processes have not made the same optimizer steps: {counts}; allowed: a module "
            "that steps its optimizers in the same batches on every rank"
        )


def check_masks(trainer: pl.Trainer, model: nn.Module, when: str) -> None:
    """Compare the masks of all ranks; all ranks have to call this at the same place.

    One small message is exchanged, whatever the size of the masks; with one process nothing is
    computed.

    Args:
        trainer: whose processes are compared.
        model: the prepared module.
        when: for the message, ``"after step 3"``.

    Raises:
        MaskMismatchError: on all ranks, where one differs.
    """
    if trainer.world_size == 1:
        return
    tensors = list(pruned_tensors(model))
    if not tensors:
        return
    device = trainer.strategy.root_device
    own = torch.stack([mask_digest(tensor.impl.mask).to(device) for tensor in tensors])
    digests = _of_all_ranks(trainer, own)
    if ranks := deviating_ranks(digests, [tensor.name for tensor in tensors]):
        raise MaskMismatchError(ranks, when)


def deviating_ranks(digests: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, list[int]]:
    """Return, by name, the ranks whose digest is not the one of most ranks; nothing = all agree.

    Of two that equally many have, that of the lowest rank counts.

    Example:
        >>> deviating_ranks([[1, 5], [1, 6], [1, 5]], ["first", "second"])
        {'second': [1]}
        >>> deviating_ranks([[1, 5], [2, 5]], ["first", "second"])
        {'first': [1]}
    """
    deviating = {}
    for name, of_ranks in zip(names, zip(*digests, strict=True), strict=True):
        # most_common keeps the order of first occurrence among equals.
        common = Counter(of_ranks).most_common(1)[0][0]
        if ranks := [rank for rank, digest in enumerate(of_ranks) if digest != common]:
            deviating[name] = ranks
    return deviating


def may_step_apart(pl_module: pl.LightningModule) -> bool:
    """Return whether a module decides itself when its optimizers step.

    Otherwise all ranks step alike: they have the same gradients, so that a gradient scaler skips a
    step on all of them or on none, and Lightning refuses a batch without a loss.
    """
    is_overridden = of_root(pl_module, "utilities.model_helpers", "is_overridden")
    return not pl_module.automatic_optimization or is_overridden("optimizer_step", pl_module)


def check_steps(trainer: pl.Trainer, finished: int) -> None:
    """Compare the optimizer steps of all ranks; all ranks have to call this at the same place.

    Raises:
        StepMismatchError: on all ranks, where they differ. Without this the ranks that change their
            masks would wait for the others for ever.
    """
    if trainer.world_size == 1:
        return
    own = torch.tensor([finished], device=trainer.strategy.root_device)
    steps = [count for (count,) in _of_all_ranks(trainer, own)]
    if len(set(steps)) > 1:
        raise StepMismatchError(steps)


def _of_all_ranks(trainer: pl.Trainer, own: torch.Tensor) -> list[list[int]]:
    # Not the strategy's all_gather, which is made for gradients and calls what torch deprecates.
    gathered = [torch.empty_like(own) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(gathered, own)
    numbers: list[list[int]] = torch.stack(gathered).tolist()
    return numbers


def _ranks(ranks: Sequence[int]) -> str:
    word = "rank" if len(ranks) == 1 else "ranks"
    return f"{word} {', '.join(map(str, ranks))}"
