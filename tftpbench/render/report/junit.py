"""The report for a CI server: JUnit XML, a test case per threshold and cell, and per server and cell for validity.

A missed threshold is a failure, what could not be judged is an error, what was left out is skipped.
"""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from tftpbench.analysis import capacity
from tftpbench.model.escape import xml
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.render.report.contents import Contents

Rows = list[Mapping[str, Any]]


def write_junit(contents: Contents) -> str:
    """The whole document."""
    root = ET.Element("testsuites", name=xml(contents.name))
    for suite in (_thresholds(contents), _validity(contents)):
        for count, kind in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
                            ("skipped", "testcase/skipped")):  # fmt: skip
            suite.set(count, str(len(suite.findall(kind))))
        root.append(suite)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, 0)) for suite in root)))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _thresholds(contents: Contents) -> ET.Element:
    suite = _suite(contents, "thresholds")
    for judged in contents.answer.thresholds:
        verdict = judged.verdict
        server = verdict.server or verdict.threshold.server or ""
        case = _case(suite, f"{verdict.threshold} [{', '.join(filter(None, (server, judged.cell_label)))}]")
        if verdict.state == "missed":
            ET.SubElement(case, "failure", type="missed", message=xml(verdict.text))
        elif not verdict.held:
            ET.SubElement(case, "error", type="not known", message=xml(verdict.text))
        else:
            ET.SubElement(case, "system-out").text = xml(verdict.text)
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
