"""``tftpbench serve``: a bundled server in the foreground.

The options are the server's own (`tftpbench.serve`): every word is handed on as it was typed.
"""

from typing import Annotated

import typer

from tftpbench.model.arguments import PORT

SERVERS = ("epoll", "threads")

# Options, --help among them, are no business of this file.
HANDED_ON = {"ignore_unknown_options": True, "help_option_names": []}


def _names(incomplete: str) -> list[str]:
    return [name for name in SERVERS if name.startswith(incomplete)]


def serve(words: Annotated[list[str] | None, typer.Argument(hidden=True, autocompletion=_names)] = None) -> int:
    """Serve a folder with a bundled server, epoll or threads."""
    from tftpbench.model.errors import UsageError, suggest
    from tftpbench.model.programs import typed
    from tftpbench.serve import Refused, command

    try:
        counters = command(words or [], "tftpbench serve", PORT, typed(["tftpbench", "serve"]))
    except Refused as error:
        raise UsageError(f"{error.text}{suggest(error.word, error.known, error.otherwise)}") from error
    except SystemExit:  # its help has been printed
        return 0
    if said := ", ".join(f"{counter} {value}" for counter, value in counters.items() if value):
        typer.echo(said, err=True)
    return 0
