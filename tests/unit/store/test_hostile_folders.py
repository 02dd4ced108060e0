"""Folders that were altered: bounds before work, regular files only, one line each, and never a wait.

Run as a program it replaces every file of a run's folder by what no run has, and prints a line of JSON for what each
command says to it. The test does so in a process of its own, with little memory and a clock that ends it: what hangs or
eats the memory must not take the tests with it.
"""

import base64
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.builders import INTERVALS, TRANSFERS, asked, create, manifest, row, rows, save, store
from tftpbench import cli
from tftpbench.analysis.summary import answer_of
from tftpbench.gate.document import load as load_gate
from tftpbench.host.choice import choose_manifest
from tftpbench.model.errors import ResultsError, ResultsWarning, ScenarioError, TftpbenchError, UsageError
from tftpbench.model.latency import DECODED_MAX_BYTES, PAYLOAD_MAX_BYTES
from tftpbench.model.regular_file import write_chosen, write_whole
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.report.contents import contents_of
from tftpbench.render.report.figures import figures_of
from tftpbench.store import Latency, RunFolder, load_run, tables
from tftpbench.store import format as form
from tftpbench.store.pack import pack

FILES = (
    "manifest.json", "trials.jsonl", "trials", "trials/1", "trials/1/transfers.parquet", "trials/1/latency.hlog",
    "trials/1/intervals.parquet", "trials/1/server.log", "answer.txt", "report.md",
)  # fmt: skip
PACKED = "packed "
PACKED_FILES = ("trials.jsonl.xz", "latency.parquet", "transfers.parquet", "intervals.parquet")
MEMORY_BYTES = 4 << 30  # of addresses; the libraries alone take 1.5 GiB of them
CASE_S = 30


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": Path.mkdir,
    "link to a device": _link,
    "link to itself": lambda path: path.symlink_to(path.name),
    "empty": Path.touch,
    "ten megabytes of NUL": _bytes(bytes(10 << 20)),
    "random bytes": _bytes(bytes((number * 7919 + number // 3) % 256 for number in range(5000))),
}


def made(out: Path) -> Path:
    question = asked(["epoll", "threads"], concurrency=(10,), trials=2)
    run = store(out, manifest(question), rows(question), transfers=5)
    (run / "answer.txt").write_text("what it said\n")
    (run / "report.md").write_text("what it reported\n")
    return run


def replaced(run: Path, name: str, kind: str, out: Path) -> Path:
    """A copy of the run in which one file is another."""
    copy = out / f"{name.replace('/', '-')} {kind}"
    shutil.copytree(run, copy)
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    KINDS[kind](path)
    return copy


def reading(folder: Path) -> int:
    """What a notebook does. Problems are allowed, and errors of ours."""
    run = load_run(folder)
    for look in (lambda: run.trials, lambda: run.transfers, lambda: run.intervals, lambda: run.latency("block_rtt")):
        with contextlib.suppress(TftpbenchError):
            look()
    print("\n".join(run.problems), repr(run))
    return 0


ACTIONS: dict[str, Callable[[Path, Path], int]] = {
    "report": lambda folder, _: cli.exit_code(["report", str(folder), "-f", "md"]),
    "compare": lambda folder, whole: cli.exit_code(["compare", str(whole), str(folder)]),
    "resume": lambda folder, _: cli.exit_code(["run", "--resume", str(folder), "--quiet"]),
    "load_run": lambda folder, _: reading(folder),
}


def cases() -> Iterator[tuple[str, str, str]]:
    """File, kind and action; of files that few read, what would make them wait. PACKED: of a packed run."""
    for name in FILES:
        waits = ["FIFO", "link to a device"]
        for kind in KINDS if FILES.index(name) < FILES.index("trials/1/intervals.parquet") else waits:
            for action in ACTIONS:
                yield name, kind, action
    for name in PACKED_FILES:
        for kind in KINDS if PACKED_FILES.index(name) < PACKED_FILES.index("transfers.parquet") else ["FIFO"]:
            for action in ("report", "load_run"):
                yield f"{PACKED}{name}", kind, action


def case(action: str, folder: Path, whole: Path) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    code: int | str
    signal.alarm(CASE_S)  # its default is to end the process: no library may catch that
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = ACTIONS[action](folder, whole)
    except TftpbenchError as error:
        code = error.exit_code
        err.write(f"{error}\n")
    except Exception:
        code = traceback.format_exc()
    signal.alarm(0)
    return {"action": action, "code": code, "out": out.getvalue(), "err": err.getvalue()}


def main(out: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    run = made(out / "whole")
    packed = pack(run, out / "packed" / run.name).path
    for name, kind, action in cases():
        is_packed = name.startswith(PACKED)
        folder = replaced(packed if is_packed else run, name.removeprefix(PACKED), kind, out / f"{action} {is_packed}")
        print(json.dumps({"file": name, "kind": kind, **case(action, folder, run)}), flush=True)


pytestmark = pytest.mark.timeout(300)  # a machine that does other things too
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
Said = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What each command says of each altered folder, from a process with bounds of its own."""
    out = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(out)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(each["file"], each["kind"], each["action"]): each for each in found}


@pytest.mark.parametrize(("name", "kind", "action"), list(cases()))
def test_whatever_lies_in_the_place_of_a_file_is_read_within_bounds_or_refused_in_one_line(
    said: Said, name: str, kind: str, action: str
) -> None:
    case = said.get((name, kind, action))
    assert case is not None, "it waited, or took all memory"
    assert case["code"] in (0, 2, 5, 6), case["code"]
    assert not CONTROL.search(case["out"] + case["err"])
    assert "Traceback" not in case["err"]
    errors = [line for line in case["err"].splitlines() if line.startswith("tftpbench: error: ")]
    assert len(errors) == (case["code"] in (2, 5) and action != "load_run")
    assert all(len(line) < 2300 for line in case["err"].splitlines())


def test_a_file_that_is_no_regular_file_is_named(said: Said) -> None:
    for name in ("manifest.json", "trials.jsonl"):
        for action in ACTIONS:
            text = said[name, "FIFO", action]["err"]
            assert re.search(rf"{re.escape(name)}: can't be (read|written): it is no regular file", text), text


def header(digits: int = 3, lowest: int = 64, highest: int = 3_600_000_000_000) -> bytes:
    return struct.pack(">IIIIQQd", 0x1C849303 | 0x10, 0, 0, digits, lowest, highest, 1.0)


def packed(content: bytes) -> str:
    payload = zlib.compress(content)
    return base64.b64encode(struct.pack(">II", 0x1C849304 | 0x10, len(payload)) + payload).decode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(digits=5), "goes from 64 to 3600000000000 with 5 digits"),
        (header(digits=0), "with 0 digits"),
        (header(highest=2**63), "to 9223372036854775808"),
        (header(lowest=0), "goes from 0"),
        (header(lowest=2**40), "goes from 1099511627776"),
        (header(highest=64), "to 64"),
        (header()[:20], "no histogram"),
        (b"", "no histogram"),
        (header() + bytes(200 << 20), f"more than {PAYLOAD_MAX_BYTES} bytes"),
        # One count of 2**62 - 1 in ZigZag LEB128: sums of it wrap round in 64 bits.
        (header() + bytes([0xFE] + [0xFF] * 8), "count more than"),
    ],
    ids=["digits", "no digits", "highest", "zero", "lowest", "empty range", "cut", "nothing", "bomb", "count"],
)  # fmt: skip
def test_a_histogram_is_held_to_bounds_before_it_is_decoded(
    content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "count" not in words:
        monkeypatch.setattr("tftpbench.model.latency.HdrHistogram", None)  # it must not even be asked
    with pytest.raises(ResultsError, match=words):
        Latency.of([packed(content)])


def test_all_histograms_of_a_log_together_are_bounded() -> None:
    large = packed(header() + bytes([2]) * 20_000)
    assert Latency.of([large]).count == 20_000
    with pytest.raises(ResultsError, match="more than 64 MiB of histograms"):
        Latency.of([large] * (DECODED_MAX_BYTES // 20_000 + 2))


def claims(count: int) -> str:
    """A log of `count` lines in which each histogram claims 60 million counters."""
    line = f"Tag=block_rtt,0.000,1.000,1.000,{packed(header(digits=5, lowest=1, highest=2**62))}\n"
    return line * count


def test_small_files_that_claim_much_do_not_hold_a_report(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"], concurrency=(10,), trials=12)
    run = store(tmp_path, manifest(question), rows(question))
    for trial in range(1, 25):
        (run / "trials" / str(trial)).mkdir(parents=True)
        (run / "trials" / str(trial) / "latency.hlog").write_text(claims(120))
    assert (run / "trials/1/latency.hlog").stat().st_size < 20_000

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    done = subprocess.run(
        [sys.executable, "-m", "tftpbench", "report", str(run), "-f", "md"],
        capture_output=True, text=True, check=False, preexec_fn=bounded,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trials/1/latency.hlog can't be read: a histogram in it goes from" in done.stdout


def test_three_million_bad_lines_are_a_hundred_problems_and_their_number(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1)
    path = folder.path / "trials.jsonl"
    path.write_bytes(path.read_bytes() + b"x\n" * 3_000_000)
    run = load_run(folder.path)
    with warnings.catch_warnings(record=True) as words:
        warnings.simplefilter("always")
        assert [each["trial"] for each in run.rows] == [1]
    assert len(words) == form.FAULTS_MAX + 1
    assert len(run.broken) == form.FAULTS_MAX + 1 + 1  # and the figures that the whole trial lacks
    assert "reading stopped: 100 lines before it are no trials, 3000001 there are" in run.broken[form.FAULTS_MAX]


def test_more_trials_than_any_run_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path) as folder:
        for trial in range(1, 5):
            save(folder, trial)
    monkeypatch.setattr(form, "ROWS_MAX", 3)
    with pytest.raises(ResultsError, match=r"trials\.jsonl: holds more than 3 trials, 4 lines"):
        _ = load_run(folder.path).rows


@pytest.mark.parametrize("name", ["MANIFEST_MAX_BYTES", "TRIALS_MAX_BYTES", "LATENCY_MAX_BYTES"])
def test_a_file_that_is_larger_than_any_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with create(tmp_path) as folder:
        save(folder, 1, "x" * 5000)
    monkeypatch.setattr(form, name, 10)
    with pytest.raises(ResultsError, match=r"(manifest\.json|trials\.jsonl|latency\.hlog).* is larger than 0 KiB"):
        load_run(folder.path).latency("block_rtt")


def test_a_line_is_bounded(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1, verdict_reason="x" * form.ROW_MAX_BYTES)
    with pytest.warns(ResultsWarning, match="trials.jsonl:1: is longer than 1 MiB"):
        assert load_run(folder.path).rows == []


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("server_findings", {"kind": ["died"], "count": 1, "text": "died"}),
        ("server_findings", {"kind": "died", "text": "died"}),
        ("server_findings", {"kind": "died", "count": -1, "text": "died"}),
        ("server_findings", {"kind": "died", "count": True, "text": "died"}),
        ("server_findings", {"kind": "died", "count": 1}),
        ("server_findings", "died"),
        ("protocol_faults", {"kind": "bad_ack", "example": "00"}),
        ("protocol_faults", {"kind": "bad_ack", "count": 1, "example": 7}),
        ("protocol_faults", {"kind": "bad_ack", "count": 1, "example": "00", "rfc_section": ["1350"]}),
        ("protocol_faults", None),
    ],
)
def test_an_item_of_a_list_that_has_another_shape_makes_the_line_no_trial(
    tmp_path: Path, name: str, item: object
) -> None:
    question = asked(["epoll", "threads"], concurrency=(10,))
    first, *others = [each | {"failed": 1, "completed": 497} for each in rows(question)]
    run = load_run(store(tmp_path, manifest(question), [first | {name: [item]}, *others]))
    with pytest.warns(ResultsWarning, match=rf"trials\.jsonl:1: {name} holds .*; allowed: objects with count, "):
        assert len(run.rows) == len(others)
    assert answer_of(run).sentence


@pytest.mark.parametrize(
    ("name", "words"), [("ROWS_MAX", "2 rows"), ("COLUMNS_MAX", "columns"), ("SIZE_MAX_BYTES", "bytes")]
)
def test_a_table_is_bounded_by_what_it_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    with create(tmp_path) as folder:
        save(folder, 1)
    monkeypatch.setattr(tables, name, 1)
    with pytest.warns(ResultsWarning, match=rf"trials/1/transfers\.parquet can't be read: it has .*{words}.*left out"):
        assert len(load_run(folder.path).transfers) == 0


def test_all_tables_of_a_run_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path) as folder:
        for trial in (1, 2, 3):
            save(folder, trial)
    monkeypatch.setattr("tftpbench.store.run.TABLE_ROWS_MAX", 5)
    with pytest.warns(ResultsWarning, match=r"trials/3/transfers\.parquet can't be read: it has 2 rows; allowed: 1"):
        assert load_run(folder.path).transfers["trial"].tolist() == [1, 1, 2, 2]


def test_all_histograms_of_a_run_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = f"Tag=block_rtt,0,1,1,{packed(header() + bytes([2]))}\n"
    with create(tmp_path) as folder:
        for trial in (1, 2):
            save(folder, trial, log)
    monkeypatch.setattr("tftpbench.store.trial_files.HISTOGRAMS_MAX", 1)
    run = load_run(folder.path)
    with pytest.warns(ResultsWarning, match=r"trials/2/latency\.hlog is left out: with it the run holds more than 1"):
        assert run.latency("block_rtt").count == 1
    assert run.latency("block_rtt").count == 1, "a trial that is read again is counted once"


def test_a_text_that_no_encoding_has_is_shown_and_harms_no_frame(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1, server="\ud800", newer=["\udcff"])
    [server] = load_run(folder.path).trials["server"]
    assert server == "\\ud800"


def test_a_run_can_be_resumed_where_a_fifo_waits_under_a_name_that_it_writes(tmp_path: Path) -> None:
    create(tmp_path).close()
    path = tmp_path / "20260102T120000Z-smoke"
    for name in (".unfinished-manifest.json", "trials/.unfinished-1", "trials/1"):
        os.mkfifo(path / name)
    with RunFolder.open_for_resume(path) as folder:
        folder.amend("ceilings", {})
        folder.write_trial_files(1, TRANSFERS, INTERVALS, "", b"")
        folder.append_trial(row(1))
    assert load_run(path).manifest["ceilings"] == {}


def test_a_report_takes_the_place_of_a_fifo_and_goes_into_one_that_was_chosen(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.html")
    write_whole(tmp_path / "report.html", b"page", ResultsError)
    assert (tmp_path / "report.html").read_text() == "page"
    os.mkfifo(tmp_path / "chosen")
    reader = os.open(tmp_path / "chosen", os.O_RDONLY | os.O_NONBLOCK)
    write_chosen(tmp_path / "chosen", b"page", ResultsError)
    assert os.read(reader, 10) == b"page"
    os.close(reader)


@pytest.mark.parametrize("kind", ["FIFO", "directory", "link to a device"])
@pytest.mark.parametrize("read", [load_scenario, choose_manifest, load_gate], ids=lambda read: read.__module__)
def test_documents_are_regular_files(tmp_path: Path, kind: str, read: Any) -> None:
    path = tmp_path / "gate.json" if read is load_gate else tmp_path / "file.yaml"
    KINDS[kind](path)
    with pytest.raises(UsageError, match=rf"^[^\n]*{path.name}[^\n]* (is no regular file|there is no )[^\n]*$"):
        read(str(path))


@pytest.mark.parametrize("kind", ["FIFO", "directory", "link to a device"])
def test_what_reads_are_verified_against_is_a_regular_file(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    KINDS[kind](tmp_path / "file")
    code = cli.exit_code(["load", "127.0.0.1:69", "--read", "x", "--verify-against", str(tmp_path / "file")])
    assert (code, capsys.readouterr().err) == (
        2, f"tftpbench: error: --verify-against {tmp_path}/file: is no regular file\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('servers: ["a/\\0b"]', r"holds '\\x00'"),
        ('servers: ["../\\ud800"]', r"holds '\\ud800'"),
        ("servers: [" + "9" * 5000 + "]", "is no value of type 'int'"),
    ],
)
def test_what_escapes_of_yaml_can_make_and_no_file_can_be_called_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "s.yaml").write_text(f"schema: tftpbench.scenario/1\nname: n\n{text}\n")
    with pytest.raises(ScenarioError, match=rf"s\.yaml:3:\d+: .*{words}"):
        load_scenario(tmp_path / "s.yaml")


@pytest.mark.parametrize("assignment", ["a." * 50 + "a=1", "a=" + "x" * 300_000, "a=" + "[" * 100_000, "=1", "a..b=1"])
def test_a_set_is_bounded_as_a_file_is(assignment: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenario("concurrency", [assignment])
    assert len(str(error.value)) < 2200
    assert "\n" not in str(error.value)


def test_the_bounds_are_far_from_the_largest_recorded_run() -> None:
    recorded = Path(__file__).parents[3] / "results" / "reference"
    for name, most in (
        ("manifest.json", form.MANIFEST_MAX_BYTES), ("trials.jsonl.xz", form.TRIALS_MAX_BYTES),
        ("latency.parquet", tables.SIZE_MAX_BYTES),
    ):  # fmt: skip
        assert max(path.stat().st_size for path in recorded.rglob(name)) * 50 < most


def test_a_run_of_hundreds_of_servers_is_reported_without_pictures_of_them(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"], concurrency=(10,), trials=2)
    found = [
        {**rows(question)[0], "trial": number, "order": number, "server": f"s{number}"} for number in range(1, 301)
    ]
    run = load_run(store(tmp_path, manifest(question), found))
    figures = figures_of(contents_of(run))
    assert (
        "throughput: 300 servers with 300 figures are too many for a picture; allowed: 60 with 1000" in figures.left_out
    )
    assert {each.name for each in figures.plots} <= {"ratios", "pairs"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
