"""What a report is made of: sections of sentences, figures and tables, ready for the template."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isnan
from numbers import Integral, Real
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from deepprofile.evaluation.figures.style import LABELS, WIDTH, images, label
from deepprofile.evaluation.report.findings import RESULT, columns_of, group_lines

MAX_ROWS = 200
"""Longer lists are cut in the report, which says how many rows are left out."""
LONG_TEXT = 32
"""Texts of more characters may be broken into lines."""
MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the text shown, the value it is sorted by, and how it stands out.

    Attributes:
        text: what is shown.
        sort: what the column is sorted by.
        best: whether the value is the best of its kind.
        starts: whether a group of rows starts here.
    """

    text: str
    sort: float | str
    best: bool = False
    starts: bool = False

    @property
    def long(self) -> bool:
        """Whether the text may be broken into lines."""
        return len(self.text) > LONG_TEXT

    @property
    def number(self) -> bool:
        """Whether the value is a number, which stands at the right of its column."""
        return not isinstance(self.sort, str)


@dataclass(frozen=True)
class Table:
    """A table with a caption; its rows can be sorted in the browser."""

    caption: str
    heads: list[str]
    rows: list[list[Cell]]
    left_out: int = 0

    @property
    def numbers(self) -> list[bool]:
        """Whether each column holds numbers."""
        if not self.rows:
            return [False] * len(self.heads)
        return [all(row[i].number for row in self.rows) for i in range(len(self.heads))]


@dataclass(frozen=True)
class Picture:
    """A rendered figure with its caption.

    Attributes:
        name: file name without its ending.
        caption: what is seen and how it was computed.
        kind: form that is embedded.
        files: bytes of each form, by file name.
        width: inches on paper.
    """

    name: str
    caption: str
    kind: Literal["png", "svg"]
    files: dict[str, bytes]
    width: float = WIDTH

    @property
    def alternative(self) -> str:
        """Text in place of the image: the first sentence of the caption."""
        return self.caption.split(". ")[0]

    @property
    def uri(self) -> str:
        """The embedded form as a data URI."""
        data = b64encode(self.files[f"{self.name}.{self.kind}"]).decode()
        return f"data:{MEDIA_TYPES[self.kind]};base64,{data}"


@dataclass(frozen=True)
class Widget:
    """The interactive map of cells: its caption, and its data as JSON that is safe in a page."""

    caption: str
    data: str


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: anchor.
        title: heading.
        notes: paragraphs.
        points: list of short statements.
        pictures: figures.
        tables: tables.
        text: preformatted text, such as the recipe.
        missing: what is not available and why.
        widget: the interactive map of cells.
    """

    name: str
    title: str
    notes: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    text: str = ""
    missing: list[str] = field(default_factory=list)
    widget: Widget | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing below the heading."""
        return not any(
            getattr(self, part.name) for part in fields(self) if part.name not in ("name", "title")
        )


def picture(name: str, caption: str, figure: Figure, kind: Literal["png", "svg"]) -> Picture:
    """Render a figure as PNG, SVG and PDF; one of the first two is embedded in the page."""
    files = {f"{name}.{form}": data for form, data in images(figure).items()}
    return Picture(name, caption, kind, files, figure.get_figwidth())


def results_table(
    summary: pd.DataFrame,
    groups: Sequence[str],
    caption: str,
    names: Sequence[str] = tuple(RESULT),
) -> Table:
    """Groups and estimates with their medians, the best value of each group and column marked."""
    columns = columns_of(summary, names)
    rows: list[list[Cell]] = []
    for position, group in enumerate(groups):
        for i, (estimate, values) in enumerate(group_lines(summary, group, columns)):
            depth = Cell(group, f"{position:03d}", starts=i == 0)
            cells = [Cell(v.text, _sortable(v.value), v.best) for v in values]
            rows.append([depth, Cell(label(estimate), label(estimate)), *cells])
    return Table(caption, ["Depth", "Estimate", *(column.title for column in columns)], rows)


def plain_table(
    frame: pd.DataFrame,
    caption: str,
    heads: Mapping[str, str] | None = None,
    digits: int | Mapping[str, int] | None = None,
) -> Table:
    """Any table as it is, at most 200 rows of it.

    Args:
        frame: the table.
        caption: what it shows.
        heads: headings of columns; of others the name itself.
        digits: digits after the point, of all columns or by column; four significant ones where
            none are given.
    """
    after = digits if isinstance(digits, Mapping) else dict.fromkeys(map(str, frame), digits)
    names = heads or {}
    titles = [names.get(str(c), str(c).replace("_", " ").capitalize()) for c in frame.columns]
    shown = frame.head(MAX_ROWS)
    rows = [
        [
            Cell(_text(value, after.get(str(name))), _sortable(value))
            for name, value in zip(frame.columns, row, strict=True)
        ]
        for row in shown.itertuples(index=False, name=None)
    ]
    return Table(caption, titles, rows, len(frame) - len(shown))


def _text(value: object, digits: int | None) -> str:
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = float(value)
        shown = f"{number:.4g}" if digits is None else f"{number:.{digits}f}"
        return "–" if isnan(number) else shown
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    return LABELS.get(value, value) if isinstance(value, str) else str(value)


def _sortable(value: object) -> float | str:
    """Numbers as they are, missing ones first, everything else as text."""
    if isinstance(value, Real):
        return -1e300 if isnan(value) else float(value)
    return str(value)
