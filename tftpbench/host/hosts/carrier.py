"""What carries the calls to other hosts, and the worker's end of it: the child processes in which generators run.

A carrier moves bytes and knows nothing of loads. On each host a worker forwards every call to a child process of its
own for that load, so that neither the worker's interpreter nor its heartbeats touch the load. It must never measure,
and never start a load a second time.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from tftpbench.host import machine
from tftpbench.host.hosts import calls
from tftpbench.host.hosts.calls import BadDocument, Refused
from tftpbench.model.errors import HostsError
from tftpbench.model.escape import one_line

AGENT = (sys.executable, "-P", "-m", "tftpbench.host.hosts.agent")
SERVER_AGENT = (sys.executable, "-P", "-m", "tftpbench.host.hosts.server_agent")
# An agent ends itself after POLL_LOST_S; one that is suspended can't.
ORPHAN_S = calls.POLL_LOST_S + 5
# From the end of an agent's input to its own end, before it is killed.
END_S = 2.0
# Ids that are remembered, so that none has a second load; the coordinator makes them at random.
IDS_MAX = 100_000
LAST_WORDS_BYTES = 2_000
_ID = re.compile(r"[0-9a-f]{32}")
_PACKAGE = Path(__file__).parents[2]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostLost(Exception):
    """A load host can't be reached any more, or does not answer as ours do; `why` is one line."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")
        self.host, self.why = host, why


class Carrier(Protocol):
    """What carries calls to the load hosts. `hosts`: a name for each, always in the same order."""

    hosts: tuple[str, ...]

    def call(self, host: str, load_id: str, call: calls.Call, document: bytes, timeout_s: float) -> bytes:
        """The answer of `Agents.answer` there. Called on many threads at once.

        Raises HostLost where none came within the time, or the host is gone.
        """

    def close(self) -> None:
        """Close the connections; agents and workers are left as they are."""


class ServerCarrier(Carrier, Protocol):
    """One that knows where servers on a host can be reached."""

    def reached_at(self, host: str) -> str:
        """A numeric address of the host, as the other hosts reach it. Raises HostsError where it has none."""


class Agents:
    """The worker's end on one host: a child process for each load id, and each id once, ever.

    All methods run on one event loop, and none of them blocks it. `command` starts an agent of a load, `servers` one of
    a server's host.
    """

    def __init__(
        self, command: Sequence[str] = AGENT, orphan_s: float = ORPHAN_S, servers: Sequence[str] = SERVER_AGENT
    ) -> None:
        self._command, self._servers, self._orphan_s = tuple(command), tuple(servers), orphan_s
        self._children: dict[str, _Child] = {}
        self._used: dict[str, None] = {}

    async def answer(self, load_id: str, call: str, document: bytes) -> bytes:
        """The document that answers a call. It raises nothing: what is wrong is in the document, too."""
        try:
            return await self._answer(load_id, call, document)
        except Exception as error:  # a border
            return calls.refusal(error)

    async def close(self) -> None:
        """End all children, for certain."""
        await asyncio.gather(*(child.end() for child in self._children.values()))
        self._children.clear()

    async def _answer(self, load_id: str, call: str, document: bytes) -> bytes:
        if call == "hello":
            return calls.packed(await asyncio.to_thread(hello))
        child = self._children.get(load_id)
        if call == "clock" and child is None:
            return calls.packed(calls.Clock(monotonic_ns=time.monotonic_ns()))
        if call == "end":
            if child is not None:  # to its end, even where the one who asked does not wait for it
                await asyncio.shield(asyncio.create_task(child.end()))
                self._children.pop(load_id, None)
            return calls.packed(calls.Done())
        if child is None and call in ("file", "prepare", "open"):
            child = self._new(load_id, self._servers if call == "open" else self._command)
        if child is None:
            raise Refused("gone", "it has no agent for this load")
        return await child.ask(call, document)

    def _new(self, load_id: str, command: tuple[str, ...]) -> "_Child":
        if not _ID.fullmatch(load_id):
            raise BadDocument("a load has an id of 32 hexadecimal digits")
        if load_id in self._used:
            raise Refused("used", "this load was there already, and none is done twice")
        for other, child in list(self._children.items()):
            if child.why is None:
                raise Refused("busy", "the agent of another load is still there")
            del self._children[other]
        self._used[load_id] = None
        if len(self._used) > IDS_MAX:
            del self._used[next(iter(self._used))]
        made = self._children[load_id] = _Child(command, self._orphan_s)
        return made


class _Child:
    """One agent, and the questions that it has not answered yet. `why`: how it ended; None while it runs."""

    def __init__(self, command: tuple[str, ...], orphan_s: float) -> None:
        self.why: str | None = None
        self._command, self._orphan_s = command, orphan_s
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._last_words = b""
        self._asked_s = time.monotonic()

    async def ask(self, call: str, document: bytes) -> bytes:
        """Its answer. Raises Refused where it has ended."""
        process = await self._started()
        self._asked_s = time.monotonic()
        if self.why is not None or process.stdin is None:
            raise Refused("gone", self.why or "its agent has no input")
        number = next(self._numbers) % 2**32
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            # What is written is one piece: another question can't come between its parts.
            process.stdin.write(calls.frame(number, calls.question(call, document)))  # type: ignore[arg-type] # its border checks it
            with contextlib.suppress(ConnectionError):  # it has ended, and its end answers
                await process.stdin.drain()
            body: bytes = await answer
            return body
        finally:
            self._waiting.pop(number, None)

    async def end(self) -> None:
        """End it, for certain; it may have ended already."""
        async with self._starting:
            process = self._process
        if process is None:
            self.why = self.why or "its agent was ended"
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(self._ended.wait(), END_S)
        except TimeoutError:
            self._kill()
            await self._ended.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None and self.why is None:
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *self._command,
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=asyncio.subprocess.PIPE,
                        start_new_session=True,  # Ctrl-C at a terminal is the coordinator's to hear
                        limit=1 << 20,
                    )
                except OSError as error:
                    self.why = f"its agent can't be started: {error.strerror}"
                else:
                    watched = (self._read(self._process), self._listen(self._process), self._guard())
                    self._tasks = [asyncio.create_task(each) for each in watched]
            if self._process is None:
                raise Refused("gone", self.why or "its agent was ended")
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand each answer to who waits for it, to the end of its output; then to all what its end was."""
        assert process.stdout is not None
        try:
            while True:
                head = await process.stdout.readexactly(calls.FRAME_HEAD_BYTES)
                size, number = calls.frame_head(head)
                body = await process.stdout.readexactly(size)
                answer = self._waiting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(body)
        except (asyncio.IncompleteReadError, ConnectionError, BadDocument):
            pass
        finally:
            try:
                status = await asyncio.wait_for(process.wait(), END_S)
            except TimeoutError:  # without its output it is of no use
                self._kill()
                status = await process.wait()
            self.why = _ended(status, self._last_words)
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Refused("gone", self.why))
            self._ended.set()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while read := await process.stderr.read(4096):
            self._last_words = (self._last_words + read)[-LAST_WORDS_BYTES:]

    async def _guard(self) -> None:
        """Kill it where no question came for long: one that is suspended does not end itself."""
        while (left_s := self._asked_s + self._orphan_s - time.monotonic()) > 0:  # noqa: ASYNC110 # each call delays it
            await asyncio.sleep(left_s)
        self._kill()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def _ended(status: int, last_words: bytes) -> str:
    line = next(reversed(last_words.decode("utf-8", "replace").strip().splitlines()), "")
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"its agent was ended by {signal.Signals(-status).name}"
    return f"its agent ended with status {status}{f': {line}' if line else ''}"


def hello() -> calls.Hello:
    """What is here."""
    facts, build, network = machine.facts(), machine.build(), os.stat("/proc/self/ns/net")
    return calls.Hello(
        protocol=calls.PROTOCOL,
        version=str(build["tftpbench"]),
        core=str(build["core"]),
        build_profile=str(build["build_profile"]),
        code=_code(),
        python=platform.python_version(),
        facts=facts,
        boot_id=_BOOT_ID.read_text(encoding="ascii").strip(),
        network=f"{network.st_dev}:{network.st_ino}",
    )


@cache
def ours() -> calls.Hello:
    """What is here, asked once."""
    return hello()


def check_hello(host: str, answered: bytes) -> calls.Hello:
    """What a host said of itself. Raises HostsError where it is no load host, or has another tftpbench than this one.

    Only the same one counts and times alike.
    """
    try:
        there, _ = calls.unpacked(answered, calls.Hello)
    except (BadDocument, Refused) as error:
        raise HostsError(f"{host}: can't be used as a load host: {one_line(error)}") from None
    for name in ("protocol", "version", "core", "build_profile", "code"):
        theirs, mine = getattr(there, name), getattr(ours(), name)
        if theirs != mine:
            raise HostsError(
                f"{host}: has another tftpbench: {name.replace('_', ' ')} is {one_line(theirs)} there and {mine} here; "
                "install the same one on all load hosts"
            )
    return there


def _code() -> str:
    """Equal for equal Python sources: a clone and a wheel may both call themselves 0.1.0."""
    whole = hashlib.sha256()
    paths = (path for path in _PACKAGE.rglob("*.py") if "_bundled" not in path.parts)
    for path in sorted(paths, key=lambda path: path.relative_to(_PACKAGE).parts):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:16]


_AGENTS: Agents | None = None


async def answer(load_id: str, call: str, document: bytes) -> bytes:
    """The answer of this process's own agents: what a carrier runs on a worker, by name."""
    global _AGENTS  # noqa: PLW0603 # one for each worker process, made on its event loop
    if _AGENTS is None:
        _AGENTS = Agents()
    return await _AGENTS.answer(load_id, call, document)
