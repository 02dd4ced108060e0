"""What a run, a comparison, a gate or a load says, before it has a form: sections of text, lists and tables.

Each maker gives sections; each back end writes any of them: `plain` for a terminal, `markdown` for GitHub, `notebook`
for Jupyter, and the page of a report. A maker formats figures and must never escape; a back end escapes, and must never
compute.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Mark = Literal["good", "bad", "unclear", ""]
# In place of a figure.
UNKNOWN = "-"


class Value(NamedTuple):
    """What is read in a cell of a table, and what it sorts by: a number, or else the text itself."""

    text: str
    sort: float | None = None


class Heading(NamedTuple):
    """A column: its title, what it means, whether it holds figures, and the names of these in documents."""

    title: str
    meaning: str = ""
    is_figure: bool = True
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table. `name` is its id; `marked` are the numbers of rows to stand out.

    `is_grouped`: rows whose first value is the same are a group; where there is little room it stands above them.
    `marks`: of each row, whether it is good news. `notes` stand below it.
    """

    name: str
    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Value, ...], ...]
    marked: frozenset[int] = frozenset()
    is_grouped: bool = False
    marks: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()

    def keeping(self, places: Iterable[int], *notes: str) -> "Table":
        """The table with the columns of these places only, and with more notes."""
        kept = list(places)
        return replace(
            self, headings=tuple(self.headings[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows), notes=(*self.notes, *notes),
        )  # fmt: skip

    def without(self, *titles: str) -> "Table":
        """The table without the columns of these titles."""
        return self.keeping(place for place, heading in enumerate(self.headings) if heading.title not in titles)

    def known(self) -> "Table":
        """The table without the figures that are not known in any row: a note names them once."""
        unknown = {
            place: heading.title
            for place, heading in enumerate(self.headings)
            if heading.is_figure and self.rows and all(row[place].text in (UNKNOWN, "") for row in self.rows)
        }
        if not unknown:
            return self
        kept = [place for place in range(len(self.headings)) if place not in unknown]
        return self.keeping(kept, f"Not known of any server: {', '.join(unknown.values())}.")


@dataclass(frozen=True)
class Paragraph:
    """Lines of text. `is_answer`: the sentence that everything else explains. `is_prose`: no command is in it."""

    lines: tuple[str, ...]
    is_answer: bool = False
    is_prose: bool = False


@dataclass(frozen=True)
class Listing:
    """A list under a title; beyond `most` lines their number is said instead. No lines: no list."""

    title: str
    lines: tuple[str, ...]
    most: int = 20

    @property
    def shown(self) -> list[str]:
        """The lines, and how many more there are."""
        return shortened(self.lines, self.most)


@dataclass(frozen=True)
class Checks:
    """What was asked, each with its mark, and the reasons where it does not hold."""

    entries: tuple[tuple[Mark, str, tuple[str, ...]], ...]


Section = Paragraph | Listing | Table | Checks


def shortened(lines: Sequence[str], most: int) -> list[str]:
    """At most so many lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"and {more} more"] if more > 0 else [])]


def unmarked(rows: int) -> tuple[Mark, ...]:
    """Marks of a table none of whose rows is good or bad news."""
    none: Mark = ""
    return (none,) * rows
