"""Where scenarios come from: a file of the user's or a bundled one, and the --set of a command line."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from tftpbench.model import strict, yaml
from tftpbench.model.arguments import assignments_of, path_of
from tftpbench.model.errors import ScenarioError, suggest
from tftpbench.model.regular_file import is_regular
from tftpbench.model.scenario import Scenario

BUNDLED = Path(__file__).parent.parent / "_bundled" / "scenarios"


Overrides = Sequence[str] | Mapping[str, object]


def load_scenario(path_or_name: str | Path, overrides: Overrides = ()) -> Scenario:
    """The scenario in a file, or the bundled one of this name.

    `path_or_name`: a path, or a name as `tftpbench run` takes it. `overrides`: texts KEY=VALUE as for --set, or a
    mapping, as in {"trials": 3, "matrix.concurrency": [1, 10]}; obeyed in order. Durations and sizes have their units
    in the text, as in "2s" and "64KiB". Raises ScenarioError with one line: file:line:column, the key, what is wrong,
    what is allowed.
    """
    assignments = assignments_of(overrides, "overrides", ScenarioError)
    path = _find(str(path_of(path_or_name, "a scenario file, or a bundled scenario's name", ScenarioError)))
    document = yaml.read(path, ScenarioError)
    _resolve_paths(document.data, path.parent)
    for assignment in assignments:
        document.assign(assignment)
    return strict.parse(document, Scenario)


def overridden(scenario: Scenario, overrides: Overrides) -> Scenario:
    """The scenario with `overrides` as load_scenario takes them. Raises ScenarioError."""
    document = yaml.from_data(scenario.document(), "the scenario", ScenarioError)
    for assignment in assignments_of(overrides, "overrides", ScenarioError):
        document.assign(assignment)
    return strict.parse(document, Scenario)


def sets(overrides: Overrides, key: str) -> bool:
    """Whether they say what `key` shall be, which other options then leave alone."""
    return any(each.partition("=")[0].strip() == key for each in assignments_of(overrides, "overrides", ScenarioError))


def bundled_scenarios() -> dict[str, Path]:
    """The scenarios that come with tftpbench, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


def keys(model: type[BaseModel] = Scenario, start: str = "") -> list[str]:
    """Every key that --set can change to something, as in "matrix.concurrency"."""
    found = []
    for name, field in model.model_fields.items():
        if name == "schema_id":
            continue
        key, parts = start + (field.alias or name), list(_models(field.annotation))
        found += [inner for part in parts for inner in keys(part, f"{key}.")] or [key]
    return found


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The mappings among the forms that a value may have, without those in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not tuple:
        for part in get_args(annotation):
            yield from _models(part)


def _find(path_or_name: str) -> Path:
    path = Path(path_or_name)
    if is_regular(path) or "/" in path_or_name or path.suffix in {".yaml", ".yml"}:
        return path
    known = bundled_scenarios()
    if path_or_name in known:
        return known[path_or_name]
    hint = suggest(path_or_name, known, f"; allowed: a file, or {', '.join(known)}")
    raise ScenarioError(f"no scenario is called {path_or_name!r}{hint}")


def _is_path(entry: str) -> bool:
    return "/" in entry and "://" not in entry


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """A relative path in a scenario file, of a server or a boot, starts there, wherever the run is started."""

    def resolve(owner: Any, key: str) -> None:
        given = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(given, list):
            owner[key] = [resolved(entry) for entry in given]
        elif given is not None:
            owner[key] = resolved(given)

    def resolved(entry: object) -> object:
        return str((folder / entry).resolve()) if isinstance(entry, str) and _is_path(entry) else entry

    if isinstance(data.get("servers"), list):
        resolve(data, "servers")
    matrix = data.get("matrix")
    for each in matrix if isinstance(matrix, list) else [matrix]:
        resolve(each, "boot")
        mix = each.get("mix") if isinstance(each, dict) else None
        for part in mix if isinstance(mix, list) else ():
            resolve(part, "boot")
