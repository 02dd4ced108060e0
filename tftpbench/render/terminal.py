"""The border between tftpbench and the readers of its standard output and standard error.

Inside `printing`, `sys.stdout` and `sys.stderr` let no control or format character of others through, whichever code
writes. Only colours and the live line, which are made here, get through. A stream that is closed, full or no longer
read is no error for the code that writes: it is remembered, and reported once at the end. So a measurement goes on
although its output is lost. It must never decide what is said.
"""

import contextlib
import io
import locale
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from tftpbench.model.escape import JSON_ESCAPES, document_text, visible

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_ELSEWHERE = 250
CLEAR_LINE = "\r\x1b[K"
# The colours of `summary.render` and of the gate's text (ECMA-48, SGR), and no other sequence.
_COLOURS = re.compile(r"(\x1b\[(?:0|1|31|32|33)m)")


class Output(io.TextIOBase):
    """Standard output or standard error: `write` escapes, and never raises for a stream that can't be written."""

    def __init__(self, stream: TextIO, whole: "Output | None" = None) -> None:
        """`whole`: the Output that this one writes for unescaped; failures are remembered there."""
        self._stream = stream
        self._whole = whole
        self._failure: OSError | None = None

    @property
    def failure(self) -> OSError | None:
        """What became of it, where it can't be written any more."""
        return self._whole.failure if self._whole is not None else self._failure

    @property
    def unescaped(self) -> "Output":
        """The same stream for a renderer that escapes by itself and moves the cursor: `console`."""
        return Output(self._stream, whole=self)

    def write(self, text: str) -> int:
        """Write the text with every control and format character escaped."""
        self._attempt(lambda: self._stream.write(text if self._whole is not None else visible(text)))
        return len(text)

    def write_painted(self, text: str) -> None:
        """The same, but for the colours of our own palette, where `has_colour`."""
        pieces = _COLOURS.split(text)
        colours = self.has_colour
        shown = [piece if number % 2 and colours else visible(piece) for number, piece in enumerate(pieces)]
        self._attempt(lambda: self._stream.write("".join(shown)))

    def write_document(self, text: str) -> None:
        """A document for a program: UTF-8 whatever the terminal can show."""
        content = document_text(text).encode("utf-8", JSON_ESCAPES)
        buffer = getattr(self._stream, "buffer", None)
        self.flush()
        self._attempt(lambda: buffer.write(content) if buffer is not None else self._stream.write(content.decode()))
        self.flush()

    def clear_line(self) -> None:
        """Take away the line that the cursor is in, on a terminal."""
        if self.isatty():
            self._attempt(lambda: self._stream.write(CLEAR_LINE))

    @property
    def has_colour(self) -> bool:
        """Whether a person looks at it and wants colour (no-color.org)."""
        return self.isatty() and "NO_COLOR" not in os.environ

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where it is none."""
        return shutil.get_terminal_size().columns if self.isatty() else None

    def flush(self) -> None:
        """Hand on what was written."""
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always: that is what it is for."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override] # of a text stream, and read by code that writes
        """The encoding of the stream below, or the locale's where it has less: in the C locale Python writes UTF-8."""
        codeset = locale.nl_langinfo(locale.CODESET)
        return self._stream.encoding if has_ticks(codeset) else codeset

    def _attempt(self, act: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            act()
        except OSError as error:
            (self._whole or self)._failure = error  # noqa: SLF001 # of the same class


@contextlib.contextmanager
def printing() -> Iterator[tuple[Output, Output]]:
    """Stand at the border for a while: standard output and standard error become Outputs, and are given back."""
    before = sys.stdout, sys.stderr
    outputs = tuple(each if isinstance(each, Output) else Output(_encoding_all(each)) for each in before)
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", outputs)
    try:
        yield cast("tuple[Output, Output]", outputs)
    finally:
        for output in outputs:
            output.flush()
        sys.stdout, sys.stderr = before


def open_standard_streams() -> None:
    """Where the program was started with a standard stream closed (`>&-`), put /dev/null in its place.

    Else the next file that is opened, a run's trials perhaps, would receive what is printed (open(2):
    the lowest number that is free).
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has this number: the lowest that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # for as long as we live


def has_ticks(encoding: str | None) -> bool:
    """Whether an encoding has the signs for good and bad."""
    try:
        "✓✗".encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def forget(output: Output) -> None:
    """Discard what is still in the buffers of a stream that can't be written: Python flushes them at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def output_of(stream: TextIO) -> Output:
    """The stream as an Output; itself where it is one."""
    return stream if isinstance(stream, Output) else Output(stream)


def console(stream: TextIO, **options: Any) -> "Console":
    """The only rich console there may be: colours and cursor are rich's, every text in it is escaped."""
    from rich.console import Console
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, *args: Any, **keys: Any) -> Any:
            for segment in super().render(*args, **keys):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return EscapingConsole(file=cast("TextIO", output_of(stream).unescaped), **options)


def print_table(columns: Mapping[str, Mapping[str, Any]], rows: Iterable[Sequence[str]]) -> None:
    """Rows under the names of columns, on standard output; `columns` has rich's options of each.

    A terminal's width folds it; elsewhere lines are for programs and for reading later, and nothing is folded.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, options in columns.items():
        table.add_column(name, **options)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else WIDTH_ELSEWHERE
    console(sys.stdout, width=width, highlight=False, markup=False, emoji=False).print(table)


def _encoding_all(stream: TextIO) -> TextIO:
    """What its encoding lacks becomes an escape: text and JSON stay whole."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=JSON_ESCAPES)
    return stream
