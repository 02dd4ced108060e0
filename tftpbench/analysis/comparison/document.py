"""A Comparison for programs: the one JSON document of `tftpbench compare -f json`.

Keys are those of trials.jsonl wherever they mean the same.
"""

from dataclasses import asdict

from tftpbench.analysis.comparison.result import Comparison, record

SCHEMA = "tftpbench.comparison/1"


def document(comparison: Comparison) -> dict[str, object]:
    """Plain JSON values."""
    return {
        "schema": SCHEMA,
        "a": asdict(comparison.a),
        "b": asdict(comparison.b),
        "within": comparison.within,
        "sentence": comparison.sentence,
        "verdicts": comparison.counts,
        "cells": [record(row) for row in comparison.rows],
        "left_out": list(comparison.left_out),
        "warnings": list(comparison.warnings),
        "notes": list(comparison.notes),
    }
