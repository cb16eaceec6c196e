"""Wording that the terminal and the page share."""

from coreai_opt.report.records import STATES, Collected, RunRow


def safe_text(text: str) -> str:
    r"""Return a text in which nothing steers a terminal or cannot be encoded.

    Example:
        >>> safe_text("a\x1b[31mb\udcff"), safe_text("ü <b>")
        ('a\\x1b[31mb\\udcff', 'ü <b>')
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def first_line(text: str) -> str:
    """Return the first line that is not empty, ready to be shown."""
    lines = (line.strip() for line in text.splitlines())
    return safe_text(next((line for line in lines if line), ""))


def plural(count: int, noun: str) -> str:
    """Return a number and a noun.

    Example:
        >>> plural(1, "run"), plural(1200, "run")
        ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def times(factor: float | None) -> str:
    """Return a ratio, empty for none.

    Example:
        >>> times(9.32), times(120.4), times(None)
        ('9.32x', '120x', '')
    """
    if factor is None:
        return ""
    return f"{factor:.0f}x" if factor >= 100 else f"{factor:.3g}x"


def error_line(row: RunRow) -> str:
    """Return what a run has failed of, in one line."""
    kind, message, _ = row.error
    return f"{safe_text(kind)}: {first_line(message)}".strip(": ")


def run_name(row: RunRow, collected: Collected) -> str:
    """Return the run directory as it is called within its sweep."""
    for root in (sweep.root for sweep in collected.sweeps):
        if row.folder.is_relative_to(root):
            name = row.folder.relative_to(root)
            return safe_text(str(name) if name.parts else row.folder.name)
    return safe_text(str(row.folder))


def counts_sentence(collected: Collected) -> str:
    """Return how many runs are in which state, those that are at work or waiting included."""
    parts = [f"{collected.count(state):,} {state}" for state in STATES if collected.count(state)]
    if collected.pending:
        parts.append(f"{len(collected.pending):,} pending")
    if collected.unreadable:
        parts.append(f"{plural(len(collected.unreadable), 'file')} unreadable")
    sentence = f"{plural(len(collected.rows), 'run')}: {', '.join(parts) or 'none readable'}"
    if collected.duplicates:
        repeats = plural(collected.duplicates, "repeat")
        sentence += f"; {repeats} of the same experiment left out"
    return sentence


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
