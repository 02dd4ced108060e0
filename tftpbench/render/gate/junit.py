"""The gate for a CI server: JUnit XML, a test case per gated metric and cell, and one for the contents.

What ends the gate red is a failure, what could not be judged is skipped with its reason.
"""

from xml.etree import ElementTree as ET

from tftpbench.gate.result import ERRORS, FailOn, GateResult, Judgement, Verdict
from tftpbench.gate.text import change
from tftpbench.model.escape import xml
from tftpbench.model.units import counted

_NOT_JUDGED: tuple[Verdict | None, ...] = (Verdict.INVALID, Verdict.INCONCLUSIVE, None)


def write_junit(result: GateResult, fail_on: FailOn = "regressed") -> str:
    """The whole document. `fail_on`: the least severe verdict that is a failure, as for the exit code."""
    name = str(result.facts.scenario.get("name") or "gate")
    root = ET.Element("testsuites", name=xml(f"gate: {result.base.entry} and {result.head.entry}"))
    suite = ET.SubElement(root, "testsuite", name=xml(f"{name}.gate"))
    suite.set("time", f"{result.facts.duration_s:.3f}")
    suite.set("timestamp", xml(result.facts.started_at[:19]))
    _contents(suite, result)
    for judgement in result.judgements:
        if judgement.budget is not None:
            _judged(suite, judgement, fail_on)
    for count, kind in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
                        ("skipped", "testcase/skipped")):  # fmt: skip
        suite.set(count, str(len(suite.findall(kind))))
        root.set(count, suite.get(count, "0"))
    ET.SubElement(suite, "system-out").text = xml("\n".join([result.sentence, *result.remarks]))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _contents(suite: ET.Element, result: GateResult) -> None:
    """Whether every byte was right, and both servers lived."""
    case = _case(suite, "contents")
    if result.failure is not None:
        ET.SubElement(case, "failure", type="contents", message=xml(result.failure))


def _judged(suite: ET.Element, judgement: Judgement, fail_on: FailOn) -> None:
    case = _case(suite, f"{judgement.metric} [{judgement.cell}]")
    text = _description(judgement)
    if judgement.verdict in ERRORS[fail_on]:
        ET.SubElement(case, "failure", type=str(judgement.verdict), message=xml(text))
    elif judgement.verdict in _NOT_JUDGED:
        ET.SubElement(case, "skipped", message=xml(text))
    else:
        ET.SubElement(case, "system-out").text = xml(text)


def _description(judgement: Judgement) -> str:
    text = f"{judgement.verdict or 'not judged'}: {judgement.detail}"
    return text if judgement.ratio is None else f"{text}; {change(judgement)}, {counted(judgement.pairs, 'pair')}"


def _case(suite: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=xml(name))
