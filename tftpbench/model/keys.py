"""Short, stable names for "the same work", "the same method" and "the same machine".

A key is the SHA-256 of the fields as JSON with sorted names and no spaces, cut to 16 hexadecimal digits. The fields of
each key are listed in docs/results-format.md. It must never depend on the order of fields, on the Python version or on
a hash seed.
"""

import hashlib
import json
from collections.abc import Mapping

# 64 bits: a collision among a million cells has a chance of about 3e-8.
DIGITS = 16
# Part of method_key: to be changed with anything in analysis/stats.py that changes a figure.
ESTIMATOR = "paired log-ratio, 20 % trimmed mean, expanded percentile bootstrap over pairs, 95 %, Yuen's t/2"


def stable_key(fields: Mapping[str, object]) -> str:
    """Name the fields, which must be plain JSON values, with 16 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGITS]
