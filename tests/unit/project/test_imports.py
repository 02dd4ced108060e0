"""Import rules that the import linter can't see: the native core is no module to it; and that the checkout stays small.

A checkout is for people, and recorded runs are kept packed.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "tftpbench"
RULES = {
    "tftpbench._core": {"host", "serve"},
    "matplotlib": {"plots"},
    "typer": {"cli", "render"},
    "rich": {"cli", "render"},
}


def imported(path: Path) -> Iterator[str]:
    """Absolute names of all modules and attributes that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("module", sorted(RULES))
def test_a_module_is_imported_only_where_it_may_be(module: str) -> None:
    users = {
        path.relative_to(PACKAGE).with_suffix("").parts[0]
        for path in PACKAGE.rglob("*.py")
        if "_bundled" not in path.parts and any(f"{name}.".startswith(f"{module}.") for name in imported(path))
    }
    assert users <= RULES[module]


def test_no_module_of_the_package_imports_one_that_imports_it() -> None:
    """Wherever in a file an import stands; the package's front, which imports by name when asked, is left out."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
        if "_bundled" not in path.parts
    }
    del paths["tftpbench"]

    def module_of(name: str) -> str | None:
        """The module itself, or the one that the name is imported from."""
        return next((known for known in (name, name.rpartition(".")[0]) if known in paths), None)

    imports = {name: {module for each in imported(path) if (module := module_of(each))} for name, path in paths.items()}
    sorter = TopologicalSorter({name: targets - {name} for name, targets in imports.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_the_child_of_a_bundled_server_loads_nothing_heavy() -> None:
    script = "import sys, tftpbench.serve; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "pyarrow", "pydantic", "rich", "scipy", "typer", "yaml"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


ROOT = Path(__file__).parents[3]
FILES_MAX = 600
BYTES_MAX = 9_000_000
MEND = 'keep recorded runs in the packed form (docs/results-format.md, "A packed run")'
CRATES = sorted(path.parent for path in [*ROOT.glob("crates/*/src"), *ROOT.glob("servers/*/src")])

Module = tuple[str, ...]

TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:pub\(crate\)\s+)?mod \w+ \{.*", re.DOTALL)
COMMENT = re.compile(r"//.*")
USE = re.compile(r"\b(pub(?:\([^)]*\))? )?use ([^;]+);")
PATH = re.compile(r"\b(?:crate|self|super)(?:::\w+)+")


def modules(crate: Path) -> dict[Module, str]:
    """The text of each file of a crate, without comments and tests, by its module path; the root's is empty."""
    found = {}
    for path in sorted((crate / "src").rglob("*.rs")):
        parts = path.relative_to(crate / "src").with_suffix("").parts
        name = parts[:-1] if parts[-1] in ("lib", "main", "mod") else parts
        found[name] = COMMENT.sub("", TEST_MODULE.sub("", path.read_text()))
    return found


def flat(tree: str) -> Iterator[str]:
    """Each path of a use tree: `a::{b, c::d}` is `a::b` and `a::c::d`. A new name is left out."""
    tree = " ".join(tree.split())
    before, brace, rest = tree.partition("{")
    if not brace:
        yield tree.split(" as ")[0].strip()
        return
    depth, start, inner = 0, 0, rest.rsplit("}", 1)[0]
    for index, char in enumerate(f"{inner},"):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            if part := inner[start:index].strip():
                yield from flat(before + part)
            start = index + 1


def absolute(path: str, here: Module, known: Mapping[Module, str]) -> Module | None:
    """The path from the crate's root; None for one that leads out of the crate."""
    first, *rest = path.split("::")
    while first == "super":
        here = here[:-1]
        if not rest:
            return here
        first, *rest = rest
        if first != "super":
            return (*here, first, *rest)
    if first == "crate":
        return tuple(rest)
    if first == "self":
        return (*here, *rest)
    return (*here, first, *rest) if (*here, first) in known else None


def defining(path: Module, known: Mapping[Module, str]) -> Module:
    """The file that an item is written in."""
    length = max(length for length in range(len(path) + 1) if path[:length] in known)
    home, rest = path[:length], path[length:]
    for public, tree in USE.findall(known[home]) if rest else ():
        for other in flat(tree) if public else ():
            there = absolute(other, home, known)
            if there is not None and there[-1] == rest[0]:
                return defining((*there, *rest[1:]), known)
    return home


def imports(known: Mapping[Module, str]) -> dict[Module, set[Module]]:
    """The files that each file imports from."""
    edges: dict[Module, set[Module]] = {}
    for here, text in known.items():
        paths = [path for _, tree in USE.findall(text) for path in flat(tree)]
        code = USE.sub("", text)
        paths += PATH.findall(code)
        children = [name[-1] for name in known if name and name[:-1] == here]
        paths += [path for child in children for path in re.findall(rf"(?<![\w:]){child}(?:::\w+)+", code)]
        found = (absolute(path, here, known) for path in paths)
        edges[here] = {defining(path, known) for path in found if path is not None} - {here}
    return edges


def circle(known: Mapping[Module, str]) -> list[str]:
    """The files of one circle, in order; none where there is none."""
    try:
        TopologicalSorter(imports(known)).prepare()
    except CycleError as error:
        return ["::".join(("crate", *module)) for module in reversed(error.args[1])]
    return []


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_no_file_imports_itself_through_others(crate: Path) -> None:
    assert circle(modules(crate)) == []


def test_a_circle_is_found_through_a_parent_a_re_export_and_a_path_in_code() -> None:
    through_parent: dict[Module, str] = {(): "mod a;\nfn f() { a::g() }", ("a",): "use crate::f;"}
    assert circle(through_parent) == ["crate", "crate::a", "crate"]
    re_exported: dict[Module, str] = {
        (): "pub use a::{A, C};",
        ("a",): "pub struct A; const B: u8 = crate::b::B;",
        ("b",): "use std::io;\nuse super::{A as D, C};",
    }
    assert set(circle(re_exported)) == {"crate::a", "crate::b"}
    assert circle({(): "mod a;\nmod b;", ("a",): "use super::b::B;", ("b",): "use std::io;"}) == []


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so which files are tracked is not known")
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("git is not here; get it: apt install git")
    if done.returncode:
        pytest.skip(f"git does not list this checkout: {done.stderr.decode().strip()}")
    return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def test_the_repository_stays_under_its_bounds() -> None:
    sizes = [path.lstat().st_size for path in tracked() if path.exists() or path.is_symlink()]
    assert 100 < len(sizes) < FILES_MAX, MEND
    assert 1_000_000 < sum(sizes) < BYTES_MAX, MEND


def test_every_reference_run_is_packed() -> None:
    runs = [path.parent for path in (ROOT / "results/reference").glob("*/manifest.json")]
    assert len(runs) >= 7
    for run in runs:
        assert (run / "trials.jsonl.xz").is_file(), run
        assert len(list(run.rglob("*"))) <= 7, run
