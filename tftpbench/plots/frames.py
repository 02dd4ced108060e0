"""From frames to what plots need of them: known numbers, valid trials, contenders in order, panels.

It must never draw.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tftpbench.model.axes import AXES, CELL, label
from tftpbench.model.errors import PlotError
from tftpbench.model.units import counted

Floats = NDArray[np.float64]
Panel = tuple[str, pd.DataFrame]  # its label, and the rows that are drawn in one pair of axes
_WORDS = {name for name, axis in AXES.items() if axis.dtype == "text"}
PANELS_MAX = 8  # two by four: what fits a screen
# Beyond these many contenders, bands and raw points hide the lines that they are about.
FEW = 6
POINTS = 300  # of a curve: finer than the picture shows, whatever the number of transfers
_STEPS = 25  # points per factor of ten of 1/(1-p): a step is narrower than the line is wide, and files stay small
LINES_MAX = 70  # in all panels together: what can be read, and fits 300 kB


def refuse_missing(frame: pd.DataFrame, columns: Sequence[str], plot: str) -> None:
    """Raises PlotError where the frame lacks a column that the plot needs."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise PlotError(f"{plot} needs the columns {', '.join(missing)}, which the frame has not")


def needing(frame: pd.DataFrame, columns: Sequence[str], plot: str) -> pd.DataFrame:
    """A copy of the frame whose numbers are known or NaN; PlotError where a column is missing or there is no row."""
    refuse_missing(frame, columns, plot)
    if frame.empty:
        raise PlotError(f"{plot}: the frame is empty, so there is nothing to draw")
    kept = [name for name in dict.fromkeys((*columns, *CELL, "verdict")) if name in frame.columns]
    found = frame[kept].copy()
    if "contender" in kept:  # fixes the order, and so the colours, before rows are left out
        found["contender"] = pd.Categorical(frame["contender"].astype("string"), contenders(frame))
    for name in kept:
        if name not in {"contender", "verdict", "label", "outcome", *_WORDS}:
            found[name] = numbers(found[name])
    return found


def numbers(values: "pd.Series[float]") -> Floats:
    """Floats of whatever the column holds; what is unknown, infinite or no number is NaN."""
    plain = values.astype(values.cat.categories.dtype) if isinstance(values.dtype, pd.CategoricalDtype) else values
    found = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(found), found, np.nan)


def nines(percentile: "Floats | pd.Series[float]") -> Floats:
    """1/(1-p): the axis on which each nine has as much room as the one before."""
    return np.asarray(100 / (100 - percentile), dtype=np.float64)


def thinned(percentile: Floats) -> NDArray[np.bool_]:
    """Which points of a line are kept, the first and the last of each step: what the eye can tell apart."""
    step = np.floor(np.log10(nines(percentile)) * _STEPS)
    is_kept = np.append(step[1:] != step[:-1], True)[: len(step)]
    is_kept[:1] = True
    return is_kept


def valid(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows may be used: those of valid trials, or all where the frame does not say."""
    if "verdict" not in frame.columns:
        return pd.Series(True, index=frame.index)  # a mask
    return (frame["verdict"].astype("string") == "valid").fillna(False).astype(bool)


def contenders(frame: pd.DataFrame) -> list[str]:
    """All that may appear, in the order that gives them their colours."""
    column = frame["contender"]
    known = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna().unique()
    return list(dict.fromkeys(map(str, known)))


def each_contender(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The contenders that are there, in order, and their rows."""
    for name, rows in frame.groupby("contender", observed=True, sort=True):
        yield str(name), rows


def panels(frame: pd.DataFrame, by: Sequence[str]) -> list[Panel]:
    """One panel per combination of the columns `by` that the frame has, in the order of the scenario's words."""
    present = [name for name in by if name in frame.columns]
    if not present:
        return [("", frame)]
    keys = frame[present].astype({name: "string" for name in present if name in _WORDS})
    groups = frame.groupby([keys[name] for name in present], dropna=False, observed=True, sort=True)
    return [(_label(dict(zip(present, key, strict=True))), rows) for key, rows in groups]


def shown(found: Sequence[Panel]) -> tuple[list[Panel], str]:
    """As many panels as fit, and what to say where there are more."""
    lines = max((rows["contender"].nunique() for _, rows in found), default=1)
    most = min(PANELS_MAX, max(LINES_MAX // max(lines, 1), 1))
    if len(found) <= most:
        return list(found), ""
    return list(found[:most]), f"the first {most} of {counted(len(found), 'cell')}"


def span(counts: Sequence[int], thing: str) -> str:
    """Write [7] as "7 trials", [5, 7] as "5 to 7 trials"."""
    if not len(counts):
        return counted(0, thing)
    low, high = min(counts), max(counts)
    return counted(high, thing) if low == high else f"{low} to {counted(high, thing)}"


def listed(panels: Iterable[object], contenders: Iterable[object], texts: Iterable[str]) -> str:
    """For a sentence: "epoll 12 ms (read), threads 9 ms (read)"."""
    each = zip(panels, contenders, texts, strict=True)
    return ", ".join(f"{name} {text}{f' ({panel})' if panel else ''}" for panel, name, text in each)


def axis_label(name: str) -> str:
    """What stands along an axis of the matrix: "transfers in flight at once (concurrency)"."""
    axis = AXES[name]
    words = re.split("[;,.]", axis.description)[0]
    return f"{words[0].lower()}{words[1:]} ({axis.key.replace('_', ' ')})"


def _label(work: dict[str, Any]) -> str:
    """Numbers are whole where a missing one had made them floats."""
    plain = {
        name: int(value) if isinstance(value, float) and not pd.isna(value) else value for name, value in work.items()
    }
    return label({name: None if pd.isna(value) else value for name, value in plain.items()})
