"""Each value that a notebook shows, as HTML. Asked for by name by `tftpbench.model.shown`."""

from functools import singledispatch

from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.summary import Answer
from tftpbench.render import answer, comparison, notebook


@singledispatch
def html(value: object) -> str:
    """The value as HTML, whatever it holds escaped."""
    raise TypeError(f"a value of type {type(value).__name__} has no HTML")


@html.register
def _(value: Answer) -> str:
    return notebook.html(answer.sections(value)[:2])


@html.register
def _(value: Comparison) -> str:
    return notebook.html(comparison.sections(value))
