"""``tftpbench load``: load on one server, without a scenario."""

import json
import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tftpbench.cli import options
from tftpbench.cli.signals import ending

if TYPE_CHECKING:
    from tftpbench.host.generator import LoadConfig, LoadResult, ReadBack

DEFAULT_DURATION = "10s"
TRANSFERS_MAX = 10**9  # each leaves a row in memory


class Sockets(StrEnum):
    """How many sockets the generator's transfers share."""

    auto = "auto"
    shared = "shared"
    per_transfer = "per-transfer"


class Verify(StrEnum):
    """Whether uploads are compared with what was sent."""

    full = "full"
    off = "off"


_SOCKETS: dict[Sockets, Literal["shared", "per-transfer"]] = {
    Sockets.shared: "shared",
    Sockets.per_transfer: "per-transfer",
}


Target = Annotated[str, typer.Argument(metavar="HOST:PORT", help="Address of the server; [::1]:69 for IPv6.")]
Read = Annotated[str | None, typer.Option("--read", metavar="NAME", help="File to read; {n} becomes a number.")]
Write = Annotated[str | None, typer.Option("--write", metavar="NAME", help="File to write; {n} becomes a number.")]
Concurrency = Annotated[int, typer.Option("-c", "--concurrency", min=1, metavar="N", help="Transfers in flight.")]
Transfers = Annotated[int | None, typer.Option(min=1, max=TRANSFERS_MAX, metavar="N", help="Number of transfers.")]
Duration = Annotated[
    str | None,
    typer.Option(metavar="TIME", help=f"Time to measure, in place of --transfers; {DEFAULT_DURATION} unless given."),
]
WarmUp = Annotated[str, typer.Option(metavar="TIME", help="Time of load before --duration begins.")]
Size = Annotated[str, typer.Option(metavar="SIZE", help="Size of the files to write.")]
DistinctFiles = Annotated[
    int,
    typer.Option(
        min=0, max=TRANSFERS_MAX, metavar="N", help="Number of values of {n}, from 0; 0: one for each transfer."
    ),
]
Blksize = Annotated[
    int, typer.Option(min=8, max=65464, metavar="N", help="Bytes of a DATA block; 512 asks for no option.")
]
Windowsize = Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Blocks per ACK; 1 asks for no option.")]
Tsize = Annotated[bool, typer.Option("--tsize", help="Ask for tsize.")]
Timeout = Annotated[str, typer.Option(metavar="TIME", help="Time until the first retransmission.")]
Retries = Annotated[
    int, typer.Option(min=0, max=100, metavar="N", help="Timeouts without progress before a transfer is given up.")
]
VerifyAgainst = Annotated[Path | None, typer.Option(metavar="FILE", help="Compare every byte that is read with FILE.")]
VerifyUploads = Annotated[
    Verify, typer.Option(help="full: read the files that were written back and compare every byte.")
]
UseOfSockets = Annotated[
    Sockets,
    typer.Option(help="shared: a few for all transfers, on IPv4 loopback only; auto: shared where possible."),
]
Workers = Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Threads of the generator.")]
BusyPoll = Annotated[str, typer.Option(metavar="TIME", help="Time to poll before sleeping.")]
Seed = Annotated[int, typer.Option(metavar="N", callback=options.checked_seed, help="Contents of the files to write.")]


def load(
    target: Target,
    read: Read = None,
    write: Write = None,
    concurrency: Concurrency = 10,
    transfers: Transfers = None,
    duration: Duration = None,
    warm_up: WarmUp = "0s",
    size: Size = "64KiB",
    distinct_files: DistinctFiles = 0,
    blksize: Blksize = 512,
    windowsize: Windowsize = 1,
    tsize: Tsize = False,
    timeout: Timeout = "1s",
    retries: Retries = 5,
    verify_against: VerifyAgainst = None,
    verify: VerifyUploads = Verify.full,
    sockets: UseOfSockets = Sockets.auto,
    workers: Workers = 1,
    busy_poll: BusyPoll = "1ms",
    seed: Seed = 1,
    allow_remote: options.AllowRemote = False,
    json_: options.Json = False,
) -> int:
    """Put load on a running server and report what it did.

    Exit code 3 means that transfers failed, timed out or were not done.
    """
    from tftpbench.host.generator import LoadConfig, best_sockets
    from tftpbench.host.target import numeric_address

    operation, name = _file(read, write, verify_against)
    if transfers is not None and duration is not None:
        raise typer.BadParameter("--transfers and --duration exclude each other")
    host, port = numeric_address(target)
    is_timed = transfers is None
    config = LoadConfig(
        host=host,
        port=port,
        operation=operation,
        name=name,
        file_size_bytes=_file_size(verify_against) if verify_against else options.size_bytes("--size", size),
        concurrency=concurrency,
        distinct_files=distinct_files if "{n}" in name else 1,
        seed=seed,
        verify="full" if verify_against or (write is not None and verify is Verify.full) else "off",
        verify_against=verify_against,
        allow_remote=allow_remote,
        workers=min(workers, concurrency),
        transfers=transfers,
        duration_ns=options.duration_ns("--duration", duration or DEFAULT_DURATION) if is_timed else None,
        warm_up_ns=options.duration_ns("--warm-up", warm_up) if is_timed else 0,
        blksize=blksize,
        windowsize=windowsize,
        tsize=tsize,
        timeout_ns=_wait_ns(timeout),
        retries=retries,
        sockets=best_sockets(host) if sockets is Sockets.auto else _SOCKETS[sockets],
        busy_poll_us=options.duration_ns("--busy-poll", busy_poll) // 1000,
    )
    return _report(config, *_run(config), json_)


EXAMPLES = (
    "tftpbench load 127.0.0.1:6969 --read pxelinux.0",
    "tftpbench load 127.0.0.1:6969 --write upload-{n} -c 100 --transfers 1000 --blksize 1428",
)


def _file(read: str | None, write: str | None, verify_against: Path | None) -> tuple[Literal["read", "write"], str]:
    """What to do, and the name of the file to do it with."""
    if read is not None and write is None:
        return "read", read
    if write is None or read is not None:
        raise typer.BadParameter("name one file: --read NAME or --write NAME")
    if verify_against is not None:
        raise typer.BadParameter("--verify-against compares what is read; it goes with --read")
    return "write", write


def _run(config: "LoadConfig") -> tuple["LoadResult", "ReadBack | None", bool]:
    """The result, and whether Ctrl-C cut it short: what was measured until then still counts; twice ends at once."""
    from tftpbench.host.generator import Stop, read_back, run_load
    from tftpbench.render import load_report

    stop = Stop()
    interrupted: list[int] = []

    def on_signal(number: int, _: object) -> None:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(number)
        stop.request()

    def on_answer(news: str) -> None:
        if news == "unanswered":
            typer.echo(load_report.unanswered(config), err=True)
        elif news == "refused":
            typer.echo(load_report.refused(config), err=True)
            stop.request()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, *ending())}
    try:
        result, back = run_load(config, stop, on_answer=on_answer), None
        if config.operation == "write" and config.verify == "full" and not interrupted:
            back = read_back(config, result, stop)
        return result, back, bool(interrupted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(config: "LoadConfig", result: "LoadResult", back: "ReadBack | None", interrupted: bool, json_: bool) -> int:
    from tftpbench.render import load_report

    text = load_report.render(config, result, back)
    typer.echo(text, err=json_)
    if json_:
        typer.echo(json.dumps(load_report.document(config, result, back), ensure_ascii=False))
    if interrupted:
        return 130
    return 3 if load_report.has_failures(config, result, back) else 0


def _file_size(path: Path) -> int:
    from tftpbench.model.regular_file import open_regular

    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise typer.BadParameter(f"--verify-against {path}: {error.strerror}") from None


def _wait_ns(text: str) -> int:
    wait_ns = options.duration_ns("--timeout", text)
    if wait_ns == 0:
        raise typer.BadParameter("--timeout is 0; allowed: longer than that, as in 200ms")
    return wait_ns
