"""``tftpbench load``: load on one server, without a scenario."""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tftpbench.cli import options
from tftpbench.cli.options import ending
from tftpbench.cli.output import print_json
from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.host.generator import HostsLoad, LoadConfig
    from tftpbench.host.server import ServerProcess
    from tftpbench.model.workload import Piece
    from tftpbench.render.load_report import Loaded

DEFAULT_DURATION = "10s"
DEFAULT_SIZE = "64KiB"
DEFAULT_CONCURRENCY = 10
TIMEOUT, RETRIES = "1s", 5
DISTINCT_FILES = 16
COUNT_MAX = 10**9  # each transfer leaves a row in memory
# With --verify full the files that are read are held in memory: together no more than most machines have to spare.
COMPARED_BYTES_MAX = 1 << 30
FIRST_READS_MAX = 10_000  # one after the other, some milliseconds each: half a minute is waited for, an hour is not


class Sockets(StrEnum):
    """How many sockets the generator's transfers share."""

    auto = "auto"
    shared = "shared"
    per_transfer = "per-transfer"


class Arrivals(StrEnum):
    """How starts at a rate lie in time."""

    even = "even"
    poisson = "poisson"


class Spread(StrEnum):
    """How the starts of a storm lie in its time."""

    even = "even"
    normal = "normal"


class Rows(StrEnum):
    """Which transfers are kept one by one."""

    all = "all"
    failed = "failed"
    sample = "sample"


class Network(StrEnum):
    """What lies between a server that is started here and the load on it."""

    loopback = "loopback"
    namespace = "namespace"


class Verify(StrEnum):
    """Whether contents are compared."""

    full = "full"
    off = "off"


_SOCKETS: dict[Sockets, Literal["shared", "per-transfer"]] = {
    Sockets.shared: "shared",
    Sockets.per_transfer: "per-transfer",
}


Target = Annotated[
    str | None,
    typer.Argument(metavar="HOST:PORT", help="Address of the server, port 69 unless given; [::1]:69 for IPv6."),
]
NetworkOf = Annotated[
    Network | None,
    typer.Option("--network", help="What lies between it and the load; loopback unless given. Only with --server."),
]
# Lists only to see that one is given twice: the last of two must not win unsaid.
ServerStarted = Annotated[
    list[str] | None,
    typer.Option(
        "-s", "--server", **options.SERVER, help="Start this server, with files to read, in the place of HOST:PORT."
    ),
]
Read = Annotated[list[str] | None, typer.Option("--read", metavar="NAME", help="File to read; {n} becomes a number.")]
Write = Annotated[
    list[str] | None, typer.Option("--write", metavar="NAME", help="File to write; {n} becomes a number.")
]
Boot = Annotated[
    str | None,
    typer.Option("--boot", metavar="NAME", help="What starts is a machine that boots as this profile, or file, says."),
]
Machines = Annotated[
    int | None,
    typer.Option(
        min=1, max=1_000_000, metavar="N",
        help="Machines, or transfers, that start within --over, once each; 1 where --boot is given and no other load.",
    ),
]  # fmt: skip
Over = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time within which all --machines start; at once unless given.")
]
SpreadOver = Annotated[
    Spread | None,
    typer.Option("--spread", help="How they lie in it; even unless given; normal: most in its middle."),
]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="PIECES",
        help="Start at a rate that changes, as in 'ramp 10/s..500/s for 60s, hold 500/s for 5min, burst 2000', or as a "
        "scenario has it.",
    ),
]
RowsOf = Annotated[
    Rows,
    typer.Option("--rows", help="Which transfers are kept one by one while it goes on: a sample needs less memory."),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "-c", "--concurrency", min=1, max=COUNT_MAX, metavar="N",
        help=f"Transfers, or machines, at once; {DEFAULT_CONCURRENCY} unless another load is given.",
    ),
]  # fmt: skip
Rate = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="Start so many, as in 200/s, whether or not others have ended (open loop)."),
]
ArrivalsAt = Annotated[
    Arrivals | None,
    typer.Option(
        "--arrivals", help="How starts at --rate or in --shape lie in time; even unless given; poisson: at random."
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Time from a start that waits for no other until it is ended, as late; 30s unless given."
    ),
]
InFlightMax = Annotated[
    int | None,
    typer.Option(
        min=1, max=COUNT_MAX, metavar="N",
        help="Most in flight where starts wait for no other; those beyond are counted and not started. 10000 unless "
        "given, 2000 of boots; of a storm all.",
    ),
]  # fmt: skip
Transfers = Annotated[
    int | None,
    typer.Option("-n", "--transfers", min=1, max=COUNT_MAX, metavar="N", help="Transfers in all."),
]
Duration = Annotated[
    str | None,
    typer.Option(
        "-d", "-z", "--duration", metavar="TIME",
        help=f"Time to measure; {DEFAULT_DURATION} where neither this nor -n is given.",
    ),
]  # fmt: skip
WarmUp = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time of load before --duration begins; none unless given.")
]
Size = Annotated[
    str | None, typer.Option(metavar="SIZE", help=f"Size of the files to write; {DEFAULT_SIZE} unless given.")
]
DistinctFiles = Annotated[
    int | None,
    typer.Option(
        min=1, max=COUNT_MAX, metavar="N",
        help="Number of files that {n} counts, from 0; as many as transfers unless given.",
    ),
]  # fmt: skip
Blksize = Annotated[
    int, typer.Option(min=8, max=65464, metavar="N", help="Bytes of a DATA block; 512 asks for no option.")
]
Windowsize = Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Blocks per ACK; 1 asks for no option.")]
Tsize = Annotated[bool, typer.Option("--tsize", help="Ask for the file's size.")]
Timeout = Annotated[str, typer.Option(metavar="TIME", help="Time without an answer until a client asks again.")]
Retries = Annotated[
    int, typer.Option(min=0, max=100, metavar="N", help="How often it asks again before it gives up.")
]  # fmt: skip
VerifyContents = Annotated[
    Verify | None,
    typer.Option(
        help="full: compare every byte. All reads are compared with a first one, and files that were written are read "
        "back. Unless given: full for --write, off for --read."
    ),
]
VerifyAgainst = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Compare reads with FILE, not with a first read; {n} becomes a number."),
]
ShowPayload = Annotated[
    bool, typer.Option("--show-payload", help="Show the first bytes of wrong DATA in hexadecimal: file contents.")
]
UseOfSockets = Annotated[
    Sockets,
    typer.Option(help="shared: a few for all transfers, on IPv4 loopback only; auto: shared where possible."),
]
Workers = Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Threads of the generator.")]
BusyPoll = Annotated[str, typer.Option(metavar="TIME", help="Time that a thread polls for answers before it sleeps.")]
Seed = Annotated[int, typer.Option(metavar="N", callback=options.checked_seed, help="Contents of the files to write.")]


def load(
    target: Target = None,
    server: ServerStarted = None,
    network: NetworkOf = None,
    read: Read = None,
    write: Write = None,
    boot: Boot = None,
    map_: options.Map = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    machines: Machines = None,
    over: Over = None,
    spread: SpreadOver = None,
    shape: Shape = None,
    arrivals: ArrivalsAt = None,
    deadline: Deadline = None,
    in_flight_max: InFlightMax = None,
    transfers: Transfers = None,
    duration: Duration = None,
    warm_up: WarmUp = None,
    size: Size = None,
    distinct_files: DistinctFiles = None,
    blksize: Blksize = 512,
    windowsize: Windowsize = 1,
    tsize: Tsize = False,
    timeout: Timeout = TIMEOUT,
    retries: Retries = RETRIES,
    verify: VerifyContents = None,
    verify_against: VerifyAgainst = None,
    show_payload: ShowPayload = False,
    rows: RowsOf = Rows.all,
    sockets: UseOfSockets = Sockets.auto,
    workers: Workers = 1,
    busy_poll: BusyPoll = "1ms",
    seed: Seed = 1,
    allow_remote: options.AllowRemote = False,
    max_rate: options.MaxRate = None,
    keep_going: options.KeepGoing = False,
    dask: options.Dask = None,
    dask_ca: options.DaskCa = None,
    dask_cert: options.DaskCert = None,
    dask_key: options.DaskKey = None,
    json_: options.Json = False,
) -> int:
    """Put load on a running server and report what it did.

    Exit code 3 means that machines did not boot, or that transfers failed, timed out, moved wrong bytes or were not
    done. With --json, `failures` says the same, and `verdict` whether the figures can be used.
    """
    from tftpbench.host.brake import braked
    from tftpbench.host.generator import LoadConfig, best_sockets
    from tftpbench.host.target import numeric_address
    from tftpbench.model.programs import typed
    from tftpbench.model.workload import in_flight_usual
    from tftpbench.render import load_report

    if (target is None) == (server is None):
        beside = "" if target is None else ", not both"
        raise typer.BadParameter(
            f"load needs HOST:PORT, or --server SERVER to start one{beside}, as in: {typed(EXAMPLES[0].split())}"
        )
    if len(names := [*(read or ()), *(write or ())]) + (boot is not None) != 1:
        raise typer.BadParameter(
            "name one file: --read NAME or --write NAME; {n} in NAME makes many of it. Or name a boot: --boot NAME"
        )
    name, is_given, is_read = names[0] if names else "", verify_against is not None, not write
    if boot is not None and (concurrency, rate, machines, shape) == (None, None, None, None):
        machines = 1
    is_open = (rate, machines, shape) != (None, None, None)
    mistakes = {
        "give --server once: load starts one server; to compare several, see tftpbench run": len(server or ()) > 1,
        "--network is of a server that is started here: it goes with --server; a running one is loaded where it is": (
            network is not None and server is None
        ),
        "--network is a part of this machine, which load hosts do not reach: it goes without --dask": (
            network is Network.namespace and dask is not None
        ),
        "--server starts a server with files of its own: it goes with none of --boot and --verify-against": (
            server is not None and (boot is not None or is_given)
        ),
        "give only one of --concurrency, --rate, --machines and --shape": (
            (concurrency, rate, machines, shape).count(None) < 3
        ),
        "--arrivals goes with --rate or --shape": arrivals is not None and rate is None and shape is None,
        "--deadline and --in-flight-max go with --rate, --machines or --shape": (
            not is_open and (deadline, in_flight_max) != (None, None)
        ),
        "--over and --spread go with --machines": machines is None and (over, spread) != (None, None),
        "--transfers, --duration and --warm-up do not go with --machines or --shape, which say it themselves": (
            (machines, shape) != (None, None) and (transfers, duration, warm_up) != (None, None, None)
        ),
        "--map goes with --boot": boot is None and bool(map_),
        "a boot says itself what is asked for, and how: it goes with none of --size, --distinct-files, --blksize, "
        "--windowsize, --tsize, --timeout, --retries and --verify-against": (
            boot is not None
            and (size, distinct_files, blksize, windowsize, tsize, timeout, retries, verify_against)
            != (None, None, 512, 1, False, TIMEOUT, RETRIES, None)
        ),
        "--transfers and --duration exclude each other": transfers is not None and duration is not None,
        "--warm-up goes with --duration, not with --transfers": transfers is not None and warm_up is not None,
        "--size is of files to write, or of a server's that is started: it goes with --write, or --server": (
            is_read and size is not None and server is None
        ),
        "--distinct-files counts {n}, which NAME does not have": (
            boot is None and "{n}" not in name and distinct_files is not None
        ),
        "--verify-against compares what is read; it goes with --read": not is_read and is_given,
        "--rows failed keeps no upload to compare: pass --rows sample, or --verify off": (
            not is_read and rows is Rows.failed and verify is not Verify.off
        ),
        "--verify off and --verify-against exclude each other": verify is Verify.off and is_given,
        "--verify full compares several reads of a file: give --distinct-files N, or --verify-against FILE": (
            is_read
            and verify is Verify.full
            and not is_given
            and "{n}" in name
            and distinct_files is None
            and server is None
        ),
        "--verify-against has {n}: give --distinct-files N, and {n} in --read": (
            "{n}" in str(verify_against) and distinct_files is None
        ),
    }
    for mistake, is_made in mistakes.items():
        if is_made:
            raise typer.BadParameter(mistake)
    # No others are ever asked for, so none of them need be there to be compared with.
    distinct_files = distinct_files and min(distinct_files, transfers or distinct_files)
    host, port = numeric_address(target) if target is not None else ("127.0.0.1", 0)
    is_timed = transfers is None and machines is None and shape is None
    is_usual = not is_read or boot is not None or server is not None
    is_compared = verify is Verify.full or is_given or (verify is None and is_usual)
    distinct = (distinct_files or 0) if "{n}" in name else 1
    if verify_against is not None:
        _check_files(verify_against, distinct)
    usual = in_flight_usual(machines, boots=boot is not None) if is_open else DEFAULT_CONCURRENCY
    at_once = (in_flight_max if is_open else concurrency) or usual
    config = LoadConfig(
        host=host,
        port=port,
        operation="read" if is_read else "write",
        name=name,
        file_size_bytes=options.size_bytes("--size", size or DEFAULT_SIZE),
        concurrency=at_once,
        distinct_files=distinct,
        seed=seed,
        verify="full" if is_compared else "off",
        verify_against=verify_against,
        show_payload=show_payload,
        allow_remote=allow_remote,
        workers=min(workers, at_once),
        transfers=transfers if machines is None else machines,
        duration_ns=options.duration_ns("--duration", duration or DEFAULT_DURATION) if is_timed else None,
        warm_up_ns=options.duration_ns("--warm-up", warm_up or "0s"),
        blksize=blksize,
        windowsize=windowsize,
        tsize=tsize,
        timeout_ns=_wait_ns(timeout),
        retries=retries,
        sockets=best_sockets(host) if sockets is Sockets.auto else _SOCKETS[sockets],
        busy_poll_us=options.duration_ns("--busy-poll", busy_poll) // 1000,
        rows=rows.value,
    )
    if is_open:
        storm = None if machines is None else _storm(machines, over, in_flight_max)
        config = replace(config, over_ns=storm, spread=(spread or Spread.even).value, shape=_pieces(shape))
        config = _open(config, rate, arrivals or Arrivals.even, deadline)
    config = braked(config, options.limits(max_rate, keep_going=keep_going))
    in_network = network is Network.namespace
    with ExitStack() as stack:
        screen = stack.enter_context(closing(_Screen(json_=json_)))
        generator = stack.enter_context(_reaching(config, (dask, dask_ca, dask_cert, dask_key)))
        if server is not None:
            rings, not_compared = sockets is Sockets.auto, ""
            ready, running = stack.enter_context(_started(config, server[0], in_network=in_network, rings=rings))
        else:
            (ready, not_compared), running = stack.enter_context(_ready(config, boot, map_, screen)), None
        loaded, interrupted = _run(ready, not_compared, screen, running, generator)
    if json_:
        print_json([load_report.document(loaded)])
    else:
        typer.echo(load_report.render(loaded))
    return 130 if interrupted else 3 if loaded.has_failures else 0


EXAMPLES = (
    "tftpbench load 127.0.0.1:6969 --read pxelinux.0 -c 100 -d 30s",
    "tftpbench load 127.0.0.1:6969 --boot uefi-grub --machines 1000 --over 10s --map loader=shimx64.efi",
)


class _Screen:
    """What a person who waits sees on standard error: a live line on a terminal, beside a document nothing else."""

    def __init__(self, *, json_: bool) -> None:
        self._output = output_of(sys.stderr)
        self._is_live = self._output.isatty()
        self._is_silent = json_ and not self._is_live

    def close(self) -> None:
        """Leave the cursor on an empty line."""
        self._output.clear_line()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._is_silent:
            self._output.clear_line()
            self._output.write(f"{text}\n")
            self._output.flush()

    def live(self, text: str) -> None:
        """A line until the next one, as far as there is room."""
        if self._is_live:
            columns = os.get_terminal_size(self._output.fileno()).columns or 80  # a serial line knows none
            self._output.clear_line()
            self._output.write(text[: columns - 1])
            self._output.flush()


@contextmanager
def _started(
    config: "LoadConfig", name: str, *, in_network: bool, rings: bool
) -> "Iterator[tuple[LoadConfig, ServerProcess]]":
    """The load on a server that is started for it, whose files are what every load expects of them; and that server.

    `rings`: it may use them in the place of sockets, where there are any.
    """
    from tftpbench.host.choice import choose_manifest
    from tftpbench.host.generator import in_network as through
    from tftpbench.host.generator import write_contents
    from tftpbench.host.presence import Missing, locate
    from tftpbench.host.server import NoNetwork, ServerProcess, TemporaryFolder
    from tftpbench.model.errors import ServerMissing, ServerNotReady, UsageError

    manifest, variant = choose_manifest(name)
    found = locate(manifest, in_network=in_network)
    if isinstance(found, Missing):
        raise ServerMissing(f"{manifest.name}: {found.reason}; get it: {found.get}")
    if manifest.store == "memory" and config.operation == "read":
        raise UsageError(f"{manifest.name}: keeps its files in memory, so none can be there to read; pass --write")
    why = manifest.cannot(config.operation, config.blksize, config.windowsize, options=["tsize"] * config.tsize)
    if why is not None:
        raise UsageError(f"{manifest.name}: {why}")
    with TemporaryFolder("tftpbench-load-") as folder, ExitStack() as stack:
        root = folder.path / "root"
        root.mkdir()
        folder.path.chmod(0o755)
        root.chmod(0o777 if config.operation == "write" else 0o755)
        if config.operation == "read":
            config = _with_files(config, root, write_contents)
        started = ServerProcess(
            manifest, root=root, log=folder.path / "server.log", concurrency=config.concurrency + 16,
            write=config.operation == "write", variant=variant, in_network=in_network,
        )  # fmt: skip
        try:
            running = stack.enter_context(started)
        except NoNetwork as error:
            raise ServerNotReady(f"{error}; allow namespaces, run as root, or leave out --network") from None
        config = replace(config, host=running.host, port=running.port)
        if running.network is not None and rings:
            config = replace(config, sockets="shared" if running.network.packet_refusal else "ring")
        yield config if running.network is None else through(config, running.network), running


def _with_files(
    config: "LoadConfig", root: Path, write_contents: "Callable[[Path, int, int, int], None]"
) -> "LoadConfig":
    """The load with its files in the root; {n} without --distinct-files has sixteen, as scenarios have."""
    distinct = config.distinct_files or min(DISTINCT_FILES, config.transfers or DISTINCT_FILES)
    for number in range(distinct):
        path = root / config.name.replace("{n}", str(number)).lstrip("/")
        if root not in path.resolve().parents:
            raise typer.BadParameter(f"--read {config.name} leaves the folder that the server serves")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_contents(path, config.seed, number, config.file_size_bytes)
    return replace(config, distinct_files=distinct, size_is_known=True)


@contextmanager
def _ready(
    config: "LoadConfig", boot: str | None, map_: list[str] | None, screen: _Screen
) -> "Iterator[tuple[LoadConfig, str]]":
    """The load with what its reads are compared with, and why they are not. Raises what `copied_boots` does."""
    if boot is None:
        _announce(config, screen)
        with _compared(config, screen) as ready:
            yield ready
        return
    from tftpbench.host.server import TemporaryFolder
    from tftpbench.host.target import Target
    from tftpbench.measure import copied_boots, only_of_the_first
    from tftpbench.model import boot as boots

    names = options.names(map_)
    profile = boots.load_boot(boot)
    shares = boots.shares([(boots.mapped(profile, names) if names else profile, 1)])
    is_compared = config.verify == "full" and not boots.not_comparable(shares)
    _announce(replace(config, boots=shares), screen)
    with TemporaryFolder("tftpbench-load-") as folder:
        copied = copied_boots(
            Target(config.host, config.port, None), shares, folder.path, is_compared=is_compared,
            on_file=lambda name: screen.live(f"Reading {name} once, to see that it is there."),
        )  # fmt: skip
        if config.transfers != 1 and (others := only_of_the_first(shares)):
            screen.say(others)
        yield replace(config, boots=copied, verify="full" if is_compared else "off", size_is_known=is_compared), ""


@contextmanager
def _compared(config: "LoadConfig", screen: _Screen) -> "Iterator[tuple[LoadConfig, str]]":
    """The load with what its reads are compared with, and why there is none: a first read of each file, as it seems.

    Raises UsageError where the files are too large for that.
    """
    if config.operation == "write" or config.verify == "off" or config.verify_against is not None:
        yield config, ""
        return
    from tftpbench.host.server import CopyFailed, NothingListens, TemporaryFolder, download
    from tftpbench.host.target import Target
    from tftpbench.model.errors import UsageError
    from tftpbench.model.units import format_bytes

    if config.distinct_files > FIRST_READS_MAX:
        raise UsageError(
            f"--verify full reads each of {config.distinct_files:,} files once before the load; "
            f"allowed: {FIRST_READS_MAX:,} at most, or --verify-against FILE"
        )
    left, ready, not_compared = COMPARED_BYTES_MAX, replace(config, verify="off"), ""
    # As long as a client of the load waits for its first answer, with its last repetition.
    tries = math.ceil(config.timeout_ns * (config.retries + 1) / 1e9)
    with TemporaryFolder("tftpbench-load-") as folder:
        for number in range(config.distinct_files):
            name, copy = config.name.replace("{n}", str(number)), folder.path / str(number)
            screen.live(f"Reading {name} once, to compare all reads with it.")
            try:
                left -= download(Target(config.host, config.port, name), config.options, copy, tries, left)
            except OSError as error:
                raise UsageError(f"{name} can't be copied to {folder.path}: {error.strerror}") from None
            except NothingListens as error:  # which the load finds as well, and says
                not_compared = f"nothing was compared: {error}"
                break
            except CopyFailed as error:
                if copy.stat().st_size > left:
                    raise UsageError(
                        f"{name} is too large: --verify full holds what it compares in memory, "
                        f"{format_bytes(COMPARED_BYTES_MAX)} at most; name a copy with --verify-against FILE"
                    ) from None
                not_compared = f"nothing was compared: {name} was to be read before the load, and the server {error}"
                screen.say(f"The load goes on, but {not_compared.replace('was compared', 'will be compared', 1)}.")
                break
        else:
            ready = replace(config, verify_against=folder.path / "{n}")
        yield ready, not_compared


def _announce(config: "LoadConfig", screen: _Screen) -> None:
    """What will be done to another machine, before anything is asked of it. Raises UsageError where it is unallowed."""
    from tftpbench.host.brake import leaves_machine, plan_text
    from tftpbench.model.errors import UsageError

    if not leaves_machine(config):
        return
    if not config.allow_remote:
        raise UsageError(
            f"{config.host} is not a loopback address; pass --allow-remote to send load to another machine"
        )
    screen.say(plan_text(config))


@contextmanager
def _reaching(config: "LoadConfig", cluster: options.Cluster) -> "Iterator[HostsLoad | None]":
    """The load hosts of --dask. Raises UsageError where they are to reach from elsewhere what is on loopback here."""
    from tftpbench.host.brake import is_elsewhere
    from tftpbench.model.errors import UsageError

    with options.load_hosts(cluster) as generator:
        if not (generator is None or generator.is_here or is_elsewhere(config.host)):
            raise UsageError(
                f"{config.host} is itself to each load host; give the server's address as all of them reach it"
            )
        yield generator


def _run(  # noqa: C901 (what a signal, an answer and a second do stands beside the load)
    config: "LoadConfig",
    not_compared: str,
    screen: _Screen,
    server: "ServerProcess | None",
    generator: "HostsLoad | None",
) -> "tuple[Loaded, bool]":
    """The result, and whether Ctrl-C cut it short: what was measured until then still counts; twice ends at once.

    A `server` that was started for the load, and dies, ends it. `generator`: load hosts, in the place of this process.
    """
    from tftpbench.host.brake import approach, leaves_machine
    from tftpbench.host.generator import LoadResult, Progress, Stop, read_back, run_load
    from tftpbench.measure import how_lost
    from tftpbench.render import load_report

    stop = Stop()
    interrupted: list[int] = []
    refused: list[str] = []
    seen = [Progress(0, None, 0, 0, 0, 0)]

    def on_signal(number: int, _: object) -> None:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(number)
        stop.request()

    def on_answer(news: str) -> None:
        if news == "unanswered":
            screen.say(load_report.unanswered(config))
        elif news == "refused":
            refused.append(news)
            stop.request()

    def on_progress(now: Progress) -> None:
        if now.draining_ns is not None and seen[-1].draining_ns is None and now.open:
            screen.say(load_report.waiting(config, now))
        screen.live(load_report.live(config, now, seen[-1]))
        seen[:] = [now]
        if server is not None and not server.alive():
            stop.request()

    def once(asked: "LoadConfig", on_progress: "Callable[[Progress], object] | None" = None) -> LoadResult:
        if generator is None:
            return run_load(asked, stop, on_answer=on_answer, on_progress=on_progress)
        return generator.run(asked, stop, None, on_progress)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, *ending())}
    try:
        is_far = leaves_machine(config)
        if held := approach(config, once) if is_far else None:
            first = load_report.Loaded(held.config, held.result, refused=bool(refused), held=held.why)
            return first, bool(interrupted)
        result, back = once(config, on_progress), None
        lost = None if server is None else how_lost(server)
        is_whole = not interrupted and lost is None and result.hosts_lost is None
        if config.operation == "write" and config.verify == "full" and is_whole:
            screen.live("Reading the files back, to compare every byte.")
            back = read_back(config, result, stop)  # by this machine: it is no part of the load
        ended = bool(interrupted)
        died = "" if lost is None else str(lost)
        found = load_report.Loaded(config, result, back, bool(refused), not_compared, interrupted=ended, died=died)
        return found, ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_files(path: Path, distinct: int) -> None:
    """Raise BadParameter where a file to compare with is not there: one or, with {n} in its path, each."""
    from tftpbench.model.regular_file import open_regular

    for number in range(distinct if "{n}" in str(path) else 1):
        file = Path(str(path).replace("{n}", str(number)))
        try:
            os.close(open_regular(file))
        except OSError as error:
            raise typer.BadParameter(f"--verify-against {file}: {error.strerror}") from None


def _pieces(text: str | None) -> "tuple[Piece, ...]":
    """The pieces of a shape as --shape has them. Raises BadParameter."""
    from pydantic import ValidationError

    from tftpbench.model.values import RATE_MAX, RATE_MIN, STARTS_MAX, ShapePiece
    from tftpbench.model.workload import Piece

    found = []
    for part, written in _written(text) if text is not None else ():
        try:
            found.append(Piece.of(ShapePiece.model_validate(written)))
        except (ValidationError, ValueError):
            raise typer.BadParameter(
                f"--shape has {part[:100]!r}; allowed: pieces such as ramp 10/s..500/s for 60s, hold 500/s for 5min, "
                f"burst 2000; rates from {RATE_MIN}/s to {RATE_MAX}/s, for 1ms to 24h, bursts to {STARTS_MAX}"
            ) from None
    return tuple(found)


def _written(text: str) -> "Iterator[tuple[str, object]]":
    """Each piece of a shape as text and as a scenario has it: in words, or as the scenario's own list."""
    from tftpbench.model import yaml
    from tftpbench.model.errors import UsageError

    if text.lstrip().startswith(("[", "{")):
        pieces = yaml.value(text, "--shape", UsageError)
        yield from ((str(piece), piece) for piece in (pieces if isinstance(pieces, list) else [pieces]))
        return
    for part in text.split(","):
        match part.split():
            case [("ramp" | "hold" | "burst") as kind, value]:
                written: dict[str, object] = {kind: int(value) if value.isdecimal() and len(value) < 20 else value}
            case [("ramp" | "hold") as kind, rate, "for" | "in", lasts]:
                written = {kind: rate, "for": lasts}
            case [rate, "for" | "in", lasts]:  # which of the two it is shows by itself
                written = {"ramp" if ".." in rate else "hold": rate, "for": lasts}
            case _:
                written = {}  # is refused
        yield part.strip(), written


def _storm(machines: int, over: str | None, in_flight_max: int | None) -> int:
    """The time within which the machines start, in ns. Raises BadParameter, also where most would be shed."""
    from tftpbench.model.values import IN_FLIGHT_LIMIT
    from tftpbench.model.workload import too_many_at_once

    over_ns = options.duration_ns("--over", over or "0s")
    if not over_ns and machines > IN_FLIGHT_LIMIT and in_flight_max is None:
        raise typer.BadParameter(f"--machines {too_many_at_once(machines, '--over', '--in-flight-max')}")
    return over_ns


def _open(config: "LoadConfig", rate: str | None, arrivals: Arrivals, deadline: str | None) -> "LoadConfig":
    """The load as an open loop. Raises BadParameter."""
    from tftpbench.model.workload import DEADLINE_NS, DEADLINE_NS_MAX, DEADLINE_NS_MIN

    per_s = None if rate is None else options.rate_per_s("--rate", rate)
    deadline_ns = DEADLINE_NS if deadline is None else options.duration_ns("--deadline", deadline)
    if not DEADLINE_NS_MIN <= deadline_ns <= DEADLINE_NS_MAX:
        raise typer.BadParameter(f"--deadline is {deadline!r}; allowed: 1ms to 1h")
    # A fixed number ends when the last of them has, however low the rate is.
    needed_ns = (round((config.transfers or 0) / per_s * 1e9) if per_s else config.over_ns or 0) + deadline_ns
    limit_ns = max(config.limit_ns, needed_ns)
    return replace(config, rate_per_s=per_s, arrivals=arrivals.value, deadline_ns=deadline_ns, limit_ns=limit_ns)


def _wait_ns(text: str) -> int:
    wait_ns = options.duration_ns("--timeout", text)
    if wait_ns == 0:
        raise typer.BadParameter("--timeout is 0; allowed: longer than that, as in 200ms")
    return wait_ns
