"""Agreement of masks between the processes of one training: one small message, compared by all."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from coreai_opt.pruning._text import listed
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.masks.digest import mask_digest
from coreai_opt.pruning.model.targets import pruned_tensors


class MaskMismatchError(PruningError):
    """The masks of a training in several processes are not the same on all of them.

    Attributes:
        ranks: by the name of the weight, the ranks whose mask deviates from that of most.
    """

    def __init__(self, ranks: Mapping[str, Sequence[int]], when: str) -> None:
        self.ranks = {name: list(deviating) for name, deviating in ranks.items()}
        texts = [f"{name!r} on {_ranks(those)}" for name, those in self.ranks.items()]
        layers = listed(texts, str, "; ")
        super().__init__(
            f"masks differ between the processes {when}: {layers}; something has changed weights "
            "or masks on some ranks alone (a callback, a hook or a criterion of your own)"
        )


def compare_masks(model: nn.Module, when: str, device: torch.device) -> None:
    """Compare the masks of all ranks, which call this at the same place.

    One small message is exchanged on a device, whatever the size of the masks; where one differs,
    all ranks raise a MaskMismatchError, which says when (``"after step 3"``).
    """
    tensors = list(pruned_tensors(model))
    if not tensors:
        return
    own = torch.stack([mask_digest(tensor.impl.mask).to(device) for tensor in tensors])
    if ranks := deviating_ranks(of_all_ranks(own), [tensor.name for tensor in tensors]):
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


def of_all_ranks(own: torch.Tensor) -> list[list[int]]:
    """Return the numbers of every rank, in the order of the ranks."""
    # Not a strategy's all_gather, which is made for gradients and calls what torch deprecates.
    gathered = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, own)
    numbers: list[list[int]] = torch.stack(gathered).tolist()
    return numbers


def _ranks(ranks: Sequence[int]) -> str:
    word = "rank" if len(ranks) == 1 else "ranks"
    return f"{word} {', '.join(map(str, ranks))}"
