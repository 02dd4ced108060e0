"""The formats' JSON Schemas and documents follow the code."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tests.unit.builders import RUN
from tests.unit.gate.gate_results import gate
from tests.unit.measure.test_capacity import Machine, done
from tests.unit.measure.test_capacity import document as capacity_document
from tftpbench.analysis import comparison, summary
from tftpbench.cli.schema import Which
from tftpbench.gate.document import document as gate_document
from tftpbench.host.conditions import BRIEF, ORDINARY, diagnose
from tftpbench.host.conditions import document as doctor_document
from tftpbench.host.machine import HOST_KEY_FACTS
from tftpbench.model.boot import BootFile, bundled_boots
from tftpbench.model.capacity import documents as capacity_documents
from tftpbench.model.manifest import PLACEHOLDERS, Capabilities, Fetch, Find, Manifest, Variant
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.scenario import Matrix, Scenario
from tftpbench.model.scenario_files import load_scenario
from tftpbench.model.workload import Client, Generators, Placement
from tftpbench.render import reference, schema
from tftpbench.store import load_run

DOCS = Path(__file__).parents[3] / "docs"


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


def test_the_command_prints_each() -> None:
    assert tuple(which.value for which in Which) == schema.KINDS


def test_schemas_know_every_key() -> None:
    scenario = schema.json_schema("scenario")
    assert set(scenario["properties"]) == keys(Scenario)
    assert set(scenario["$defs"]["Matrix"]["properties"]) == keys(Matrix)
    assert set(schema.json_schema("server")["properties"]) == keys(Manifest)
    assert set(schema.json_schema("boot")["properties"]) == keys(BootFile)
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
        ("scenario-format.md", "generators", keys(Generators)),
        ("manifest-format.md", "Keys", keys(Manifest)),
        ("manifest-format.md", "capabilities", keys(Capabilities)),
        ("manifest-format.md", "find", keys(Find)),
        ("manifest-format.md", "fetch", keys(Fetch)),
        ("manifest-format.md", "variants", keys(Variant)),
        ("manifest-format.md", "Placeholders", {f"{{{name}}}" for name in PLACEHOLDERS}),
    ],
)
def test_every_key_is_documented_and_no_other(page: str, heading: str, expected: set[str]) -> None:
    assert set(documented(page, heading)) == expected


@pytest.mark.parametrize("page", dict.fromkeys(page for page, _ in reference.tables()))
def test_the_tables_of_docs_are_as_the_code_has_them(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert reference.renewed(page, text) == text, "renew it: make docs"


def test_a_table_without_its_heading_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match=r"results-format\.md has no table under the heading 'trials\.jsonl'"):
        reference.renewed("results-format.md", "# Results\n")


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


@pytest.mark.parametrize("kind", schema.KINDS)
def test_schemas_are_schemas(kind: schema.Kind) -> None:
    found = json.loads(schema.text(kind))
    Draft202012Validator.check_schema(found)
    assert found["$schema"] == schema.DIALECT
    assert found["required"]


def documents(kind: schema.Kind) -> list[object]:  # noqa: C901, PLR0911 (one for each kind)
    """Real ones, as other programs would get them."""
    run = load_run(RUN)
    rows = [json.loads(line) for line in (RUN / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    if kind == "scenario":
        return [run.manifest["scenario"]]
    if kind == "boot":
        return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in bundled_boots().values()]
    if kind == "results":
        return list(rows)
    if kind == "manifest":
        return [json.loads((RUN / "manifest.json").read_text(encoding="utf-8"))]
    if kind in {"transfers", "intervals"}:
        return [row for path in sorted(RUN.glob(f"trials/*/{kind}.parquet")) for row in pq.read_table(path).to_pylist()]
    if kind == "summary":
        return [summary.document(summary.answer_of(run), str(RUN), 1, rows)]
    if kind == "comparison":
        return [comparison.document(comparison.compare(run, run))]
    if kind == "doctor":
        return [doctor_document(diagnose(effort=BRIEF), ORDINARY)]
    if kind == "gate":
        return [gate_document(gate())]
    if kind == "capacity":
        found = capacity_document(done(Machine(), budget="3min"))
        return [capacity_documents([found]), capacity_documents([found, found])]
    raise AssertionError(kind)


CHECKED: tuple[schema.Kind, ...] = tuple(kind for kind in schema.KINDS if kind not in {"server", "boots"})


@pytest.mark.parametrize("kind", CHECKED)
def test_real_documents_are_as_their_schema_says(kind: schema.Kind) -> None:
    validator = Draft202012Validator(schema.json_schema(kind))
    found = json.loads(json.dumps(documents(kind)))
    assert found
    for document in found:
        validator.validate(document)
        for name in schema.json_schema(kind)["required"]:
            lacking = {key: value for key, value in document.items() if key != name}
            assert not validator.is_valid(lacking), f"{name} need not be there"


# Columns that came after the run that is kept.
NEWER_COLUMNS = {*list(COLUMNS)[list(COLUMNS).index("generator_gap_ns_max") :]}


@pytest.mark.parametrize("kind", ["manifest", "summary", "comparison"])
def test_a_schema_knows_every_key_of_a_real_document(kind: schema.Kind) -> None:
    """None of these documents holds what its schema leaves out, down to the cells."""
    written = schema.json_schema(kind)
    [document] = documents(kind)
    assert isinstance(document, dict)
    newer = {"ceilings", "closed_loop_starts", "conditions", "generator_full", "left_out", "load_hosts"}
    newer = newer | {"merged_trials", "server_host", "until"} if kind == "manifest" else set()  # than the kept run
    assert set(document) == set(written["properties"]) - newer
    for name, value in document.items():
        items = written["properties"][name].get("items", {})
        if isinstance(value, list) and items.get("type") == "object":
            known = set(items["properties"])
            assert all(known - NEWER_COLUMNS <= set(each) <= known for each in value), name
