"""``tftpbench report``: a stored run as one document that a stranger understands without the project.

    contents.py       what a report says, in its order, from a Run: the one thing that all forms below are written from
    figures.py        which plots, of which part of the run
    page.py           HTML: page.html.j2 with page.css and page.js beside it, one file, no network
    forms.py          Markdown for a pull request, JUnit for a CI server, JSON and CSV for programs

Everything that comes out of a run is hostile: a server chooses its error texts, a person the names;
`tftpbench.model.escape` makes text harmless for where it is put. It must never compute a figure of its own, write a
file, or change a run.
"""

from collections.abc import Callable

from tftpbench.model.escape import document_text
from tftpbench.render.report.contents import Contents, contents_of
from tftpbench.render.report.forms import write_csv, write_json, write_junit, write_markdown
from tftpbench.store import Run

__all__ = ["FORMATS", "report"]


def _page(contents: Contents) -> str:
    from tftpbench.render.report.page import write_page  # matplotlib takes a second to import

    return write_page(contents)


_WRITERS: dict[str, Callable[[Contents], str]] = {
    "html": _page,
    "md": write_markdown,
    "json": write_json,
    "csv": write_csv,
    "junit": write_junit,
}
FORMATS = tuple(_WRITERS)


def report(run: Run, form: str = "html") -> str:
    """The whole run in one of FORMATS, as text that encodes to UTF-8.

    A run that was cut off, or has no trial at all, gives a report that says so. Raises ResultsError where the run can't
    be read, ValueError for another form.
    """
    if form not in _WRITERS:
        raise ValueError(f"no report is called {form!r}; allowed: {', '.join(FORMATS)}")
    # A name need not be UTF-8: its odd bytes are lone surrogates, which no encoding has, and which are escaped here.
    return document_text(_WRITERS[form](contents_of(run)))
