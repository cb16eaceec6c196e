"""Chart of the page without its picture: what every chart has."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Choice:
    """A select box of a chart.

    Attributes:
        id: of the element, within that of its chart.
        label: of the choice.
        options: value and text of each, as shown.
        chosen: the value at first.
    """

    id: str
    label: str
    options: list[tuple[str, str]]
    chosen: str


@dataclass(frozen=True)
class Chart:
    """A chart without its picture.

    Attributes:
        id: of its elements; the script draws by it.
        title: its heading.
        caption: a sentence with the main numbers, or with the missing data.
        columns: headers of its table, and whether numbers stand below each.
        rows: its table.
        choices: its select boxes.
        is_drawn: whether there is anything to draw.
    """

    id: str
    title: str
    caption: str
    columns: list[tuple[str, bool]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    is_drawn: bool = True
