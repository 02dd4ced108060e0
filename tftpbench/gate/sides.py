"""What base and head are: a manifest, an executable in a manifest's place, or a command, each found on this machine.

It must never start a server, nor let a side through that the gate could not load or judge.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from tftpbench.gate.result import Side
from tftpbench.host.choice import bundled_manifests, choose_manifest
from tftpbench.host.presence import Found, Missing, locate
from tftpbench.measure import Contender, options_asked
from tftpbench.model import strict, yaml
from tftpbench.model.errors import ManifestError, ServerMissing, UsageError
from tftpbench.model.manifest import OPTIONS, Manifest
from tftpbench.model.workload import Cell

ALLOWED = (
    "allowed: a manifest's name, name@variant or path; an executable with --as NAME; "
    "or a command in one word with {port} and {root}"
)
_NAME_LENGTH_MAX = 40


def side(entry: str, like: str | None = None, *, in_network: bool = False) -> Contender:
    """The server that an entry of the command line means; `like` names the manifest that says how it is started.

    `in_network`: it is to run in a network of its own. Raises UsageError (ManifestError) for an entry that can't be
    understood, ServerMissing for a server that is not here.
    """
    _refuse_running(entry)
    try:
        server, variant = _chosen(entry, like)
    except OSError as error:  # a word that no path can be
        raise UsageError(f"{entry[:60]!r}: is no server: {error.strerror}; {ALLOWED}") from None
    contender = Contender(server, variant, locate(server, in_network=in_network))
    if contender.busy_polls:
        raise UsageError(
            f"{contender.name}: polls without ever sleeping, so its CPU time says nothing; "
            "allowed: a variant that sleeps while it waits"
        )
    if isinstance(contender.found, Missing):
        raise ServerMissing(f"{contender.name}: {contender.found.reason}; get it: {contender.found.get}")
    return contender


def both_sides(
    base: str, head: str, like: str | None = None, *, in_network: bool = False
) -> tuple[Contender, Contender]:
    """Base and head; `like` is for those that are executables. Raises UsageError where neither is, and as `side`."""
    if like is not None and not (takes_like(base) or takes_like(head)):
        raise UsageError("--as says how executables are started, and neither base nor head is one; leave it out")
    first, second = (side(entry, like if takes_like(entry) else None, in_network=in_network) for entry in (base, head))
    return first, second


def takes_like(entry: str) -> bool:
    """Whether an entry means an executable, which needs a manifest to say how it is started."""
    if len(entry) > os.pathconf("/", "PC_PATH_MAX"):
        return False
    return not _is_command(entry) and not _is_manifest(entry) and _executable(entry) is not None


def refuse_unfit(base: Contender, head: Contender, cells: Sequence[Cell]) -> None:
    """Raises UsageError for the first cell that a side can't do: what is left out of a gate is not judged."""
    for cell in cells:
        if cell.generators:
            raise UsageError(
                f"the cell {cell.label!r} is loaded by hosts of a cluster (generators), and a gate loads from this "
                "machine alone; choose another scenario, or --set generators=null"
            )
        if cell.placement.server_host is not None:
            raise UsageError(
                f"the cell {cell.label!r} is served on another host (placement.server_host), and a gate starts its "
                "servers on this machine; choose another scenario, or --set placement.server_host=null"
            )
        if cell.open_loop or cell.is_boots:
            what = "boots machines" if cell.is_boots else "has a rate" if cell.rate_per_s else "starts by a schedule"
            raise UsageError(
                f"the cell {cell.label!r} {what}, which is no measure of a server's speed; "
                "choose a scenario with matrix.concurrency, and without boots"
            )
    for name, each in (("base", base), ("head", head)):
        for cell in cells:
            reason = each.server.cannot(cell.operation, cell.blksize, cell.windowsize, options=options_asked(cell))
            if reason is not None:
                raise UsageError(
                    f"{name} ({each.name}) {reason}, which the cell {cell.label!r} needs; "
                    "choose another scenario, or change its matrix with --set"
                )


def describe(contender: Contender, entry: str) -> Side:
    """The side for results; `entry` as it was typed."""
    server, found = contender.server, contender.found
    assert isinstance(server, Manifest), "side() lets no other through"
    version = found.version if isinstance(found, Found) else "unknown"
    return Side(entry, contender.name, version, server.argv_of(contender.variant), server.model)


def _chosen(entry: str, like: str | None) -> tuple[Manifest, str | None]:
    if like is not None:
        return _in_the_place_of(like, entry)
    if _is_command(entry):
        return _of_command(entry), None
    if _is_manifest(entry):
        return choose_manifest(entry)
    if _executable(entry) is not None:
        raise UsageError(
            f"{entry}: is an executable, and nothing says how it is started; add --as NAME, a manifest's name or path"
        )
    if any(letter.isspace() for letter in entry) and not Path(entry).exists():
        raise UsageError(f"{entry!r}: is no server, and as a command it has no {{port}}; {ALLOWED}")
    try:
        return choose_manifest(entry)
    except ManifestError as error:
        raise ManifestError(f"{error}; or {ALLOWED.partition('; ')[2]}") from None


def _refuse_running(entry: str) -> None:
    if entry.startswith("tftp:"):
        raise ManifestError(f"{entry}: the gate starts its servers itself; {ALLOWED}")


def _is_command(entry: str) -> bool:
    return "{port}" in entry


def _is_manifest(entry: str) -> bool:
    """Whether it can be nothing else; a bundled name wins over a program of this name in PATH."""
    name = re.sub(r"@[a-z_]+$", "", entry)
    return name.endswith((".yaml", ".yml")) or Path(name).is_dir() or name in bundled_manifests()


def _executable(entry: str) -> Path | None:
    """The file that would be run: a path, or a program in PATH."""
    found = shutil.which(entry)
    return None if found is None else Path(os.path.abspath(found))  # not what a link leads to


def _in_the_place_of(like: str, entry: str) -> tuple[Manifest, str | None]:
    """The manifest `like` with this executable."""
    _refuse_running(like)
    path = _executable(entry)
    if path is None:
        raise UsageError(
            f"{entry!r} is no executable file, so it can't be started as {like}; "
            "allowed with --as: the path of an executable, or a program in PATH"
        )
    manifest, variant = choose_manifest(like)
    place = "{program}" if manifest.find.program is not None else "{python}"
    if not any(place in word for word in manifest.argv_of(variant)):
        raise ManifestError(
            f"--as {like}: the command in {manifest.source} has no {place}, so {entry} would not be started; "
            "allowed: a manifest whose command has it"
        )
    return manifest.with_executable(path), variant


def _of_command(entry: str) -> Manifest:
    """A manifest for a command that was typed: nothing is known of it, so everything is taken to be possible."""
    try:
        program, *words = shlex.split(entry)
    except ValueError as error:
        raise UsageError(f"{entry!r}: can't be split into words: {str(error).lower()}") from None
    if "{" in program:
        raise UsageError(f"{entry!r}: starts with {program}; allowed: a program in PATH or its path as the first word")
    data = {
        "schema": "tftpbench.server/1",
        "name": _name_of(program),
        "homepage": "unknown",
        "license": "unknown",
        "model": "unknown",
        "capabilities": {"operations": ["read", "write"], "options": list(OPTIONS)},
        "argv": ["{program}", *words],
        "find": {"program": str(_executable(program) or program)},
        "get": "install it, or begin the command with the path of the program",
    }
    return strict.parse(yaml.from_data(data, repr(entry), ManifestError), Manifest)


def _name_of(program: str) -> str:
    """The program's own name, as far as names of servers may look so."""
    name = re.sub(r"[^a-z0-9_-]+", "-", Path(program).name.lower()).strip("-_")
    return name[:_NAME_LENGTH_MAX] or "server"
