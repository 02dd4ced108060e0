"""Which server is measured on what, in which order: the whole run as a list of trials, before anything is started.

Pure: the same scenario, contenders and seed give the same list on every machine, which is what lets an interrupted run
go on and a reader repeat one.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tftpbench.host.choice import choose
from tftpbench.host.presence import Found, Missing, locate
from tftpbench.host.server import is_taken, program_at
from tftpbench.host.target import Target
from tftpbench.model.errors import ManifestError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.workload import Cell

# Where servers are started, unless a caller says otherwise (`session.server_of`).
LISTENS_ON = "127.0.0.1"


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
    """One run of one cell on one server. `number` follows the scenario, `order` the clock; both count from 1."""

    number: int
    order: int
    round: int
    cell: Cell
    contender: Contender


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


def contenders(scenario: Scenario) -> tuple[Contender, ...]:
    """The scenario's servers, looked for on this machine. Raises ManifestError for an unknown one.

    One that can listen on a single port, which another program has, counts as missing.
    """
    chosen = [choose(entry) for entry in scenario.servers]
    with ThreadPoolExecutor() as pool:  # each is asked its version, and some are slow to say it
        found = list(pool.map(lambda choice: locate(choice[0]), chosen))
    servers = tuple(
        _with_its_port(Contender(server, variant, here)) for (server, variant), here in zip(chosen, found, strict=True)
    )
    for server in servers:
        same = [str(other.server.source) for other in servers if other.name == server.name]
        if len(same) > 1:
            raise ManifestError(
                f"{' and '.join(same)}: both call themselves {server.name!r}; give each a name of its own"
            )
    return servers


def plan(scenario: Scenario, servers: Sequence[Contender], seed: int) -> Plan:
    """Every round does every cell once on every server that can, in random order.

    The servers of a cell stay adjacent, in random order among themselves: what makes a machine faster or slower for a
    minute then hits both sides of a comparison. A skipped combination keeps its numbers, so that the numbers of a run
    do not depend on what is installed.
    """
    cells = scenario.cells()
    skipped = _skipped(cells, servers)
    left_out = {(skip.server, skip.cell.key if skip.cell else None) for skip in skipped}
    rng = random.Random(seed)
    trials: list[Trial] = []
    for round_number in range(scenario.trials):
        for cell_index in rng.sample(range(len(cells)), len(cells)):
            for server_index in rng.sample(range(len(servers)), len(servers)):
                cell, server = cells[cell_index], servers[server_index]
                if (server.name, None) in left_out or (server.name, cell.key) in left_out:
                    continue
                number = (round_number * len(cells) + cell_index) * len(servers) + server_index + 1
                trials.append(Trial(number, len(trials) + 1, round_number + 1, cell, server))
    return Plan(tuple(server.name for server in servers), tuple(trials), skipped)


def _with_its_port(contender: Contender) -> Contender:
    server = contender.server
    if isinstance(server, Target) or isinstance(contender.found, Missing) or server.fixed_port is None:
        return contender
    port = server.fixed_port
    if not is_taken(LISTENS_ON, port):
        return contender
    reason = (
        f"could not be measured: UDP port {port}, the only one that it can listen on, is taken by "
        f"{program_at(port) or 'another program'}; stop that program, or measure it as it runs with "
        f"--target {LISTENS_ON}:{port}"
    )
    return replace(contender, found=Missing(reason, ""))


def options_asked(cell: Cell) -> list[str]:
    """The options that its clients ask for, beside blksize and windowsize."""
    asked = {
        "tsize": cell.client.tsize,
        "timeout": cell.client.timeout_option_s,
        "rollover": cell.client.rollover is not None,
    }
    return [option for option, wanted in asked.items() if wanted]


def _skipped(cells: Sequence[Cell], servers: Sequence[Contender]) -> tuple[Skipped, ...]:
    skipped: list[Skipped] = []
    for server in servers:
        if isinstance(server.found, Missing):
            skipped.append(Skipped(server.name, None, server.found.reason, server.found.get or None))
            continue
        for cell in cells:
            reason = server.server.cannot(cell.operation, cell.blksize, cell.windowsize, options=options_asked(cell))
            if reason is not None:
                skipped.append(Skipped(server.name, cell, reason))
    return tuple(skipped)
