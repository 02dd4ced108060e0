"""Which cores the server and the generator get.

It only decides; pinning is done by those who start a process or a thread.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tftpbench.model.units import counted
from tftpbench.model.workload import Placement

# What the manifest of a run says of a server that no run of ours started.
RUNNING = "running already"


@dataclass(frozen=True)
class Pinning:
    """Core numbers of each side, () of a generator elsewhere.

    `spare` are the others: the harness looks on from there, if there are any.
    """

    server: tuple[int, ...]
    generator: tuple[int, ...]
    spare: tuple[int, ...]
    network: str = "loopback"
    """What lies between the two: loopback or namespace."""
    is_fallback: bool = False
    """Whether it is loopback because this machine makes no namespaces."""
    server_at: str = ""
    """The host that the server's cores are of, and its address there; "" of this machine."""

    @property
    def separate(self) -> bool:
        """Whether neither side can take time from the other."""
        return not set(self.server) & set(self.generator)

    @property
    def phrase(self) -> str:
        """The part of the answer's sentence: "on separate cores", "on one core in network namespaces"."""
        if not self.generator:
            there = f" of {self.server_at}" if self.server_at else ""
            return f"the server on {counted(len(self.server), 'core')}{there}"
        where = " in network namespaces" if self.network == "namespace" else " over loopback" * self.is_fallback
        if self.separate:
            return f"on separate cores{where}"
        together = sorted({*self.server, *self.generator})
        return ("on one core" if len(together) == 1 else f"on the same {len(together)} cores") + where


def placement(phrase: str, running: Sequence[str], servers: int, load_hosts: int = 0) -> str:
    """Where it is measured, in words: of so many servers, those that were running already are not pinned.

    `load_hosts`: how many the load comes from, 0 for this machine.
    """
    others = [f"{' and '.join(running)} not pinned to cores"] if running else []
    ours = [phrase] if len(running) < max(servers, 1) else []
    loaded = [f"loaded from {counted(load_hosts, 'host')}"] if load_hosts else []
    return ", ".join([*ours, *others, *loaded])


def pin(placement: Placement, allowed: Sequence[int] | None = None, *, from_hosts: bool = False) -> Pinning:
    """The server gets the last cores and the generator the first; where there are too few, both get all.

    Interrupts and housekeeping settle on the first cores, and the generator can say when it was late; the server can't.
    `from_hosts`: the generator runs on other hosts, and gets none here.
    """
    cores = sorted(os.sched_getaffinity(0)) if allowed is None else sorted(allowed)
    wanted_server = len(cores) if placement.server_cpus == "all" else placement.server_cpus
    wanted_generator = len(cores) if placement.generator_cpus == "all" else placement.generator_cpus
    if from_hosts:
        server = cores[-min(wanted_server, len(cores)) :]
        return Pinning(tuple(server), (), tuple(core for core in cores if core not in server), placement.network)
    if wanted_server + wanted_generator <= len(cores) or "all" in (placement.server_cpus, placement.generator_cpus):
        server, generator = cores[-wanted_server:], cores[:wanted_generator]
    else:
        server, generator = cores, cores
    taken = {*server, *generator}
    spare = tuple(core for core in cores if core not in taken)
    return Pinning(tuple(server), tuple(generator), spare, placement.network)
