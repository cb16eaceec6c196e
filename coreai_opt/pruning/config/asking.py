"""Calls of schedules: the arguments that a ``compute_sparsity`` takes, looked up once.

Version 0.3 of the API hands over the sparsity in force, 0.4 does not. A schedule of a user's own is
written for either.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

STEP, TARGET, PREVIOUS = "step_count", "target_sparsity", "prev_sparsity"
# A third parameter that has a default is the sparsity in force by such a name, or if that is None.
OTHER_NAMES = re.compile(r"prev.*|(last|old|current)(_sparsity)?")
BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
ANY_KIND = (Parameter.POSITIONAL_ONLY, *BY_NAME)


@dataclass(frozen=True)
class Asking:
    """How the ``compute_sparsity`` of one schedule is called.

    Attributes:
        named: whether step and target are handed over by name; otherwise by position.
        takes_previous: whether the sparsity in force is handed over.
        previous: the name by which it is, None = by position.
        needs_previous: whether there is no asking without it.
    """

    named: bool = False
    takes_previous: bool = True
    previous: str | None = None
    needs_previous: bool = False

    def arguments(
        self, step_count: int, target_sparsity: float, prev_sparsity: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments by position, and those by name."""
        by_name: dict[str, Any] = {}
        by_position: tuple[Any, ...] = (step_count, target_sparsity)
        if self.named:
            by_position, by_name = (), {STEP: step_count, TARGET: target_sparsity}
        if self.takes_previous and self.previous is not None:
            by_name[self.previous] = prev_sparsity
        elif self.takes_previous:
            by_position = (*by_position, prev_sparsity)
        return by_position, by_name

    def ask(
        self, schedule: Any, step_count: int, target_sparsity: float, prev_sparsity: float
    ) -> float:
        """Return the sparsity that a schedule asks for, in [0, 1]."""
        by_position, by_name = self.arguments(step_count, target_sparsity, prev_sparsity)
        sparsity: float = schedule.compute_sparsity(*by_position, **by_name)
        return sparsity

    def ask_alone(self, schedule: Any, step_count: int, target_sparsity: float) -> float:
        """Return the same without the sparsity in force.

        A schedule that needs it is asked as ``ask_along`` does.
        """
        if self.needs_previous:
            return self.ask_along(schedule, step_count, target_sparsity)
        alone = Asking(self.named, takes_previous=False)
        return alone.ask(schedule, step_count, target_sparsity, 0.0)

    def ask_along(self, schedule: Any, step_count: int, target_sparsity: float) -> float:
        """Return what it asks for when it is asked for every step from 0 on, with 0 in force."""
        sparsity = 0.0
        for step in range(step_count + 1):
            sparsity = self.ask(schedule, step, target_sparsity, sparsity)
        return sparsity


def asking_of(schedule: Any) -> Asking:
    """Return how a schedule is asked, by what its ``compute_sparsity`` takes.

    That is the step and the target, and the sparsity in force where there is a third parameter for
    it. It may be a method of any kind, a partial or any other callable.

    Raises:
        ValueError: it takes neither of the two.

    Example:
        >>> from coreai_opt.pruning.config import ConstantSparsitySchedule
        >>> asking_of(ConstantSparsitySchedule()).previous
        'prev_sparsity'
        >>> class Half:
        ...     def compute_sparsity(self, step_count, target_sparsity):
        ...         return target_sparsity / 2
        >>> asking_of(Half()).takes_previous
        False
    """
    try:
        signature = inspect.signature(schedule.compute_sparsity)
    except (TypeError, ValueError):
        return Asking()  # made in C: it says nothing, and is asked as 0.3 does
    for asking in _ways(signature):
        by_position, by_name = asking.arguments(0, 0.0, 0.0)
        if _binds(signature, by_position, by_name):
            alone = Asking(asking.named, takes_previous=False).arguments(0, 0.0, 0.0)
            needed = not _binds(signature, *alone)
            return Asking(asking.named, asking.takes_previous, asking.previous, needed)
    raise ValueError(
        f"compute_sparsity{signature} of {type(schedule).__name__} cannot be asked; allowed: "
        f"compute_sparsity({STEP}, {TARGET}), with {PREVIOUS} as a third parameter or without it"
    )


def _ways(signature: Signature) -> Iterator[Asking]:
    """Yield the ways in which a schedule may be asked, those that tell it most first."""
    parameters = signature.parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    named = all(name in parameters and parameters[name].kind in BY_NAME for name in (STEP, TARGET))
    if PREVIOUS in parameters and parameters[PREVIOUS].kind in BY_NAME:
        yield Asking(named, previous=PREVIOUS)
    elif third := _third(signature, named):
        by_name = third.kind is Parameter.KEYWORD_ONLY or (named and third.kind in BY_NAME)
        yield Asking(named, previous=third.name if by_name else None)
        yield Asking()
    elif Parameter.VAR_POSITIONAL in kinds:
        yield Asking()
    elif Parameter.VAR_KEYWORD in kinds:
        yield Asking(named, previous=PREVIOUS)
        yield Asking(named=True, previous=PREVIOUS)
    yield Asking(named, takes_previous=False)
    yield Asking(takes_previous=False)


def _third(signature: Signature, named: bool) -> Parameter | None:
    """Return the parameter for the sparsity in force, where it has a name of its own."""
    others = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in ANY_KIND and not (named and parameter.name in (STEP, TARGET))
    ]
    third = next(iter(others[0 if named else 2 :]), None)
    if third is None:
        return None
    is_it = third.default in (Parameter.empty, None) or OTHER_NAMES.fullmatch(third.name)
    return third if is_it else None


def _binds(signature: Signature, by_position: tuple[Any, ...], by_name: dict[str, Any]) -> bool:
    try:
        signature.bind(*by_position, **by_name)
    except TypeError:
        return False
    return True
