"""Warnings and hints of a preview."""

from collections.abc import Sequence

from coreai_opt.report.formatting import n_m_patterns
from coreai_opt.sweep.preview.planned import SEED, PlannedGroup, Preview, label_of
from coreai_opt.sweep.preview.ramps import Ramp

FEWEST_SEEDS = 3
MOST_NAMED = 3


def caution(preview: Preview) -> None:
    """Add the meaning of patterns, warnings and hints to a preview."""
    preview.sentences += _cut(n_m_patterns(run.point.config for run in preview.runs))
    preview.warnings += [*_unknown_lengths(preview), *_never_reached(preview)]
    if preview.is_sweep and (preview.prunes or SEED in preview.knobs):
        preview.warnings += _few_seeds(preview.groups)
    preview.hints += _late(preview)
    if preview.is_sweep and preview.prunes and all(run.ramp != "none" for run in preview.runs):
        preview.hints.append(f"no dense control to compare with: {preview.control} is one")


def _unknown_lengths(preview: Preview) -> list[str]:
    if all(ramp.total is not None for ramp in preview.ramps):
        return []
    what = "whether the ramp ends inside the training cannot be checked"
    return [f"{what}: the length of the training is unknown"]


def _never_reached(preview: Preview) -> list[str]:
    sentences = []
    for ramp in preview.ramps:
        if ramp.is_never_reached and ramp.final is not None:
            name = _name(ramp, preview)
            reached = f"{100 * ramp.final:.1f} % of {100 * ramp.target:g} % when the training ends"
            sentences.append(f"{name}the target sparsity is never reached: {reached}")
    return _cut(sentences)


def _late(preview: Preview) -> list[str]:
    late = [ramp for ramp in preview.ramps if ramp.is_late]
    if not late:
        return []
    names = _cut([name for ramp in late if (name := _name(ramp, preview))])
    where = f" ({', '.join(name.removesuffix(': ') for name in names)})" if names else ""
    return [
        f"the target is reached in the last epoch{where}: at most the last validation counts for "
        "the best checkpoint"
    ]


def _few_seeds(groups: Sequence[PlannedGroup]) -> list[str]:
    few = [group for group in groups if len(set(group.seeds)) < FEWEST_SEEDS]
    if not few:
        return []
    which = "1 setting has" if len(few) == 1 else f"{len(few)} settings have"
    which = "each setting has" if len(few) == len(groups) else which
    chance = "differences may be chance; seed=1,2,3 makes three"
    return [f"{which} fewer than {FEWEST_SEEDS} seeds: {chance}"]


def _name(ramp: Ramp, preview: Preview) -> str:
    return f"{label_of(ramp, preview)}: " if len(preview.ramps) > 1 else ""


def _cut(sentences: list[str]) -> list[str]:
    more = len(sentences) - MOST_NAMED
    return sentences if more <= 1 else [*sentences[:MOST_NAMED], f"and {more} more"]
