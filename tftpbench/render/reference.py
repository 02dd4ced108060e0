"""The tables of docs that follow from records of the code: axes and columns; and the JSON Schemas beside them.

``python -m tftpbench.render.reference docs`` renews them (`make docs`). It must never write a word that is not in a
record: what people read around the tables is theirs.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tftpbench.host.conditions import CONDITIONS
from tftpbench.model.axes import AXES, Axis
from tftpbench.model.metrics import (
    BOOT_COLUMNS,
    BOOTS,
    COLUMNS,
    HEADLINE,
    INTERVAL_COLUMNS,
    LATENCY_KINDS,
    OPEN_LOOP,
    TRANSFER_COLUMNS,
)
from tftpbench.model.shown import Column
from tftpbench.render import schema


def tables() -> dict[tuple[str, str], str]:
    """Markdown tables by page and heading: each is the first table under that heading."""
    return {
        ("results-format.md", "trials.jsonl"): _columns(COLUMNS),
        ("results-format.md", "transfers.parquet"): _columns(TRANSFER_COLUMNS),
        ("results-format.md", "boots.parquet"): _columns(BOOT_COLUMNS),
        ("results-format.md", "intervals.parquet"): _columns(INTERVAL_COLUMNS),
        ("results-format.md", "latency.hlog"): _rows(("tag", "values"), LATENCY_KINDS.items()),
        ("results-format.md", "The answer"): _rows(
            ("column", "unit", "meaning", "of several trials"),
            ((name, each.unit, each.meaning, each.combined) for name, each in (HEADLINE | OPEN_LOOP | BOOTS).items()),
        ),
        ("doctor.md", "Conditions"): _rows(
            ("condition", "looks at", "expected", "how its effect is measured", "remedy"),
            ((each.id, each.looks_at, each.expected, each.measured, f"`{_cell(each.remedy)}`") for each in CONDITIONS),
        ),
        ("scenario-format.md", "matrix"): _rows(
            ("key", "default", "allowed", "meaning"),
            ((axis.key, _default(axis), axis.allowed, axis.description) for axis in AXES.values()),
        ),
    }


def _default(axis: Axis) -> str:
    if axis.default is not None:
        return str(axis.default)
    return "required without boot or mix" if axis.of_files else ""


def renewed(page: str, text: str) -> str:
    """The page with its tables as they follow from the code. ValueError where a heading or its table is gone."""
    for (name, heading), table in tables().items():
        if name == page:
            text, count = re.subn(
                rf"(^#+ {re.escape(heading)}\n(?:(?!\||#).*\n)*?)(?:\|.*\n)+", _after(table), text, count=1,
                flags=re.MULTILINE,
            )  # fmt: skip
            if not count:
                raise ValueError(f"{page} has no table under the heading {heading!r}")
    return text


def renew(docs: Path) -> None:
    """Write the tables of all pages, and docs/schema."""
    for page in dict.fromkeys(name for name, _ in tables()):
        path = docs / page
        path.write_text(renewed(page, path.read_text(encoding="utf-8")), encoding="utf-8")
    for kind in schema.KINDS:
        (docs / "schema" / f"{kind}.json").write_text(schema.text(kind), encoding="utf-8")


def _cell(text: str) -> str:
    """Within a table, where | ends a cell."""
    return text.replace("|", r"\|")


def _after(table: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{match[1]}{table}"


def _columns(columns: Mapping[str, Column]) -> str:
    return _rows(("column", "unit", "meaning"), ((name, each.unit, each.meaning) for name, each in columns.items()))


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
