"""The report as Markdown for GitHub, JUnit XML for a CI server, and JSON and CSV for programs.

Markdown is short enough for a pull request, without pictures. JUnit has a test case per threshold and cell, and per
server and cell for validity: a missed threshold is a failure, what could not be judged is an error, what was left out
is skipped. JSON and CSV have figures as stored: nothing is rounded or made pretty. Control characters are escaped, and
a cell of CSV that a spreadsheet would take for a formula is text.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from tftpbench.analysis import capacity
from tftpbench.analysis.summary import document
from tftpbench.model.capacity import documents
from tftpbench.model.escape import csv_row, markdown, markdown_block, visible, xml
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.render.answer import IN_FLIGHT, MARKS
from tftpbench.render.markdown import LISTED_MAX, SIGNS, bullets, table_lines, written
from tftpbench.render.report.contents import Contents, unharmed
from tftpbench.render.sections import Table, shortened


def write_markdown(contents: Contents) -> str:
    """Every section of the report that has something to say."""
    answer, (losses, clean) = contents.answer, contents.losses
    blocks = [
        [f"# {markdown(contents.name)}"],
        bullets("The run is not whole", contents.problems),
        [f"**{markdown(answer.sentence)}**"],
        [markdown_block(answer.wire)] if answer.wire else [],
        [markdown_block(answer.conditions)] if answer.lines else [],
        [markdown_block(contents.scenario.description)],
        [markdown_block(answer.note)] if answer.note else [],
        _thresholds(contents),
        [written(contents.searches)] if contents.searches else _table(contents.headline),
        ["## Validity", "", _counting(contents)],
        bullets("Too few valid trials", answer.too_few),
        bullets("Left out", answer.skipped),
        bullets(IN_FLIGHT, answer.in_flight),
        _folded("Invalid trials, kept and never used", contents.invalid),
        *([] if contents.searches else [_table(contents.cost), _table(losses, unharmed(clean, bool(losses.rows)))]),
        *(bullets(each.title.rstrip(":"), each.lines) for each in contents.found),
        bullets("Protocol faults where transfers failed", answer.faults),
        _environment(contents),
        ["## To repeat it", "", "```sh", _fenced(contents.repeat), "```"] if contents.repeat else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _counting(contents: Contents) -> str:
    """How many trials count, said once: where some do not, with why."""
    why_invalid = contents.answer.why_invalid
    count = f"{contents.valid} of {counted(len(contents.rows), 'trial')} count."
    return markdown_block(why_invalid) if why_invalid else count


def _thresholds(contents: Contents) -> list[str]:
    lines = ["## Thresholds", ""] if contents.judgements else []
    for each in contents.judgements:
        lines.append(f"- {SIGNS[MARKS[each.state]]} {markdown(each.threshold)}")
        lines += [f"  - {markdown_block(reason)}" for reason in shortened(each.reasons, LISTED_MAX)]
    return lines


def _table(table: Table, after: str = "") -> list[str]:
    lines = [f"## {markdown(table.title)}", "", *table_lines(table)]
    if table.rows:
        return [*lines, *(["", after] if after else [])]
    return [*lines, after or "None."]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """A list that is opened by a click, where there is one."""
    listed = bullets(title, lines)[2:]
    return (
        [f"<details><summary>{len(lines)}: {markdown(title)}</summary>", "", *listed, "", "</details>"]
        if listed
        else []
    )


def _environment(contents: Contents) -> list[str]:
    lines = ["<details><summary>Environment</summary>", ""]
    for heading, facts in contents.facts.items():
        lines += [f"- {markdown(heading)}: " + "; ".join(markdown(f"{fact.name} {fact.value}") for fact in facts)]
    lines += [f"- {markdown(' '.join(filter(None, (each.name, each.version))))}" for each in contents.servers]
    return [*lines, "", "</details>"]


def _fenced(text: str) -> str:
    """In a block of code only its end means anything, and that is at the start of a line."""
    return visible(" ".join(text.split("\n"))).replace("```", "`` `")


Rows = list[Mapping[str, Any]]


def write_junit(contents: Contents) -> str:
    """The whole document."""
    root = ET.Element("testsuites", name=xml(contents.name))
    for suite in (_threshold_suite(contents), _validity(contents)):
        for count, kind in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
                            ("skipped", "testcase/skipped")):  # fmt: skip
            suite.set(count, str(len(suite.findall(kind))))
        root.append(suite)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, 0)) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _threshold_suite(contents: Contents) -> ET.Element:
    suite = _suite(contents, "thresholds")
    for judged in contents.answer.thresholds:
        case = _case(suite, f"{judged.threshold} [{judged.place}]")
        if judged.state == "missed":
            ET.SubElement(case, "failure", type="missed", message=xml(judged.text))
        elif not judged.held:
            ET.SubElement(case, "error", type="not known", message=xml(judged.text))
        else:
            ET.SubElement(case, "system-out").text = xml(judged.text)
    return suite


def _validity(contents: Contents) -> ET.Element:
    """Whether each server has figures in each cell that may be used."""
    suite = _suite(contents, "validity")
    found: dict[tuple[str, str], Rows] = {}
    for row in contents.rows:
        found.setdefault((server_name(row), row["cell_key"]), []).append(row)
    left_out = {
        (str(skip["server"]), skip.get("cell_key")): str(skip["reason"])
        for skip in contents.run.manifest.get("skipped", ())
    }
    unstarted = {each["server"]: str(each["reason"]) for each in contents.run.manifest.get("left_out", ())}
    servers = dict.fromkeys([*(each.name for each in contents.servers), *(server for server, _ in found)])
    for search in contents.run.searches:
        case = _case(suite, capacity.title(search))
        if search.is_regular:
            ET.SubElement(case, "system-out").text = xml(capacity.sentence(search))
        else:
            ET.SubElement(case, "error", type="irregular", message=xml(capacity.sentence(search)))
    for cell in () if contents.scenario.capacity else contents.scenario.cells():
        key = cell.key
        for server in servers:
            case = _case(suite, f"{server}, {cell.label}")
            reason = left_out.get((server, key), left_out.get((server, None)))
            _judge(case, found.get((server, key), []), reason, unstarted.get(server), contents.scenario.trials)
    return suite


def _judge(case: ET.Element, rows: Rows, left_out: str | None, unstarted: str | None, planned: int) -> None:
    valid = sum(row["verdict"] == "valid" for row in rows)
    reasons = "\n".join(
        f"trial {row['trial']}: {row['verdict']}: {row.get('verdict_reason')}"
        for row in rows
        if row["verdict"] != "valid"
    )
    if not rows and left_out is not None:
        ET.SubElement(case, "skipped", message=xml(left_out))
    elif not rows:
        ET.SubElement(case, "error", type="not done", message=xml(unstarted or "no trial was done"))
    elif not valid:
        detail = f"none of {counted(len(rows), 'trial')} is valid"
        ET.SubElement(case, "error", type="invalid", message=detail).text = xml(reasons)
    else:
        detail = f"{valid} of {counted(planned, 'trial')} valid"
        ET.SubElement(case, "system-out").text = xml("\n".join(filter(None, (detail, reasons))))


def _suite(contents: Contents, name: str) -> ET.Element:
    return ET.Element("testsuite", name=xml(f"{contents.scenario.name}.{name}"))


def _case(suite: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=xml(name))


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
