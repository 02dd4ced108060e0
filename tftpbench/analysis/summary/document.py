"""An Answer for programs: the one JSON document of `tftpbench run --json`.

Keys are those of trials.jsonl wherever they mean the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tftpbench.analysis.summary.answer import Answer
from tftpbench.analysis.summary.lines import record

SCHEMA = "tftpbench.summary/1"


def document(answer: Answer, folder: str, seed: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Plain JSON values."""
    return {
        "schema": SCHEMA,
        "run": folder,
        "seed": seed,
        "answer": answer.sentence,
        "exit_code": answer.exit_code,
        "quick": answer.is_quick,
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
        "cells": [record(line) for line in answer.lines],
        "ratios_of": answer.metric,
        "reference": answer.against,
        "headline": answer.headline,
        "conditions": answer.conditions,
        "wire": answer.wire,
        "noise": answer.noise,
        "findings": list(answer.findings),
        "findings_by_origin": {origin: list(texts) for origin, texts in answer.findings_by_origin.items()},
        "faults": list(answer.faults),
        "skipped": list(answer.skipped),
        "incomplete": list(answer.incomplete),
        "trials": [dict(row) for row in rows],
    }
