"""An Answer for programs: the one JSON document of `tftpbench run --json`.

Keys are those of trials.jsonl wherever they mean the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tftpbench.analysis.stats import Ratio
from tftpbench.analysis.summary.answer import Answer
from tftpbench.analysis.summary.lines import Line
from tftpbench.model.axes import AXES

SCHEMA = "tftpbench.summary/1"
RATIO_FIELDS = ("ratio", "low", "high", "n", "lowest", "highest")
FRAME_COLUMNS = (
    "label", "contender", *AXES, "data_pps", "goodput_bytes_per_s", *RATIO_FIELDS, "block_rtt_ns_p50",
    "block_rtt_ns_p99", "server_cpu_ns_per_block", "lost", "valid", "trials",
)  # fmt: skip


def document(answer: Answer, folder: str, seed: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Plain JSON values."""
    return {
        "schema": SCHEMA,
        "run": folder,
        "seed": seed,
        "answer": answer.sentence,
        "exit_code": answer.exit_code,
        "thresholds": [
            {
                "threshold": str(each.verdict.threshold),
                "server": each.verdict.server,
                "cell": each.cell_label,
                "state": each.verdict.state,
                "value": each.verdict.value,
                "detail": each.verdict.detail,
            }
            for each in answer.thresholds
        ],
        "cells": [_line(line) for line in answer.lines],
        "ratios_of": answer.metric,
        "reference": answer.against,
        "headline": answer.headline,
        "findings": list(answer.findings),
        "faults": list(answer.faults),
        "skipped": list(answer.skipped),
        "incomplete": list(answer.incomplete),
        "trials": [dict(row) for row in rows],
    }


def flat(line: Line) -> dict[str, object]:
    """A line as one row of FRAME_COLUMNS (and others), the ratio's fields beside the rest."""
    ratio = _ratio(line.ratio) or dict.fromkeys(RATIO_FIELDS)
    return {**_line(line), **ratio, "label": line.label, "contender": line.server}


def _line(line: Line) -> dict[str, object]:
    cell = line.cell
    return {
        "cell_key": cell.key,
        "server": line.server,
        **cell.point,
        "trials": line.trials,
        "valid": line.valid,
        "data_pps": line.data_pps,
        "goodput_bytes_per_s": line.goodput_bytes_per_s,
        "ratio": _ratio(line.ratio),
        "block_rtt_ns_p50": line.block_rtt.p50 if line.block_rtt else None,
        "block_rtt_ns_p99": line.block_rtt.p99 if line.block_rtt else None,
        "server_cpu_ns_per_block": line.server_cpu_ns_per_block,
        "ceiling_ratio": line.ceiling_ratio,
        "lost": line.lost,
    }


def _ratio(ratio: Ratio | None) -> dict[str, float | int | None] | None:
    if ratio is None:
        return None
    return {name: getattr(ratio, name) for name in RATIO_FIELDS}
