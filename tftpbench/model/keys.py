"""Short, stable names for "the same work", "the same method" and "the same machine".

A key is the SHA-256 of the fields as JSON with sorted names and no spaces, cut to 16 hexadecimal digits. The fields of
each key are listed in docs/results-format.md. It must never depend on the order of fields, on the Python version or on
a hash seed.

What schema 1 hashed is hashed for ever, default or not, in the same spelling. A field that came later carries `Added`
with the value that older runs implied, and is hashed only where it differs from that: recorded runs keep their keys.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

# 64 bits: a collision among a million cells has a chance of about 3e-8.
DIGITS = 16
# Part of method_key: to be changed with anything in analysis/stats.py that changes a figure.
ESTIMATOR = "paired log-ratio, 20 % trimmed mean, expanded percentile bootstrap over pairs, 95 %, Yuen's t/2"


@dataclass(frozen=True)
class Added:
    """Metadata of a field that schema 1 did not have. `implied`: what older runs did, as the field's value.

    It is fixed for good, and need not be today's default.
    """

    implied: object


def stable_key(fields: Mapping[str, object]) -> str:
    """Name the fields, which must be plain JSON values, with 16 hexadecimal digits."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:DIGITS]


def key_fields(model: BaseModel) -> dict[str, object]:
    """The fields of a part of a scenario that go into a key, as plain JSON values."""
    implied = {name for name, added in _added(type(model)).items() if getattr(model, name) == added.implied}
    return model.model_dump(mode="json", exclude=implied)


def with_implied(data: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """What an older run's document says, with what it implied where it lacks a later field; `data` of `model`."""
    found = dict(data)
    for name, added in _added(model).items():
        key = model.model_fields[name].alias or name
        if key not in found and name not in found:
            found |= model.model_construct(None, **{name: added.implied}).model_dump(mode="json", include={name})
    return found


def _added(model: type[BaseModel]) -> dict[str, Added]:
    found = ((name, each) for name, field in model.model_fields.items() for each in field.metadata)
    return {name: each for name, each in found if isinstance(each, Added)}
