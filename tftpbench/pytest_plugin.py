"""The pytest fixture `tftpbench_gate`: a performance gate for people who keep their checks in pytest.

    def test_no_regression(tftpbench_gate):
        tftpbench_gate(base="./old/mytftpd", head="./new/mytftpd", like="mytftpd.yaml")

pytest loads this in every project of an environment that has tftpbench, so it must never import more than pytest
before the fixture is called, nor change anything for tests that do not ask for it. It decides nothing; the gate does.
Loaded by pytest through the entry point `tftpbench`.
"""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import pytest

if TYPE_CHECKING:
    from tftpbench.gate.result import GateResult

Server = str | os.PathLike[str]
FailOn = Literal["regressed", "suspected", "inconclusive"]


class RegressionSuspected(UserWarning):
    """The head is worse for certain, and by more than the budget by the estimate, which is not for certain."""


class Gate:
    """What the fixture gives: call it to measure."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __call__(
        self,
        *,
        base: Server,
        head: Server,
        like: Server | None = None,
        scenario: Server = "gate",
        settings: Sequence[str] = (),
        fail_on: FailOn = "regressed",
        strict: bool = False,
        seed: int | None = None,
    ) -> "GateResult":
        """Hold head against base in turns on this machine; the default scenario takes up to five minutes.

        Arguments are those of `tftpbench gate ab`: `like` is its --as, `settings` its --set. The test fails where the
        head regressed, or is suspected or the gate inconclusive and `fail_on` says so; else suspected is a warning. It
        is skipped where nothing could be judged (invalid, inconclusive): a noisy machine is not a failure, unless
        `strict`. What can't be obeyed or started fails in one line.
        """
        from tftpbench.gate import GateInterrupted
        from tftpbench.model.arguments import one_of
        from tftpbench.model.errors import TftpbenchError, UsageError

        __tracebackhide__ = True
        entries = os.fspath(base), os.fspath(head)
        try:
            one_of(fail_on, "fail_on", get_args(FailOn), UsageError)
            result = _measure(self._request, entries, like, scenario, settings, seed, fail_on)
        except GateInterrupted as error:
            raise KeyboardInterrupt(str(error)) from None  # it ends the session, as any Ctrl-C does
        except TftpbenchError as error:
            pytest.fail(f"tftpbench: {error}", pytrace=False)
        _judge(result, fail_on, strict)
        return result


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options, which only the fixture looks at."""
    group = parser.getgroup("tftpbench")
    group.addoption("--tftpbench-out", metavar="DIR", help="Where each tftpbench_gate keeps what it measured.")
    group.addoption(
        "--tftpbench-seed", metavar="N", type=int, help="The order of a tftpbench_gate's measurements; else random."
    )


@pytest.fixture
def tftpbench_gate(request: pytest.FixtureRequest) -> Gate:
    """Call it to hold two TFTP servers against each other; it fails the test on a regression."""
    return Gate(request)


def _measure(
    request: pytest.FixtureRequest,
    entries: tuple[str, str],
    like: Server | None,
    scenario: Server,
    settings: Sequence[str],
    seed: int | None,
    fail_on: FailOn,
) -> "GateResult":
    from tftpbench import gate
    from tftpbench.model.arguments import texts_of
    from tftpbench.model.errors import UsageError
    from tftpbench.model.scenario_files import load_scenario
    from tftpbench.render import gate as report

    manifest = None if like is None else os.fspath(like)
    question = load_scenario(os.fspath(scenario), texts_of(settings, "settings", UsageError, "a list of KEY=VALUE"))
    base, head = gate.both_sides(*entries, manifest, in_network=question.in_network)
    chosen = _seed(request.config, seed)
    out = request.config.getoption("--tftpbench-out")
    result = gate.ab(
        base,
        head,
        question,
        entries=entries,
        seed=chosen,
        out=Path(out) / _folder_name(request.node.nodeid) if out else None,
        command=("pytest", request.node.nodeid, f"--tftpbench-seed={chosen}"),
    )
    if result.folder is not None:
        report.write(result, Path(result.folder), fail_on)
    return result


def _seed(config: pytest.Config, seed: int | None) -> int:
    """The call's, else the command line's, else a new one."""
    from tftpbench.api import random_seed
    from tftpbench.model.arguments import SEED_MAX, whole_of
    from tftpbench.model.errors import UsageError

    given = {"seed": seed, "--tftpbench-seed": config.getoption("--tftpbench-seed")}
    known = [whole_of(value, name, 0, SEED_MAX, UsageError) for name, value in given.items() if value is not None]
    return known[0] if known else random_seed()


def _folder_name(nodeid: str) -> str:
    """A test's name as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", nodeid).strip("-.")[-100:] or "test"


def _judge(result: "GateResult", fail_on: FailOn, strict: bool) -> None:
    """The verdict as pytest says it."""
    from tftpbench.render.gate import table
    from tftpbench.render.plain import plain
    from tftpbench.render.sections import Paragraph

    __tracebackhide__ = True
    kept = Paragraph((f"kept in {result.folder}",) if result.folder else ())
    text = plain([Paragraph((result.sentence,)), table(result.gated), kept])
    unknown = result.verdict in ("invalid", "inconclusive")
    if result.failure is not None or result.exit_code(fail_on) in (3, 4) or (unknown and strict):
        pytest.fail(text, pytrace=False)
    if unknown:
        pytest.skip(result.sentence)
    if result.verdict == "suspected":
        warnings.warn(RegressionSuspected(text), stacklevel=3)
