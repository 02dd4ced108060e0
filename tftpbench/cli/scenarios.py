"""``tftpbench scenarios``: the bundled scenarios, what each asks, and how long it takes here.

It must never start a server.
"""

import typer

from tftpbench.cli import options, output
from tftpbench.render.terminal import print_table

EXAMPLES = ("tftpbench scenarios", "tftpbench scenarios --json")
_FIGURE: dict[str, object] = {"justify": "right", "no_wrap": True}
_COLUMNS: dict[str, dict[str, object]] = {
    "scenario": {"no_wrap": True},
    "question": {"overflow": "fold"},
    "cells": _FIGURE,
    "servers": _FIGURE,
    "trials": _FIGURE,
    "time": {"no_wrap": True},
}


def scenarios(json_: options.Json = False) -> int:
    """List the bundled scenarios: what each asks, and how long it takes with the servers that are here."""
    from tftpbench.model.programs import typed
    from tftpbench.model.scenario_files import bundled_scenarios

    described = [_described(name) for name in bundled_scenarios()]
    if json_:
        output.print_json([{"scenarios": described}])
        return 0
    print_table(_COLUMNS, map(_row, described))
    if any(len(each["servers_here"]) < len(each["servers"]) for each in described):  # type: ignore[arg-type]
        typer.echo(f"Not all servers are here; how to get the others: {typed(['tftpbench', 'servers'])}")
    return 0


def _described(name: str) -> dict[str, object]:
    from tftpbench import measure
    from tftpbench.measure.plan import estimate_s, plan
    from tftpbench.model.scenario_files import load_scenario

    scenario = load_scenario(name)
    planned = plan(scenario, measure.contenders(scenario, ask_version=False), seed=0)
    return {
        "name": name,
        "question": scenario.description,
        "cells": len(scenario.cells()),
        "servers": list(scenario.servers),
        "servers_here": sorted({trial.contender.name for trial in planned.trials}),
        "trials": len(planned.trials),
        "estimated_s": round(estimate_s(planned.trials), 1),
    }


def _row(described: dict[str, object]) -> list[str]:
    from tftpbench.model.units import about

    here, named = described["servers_here"], described["servers"]
    assert isinstance(here, list)
    assert isinstance(named, list)
    servers = str(len(named)) if len(here) == len(named) else f"{len(here)} of {len(named)}"
    time = about(float(str(described["estimated_s"]))) if described["trials"] else "-"
    return [
        str(described["name"]), str(described["question"]), str(described["cells"]), servers,
        str(described["trials"]), time,
    ]  # fmt: skip
