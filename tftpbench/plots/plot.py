"""A Plot: a figure with what is drawn in it, as PNG, SVG and CSV. The only place that renders.

Equal figures give equal bytes: no date, no random id.
"""

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tftpbench.model.errors import PlotError
from tftpbench.model.escape import csv_frame
from tftpbench.model.regular_file import write_whole
from tftpbench.plots import style

PNG_DPI = 200  # 1440 pixels: sharp at twice the width of a README

# A hundredth of a point can't be seen, and is a third of the bytes.
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"(?:url\(|^)#([\w-]+)\)?")


@dataclass(frozen=True)
class Plot:
    """What a plot function returns. It shows itself in Jupyter."""

    figure: Figure
    data: pd.DataFrame
    """Exactly what is drawn, one row per mark."""
    title: str
    alt: str
    """One sentence that says what is to be seen, for screen readers."""

    def save(self, path: Path | str) -> tuple[Path, ...]:
        """Write one file, path.png, path.svg or path.csv as the path ends; one without such an end is all three.

        Gives the paths written, each whole and then renamed. PlotError where that can't be done, as for an end that is
        another kind of picture.
        """
        path = Path(path)
        kinds: dict[str, Callable[[], bytes]] = {
            ".png": lambda: _rendered(self.figure, "png"),
            ".svg": lambda: _rendered(self.figure, "svg"),
            ".csv": lambda: csv_frame(self.data).encode(),
        }
        asked = path.suffix.lower()
        if asked not in kinds and asked[1:] in self.figure.canvas.get_supported_filetypes():
            raise PlotError(
                f"{path}: can't be written as {asked}; allowed: {', '.join(kinds)}, or no end for all three"
            )
        paths = {asked: path} if asked in kinds else {kind: path.parent / f"{path.name}{kind}" for kind in kinds}
        contents = [(each, kinds[kind]()) for kind, each in paths.items()]
        return tuple(write_whole(each, content, PlotError) for each, content in contents)

    @property
    def svg(self) -> str:
        """An <svg> element to stand in an HTML page, with `alt` as its label.

        Text is text; no prolog, no style sheet that would reach the page. Ids begin with a hash of the picture, so that
        several can stand in one page.
        """
        raw = _rendered(self.figure, "svg")
        root = ET.fromstring(raw)  # noqa: S314 # our own picture, made above
        _own_style(root)
        _own_ids(root, "p" + hashlib.sha256(raw).hexdigest()[:10])
        for path in root.iter(f"{{{_SVG}}}path"):
            path.set("d", _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", path.get("d", "")).replace("\n", ""))
        root.set("role", "img")
        if self.alt:
            root.set("aria-label", style.printable(self.alt))
        ET.register_namespace("", _SVG)
        ET.register_namespace("xlink", _XLINK)
        return ET.tostring(root, encoding="unicode")

    @property
    def png(self) -> bytes:
        """The picture, 1440 pixels wide."""
        return _rendered(self.figure, "png")

    def _repr_png_(self) -> bytes:
        return self.png

    def _repr_html_(self) -> str:
        return f'<figure style="background:#fff;margin:0">{self.svg}</figure>'


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    with style.applied():
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        else:
            figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _own_style(root: ET.Element) -> None:
    """Matplotlib's style sheet is for `*`: in a page that is every element. Both its properties are inherited."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    root.set("style", "stroke-linejoin:round;stroke-linecap:butt;max-width:100%;height:auto")


def _own_ids(root: ET.Element, prefix: str) -> None:
    """Keep the ids that something refers to, and begin them with the prefix."""
    wanted = {found[1] for element in root.iter() for found in map(_REFERENCE.search, element.attrib.values()) if found}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name != "id":
                element.set(name, _REFERENCE.sub(lambda found: found[0].replace("#", f"#{prefix}"), value))
            elif value in wanted:
                element.set(name, prefix + value)
            else:
                del element.attrib[name]
