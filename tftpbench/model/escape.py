"""Text that others wrote, made harmless for where it is put: a terminal, a line, Markdown, XML, a cell of CSV.

A server chooses its error texts and its version, a person the names of files and scenarios, and a folder may have been
altered. Everything that is printed goes through `visible` once more where it leaves the program
(`tftpbench.render.terminal`), so a call that is missing elsewhere is no hole. It imports nothing of ours;
"""

import codecs
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# General categories Cc (but tab and line end), Cf, Cs, Zl and Zp of Unicode 16: what moves a terminal, turns the text
# around it, can't be seen or can't be encoded. A test holds this against Python's own table.
_UNSEEN_RANGES = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
_UNSEEN = re.compile(f"[{_UNSEEN_RANGES}]")
# What is not a character of XML 1.0 (section 2.2).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Whatever CommonMark or GitHub may take for markup inside a line.
_MARKUP = re.compile(r"[\\`*_\[\]<>|~&#$!]")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
# GitHub mentions whom an @ names, unless a letter, a digit or _ of ASCII stands before it.
_MENTION = re.compile(r"(?<![A-Za-z0-9_])@(?=\w)")
_MENTION_BREAK = "\u200b"  # our own, added behind `visible`
_BLOCK_START = re.compile(r"^(?:(?=[-+=])|\d+(?=[.)]))")
# A spreadsheet takes a cell that starts so for a formula: OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# A message must fit a screen; what is longer is a word that no person typed.
LINE_MAX = 2000
# The error handler of streams whose encoding lacks a character; see `_as_json`.
JSON_ESCAPES = "tftpbench.json-escapes"


def visible(text: str) -> str:
    r"""The text with control and format characters as escapes to be read, \uXXXX; tabs and line ends stay.

    The escapes are those of JSON, so a document of JSON means the same afterwards. Twice is the same as once.
    """
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub(_escape, text)


def one_line(text: object, longest: int = LINE_MAX) -> str:
    """The text in one visible line; of one that is longer than `longest` the middle is left out, and is counted."""
    whole = str(text)
    if len(whole) > 8 * longest:  # not a megabyte through what follows
        whole = _cut(whole, 4 * longest)
    return _cut(visible(" ".join(line.strip() for line in whole.splitlines())), longest)


def visible_line(text: str) -> str:
    """`visible`, with line ends as escapes, too: a line that others wrote stays one beside its neighbours."""
    return visible(text).replace("\n", "\\n")


def document_text(text: str) -> str:
    """A Markdown, CSV, JSON or XML document as it may be printed: `visible`, but for what `markdown` itself adds."""
    return _MENTION_BREAK.join(visible(part) for part in text.split(_MENTION_BREAK))


def markdown(text: object) -> str:
    """Exactly this text in one line of Markdown, beside other words or in the cell of a table."""
    line = visible(" ".join(str(text).split()))
    line = _MARKUP.sub(lambda match: f"\\{match[0]}" if match[0] not in _ENTITIES else _ENTITIES[match[0]], line)
    return _MENTION.sub(f"@{_MENTION_BREAK}", line)  # the name of a server mentions no user


def markdown_block(text: object) -> str:
    """The same at the start of a paragraph or of a list's item."""
    return _BLOCK_START.sub(lambda match: f"{match[0]}\\", markdown(text))


def xml(text: object) -> str:
    """Only characters that XML 1.0 has and that can be seen; markup is escaped by the code that writes the XML."""
    return _NOT_XML.sub(_escape, visible(str(text)))


def csv_cell(value: object) -> object:
    """A value for a cell of CSV: text that a spreadsheet would take for a formula gets a ' before it; numbers stay."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def csv_row(values: Iterable[object]) -> list[object]:
    """The same for a whole row, or for the names above it."""
    return [csv_cell(value) for value in values]


def csv_frame(frame: "pd.DataFrame") -> str:
    """A data frame as CSV without its index, with such cells."""
    safe = {
        csv_cell(name): column.astype(object).map(csv_cell) if column.dtype.kind == "O" else column
        for name, column in frame.items()
    }
    return str(type(frame)(safe).to_csv(index=False))


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head, tail = longest * 3 // 4, longest // 4  # the end says what to do
    return f"{text[:head]} ... ({len(text) - head - tail} characters left out) ... {text[-tail:]}"


def _escape(match: re.Match[str]) -> str:
    return "".join(_json_escape(character) for character in match[0])


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)  # JSON has pairs of surrogates instead (RFC 8259 section 7)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _as_json(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, as JSON's own escapes: text can be read, and a document of JSON stays one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_json_escape, error.object[error.start : error.end])), error.end


codecs.register_error(JSON_ESCAPES, _as_json)
