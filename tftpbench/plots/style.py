"""How plots look: colours, text, axes in inches, the key at the right of an axes.

Readable at the width of a README (7.2 inches, nothing under 9 points) on light and on dark pages: the picture is a
white card. A label must never stand where data is drawn: what is named is named in the key, or in the subtitle.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tftpbench.model.metrics import NEVER

WIDTH = 7.2
TEXT = 9.0  # points
LINE = 0.165  # inches from one line of text to the next
GREY = "#666666"

# Okabe and Ito 2008, distinct for colour-blind readers; without yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Eight markers beside seven colours: 56 contenders before two look alike. The cross is for invalid trials.
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">")
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")

NAME_MAX = 30
# A key of more lines, or wider (inches), leaves panels side by side no room to see something.
_BESIDE_LINES, _BESIDE_WIDTH = 6, 1.6
# Ticks in a decade, densest first.
_SUBS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3))
_PERCENTILES = {1.0: "0", 2.0: "50", 10.0: "90", 1e2: "99", 1e3: "99.9", 1e4: "99.99", 1e5: "99.999", 1e6: "99.9999"}
_RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelsize": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.unicode_minus": False,
    "figure.facecolor": "white",
    "font.size": TEXT,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: searchable, small
    "svg.hashsalt": "tftpbench",  # else ids are random
    "xtick.color": GREY,
    "xtick.labelcolor": "black",
    "xtick.labelsize": TEXT,
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
    "ytick.labelsize": TEXT,
}


@dataclass(frozen=True)
class Look:
    """What tells a contender from the others, in every plot of a run."""

    colour: str
    marker: str
    dash: Literal["-", "--", ":", "-."]

    @property
    def line(self) -> dict[str, Any]:
        """As matplotlib takes it."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash, "markersize": 4.5}


@dataclass(frozen=True)
class Entry:
    """A line of the key: whose it is, and where its line ends (data coordinates), if the key points there."""

    name: str
    look: Look
    end: tuple[float, float] | None = None
    remark: str = ""

    @property
    def text(self) -> str:
        """As it is written."""
        return name_of(self.name) + self.remark


@contextmanager
def applied() -> Iterator[None]:
    """Our settings, whatever the user's matplotlibrc says; needed while drawing and while rendering."""
    with matplotlib.style.context(["default", _RC]), warnings.catch_warnings():
        # A name in a script that the font lacks is shown as boxes, which is for the eye to see, not for a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def looks(contenders: Sequence[str]) -> dict[str, Look]:
    """By place, so that a contender that is missing in one plot does not recolour the others."""
    return {
        name: Look(
            COLOURS[place % len(COLOURS)],
            MARKERS[place % len(MARKERS)],
            DASHES[place // len(COLOURS) % len(DASHES)],
        )
        for place, name in enumerate(contenders)
    }


def printable(text: object) -> str:
    """Without control characters, which no picture and no page can hold."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def plain(text: object) -> str:
    """Text that matplotlib shows as it is: what stands between $ signs is no mathematics."""
    return printable(text).replace("$", r"\$")


def shortened(text: object, longest: int = NAME_MAX) -> str:
    """Without its middle where it is too long: the end of a name tells variants apart."""
    whole, tail = str(text), longest // 3
    return whole if len(whole) <= longest else f"{whole[: longest - tail - 1]}…{whole[-tail:]}"


def name_of(contender: str) -> str:
    """A contender's name for the picture."""
    return plain(shortened(contender))


def text_width(text: str, size: float = TEXT, *, is_bold: bool = False) -> float:
    """In inches."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if is_bold else "normal")
    width = TextToPath().get_text_width_height_descent(text.replace(r"\$", "$"), font, ismath=False)[0]
    return float(width) / 72 * 1.04  # hinting makes some letters wider on the screen


def fitting(text: str, width: float) -> str:
    """The text, shortened until it is no wider than `width` inches in bold."""
    longest = len(text)
    while longest > 3 and text_width(plain(shortened(text, longest)), is_bold=True) > width:
        longest -= 1
    return plain(shortened(text, longest))


def wrapped(text: str, width: float, size: float = TEXT, *, is_bold: bool = False) -> list[str]:
    """Lines no wider than `width` inches, broken at spaces."""
    lines: list[str] = []
    for word in (shortened(word, 40) for word in text.split(" ")):
        if lines and text_width(f"{lines[-1]} {word}", size, is_bold=is_bold) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True)
class Grid:
    """A figure and its axes, row by row, with room at the right of each for a key."""

    figure: Figure
    axes: tuple[Axes, ...]
    columns: int
    shares_x: bool = True

    def label(self, x: str, y: str) -> None:
        """Say what the axes are, once per row and column; no label is longer than its axis."""
        for place, axes in enumerate(self.axes):
            is_first, is_last = place % self.columns == 0, place + self.columns >= len(self.axes)
            axes.set_ylabel("\n".join(wrapped(y, _size(axes)[1])) if is_first else "")
            axes.set_xlabel(x if is_last else "")
            axes.tick_params(labelleft=is_first, left=is_first)
            if self.shares_x:
                axes.tick_params(labelbottom=is_last)


def drawn(
    title: str,
    notes: Iterable[str],
    data: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], object],
    key: Callable[[pd.DataFrame], list[Entry]],
    scale: Callable[[Grid], object],
    labels: tuple[str, str],
    *,
    under: int = 1,
    share_x: bool = True,
    share_y: bool = True,
) -> Figure:
    """Axes for each value of the column `panel`: `draw` puts its rows there, `scale` sets limits and ticks, then keys.

    Up to `under` panels stand under each other, more side by side where a key beside each leaves room to see something.
    """
    panels = list(data.groupby("panel", sort=False))
    keys = [key(rows) for _, rows in panels]
    with applied():
        lines = max(map(len, keys))
        right = max((text_width(entry.text) + 0.55 for entries in keys for entry in entries), default=0.15)
        height = max(2.3 if len(panels) <= 2 else 1.7, lines * LINE + 0.1)  # lower where there are many
        columns = 2 if len(panels) > under and lines <= _BESIDE_LINES and right <= _BESIDE_WIDTH else 1
        left = 0.62 + LINE * len(wrapped(labels[1], height))
        sheet = grid(
            title, "; ".join(filter(None, notes)), [str(name) for name, _ in panels],
            columns=columns, height=height, left=left, right=right, share_x=share_x, share_y=share_y,
        )  # fmt: skip
        for (_, rows), axes in zip(panels, sheet.axes, strict=True):
            draw(axes, rows)
        scale(sheet)
        sheet.label(*labels)
        for entries, axes in zip(keys, sheet.axes, strict=True):
            draw_key(axes, entries)
    return sheet.figure


def curves(x: str, y: str, styles: Mapping[str, Look], marked: Literal["all", "last", "middle"]) -> Callable[..., None]:
    """What draws a line per contender through columns `x` and `y`."""

    def draw(axes: Axes, rows: pd.DataFrame) -> None:
        for name, ours in rows.groupby("contender", sort=False):
            places = {"all": None, "last": [len(ours) - 1], "middle": [len(ours) // 2]}[marked]
            axes.plot(ours[x], ours[y], **styles[str(name)].line, linewidth=1.5, markevery=places)

    return draw


def ends(x: str, y: str, styles: Mapping[str, Look]) -> Callable[[pd.DataFrame], list[Entry]]:
    """What gives the key of such lines: each name where its line ends."""
    return lambda rows: [
        Entry(str(name), styles[str(name)], (float(ours[x].iloc[-1]), float(ours[y].iloc[-1])))
        for name, ours in rows.groupby("contender", sort=False)
    ]


def in_order(axes: Axes, x: "pd.Series[float]", y: "pd.Series[float]", filled: "pd.Series[bool]", look: Look) -> None:
    """Ratios in the order done, filled or hollow, a dotted line through them."""
    axes.plot(x, y, color=look.colour, linestyle=":", linewidth=0.8, zorder=2)
    for mask, fill in ((filled, look.colour), (~filled, "white")):
        axes.plot(x[mask], y[mask], look.marker, color=look.colour, mfc=fill, markersize=4.5, zorder=4)


def grid(
    title: str,
    subtitle: str,
    titles: Sequence[str],
    *,
    columns: int,
    height: float,
    left: float = 0.78,
    gap: float = 0.2,
    right: float = 0.15,
    foot: float = 0.58,
    share_x: bool = True,
    share_y: bool = True,
) -> Grid:
    """As many axes as titles, each `height` inches high; `right` inches at the right of each are left free."""
    rows = -(-len(titles) // columns)
    under = wrapped(plain(subtitle), WIDTH - 0.3)
    over = wrapped(plain(title), WIDTH - 0.3, TEXT + 2, is_bold=True)
    head = 0.12 + (LINE + 0.04) * len(over) + LINE * len(under) + 0.1
    band = 0.14 + LINE * max(len(name.split("\n")) for name in titles) if any(titles) else 0.08
    between = 0.12 if share_x else 0.34
    total = head + rows * (height + band) + (rows - 1) * between + foot
    width = (WIDTH - left - columns * right - (columns - 1) * gap) / columns
    figure = Figure(figsize=(WIDTH, total))
    y = total - 0.12
    figure.text(0.12 / WIDTH, y / total, "\n".join(over), size=TEXT + 2, weight="bold", va="top", linespacing=1.25)
    y -= (LINE + 0.04) * len(over) + 0.03
    figure.text(0.12 / WIDTH, y / total, "\n".join(under), color=GREY, va="top", linespacing=1.25)
    found: list[Axes] = []
    for place, name in enumerate(titles):
        row, column = divmod(place, columns)
        x = left + column * (width + right + gap)
        y = total - head - (row + 1) * (height + band) - row * between
        axes = figure.add_axes(
            (x / WIDTH, y / total, width / WIDTH, height / total),
            sharex=found[0] if found and share_x else None,
            sharey=found[0] if found and share_y else None,
        )
        if name:
            axes.set_title("\n".join(fitting(line, width + right) for line in name.split("\n")))
        found.append(axes)
    return Grid(figure, tuple(found), columns, share_x)


def draw_key(axes: Axes, entries: Sequence[Entry]) -> None:
    """Names at the right of the axes, as near to where their lines end as they fit. Called when limits are final."""
    if not entries:
        return
    width, height = _size(axes)
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [None if entry.end is None else to_axes.transform(entry.end) for entry in entries]
    wanted = [1 - (place + 0.5) * LINE / height if end is None else end[1] for place, end in enumerate(ends)]
    for entry, end, y in zip(entries, ends, spread(wanted, LINE / height), strict=True):
        if end is not None:
            leader = [end[0], 1 + 0.05 / width, 1 + 0.25 / width], [end[1], end[1], y]
            # Grey and dotted: in the colour of a line that ends early it would look as if that went on, level.
            _beside(axes, Line2D(*leader, color=GREY, linestyle=":", linewidth=0.7))
        places = [1 + inches / width for inches in (0.27, 0.36, 0.45)]
        _beside(axes, Line2D(places, [y] * 3, linewidth=1.3, markevery=[1], **entry.look.line))
        axes.text(1 + 0.5 / width, y, entry.text, transform=axes.transAxes, va="center")


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places nearest to the wanted ones (least squares) that are `gap` apart, within 0 to 1 where they fit."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    room = max(1 - steps[-1], 0)
    targets = np.clip(np.nan_to_num(np.asarray(wanted)[order]) - steps, 0, room)
    places = np.empty(len(order))
    places[order] = isotonic_regression(targets).x + steps
    return [float(place) for place in places]


def values_axis(axis: Axis, values: Iterable[float], text: Callable[[float], str]) -> None:
    """What was asked for: a tick for each value that was measured, powers of two apart where none is 0."""
    known = sorted({float(value) for value in values})
    if known[0] > 0:
        margin = max((known[-1] / known[0]) ** 0.05, 1.1)
        axis.axes.set_xscale("log", base=2)
        axis.axes.set_xlim(known[0] / margin, known[-1] * margin)
    _fixed(axis, known, [text(int(value) if value.is_integer() else value) for value in known])


def figures_axis(axis: Axis, values: Iterable[float], text: Callable[[float], str], *, is_log: bool = False) -> None:
    """Figures, written as `text` does; `values` are those that a logarithmic axis shows."""
    if is_log:
        log_axis(axis, values)
    else:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value) if value else "0"))


def name_never(axis: Axis, place: float, highest: float) -> None:
    """A tick of its own at the place of what never ended, above those of the figures up to `highest`."""
    locator, text = axis.get_major_locator(), axis.get_major_formatter()
    ticks = [tick for tick in locator.tick_values(*axis.get_view_interval()) if tick <= highest * 1.1]
    axis.set_major_locator(FixedLocator([*ticks, place]))
    axis.set_major_formatter(FuncFormatter(lambda value, at: NEVER if value == place else text(value, at)))


def order_axis(axis: Axis, places: "pd.Series[float]") -> None:
    """Places in the order done."""
    axis.axes.set_xlim(float(places.min()) - 0.5, float(places.max()) + 0.5)
    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))  # of one place: more would be fractions


def log_axis(axis: Axis, values: Iterable[float]) -> None:
    """Logarithmic, with as many ticks as have room, as plain numbers."""
    known = list(values)
    low, high = min(known), max(known)
    margin = max((high / low) ** 0.05, 1.02)
    low, high = low / margin, high * margin
    is_x = axis is axis.axes.xaxis
    axis.axes.set(**{"xscale": "log", "xlim": (low, high)} if is_x else {"yscale": "log", "ylim": (low, high)})
    room = _size(axis.axes)[0] / 0.6 if is_x else _size(axis.axes)[1] / 0.3
    decades = np.log10(high / low)
    axis.set_major_locator(MaxNLocator(nbins=max(int(room), 2), steps=[1, 2, 2.5, 5, 10]))
    if decades > 0.4:
        fits = [subs for subs in _SUBS if len(subs) * decades <= room]
        axis.set_major_locator(LogLocator(subs=fits[0] if fits else (1,), numticks=max(int(room), 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def few_ticks(axis: Axis, *, none: bool) -> None:
    """From zero, for narrow axes; zero alone where there is nothing else."""
    axis.set_major_locator(FixedLocator([0]) if none else MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def percentile_axis(grid: Grid, farthest: float) -> None:
    """Along x, 1/(1-p): each nine is as wide as the one before."""
    axes = grid.axes[0]
    axes.set_xscale("log")
    axes.set_xlim(1, max(farthest, 2) * 1.1)
    per_decade = _size(axes)[0] / np.log10(axes.get_xlim()[1])
    names: dict[float, str] = {}
    left_of = np.inf
    for place, name in reversed(_PERCENTILES.items()):  # where names don't all fit, the far one counts
        x, half = np.log10(place) * per_decade, text_width(name) / 2 + 0.04
        if place <= farthest * 1.05:
            names[place] = name if x + half < left_of else ""
            left_of = x - half if names[place] else left_of
    _fixed(axes.xaxis, sorted(names), [names[place] for place in sorted(names)])


def colour_bar(grid: Grid, colours: ScalarMappable, label: str) -> None:
    """Beneath the axes, at the right, in a foot of 1 inch."""
    whole = grid.figure.get_size_inches()
    place = grid.figure.add_axes((1 - 2.2 / whole[0], 0.28 / whole[1], 1.9 / whole[0], 0.09 / whole[1]))
    bar = grid.figure.colorbar(colours, cax=place, orientation="horizontal")
    bar.ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=4)
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.outline.set_visible(False)


def shade_key(grid: Grid, what: str, shades: Sequence[tuple[str, str]]) -> None:
    """Names of shades, beneath the axes."""
    patches = [Patch(color="none", label=what), *(Patch(color=colour, label=name) for name, colour in shades)]
    grid.figure.legend(handles=patches, loc="lower left", ncols=len(patches), frameon=False, handlelength=1)


def _beside(axes: Axes, line: Line2D) -> None:
    line.set_transform(axes.transAxes)
    line.set_clip_on(False)
    axes.add_artist(line)


def _fixed(axis: Axis, ticks: Sequence[float], names: Sequence[str]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: dict(zip(ticks, names, strict=True)).get(value, "")))
    axis.set_minor_locator(NullLocator())


def _size(axes: Axes) -> tuple[float, float]:
    box, whole = axes.get_position(), axes.get_figure(root=True)
    assert whole is not None
    width, height = whole.get_size_inches()
    return float(box.width * width), float(box.height * height)
