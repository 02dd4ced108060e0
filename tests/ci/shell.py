"""Runs the shell steps of action.yml, workflows and the GitLab job as a CI server does, with stubs for what they start.

It fills in expressions from a plain table and knows none but names, so a step that refers to something that isn't there
fails its test. Called by the tests beside it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
ACTION_SCRIPT = ROOT / "action.sh"
PULL_REQUEST = ROOT / "docs/ci/github-pull-request.yml"
COMMENT = ROOT / "docs/ci/github-comment.yml"
GITLAB = ROOT / "docs/ci/gitlab-ci.yml"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
# What GitHub starts for `shell: bash`, and for a step without a shell.
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
_STUB = """\
#!{python}
import json, os, sys
with open({calls!r}, "a", encoding="utf-8") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
"""


@dataclass(frozen=True)
class Ran:
    """How a script ended; `outputs` as GitHub would read them, `calls` are the stubs' names and arguments."""

    code: int
    text: str
    outputs: Mapping[str, str]
    calls: list[list[str]]


class Shell:
    """A folder to work in, programs before all others in PATH, and the files that GitHub gives to a step."""

    def __init__(self, folder: Path) -> None:
        self.work, self.temp, self.bin = (folder / name for name in ("work", "temp", "bin"))
        for each in (self.work, self.temp, self.bin):
            each.mkdir()
        self._calls, self._files = folder / "calls", folder
        self.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    def stub(self, name: str, then: str = "", folder: Path | None = None) -> Path:
        """A program that notes how it was called and then runs the Python in `then`."""
        body = _STUB.format(python=sys.executable, calls=str(self._calls), name=name)
        return self.program(name, body + then, folder)

    def program(self, name: str, text: str, folder: Path | None = None) -> Path:
        """A program in PATH, or in another folder."""
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, script: str, env: Mapping[str, str] | None = None) -> Ran:
        """The ending of a step's script. What was noted before is forgotten."""
        written = self._files / "script"
        written.write_text(script, encoding="utf-8")
        return self.call([*BASH, str(written)], env)

    def call(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> Ran:
        """The ending of a program. What was noted before is forgotten."""
        outputs = self._files / "outputs"
        outputs.write_text("", encoding="utf-8")
        self._calls.write_text("", encoding="utf-8")
        done = subprocess.run(
            command, cwd=self.work, env=self._environment(outputs, env or {}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=25,
            check=False,
        )  # fmt: skip
        calls = [json.loads(line) for line in self._calls.read_text(encoding="utf-8").splitlines()]
        return Ran(done.returncode, done.stdout, _outputs(outputs.read_text(encoding="utf-8")), calls)

    def _environment(self, outputs: Path, env: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._files),
            "LC_ALL": "C.UTF-8",
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_ENV": str(self._files / "env"),
            "GITHUB_STEP_SUMMARY": str(self._files / "summary"),
            **env,
        }


def document(path: Path) -> Any:
    """The YAML, in which the key `on` is read as true (YAML 1.1)."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> dict[str, Any]:
    """All steps of an action or a workflow, by name."""
    known = document(path)
    found = known["runs"]["steps"] if "runs" in known else [s for job in known["jobs"].values() for s in job["steps"]]
    assert len({step["name"] for step in found}) == len(found), "steps are known by their names"
    return {step["name"]: step for step in found}


def filled(env: Mapping[str, str], context: Mapping[str, str]) -> dict[str, str]:
    """An `env` with every expression replaced by what `context` says; KeyError for one that it does not know."""
    return {name: EXPRESSION.sub(lambda match: context[match[1]], str(value)) for name, value in env.items()}


def _outputs(text: str) -> dict[str, str]:
    """As GitHub reads the file: NAME=VALUE a line, the last one wins."""
    return dict(line.split("=", 1) for line in text.splitlines())
