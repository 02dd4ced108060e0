"""JSON Schemas of the three file formats, for editors: made from the models and columns that the code itself uses.

The committed copies in docs/schema are this module's output. Called by the command line and by a test that
keeps those copies current.
"""

import json
from typing import Any, Literal, get_args

from tftpbench.columns import COLUMNS, Column
from tftpbench.results import SCHEMA as RUN_SCHEMA
from tftpbench.scenario import Client, Placement, Scenario
from tftpbench.servers import Manifest

Kind = Literal["scenario", "server", "results"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES = {"int": "integer", "float": "number", "text": "string", "time": "string", "list": "array"}


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a scenario file, of a server.yaml, or of one line of trials.jsonl."""
    if kind == "scenario":
        return {"$schema": DIALECT, **_untitled(_as_written(Scenario.model_json_schema()))}
    if kind == "server":
        return {"$schema": DIALECT, **_untitled(Manifest.model_json_schema())}
    return _results()


def text(kind: Kind) -> str:
    """The schema as it is printed and committed."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"


def _as_written(schema: dict[str, Any]) -> dict[str, Any]:
    """As people write scenarios: one value stands for a list of one, and defaults are durations with a unit."""
    properties, parts = schema["properties"], schema["$defs"]
    for owner, names in (
        (parts["Matrix"]["properties"], list(parts["Matrix"]["properties"])),
        (properties, ["servers"]),
    ):
        for name in names:
            items = owner[name]
            described = {key: items.pop(key) for key in ("description", "default") if key in items}
            owner[name] = {"anyOf": [items["items"], items], **described}
    for model in (Client, Placement):
        written = model().model_dump(mode="json")
        for name, value in written.items():
            parts[model.__name__]["properties"][name]["default"] = value
        del properties[model.__name__.lower()]["default"]
    for name in ("duration", "transfers", "warm_up"):
        del properties[name]["default"]
    return schema


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which repeat each key in capitals."""
    if isinstance(schema, dict):
        return {key: _untitled(item) for key, item in schema.items() if not (key == "title" and isinstance(item, str))}
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema


def _results() -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "title": f"One line of trials.jsonl ({RUN_SCHEMA})",
        "type": "object",
        "properties": {name: _column(column) for name, column in COLUMNS.items()},
        "required": [name for name, column in COLUMNS.items() if not column.nullable],
    }


def _column(column: Column) -> dict[str, Any]:
    kind = _JSON_TYPES[column.dtype]
    described = {"description": f"{column.meaning} [{column.unit}]" if column.unit else column.meaning}
    timed = {"format": "date-time"} if column.dtype == "time" else {}
    return {"type": [kind, "null"] if column.nullable else kind, **timed, **described}
