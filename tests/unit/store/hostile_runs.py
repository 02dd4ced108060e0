"""Every file of a run's folder, replaced by what no run has, and what each command says to it.

Run by test_hostile_folders in a process of its own, with little memory and a clock that ends it: what hangs or eats the
memory must not take the tests with it. It prints a line of JSON for each case.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.report.runs import asked, manifest, rows, store
from tftpbench import cli, load_run
from tftpbench.model.errors import TftpbenchError
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
