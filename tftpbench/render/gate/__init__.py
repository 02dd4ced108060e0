"""What a gate leaves in its folder for people and for CI servers.

    markdown.py    report.md: for a pull request
    junit.py       junit.xml: for a CI server
    figures.py     forest and pairs, as pictures with their data

Names of servers and what they say are hostile. It must never decide, or compute a figure of its own.
"""

import contextlib
import os
from pathlib import Path

from tftpbench.gate.document import FILE, text
from tftpbench.gate.result import FailOn, GateResult
from tftpbench.model.errors import ResultsError
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

    _write_whole(folder / FILE, text(result))
    _write_whole(folder / REPORT, write_markdown(result))
    _write_whole(folder / JUNIT, write_junit(result, fail_on))
    save_figures(result, folder)


def _write_whole(path: Path, content: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode("utf-8", "backslashreplace"))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ResultsError(f"{path}: can't be written: {error.strerror or error}") from None
