"""The report as one HTML file: no network, readable without JavaScript, and nothing of a run's text is ever markup.

The template escapes everything but our own style sheet and script, and the pictures of `tftpbench.plots`, which escape
for themselves; the page's policy lets no other script run.
"""

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

from tftpbench.model.escape import visible
from tftpbench.model.units import counted
from tftpbench.render.answer import IN_FLIGHT
from tftpbench.render.report.contents import Contents, unharmed
from tftpbench.render.report.figures import figures_of
from tftpbench.render.report.forms import write_csv

_MARKS = {"held": "✓", "missed": "✗", "not known": "?"}


def write_page(contents: Contents) -> str:
    """The whole page."""
    figures = figures_of(contents)  # before problems are asked for: more come to light
    script = _beside("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            contents=contents,
            answer=contents.answer,
            figures=figures,
            trials_csv=write_csv(contents),
            style=Markup(_beside("page.css")),  # noqa: S704 # ours
            script=Markup(script),  # noqa: S704 # ours
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_beside),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"counted": counted, "marks": _MARKS, "unharmed": unharmed, "in_flight_title": IN_FLIGHT}
    made.filters |= {"data_link": _data_link, "picture": _picture}
    return made


def _finalized(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_link(text: str) -> str:
    content = text.encode("utf-8", "backslashreplace")
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode()}"


def _picture(svg: str) -> Markup:
    return Markup(visible(svg))  # noqa: S704 # made by our own plots, which escape


def _beside(name: str) -> str:
    return (resources.files("tftpbench.render.report") / name).read_text(encoding="utf-8")
