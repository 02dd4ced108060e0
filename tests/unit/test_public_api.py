"""The front of the package: complete, and light to import."""

import copy
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tftpbench
from tests.fixtures.unpacked import RUN
from tests.unit.gate import gate_results
from tftpbench.model.scenario_files import overridden

HEAVY = {"jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "rich", "scipy", "typer", "yaml", "hdrh"}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    return set(done.stdout.split())


def test_every_public_name_can_be_had() -> None:
    assert list(tftpbench.__all__) == sorted(tftpbench.__all__)
    assert set(tftpbench.__all__) == set(tftpbench._HOMES)
    for name in tftpbench.__all__:
        assert getattr(tftpbench, name) is not None
    assert dir(tftpbench) == tftpbench.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = tftpbench.frobnicate


def test_the_child_process_of_a_bundled_server_loads_nothing_heavy() -> None:
    loaded = loaded_by("import tftpbench.serve; from tftpbench import _core")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("tftpbench")} == {
        "tftpbench",
        "tftpbench.serve",
        "tftpbench._core",
    }


def test_comparing_loads_data_frames_and_statistics_only_when_it_compares() -> None:
    assert not loaded_by("from tftpbench import compare") & {"jinja2", "matplotlib", "pandas", "rich", "scipy"}


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    assert loaded_by("import tftpbench.cli") & HEAVY == {"typer"}


def documented() -> Iterator[tuple[str, Any]]:
    """Every public function, and every public method and property of a public class that is no exception."""
    for name in tftpbench.__all__:
        value = getattr(tftpbench, name)
        if inspect.isfunction(value):
            yield name, value
        elif not issubclass(value, Exception) and name != "GateResult":
            yield from _members(name, value)


def _members(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    for member, value in vars(kind).items():
        if isinstance(value, property):
            function: Any = value.fget
        else:
            function = getattr(value, "__func__", getattr(value, "func", value))
        if not member.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{member}", function


@pytest.mark.parametrize(("name", "function"), list(documented()))
def test_every_public_docstring_names_each_parameter_and_the_columns_of_a_frame(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert text, "it has a docstring"
    for parameter in inspect.signature(function).parameters:
        if name != "load_gate":  # its only one has the function's name
            assert parameter in ("self", "cls") or re.search(rf"\b{parameter}\b", text), parameter
    if str(inspect.signature(function).return_annotation).endswith("DataFrame"):
        assert "`" in text, "which columns?"


def test_overrides_are_texts_or_a_mapping() -> None:
    texts = tftpbench.load_scenario("concurrency", ["trials=3", "matrix.concurrency=[1, 10]", "duration=2s"])
    mapping = {"trials": 3, "matrix.concurrency": (1, np.int64(10)), "duration": "2s"}
    assert tftpbench.load_scenario("concurrency", mapping) == texts
    assert overridden(tftpbench.load_scenario("concurrency"), mapping) == texts
    assert tftpbench.load_scenario("gate", {"gate.budgets.data_pps": "10 %"}).gate.budgets["data_pps"] == 0.1
    named = tftpbench.load_scenario("concurrency", {"description": 'off, "é" # \U0001f600'})
    assert named.description == 'off, "é" # \U0001f600'


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            "trials=3",
            "allowed: a list of texts as KEY=VALUE, or a mapping from keys to values",
        ),
        ([3], "allowed: a list of texts"),
        ({3: 3}, "overrides: the key is 3; allowed: keys with dots between, as in matrix.concurrency"),
        ({"a=b": 3}, "overrides: the key is 'a=b'"),
        ({"trials": object()}, "overrides: trials is of type object; allowed: text, finite numbers, True, False, None"),
        ({"trials": float("nan")}, "overrides: trials is nan"),
        ({"trials": "many"}, "trials: is 'many'; allowed: 1 to"),
        ({"trails": 3}, "trails: unknown key; did you mean 'trials'?"),
    ],
)
def test_an_override_that_is_none_is_one_line(overrides: Any, said: str) -> None:
    scenario = tftpbench.load_scenario("concurrency")
    with pytest.raises(tftpbench.ScenarioError) as of_a_file:
        tftpbench.load_scenario("concurrency", overrides)
    with pytest.raises(tftpbench.ScenarioError) as of_a_scenario:
        overridden(scenario, overrides)
    for error in (of_a_file, of_a_scenario):
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_a_scenario_is_made_of_a_mapping() -> None:
    data = {
        "name": "mine", "description": "What I ask.", "servers": ["epoll"], "trials": 2, "duration": "1s",
        "matrix": {"operation": "read", "concurrency": [1, 10], "file_size": "64KiB"},
    }  # fmt: skip
    before = copy.deepcopy(data)
    scenario = tftpbench.Scenario.from_dict(data)
    assert (len(scenario.cells()), scenario.name) == (2, "mine")
    assert data == before
    assert tftpbench.Scenario.from_dict(scenario.document()) == scenario
    wrongs: list[tuple[Any, str]] = [
        ([], "the scenario is a value of type list; allowed: a mapping of keys to values"),
        ({**data, "trails": 2}, "the scenario: trails: unknown key; did you mean 'trials'?"),
        ({**data, "schema": "other/1"}, "the scenario: schema: is 'other/1'; allowed: tftpbench.scenario/1"),
    ]
    for wrong, said in wrongs:
        with pytest.raises(tftpbench.ScenarioError) as error:
            tftpbench.Scenario.from_dict(wrong)
        assert str(error.value).startswith(said)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What gate.ab was asked for; nothing is measured."""
    seen: dict[str, Any] = {}

    def ab(base: object, head: object, scenario: tftpbench.Scenario, **asked: object) -> tftpbench.GateResult:
        seen.update(base=base, head=head, scenario=scenario, **asked)
        return replace(gate_results.gate(), folder=str(asked["out"]) if asked["out"] else None)

    monkeypatch.setattr("tftpbench.gate.ab", ab)
    return seen


def test_a_gate_is_measured_as_on_the_command_line(measured: dict[str, Any], tmp_path: Path) -> None:
    result = tftpbench.gate_ab("epoll", "threads", overrides={"trials": 7}, seed=3, out=tmp_path)
    assert tftpbench.load_gate(tmp_path) == result, "its folder holds it, as after the command"
    assert (measured["base"].name, measured["head"].name) == ("epoll", "threads")
    assert (measured["seed"], measured["out"], measured["entries"]) == (3, tmp_path, ("epoll", "threads"))
    assert (measured["scenario"].name, measured["scenario"].trials) == ("gate", 7)
    tftpbench.gate_ab("epoll", "epoll", tftpbench.load_scenario("noise"), overrides={"trials": 9}, out=None)
    assert (measured["scenario"].name, measured["scenario"].trials, measured["out"]) == ("noise", 9, None)
    for given, said in (
        ({"base": 3}, "base is a value of type int; allowed: a server, as text or a Path"),
        ({"seed": -1}, "seed is -1; allowed: a whole number from 0"),
        ({"out": 3}, "3 is no path"),
    ):
        with pytest.raises(tftpbench.TftpbenchError, match=said):
            tftpbench.gate_ab(**{"base": "epoll", "head": "epoll", **given})  # type: ignore[arg-type]


def test_the_gate_is_a_package_and_its_function_has_a_name_of_its_own() -> None:
    script = "import tftpbench; f = tftpbench.gate_ab; import tftpbench.gate; from tftpbench import gate, gate_ab; "
    script += "import pickle; assert pickle.loads(pickle.dumps(gate_ab)) is f; assert gate.ab is not gate_ab"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


SHOWN = """
import sys
import tftpbench
folder = sys.argv[1]
run = tftpbench.load_run(folder)
assert not [name for name in sys.modules if name.startswith("tftpbench.render")], "not before something is shown"
for result in (run, run.latency("block_rtt"), tftpbench.answer(run), tftpbench.compare(folder, folder)):
    shown = result._repr_html_()
    assert "<table>" in shown, result
    print(shown)
"""


def test_a_notebook_shows_every_result_as_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(RUN)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for text in ("4, 3 valid", '<th style="text-align:left">p99</th>', "threads moves 0.76x", "times as fast as A"):
        assert text in done.stdout
