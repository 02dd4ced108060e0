"""Import rules that the import linter can't see: the native core is no module to it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tftpbench"
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


def test_the_child_of_a_bundled_server_loads_nothing_heavy() -> None:
    script = "import sys, tftpbench.serve; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "pandas", "pyarrow", "pydantic", "rich", "scipy", "typer", "yaml"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}
