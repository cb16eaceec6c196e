"""Result of the target search: targets, excluded weights and doubtful ones."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coreai_opt.pruning.errors import (
    DenseWeight,
    LeftDenseWarning,
    LostWriteWarning,
    UnseenForwardWarning,
)
from coreai_opt.pruning.model.excluded import Exclusion
from coreai_opt.pruning.model.forward_trial import Trial, has_own_forward, kind_of_trial, try_out

if TYPE_CHECKING:
    from coreai_opt.pruning.model.targets import Target


@dataclass(frozen=True)
class TargetSearch:
    """What a config prunes, and what it asks for and leaves dense all the same.

    Attributes:
        traced: whether a forward pass of the model was followed: then each target is known to be
            given to an op as it is.
        targets: what is pruned.
        excluded: name of a weight that an op uses -> why it stays dense.
        unreached: weights of which no op is known that could be pruned.
        unseen: targets whose layers compute in a way that could not be looked into.
        written: targets to which their layers write in the forward pass.
    """

    traced: bool = False
    targets: list["Target"] = field(default_factory=list)
    excluded: dict[str, Exclusion] = field(default_factory=dict)
    unreached: list[DenseWeight] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    @property
    def unmasked(self) -> list[str]:
        """The names of weights that had no mask when the model was saved."""
        return [name for name, reason in self.excluded.items() if reason == "unmasked"]

    def warnings(self, anew: bool) -> Iterator[UserWarning]:
        """Yield one warning of each kind; of what stays dense only when a model is new."""
        if not self.targets and not self.excluded:
            yield UserWarning("the config leaves every weight dense")
        if anew and (self.excluded or self.unreached):
            yield LeftDenseWarning(self.excluded, self.unreached, self.traced)
        if self.unseen:
            yield UnseenForwardWarning(self.unseen)
        if self.written:
            yield LostWriteWarning(self.written)

    def note_writes(self, written: Collection[int]) -> None:
        """Note the targets among the parameters, given by id, that a forward pass has changed."""
        known = set(self.written)
        for target in self.targets:
            if id(target.weight) in written and known.isdisjoint(h.name for h in target.holders):
                self.written.append(target.name)

    def try_out(self, keeps_writes: bool) -> None:
        """Try the layers that have a forward pass of their own.

        Targets in which zeros would not arrive are left out; those that could not be seen, and
        those that are written to, are noted. Where ``keeps_writes`` a masked weight is the dense
        one itself.
        """
        tried: dict[Any, Trial] = {}
        altered: set[int] = set()
        for target in self.targets:
            for holder in target.holders:
                module = holder.module
                if getattr(module, "max_norm", None) is not None and not keeps_writes:
                    self.written.append(holder.name)  # an embedding
                if not has_own_forward(module):
                    continue
                key = kind_of_trial(module)
                if key not in tried:
                    tried[key] = try_out(module, holder.parameter)
                if tried[key].writes and not keeps_writes:
                    self.written.append(holder.name)
                if tried[key].zeros == "altered" and not self.traced:
                    self.excluded[holder.name] = "altered"
                    altered.add(id(target))
                elif tried[key].zeros == "unseen" and not self.traced:
                    self.unseen.append(holder.name)
        self.targets[:] = [target for target in self.targets if id(target) not in altered]
