"""The pytest fixture: what a test gets for each verdict, and that others notice nothing of the plugin."""

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.gate import gate_results
from tftpbench import gate, pytest_plugin
from tftpbench.model.errors import ServerMissing
from tftpbench.render import gate as report  # what the plugin imports late is here before pytester looks at sys.modules

pytest_plugins = ["pytester"]

# By the entry point it would come twice, where that is installed.
LOADED = ("-p", "no:tftpbench", "-p", "no:cacheprovider")
CALL = """
def test_speed(tftpbench_gate):
    result = tftpbench_gate(base="old", head="new"{more})
    assert result.verdict == {verdict!r}
"""
Measured = dict[str, Any]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """What the gate was asked; `answer` is what it finds, a result or an error."""
    asked: Measured = {"answer": gate_results.gate(), "sides": ()}
    signature = inspect.signature(gate.ab)

    def both_sides(base: str, head: str, like: str | None = None, *, in_network: bool = False) -> tuple[object, object]:
        asked["in_network"] = in_network
        asked["sides"] = (base, head, like)
        return SimpleNamespace(name=base), SimpleNamespace(name=head)

    def ab(*args: object, **kwargs: object) -> gate.GateResult:
        asked.update(signature.bind(*args, **kwargs).arguments)
        if isinstance(asked["answer"], Exception):
            raise asked["answer"]
        found: gate.GateResult = asked["answer"]
        return found

    monkeypatch.setattr(gate, "both_sides", both_sides)
    monkeypatch.setattr(gate, "ab", ab)
    return asked


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Runs a test that calls the fixture with `more` arguments; the further ones are for pytest."""

    def start(more: str = "", *words: str, verdict: str = "pass") -> pytest.RunResult:
        pytester.makepyfile(CALL.format(more=more and f", {more}", verdict=verdict))
        return pytester.runpytest_inprocess(*LOADED, "-rs", *words, plugins=[pytest_plugin], no_reraise_ctrlc=True)

    return start


Run = Callable[..., pytest.RunResult]


def found(kind: str) -> gate.GateResult:
    return gate_results.every()[kind]


@pytest.mark.parametrize("verdict", ["pass", "improved"])
def test_a_head_that_is_no_worse_passes_and_the_test_gets_the_result(
    run: Run, measured: Measured, verdict: str
) -> None:
    measured["answer"] = found(verdict)
    run(verdict=verdict).assert_outcomes(passed=1)


def test_a_regression_fails_with_the_sentence_and_a_line_for_each_metric(run: Run, measured: Measured) -> None:
    measured["answer"] = found("regressed")
    done = run()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([
        measured["answer"].sentence,
        "*metric *base *head *change (95 % interval) *budget *verdict*",
        "? CPU time per MiB *+1?.? % (*to * 5 % *regressed*",
        "? blocks per second *regressed*",
    ])  # fmt: skip
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")  # no traceback


def test_several_cells_are_distinguished(run: Run, measured: Measured) -> None:
    measured["answer"] = found("cells")
    run().stdout.fnmatch_lines(["read, 10 at once*", "*blocks*", "write, 100 at once*", "*blocks*"])


def test_wrong_contents_fail_whatever_the_metrics_say(run: Run, measured: Measured) -> None:
    measured["answer"] = found("failure")
    run("fail_on='regressed'").assert_outcomes(failed=1)


@pytest.mark.parametrize("verdict", ["invalid", "inconclusive"])
def test_what_could_not_be_judged_is_skipped_unless_strict(run: Run, measured: Measured, verdict: str) -> None:
    measured["answer"] = found(verdict)
    done = run()
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines([f"SKIPPED*{verdict}*"])
    run("strict=True").assert_outcomes(failed=1)


def test_a_suspicion_warns_or_fails_as_asked(run: Run, measured: Measured) -> None:
    measured["answer"] = found("suspected")
    done = run("", "-W", "always", verdict="suspected")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*test_a_suspicion*.py:*RegressionSuspected: suspected*"])
    run("fail_on='suspected'").assert_outcomes(failed=1)


def test_an_inconclusive_gate_fails_if_asked(run: Run, measured: Measured) -> None:
    measured["answer"] = found("inconclusive")
    run("fail_on='inconclusive'").assert_outcomes(failed=1)


def test_arguments_reach_the_gate(run: Run, measured: Measured, pytester: pytest.Pytester) -> None:
    run("like=__import__('pathlib').Path('my.yaml'), settings=['matrix.concurrency=7'], seed=5").assert_outcomes(
        passed=1
    )
    assert measured["sides"] == ("old", "new", "my.yaml")
    assert measured["entries"] == ("old", "new")
    assert [cell.concurrency for cell in measured["scenario"].cells()] == [7]
    assert (measured["seed"], measured["out"]) == (5, None)
    assert measured["command"][0] == "pytest"
    assert list(pytester.path.glob("*/gate.json")) == []


def test_the_seed_of_the_command_line_holds_for_calls_without_one(run: Run, measured: Measured) -> None:
    run("", "--tftpbench-seed", "11").assert_outcomes(passed=1)
    assert measured["seed"] == 11
    run("seed=12", "--tftpbench-seed", "11").assert_outcomes(passed=1)
    assert measured["seed"] == 12


def test_what_was_measured_is_kept_where_asked(run: Run, measured: Measured, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("made-by-the-gate")
    measured["answer"] = replace(found("regressed"), folder=str(folder))
    done = run("", "--tftpbench-out", "kept")
    assert measured["out"].parts[0] == "kept"
    assert measured["out"].name.endswith("py-test_speed")
    assert {"gate.json", report.REPORT, report.JUNIT} <= {path.name for path in folder.iterdir()}
    done.stdout.fnmatch_lines([f"kept in {folder}"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("scenario='nowhere'", "nowhere"),
        ("settings=['matrix.nothing=1']", "nothing"),
        ("settings='trials=1'", "settings is 'trials=1'"),
        ("fail_on='pass'", "fail_on: 'pass' is not one of regressed"),
        ("seed=-1", "seed is -1"),
    ],
)
def test_what_can_not_be_obeyed_fails_in_one_line(run: Run, measured: Measured, more: str, said: str) -> None:
    done = run(more)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"tftpbench: *{said}*"])
    done.stdout.no_fnmatch_line("*pytest_plugin.py*")
    assert "seed" not in measured


def test_a_server_that_is_not_here_fails_in_one_line(run: Run, measured: Measured) -> None:
    measured["answer"] = ServerMissing("new: not here; get it: somewhere")
    done = run()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["tftpbench: new: not here; get it: somewhere"])


def test_an_interrupted_gate_ends_the_session(run: Run, measured: Measured) -> None:
    measured["answer"] = gate.GateInterrupted(3, None)
    done = run()
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*KeyboardInterrupt*"])


def test_a_folders_name_is_made_from_any_test() -> None:
    assert pytest_plugin._folder_name("tests/a b/test_x.py::test_y[../é;]") == "tests-a-b-test_x.py-test_y"
    assert pytest_plugin._folder_name("..") == "test"
    assert len(pytest_plugin._folder_name("x" * 1000)) == 100


def test_loading_it_loads_nothing_else_of_tftpbench() -> None:
    script = (
        "import sys, pytest; before = {*sys.modules}; import tftpbench.pytest_plugin; print(*{*sys.modules} - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(pytest_plugin.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {name for name in done.stdout.split() if "." not in name or name.startswith("tftpbench")} <= {
        "tftpbench",
        "tftpbench.pytest_plugin",
    }


def test_pytest_finds_it_where_the_package_is_installed() -> None:
    text = (Path(pytest_plugin.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["entry-points"]["pytest11"] == {"tftpbench": "tftpbench.pytest_plugin"}
