"""``tftpbench capacity``: what a server can bear, between two bounds."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tftpbench.cli import options, output
from tftpbench.cli.options import interrupt_on_end

if TYPE_CHECKING:
    from tftpbench.host.brake import Limits
    from tftpbench.measure import Tools
    from tftpbench.model.scenario import Scenario


class Find(StrEnum):
    """What is looked for."""

    rate = "rate"
    machines = "machines"
    spread = "spread"


Servers = Annotated[
    list[str] | None, typer.Argument(**options.SERVER, help="Servers to search, one after the other, each by itself.")
]
Target = Annotated[
    str | None, typer.Option("--target", metavar="HOST:PORT", help="Search a running server at this address.")
]
TargetFile = Annotated[
    str | None,
    typer.Option("--target-file", metavar="NAME", help="File that the target has: one read of it is what starts."),
]
Boot = Annotated[
    list[str] | None,
    typer.Option(
        "--boot", metavar="NAME", autocompletion=options.boot_names,
        help="What starts is a machine that boots as this profile says; may be repeated.",
    ),
]  # fmt: skip
FileSize = Annotated[
    list[str] | None,
    typer.Option("--file-size", metavar="SIZE", help="What starts is one read of a file so large; may be repeated."),
]
Looked = Annotated[
    Find,
    typer.Option(
        "--find",
        help="rate: starts a second that are kept up with. machines: how many may start at once. spread: within how "
        "long a time --machines of them must start.",
    ),
]
Machines = Annotated[
    int | None,
    typer.Option(min=2, max=50_000, metavar="N", help="Machines of --find spread; 1000 unless given."),
]
Deadline = Annotated[
    str, typer.Option(metavar="TIME", help="What has not ended so long after its intended start is lost.")
]
Precision = Annotated[
    str, typer.Option(metavar="N%", help="How far apart the bounds are at most, as a share of the upper one.")
]
Lost = Annotated[str, typer.Option(metavar="N%", help="The share that may be lost.")]
Budget = Annotated[str, typer.Option(metavar="TIME", help="How long each search may take, with all that follows it.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="As RFC 2544 has it: one trial of 60 s decides, and none may be lost.")
]


def capacity(
    server: Servers = None,
    target: Target = None,
    target_file: TargetFile = None,
    boot: Boot = None,
    file_size: FileSize = None,
    map_: options.Map = None,
    find: Looked = Find.rate,
    machines: Machines = None,
    deadline: Deadline = "30s",
    precision: Precision = "5%",
    lost: Lost = "0.1%",
    budget: Budget = "10min",
    strict: Strict = False,
    allow_remote: options.AllowRemote = False,
    max_rate: options.MaxRate = None,
    keep_going: options.KeepGoing = False,
    dask: options.Dask = None,
    dask_ca: options.DaskCa = None,
    dask_cert: options.DaskCert = None,
    dask_key: options.DaskKey = None,
    server_host: options.ServerHost = None,
    set_: options.Overrides = None,
    seed: options.Seed = None,
    out: options.ResultsFolder = options.RESULTS,
    resume: options.Resume = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find what servers can bear: two bounds, the load that is kept up with and the load that is not.

    Exit code 0 means that both were found, 6 that not (an irregular result), 3 that a target no longer answers.
    """
    from tftpbench.api import random_seed

    limits = options.limits(max_rate, keep_going=keep_going)
    set_ = [*(set_ or []), *options.on_server_host(server_host)]
    asked: dict[str, Any] = {"find": find.value, "precision": precision, "lost": lost, "budget": budget}
    asked |= {"strict": True} if strict else {}
    asked |= {"machines": machines} if machines is not None else {}
    if resume is not None:
        if server or target or boot or file_size or set_ or seed is not None:
            raise typer.BadParameter("--resume continues one run as it was begun: leave servers and what is asked out")
        scenario, seed = _recorded(resume)
    else:
        matrix = _matrix(server, target, target_file, boot, file_size, map_)
        scenario = _scenario(matrix, asked, deadline, (target, target_file), server or [], map_, set_ or [])
        seed = random_seed() if seed is None else seed
    given = {
        "--target": target, "--target-file": target_file, "--boot": boot, "--file-size": file_size, "--map": map_,
        "--find": find.value, "--machines": machines, "--deadline": deadline, "--precision": precision, "--lost": lost,
        "--budget": budget, "--strict": strict, "--allow-remote": allow_remote, "--max-rate": max_rate,
        "--keep-going": keep_going, "--set": set_, "--seed": seed, "--out": out if out != options.RESULTS else None,
    }  # fmt: skip
    interrupt_on_end()  # an orderly end for all: finished trials are saved
    cluster = (dask, dask_ca, dask_cert, dask_key)
    command = [*_command(server or [], given), *options.cluster_words(cluster)]
    with options.tools(cluster) as tools:
        return _searched(scenario, seed, out, resume, command, allow_remote, limits, tools, json_=json_, quiet=quiet)


EXAMPLES = (
    "tftpbench capacity dnsmasq --boot uefi-grub",
    "tftpbench capacity --target 192.0.2.1:69 --target-file pxelinux.0 --allow-remote --budget 5min",
)


def _command(servers: list[str], given: dict[str, Any]) -> list[str]:
    """What to type to do the same again: every option that says more than that it was left out."""
    words = ["tftpbench", "capacity", *servers]
    for name, value in given.items():
        if value is True:
            words.append(name)
        elif value is not None and value is not False:
            words += [word for each in (value if isinstance(value, list) else [value]) for word in (name, str(each))]
    return words


def _matrix(
    servers: list[str] | None,
    target: str | None,
    target_file: str | None,
    boots: list[str] | None,
    file_sizes: list[str] | None,
    map_: list[str] | None,
) -> dict[str, Any]:
    """What starts. Raises BadParameter."""
    mistakes = {
        "name servers, or a running one with --target HOST:PORT": not servers and target is None,
        "give servers, or --target, not both": bool(servers) and target is not None,
        "give only one of --boot and --file-size": bool(boots) and bool(file_sizes),
        "--target-file goes with --target": target is None and target_file is not None,
        "--map goes with --boot": not boots and bool(map_),
        "say what starts: --boot NAME or --file-size SIZE": target is None and not boots and not file_sizes,
        "--target needs what starts there: --target-file NAME or --boot NAME": (
            target is not None and not boots and target_file is None
        ),
        "--file-size is of servers that are started: of a target, --target-file NAME is read": (
            target is not None and bool(file_sizes)
        ),
        "--boot names its files itself: leave --target-file out": bool(boots) and target_file is not None,
    }
    for mistake, is_made in mistakes.items():
        if is_made:
            raise typer.BadParameter(mistake)
    if boots:
        return {"boot": boots}
    # Of a target's file the size is seen when it is copied.
    return {"operation": "read", "file_size": file_sizes or [0]}


def _scenario(
    matrix: dict[str, Any],
    asked: dict[str, Any],
    deadline: str,
    target: tuple[str | None, str | None],
    servers: list[str],
    map_: list[str] | None,
    overrides: list[str],
) -> "Scenario":
    from tftpbench.host.target import target_entries
    from tftpbench.model.scenario import Scenario
    from tftpbench.model.scenario_files import overridden

    is_boots = "boot" in matrix
    entries = [*servers, *target_entries(*target, False, boots=is_boots)]
    names = {"map": found} if (found := options.names(map_)) else {}
    question = "What can the server bear?" if len(entries) == 1 else "What can each server bear?"
    made = Scenario.from_dict(
        {
            "name": "capacity", "description": question, "servers": entries, "matrix": matrix, "deadline": deadline,
            "capacity": asked, **names,
        }
    )  # fmt: skip
    return overridden(made, overrides) if overrides else made


def _recorded(folder: Path) -> "tuple[Scenario, int]":
    from tftpbench.model.errors import UsageError
    from tftpbench.store import recording

    scenario, seed, _ = recording.recorded(folder)
    if not scenario.capacity:
        raise UsageError(f"{folder} is no search for a capacity; go on with: tftpbench run --resume {folder}")
    return scenario, seed


def _searched(
    scenario: "Scenario",
    seed: int,
    out: Path,
    resume: Path | None,
    command: list[str],
    allow_remote: bool,
    limits: "Limits",
    tools: "Tools | None",
    *,
    json_: bool,
    quiet: bool,
) -> int:
    from tftpbench import measure
    from tftpbench.model.errors import ServerNotReady
    from tftpbench.render import progress
    from tftpbench.store import recording

    try:
        with progress.display(sys.stderr, quiet=quiet) as shown:
            report = recording.run(
                scenario, seed=seed, out=out, resume=resume, command=command, on_event=shown,
                allow_remote=allow_remote, limits=limits, tools=tools,
            )  # fmt: skip
    except measure.RunInterrupted as interrupted:
        if not output.capacities(interrupted.report, json_=json_, quiet=quiet):
            raise
        typer.echo(f"Go on with: {output.resuming(interrupted.report)}", err=True)
        return 130
    except ServerNotReady as error:
        typer.echo(f"tftpbench: error: {error}", err=True)
        return 3
    return output.capacities(report, json_=json_, quiet=quiet) or 0
