"""``tftpbench hosts``: load hosts by ssh, for people who have no Dask cluster.

It must never leave a process or a key behind that `down` does not find.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from tftpbench.cli import options
from tftpbench.cli.options import interrupt_on_end

INIT_EXAMPLES = ("tftpbench hosts init", "tftpbench hosts init --renew")
UP_EXAMPLES = (
    "tftpbench hosts up bench@10.0.0.2:/opt/venv/bin/python bench@10.0.0.3:/opt/venv/bin/python",
    "tftpbench hosts up bench@10.0.0.2:/opt/venv/bin/python --address 10.0.0.1 --worker-port 8789",
)
DOWN_EXAMPLES = ("tftpbench hosts down", "tftpbench hosts down --quiet")
PORT_MAX = 65535

app = typer.Typer(
    help="Have several machines make one load: start Dask there by ssh, and end it.", rich_markup_mode=None,
    add_completion=False, no_args_is_help=True, cls=options.Group,
    epilog=options.epilog((INIT_EXAMPLES[0], UP_EXAMPLES[0])),
)  # fmt: skip


def init(
    renew: Annotated[bool, typer.Option("--renew", help="Make others in the place of those that are there.")] = False,
) -> int:
    """Make the certificates of one set of load hosts, for you alone; they are good for a year."""
    from tftpbench.host.hosts import cluster
    from tftpbench.model.programs import typed

    keys = cluster.init(renew=renew)
    typer.echo(f"Written: {keys.ca}, {keys.cert} and {keys.key}. Who has the last runs programs on all of the hosts.")
    typer.echo(f"Next: {typed(['tftpbench', 'hosts', 'up'])} USER@HOST:/path/to/python ...")
    return 0


def up(
    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="USER@HOST:PYTHON",
            help="Where ssh lets you in without a question, and the path of a Python there that has this tftpbench.",
        ),
    ],
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="This machine's, as all hosts reach it; what they see unless given."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=PORT_MAX, metavar="PORT", help="TCP port of the scheduler here; 8786 unless given."),
    ] = None,
    worker_port: Annotated[
        int,
        typer.Option(
            min=0, max=PORT_MAX, metavar="PORT", help="TCP port of the worker on each host; 0 takes a free one."
        ),
    ] = 0,
    quiet: options.Quiet = False,
) -> int:
    """Start Dask's scheduler here and a worker on each host by ssh: all of them, or none.

    Prints the commands that it runs, so that they can be typed by hand. Exit code 3 means that a host
    can't be reached, or has another version of tftpbench.
    """
    from tftpbench.host.hosts import cluster
    from tftpbench.model.programs import typed
    from tftpbench.model.units import counted

    chosen = [cluster.SshHost.of(each) for each in hosts]
    interrupt_on_end()
    with _aborted():
        found = cluster.up(
            chosen, say=_say(quiet=quiet), address=address, worker_port=worker_port,
            port=cluster.PORT if port is None else port,
        )  # fmt: skip
    names = ", ".join(host.name for host in chosen)
    typer.echo(f"{counted(len(chosen), 'load host')}: {names}. Load from there: {_load(found)}")
    typer.echo(f"At the end: {typed(['tftpbench', 'hosts', 'down'])}")
    return 0


def down(quiet: options.Quiet = False) -> int:
    """End what `hosts up` has started, here and on all hosts, and remove the keys from them."""
    from tftpbench.host.hosts import cluster

    interrupt_on_end()
    with _aborted():
        ended = cluster.down(_say(quiet=quiet))
    typer.echo(f"Ended: the scheduler here, and the workers on {', '.join(ended)}." if ended else "Nothing was up.")
    return 0


@contextmanager
def _aborted() -> Iterator[None]:
    """Ctrl-C is said in one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Abort from None


def _say(*, quiet: bool) -> Callable[[str], object]:
    return (lambda _: None) if quiet else typer.echo


def _load(address: str) -> str:
    from tftpbench.model.programs import typed

    return f"{typed(['tftpbench', 'load'])} HOST:PORT --read NAME --allow-remote --dask {address}"


options.add(app, init, INIT_EXAMPLES)
options.add(app, up, UP_EXAMPLES)
options.add(app, down, DOWN_EXAMPLES)
