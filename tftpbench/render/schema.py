"""JSON Schemas of the formats, for editors and for programs that read results.

Those of files, tables and gates are made from the models, columns and types that the code itself uses; those of the
other documents are written down here, and a test holds real documents against them. The committed copies
in docs/schema are this module's output.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from tftpbench.gate.document import SCHEMA as GATE_SCHEMA
from tftpbench.gate.result import GateResult
from tftpbench.host.conditions import CONDITIONS, EFFECTS
from tftpbench.host.conditions import SCHEMA as DOCTOR_SCHEMA
from tftpbench.measure.findings import Origin
from tftpbench.model.axes import AXES, LOAD_HOSTS
from tftpbench.model.boot import BootFile
from tftpbench.model.capacity import SCHEMA as CAPACITY_SCHEMA
from tftpbench.model.capacity import Capacity, FoundCapacity
from tftpbench.model.gate_settings import Gate
from tftpbench.model.manifest import Manifest
from tftpbench.model.metrics import (
    BOOT_COLUMNS,
    BOOTS,
    COLUMNS,
    HEADLINE,
    INTERVAL_COLUMNS,
    OPEN_LOOP,
    TRANSFER_COLUMNS,
    Metric,
    with_never,
)
from tftpbench.model.scenario import Scenario
from tftpbench.model.shown import Column, Dtype
from tftpbench.model.workload import Client, Placement
from tftpbench.store import SCHEMA as RUN_SCHEMA
from tftpbench.store.format import PACKED_SCHEMA

Kind = Literal[
    "scenario", "server", "boot", "results", "manifest", "transfers", "boots", "intervals", "summary", "comparison",
    "gate", "capacity", "doctor",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES = {
    "int": "integer", "float": "number", "text": "string", "time": "string", "list": "array", "bool": "boolean",
}  # fmt: skip
Schema = dict[str, Any]


def json_schema(kind: Kind) -> Schema:
    """The schema of a file that people write, of one row of a run's tables, or of a document that commands print."""
    return {"$schema": DIALECT, **_MAKERS[kind]()}


def text(kind: Kind) -> str:
    """The schema as it is printed and committed."""
    return json.dumps(json_schema(kind), indent=1, ensure_ascii=False) + "\n"


def _as_written(schema: Schema) -> Schema:
    """As people write scenarios: one value stands for a list of one, and defaults are durations with a unit."""
    properties, parts = schema["properties"], schema["$defs"]
    for owner, names in (
        (parts["Matrix"]["properties"], [axis.key for axis in AXES.values() if not axis.is_one]),
        (properties, ["servers", "thresholds", "capacity"]),
        (parts["Capacity"]["properties"], ["find"]),
    ):
        for name in names:
            items = owner[name]
            described = {key: items.pop(key) for key in ("description", "default") if key in items}
            owner[name] = {"anyOf": [items["items"], items], **described}
    only = parts["Capacity"]["properties"]["servers"]["anyOf"][0]
    parts["Capacity"]["properties"]["servers"]["anyOf"].insert(0, only["items"])
    for model in (Capacity, Client, Gate, Placement):
        written = model().model_dump(mode="json")
        for name, value in written.items():
            parts[model.__name__]["properties"][name]["default"] = value
        properties[model.__name__.lower()].pop("default")
    for name in ("duration", "transfers", "warm_up"):
        del properties[name]["default"]
    return schema


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which repeat each key in capitals."""
    if isinstance(schema, dict):
        return {key: _untitled(item) for key, item in schema.items() if not (key == "title" and isinstance(item, str))}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def _boot() -> Schema:
    made = BootFile.model_json_schema()
    made["$defs"]["_Request"]["properties"]["think"]["default"] = "0s"  # as people write it
    return made


def _trial() -> Schema:
    return _table(f"One line of trials.jsonl ({RUN_SCHEMA})", COLUMNS)


def _manifest() -> Schema:
    facts = {"type": "object", "description": "What was found of it; unknown facts are null."}
    texts = {"type": "array", "items": {"type": "string"}}
    server = _object(
        {
            "version": _text("As it says itself.", nullable=True),
            "model": _text("How it handles transfers at once, in its manifest's words."),
            "homepage": _text("Where it comes from."),
            "argv": {**texts, "description": "Its command, with placeholders."},
            "argv_write": {**texts, "description": "What the command gets besides for uploads."},
            "env": {"type": "object"},
            "caps": {"type": "object", "description": "What it limits, and how that was lifted."},
            "manifest": _text("Where its manifest lies, or the entry that named it."),
        },
        required=("version", "model", "manifest"),
    )
    skip = _object(
        {
            "server": _text("Its name."),
            "cell_key": _text("The one cell that is left out; null for all of them.", nullable=True),
            "reason": _text("Why."),
        }
    )
    left_out = _object(
        {
            "server": _text("Its name, or name@variant."),
            "reason": _text("Why it did not start the last time, with the last line of its log."),
            "failed_trials": {**_list({"type": "integer"}), "description": "Trials in which it did not start."},
            "not_done": {"type": "integer", "description": "Trials that were not tried any more."},
        }
    )
    chosen = _object(
        {
            "cell_key": _text("The cell."),
            "server_busy_polls": {"type": "boolean", "description": "For servers that never sleep."},
            "arrangement": {"type": "object", "description": "Sockets, batches, waiting and threads of both sides."},
            "text": _text("The same in words."),
        }
    )
    keys = _object({"method_key": _text("Equal for an equal method."), "host_key": _text("Equal for equal machines.")})
    keys["properties"]["load_hosts_key"] = _text("Equal for equal load hosts; there where these made the load.")
    whole = _object(
        {
            "schema": {"enum": [RUN_SCHEMA, PACKED_SCHEMA], "description": "The latter of a packed run."},
            "scenario": {"type": "object", "description": "The scenario as run, every default and --set in it."},
            "seed": {"type": "integer", "description": "Of the order of trials and of the files' contents."},
            "trials_planned": {"type": "integer", "description": "Lines of trials.jsonl when the run is complete."},
            "servers": {
                "type": "object",
                "additionalProperties": server,
                "description": "What took part, in the scenario's order.",
            },
            "skipped": {"type": "array", "items": skip, "description": "What was left out, and why."},
            "placement": {"type": "object", "description": "Which cores each side had."},
            "roots": {"type": "object", "description": "Where the served files lay."},
            "argv": {**texts, "description": "The command that began the run."},
            "machine": facts,
            "build": {"type": "object", "description": "Versions, build profile and git commit of tftpbench."},
            "keys": keys,
        },
        title=f"manifest.json ({RUN_SCHEMA})",
    )
    full = _object(
        {
            "cell_key": _text("The cell."),
            "data_pps": {"type": ["number", "null"], "description": "DATA blocks per second; null where not known."},
            "text": _text("Why it is not known, else empty."),
            "in_flight": {"type": ["integer", "null"], "description": "Transfers at once that filled it, or did not."},
        }
    )
    whole["properties"]["generator_full"] = {
        **_list(full),
        "description": "In networks of their own: the rate of the generator with its core full, for each cell.",
    }
    ceilings = {**_list(chosen), "description": "How each cell's ceiling was measured: the fastest of what was tried."}
    whole["properties"]["ceilings"] = ceilings  # older runs have none
    whole["properties"]["load_hosts"] = {
        "type": "object",
        "additionalProperties": facts,
        "description": "Where load hosts made the load: the facts of each one's machine, by name.",
    }
    whole["properties"]["merged_trials"] = {
        **_list(_list({"type": "integer"})),
        "description": "In a packed run: the trials whose histograms were merged, if any.",
    }
    whole["properties"]["closed_loop_starts"] = {
        "type": "boolean",
        "description": "In a packed run: whether intended starts follow from the ends of other transfers.",
    }
    whole["properties"]["server_host"] = {
        "type": "object",
        "description": "The host on which servers were started: name, address, and facts of the machine.",
    }
    whole["properties"]["until"] = {
        "type": "object",
        "description": "Of --until: the width asked for and reached, the budget, and the time spent so far.",
    }
    whole["properties"]["conditions"] = {
        **_conditions(),
        "description": "What was found of the machine before the first trial; older runs have none.",
    }
    whole["properties"]["left_out"] = {**_list(left_out), "description": "Servers that did not start, if any."}
    return whole


_RATIO = {
    "ratio": Column("", "Trimmed mean of the pairs' log-ratios, as a ratio.", "float", False),
    "low": Column("", "Lower end of its 95 % interval; null under six pairs.", "float"),
    "high": Column("", "Upper end of its 95 % interval; null under six pairs.", "float"),
    "n": Column("", "Pairs of valid trials.", "int", False),
    "lowest": Column("", "Lowest ratio of a pair.", "float", False),
    "highest": Column("", "Highest ratio of a pair.", "float", False),
}


def _of_trials(metric: Metric) -> Column:
    dtype: Dtype = "int" if metric.is_count else "float"
    return Column(metric.unit, f"{metric.meaning.rstrip('.')}: {metric.combined}.", dtype)


def _summary() -> Schema:
    threshold = {
        "threshold": Column("", "As in the scenario.", "text", False),
        "server": Column("", "Whom it was judged on.", "text", False),
        "cell": Column("", "Where, in words.", "text", False),
        "state": Column("", "held, missed or not known.", "text", False),
        "value": Column("", "The figure that decided.", "float"),
        "detail": Column("", "How it was decided.", "text", False),
    }
    cell = {
        "cell_key": COLUMNS["cell_key"],
        "server": Column("", "Its name, or name@variant.", "text", False),
        **{name: COLUMNS[name] for name in AXES},
        LOAD_HOSTS: COLUMNS[LOAD_HOSTS],
        "trials": Column("", "Trials done.", "int", False),
        "valid": Column("", "Valid ones among them.", "int", False),
        **{name: _of_trials(metric) for name, metric in HEADLINE.items()},
        "ceiling_mark": Column("", "Why the share of the ceiling is not usable; null where it is.", "text"),
        "lost": Column(
            "transfers", "Transfers that failed, timed out or never got an answer, over all trials.", "int", False
        ),
    }
    ratio = {
        "anyOf": [_table("", _RATIO), {"type": "null"}],
        "description": "Against the first server of the cell, or against the ceiling.",
    }
    line = _table("", cell)
    line["properties"]["ratio"] = ratio
    others = OPEN_LOOP | BOOTS
    of_some = {
        name: COLUMNS[name] if COLUMNS[name].dtype == "bool" else _of_trials(others[name])
        for name in with_never(dict.fromkeys(others))
        if name not in HEADLINE
    }
    line["properties"] |= _table("", of_some)["properties"]  # only cells with such a load have them
    line["required"] = [*line["required"], "ratio"]
    lines = {name: _list({"type": "string"}) for name in ("findings", "faults", "skipped", "incomplete")}
    return _object(
        {
            "schema": {"const": "tftpbench.summary/1"},
            "run": _text("The run's folder."),
            "seed": {"type": "integer"},
            "answer": _text("The sentence."),
            "exit_code": {"enum": [0, 3, 6], "description": "3: a threshold was missed; 6: too little is valid."},
            "quick": {"type": "boolean", "description": "Whether only what was lost was judged, and no speed."},
            "thresholds": _list(_table("", threshold)),
            "cells": _list(line),
            "ratios_of": _text("The column that ratios compare."),
            "reference": _text("The server that ratios compare with, wherever a cell has it; or the ceiling."),
            "headline": _text("The cell that the answer speaks of first, in words."),
            **lines,
            "conditions": _text("What holds for every figure, in words."),
            "wire": _text("What the wire alone needs for the headline's machines, in words; empty for transfers."),
            "noise": _text("How noisy the machine was, and what that did; empty where it is not known."),
            "headroom": _text("How much more the generator could have done, in words; empty where it is not known."),
            "findings_by_origin": {
                **_object({origin: _list({"type": "string"}) for origin in get_args(Origin)}),
                "description": "The findings by whose doing they are.",
            },
            "trials": _list(_table("", COLUMNS)),
        },
        title="What tftpbench run --json prints (tftpbench.summary/1)",
    )


def _comparison() -> Schema:
    cell = {
        "cell_key": COLUMNS["cell_key"],
        "contender": Column("", "The server's name, or name@variant.", "text", False),
        "label": Column("", "The cell, in words.", "text", False),
        **{name: COLUMNS[name] for name in AXES},
        "a_data_pps": Column("1/s", "Median of the valid trials of A.", "float", False),
        "b_data_pps": Column("1/s", "Median of the valid trials of B.", "float", False),
        **_RATIO,
        "p_holm": Column("", "P-value of no difference, corrected for all cells; null under six pairs.", "float"),
        "verdict": Column("", "faster, slower, same or can't tell: B as seen from A.", "text", False),
        "cpu_ratio": Column("", "CPU time of the server per block, B over A.", "float"),
        "cpu_low": Column("", "Lower end of its 95 % interval.", "float"),
        "cpu_high": Column("", "Upper end of its 95 % interval.", "float"),
    }
    side = _object(
        {"path": _text("Its folder."), **{name: _text("", nullable=True) for name in ("scenario", *_KEYS)}},
    )
    verdicts = ("faster", "slower", "same", "can't tell")
    texts = _list({"type": "string"})
    return _object(
        {
            "schema": {"const": "tftpbench.comparison/1"},
            "a": side,
            "b": side,
            "within": {"type": "number", "description": "What counts as the same: 0.05 for 5 %."},
            "sentence": _text("The whole in one sentence."),
            "verdicts": _object({name: {"type": "integer"} for name in verdicts}),
            "cells": _list(_table("", cell)),
            "left_out": {**texts, "description": "What could not be compared, and why."},
            "warnings": {**texts, "description": "What makes any difference doubtful."},
            "notes": texts,
        },
        title="What tftpbench compare -f json prints (tftpbench.comparison/1)",
    )


def _gate() -> Schema:
    made = TypeAdapter(GateResult).json_schema(mode="serialization")
    name = {"title": f"gate.json, and what tftpbench gate ab --json prints ({GATE_SCHEMA})"}
    return {
        **name,
        **_untitled(made),
        "properties": {"schema": {"const": GATE_SCHEMA}, **_untitled(made["properties"])},
        "required": ["schema", *made["required"]],
    }


def _conditions() -> Schema:
    return _list(
        _object(
            {
                "id": {"enum": [each.id for each in CONDITIONS], "description": "Which condition (docs/doctor.md)."},
                "found": _text("What was found, in words."),
                "expected": _text("What is expected, in words."),
                "effect": {
                    "enum": list(EFFECTS),
                    "description": "ok; it costs some of the figures' truth; it spoils them; not known.",
                },
                "size": {
                    "type": ["number", "null"],
                    "description": "The effect as measured, in `unit`; null: unknown.",
                },
                "unit": _text("Of size; empty for a share of 1."),
                "costs": _text("The effect in words; empty where it is ok or not known."),
                "remedy": _text("One command that mends it, which nothing has run; empty where it is ok or not known."),
            }
        )
    )


def _doctor() -> Schema:
    return _object(
        {
            "schema": {"const": DOCTOR_SCHEMA},
            "scenario": _text(
                "The scenario whose needs it was checked against; null for ordinary ones.", nullable=True
            ),
            "effect": {"enum": ["ok", "costs", "spoils"], "description": "The most severe one."},
            "conditions": _conditions(),
        },
        title=f"What tftpbench doctor --json prints ({DOCTOR_SCHEMA})",
    )


_KEYS = ("method_key", "host_key")
_MAKERS: Mapping[Kind, Callable[[], Schema]] = {
    "scenario": lambda: _untitled(_as_written(Scenario.model_json_schema())),
    "server": lambda: _untitled(Manifest.model_json_schema()),
    "boot": lambda: _untitled(_boot()),
    "results": _trial,
    "manifest": _manifest,
    "transfers": lambda: _table(f"One row of transfers.parquet ({RUN_SCHEMA})", TRANSFER_COLUMNS),
    "boots": lambda: _table(f"One row of boots.parquet ({RUN_SCHEMA})", BOOT_COLUMNS),
    "intervals": lambda: _table(f"One row of intervals.parquet ({RUN_SCHEMA})", INTERVAL_COLUMNS),
    "summary": _summary,
    "comparison": _comparison,
    "gate": _gate,
    "capacity": lambda: _untitled(_capacity()),
    "doctor": _doctor,
}


def _capacity() -> Schema:
    """Of one search its own document, of several a list of such."""
    made = FoundCapacity.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    parts = made.pop("$defs")
    parts["Search"] = made
    several = _object(
        {
            "schema": {"const": CAPACITY_SCHEMA, "description": "The version of this format."},
            "searches": {"type": "array", "items": {"$ref": "#/$defs/Search"}, "description": "In the order done."},
        }
    )
    return {
        "title": f"capacity.json ({CAPACITY_SCHEMA})",
        "required": ["schema"],
        "anyOf": [{"$ref": "#/$defs/Search"}, several],
        "$defs": parts,
    }


def _table(title: str, columns: Mapping[str, Column]) -> Schema:
    """One row. What may be unknown may be absent too: older runs lack the columns of newer versions."""
    required = [name for name, column in columns.items() if not column.nullable]
    return _object({name: _column(column) for name, column in columns.items()}, title, required)


def _object(properties: Schema, title: str = "", required: Sequence[str] | None = None) -> Schema:
    """Keys are only ever added within a schema number, so others than these are allowed."""
    asked = list(properties if required is None else required)
    return {**({"title": title} if title else {}), "type": "object", "properties": properties, "required": asked}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _text(description: str, nullable: bool = False) -> Schema:
    return _column(Column("", description, "text", nullable))


def _column(column: Column) -> Schema:
    kind = _JSON_TYPES[column.dtype]
    meaning = f"{column.meaning} [{column.unit}]" if column.unit else column.meaning
    timed = {"format": "date-time"} if column.dtype == "time" else {}
    described = {"description": meaning} if meaning else {}
    return {"type": [kind, "null"] if column.nullable else kind, **timed, **described}
