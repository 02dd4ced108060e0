"""Which server is measured on what, in which order: the whole run as a list of trials, before anything is started.

The same scenario, contenders and seed give the same list on every machine, which is what lets an interrupted run go on
and a reader repeat one. What is here is looked at before: whether a program is found, and whether its fixed port is
free.
"""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tftpbench.host.brake import is_elsewhere
from tftpbench.host.ceiling import QUICK, Effort
from tftpbench.host.choice import choose
from tftpbench.host.generator import LoadGenerator, is_of_hosts
from tftpbench.host.headroom import ROUNDS
from tftpbench.host.network import NetworkRefused, packet_refusal
from tftpbench.host.presence import Found, Missing, locate
from tftpbench.host.server import is_taken, program_at
from tftpbench.host.server_host import ServerHost, is_other_host
from tftpbench.host.target import SCHEME, Target, parse_target
from tftpbench.model.errors import ManifestError, UsageError, suggest
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import counted
from tftpbench.model.workload import Cell, ClosedLoop, Generators, Shaped, Sought, Storm

# Where servers are started, unless a caller says otherwise (`session.server_of`).
LISTENS_ON = "127.0.0.1"
_NO_RING = "allowed: auto, shared, per-transfer"
# What a trial takes besides its load, and what servers move, in the recorded runs of results/reference: a start, a stop
# and a row take 0.12 to 0.3 s. 1000 reads of 64 KiB end 0.5 s (epoll) to 4 s (servers that lose some) after the window.
_AROUND_TRIAL_S = 0.2
_BLOCKS_PER_S = 100_000
# The same of machines that boot, which mostly read in windows of 4 blocks: storms of 100 to 5000 of uefi-grub had 1.3 M
# blocks a second from epoll, 0.5 M from threads, 0.2 M from dnsmasq and 0.08 M from tftpd-hpa. The slow ones lose
# machines, and are done the sooner: 5000 took them 24, 60, 42 and 39 s. At this all four take about as long in sum.
_BLOCKS_OF_BOOTS_PER_S = 700_000
# With load hosts the common start lies 2 s ahead, and their clocks are compared before and after.
_AROUND_HOSTS_S = 3.0
_AROUND_RUN_S = 2.0  # Python and its packages, versions that are asked, files that are made, the answer
# Short runs to choose the arrangement of a ceiling: some nine candidates once, and the best of them again; in a network
# there are rings beside sockets. Loads that fill the generator come on top there, with what is made and ended for each.
_CANDIDATES, _CANDIDATES_IN_NETWORK = 9, 14
_CANDIDATES_AGAIN = 4
_FULL_LOADS_S = ROUNDS * 0.15
_S = 1e-9


@dataclass(frozen=True)
class Contender:
    """One server that takes part, perhaps a variant of it, and what was found of it here."""

    server: Manifest | Target
    variant: str | None
    found: Found | Missing

    @property
    def name(self) -> str:
        """As in results, thresholds and tables: "epoll", or "dnsmasq@as_shipped"."""
        return f"{self.server.name}@{self.variant}" if self.variant else self.server.name

    @property
    def busy_polls(self) -> bool:
        """Whether it never sleeps, so that its CPU time tells nothing. Of a running server it is not known."""
        return not isinstance(self.server, Target) and self.server.busy_polls(self.variant)


@dataclass(frozen=True)
class Trial:
    """One run of one cell on one server. `number` follows the scenario, `order` the clock; both count from 1.

    `ends_s`: when it is ended at the latest, on the monotonic clock, whatever its load is.
    """

    number: int
    order: int
    round: int
    cell: Cell
    contender: Contender
    ends_s: float = math.inf

    @property
    def is_observed(self) -> bool:
        """Whether the server's machine is looked at: it is this one, or one on which we start it."""
        return self.cell.generators is None or not isinstance(self.contender.server, Target)


@dataclass(frozen=True)
class Skipped:
    """A server, or one cell of it, that is not measured. `get` says how to get a server that is missing."""

    server: str
    cell: Cell | None
    reason: str
    get: str | None = None


@dataclass(frozen=True)
class Plan:
    """Trials in the order in which they are to be done, and what is left out; `servers` in the scenario's order."""

    servers: tuple[str, ...]
    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]


def on_hosts(scenario: Scenario, generator: LoadGenerator) -> tuple[Scenario, LoadGenerator, tuple[str, ...]]:
    """The scenario with the load hosts that it will be measured from, the generator that is those, and their names.

    All that there are, by equal shares, unless it says which; none where the load is this machine's. Raises UsageError
    in one line where there are not those that it asks for, or where they do not reach what it measures, and HostsError
    where one of them can't be used.
    """
    asked, server_host = scenario.generators, scenario.placement.server_host
    if server_host is not None:
        _refuse_no_server_host(scenario, generator)
    if not is_of_hosts(generator):
        if asked is not None:
            raise UsageError(
                f"generators asks for {counted(asked.count, 'load host')}; "
                "allowed: with a cluster of them, as in --dask tls://HOST:PORT, or --set generators=null"
            )
        return scenario, generator, ()
    there = [host for host in generator.hosts if host != server_host]
    if asked is None:
        scenario = scenario.on_hosts(len(there))
        asked = Generators(hosts=len(there))
    names = _named_hosts(asked, there)
    chosen = generator.taking(names, asked.weights)
    if server_host is None and not chosen.is_here:
        _refuse_out_of_reach(scenario.servers)
    return scenario, chosen, names


def _refuse_no_server_host(scenario: Scenario, generator: LoadGenerator) -> None:
    """Raises UsageError where servers can't be started on the host that the scenario names."""
    name = scenario.placement.server_host
    assert name is not None
    if not is_of_hosts(generator):
        raise UsageError(
            f"placement.server_host is {name!r}, a host of a cluster; "
            "allowed: with a cluster, as in --dask tls://HOST:PORT, or --set placement.server_host=null"
        )
    for entry in scenario.servers:
        if entry.startswith(SCHEME):
            raise UsageError(
                f"{entry} runs already, so placement.server_host {name!r} can't start it; allowed: one of the two"
            )
    if name not in generator.hosts:
        raise UsageError(f"placement.server_host: the cluster has no host {name!r}{suggest(name, generator.hosts)}")
    if len(generator.hosts) == 1:
        raise UsageError(
            f"placement.server_host is {name!r}, the only host of the cluster, so none is left for the load; "
            "allowed: a cluster of two hosts or more"
        )


def _named_hosts(asked: Generators, there: Sequence[str]) -> tuple[str, ...]:
    if isinstance(asked.hosts, int):
        if asked.hosts > len(there):
            raise UsageError(
                f"generators.hosts is {asked.hosts}, and the cluster has {counted(len(there), 'load host')}"
                f"{': ' if there else ''}{', '.join(there)}"
            )
        return tuple(there[: asked.hosts])
    for name in asked.hosts:
        if name not in there:
            raise UsageError(f"generators.hosts: the cluster has no load host {name!r}{suggest(name, there)}")
    return asked.hosts


def _refuse_out_of_reach(servers: Sequence[str]) -> None:
    """Raises UsageError for what load hosts elsewhere do not reach."""
    for entry in servers:
        host = parse_target(entry).host if entry.startswith(SCHEME) else LISTENS_ON
        if not is_elsewhere(host):
            what = entry if entry.startswith(SCHEME) else f"{entry} is started here and"
            raise UsageError(
                f"{what} listens on {host}, which load hosts on other machines do not reach; "
                "allowed: a running server at an address that they reach, by --target HOST:PORT"
            )


def networked(scenario: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with the network and the sockets that it will be measured with, and what is to be said of that.

    Raises UsageError in one line where it asks for what this machine, or a server, can't be measured with.
    """
    wanted, sockets = scenario.placement.network, scenario.client.sockets
    is_ring, without_ring = sockets == "ring", " with client.sockets=auto" if sockets == "ring" else ""
    running = [entry for entry in scenario.servers if entry.startswith(SCHEME)]
    if running and wanted == "namespace":
        raise UsageError(
            f"{running[0]} runs already, and not in a network of ours; "
            f"allowed: --set placement.network=loopback{without_ring}"
        )
    if running and is_ring:
        raise UsageError(
            f"client.sockets is ring, and {running[0]} runs already, and not in a network of ours; {_NO_RING}"
        )
    if wanted == "loopback" and is_ring:
        raise UsageError(
            f"client.sockets is ring, and placement.network loopback; {_NO_RING}, or ring with "
            "placement.network namespace"
        )
    if running or wanted == "loopback" or scenario.generators is not None:
        return scenario if wanted == "loopback" else scenario.over("loopback"), ()
    try:
        packet_refused = packet_refusal()
    except NetworkRefused as error:
        if wanted == "namespace" or is_ring:
            instead = f"loopback{without_ring}" if wanted == "namespace" else "client.sockets=auto"
            raise UsageError(
                f"placement.network is {wanted}, and this machine makes none ({error}); "
                f"allowed: {instead}, or root, or a machine that allows user namespaces"
            ) from None
        return scenario.over("loopback"), (f"measured over loopback: this machine makes no namespaces ({error})",)
    if not packet_refused:
        return scenario.over("namespace", "ring"), ()
    why = f"packet sockets are refused ({packet_refused})"
    if is_ring:
        raise UsageError(f"client.sockets is ring, and {why}; {_NO_RING}")
    notes = (f"measured with sockets, not rings: {why}",) if sockets == "auto" else ()
    return scenario.over("namespace", "shared"), notes


def contenders(
    scenario: Scenario, *, ask_version: bool = True, host: ServerHost | None = None
) -> tuple[Contender, ...]:
    """The scenario's servers, looked for on this machine, or on `host`. Raises ManifestError for an unknown one.

    One that can listen on a single port, which another program has, counts as missing. Without `ask_version` no program
    is started, so that one which is there but can't run is found, too.
    """
    chosen = [choose(entry) for entry in scenario.servers]
    in_network = scenario.placement.network == "namespace"
    is_there = host is not None and is_other_host(host)

    def look(server: Manifest | Target) -> Found | Missing:
        if host is not None and is_other_host(host) and not isinstance(server, Target):
            return host.locate(server)
        return locate(server, ask=ask_version, in_network=in_network)

    with ThreadPoolExecutor() as pool:  # each is asked its version, and some are slow to say it
        found = list(pool.map(lambda choice: look(choice[0]), chosen))
    servers = tuple(Contender(server, variant, here) for (server, variant), here in zip(chosen, found, strict=True))
    if not (in_network or is_there):  # where all ports are free, or were looked at
        servers = tuple(map(_with_its_port, servers))
    for server in servers:
        same = [str(other.server.source) for other in servers if other.name == server.name]
        if len(same) > 1:
            raise ManifestError(
                f"{' and '.join(same)}: both call themselves {server.name!r}; give each a name of its own"
            )
    return servers


def plan(scenario: Scenario, servers: Sequence[Contender], seed: int, rounds: int | None = None) -> Plan:
    """Every round does every cell once on every server that can, in random order.

    Where a server runs already, by ascending concurrency, round after round of each: for minutes after an overload some
    answer requests that were given up, and so a dnsmasq that had lost 1000 at once would have served no round after it.
    The servers of a cell stay adjacent, in random order among themselves: what makes a machine faster or slower for a
    minute then hits both sides of a comparison. A skipped combination keeps its numbers, so that the numbers of a run
    do not depend on what is installed. `rounds`: in place of the scenario's; those of fewer are the first of more.
    """
    cells = scenario.cells()
    skipped = _skipped(cells, servers)
    left_out = {(skip.server, skip.cell.key if skip.cell else None) for skip in skipped}
    rng = random.Random(seed)
    trials: list[Trial] = []
    for round_number in range(scenario.trials if rounds is None else rounds):
        for cell_index in rng.sample(range(len(cells)), len(cells)):
            for server_index in rng.sample(range(len(servers)), len(servers)):
                cell, server = cells[cell_index], servers[server_index]
                if (server.name, None) in left_out or (server.name, cell.key) in left_out:
                    continue
                if scenario.is_left_out(cell, server.name):
                    continue
                number = (round_number * len(cells) + cell_index) * len(servers) + server_index + 1
                trials.append(Trial(number, len(trials) + 1, round_number + 1, cell, server))
    if any(isinstance(each.server, Target) for each in servers):
        trials.sort(key=lambda trial: trial.cell.machines_asked or trial.cell.concurrency)
        trials = [replace(trial, order=order) for order, trial in enumerate(trials, 1)]
    return Plan(tuple(server.name for server in servers), tuple(trials), skipped)


def _with_its_port(contender: Contender) -> Contender:
    server = contender.server
    if isinstance(server, Target) or isinstance(contender.found, Missing) or server.fixed_port is None:
        return contender
    port = server.fixed_port
    if not is_taken(LISTENS_ON, port):
        return contender
    reason = (
        f"could not be measured: UDP port {port} is taken by {program_at(LISTENS_ON, port) or 'another program'}; "
        f"stop that, or measure it as it runs with --target {LISTENS_ON}:{port}"
    )
    return replace(contender, found=Missing(reason, ""))


def estimate_s(trials: Sequence[Trial]) -> float:
    """About how many seconds a run of these trials takes; a server that loses transfers makes it longer."""
    return _AROUND_RUN_S + sum(costs_s(trials).values()) if trials else 0.0


def costs_s(trials: Sequence[Trial]) -> dict[int, float]:
    """About how many seconds each of the trials will take, by its `order`; the first of a cell has its ceiling, too."""
    effort = Effort() if max((trial.round for trial in trials), default=1) > 1 else QUICK
    probe_s = _S * (effort.warm_up_ns + effort.window_ns)
    short_run_s = _S * (effort.short_warm_up_ns + effort.short_window_ns)
    chosen, probed = set(), set()
    costs = {}
    for trial in trials:
        work = trial.cell.key, trial.contender.busy_polls
        costs[trial.order] = _AROUND_TRIAL_S + _load_s(trial.cell)
        is_search = isinstance(trial.cell.load, Sought)
        is_from_hosts = trial.cell.generators is not None
        costs[trial.order] += _AROUND_HOSTS_S if is_from_hosts and not is_search else 0.0
        if isinstance(trial.contender.server, Target) or trial.cell.is_boots or is_search or is_from_hosts:
            continue  # it has no ceiling
        in_network = trial.cell.placement.network != "loopback"
        if work not in chosen:
            first = _CANDIDATES_IN_NETWORK if in_network else _CANDIDATES
            costs[trial.order] += short_run_s * (first + _CANDIDATES_AGAIN * (effort.rounds - 1))
            costs[trial.order] += _FULL_LOADS_S if in_network else 0.0
        if (*work, trial.round) not in probed:
            costs[trial.order] += probe_s
        chosen.add(work)
        probed.add((*work, trial.round))
    return costs


def _load_s(cell: Cell) -> float:
    """The load itself, with the transfers that are in flight when a window closes."""
    load, each_s = cell.load, _moving_s(cell)
    if isinstance(load, Sought):
        return _S * load.asked.budget_ns
    lasts_s = _S * (cell.warm_up_ns + (cell.duration_ns or 0))
    if isinstance(load, ClosedLoop):
        started = cell.concurrency if cell.transfers is None else cell.transfers
        return lasts_s + min(started * each_s, _S * cell.limit_ns)
    if isinstance(load, Storm):
        pieces = [(float(load.machines), _S * load.over_ns)]
    elif isinstance(load, Shaped):
        pieces = [(piece.starts, _S * piece.for_ns) for piece in load.pieces]
    else:
        lasts_s = lasts_s if cell.transfers is None else cell.transfers / load.rate_per_s
        pieces = [(load.rate_per_s * lasts_s, lasts_s)]
    left_s = 0.0  # what starts is moved meanwhile, and what could not be is in flight at the end
    for starts, piece_s in pieces:
        left_s = max(each_s, left_s + starts * each_s - piece_s)
    return sum(piece_s for _, piece_s in pieces) + min(left_s, cell.concurrency * each_s, _S * load.deadline_ns)


def _moving_s(cell: Cell) -> float:
    """How long a server is busy with a transfer or a machine. A profile that can't be read is refused elsewhere."""
    if cell.is_boots:
        return cell.boot_facts.blocks / _BLOCKS_OF_BOOTS_PER_S
    return (cell.file_size_bytes // cell.blksize + 1) / _BLOCKS_PER_S


def options_asked(cell: Cell) -> list[str]:
    """The options that its clients ask for, beside blksize and windowsize."""
    asked = {
        "tsize": cell.client.tsize,
        "timeout": cell.client.timeout_option_s,
        "rollover": cell.client.rollover is not None,
    }
    return [option for option, wanted in asked.items() if wanted]


def _why_not(server: Manifest | Target, cell: Cell) -> str | None:
    """Why the cell must not be run on it. A boot asks for options that a server may leave out, as real clients do."""
    if not cell.is_boots:
        return server.cannot(cell.operation, cell.blksize, cell.windowsize, options=options_asked(cell))
    if not isinstance(server, Target) and server.store == "memory":
        return "keeps its files in memory, where those of a boot can't be put"
    return server.cannot("read") or (server.cannot("write") if cell.writes else None)


def _skipped(cells: Sequence[Cell], servers: Sequence[Contender]) -> tuple[Skipped, ...]:
    skipped: list[Skipped] = []
    for server in servers:
        if isinstance(server.found, Missing):
            skipped.append(Skipped(server.name, None, server.found.reason, server.found.get or None))
            continue
        for cell in cells:
            reason = _why_not(server.server, cell)
            if reason is not None:
                skipped.append(Skipped(server.name, cell, reason))
    return tuple(skipped)
