"""``tftpbench gate ab``: two servers, measured now, side by side in pairs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tftpbench.cli import options
from tftpbench.cli.gate.options import FailOn, FailOnOption, GateFolder, ReportOnly, Scenario, command, keep, tell
from tftpbench.cli.signals import interrupt_on_end

_SERVER = "name, name@variant or path of a manifest; an executable, with --as; or a command with {port} and {root}"


EXAMPLES = (
    "tftpbench gate ab --base old/server.yaml --head new/server.yaml",
    "tftpbench gate ab --base epoll --head threads --set gate.budgets.data_pps=10%",
)

Base = Annotated[str, typer.Option("--base", **options.SERVER, help=f"Server to compare with: {_SERVER}.")]
Head = Annotated[str, typer.Option("--head", **options.SERVER, help="Server to judge, named as for --base.")]
Like = Annotated[
    str | None, typer.Option("--as", **options.SERVER, help="Manifest that says how to start the executables.")
]


def ab(
    base: Base,
    head: Head,
    scenario: Scenario = "gate",
    like: Like = None,
    set_: options.Overrides = None,
    seed: options.Seed = None,
    out: GateFolder = options.RESULTS,
    fail_on: FailOnOption = FailOn.regressed,
    report_only: ReportOnly = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure two servers in interleaved pairs and say whether the head is slower than the base."""
    from tftpbench import gate
    from tftpbench.api import random_seed
    from tftpbench.cli.gate.watch import watch
    from tftpbench.model.scenario_files import load_scenario

    asked = load_scenario(scenario, set_ or [])
    old, new = gate.both_sides(base, head, like, in_network=asked.in_network)
    seed = random_seed() if seed is None else seed
    interrupt_on_end()  # an orderly end for all: finished pairs are kept
    result = gate.ab(
        old,
        new,
        asked,
        seed=seed,
        out=out,
        entries=(base, head),
        command=command(
            "ab",
            None if scenario == "gate" else scenario,
            base=base,
            head=head,
            as_=like,
            set_=set_ or [],
            seed=seed,
            out=None if out == options.RESULTS else out,
            fail_on=fail_on,
        ),
        on_event=watch(sys.stderr, quiet=quiet),
    )
    tell(result, json_=json_, quiet=quiet)
    keep(result, Path(result.folder or out), fail_on)
    return 0 if report_only else result.exit_code(fail_on.value)
