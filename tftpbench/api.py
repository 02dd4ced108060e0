"""What a notebook calls to measure: `tftpbench.run`, `tftpbench.gate_ab` and `tftpbench.Server`.

Thin: each function arranges arguments and lets the layers below work. It must never print.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tftpbench import gate, measure
from tftpbench.gate import GateResult
from tftpbench.host.brake import Limits
from tftpbench.host.choice import choose_manifest
from tftpbench.host.presence import Missing, locate
from tftpbench.host.server import Handover, ServerProcess, TemporaryFolder, Upload, Usage
from tftpbench.host.target import measuring, target_entries
from tftpbench.model.arguments import SEED_MAX, one_of, path_of, texts_of, whole_of, wholes_of
from tftpbench.model.errors import ResultsError, ServerError, ServerMissing, UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.regular_file import write_whole
from tftpbench.model.scenario import Scenario
from tftpbench.model.scenario_files import Overrides, load_scenario, overridden, sets
from tftpbench.model.units import BANDWIDTH_ALLOWED, parse_duration_ns
from tftpbench.store import Run, load_run, recording

CONCURRENCY_MAX = 1_000_000
CPU_MAX = 8191  # CONFIG_NR_CPUS of Linux at its largest


def run(
    scenario: str | Path | Scenario | None = None,
    *,
    servers: Sequence[str] = (),
    target: str | None = None,
    target_file: str | None = None,
    target_write: bool = False,
    overrides: Overrides = (),
    trials: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    out: str | Path = "results",
    resume: str | Path | None = None,
    report: bool = False,
    allow_remote: bool = False,
    max_rate: str | None = None,
    keep_going: bool = False,
    dask: str | None = None,
    dask_ca: str | Path | None = None,
    dask_cert: str | Path | None = None,
    dask_key: str | Path | None = None,
    server_host: str | None = None,
    until: float | None = None,
    budget: str = "10min",
    progress: bool | None = None,
    on_event: Callable[[measure.Event], None] = lambda _: None,
) -> Run:
    """Run every trial of a scenario and open its results: a Run, with a row for each trial in `trials`.

    `scenario`: a path, the name of a bundled one, or a Scenario. `servers` replaces the scenario's: names,
    name@variant, paths of manifests, or tftp://HOST:PORT. `target`: HOST:PORT of a running server, with `target_file`,
    the name of a file that it has, or `target_write`, which uploads files that stay there. `overrides`: a mapping, as
    in {"trials": 3, "matrix.concurrency": [1, 10]}, or texts KEY=VALUE as for --set. `trials`: of each cell on each
    server. `quick`: each cell once, unless `trials` says otherwise, and short, to see that it works. `seed`: of the
    order of trials, 0 to 2**64 - 1; random unless given. `out`: where the run's folder is made. `resume`: the folder of
    an interrupted run to go on with, in place of a scenario and what changes it. `report`: also write report.html into
    the run's folder. `allow_remote` lets a running server be on another machine; `max_rate` is the most that may be
    moved a second, both ways, as in "500Mbit/s"; `keep_going` goes on although most of what another machine was asked
    for has failed. `dask`: the address of a Dask cluster's scheduler, whose workers make the load (docs/hosts.md);
    `dask_ca`, `dask_cert` and `dask_key` are files in PEM, those of `tftpbench hosts init` unless given.
    `server_host`: the host of that cluster on which servers are started. `until`: rounds are added until the interval
    of the headline is at most so wide, as a share of its lower end (0.05 for 5 %), or the run would take longer than
    `budget`; a resumed run keeps its own. `progress`: True shows it as the command does, False not at all; a notebook
    shows it unless False. `on_event` is called with every step, as it is done.

    Raises what `tftpbench run` would print, as TftpbenchError: ScenarioError, ThresholdError, ManifestError,
    ServerError, LoadError, HostsError, ResultsError or UsageError. Ctrl-C raises RunInterrupted with all finished
    trials saved.
    """
    from tftpbench.render import notebook  # a child process of a server has no use for it

    asked = texts_of(servers, "servers", UsageError)
    folder = path_of(out, "the folder in which the run's folder is made", UsageError)
    begun = None if resume is None else path_of(resume, "the folder of an interrupted run", UsageError)
    changes = (scenario, asked, target, overrides, trials, quick, server_host)
    if begun is not None and (any(changes) or seed is not None):
        raise UsageError("resume continues the scenario as it was run: leave out the scenario and what changes it")
    chosen = recording.recorded(begun)[0] if begun else _chosen(scenario, overrides)
    boots = chosen.cells()[0].is_boots
    asked = [*asked, *target_entries(target, target_file, target_write, boots=boots, prefix="", dash="_")]
    chosen = measuring(chosen, asked, overrides)
    if server_host is not None:
        chosen = overridden(chosen, {"placement.server_host": server_host})
    if trials is not None:
        chosen = overridden(chosen, {"trials": trials})
    if quick:
        chosen = chosen.quick(keeps_trials=trials is not None or sets(overrides, "trials"))
    seed = random_seed() if seed is None else whole_of(seed, "seed", 0, SEED_MAX, UsageError)
    limits = _limits(max_rate, keep_going)
    files = [_pem(path, f"dask_{kind}") for kind, path in (("ca", dask_ca), ("cert", dask_cert), ("key", dask_key))]
    with notebook.display(progress) as shown, tools_of(dask, files) as tools:

        def seen(event: measure.Event) -> None:
            shown(event)
            on_event(event)

        done = recording.run(
            chosen, seed=seed, out=folder, resume=begun, allow_remote=allow_remote, limits=limits, on_event=seen,
            tools=tools, until=until_of(begun, until, _budget_s(budget), is_quick=chosen.is_quick),
        )  # fmt: skip
    stored = load_run(done.folder)
    if report:
        write_page(stored)
    return stored


def until_of(resume: Path | None, width: object, budget_s: float, *, is_quick: bool) -> measure.Until | None:
    """How long rounds are added; of a run that is resumed as it was asked then. Raises UsageError."""
    from tftpbench.analysis import summary

    kept = recording.recorded_until(resume) if resume is not None else None
    if width is None and kept is not None:
        width, budget_s = kept
    if width is None:
        return None
    if is_quick:
        raise UsageError("until: a quick run judges no speed, so its interval has no width; leave one of them out")
    if not (isinstance(width, float | int) and 0 < width < 10 and budget_s > 0):
        raise UsageError(f"until is {width!r}; allowed: a share above 0, as in 0.05 for 5 %, within a budget above 0")
    return measure.Until(width, budget_s, lambda folder: summary.answer_of(load_run(folder)).interval_width)


def write_page(run: Run, advice: str = "") -> Path:
    """RUN/report.html, anew; raises ResultsError, with `advice` at its end."""
    from tftpbench.render.report import report  # matplotlib takes a second to import

    return write_whole(run.path / "report.html", report(run).encode(), ResultsError, advice)


def gate_ab(
    base: str | Path,
    head: str | Path,
    scenario: str | Path | Scenario = "gate",
    *,
    like: str | Path | None = None,
    overrides: Overrides = (),
    seed: int | None = None,
    out: str | Path | None = "results",
    on_event: Callable[[gate.Event], None] = lambda _: None,
) -> GateResult:
    """Hold a server against its former self in interleaved pairs, as `tftpbench gate ab` does (docs/gate.md).

    `base` and `head`: a manifest's name, name@variant or path; an executable, with `like` as the manifest that says how
    it is started; or a command in one line with {port} and {root}. `scenario`, `overrides` and `seed` as for
    `tftpbench.run`; the bundled scenario "gate" takes up to five minutes. `out`: where the gate's folder is made, with
    its gate.json and reports; None to keep nothing. `on_event` is called with every step, as it is done. The result has
    the verdict, its sentence and the figures; nothing is raised for a regression.

    Raises UsageError where a side can't do a cell, and ScenarioError, ManifestError, ServerError, LoadError or
    ResultsError. Ctrl-C raises GateInterrupted with all finished pairs saved.
    """
    entries = _entry(base, "base"), _entry(head, "head")
    folder = None if out is None else path_of(out, "the folder in which the gate's folder is made", UsageError)
    chosen = _chosen(scenario, overrides)
    sides = gate.both_sides(*entries, None if like is None else _entry(like, "like"), in_network=chosen.in_network)
    seed = random_seed() if seed is None else whole_of(seed, "seed", 0, SEED_MAX, UsageError)
    result = gate.ab(*sides, chosen, seed=seed, out=folder, entries=entries, on_event=on_event)
    if result.folder is not None:
        from tftpbench.render.gate import write  # matplotlib takes a second to import

        write(result, Path(result.folder))
    return result


def random_seed() -> int:
    """Short enough to type again."""
    return secrets.randbelow(1_000_000)


class Server:
    """A server under test for use in a `with` block: started on a free port and known to answer, ended for certain.

    `name` is that of a manifest, name@variant, or the path of a server.yaml; `root` the folder that it serves, None an
    empty one of its own. `concurrency`: how many transfers at once it is to be ready for. `write` lets clients upload.
    `cpus`: numbers of the cores it runs on, none for all. With `store` "memory" clients may write, and the server is
    iterated over: each upload comes as soon as it is whole, as a name and a read-only memoryview of memory that both
    processes map. A server that can't do that, and any other fault of an argument, is a UsageError. Raises
    ManifestError, ServerMissing, ServerNotReady or ServerDied.
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
        once, whichever thread asks. Raises UsageError unless `store` is "memory", and ServerError for one that can't be
        mapped.
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


def _chosen(scenario: str | Path | Scenario | None, overrides: Overrides) -> Scenario:
    if scenario is None:
        raise UsageError('no scenario given; name a file or a bundled one, as in: tftpbench.run("concurrency")')
    return overridden(scenario, overrides) if isinstance(scenario, Scenario) else load_scenario(scenario, overrides)


def _budget_s(budget: object) -> float:
    try:
        return parse_duration_ns(str(budget)) / 1e9
    except ValueError as error:
        raise UsageError(f"budget {error}") from None


def _limits(max_rate: object, keep_going: bool) -> Limits:
    if max_rate is not None and not isinstance(max_rate, str):
        raise UsageError(f"max_rate is a value of type {type(max_rate).__name__}; allowed: {BANDWIDTH_ALLOWED}")
    try:
        return Limits.of(max_rate, keep_going=keep_going)
    except ValueError as error:
        raise UsageError(f"max_rate {error}") from None


def _pem(value: object, name: str) -> Path | None:
    return None if value is None else path_of(value, f"{name}, a file in PEM", UsageError)


@contextmanager
def tools_of(address: object, files: Sequence[Path | None]) -> Iterator[measure.Tools | None]:
    """What a run makes its loads with: the load hosts of a cluster, None where no `address` of one is given.

    `files`: its authority, certificate and key. Raises UsageError, and HostsError where it can't be reached.
    """
    if address is None:
        if any(files):
            raise UsageError("dask_ca, dask_cert and dask_key go with dask, the address of a scheduler")
        yield None
        return
    if not isinstance(address, str):
        raise UsageError(f"dask is a value of type {type(address).__name__}; allowed: a scheduler's address, as text")
    from tftpbench.host.hosts import dask

    with dask.load_hosts(address, *files) as generator:
        yield measure.Tools(generator=generator)


def _entry(value: object, name: str) -> str:
    """What was given for a server, as on the command line, where it is always text."""
    if not isinstance(value, (str, Path)):
        raise UsageError(f"{name} is a value of type {type(value).__name__}; allowed: a server, as text or a Path")
    return str(value)


def _check_store(manifest: Manifest, store: str) -> None:
    if one_of(store, "store", ("disk", "memory"), UsageError) == "memory" and not manifest.argv_handover:
        raise UsageError(
            f"{manifest.name}: can't hand its uploads to a program: {manifest.origin} has no argv_handover"
        )
