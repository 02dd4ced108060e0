"""What a notebook calls: `tftpbench.run` and `tftpbench.Server`.

Thin: each function arranges arguments and lets the layers below work. It must never print.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tftpbench import measure
from tftpbench.host.choice import choose_manifest
from tftpbench.host.presence import Missing, locate
from tftpbench.host.server import Handover, ServerProcess, TemporaryFolder, Upload, Usage
from tftpbench.model.arguments import SEED_MAX, one_of, path_of, texts_of, whole_of, wholes_of
from tftpbench.model.errors import ServerError, ServerMissing, UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.scenario_files import load_scenario
from tftpbench.store import Run, load_run, recording

CONCURRENCY_MAX = 1_000_000
CPU_MAX = 8191  # CONFIG_NR_CPUS of Linux at its largest


def run(
    scenario: str | Path | Scenario,
    *,
    servers: Sequence[str] = (),
    overrides: Sequence[str] = (),
    quick: bool = False,
    seed: int | None = None,
    out: str | Path = "results",
    allow_remote: bool = False,
    on_event: Callable[[measure.Event], None] = lambda _: None,
) -> Run:
    """Run a scenario (a path, the name of a bundled one, or a Scenario) and open its results.

    `servers` replaces the scenario's, `overrides` are KEY=VALUE as for --set, `seed` orders the trials (random unless
    given), `allow_remote` lets a tftp:// server be on another machine. `on_event` is called at every step. Raises what
    `tftpbench run` would print, as TftpbenchError; Ctrl-C raises measure.RunInterrupted with all finished trials saved.
    """
    servers = texts_of(servers, "servers", UsageError)
    folder = path_of(out, "the folder in which the run's folder is made", UsageError)
    chosen = scenario if isinstance(scenario, Scenario) else load_scenario(scenario, overrides)
    if servers:
        chosen = chosen.with_servers(servers)
    if quick:
        chosen = chosen.quick()
    seed = random_seed() if seed is None else whole_of(seed, "seed", 0, SEED_MAX, UsageError)
    report = recording.run(chosen, seed=seed, out=folder, allow_remote=allow_remote, on_event=on_event)
    return load_run(report.folder)


def random_seed() -> int:
    """Short enough to type again."""
    return secrets.randbelow(1_000_000)


class Server:
    """A server under test for use in a `with` block: started on a free port and known to answer, ended for certain.

    `name` is that of a manifest, name@variant, or the path of a server.yaml; `root` the folder that it serves, None an
    empty one of its own. With `store` "memory" clients may write, and the server is iterated over: each upload comes as
    soon as it is whole, as a name and a read-only memoryview of memory that both processes map. A server that can't do
    that, and any other fault of an argument, is a UsageError. Raises ManifestError, ServerMissing, ServerNotReady or
    ServerDied.
    """

    def __init__(
        self,
        name: str,
        root: str | Path | None = None,
        *,
        concurrency: int = 100,
        write: bool = False,
        store: Literal["disk", "memory"] = "disk",
        cpus: Sequence[int] = (),
    ) -> None:
        if not isinstance(name, str):
            raise UsageError(f"name is a value of type {type(name).__name__}; allowed: the name of a server, as text")
        served = None if root is None else path_of(root, "the folder to serve", UsageError)
        whole_of(concurrency, "concurrency", 1, CONCURRENCY_MAX, UsageError)
        wholes_of(cpus, "cpus", 0, CPU_MAX, UsageError)
        manifest, variant = choose_manifest(name)
        _check_store(manifest, store)
        found = locate(manifest)
        if isinstance(found, Missing):
            raise ServerMissing(f"{manifest.name}: {found.reason}; get it: {found.get}")
        self._folder = TemporaryFolder("tftpbench-server-")
        if served is None:
            served = self._folder.path / "root"
            served.mkdir()
        self._process = ServerProcess(
            manifest,
            root=served.resolve(),
            log=self._folder.path / "server.log",
            concurrency=concurrency,
            write=write or store == "memory",
            variant=variant,
            cpus=cpus,
            hands_over=store == "memory",
        )

    @property
    def host(self) -> str:
        """Address it listens on."""
        return self._process.host

    @property
    def port(self) -> int:
        """Port it listens on."""
        return self._process.port

    @property
    def log(self) -> str:
        """What it has printed so far, cut in the middle if it was much."""
        return self._process.log.read_text(encoding="utf-8", errors="replace")

    def usage(self) -> Usage:
        """CPU time, memory, threads, descriptors and drops over all its processes, now."""
        return self._process.usage()

    def uploads(self, timeout_s: float | None = None) -> Iterator[Upload]:
        """Each upload when it is whole, in the order in which they were; ends when the server has ended.

        It also ends when none has come for `timeout_s` seconds; 0 takes those that are there. An upload is given out
        once, whoever asks. Raises UsageError unless `store` is "memory", and ServerError for one that can't be mapped.
        """
        handover = self._process.handover
        if handover is None:
            raise UsageError(f"{self._process.manifest.name}: gives no uploads: start it, with store='memory'")
        return iter(lambda: self._take(handover, timeout_s), None)

    def __iter__(self) -> Iterator[Upload]:
        return self.uploads()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process.start()

    def stop(self) -> None:
        """End it and everything it started; uploads that were not taken are gone. May be called again."""
        self._process.stop()
        self._folder.remove()

    def _take(self, handover: Handover, timeout_s: float | None) -> Upload | None:
        try:
            return handover.receive(timeout_s)
        except ServerError as error:
            raise ServerError(f"{self._process.manifest.name}: {error}") from None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_store(manifest: Manifest, store: str) -> None:
    if one_of(store, "store", ("disk", "memory"), UsageError) == "memory" and not manifest.argv_handover:
        raise UsageError(
            f"{manifest.name}: can't hand its uploads to a program: {manifest.origin} has no argv_handover"
        )
