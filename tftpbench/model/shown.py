"""What people are shown of results: what a column holds, and which values a notebook shows.

A value knows that it is shown, and `tftpbench.render.notebook` how. So neither figures nor results import a renderer;
it is imported when a notebook asks for the first time.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

Dtype = Literal["int", "float", "text", "time", "list", "bool"]
Across = Literal["sum", "max", "min", "recompute"]
"""How figures of several load hosts give one: in the last way from what they were made of, in host/hosts/merge.py."""
RENDERER = "tftpbench.render.notebook"


class Shown:
    """A value that Jupyter shows as HTML."""

    def _repr_html_(self) -> str:
        return str(import_module(RENDERER).value_html(self))


@dataclass(frozen=True)
class Column:
    """What a column holds. unit "" means a plain number, key or word.

    `across`: how figures of several load hosts give one; None of what is no figure of a load generator.
    """

    unit: str
    meaning: str
    dtype: Dtype
    nullable: bool = True
    across: Across | None = None

    @property
    def is_number(self) -> bool:
        """Whether it can be compared with a number."""
        return self.dtype in {"int", "float"}
