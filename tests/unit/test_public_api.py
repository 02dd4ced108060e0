"""The front of the package: complete, and light to import."""

import copy
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tftpbench
from tests.unit.builders import RUN
from tests.unit.gate import gate_results
from tftpbench.cli.run import run as run_command
from tftpbench.host.brake import Limits
from tftpbench.measure import CopyStarted, RunFinished
from tftpbench.model.scenario_files import overridden

HEAVY = {"jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "rich", "scipy", "typer", "yaml", "hdrh"}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    return set(done.stdout.split())


def test_every_public_name_can_be_had() -> None:
    assert list(tftpbench.__all__) == sorted(tftpbench.__all__)
    assert set(tftpbench.__all__) == {*tftpbench._HOMES, *tftpbench._PACKAGES}
    for name in tftpbench.__all__:
        assert getattr(tftpbench, name) is not None
    assert dir(tftpbench) == tftpbench.__all__


# Only commands raise these: what fetches servers and what measures the ceiling is no part of the API.
ERRORS_OF_COMMANDS = {"CeilingError", "FetchError"}
# Distinguished within a run, and caught as what they are a kind of.
KINDS = {
    "CopyFailed",
    "NetworkGone",
    "NetworkRefused",
    "NoNetwork",
    "NothingListens",
    "PortRefused",
    "PortTaken",
    "Refused",
}
USED = """
import tftpbench
from tftpbench import api, gate, measure, plots, render
tftpbench.load_run, tftpbench.run, tftpbench.gate_ab, tftpbench.Server, tftpbench.plots.throughput
assert dir(tftpbench) == tftpbench.__all__, dir(tftpbench)

def below(kind):
    for each in kind.__subclasses__():
        yield each
        yield from below(each)

print(*(each.__name__ for each in below(tftpbench.TftpbenchError) if each.__module__.startswith("tftpbench")))
"""


def test_after_use_the_front_shows_exported_names_alone_and_every_error_is_among_them() -> None:
    done = subprocess.run([sys.executable, "-c", USED], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    raised = set(done.stdout.split())
    assert {"RunInterrupted", "GateInterrupted", "ServerDied"} < raised
    assert raised - set(tftpbench.__all__) == ERRORS_OF_COMMANDS | KINDS


def test_plots_are_there_without_an_import_of_their_own() -> None:
    script = "import tftpbench; print(tftpbench.plots.throughput.__name__)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "throughput\n"


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
        elif inspect.isclass(value) and not issubclass(value, Exception) and name != "GateResult":
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
        ({"trials": "many"}, "is 'many'; allowed: 1 to"),
        ({"trails": 3}, "unknown key; did you mean 'trials'?"),
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
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What recording.run was asked for; nothing is measured, and the recorded run is what came of it."""
    seen: dict[str, Any] = {}

    def run(scenario: tftpbench.Scenario, **more: Any) -> Any:
        seen.update(scenario=scenario, **more)
        more["on_event"](RunFinished(RUN, interrupted=False))
        return SimpleNamespace(folder=RUN)

    monkeypatch.setattr("tftpbench.store.recording.run", run)
    return seen


def test_a_run_takes_the_options_of_the_command(asked: dict[str, Any], tmp_path: Path) -> None:
    tftpbench.run("concurrency", target="127.0.0.1:6969", target_file="boot.0", trials=4, quick=True, seed=7)
    scenario = asked["scenario"]
    assert (scenario.servers, scenario.trials, asked["seed"]) == (("tftp://127.0.0.1:6969/boot.0",), 4, 7)
    assert scenario.duration_ns < tftpbench.load_scenario("concurrency").duration_ns, "short, as --quick is"
    tftpbench.run("concurrency", target="::1", target_write=True, allow_remote=True, out=tmp_path)
    assert (asked["scenario"].servers, asked["out"]) == (("tftp://[::1]:69",), tmp_path)
    assert (asked["allow_remote"], asked["limits"]) == (True, Limits())
    tftpbench.run("concurrency", max_rate="80Mbit/s", keep_going=True)
    assert asked["limits"] == Limits(stops=False, bytes_per_s_max=10_000_000)
    run = tftpbench.run(resume=RUN)
    assert (asked["resume"], asked["scenario"].name) == (RUN, run.manifest["scenario"]["name"])
    offered = {*inspect.signature(tftpbench.run).parameters}
    instead = {"server": "servers", "set_": "overrides", "quiet": "progress"}
    # The plan of a dry run and the JSON document are printed: a caller has the Run.
    of_command = {instead.get(name, name) for name in inspect.signature(run_command).parameters}
    assert of_command - offered == {"dry_run", "json_", "map_"}, "the last is overrides={'map': {...}}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"target": "127.0.0.1:6969"},
            "target needs a file to read: name one that the server has with target_file NAME",
        ),
        ({"target_file": "boot.0"}, "target_file and target_write go with target"),
        ({"target": "127.0.0.1:none", "target_write": True}, "has no port from 1 to 65535"),
        ({"trials": 0}, "is 0; allowed: 1 to"),
        ({"max_rate": "80"}, "max_rate is '80'; allowed: bits or bytes a second"),
        ({"max_rate": "1B/s"}, "max_rate is '1B/s'; allowed: 8kbit/s or more"),
        ({"max_rate": 80}, "max_rate is a value of type int; allowed: bits or bytes a second"),
        ({"dask_key": "key.pem"}, "dask_ca, dask_cert and dask_key go with dask"),
        ({"dask": 8786}, "dask is a value of type int; allowed: a scheduler's address, as text"),
        ({"dask": "tcp://192.0.2.1:8786"}, "allowed: tls://HOST:PORT, and tcp:// on loopback"),
        ({"scenario": None}, "no scenario given"),
        ({"resume": RUN}, "resume continues the scenario as it was run"),
        ({"scenario": None, "resume": RUN, "trials": 3}, "resume continues the scenario as it was run"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(asked: dict[str, Any], given: dict[str, Any], said: str) -> None:
    with pytest.raises(tftpbench.UsageError, match=said):
        tftpbench.run(**{"scenario": "concurrency", **given})
    assert not asked


def test_a_run_writes_its_page_when_it_is_asked_for(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr("tftpbench.api.write_page", lambda run: written.append(run.path))
    for report in (False, True):
        tftpbench.run("concurrency", report=report)
    assert written == [RUN]
    assert asked


def test_a_run_calls_on_event_and_prints_nothing_outside_a_notebook_unless_asked(
    asked: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []
    for progress in (None, False):
        tftpbench.run("concurrency", progress=progress, on_event=seen.append)
    assert len(seen) == 2
    assert capfd.readouterr() == ("", "")
    tftpbench.run("concurrency", progress=True)
    asked["on_event"](CopyStarted("127.0.0.1:69", "boot.0"))
    assert "Copying 'boot.0'" in capfd.readouterr().err


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


@pytest.mark.parametrize("before", ["tftpbench", "tftpbench.gate", "tftpbench.api", "tftpbench.gate.result"])
def test_the_gate_can_be_called_whatever_was_imported_before(before: str) -> None:
    script = f"import {before}, tftpbench\ntry:\n    tftpbench.gate('epoll', 3)\nexcept tftpbench.UsageError as error:"
    script += "\n    print(error)"
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=30, capture_output=True, text=True)
    assert done.stdout == "head is a value of type int; allowed: a server, as text or a Path\n"


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
