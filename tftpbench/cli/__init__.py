"""The command line: one file a command, each parses, calls the layers below, prints, and chooses the exit code.

No logic lives here, and nothing heavy is imported before a command needs it: `tftpbench --help` answers at once. Every
error is one line on standard error, without a traceback unless it is a fault of ours. Everything is printed through
`tftpbench.render.terminal`, which lets no control character of others through.
"""

import os
import sys

import typer

from tftpbench.cli import (
    boots,
    capacity,
    ceiling,
    compare,
    doctor,
    gate,
    hosts,
    load,
    options,
    report,
    run,
    scenarios,
    schema,
    serve,
    servers,
)
from tftpbench.model.errors import TftpbenchError, UsageError
from tftpbench.model.escape import one_line
from tftpbench.render.terminal import forget, open_standard_streams, printing

# What a shell sets to ask how a word goes on.
COMPLETES = "_TFTPBENCH_COMPLETE"
# What people come for, a command each; without a command they are the answer.
FIRST_STEPS = {
    "A first answer in 5 s": ("tftpbench", "run", "smoke"),
    "How many transfers does your running server serve at once?": (
        "tftpbench", "run", "how-many", "--target", "HOST:PORT", "--target-file", "NAME",
    ),
    "Is your server slower than before?": ("tftpbench", "gate", "ab", "--base", "OLD", "--head", "NEW"),
}  # fmt: skip

app = typer.Typer(
    name="tftpbench",
    cls=options.Group,
    help="Benchmark and load-test TFTP servers: real transfers, every byte checked.",
    epilog=options.epilog(("tftpbench run smoke", "tftpbench servers")),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
options.add(app, run.run, run.EXAMPLES)
options.add(app, serve.serve, context_settings=serve.HANDED_ON)
options.add(app, load.load, load.EXAMPLES)
options.add(app, capacity.capacity, capacity.EXAMPLES)
options.add(app, scenarios.scenarios, scenarios.EXAMPLES)
options.add(app, servers.servers, servers.EXAMPLES)
options.add(app, ceiling.ceiling, ceiling.EXAMPLES)
options.add(app, doctor.doctor, doctor.EXAMPLES)
options.add(app, report.report, report.EXAMPLES)
options.add(app, compare.compare, compare.EXAMPLES)
options.add(app, schema.schema, schema.EXAMPLES)
app.add_typer(boots.app, name="boots")
app.add_typer(gate.app, name="gate")
app.add_typer(hosts.app, name="hosts")


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from tftpbench import __version__

        typer.echo(f"tftpbench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        _first_steps()
        raise typer.Exit(2)


def _first_steps() -> None:
    from tftpbench.model.programs import typed

    typer.echo("tftpbench measures TFTP servers. Three things to do:\n", err=True)
    for question, words in FIRST_STEPS.items():
        typer.echo(f"  {question}\n    {typed(words)}\n", err=True)
    typer.echo(f"All commands: {typed(['tftpbench', '--help'])}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (README, "Results")."""
    open_standard_streams()
    sys.exit(exit_code(sys.argv[1:] if arguments is None else arguments))


def exit_code(arguments: list[str]) -> int:
    """Run one command; returns its exit code, with every error in one line."""
    with printing() as (out, err):
        code = _run(arguments)
        out.flush()
        if out.failure is not None:
            forget(out)  # or Python complains once more at exit
            # Read enough, as by `tftpbench servers | head`, is no fault, and the verdict stays.
            if not isinstance(out.failure, BrokenPipeError):
                code = _fail(f"standard output can't be written: {out.failure.strerror}", code or 2)
        if err.failure is not None:
            forget(err)
        return code


def _run(arguments: list[str]) -> int:
    try:
        code = _called(arguments)
    except TftpbenchError as error:
        return _fail(str(error), error.exit_code, *str(error).splitlines())
    except options.CommandLineError as error:
        return _refuse(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except MemoryError:
        return _fail("out of memory; less at once may fit", 1)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}", 2)  # what was named can't be had
    return code if isinstance(code, int) else 0


def _called(arguments: list[str]) -> object:
    try:
        return app(arguments, prog_name="tftpbench", standalone_mode=False)
    except (LookupError, ValueError):
        if COMPLETES not in os.environ:
            raise
        words = "is for a shell, which sets COMP_WORDS and a number as COMP_CWORD; unset it"
        raise UsageError(f"{COMPLETES} {words}") from None


def _refuse(error: Exception, arguments: list[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help of a group of commands
        typer.echo(error, err=True)
        return 2
    return _fail(options.mistake(error, arguments), 2)


def _fail(message: str, code: int, *lines: str) -> int:
    """Print the message in one line, or, where a file has several mistakes, each of its `lines`."""
    for line in lines or (one_line(message),):
        typer.echo(f"tftpbench: error: {line}", err=True)
    return code
