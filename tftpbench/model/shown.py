"""What a notebook shows of a value: the class knows that it is shown, and `tftpbench.render.notebook` how.

So neither figures nor results import a renderer; it is imported when a notebook asks for the first time.
"""

from importlib import import_module

RENDERER = "tftpbench.render.notebook"


class Shown:
    """A value that Jupyter shows as HTML."""

    def _repr_html_(self) -> str:
        return str(import_module(RENDERER).value_html(self))
