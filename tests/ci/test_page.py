"""docs/ci.md: what it names is there, and what it shows is understood."""

import ast
import inspect
import re

import yaml

from tests.ci.shell import ACTION, COMMENT, GITLAB, PULL_REQUEST, ROOT, document
from tftpbench.pytest_plugin import Gate

PAGE = ROOT / "docs/ci.md"
TEXT = PAGE.read_text(encoding="utf-8")
ACTION_PARTS = document(ACTION)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_its_links_lead_somewhere_and_to_every_file() -> None:
    targets = {(PAGE.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", TEXT)}
    assert {ACTION, PULL_REQUEST, COMMENT, GITLAB} <= targets
    assert [target for target in targets if not target.exists()] == []
    assert {path.resolve() for path in (ROOT / "docs/ci").iterdir()} <= targets


def test_files_say_the_names_that_it_copies_them_to() -> None:
    for path in (PULL_REQUEST, COMMENT):
        (place,) = re.findall(rf"{path.name}\)\s*\|\s*`([^`]+)`", TEXT)
        assert place in path.read_text(encoding="utf-8")


def test_its_yaml_gives_the_action_what_it_takes() -> None:
    (block,) = blocks("yaml")
    ((step,),) = (yaml.safe_load(block),)
    assert set(step["with"]) <= set(ACTION_PARTS["inputs"])


def test_it_names_every_input_and_output_of_the_action() -> None:
    words = set(re.findall(r"`([a-z-]+)`", TEXT))
    assert set(ACTION_PARTS["inputs"]) <= words
    assert set(ACTION_PARTS["outputs"]) <= words


def test_its_python_calls_the_fixture_with_arguments_that_it_has() -> None:
    (block,) = blocks("python")
    (call,) = (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call))
    parameters = set(inspect.signature(Gate.__call__).parameters) - {"self"}
    assert {word.arg for word in call.keywords} <= parameters
    assert [name for name in parameters if not re.search(rf"`{name}[`=]", TEXT)] == []


def test_it_names_the_release_and_the_limits_that_the_files_have() -> None:
    (named,) = re.findall(r"uses: (OWNER/\S+)", TEXT)
    assert f"uses: {named}\n" in PULL_REQUEST.read_text(encoding="utf-8")
    release = named.partition("@")[2]
    assert f"@{release}" in document(GITLAB)["tftp-performance"]["variables"]["TFTPBENCH"]
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert release == f"v{version[1]}"
