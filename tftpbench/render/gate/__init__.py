"""What a gate says on a terminal, and leaves in its folder for people and for CI servers.

    sections.py    the sections that a terminal shows
    markdown.py    report.md: for a pull request
    junit.py       junit.xml: for a CI server
    figures.py     forest and pairs, as pictures with their data

Names of servers and what they say are hostile. It must never decide, or compute a figure of its own.
"""

from pathlib import Path

from tftpbench.gate.document import FILE, text
from tftpbench.gate.result import FailOn, GateResult
from tftpbench.model.errors import ResultsError
from tftpbench.model.whole_file import write_whole
from tftpbench.render.gate.junit import write_junit
from tftpbench.render.gate.markdown import write_markdown

__all__ = ["JUNIT", "REPORT", "write", "write_junit", "write_markdown"]

REPORT = "report.md"
JUNIT = "junit.xml"


def write(result: GateResult, folder: Path, fail_on: FailOn = "regressed") -> None:
    """Write gate.json, report.md, junit.xml and the figures, each whole and then renamed.

    Raises ResultsError, naming the file, where that can't be done.
    """
    from tftpbench.render.gate.figures import save_figures  # matplotlib takes a second to import

    for name, content in (
        (FILE, text(result)),
        (REPORT, write_markdown(result)),
        (JUNIT, write_junit(result, fail_on)),
    ):
        write_whole(folder / name, content.encode("utf-8", "backslashreplace"), ResultsError)
    save_figures(result, folder)
