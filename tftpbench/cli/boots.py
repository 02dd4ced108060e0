"""``tftpbench boots``: the boots of real clients that come with tftpbench, and all that one of them does.

It must never send a datagram.
"""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.model.escape import visible_line
from tftpbench.render.terminal import print_table

if TYPE_CHECKING:
    from tftpbench.model.boot import Boot, Step

EXAMPLES = ("tftpbench boots show uefi-grub", "tftpbench boots show ./mine.yaml --json")
_RIGHT: dict[str, object] = {"justify": "right", "no_wrap": True}
_COLUMNS: dict[str, dict[str, object]] = {
    "boot": {"no_wrap": True}, "requests": _RIGHT, "files": _RIGHT, "misses": _RIGHT, "bytes": _RIGHT,
    "blocks": _RIGHT,
}  # fmt: skip
_STEP_COLUMNS: dict[str, dict[str, object]] = {
    "": _RIGHT, "request": {"overflow": "fold"}, "client": {"no_wrap": True}, "ends": {"no_wrap": True},
    "size": _RIGHT, "source": {"no_wrap": True},
}  # fmt: skip
_NACKS = {
    "gap": "one ACK for each gap",
    "block": "an ACK for each such block",
    "none": "nothing",
}
_THEN = {
    "give_up": "then it gives up",
    "restart_transfer": "then it starts the transfer again, at most {} times",
    "restart_boot": "then it starts the whole boot again, at most {} times",
}

app = typer.Typer(
    help="List the boots of real clients, or show one.", rich_markup_mode=None, add_completion=False,
    cls=options.Group, epilog=options.epilog(("tftpbench boots", EXAMPLES[0])),
)  # fmt: skip


@app.callback(invoke_without_command=True)
def boots(context: typer.Context, json_: options.Json = False) -> int:
    """List the boots of real clients that come with tftpbench: what one machine asks for."""
    if context.invoked_subcommand is not None:
        return 0
    from tftpbench.model.boot import bundled_boots, load_boot
    from tftpbench.model.programs import typed

    known = [load_boot(path) for path in bundled_boots().values()]
    if json_:
        output.print_json([{"boots": [_described(boot) for boot in known]}])
        return 0
    print_table(_COLUMNS, map(_row, known))
    typer.echo("Of one machine; sizes are typical. *: less certain, partly assumed.")
    typer.echo(f"All about one: {typed(['tftpbench', 'boots', 'show'])} BOOT")
    return 0


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="BOOT", autocompletion=options.boot_names, help="Name of a bundled boot, or the path of a file."
        ),
    ],
    json_: options.Json = False,
) -> int:
    """Show one boot: its requests in order, options as on the wire, timers, habits, sizes, and where each is from."""
    from tftpbench.model.boot import load_boot

    boot = load_boot(name)
    if json_:
        output.print_json([{**_described(boot), "names": dict(boot.names), "steps": _steps(boot)}])
        return 0
    facts = _described(boot)
    _say(f"{boot.name} ({boot.certainty}): {visible_line(boot.description)}")
    print_table(_STEP_COLUMNS, map(_step_row, range(1, len(boot.steps) + 1), boot.steps, _names(boot)))
    _print_clients(boot)
    if boot.names:
        named = ", ".join(f"{key}={visible_line(value)}" for key, value in boot.names.items())
        _say(f"Names that --map can change: {named}")
    _say(_totals(boot, facts))
    for key, text in boot.sources.items():
        _say(f"  {key}: {visible_line(text)}")
    return 0


options.add(app, show, EXAMPLES)


def _say(text: str) -> None:
    """The text in lines of a terminal's usual width."""
    typer.echo(textwrap.fill(text, 80, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


def _described(boot: "Boot") -> dict[str, object]:
    from tftpbench.model.boot import boot_facts, shares

    facts = boot_facts(shares([(boot, 1)]))
    return {
        "name": boot.name,
        "description": boot.description,
        "certainty": boot.certainty,
        "clients": list(dict.fromkeys(boot.step_clients)),
        **{key: int(figure) for key, figure in facts._asdict().items()},
        "sources": dict(boot.sources),
    }


def _row(boot: "Boot") -> list[str]:
    from tftpbench.model.units import format_bytes, format_count

    facts = _described(boot)
    mark = "" if boot.certainty == "documented" else "*"
    figures = [str(facts[key]) for key in ("requests", "files", "misses")]
    size, blocks = format_bytes(int(str(facts["bytes"]))), format_count(int(str(facts["blocks"])))
    return [f"{boot.name}{mark}", *figures, size, blocks]


def _names(boot: "Boot") -> list[tuple[str, str]]:
    return list(zip(boot.step_clients, boot.step_sources, strict=True))


def _steps(boot: "Boot") -> list[dict[str, object]]:
    from dataclasses import asdict

    found = []
    for number, (step, (client, source)) in enumerate(zip(boot.steps, _names(boot), strict=True), start=1):
        own = {key: value for key, value in asdict(step).items() if key != "contents"}
        found.append({"step": number, "client": client, "source": source, **own, "blocks": step.blocks})
    return found


def _step_row(number: int, step: "Step", names: tuple[str, str]) -> list[str]:
    from tftpbench.model.units import format_bytes, format_duration

    client, source = names
    asked = f"{'put ' if step.operation == 'write' else ''}{visible_line(step.name)}"
    if step.think_ns:
        asked += f" (after {format_duration(step.think_ns)})"
    size = "" if step.size_bytes is None else format_bytes(step.size_bytes)
    return [str(number), asked, client, _end(step), size, source]


def _end(step: "Step") -> str:
    if step.ends == "whole":
        return "whole"
    if step.ends == "missing":
        return "not found"
    return "after OACK" if step.stop_after == 0 else f"after DATA {step.stop_after}"


def _print_clients(boot: "Boot") -> None:
    """The options, timers and habits of each client, once; steps of one client differ in nothing else."""
    for client in dict.fromkeys(boot.step_clients):
        own = [step for step, name in zip(boot.steps, boot.step_clients, strict=True) if name == client]
        probes = [step for step in own if step.ends == "stop"]
        others = [step for step in own if step.ends != "stop"]
        _say(f"{client}:")
        if others:
            _say(f"  options: {_options(others[0])}")
        if probes:
            end = f"ended by ERROR {probes[0].stop_code} {visible_line(probes[0].stop_text)!r}"
            _say(f"  to ask, but not to read: {_options(probes[0])}; {end}")
        step = own[0]
        _say(f"  to open: {_waits(step.waits_ns)}; {_THEN[step.then].format(step.restarts_max)}")
        silent = len(step.reading_waits_ns) == 1
        same = step.reading_waits_ns == step.waits_ns
        reading = "the same" if same else _waits(step.reading_waits_ns)
        _say(f"  later: {reading}{'; it never sends again' if silent else ''}")
        _say(f"  DATA out of order: {_NACKS[step.nack]}")


def _options(step: "Step") -> str:
    return visible_line(", ".join(f"{name} {value}" for name, value in step.options)) or "none"


def _waits(waits_ns: tuple[int, ...]) -> str:
    """Waits in a few words: 6 x 4 s (24 s in all)."""
    from tftpbench.model.units import format_duration

    least, most, whole = (format_duration(each) for each in (min(waits_ns), max(waits_ns), sum(waits_ns)))
    if len(waits_ns) == 1:
        return f"1 x {least}"
    return f"{len(waits_ns)} x {least if least == most else f'{least} to {most}'} ({whole} in all)"


def _totals(boot: "Boot", facts: dict[str, object]) -> str:
    from tftpbench.model.units import counted, format_bytes

    requests, files, misses = (int(str(facts[key])) for key in ("requests", "files", "misses"))
    thinks = "" if any(step.think_ns for step in boot.steps) else " The client's own time is not known, and taken as 0."
    return (
        f"In all: {counted(requests, 'request')}: {counted(files, 'file')}, "
        f"{misses} not found, {requests - files - misses} ended early; "
        f"{format_bytes(int(str(facts['bytes'])))} in {counted(int(str(facts['blocks'])), 'block')}. "
        f"Sizes are typical.{thinks}"
    )
