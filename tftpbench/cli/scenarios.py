"""``tftpbench scenarios``: the bundled scenarios, what each asks, and how long it takes here.

It must never start a server.
"""

import typer

from tftpbench.cli import options, output
from tftpbench.render.terminal import print_table

EXAMPLES = ("tftpbench scenarios", "tftpbench scenarios --json")
# What is run first; the others follow in the order of their names.
_FIRST = ("smoke", "how-many", "concurrency")
# So few columns that a question has room at 80; the rest is in the document for programs.
_COLUMNS: dict[str, dict[str, object]] = {
    "scenario": {"no_wrap": True},
    "question": {"overflow": "fold"},
    "cells": {"justify": "right", "no_wrap": True},
    "takes": {"no_wrap": True},
}


def scenarios(json_: options.Json = False) -> int:
    """List the bundled scenarios: what each asks, and how long it takes with the servers that are here."""
    from tftpbench.model.programs import typed
    from tftpbench.model.scenario_files import bundled_scenarios

    known = bundled_scenarios()
    described = [_described(name) for name in dict.fromkeys([*filter(known.__contains__, _FIRST), *known])]
    if json_:
        output.print_json([{"scenarios": described}])
        return 0
    print_table(_COLUMNS, map(_row, described))
    typer.echo(f"Times: with the servers that are here. Others: {typed(['tftpbench', 'servers'])}")
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

    takes = about(float(str(described["estimated_s"]))) if described["trials"] else "nothing to run"
    return [str(described["name"]), str(described["question"]), str(described["cells"]), takes]
