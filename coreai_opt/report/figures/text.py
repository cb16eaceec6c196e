"""Text of the static figures: what Matplotlib would read as something else is escaped."""

from coreai_opt.report.text import safe_text

LONGEST = 60  # characters of a label: more would leave no room for the axes


def plain(text: str) -> str:
    """Return a text that Matplotlib draws as it is, of at most ``LONGEST`` characters."""
    text = safe_text(text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    # Matplotlib reads text between two dollars as mathematics, and drops labels that begin with an
    # underscore from legends.
    text = text.replace("\\", "\\\\").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
