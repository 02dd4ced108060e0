"""Frames for tests of plots: as Run gives them, with figures that are known."""

from collections.abc import Iterator, Sequence
from unittest.mock import patch

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text

from tftpbench.plots import style

BASE_PPS = 100_000.0


def trials(
    names: Sequence[str] = ("epoll", "threads"),
    concurrencies: Sequence[int] = (3, 10, 100),
    rounds: int = 7,
    operations: Sequence[str] = ("read",),
) -> pd.DataFrame:
    """One row per trial: of contender i at concurrency c, data_pps is (BASE_PPS + c + round) / (i + 1)."""
    rows = [
        {
            "trial": 0,
            "order": len(names) * (number - 1) + (place + number) % len(names),
            "contender": name,
            "operation": operation,
            "concurrency": concurrency,
            "file_size_bytes": 65536,
            "blksize": 512,
            "windowsize": 1,
            "round": number,
            "verdict": "valid",
            "data_pps": (BASE_PPS + concurrency + number) / (place + 1),
            "server_cpu_ns_per_block": 4000.0 * (place + 1) + number,
            "fairness": 1.5 + place + number / 100,
            "ceiling_data_pps": np.nan,
            "started": 1000,
            "retransmissions": 10 * place,
            "udp_drops_server": 5 * place,
            "udp_drops_generator": 0,
            "unanswered": pd.NA,
        }
        for operation in operations
        for concurrency in concurrencies
        for number in range(1, rounds + 1)
        for place, name in enumerate(names)
    ]
    frame = pd.DataFrame(rows)
    frame["trial"] = np.arange(1, len(frame) + 1)
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    frame["operation"] = frame["operation"].astype("category")
    frame["verdict"] = pd.Categorical(frame["verdict"], ["valid", "invalid"])
    counts = ("retransmissions", "udp_drops_server", "udp_drops_generator", "unanswered")
    for name in ("order", "round", "started", *counts):
        frame[name] = frame[name].astype("Int64")
    return frame


def transfers(names: Sequence[str] = ("epoll", "threads"), each: int = 200, concurrency: int = 10) -> pd.DataFrame:
    """One row per transfer, in two trials per contender. Transfer k of contender i takes (k + 1) * (i + 1) ms."""
    frames = []
    for place, name in enumerate(names):
        for part in (0, 1):
            number = np.arange(part, each, 2)
            start = number * 1_000_000 + 5_000_000_000
            frames.append(
                pd.DataFrame(
                    {
                        "trial": 2 * place + part + 1,
                        "contender": name,
                        "operation": "read",
                        "concurrency": concurrency,
                        "file_size_bytes": 65536,
                        "blksize": 512,
                        "windowsize": 1,
                        "verdict": "valid",
                        "actual_start_ns": start,
                        "end_ns": pd.array(start + (number + 1) * (place + 1) * 1_000_000, dtype="Int64"),
                        "outcome": "completed",
                    }
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    for name in ("outcome", "verdict", "operation"):
        frame[name] = frame[name].astype("category")
    return frame


def latency(names: Sequence[str] = ("epoll", "threads"), cells: int = 1) -> pd.DataFrame:
    """Histogram rows: 1000 buckets of 100 samples each, bucket k of contender i at (k + 1) * (i + 1) us."""
    bucket = np.arange(1000)
    frames = [
        pd.DataFrame(
            {
                "contender": name,
                "operation": "read",
                "concurrency": 10 * (cell + 1),
                "value_ns": (bucket + 1) * (place + 1) * 1000,
                "count": 100,
            }
        )
        for cell in range(cells)
        for place, name in enumerate(names)
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    return frame


def boots(
    names: Sequence[str] = ("epoll", "threads"), machines: int = 200, lost: int = 0, trials: int = 3
) -> pd.DataFrame:
    """One row per machine of a storm. Machine k of contender i is up after (k + 1) * (i + 1) ms in trial 1.

    Trial t takes t ms longer. The last `lost` machines of the second contender gave up after 24 s.
    """
    frames = []
    for place, name in enumerate(names):
        for trial in range(trials):
            number = np.arange(machines)
            start = np.full(machines, 5_000_000_000)
            gave_up = (number >= machines - lost) & (place == 1)
            took = np.where(gave_up, 24_000_000_000, ((number + 1) * (place + 1) + trial) * 1_000_000)
            frames.append(
                pd.DataFrame(
                    {
                        "trial": trials * place + trial + 1,
                        "contender": name,
                        "verdict": "valid",
                        "machine": number,
                        "intended_start_ns": start,
                        "actual_start_ns": start + 500_000,
                        "end_ns": start + took,
                        "outcome": np.where(gave_up, "failed", "booted"),
                    }
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    for name in ("outcome", "verdict"):
        frame[name] = frame[name].astype("category")
    return frame


def cohort(names: Sequence[str] = ("epoll", "threads"), lost: int = 0) -> pd.DataFrame:
    """Response and service times of 1000 each, 1 to 1000 ms; of the second contender `lost` never came to an end."""
    frames = []
    for place, name in enumerate(names):
        for kind, less in (("response", 0.0), ("service", 0.4)):
            never = lost if place else 0
            values = (np.arange(1, 1001 - never) - less) * (place + 1) * 1e6
            frames.append(
                pd.DataFrame(
                    {
                        "contender": name,
                        "kind": kind,
                        "value_ns": [*values, np.inf],
                        "count": [*np.ones(len(values), dtype=int), never],
                    }
                )
            )
    frame = pd.concat(frames, ignore_index=True)
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    return frame


def intervals(names: Sequence[str] = ("epoll", "threads"), many: int = 50) -> pd.DataFrame:
    """Two trials each of `many` intervals of 100 ms: 20 starts in each, of which threads sheds 5; 30 + k in flight."""
    frame = pd.DataFrame(
        [
            {
                "trial": 2 * place + trial + 1,
                "contender": name,
                "verdict": "valid",
                "interval": number,
                "duration_ns": 100_000_000,
                "started": 20 - 5 * (place % 4),
                "shed": 5 * (place % 4),
                "in_flight": 30 + number + 100 * place,
            }
            for place, name in enumerate(names)
            for trial in (0, 1)
            for number in range(many)
        ]
    )
    frame["contender"] = pd.Categorical(frame["contender"], list(names))
    return frame


def ratios(names: Sequence[str] = ("read, 10 at once", "read, 100 at once")) -> pd.DataFrame:
    """The first row has an interval, the others only a range."""
    return pd.DataFrame(
        {
            "label": list(names),
            "ratio": [0.5 + 0.3 * place for place in range(len(names))],
            "low": [0.45, *[np.nan] * (len(names) - 1)],
            "high": [0.55, *[np.nan] * (len(names) - 1)],
            "lowest": 0.4,
            "highest": [0.6 + 0.3 * place for place in range(len(names))],
            "n": [7, *[5] * (len(names) - 1)],
            "verdict": ["slower", *["can't tell"] * (len(names) - 1)],
        }
    )


def overlaps(figure: Figure) -> list[str]:
    """Each label that lies on what is drawn, or on another label, as they stand on the page."""
    texts: list[Text] = []

    def draw(text: Text, renderer: RendererBase) -> None:
        if text.get_visible() and text.get_text().strip():
            texts.append(text)
        plain_draw(text, renderer)

    plain_draw = Text.draw
    figure.set_dpi(100)
    with style.applied(), patch.object(Text, "draw", draw):  # a tick beyond its axis has a text that is never drawn
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
    # A letter's own margin is no overlap, nor is that of the line above.
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in texts]
    drawn = [path for axes in figure.axes for path in _drawn(axes)]
    found = [f"{text!r} on a curve" for text, box in boxes if any(path.intersects_bbox(box, False) for path in drawn)]
    for place, (text, box) in enumerate(boxes):
        found += [f"{text!r} on {other!r}" for other, there in boxes[:place] if box.overlaps(there)]
    return found


def _drawn(axes: Axes) -> Iterator[Path]:
    """Lines, markers and bars in display coordinates, as far as the axes show them; not what stands beside them."""
    for line in axes.lines:
        if line.get_clip_on() and len(np.asarray(line.get_xydata())):
            yield line.get_transform().transform_path(line.get_path()).interpolated(20).clip_to_bbox(axes.bbox)
    for bar in (bar for each in axes.containers if isinstance(each, BarContainer) for bar in each):
        if bar.get_width() > 0:
            yield bar.get_transform().transform_path(bar.get_path())
