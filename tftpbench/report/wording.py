"""Text from a run, made harmless for where it is put: a page, a Markdown table, XML.

HTML needs nothing here but `visible`: the template escapes. Only `tftpbench.report` may ask for this.
"""

import re

# What moves a terminal or turns the text around it (Unicode's bidirectional controls), and lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
# What is not a character of XML 1.0 (section 2.2).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Whatever CommonMark or GitHub may take for markup inside a line.
_MARKUP = re.compile(r"[\\`*_\[\]<>|~&#$!]")
_MENTION = re.compile(r"(?<![\w.])@(?=\w)")
_BLOCK_START = re.compile(r"^(?:(?=[-+=])|\d+(?=[.)]))")


def visible(text: str) -> str:
    """Control characters as escapes to be read; tabs and line ends stay."""
    return _UNSEEN.sub(_escape, text)


def markdown(text: object) -> str:
    """Exactly this text in one line of Markdown, beside other words or in the cell of a table."""
    line = visible(" ".join(str(text).split()))
    line = _MARKUP.sub(lambda match: f"\\{match[0]}" if match[0] not in "<>&" else _ENTITIES[match[0]], line)
    return _MENTION.sub("@\u200b", line)  # nobody is called by the name of a server


def markdown_block(text: object) -> str:
    """The same at the start of a paragraph or of a list's item."""
    return _BLOCK_START.sub(lambda match: f"{match[0]}\\", markdown(text))


def xml(text: object) -> str:
    """Only characters that XML 1.0 has; markup is escaped by whoever writes the XML."""
    return _NOT_XML.sub(_escape, str(text))


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
