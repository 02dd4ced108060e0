"""``tftpbench load``: load on one server, without a scenario."""

import json
import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tftpbench.cli.address import numeric_address
from tftpbench.cli.signals import ending

if TYPE_CHECKING:
    from tftpbench.host.generator import LoadConfig, LoadResult, ReadBack

DEFAULT_DURATION = "10s"
SEED_MAX = 2**64 - 1  # the generator's word
TRANSFERS_MAX = 10**9  # each leaves a row in memory


class Sockets(StrEnum):
    """How the generator's clients come to their sockets."""

    auto = "auto"
    shared = "shared"
    per_transfer = "per-transfer"


class Verify(StrEnum):
    """Whether uploads are compared."""

    full = "full"
    off = "off"


_SOCKETS: dict[Sockets, Literal["shared", "per-transfer"]] = {
    Sockets.shared: "shared",
    Sockets.per_transfer: "per-transfer",
}


def load(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the server listens; [::1]:69 for IPv6.")],
    read: Annotated[
        str | None, typer.Option("--read", metavar="NAME", help="Read this file; {n} becomes a number.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", metavar="NAME", help="Write this file; {n} becomes a number.")
    ] = None,
    concurrency: Annotated[int, typer.Option("-c", "--concurrency", min=1, help="Transfers in flight.")] = 10,
    transfers: Annotated[int | None, typer.Option(min=1, max=TRANSFERS_MAX, help="How many transfers.")] = None,
    duration: Annotated[
        str | None, typer.Option(help=f"How long, if not how many: {DEFAULT_DURATION} unless given.")
    ] = None,
    warm_up: Annotated[str, typer.Option(help="Load before a duration begins to count.")] = "0s",
    size: Annotated[str, typer.Option(help="Size of the files to write.")] = "64KiB",
    distinct_files: Annotated[
        int, typer.Option(min=0, max=TRANSFERS_MAX, help="{n} goes from 0 to this - 1; 0: every transfer has its own.")
    ] = 0,
    blksize: Annotated[
        int, typer.Option(min=8, max=65464, help="Bytes of a DATA block; 512 asks for no option.")
    ] = 512,
    windowsize: Annotated[int, typer.Option(min=1, max=65535, help="Blocks per ACK; 1 asks for no option.")] = 1,
    tsize: Annotated[bool, typer.Option("--tsize", help="Ask for tsize.")] = False,
    timeout: Annotated[str, typer.Option(help="First wait before a datagram is sent again.")] = "1s",
    retries: Annotated[int, typer.Option(min=0, max=100, help="Timeouts before a transfer is given up.")] = 5,
    verify_against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare every byte that is read with FILE.")
    ] = None,
    verify: Annotated[
        Verify, typer.Option(help="full: read the files that were written back and compare every byte.")
    ] = Verify.full,
    sockets: Annotated[
        Sockets, typer.Option(help="shared: few carry many clients, on IPv4 loopback only; auto: where that can be.")
    ] = Sockets.auto,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Threads of the generator.")] = 1,
    busy_poll: Annotated[str, typer.Option(help="How long to poll before sleeping.")] = "1ms",
    seed: Annotated[int, typer.Option(min=0, max=SEED_MAX, help="Contents of what is written.")] = 1,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Send to another machine than this one.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> int:
    """Put load on a running server and report; exit code 3 when transfers failed, timed out or were not done.

    Where nothing listens on the port it ends at once: start the server first.
    """
    from tftpbench.host.generator import LoadConfig, best_sockets
    from tftpbench.model.units import parse_bytes

    name = read if read is not None else write
    if name is None or (read is not None and write is not None):
        raise typer.BadParameter("name one file: --read NAME or --write NAME")
    if transfers is not None and duration is not None:
        raise typer.BadParameter("--transfers and --duration exclude each other")
    if write is not None and verify_against is not None:
        raise typer.BadParameter("--verify-against compares what is read; it goes with --read")
    host, port = numeric_address(target)
    numbered = "{n}" in name
    config = LoadConfig(
        host=host,
        port=port,
        operation="read" if read is not None else "write",
        name=name,
        file_size_bytes=_file_size(verify_against) if verify_against else _quantity("--size", size, parse_bytes),
        concurrency=concurrency,
        distinct_files=distinct_files if numbered else 1,
        seed=seed,
        verify="full" if verify_against or (write is not None and verify is Verify.full) else "off",
        verify_against=verify_against,
        allow_remote=allow_remote,
        workers=min(workers, concurrency),
        transfers=transfers,
        duration_ns=None if transfers is not None else _duration_ns("--duration", duration or DEFAULT_DURATION),
        warm_up_ns=0 if transfers is not None else _duration_ns("--warm-up", warm_up),
        blksize=blksize,
        windowsize=windowsize,
        tsize=tsize,
        timeout_ns=_wait_ns(timeout),
        retries=retries,
        sockets=best_sockets(host) if sockets is Sockets.auto else _SOCKETS[sockets],
        busy_poll_us=_duration_ns("--busy-poll", busy_poll) // 1000,
    )
    return _report(config, *_run(config), json_)


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


def _duration_ns(option: str, text: str) -> int:
    from tftpbench.model.units import parse_duration_ns

    return _quantity(option, text, parse_duration_ns)


def _wait_ns(text: str) -> int:
    wait_ns = _duration_ns("--timeout", text)
    if wait_ns == 0:
        raise typer.BadParameter("--timeout is 0; allowed: longer than that, as in 200ms")
    return wait_ns


def _quantity(option: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None
