"""How results come to their look in a notebook, without knowing what renders them.

Whoever shows results registers a function here, and every result asks it. It must never import a renderer.
"""

from collections.abc import Callable

_registered: list[Callable[[object], str]] = []


def register(html: Callable[[object], str]) -> None:
    """Make `html` the function that gives a result as HTML; the one before is forgotten."""
    _registered[:] = [html]


class Shown:
    """A result that a notebook shows as HTML where a renderer is registered, and else as its repr."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return _registered[0](self) if _registered else None
