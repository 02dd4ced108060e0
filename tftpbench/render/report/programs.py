"""The report for programs: one JSON document, or the trials as CSV.

Figures are as stored: nothing is rounded or made pretty. Control characters are escaped, and a cell of CSV that a
spreadsheet would take for a formula is text.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tftpbench.analysis.summary import document
from tftpbench.model.capacity import documents
from tftpbench.model.escape import csv_row
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.thresholds import server_name
from tftpbench.render.report.contents import Contents

# What of the manifest says where and how it was measured.
_ENVIRONMENT = ("machine", "build", "placement", "roots", "servers", "keys", "argv")


def write_json(contents: Contents) -> str:
    """The document of `tftpbench run --json`, with the environment and what is not whole."""
    run = contents.run
    whole: dict[str, object] = {
        **document(contents.answer, str(run.path), run.manifest.get("seed", 0), contents.rows),
        "environment": {name: run.manifest.get(name) for name in _ENVIRONMENT},
        "problems": list(contents.problems),
        **({"capacity": documents(run.searches)} if run.searches else {}),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_csv(contents: Contents) -> str:
    """A line per trial: the columns of trials.jsonl, lists as JSON, and `contender`; unknown figures are empty."""
    names = dict.fromkeys([*COLUMNS, *(name for row in contents.rows for name in row)])
    names.pop("contender", None)  # a row's own would stand in its place, and shift the others
    rows = ([*(row.get(name) for name in names), server_name(row)] for row in contents.rows)
    return csv_text([*names, "contender"], rows)


def csv_text(names: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """RFC 4180, but lines end as Unix ends them; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(csv_row(names))
    writer.writerows(csv_row(map(_flat, row)) for row in rows)
    return out.getvalue()


def _flat(value: Any) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, Mapping)) else value
