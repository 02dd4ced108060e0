"""Rows of trials.jsonl as a data frame with types and categories."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tftpbench.model.axes import AXES
from tftpbench.model.metrics import COLUMNS, METRICS
from tftpbench.model.thresholds import server_name

if TYPE_CHECKING:
    import pandas as pd

_DTYPES = {"int": "Int64", "float": "float64", "text": "string", "list": "object", "bool": "boolean"}
# Text of few values, and those that are known beforehand, in the order in which they are shown.
_WORDS: dict[str, tuple[str, ...]] = {
    "server": (),
    "variant": (),
    "operation": ("read", "write"),
    "arrivals": ("even", "poisson"),
    "verify": (),
    "server_cpus": (),
    "generator_cpus": (),
    "verdict": ("valid", "invalid"),
    "generator_sockets": (),
}
CONTENDER = "contender"
# What a transfer's row says of its trial.
CELL = (CONTENDER, *AXES, "verdict")


def trials(rows: Sequence[Mapping[str, Any]], entered: Sequence[str]) -> "pd.DataFrame":
    """One row per trial: COLUMNS in order, then newer ones, then `contender`.

    `entered`: the contenders in the scenario's order, which is the order of the categories; those without a trial
    are no category.
    """
    import pandas as pd

    others = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS and name != CONTENDER)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *others])
    names = [server_name(row) for row in rows]
    order = [name for name in dict.fromkeys([*entered, *names]) if name in set(names)]
    known = _WORDS | {"server": tuple(name.partition("@")[0] for name in order)}
    for name, column in COLUMNS.items():
        if column.dtype == "time":
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        elif name in known:
            frame[name] = _words(frame[name].tolist(), known[name])
        elif name in METRICS and METRICS[name].may_be_never:
            times = [math.inf if row.get(f"{name}_is_never") else row.get(name) for row in rows]
            frame[name] = pd.array(times, dtype="float64")
        elif column.dtype == "int":  # not by way of the frame: beside a None it has floats, which lack the last digits
            frame[name] = pd.array([row.get(name) for row in rows], dtype="Int64")
        else:
            frame[name] = frame[name].astype(_DTYPES[column.dtype])  # type: ignore[call-overload]
    frame[CONTENDER] = _words(names, order)
    return frame


def _words(values: Sequence[str | None], first: Sequence[str]) -> "pd.Categorical":
    import pandas as pd

    there = [value if isinstance(value, str) else None for value in values]  # an absent key is NaN in a frame
    return pd.Categorical(
        there, categories=list(dict.fromkeys([*first, *(word for word in there if word is not None)]))
    )
