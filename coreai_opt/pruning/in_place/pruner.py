"""InPlacePruner: masks weights in place and keeps masks and dense values beside the model."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args
from weakref import ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coreai_opt.pruning._torch_internals import COMPILED_PREFIX, version_of
from coreai_opt.pruning.config.pruner import MagnitudePrunerConfig
from coreai_opt.pruning.errors import PruningError
from coreai_opt.pruning.in_place.backward import BackwardEnd
from coreai_opt.pruning.in_place.optimizers import AttachedOptimizers
from coreai_opt.pruning.in_place.seen import SeenGradients
from coreai_opt.pruning.in_place.starting import begin_at_zeros, with_zeros
from coreai_opt.pruning.in_place.state import (
    check_fits,
    load_masks,
    mask_names,
    masks_state,
    under_first_names,
)
from coreai_opt.pruning.in_place.weights import MaskedWeights
from coreai_opt.pruning.masks.masking import mask_in_place
from coreai_opt.pruning.model.targets import PrunedTensor, Target
from coreai_opt.pruning.saving.masks_beside import put_beside, take_away
from coreai_opt.pruning.scheduling.scheduled_masks import Moved, ScheduledMasks
from coreai_opt.pruning.spec.mask_state import STEP_COUNT

MasksFrom = Literal["schedule", "zeros"]
"""Where first masks come from: what the schedules ask for at step 0, or zeros that are there."""


class InPlacePruner(ScheduledMasks):
    """Prunes the weights of a model in place; the model itself stays as it is.

    Names, order and identity of parameters, state dict, classes: nothing of the model changes but
    the values of its weights, which are 0 where they are pruned. It can be copied, saved whole,
    traced and exported at any moment. Masks, the dense values of pruned weights and the clock are
    in this pruner, and in its ``state_dict``.

    Schedules, schemes, criteria, allocations and configs are those of ``MagnitudePruner``, and so
    are the weights that a training ends with.

    Args:
        model: the model whose weights are pruned.
        config: what is pruned, how far and when; None = 50 % everywhere, at once.

    Attributes:
        update_count: how often this pruner has computed masks, several tensors at once being once.

    Example:
        >>> import torch
        >>> from coreai_opt.pruning import InPlacePruner, MagnitudePrunerConfig
        >>> from coreai_opt.pruning.config import PolynomialDecaySchedule
        >>> model = torch.nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> ramp = PolynomialDecaySchedule(total_iters=3, power=1)
        >>> pruner = InPlacePruner(model, MagnitudePrunerConfig.uniform(0.5, ramp))
        >>> model = pruner.prepare()
        >>> pruner.attach(optimizer)
        >>> for _ in range(3):
        ...     model(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     pruner.step()
        ...     print(int((model.weight == 0).sum()))
        4
        8
        8
        >>> list(model.state_dict())
        ['weight', 'bias']
    """

    def __init__(self, model: nn.Module, config: MagnitudePrunerConfig | None = None) -> None:
        super().__init__(model, config)
        self._targets: Sequence[Target] = ()
        self._weights = MaskedWeights([], keeps_dense=False)
        self._begin_beside()

    def prepare(
        self,
        example_inputs: Any = None,
        *,
        state_dict: Mapping[str, Any] | None = None,
        masks_from: MasksFrom = "schedule",
    ) -> nn.Module:
        """Find the weights to prune, and mask them by the schedules' step 0, in place.

        With a state of this class masks, dense values and step are taken from it instead, and the
        weights are masked by them.

        With ``masks_from="zeros"`` the zeros that weights have now are their masks, whoever has
        made them, and they never come back. Without a schedule training goes on with these masks
        and no others. They must be what the spec asks for: as many as its target or more, in its
        pattern, each weight by itself under ``allocation="uniform"`` and all together under the
        others. A spec that says neither a target nor a pattern, as where there is no config, asks
        for nothing. With a schedule masks grow when it asks for more zeros than there are; where it
        asks for less they stay. Either way a weight that begins with more zeros than its target has
        arrived: its target is what it has.

        Args:
            example_inputs: how the weights are found, as for ``MagnitudePruner.prepare``.
            state_dict: what ``state_dict()`` has returned, of a training with the same config, or
                ``masks_of_state_dict``; ``masks_from`` does not matter then.
            masks_from: ``"schedule"``, or ``"zeros"``.

        Returns:
            The same model.

        Raises:
            RuntimeError: the model has already been prepared.
            PruningError: what ``MagnitudePruner.prepare`` refuses, or the state does not fit.
            TooFewZerosError: a ``PruningError``; weights without a schedule have fewer zeros than
                is asked, or others.
            ValueError: ``masks_from`` is something else.
            DivergedWeightError: a weight that is pruned at once, or whose zeros are taken, has NaN.

        Warns:
            UserWarning: as ``MagnitudePruner.prepare`` does.
            AllZeroWarning: weights that are zero in every element stay so; no zero at all is said.
        """
        if masks_from not in get_args(MasksFrom):
            allowed = ", ".join(map(repr, get_args(MasksFrom)))
            raise ValueError(f"masks_from is {masks_from!r}; allowed: {allowed}")
        self._begin_anew()
        found = self._find(example_inputs, None if state_dict is None else mask_names(state_dict))
        with self._undone_on_error():
            if state_dict is not None:
                self._put_on(found.targets)
                self._load(state_dict, found.unmasked)
            elif masks_from == "zeros":
                self._put_on(with_zeros(found.targets))
                self._begin_at_zeros()
            else:
                self._put_on(found.targets)
                self._apply([0])
        self._settle()
        return self.model

    def attach(self, *optimizers: Optimizer, scaler: Any = None) -> None:
        """Keep optimizers from moving pruned weights, from now on.

        Gradients are masked at the end of each backward pass, so that clipping sees them masked,
        and once more in the step where somebody has changed or replaced them (but for what is
        written to ``gradient.data``, of which nobody is told). Moments of what is pruned are 0, and
        a weight that comes back has the value that it had when it was pruned, and no momentum.

        No forward pass between two steps meets an unmasked weight, whoever runs it: the weights are
        masked within the optimizer's ``step``, by a hook that is called before those of others and
        before it returns, and within ``prepare`` and ``step`` of the pruner where masks change. A
        closure meets masked weights each time that an optimizer calls it. What somebody else writes
        to the weights, as by loading, is masked by ``mask_weights`` or in the next step.

        Args:
            optimizers: those that hold pruned weights, or are given some later. A wrapper (of
                Fabric, of Lightning, SAM, Lookahead) is served with the optimizer that it holds.
            scaler: the gradient scaler that is used with these optimizers, for criteria that look
                at gradients: those see unscaled ones.

        Raises:
            RuntimeError: the model must be prepared first.
            TypeError: it is no optimizer of torch, and holds none.
        """
        self._check_prepared()
        for optimizer in optimizers:
            for one in self._optimizers.attach(optimizer):
                self._seen.scalers[id(one)] = scaler
        self._hook_gradients()

    def detach(self) -> None:
        """Leave the optimizers that ``attach`` was given to themselves."""
        self._backward.release()
        self._optimizers.detach()

    def mask_gradients(self, optimizer: Optimizer) -> None:
        """Mask the gradients of an optimizer's weights that no backward pass has left masked.

        A backward pass masks them at its end, and a step of the optimizer what has changed since;
        this is for who clips gradients that were computed or changed otherwise.
        """
        self._check_prepared()
        self._weights.refresh()
        self._mask_changed(self._optimizers.active_of(optimizer))

    def mask_weights(self, *, also_data: bool = False) -> None:
        """Mask the weights that somebody has written to since they were masked, as by loading.

        What is written to ``weight.data``, as where an adapter is merged, is not noticed before the
        next step of the optimizer.

        Args:
            also_data: mask all weights, so that what was written to ``weight.data`` is masked too.
        """
        self._check_prepared()
        self._hook_gradients()
        self._weights.mask_written()
        if also_data:
            self._weights.mask()

    @torch.no_grad()
    def mask_copy(self, model: nn.Module) -> None:
        """Mask the weights of a copy or an average of the model, in place.

        Args:
            model: has the names of the model; wrappers may stand around it (``module.`` of an
                average or of parallel training) or around parts of it (``torch.compile``).

        Raises:
            PruningError: a pruned weight has no counterpart of its name and shape there.
        """
        self._check_prepared()
        theirs = dict(model.named_parameters(remove_duplicate=False))
        unwrapped = {_unwrapped(name): value for name, value in theirs.items()}
        pairs: list[tuple[Tensor, Tensor]] = []
        for tensor in self._weights.tensors:
            value = theirs.get(tensor.name, unwrapped.get(_unwrapped(tensor.name)))
            if value is None or tuple(value.shape) != tensor.shape:
                raise PruningError(
                    f"there is no weight {tensor.name!r} of shape {list(tensor.shape)} in the "
                    f"{type(model).__name__} that is to be masked; allowed: a copy of the model"
                )
            pairs.append((value, tensor.impl.mask))
        for theirs_alike, mask in pairs:
            mask_in_place(theirs_alike, mask.to(theirs_alike.device))

    def state_dict(self) -> dict[str, Any]:
        """Return masks, dense values of pruned weights and the step, for a checkpoint.

        It holds tensors (on the CPU), numbers and strings, and is read with ``weights_only=True``.
        A mask takes one bit an element.

        Raises:
            RuntimeError: the model must be prepared first.
        """
        self._check_prepared()
        return masks_state(self._weights, self.step_count)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take masks, dense values and step from a state, and mask the weights that are there.

        Raises:
            RuntimeError: the model must be prepared first.
            PruningError: the state does not fit; nothing is taken.
        """
        self._check_prepared()
        self._load(state_dict)

    def finalize(self) -> nn.Module:
        """Let go of the model: its weights stay masked as they are, nothing else holds them there.

        Raises:
            RuntimeError: the model must be prepared first.
            DivergedWeightError: a weight has NaN.
        """
        self.check_weights()
        self._weights.mask()
        self.release()
        return self.model

    def release(self) -> None:
        """Let go of the model as it is, whatever its weights are; nothing is done where it is not
        prepared."""
        self._take_off()
        self._prepared = False
        self._groups.clear()

    @property
    def names(self) -> list[str]:
        """The names of the weights that have masks, in the model that was prepared."""
        return [tensor.name for tensor in self._weights.tensors]

    @property
    def is_prepared(self) -> bool:
        """Whether the masks of the model are kept here: nobody has taken them away."""
        return self._prepared and all(each.is_beside for each in self._weights.tensors)

    def __getstate__(self) -> dict[str, Any]:
        if self._prepared:
            raise TypeError(
                "a pruner of a prepared model is not copied or pickled: its masks belong to that "
                "model; allowed: prepare(state_dict=pruner.state_dict()) for a copy of the model"
            )
        return self.__dict__

    def _begin_beside(self) -> None:
        self._optimizers = AttachedOptimizers(self._weights, self._before_step)
        self._backward = BackwardEnd(self._after_backward, self._before_accumulation)
        self._seen = SeenGradients(self._weights)
        self._masked_gradients: dict[int, tuple[ref[Tensor], int]] = {}

    def _place(self, targets: Sequence[Target], tensors: Sequence[PrunedTensor]) -> None:
        self._targets = targets
        for target, tensor in zip(targets, tensors, strict=True):
            tensor.impl.in_place = True
            for holder in target.holders:
                put_beside(holder.module, holder.parameter, tensor.impl)
        self._weights = MaskedWeights(tensors, keeps_dense=self.config.allow_regrowth)
        self._begin_beside()

    def _take_off(self) -> None:
        self.detach()
        for target in self._targets:
            for holder in target.holders:
                take_away(holder.module, holder.parameter)
        self._targets = ()

    def _keeps_writes(self) -> bool:
        return True

    def _move(self, moved: Moved) -> None:
        self._weights.mask_written()
        try:
            for group, sparsity, parts in moved:
                group.move_to(sparsity, self._changing, self._weights.all_dense, parts)
        finally:
            self._weights.note_active()
            self._masked_gradients.clear()

    @contextmanager
    def _changing(self, tensors: Sequence[PrunedTensor], dense: Sequence[Tensor]) -> Iterator[None]:
        with self._weights.changing(tensors, dense) as change:
            yield
        # Of what is pruned now, and of what has just come back.
        self._optimizers.change_moments(self._weights.places_of(tensors), change)

    def _begin_at_zeros(self) -> None:
        begin_at_zeros(self._groups)
        self._weights.masks_changed()
        self._weights.mask()
        self._settle()  # what has no schedule stands
        self._apply([0])

    def _load(self, state: Mapping[str, Any], unmasked: Collection[str] = ()) -> None:
        state = under_first_names(state, self._targets)
        check_fits(self._weights, state, unmasked)
        self._clock.step_count = int(state[STEP_COUNT])
        load_masks(self._weights, state)
        for group in self._groups:
            group.set_targets()
        self._optimizers.forget_moments()
        self._weights.mask()

    def _hook_gradients(self) -> None:
        if self._optimizers.attached:
            self._backward.hook_gradients(self._weights.now(), early=self._seen.places)

    def _after_backward(self) -> None:
        self._weights.refresh()
        if self._seen:
            self._seen.put_aside()
        self._weights.mask_gradients(self._weights.active)
        gradients = ((place, each.grad) for place, each in enumerate(self._weights.now()))
        self._masked_gradients = {
            place: (ref(gradient), version_of(gradient))
            for place, gradient in gradients
            if gradient is not None
        }

    def _before_accumulation(self, place: int) -> None:
        """Go on from the whole gradient where one is accumulated; ranks reduce that."""
        gradient = self._weights.now()[place].grad
        self._seen.give_back(place, gradient if self._is_as_masked(place, gradient) else None)

    def _is_as_masked(self, place: int, gradient: Tensor | None) -> bool:
        known = self._masked_gradients.get(place)
        # An object has one such reference; that to one which has gone is another.
        return (
            known is not None
            and gradient is not None
            and known[0] is ref(gradient)
            and known[1] == version_of(gradient)
        )

    def _before_step(self, optimizer: Optimizer, places: Sequence[int]) -> None:
        self._hook_gradients()
        if self._seen:
            self._seen.show(optimizer, self._optimizers.places_of(optimizer))
        self._mask_changed(places)

    def _mask_changed(self, places: Iterable[int]) -> None:
        """Mask the gradients that are not as they were masked at the end of the backward pass."""
        weights = self._weights.now()
        changed = [place for place in places if not self._is_as_masked(place, weights[place].grad)]
        if changed:
            self._weights.mask_gradients(changed)


def _unwrapped(name: str) -> str:
    """Return the name of a parameter without what averages, ranks and compilers put into it."""
    name = name.replace(COMPILED_PREFIX, "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
