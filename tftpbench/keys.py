"""Short, stable names for "the same work", "the same method" and "the same machine".

A key is the SHA-256 of the fields as JSON with sorted names and no spaces, cut to 16 hexadecimal digits.
The fields of each key are listed in docs/results-format.md. It must never depend on the order of fields,
on the Python version or on a hash seed. Everybody may call it.
"""

import hashlib
import json
from collections.abc import Mapping

# 64 bits: a collision among a million cells has a chance of about 3e-8.
DIGITS = 16


def stable_key(fields: Mapping[str, object]) -> str:
    """Name the fields, which must be plain JSON values, with 16 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGITS]
