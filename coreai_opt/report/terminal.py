"""Terminal report: leaderboard, warnings, failures, and the runs still to come."""

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coreai_opt.report.commands import rerun_command
from coreai_opt.report.comparing.comparison import TOO_FEW, Comparison, comparison_sentences
from coreai_opt.report.comparing.table import COLUMNS, pair_rows
from coreai_opt.report.formatting import n_m_patterns
from coreai_opt.report.page.knobs import importance_sentence
from coreai_opt.report.page.made import Report
from coreai_opt.report.records import Collected, RunRow
from coreai_opt.report.tables import Leaderboard, LeaderboardRow, SeedGroup
from coreai_opt.report.text import counts_sentence, error_line, run_name, safe_text, times

FAILURES_SHOWN = 20
PAIRS_SHOWN = 10
SIZES = ("achieved", "sparsity of all weights", "compression", "speed-up")


def print_report(console: Console, made: Report) -> None:
    """Print all that the report has to say but for the pictures."""
    collected, board, pairs, mattered = made.collected, made.board, made.pairs, made.mattered
    if board.entries:
        console.print(leaderboard(board))
        for sentence in board_patterns(board):
            console.print(Text(sentence))
    else:
        console.print(Text("no run has completed yet: there is no leaderboard"))
    if board.unmeasured:
        console.print(Text(f"{board.unmeasured:,} completed without {safe_text(board.metric)}"))
    if board.is_mode_assumed and board.entries:
        console.print(Text(assumed_sentence(board)))
    if pairs is not None and pairs.pairs:
        _print_comparison(console, pairs, board)
    if mattered is not None and board.varying():
        console.print(Text(importance_sentence(mattered)))
    for sentence in made.warnings:
        console.print(Text(f"warning: {sentence}", style="yellow"))
    _print_failures(console, collected)
    for one in collected.unreadable:
        console.print(Text(f"unreadable: {safe_text(str(one.path))} {safe_text(one.reason)}"))
    console.print(Text(counts_sentence(collected)))


def leaderboard(board: Leaderboard) -> Group:
    """Return the table of groups, dense controls first, then the best first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_text in leaderboard_columns(board):
        # As markup: a header takes no Text without losing its style.
        header = escape(safe_text(name))
        table.add_column(header, justify="left" if is_text else "right", overflow="fold")
    for entry in board.entries:
        cells = entry_cells(board, entry)
        table.add_row(*map(Text, cells), style="bold" if entry.rank is None else None)
    best = "largest" if board.mode == "max" else "smallest"
    title = f"{safe_text(board.metric)}, mean and std over seeds, {best} first"
    return Group(Text(title, style="italic"), table)


def leaderboard_columns(board: Leaderboard) -> list[tuple[str, bool]]:
    """Return the headers, and whether each column is text rather than numbers."""
    sweeps = [("sweep", True)] if any(group.sweep for group in board.groups) else []
    numbers = ("seeds", board.metric, "std", *(("vs dense", *SIZES) if board.prunes else ()))
    knobs = [(knob, True) for knob in board.knobs]
    return [("rank", True), *sweeps, *knobs, *((name, False) for name in numbers)]


def assumed_sentence(board: Leaderboard) -> str:
    """Return that the way that is better was taken for granted."""
    return f"more {safe_text(board.metric)} is taken to be better; --mode min says otherwise"


def board_patterns(board: Leaderboard) -> list[str]:
    """Return a sentence for each n:m pattern of the leaderboard."""
    return n_m_patterns(row.config for group in board.groups for row in group.rows[:1])


def entry_cells(board: Leaderboard, entry: LeaderboardRow) -> list[str]:
    """Return a row of the leaderboard as text."""
    group = entry.group
    sweeps = [safe_text(group.sweep)] if any(one.sweep for one in board.groups) else []
    return [
        "dense control" if entry.rank is None else str(entry.rank),
        *sweeps,
        *(safe_text(group.knobs[knob] or "") for knob in board.knobs),
        str(group.seeds),
        board.show(group.mean),
        board.show_spread(group.std),
        *([board.show_spread(entry.delta, sign=True), *size_cells(group)] if board.prunes else []),
    ]


def size_cells(one: SeedGroup | RunRow) -> list[str]:
    """Return what pruning has come to, as text: the columns ``SIZES``."""
    shares = (one.achieved, one.sparsity)
    shown = ("" if share is None else f"{100 * share:.2f} %" for share in shares)
    return [*shown, times(one.compression), times(one.speedup)]


def _print_comparison(console: Console, pairs: Comparison, board: Leaderboard) -> None:
    for sentence in comparison_sentences(pairs):
        console.print(Text(sentence))
    tested = [cells for cells in pair_rows(pairs, board) if cells[-1][0] != TOO_FEW]
    if not tested:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_text in COLUMNS:
        table.add_column(escape(name), justify="left" if is_text else "right", overflow="fold")
    for cells in tested[:PAIRS_SHOWN]:
        table.add_row(*(Text(text) for text, _ in cells))
    console.print(table)
    if len(tested) > PAIRS_SHOWN:
        console.print(Text(f"and {len(tested) - PAIRS_SHOWN:,} more pairs in report.html"))


def _print_failures(console: Console, collected: Collected) -> None:
    failed = [row for row in collected.rows if row.state == "failed"]
    for row in failed[:FAILURES_SHOWN]:
        name = run_name(row, collected)
        console.print(Text(f"failed: {name}: {error_line(row)}", style="red"))
        console.print(Text(f"  {safe_text(rerun_command(row.record, row.folder))}"))
    if len(failed) > FAILURES_SHOWN:
        console.print(Text(f"and {len(failed) - FAILURES_SHOWN:,} more have failed"))
