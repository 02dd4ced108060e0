"""Small run folders for tests to write and to read."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from hdrh.histogram import HdrHistogram

from tftpbench.store import RunFolder

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def create(out: Path | str, **manifest: object) -> RunFolder:
    return RunFolder.create(out, "smoke", {"seed": 7, **manifest}, now=NOON)


def row(trial: int, **figures: object) -> dict[str, object]:
    return {
        "trial": trial,
        "order": trial,
        "cell_key": "c",
        "server": "epoll",
        "verdict": "valid",
        "concurrency": 3,
        **figures,
    }


def hlog(**kinds: list[int]) -> str:
    lines = ["#[Histogram log format version 1.3]", '"StartTimestamp","Interval_Length","Interval_Max","Interval_..."']
    for kind, values in kinds.items():
        histogram = HdrHistogram(1, 10**10, 3)
        for value in values:
            histogram.record_value(value)
        lines.append(f"Tag={kind},0.000,1.000,{max(values) / 1e6:.3f},{histogram.encode().decode('ascii')}")
    return "\n".join(lines) + "\n"


TRANSFERS = {
    "number": np.array([0, 1]),
    "intended_start_ns": np.array([0, 5]),
    "actual_start_ns": np.array([1, 6]),
    "first_response_ns": np.array([9, -1]),
    "end_ns": np.array([20, 2**60]),
    "bytes": np.array([2**53 + 1, 0]),
    "retransmissions": np.array([0, 5]),
    "outcome": np.array([0, 2]),
    "error_code": np.array([-1, -1]),
}


INTERVALS = {
    "blocks": np.array([4, 5]),
    "bytes": np.array([2048, 2560]),
    "in_flight": np.array([3, 0]),
    "retransmissions": np.array([0, 0]),
    "duration_ns": np.array([10**8, 10**8]),
    "started": np.array([1, 1]),
    "shed": np.array([0, 2]),
}


# The second machine was shed.
BOOTS = {
    "machine": np.array([0, 1]),
    "boot": np.array(["pi4", "uefi-grub"]),
    "intended_start_ns": np.array([0, 5]),
    "actual_start_ns": np.array([1, -1]),
    "end_ns": np.array([2**53 + 1, -1]),
    "bytes": np.array([4096, 0]),
    "requests": np.array([12, 0]),
    "misses": np.array([3, 0]),
    "misses_unanswered": np.array([1, 0]),
    "retransmissions": np.array([2, 0]),
    "restarts": np.array([0, 0]),
    "outcome": np.array([1, 3]),
    "failed_step": np.array([7, -1]),
    "reason": np.array([2, 0]),
    "error_code": np.array([-1, -1]),
}


def save(folder: RunFolder, trial: int, latency: str = "", **figures: object) -> None:
    folder.write_trial_files(trial, TRANSFERS, INTERVALS, latency, b"log\n")
    folder.append_trial(row(trial, **figures))
