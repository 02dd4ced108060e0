"""What was lost and where: retransmissions, drops at either side's sockets, transfers without an answer.

Counts of all trials, valid or not: a loss is no less one in a trial whose rate can't be used.
"""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from tftpbench.model.errors import PlotError
from tftpbench.plots import frames, style
from tftpbench.plots.plot import Plot

# What was seen, and what it says about where it was lost.
_KINDS = {
    "retransmissions": "sent again by the generator",
    "udp_drops_server": "dropped at the server's sockets",
    "udp_drops_generator": "dropped at the generator's sockets",
    "unanswered": "transfers never answered",
}
_PER = 1000
_GAP, _RIGHT = 0.12, 0.06  # inches between the panels, and at the right of each


def loss(trials: pd.DataFrame) -> Plot:
    """Losses per 1000 transfers started, by kind and contender, stacked by concurrency. From Run.trials.

    Sums over all trials; a trial that doesn't know a kind counts in neither sum. PlotError where nothing was started.
    """
    frame = frames.needing(trials, ("contender", "concurrency", "started", *_KINDS), "loss")
    frame = frame[(frame["started"] > 0) & (frame["concurrency"] > 0)].dropna(subset=["contender"])
    if frame.empty:
        raise PlotError("loss: no trial started a transfer, so there is nothing to draw")
    data = _shares(frame)
    title = f"Sent again, dropped, unanswered, per {_PER} transfers"
    names = [name for name, _ in frames.each_contender(frame)]
    steps = sorted(data["concurrency"].unique())
    text = (
        f"per {_PER} of all transfers that the server was asked for; the shades say at which concurrency; "
        f"sums over {frames.span([len(frame)], 'trial')}, valid or not"
    )
    labels = [style.name_of(name) for name in names]
    with style.applied():
        left = max(map(style.text_width, labels)) + 0.25
        width = (style.WIDTH - left) / len(_KINDS) - _GAP
        grid = style.grid(
            title,
            text,
            ["\n".join(style.wrapped(words, width, is_bold=True)) for words in _KINDS.values()],
            columns=len(_KINDS),
            height=max(len(names), 2) * style.LINE * 1.25 + 0.1,
            left=left,
            gap=_GAP,
            right=_RIGHT,
            foot=0.6,
            share_x=False,
        )
        shades = dict(zip(steps, _shades(len(steps)), strict=True))
        for kind, axes in zip(_KINDS, grid.axes, strict=True):
            _draw(axes, data[data["kind"] == kind], names, shades)
        grid.axes[0].set_yticks(range(len(names)), labels)
        grid.axes[0].set_ylim(len(names) - 0.4, -0.6)
        grid.label("", "")
        style.shade_key(grid, "transfers at once:", [(f"{step:g}", colour) for step, colour in shades.items()])
    return Plot(grid.figure, data, title, _alt(data, title))


def _shares(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per contender, kind and concurrency: the count, and its share per 1000 of all that its contender started.

    A kind that none of the contender's trials knows has one row, its count NaN.
    """
    rows: list[dict[str, object]] = []
    for name, ours in frames.each_contender(frame):
        for kind in _KINDS:
            known = ours.dropna(subset=[kind])
            started = known["started"].sum()
            for concurrency, here in (known if len(known) else ours[:1]).groupby("concurrency"):
                count = here[kind].sum(min_count=1)
                share = _PER * count / started if started else np.nan
                same = {"contender": name, "kind": kind, "concurrency": concurrency}
                rows.append({**same, "count": count, "started": started, "per_1000": share})
    return pd.DataFrame(rows)


def _draw(axes: Axes, data: pd.DataFrame, names: list[str], shades: dict[float, str]) -> None:
    """A bar per contender; what is not known is said beside its place, or once where it is of all."""
    sums = data.groupby("contender")["per_1000"].sum(min_count=1).reindex(names)
    for place, name in enumerate(names):
        left = 0.0
        for _, row in data[data["contender"] == name].fillna({"per_1000": 0}).sort_values("concurrency").iterrows():
            axes.barh(place, row["per_1000"], 0.75, left=left, color=shades[row["concurrency"]], linewidth=0)
            left += row["per_1000"]
        text = "not known" if np.isnan(sums[name]) else _short(sums[name])
        if sums.notna().any():
            axes.annotate(text, (left, place), (3, 0), textcoords="offset points", va="center", color=style.GREY)
    if sums.isna().all():
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
    # Room for the figures beside the bars.
    farthest = float(np.nan_to_num(sums.max()))
    axes.set_xlim(0, farthest * 1.55 or 1)
    style.few_ticks(axes.xaxis, none=farthest == 0)
    axes.grid(visible=False, axis="y")


def _short(share: float) -> str:
    return f"{share:.0f}" if share >= 100 else f"{share:.3g}"


def _shades(count: int) -> list[str]:
    return [to_hex(colormaps["Blues"](share)) for share in np.linspace(0.35, 1, max(count, 2))[-count:]]


def _alt(data: pd.DataFrame, title: str) -> str:
    sums = data.groupby(["kind", "contender"], sort=False, as_index=False)["per_1000"].sum()
    some = sums[sums["per_1000"] > 0]
    found = frames.listed(some["kind"], some["contender"], map(_short, some["per_1000"]))
    return f"{title}: {found or 'none was counted'}."
