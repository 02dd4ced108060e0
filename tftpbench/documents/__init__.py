"""Files that people write in YAML: read within limits, placed by line and column, turned into pydantic models.

Scenarios and manifests are read here, so that every mistake in either is one line: file, line, column, the
key, what is wrong, what is allowed. It must never build an object that a file names (no YAML tags), and it
knows no scenario and no server. Called by `scenario` and `servers`.
"""

from tftpbench.documents.model import Allowed, KeyFault, Strict, parse
from tftpbench.documents.source import Document, Origin, from_data, read

__all__ = ["Allowed", "Document", "KeyFault", "Origin", "Strict", "from_data", "parse", "read"]
