"""The formats' JSON Schemas and documents follow the code."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from tftpbench import schema
from tftpbench.columns import COLUMNS, INTERVAL_COLUMNS, LATENCY_KINDS, TRANSFER_COLUMNS
from tftpbench.machine import HOST_KEY_FACTS
from tftpbench.scenario import Client, Matrix, Placement, Scenario, load_scenario
from tftpbench.servers import PLACEHOLDERS, Capabilities, Fetch, Find, Manifest

DOCS = Path(__file__).parents[2] / "docs"


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def documented(page: str, heading: str) -> list[str]:
    """First cells, in backticks, of the tables under a heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"{page} has no heading {heading!r}"
    return re.findall(r"^\| `([^`]+)`", section[1], re.MULTILINE)


@pytest.mark.parametrize("kind", schema.KINDS)
def test_committed_schemas_are_current(kind: schema.Kind) -> None:
    committed = (DOCS / "schema" / f"{kind}.json").read_text(encoding="utf-8")
    assert committed == schema.text(kind), f"renew it: tftpbench schema {kind} > docs/schema/{kind}.json"


def test_schemas_know_every_key() -> None:
    scenario = schema.json_schema("scenario")
    assert set(scenario["properties"]) == keys(Scenario)
    assert set(scenario["$defs"]["Matrix"]["properties"]) == keys(Matrix)
    assert set(schema.json_schema("server")["properties"]) == keys(Manifest)
    assert set(schema.json_schema("results")["properties"]) == set(COLUMNS)


def test_defaults_in_a_schema_are_as_people_write_them() -> None:
    client = schema.json_schema("scenario")["$defs"]["Client"]["properties"]
    assert (client["timeout"]["default"], client["start"]["default"]) == ("1s", "burst")


@pytest.mark.parametrize(
    ("page", "heading", "expected"),
    [
        ("scenario-format.md", "Keys", keys(Scenario)),
        ("scenario-format.md", "matrix", keys(Matrix)),
        ("scenario-format.md", "client", keys(Client)),
        ("scenario-format.md", "placement", keys(Placement)),
        ("manifest-format.md", "Keys", keys(Manifest)),
        ("manifest-format.md", "capabilities", keys(Capabilities)),
        ("manifest-format.md", "find", keys(Find)),
        ("manifest-format.md", "fetch", keys(Fetch)),
        ("manifest-format.md", "Placeholders", {f"{{{name}}}" for name in PLACEHOLDERS}),
        ("results-format.md", "latency.hlog", set(LATENCY_KINDS)),
    ],
)
def test_every_key_is_documented_and_no_other(page: str, heading: str, expected: set[str]) -> None:
    assert set(documented(page, heading)) == expected


@pytest.mark.parametrize(
    ("heading", "columns"),
    [("trials.jsonl", COLUMNS), ("transfers.parquet", TRANSFER_COLUMNS), ("intervals.parquet", INTERVAL_COLUMNS)],
)
def test_every_column_is_documented_in_order_as_the_code_has_it(heading: str, columns: dict[str, object]) -> None:
    assert documented("results-format.md", heading) == list(columns)
    page = (DOCS / "results-format.md").read_text(encoding="utf-8")
    for name, column in columns.items():
        assert f"| `{name}` | {column.unit} | {column.meaning} |" in page  # type: ignore[attr-defined]


def test_the_fields_of_keys_are_documented() -> None:
    page = (DOCS / "results-format.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in HOST_KEY_FACTS)


def test_the_documented_scenario_is_a_scenario(tmp_path: Path) -> None:
    page = (DOCS / "scenario-format.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    path = tmp_path / "example.yaml"
    path.write_text(example[1], encoding="utf-8")
    assert load_scenario(str(path)).cells()


def test_schemas_are_json() -> None:
    assert all(json.loads(schema.text(kind))["$schema"] for kind in schema.KINDS)
