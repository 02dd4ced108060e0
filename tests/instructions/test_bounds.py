"""The counter of instructions: what it reads, how it judges, and one loop counted for real."""

import subprocess
from pathlib import Path

import pytest

from tests.instructions import bounds
from tests.instructions.bounds import BOUNDS, Bounds, CannotCountError, Judgement

CALLGRIND_OUT = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4711
cmd:  one-loop parse/ack 1000
part: 1

desc: I1 cache:
desc: Timerange: Basic block 0 - 60101
desc: Trigger: Program termination

positions: line
events: Ir
summary: 341790

fl=(1) packet.rs
fn=(1) parse
132 341790

totals: 341790
"""
HERE = {"rustc": "1.95.0", "libc": "glibc 2.36", "valgrind": "valgrind-3.19.0", "machine": "x86_64"}
OLDER = {**HERE, "rustc": "1.88.0"}
KNOWN = Bounds(HERE, {"sender/lock_step": 274.0, "server/lock_step_100": 1270.0})

needs_cargo = pytest.mark.skipif(bounds.missing() is not None, reason=str(bounds.missing()))


def test_the_total_of_a_run_is_read() -> None:
    assert bounds.total(CALLGRIND_OUT) == 341_790


def test_a_run_that_left_no_total_is_no_count() -> None:
    with pytest.raises(CannotCountError, match="without totals"):
        bounds.total(CALLGRIND_OUT.partition("totals:")[0])


@pytest.mark.parametrize(
    ("counted", "over", "words"),
    [
        (274.0, False, "+0.0%)"),
        (279.0, False, "+1.8%)"),
        (280.0, True, "too many, 2% are allowed"),
        (260.0, False, "RENEW=1 lowers the bound"),
    ],
)
def test_a_loop_may_take_two_percent_more_than_its_bound(counted: float, over: bool, words: str) -> None:
    judgement = Judgement("sender/lock_step", counted, 274.0, KNOWN.tolerance("sender/lock_step", HERE))
    assert judgement.is_over == over
    assert str(judgement).endswith(words)
    assert all(text in str(judgement) for text in ("sender/lock_step", f"{counted}", "bound    274.0"))


def test_the_server_has_room_for_what_timing_does() -> None:
    assert KNOWN.tolerance("server/lock_step_100", HERE) > KNOWN.tolerance("sender/lock_step", HERE)


def test_another_compiler_widens_every_tolerance() -> None:
    for name in KNOWN.instructions:
        assert KNOWN.tolerance(name, OLDER) == bounds.ELSEWHERE_TOLERANCE


def test_a_loop_without_a_bound_is_over_it() -> None:
    assert Judgement("new/loop", 1.0, None, 0.02).is_over


def test_bounds_survive_being_written() -> None:
    assert bounds.load(bounds.text(KNOWN)) == KNOWN
    assert BOUNDS.read_text() == bounds.text(bounds.load(BOUNDS.read_text()))


def test_without_valgrind_the_reason_is_printed_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert bounds.main([]) == 0
    assert capsys.readouterr().out == "instructions are not counted: no valgrind here: apt install valgrind\n"


@pytest.fixture(scope="module")
def program() -> Path:
    return bounds.built()


@needs_cargo
@pytest.mark.timeout(600)  # it may have to be built
def test_every_loop_runs_and_has_a_bound(program: Path) -> None:
    names = bounds.loops(program)
    for name in names:
        subprocess.run([program, name, "1000"], check=True, timeout=20)
    assert list(bounds.load(BOUNDS.read_text()).instructions) == [*names, *bounds.PROCESSES]


@needs_cargo
@pytest.mark.timeout(600)
def test_the_sender_stays_within_its_bound(program: Path) -> None:
    known, name = bounds.load(BOUNDS.read_text()), "sender/lock_step"
    counted = bounds.of_loop(program, name, units=10_000)
    judgement = Judgement(name, counted, known.instructions[name], known.tolerance(name, bounds.environment()))
    assert not judgement.is_over, str(judgement)


@needs_cargo
@pytest.mark.timeout(600)
def test_a_loop_that_does_not_exist_can_not_be_counted(program: Path) -> None:
    with pytest.raises(CannotCountError, match="no loop is called sender/none"):
        bounds.of_loop(program, "sender/none", units=1)


@pytest.mark.parametrize(("counted", "code"), [(274.0, 0), (260.0, 0), (290.0, 1)])
def test_the_exit_code_tells_whether_a_loop_takes_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, counted: float, code: int
) -> None:
    file = stand_in(monkeypatch, tmp_path, counted)
    assert bounds.main([]) == code
    assert bounds.main(["receiver"]) == 0  # nothing of that name is counted
    assert bounds.load(file.read_text()) == KNOWN


def test_renewing_writes_what_is_counted_and_forgets_what_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = stand_in(monkeypatch, tmp_path, 290.0)
    assert bounds.main(["--renew"]) == 0
    assert bounds.load(file.read_text()) == Bounds(HERE, {"sender/lock_step": 290.0})


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, counted: float) -> Path:
    """A counter of one loop that counts nothing, and a file with its bound."""
    file = folder / "bounds.yaml"
    file.write_text(bounds.text(KNOWN))
    monkeypatch.setattr(bounds, "BOUNDS", file)
    monkeypatch.setattr(bounds, "PROCESSES", {})
    answers = {"missing": None, "environment": HERE, "built": folder, "loops": ["sender/lock_step"], "of_loop": counted}
    for name, answer in answers.items():
        monkeypatch.setattr(bounds, name, lambda *_, answer=answer: answer)
    return file
