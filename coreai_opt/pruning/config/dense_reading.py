"""Last dense reading: until when a schedule prunes nothing, as far as it tells."""

from coreai_opt.pruning.config.asking import asking_of
from coreai_opt.pruning.config.schedules import SparsitySchedule


def last_dense_reading(schedule: SparsitySchedule | None) -> int:
    """Return the last reading of the clock at which a schedule prunes nothing yet; -1 = none.

    Known for schedules with ``begin_step`` or ``milestones``; 0 or -1 for any other.

    Example:
        >>> from coreai_opt.pruning.config import PolynomialDecaySchedule as Poly
        >>> last_dense_reading(Poly(total_iters=9, begin_step=5))
        5
        >>> last_dense_reading(Poly(total_iters=9, begin_step=5, initial_sparsity=0.1))
        -1
    """
    if schedule is None:
        return -1

    asking = asking_of(schedule)

    def prunes(reading: int) -> bool:
        return reading >= 0 and asking.ask(schedule, reading, 1.0, 0.0) > 0

    milestones = getattr(schedule, "milestones", None) or [0]
    begin = getattr(schedule, "begin_step", milestones[0])
    if not isinstance(begin, int):
        return -1  # a schedule of somebody's own, that means something else by it
    if (prunes(0) and begin > 0) or prunes(begin - 1):
        return -1
    return begin - 1 if prunes(begin) else begin
