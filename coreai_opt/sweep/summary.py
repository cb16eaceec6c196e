"""What is said at the end of a sweep: how many, the best, and how to run again what failed."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from coreai_opt.runs.outcome import shortfall
from coreai_opt.sweep.launchers.slurm_queue import slurm_queue
from coreai_opt.sweep.plan import Plan
from coreai_opt.sweep.scheduler import WAITED_FOR, Outcome
from coreai_opt.sweep.selection import Selection

LONGEST_CAUSE = 200  # characters


def print_summary(plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Print the table of failures, if there are any, and the commands that run each alone."""
    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    bad = [outcome for outcome in outcomes if outcome.end != "completed"]
    console.print(counts(plan, outcomes))
    for line in [*below_target(outcomes), *warnings_of(outcomes)]:
        console.print(line)
    if not bad:
        return
    table = Table(title="not completed", title_justify="left")
    for column in ("run", "how it ended", "cause"):
        table.add_column(column, overflow="fold")
    for outcome in bad:
        cause = (outcome.cause or "")[:LONGEST_CAUSE]
        table.add_row(outcome.entry.name, outcome.end, cause)
    wide = None if sys.stdout.isatty() else 160
    Console(markup=False, emoji=False, highlight=False, width=wide).print(table)
    again = "" if plan.settings.retry == "none" else "the same command runs them again; "
    console.print(f"{again}to run one alone:")
    for line in failure_lines(plan, bad):
        console.print(line)


def print_queue(selection: Selection) -> None:
    """Say which jobs stay in a cluster's queue when a sweep is ended, and what becomes of them."""
    entries = [*selection.warmups, *selection.to_run]
    submitted = [entry for entry in entries if entry.state() in WAITED_FOR]
    jobs = [entry.job() for entry in submitted]
    if not (ids := [job.id for job in jobs if job is not None and slurm_queue().is_active(job)]):
        return
    console = Console(markup=False, emoji=False, soft_wrap=True, highlight=False)
    stay = "1 job stays" if len(ids) == 1 else f"{len(ids)} jobs stay"
    console.print(f"{stay} in SLURM's queue, and the same command takes up what they do; to end:")
    console.print(f"  scancel {' '.join(ids)}")
    if waiting := sum(warmup in submitted for warmup in selection.warmup_of.values()):
        wait = "1 run waits" if waiting == 1 else f"{waiting} runs wait"
        console.print(
            f"{wait} for the dense warm-up, not submitted yet: run the same command again"
        )


def counts(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """Return how many runs ended how."""
    told = [f"{len(plan.points)} runs" if len(plan.points) != 1 else "1 run"]
    for end in ("completed", "failed", "interrupted", "stopped"):
        number = sum(outcome.end == end for outcome in outcomes)
        if number:
            told.append(f"{number} {'not begun' if end == 'stopped' else end}")
    if (rest := len(plan.points) - len(outcomes)) > 0:
        told.append(f"{rest} not run")
    return f"sweep {plan.name}: {', '.join(told)}"


def below_target(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each completed run whose sparsity is below its target, and a heading."""
    lines = []
    for outcome in outcomes:
        run = outcome.entry.earlier() if outcome.end == "completed" else None
        sparsity = None if run is None else run.record.get("sparsity")
        if sparsity and (clause := shortfall(sparsity)):
            lines.append(f"  {outcome.entry.name}: {clause}")
    runs = "1 run is" if len(lines) == 1 else f"{len(lines)} runs are"
    return [f"{runs} below the target sparsity:", *lines] if lines else []


def warnings_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each completed run that is not what was asked, and a heading."""
    runs = [(one.entry.name, one.entry.earlier()) for one in outcomes if one.end == "completed"]
    told = [(name, run.record.get("warning")) for name, run in runs if run is not None]
    lines = [f"  {name}: {warning}" for name, warning in told if warning]
    runs_are = "1 run is" if len(lines) == 1 else f"{len(lines)} runs are"
    return [f"{runs_are} not what was asked:", *lines] if lines else []


def failure_lines(plan: Plan, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the command that runs each of these points alone, in the sweep's directory."""
    return [f"  {plan.app.alone(plan, outcome.entry.point)}" for outcome in outcomes]
