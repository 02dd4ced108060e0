"""The child process on a server host that holds its servers: ``python -P -m tftpbench.host.hosts.server_agent``.

It does for another machine what `LocalServerHost` does here: folders, a server after the other, what is read of it.
Questions come as frames, as to a load host's agent, and documents are held to the models below before anything works on
them. One thread talks; another does what is asked, in order, so that a long answer delays no look at the clock. Where
no question comes for POLL_LOST_S, or its input ends, the server ends and the folders are gone. It must never start a
server of which it has another manifest than the one that asks.
"""

import contextlib
import hashlib
import os
import queue
import select
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from tftpbench.host import machine
from tftpbench.host.effects import calibrate
from tftpbench.host.generator import write_contents
from tftpbench.host.hosts import calls
from tftpbench.host.hosts.agent import STOP_S, talk, write
from tftpbench.host.hosts.calls import BadDocument, Count, Facts, Line, Ns, Refused, Word
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.presence import Missing, locate
from tftpbench.host.roots import Contents, RootPlan, Roots, roots_with_room
from tftpbench.host.server import PortTaken, Samples, Usage, is_taken, program_at
from tftpbench.host.server_host import Edges, LocalServerHost, Sampling, Server, Stored
from tftpbench.model.arguments import SEED_MAX
from tftpbench.model.errors import ServerDied, ServerError, TftpbenchError
from tftpbench.model.manifest import BUNDLED, Manifest, load_manifest
from tftpbench.model.regular_file import read_regular
from tftpbench.model.strict import Strict
from tftpbench.model.yaml import SIZE_MAX_BYTES

NAMES_MAX = 2_000_000
UPLOADS_MAX = 2_000
LOG_MAX_BYTES = 1 << 20
ANSWER_MAX_MS = 600_000
_READ_BYTES = 1 << 20
_Name = Annotated[str, Field(min_length=1, max_length=4096)]
_Size = Annotated[int, Field(ge=0, le=2**40)]
_Core = Annotated[int, Field(ge=0, le=100_000)]
_Cores = Annotated[tuple[_Core, ...], Field(max_length=10_000)]


# Questions, and what answers them -------------------------------------------------------------------------------------


class Opened(Strict):
    """What is there: cores that may be used, and facts of the machine."""

    cores: Annotated[_Cores, Field(min_length=1)]
    machine: Facts


class Room(Strict):
    """Make a folder for roots, with room for so much."""

    seed: Annotated[int, Field(ge=0, le=SEED_MAX)]
    needed_bytes: Count


class RoomMade(Strict):
    """Where it is."""

    path: Line
    file_system: Word


class Wanted(Strict):
    """A server by its manifest: of those that come with tftpbench by its path among them, else by its path.

    `digest`: of the file, which must be the same on both hosts.
    """

    is_bundled: bool
    path: _Name
    digest: Word


class Look(Strict):
    """To say whether the server is there, and can be started at this address."""

    wanted: Wanted
    address: Word


class Looked(Strict):
    """What was found; where it is missing, `reason` says why, and `get` how to get it."""

    version: Word = ""
    executable: Annotated[str, Field(max_length=4096)] = ""
    reason: Line | None = None
    get: Annotated[str, Field(max_length=1000)] = ""


class Root(Strict):
    """Make the folder to serve: its files, each as (names, number, size), and the names that clients will write."""

    files: tuple[tuple[tuple[_Name, ...], Count, _Size], ...]
    uploads: tuple[_Name, ...]
    mode: Literal[0o755, 0o777]


class Start(Strict):
    """Start a server on that folder; see `ServerProcess`."""

    wanted: Wanted
    address: Word
    concurrency: Annotated[int, Field(ge=1, le=10_000_000)]
    write: bool
    variant: Word | None
    cpus: _Cores


class Started(Strict):
    """Where it answers, and the buffers of its socket in bytes, receive and send."""

    port: Annotated[int, Field(ge=1, le=65535)]
    buffers: tuple[Count, Count] | None


class UsageThere(Strict):
    """A `Usage`, by the clock there."""

    at_ns: Ns
    cpu_ns: Count | None
    rss_bytes: Count | None
    threads: Count | None
    fds: Count | None
    udp_drops: Count | None
    pss_bytes: Count | None
    processes: Count | None
    context_switches: Count | None
    waited_ns: Count | None


class Ask(Strict):
    """To say whether it answers a new request within this time."""

    timeout_ms: Annotated[int, Field(ge=0, le=ANSWER_MAX_MS)]


class Answers(Strict):
    """Whether it did."""

    answers: bool


class Watch(Strict):
    """Look at it from now on, from these cores."""

    cpus: _Cores


class SamplesThere(Strict):
    """The most that was seen, as `Samples` has it."""

    rss_bytes_max: Count | None
    threads_max: Count | None
    fds_max: Count | None
    udp_drops: Count | None
    died: bool
    pss_bytes_max: Count | None
    processes_max: Count | None


class Window(Strict):
    """Read it where a window opens and closes, by the clock there; `close_ns` None: when `close` is asked."""

    open_ns: Ns
    close_ns: Ns | None
    cpus: _Cores


class Close(Strict):
    """The window was over by then."""

    at_ns: Ns


class Read(Strict):
    """What was read at its edges."""

    opened: UsageThere
    closed: UsageThere


class Standing(Strict):
    """Whether no process of a server that is watched is left."""

    died: bool


class Stop(Strict):
    """End the server."""

    grace_ms: Annotated[int, Field(ge=0, le=60_000)]


class Stopped(Strict):
    """How it ended."""

    exit_code: Annotated[int, Field(ge=0, le=255)] | None
    signal: Word | None
    left_over: Count


class Compare(Strict):
    """To say which of these files of the folder are wrong. Each is (name, number, size)."""

    files: Annotated[tuple[tuple[_Name, Count, _Size], ...], Field(max_length=UPLOADS_MAX)]


class Wrong(Strict):
    """Places in the list of those that do not."""

    places: Annotated[tuple[Count, ...], Field(max_length=UPLOADS_MAX)]


class Cores(Strict):
    """What is asked about these cores."""

    cores: _Cores


class Counts(Strict):
    """What the machine has counted so far; see the methods of `ServerHost`."""

    udp_drops: Count | None
    stolen_ticks: tuple[Count, Count]
    pressure_ns: Count | None
    throttled_ns: Count | None


class Calibrated(Strict):
    """How long fixed work took, as a server would be pinned; None where it can't run."""

    user_ns: Count | None
    kernel_ns: Count | None


def digest(path: Path) -> str:
    """Equal for equal manifests. Raises OSError."""
    return hashlib.sha256(read_regular(path, SIZE_MAX_BYTES)).hexdigest()[:32]


# The agent ------------------------------------------------------------------------------------------------------------


class ServerAgent:
    """What reads questions and answers them, until its input ends or no more come."""

    def __init__(self, questions: int, answers: int, poll_lost_s: float) -> None:
        self._questions, self._answers, self._poll_lost_s = questions, answers, poll_lost_s
        self._saying = threading.Lock()
        self._work: queue.SimpleQueue[tuple[int, str, bytes] | None] = queue.SimpleQueue()
        self._servers = _Servers()
        # A daemon: this process ends by itself, whatever the thread does.
        self._thread = threading.Thread(target=self._do_all, name="servers", daemon=True)

    def serve(self) -> None:
        """Answer until the end, which is the end of all that it started."""
        self._thread.start()
        frames, heard_s = calls.Frames(), time.monotonic()
        while (left_s := heard_s + self._poll_lost_s - time.monotonic()) > 0:
            readable, _, _ = select.select([self._questions], [], [], left_s)
            if readable:
                read = os.read(self._questions, _READ_BYTES)
                if not read:
                    break
                heard_s = time.monotonic()
                for number, body in frames.feed(read):
                    self._take(number, body)
        self._work.put(None)
        self._thread.join(STOP_S)  # else the supervisor ends the server, and the remover removes the folders

    def _take(self, number: int, body: bytes) -> None:
        try:
            call, document = calls.asked(body)
        except BadDocument as error:
            self._say(number, calls.refusal(error))
            return
        if call == "clock":
            self._say(number, calls.packed(calls.Clock(monotonic_ns=time.monotonic_ns())))
        elif call == "poll":
            self._say(number, calls.packed(Standing(died=self._servers.died)))
        else:
            self._work.put((number, call, document))

    def _do_all(self) -> None:
        while (asked := self._work.get()) is not None:
            number, call, document = asked
            try:
                answer = self._servers.answer(call, document)
            except Exception as error:  # a border
                answer = calls.refusal(error)
            with contextlib.suppress(BrokenPipeError):  # the worker is gone, which the other thread sees
                self._say(number, answer)
        self._servers.close()

    def _say(self, number: int, document: bytes) -> None:
        with self._saying:
            write(self._answers, calls.frame(number, document))


class _Servers:
    """The folders, and the server that runs, if one does. `died`: whether one that is watched has."""

    def __init__(self) -> None:
        self.died = False
        self._cores = sorted(os.sched_getaffinity(0))
        self._local = LocalServerHost()
        self._stack = contextlib.ExitStack()
        self._roots: Roots | None = None
        self._root: Path | None = None
        self._seed = 0
        self._server: Server | None = None
        self._sampling: Sampling | None = None
        self._edges: tuple[Edges, MeasuredWindow] | None = None
        self._does: Mapping[str, tuple[type[Strict], Callable[[Any], Strict]]] = {
            "open": (calls.Done, self._open),
            "room": (Room, self._make_room),
            "look": (Look, self._look),
            "root": (Root, self._make_root),
            "clear": (calls.Done, self._clear),
            "start": (Start, self._start),
            "usage": (calls.Done, lambda _: usage_there(self._running.usage())),
            "answers": (Ask, lambda ask: Answers(answers=self._running.answers(ask.timeout_ms / 1e3))),
            "alive": (calls.Done, self._check_alive),
            "sample": (Watch, self._sample),
            "sampled": (calls.Done, self._sampled),
            "window": (Window, self._read),
            "close": (Close, self._close_window),
            "stop": (Stop, self._stop),
            "compare": (Compare, self._compare),
            "counts": (Cores, self._count),
            "calibrate": (Cores, self._calibrate),
        }

    def answer(self, call: str, document: bytes) -> bytes:
        """The answer. Raises Refused and BadDocument."""
        if call == "log":
            return calls.packed(calls.Done(), self._log())
        if call not in self._does:
            raise BadDocument(f"no server agent answers {call!r}")
        model, do = self._does[call]
        asked, _ = calls.unpacked(document, model)
        try:
            return calls.packed(do(asked))
        except PortTaken as error:
            raise Refused("port_taken", str(error)) from None
        except ServerDied as error:
            raise Refused("died", str(error)) from None
        except ServerError as error:
            raise Refused("not_ready", str(error)) from None

    def close(self) -> None:
        """End the server at once, and remove the folders."""
        if self._server is not None:
            self._server.stop(0)
        self._stack.close()

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise BadDocument("no server runs")
        return self._server

    @property
    def _made(self) -> tuple[Roots, Path]:
        if self._roots is None or self._root is None:
            raise BadDocument("there is no folder to serve")
        return self._roots, self._root

    def _open(self, _: object) -> Opened:
        return Opened(cores=tuple(self._cores), machine=machine.facts())

    def _make_room(self, asked: Room) -> RoomMade:
        if self._roots is not None:
            raise BadDocument("a folder for roots is there already")
        try:
            made = self._stack.enter_context(roots_with_room(asked.needed_bytes, asked.seed, write_contents))
        except (OSError, TftpbenchError) as error:
            raise Refused("root", str(error)) from None
        self._roots, self._seed = made, asked.seed
        return RoomMade(**made.facts)

    def _look(self, asked: Look) -> Looked:
        manifest = _manifest(asked.wanted)
        found = locate(manifest) if isinstance(manifest, Manifest) else manifest
        if isinstance(found, Missing):
            return Looked(reason=found.reason[: calls.LINE_MAX], get=found.get[:1000])
        port = manifest.fixed_port if isinstance(manifest, Manifest) else None
        if port is not None and is_taken(asked.address, port):
            taken = program_at(asked.address, port) or "another program"
            return Looked(reason=f"could not be measured: UDP port {port} there is taken by {taken}; stop that")
        return Looked(version=found.version[: calls.WORD_MAX], executable=found.executable)

    def _make_root(self, asked: Root) -> calls.Done:
        if self._roots is None:
            raise BadDocument("there is no folder for roots")
        if sum(len(names) for names, _, _ in asked.files) + len(asked.uploads) > NAMES_MAX:
            raise BadDocument(f"more than {NAMES_MAX} names")
        for name in (*asked.uploads, *(name for names, _, _ in asked.files for name in names)):
            _check_name(name)
        self._remove_root()
        plan = RootPlan(tuple(Contents(*file) for file in asked.files), asked.uploads, asked.mode)
        try:
            self._root = self._roots.make(plan)
        except OSError as error:
            raise Refused("root", f"{self._roots.base}: {error.strerror or error}") from None
        return calls.Done()

    def _clear(self, _: object) -> calls.Done:
        self._remove_root()
        return calls.Done()

    def _remove_root(self) -> None:
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _start(self, asked: Start) -> Started:
        base, root = self._made
        manifest = _manifest(asked.wanted)
        if not isinstance(manifest, Manifest):
            raise Refused("not_ready", manifest.reason)
        if lacking := [core for core in asked.cpus if core not in self._cores]:
            raise Refused("not_ready", f"core {lacking[0]} is not to be had")
        if self._server is not None:
            self._server.stop(0)
        self._log_path(base).unlink(missing_ok=True)
        self._keep_off(asked.cpus)
        self.died = False
        server = self._local.server(
            manifest, root=root, log=self._log_path(base), host=asked.address, concurrency=asked.concurrency,
            write=asked.write, variant=asked.variant, cpus=asked.cpus,
        )  # fmt: skip
        server.start()
        self._server = server
        buffers = server.buffers
        return Started(port=server.port, buffers=(buffers.receive_bytes, buffers.send_bytes) if buffers else None)

    def _keep_off(self, cpus: Sequence[int]) -> None:
        """Both threads of this process go to the cores that the server does not have, where there are any."""
        if others := [core for core in self._cores if core not in cpus]:
            for thread in (0, os.getpid()):  # sched_setaffinity(2): this thread, and the first one
                os.sched_setaffinity(thread, others)

    def _check_alive(self, _: object) -> calls.Done:
        self._running.check_alive()
        return calls.Done()

    def _sample(self, asked: Watch) -> calls.Done:
        self._sampling = self._running.sampler(asked.cpus, self._note_death)
        self._sampling.__enter__()
        return calls.Done()

    def _note_death(self) -> None:
        self.died = True

    def _sampled(self, _: object) -> SamplesThere:
        if self._sampling is None:
            raise BadDocument("nothing is watched")
        sampling, self._sampling = self._sampling, None
        sampling.__exit__(None, None, None)
        return SamplesThere(**{name: getattr(sampling.samples, name) for name in SamplesThere.model_fields})

    def _read(self, asked: Window) -> calls.Done:
        window = MeasuredWindow()
        edges = self._running.edges(window, asked.cpus)
        window.announce(asked.open_ns, asked.close_ns)
        edges.__enter__()
        self._edges = (edges, window)
        return calls.Done()

    def _close_window(self, asked: Close) -> Read:
        if self._edges is None:
            raise BadDocument("no window is open")
        (edges, window), self._edges = self._edges, None
        window.close(asked.at_ns)
        edges.__exit__(None, None, None)
        return Read(opened=usage_there(edges.opened), closed=usage_there(edges.closed))

    def _stop(self, asked: Stop) -> Stopped:
        ended = self._running.stop(asked.grace_ms / 1e3)
        assert ended is not None, "of a process"
        return Stopped(exit_code=ended.exit_code, signal=ended.signal, left_over=ended.left_over)

    def _compare(self, asked: Compare) -> Wrong:
        _, root = self._made
        for name, _, _ in asked.files:
            _check_name(name)
        stored = [Stored(root / name, number, size) for name, number, size in asked.files]
        wrong = set(self._local.wrong(stored, self._seed))
        return Wrong(places=tuple(place for place, each in enumerate(stored) if each in wrong))

    def _count(self, asked: Cores) -> Counts:
        pressure_ns, throttled_ns = self._local.waited_ns()
        return Counts(
            udp_drops=self._local.udp_drops(),
            stolen_ticks=self._local.stolen_ticks(asked.cores),
            pressure_ns=pressure_ns,
            throttled_ns=throttled_ns,
        )

    def _calibrate(self, asked: Cores) -> Calibrated:
        found = calibrate([core for core in asked.cores if core in self._cores])
        return Calibrated(user_ns=found.user_ns if found else None, kernel_ns=found.kernel_ns if found else None)

    def _log(self) -> bytes:
        """What the last server said, as far as it fits."""
        with contextlib.suppress(OSError):
            return self._log_path(self._made[0]).read_bytes()[-LOG_MAX_BYTES:]
        return b""

    @staticmethod
    def _log_path(base: Roots) -> Path:
        return base.base / "server.log"


def usage_there(usage: Usage) -> UsageThere:
    """For the way to the coordinator."""
    return UsageThere(**asdict(usage))


def usage_of(there: UsageThere) -> Usage:
    """As it came."""
    return Usage(**there.model_dump())


def samples_of(there: SamplesThere) -> Samples:
    """As they came."""
    return Samples(**there.model_dump())


def _manifest(wanted: Wanted) -> Manifest | Missing:
    """The manifest that is meant, which must be the one that the other side has."""
    path = Path(wanted.path)
    if wanted.is_bundled:
        _check_name(wanted.path)
        path = BUNDLED.resolve() / wanted.path
    try:
        is_same = digest(path) == wanted.digest
    except OSError:
        is_same = False
    if not is_same:
        return Missing(f"the server's host has no such manifest, or another one: {path}", "copy it there")
    return load_manifest(path)


def _check_name(name: str) -> None:
    """Raises BadDocument for what is no path below a folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\0" in name or ".." in parts or not parts:
        raise BadDocument(f"{name[: calls.WORD_MAX]!r} is no name below a folder")


if __name__ == "__main__":
    talk("The servers of a server host; a worker starts it.", ServerAgent)
