"""The command line: one file a command, each parses, calls the layers below, prints, and chooses the exit code.

No logic lives here, and nothing heavy is imported before a command needs it: `tftpbench --help` answers at once. Every
error is one line on standard error, without a traceback unless it is a fault of ours.
"""

import os
import sys

import typer

from tftpbench.cli import load, run, schema, serve, servers
from tftpbench.errors import TftpbenchError

app = typer.Typer(
    name="tftpbench",
    help="Benchmark and load-test TFTP servers: real transfers, every byte checked.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command(name="run")(run.run)
app.command(name="serve")(serve.serve)
app.command(name="load")(load.load)
app.command(name="servers")(servers.servers)
app.command(name="schema")(schema.schema)

# What is wrong with a command line. Newer versions of typer carry their own copy of click, older ones use the
# installed one; the base of typer's own BadParameter is the right class either way.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"tftpbench {metadata.version('tftpbench')}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (docs/exit-codes in README)."""
    sys.exit(exit_code(sys.argv[1:] if arguments is None else arguments))


def exit_code(arguments: list[str]) -> int:
    """Run one command; returns its exit code, with every error told in one line."""
    try:
        code = app(arguments, prog_name="tftpbench", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except TftpbenchError as error:
        return _fail(str(error), error.exit_code)
    except _CommandLineError as error:
        message = str(error.format_message() if hasattr(error, "format_message") else error)
        return _fail(message or "no command given; see tftpbench --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader, as in `tftpbench servers | head`, has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(message: str, code: int) -> int:
    typer.echo(f"tftpbench: error: {' '.join(message.split())}", err=True)
    return code
