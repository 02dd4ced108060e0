"""Frames for tests of plots: as Run gives them, with figures that are known."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

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
