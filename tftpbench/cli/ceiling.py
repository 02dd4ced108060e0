"""``tftpbench ceiling``: raw loopback UDP throughput of this machine for the same datagrams as TFTP's."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.render.terminal import console, print_table

if TYPE_CHECKING:
    from tftpbench.host.ceiling import CeilingCell, Limit
    from tftpbench.measure import Pinning


def ceiling(
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=1, max=options.TRIALS_MAX, metavar="N", help="Trials of each cell; 7 unless given."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure each cell once, and for a short time.")] = False,
    seed: options.Seed = None,
    json_: options.Json = False,
) -> int:
    """Measure raw loopback UDP throughput: the ceiling of any server."""
    import secrets

    from tftpbench.host.ceiling import QUICK, Effort, limits, usual_cells
    from tftpbench.measure import pin
    from tftpbench.model.workload import Client, Placement

    pinning = pin(Placement())
    seed = secrets.randbits(32) if seed is None else seed
    trials = trials or (1 if quick else 7)
    busy_poll_us = Client().busy_poll_us(own_cores=pinning.separate)
    cells = usual_cells(pinning.server, pinning.generator, busy_poll_us, may_spin=pinning.separate)
    effort = QUICK if quick else Effort()
    try:
        with _steps() as on_step:
            found = limits(cells, trials=trials, seed=seed, effort=effort, on_step=on_step)
    except KeyboardInterrupt:
        raise typer.Abort from None
    if json_:
        output.print_json([_document(found, pinning, seed)])
    else:
        _print(found, pinning, trials)
    return 0


_FIGURE: dict[str, object] = {"justify": "right", "no_wrap": True}
_RANGE = "lowest to highest"
_COLUMNS: dict[str, dict[str, object]] = {
    "cell": {},
    "DATA/s": _FIGURE,
    _RANGE: _FIGURE,
    "arrangement": {"overflow": "fold"},
}
# Raw exchanges on loopback move tens of thousands a second on the slowest core: with less than this most of the window
# was spent on something else.
STALLED_PPS = 1000
EXAMPLES = ("tftpbench ceiling", "tftpbench ceiling --quick --json")


@contextmanager
def _steps() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, drawn between measurements only; nothing elsewhere, for it is over in a minute."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("exchanges without TFTP")
    # auto_refresh would redraw from a thread, inside measured windows
    with Progress(*columns, console=console(sys.stderr), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            bar.refresh()

        yield draw


def _print(found: tuple["Limit", ...], pinning: "Pinning", trials: int) -> None:
    typer.echo(
        f"Raw loopback UDP throughput, without TFTP and files, {pinning.phrase}: DATA-sized datagrams per second, "
        f"{'one trial' if trials == 1 else f'median of {trials} trials'}."
    )
    # Of one trial the range is the figure once more.
    columns = {name: each for name, each in _COLUMNS.items() if trials > 1 or name != _RANGE}
    rows = [_row(each) for each in found]
    print_table(columns, [[row[name] for name in columns] for row in rows])
    if any(row["DATA/s"].endswith("*") for row in rows):
        typer.echo("* stalled, and no ceiling: the machine did something else. Stop other programs and repeat.")
    typer.echo(
        "With a windowsize these are more than a network card can do: on loopback a window is not cut into packets."
    )


def _row(each: "Limit") -> dict[str, str]:
    from tftpbench.model.units import counted, format_count

    restarted = f"; {counted(each.restarts, 'flow')} fell silent" if each.restarts else ""
    lowest, highest = format_count(each.lowest), format_count(each.highest)
    stalled = "*" if each.data_pps < STALLED_PPS else ""
    texts = _label(each.cell), f"{format_count(each.data_pps)}{stalled}", f"{lowest} to {highest}"
    return dict(zip(_COLUMNS, (*texts, f"{each.arrangement}{restarted}"), strict=True))


def _label(cell: "CeilingCell") -> str:
    parts = [cell.operation, f"{cell.flows} at once"]
    parts += [f"blksize {cell.blksize}"] if cell.blksize != 512 else []
    parts += [f"windowsize {cell.windowsize}"] if cell.windowsize != 1 else []
    return ", ".join([*parts, "never asleep"] if cell.answering_spin_us else parts)


def _document(found: tuple["Limit", ...], pinning: "Pinning", seed: int) -> dict[str, object]:
    return {
        "schema": "tftpbench.ceiling/1",
        "seed": seed,
        "placement": pinning.phrase,
        "server_cpus": ",".join(map(str, pinning.server)),
        "generator_cpus": ",".join(map(str, pinning.generator)),
        "ceilings": [
            {
                "operation": each.cell.operation,
                "concurrency": each.cell.flows,
                "blksize": each.cell.blksize,
                "windowsize": each.cell.windowsize,
                "server_busy_polls": each.cell.answering_spin_us > 0,
                "busy_poll_us": each.cell.asking_spin_us,
                "ceiling_data_pps": each.data_pps,
                "lowest": each.lowest,
                "highest": each.highest,
                "trials": [trial.data_pps for trial in each.trials],
                "restarts": each.restarts,
                "arrangement": each.arrangement.recorded,
                "arrangement_text": str(each.arrangement),
            }
            for each in found
        ],
    }
