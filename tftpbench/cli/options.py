"""What the commands have in common: options as types, the layout of help, the words for mistakes, what ends them.

It must never import what is heavy: the help of every command waits for it.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tftpbench.model.arguments import SEED_MAX
from tftpbench.model.errors import suggest
from tftpbench.model.programs import PROGRAM, typed

if TYPE_CHECKING:
    from tftpbench.host.brake import Limits
    from tftpbench.host.generator import HostsLoad
    from tftpbench.measure import Tools

RESULTS = Path("results")
TRIALS_MAX = 1000  # as in a scenario
_BUNDLED = Path(__file__).parent.parent / "_bundled"


def checked_seed(seed: int | None) -> int | None:
    """The seed; BadParameter where the native core has no such number."""
    if seed is not None and not 0 <= seed <= SEED_MAX:
        raise typer.BadParameter(f"is {seed}; allowed: 0 to 2^64 - 1")
    return seed


def scenario_names(incomplete: str) -> list[str]:
    """Bundled scenarios, for a shell that completes words."""
    return sorted(path.stem for path in _BUNDLED.glob(f"scenarios/{_literal(incomplete)}*.yaml"))


def boot_names(incomplete: str) -> list[str]:
    """Bundled boots, for a shell that completes words."""
    return sorted(path.stem for path in _BUNDLED.glob(f"boots/{_literal(incomplete)}*.yaml"))


def server_names(incomplete: str) -> list[str]:
    """Bundled servers, and after an @ the variants of one, for a shell that completes words."""
    name, at, _ = incomplete.partition("@")
    names = sorted(path.parent.name for path in _BUNDLED.glob(f"servers/{_literal(name)}*/server.yaml"))
    if at and name in names:
        from tftpbench.model.manifest import load_manifest

        names = [f"{name}@{each}" for each in load_manifest(_BUNDLED / "servers" / name / "server.yaml").variants]
    return [each for each in names if each.startswith(incomplete)]


def scenario_keys(incomplete: str) -> list[str]:
    """Keys that --set takes, with the = after them, for a shell that completes words."""
    from tftpbench.model.scenario_files import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def scenario_argument() -> Any:
    """SCENARIO as every command has it."""
    return typer.Argument(
        metavar="SCENARIO", help="Path of a scenario, or the name of a bundled one.", autocompletion=scenario_names
    )


# How every option and argument that means a server is written, and completed.
SERVER: dict[str, Any] = {"metavar": "SERVER", "autocompletion": server_names}
ScenarioNames = Annotated[list[str] | None, scenario_argument()]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a stored run.")]
Servers = Annotated[
    list[str] | None,
    typer.Option(
        "-s", "--server", **SERVER,
        help="Measure this server in place of the scenario's; may be repeated.",
    ),
]  # fmt: skip
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", autocompletion=scenario_keys,
        help="Change a key of the scenario, as in --set matrix.concurrency=[1,10]; may be repeated.",
    ),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option(  # its range is checked without `max`, which help would write in twenty digits
        "--seed", metavar="N", callback=checked_seed,
        help="Number that fixes the order of trials and the contents of files; random unless given.",
    ),
]  # fmt: skip
ResultsFolder = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to make the run's own folder in.")
]
Resume = Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Allow a server on another machine; else loopback only.")
]
MaxRate = Annotated[
    str | None,
    typer.Option("--max-rate", metavar="RATE", help="Start nothing while more is moved, as in 500Mbit/s or 60MiB/s."),
]
KeepGoing = Annotated[
    bool,
    typer.Option("--keep-going", help="Go on although most of what another machine was asked for has failed."),
]
Dask = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="ADDRESS",
        help="Make the load on the hosts of a Dask cluster: its scheduler's address, as in tls://10.0.0.1:8786.",
    ),
]  # fmt: skip
DaskCa = Annotated[
    Path | None,
    typer.Option("--dask-ca", metavar="FILE", help="Certificate of its authority; that of hosts init unless given."),
]
DaskCert = Annotated[
    Path | None,
    typer.Option("--dask-cert", metavar="FILE", help="Certificate for it; that of hosts init unless given."),
]
DaskKey = Annotated[
    Path | None, typer.Option("--dask-key", metavar="FILE", help="Key to that; that of hosts init unless given.")
]
ServerHost = Annotated[
    str | None,
    typer.Option(
        "--server-host", metavar="NAME",
        help="With --dask: start servers on this host of the cluster, and load them from the others.",
    ),
]  # fmt: skip
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="NAME=FILE", help="What the server calls a file of the boot; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the answer only, no progress.")]


def described(each: Any, ctx: Any) -> tuple[str, str] | None:
    """Name and help of an option or argument in the form that all commands share; None where it is hidden.

    Versions of typer write choices as <a|b>, [a|b] or a|b, and ranges as 1<=x<=9: here they are a|b and "1 to 9".
    """
    record = each.get_help_record(ctx)
    if record is None:
        return None
    is_argument = each.param_type_name == "argument"
    name = each.metavar if is_argument and each.metavar else record[0]
    name = re.sub(r"[<\[{]([^|<>\[\]]+(?:\|[^|<>\[\]]+)+)[>\]}]", r"\1", name)
    text = re.sub(r"\b(\d+)<=x<=(\d+)", r"\1 to \2", record[1])
    return name, re.sub(r"\bx>=(\d+)", r"\1 or more", text)


class Command(TyperCommand):
    """A command whose help is laid out as a manual page: names without types, examples as they are typed."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name, without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options."""
        shown: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            if record := described(each, ctx):
                shown["Arguments" if each.param_type_name == "argument" else "Options"].append(record)
        for heading, records in shown.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own signature
        """The examples, a line each."""
        _write_examples(self, formatter)


class Group(TyperGroup):
    """Commands under one name: their help says each in a whole sentence, and ends with examples, too."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own signature
        """Names, and the first sentence of each help."""
        whole_sentence = 1000  # characters: more than any has
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.commands[name].get_short_help_str(whole_sentence)) for name in self.commands]
            )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own signature
        """The examples, a line each."""
        _write_examples(self, formatter)


def _write_examples(command: Any, formatter: Any) -> None:
    if command.epilog:
        formatter.write("".join(f"{line}\n" for line in ("", "Examples:", *command.epilog.splitlines())))


def epilog(examples: Sequence[str]) -> str:
    """Examples as the end of a help."""
    return "\n".join(f"  {example}" for example in examples)


def add(app: typer.Typer, command: Callable[..., int], examples: Sequence[str] = (), **settings: Any) -> None:
    """Make a function a command of the program, by its own name."""
    app.command(name=command.__name__, cls=Command, epilog=epilog(examples), **settings)(command)


# A year; and the largest file of a scenario. Sums of some stay within 64 bits.
DURATION_MAX = "8760h"
SIZE_MAX = "1TiB"


def duration_ns(option: str, text: str) -> int:
    """The nanoseconds of "1.5s" and the like; raises BadParameter, naming the option."""
    from tftpbench.model.units import parse_duration_ns

    return _quantity(option, text, parse_duration_ns, DURATION_MAX)


def rate_per_s(option: str, text: str) -> float:
    """The rate of "50/s" and the like; raises BadParameter, naming the option, where no open loop may have it."""
    from tftpbench.model.units import parse_rate_per_s
    from tftpbench.model.values import RATE_MAX, RATE_MIN

    try:
        if RATE_MIN <= (found := parse_rate_per_s(text)) <= RATE_MAX:
            return found
    except ValueError:
        pass
    raise typer.BadParameter(f"{option} is {text!r}; allowed: {RATE_MIN}/s to {RATE_MAX}/s, as in 50/s, 3/min or 100/h")


def names(texts: Sequence[str] | None) -> dict[str, str]:
    """The names of --map, as in {"loader": "pxelinux.0"}; raises BadParameter."""
    found = {}
    for text in texts or ():
        name, is_given, file = text.partition("=")
        if not (is_given and name and file):
            raise typer.BadParameter(f"--map is {text!r}; allowed: NAME=FILE, as in --map loader=pxelinux.0")
        found[name] = file
    return found


def limits(max_rate: str | None, *, keep_going: bool) -> "Limits":
    """What bounds a load. Raises BadParameter."""
    from tftpbench.host.brake import Limits

    try:
        return Limits.of(max_rate, keep_going=keep_going)
    except ValueError as error:
        raise typer.BadParameter(f"--max-rate {error}") from None


Cluster = tuple[str | None, Path | None, Path | None, Path | None]
"""--dask, --dask-ca, --dask-cert and --dask-key."""


@contextmanager
def load_hosts(cluster: Cluster) -> "Iterator[HostsLoad | None]":
    """What makes a load on all hosts of the cluster; None where none is given.

    Raises BadParameter, UsageError for an address or files that can't be used, HostsError where it can't be reached.
    """
    address, *files = _checked(cluster)
    if address is None:
        yield None
        return
    from tftpbench.host.hosts import dask

    with dask.load_hosts(address, *files) as generator:
        yield generator


def _checked(cluster: Cluster) -> Cluster:
    if cluster[0] is None and any(cluster):
        raise typer.BadParameter("--dask-ca, --dask-cert and --dask-key go with --dask")
    return cluster


def on_server_host(name: str | None) -> list[str]:
    """The change of a scenario that --server-host makes, as --set has it."""
    return [] if name is None else [f"placement.server_host={json.dumps(name)}"]


@contextmanager
def tools(cluster: Cluster) -> "Iterator[Tools | None]":
    """What a run makes its loads with; None for what it has by itself. Raises what `load_hosts` does."""
    from tftpbench.api import tools_of

    address, *files = _checked(cluster)
    with tools_of(address, files) as made:
        yield made


def cluster_words(cluster: Cluster) -> list[str]:
    """The options of a cluster as they are typed."""
    names = ("--dask", "--dask-ca", "--dask-cert", "--dask-key")
    return [
        word for name, value in zip(names, cluster, strict=True) if value is not None for word in (name, str(value))
    ]


def size_bytes(option: str, text: str) -> int:
    """The bytes of "64KiB" and the like; raises BadParameter, naming the option."""
    from tftpbench.model.units import parse_bytes

    return _quantity(option, text, parse_bytes, SIZE_MAX)


def _quantity(option: str, text: str, parse: Callable[[str], int], most: str) -> int:
    try:
        found = parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None
    if found > parse(most):
        raise typer.BadParameter(f"{option} is {text[:40]!r}; allowed: {most} at most")
    return found


# A mistake on the command line. Newer versions of typer carry their own copy of click, older ones use the installed
# one; the base of typer's own BadParameter is the right class either way.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def mistake(error: Any, words: Sequence[str]) -> str:
    """What is wrong with a command line, in one line: what, where, and what to do.

    The framework's own exceptions say what is wrong, in words that differ from version to version and are not shown:
    what is allowed comes from the command itself, as its help has it.
    """
    kind, context, message = type(error).__name__, getattr(error, "ctx", None), str(getattr(error, "message", error))
    if kind == "BadOptionUsage":  # some versions tell no context with it
        return f"{error.option_name} {'takes no value' if 'not take' in message else 'needs a value'}"
    if context is None:
        return message
    parameter = getattr(error, "param", None)
    if parameter is None:
        return _bad_word(error, context, message)
    if kind == "MissingParameter":
        return f"{_where(context)} needs {_missing(parameter, context)}, as in: {_example(context)}"
    return _bad_value(parameter, context, message, words)


def _where(context: Any) -> str:
    return str(context.command_path).removeprefix(f"{PROGRAM} ")


def _bad_word(error: Any, context: Any, message: str) -> str:
    """An option, a command or a further word that nothing takes."""
    where, commands = _where(context), getattr(context.command, "commands", None)
    if type(error).__name__ == "NoSuchOption":
        known = [option for each in context.command.params for option in each.opts]
        hint = suggest(error.option_name, known, "")
        return f"{where} has no option {error.option_name}{hint}; all of them: {_help(context)}"
    if commands is not None and (match := re.match(r"No such command '(.*?)'", message, re.DOTALL)):
        start = "no command" if where == PROGRAM else f"no command of {where}"
        return f"{start} is called {match[1]!r}{suggest(match[1], commands)}"
    if match := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        return f"{where}: nothing is expected at {match[1]!r}; see: {_help(context)}"
    return message


def _help(context: Any) -> str:
    return typed([*context.command_path.split(), "--help"])


def _example(context: Any) -> str:
    """The first of its examples, as it can be typed here."""
    example = str(context.command.epilog or _help(context)).splitlines()[0].strip()
    return f"{typed([PROGRAM])}{example.removeprefix(PROGRAM)}"


def _missing(parameter: Any, context: Any) -> str:
    record = described(parameter, context)
    return record[0] if record is not None else str(parameter.name)


def _bad_value(parameter: Any, context: Any, message: str, words: Sequence[str]) -> str:
    """A value that an option or argument does not take. A check of ours says so itself, after the option's name."""
    name, text = described(parameter, context) or (parameter.name, "")
    is_argument = parameter.param_type_name == "argument"
    shown = name if is_argument else max(parameter.opts, key=len)
    if message.startswith("is "):
        return f"{shown} {message}"
    span = re.search(r"\d+ to \d+|\d+ or more", text)
    choices = name.split()[-1].split("|") if "|" in name else _choices(parameter)
    allowed = ", ".join(choices) or f"a whole number{f', {span[0]}' if span else ''}"
    value = _given(parameter.opts, words, message)
    hint = suggest(value or "", choices, f"; allowed: {allowed}")
    return f"{shown}{f' is {value!r}' if value is not None else ''}{hint}"


def _choices(parameter: Any) -> list[str]:
    """The words that it takes, which its help does not list in its name."""
    kind = getattr(parameter, "type_descriptor", None) or getattr(parameter, "type", None)
    return [str(getattr(each, "value", each)) for each in getattr(kind, "choices", None) or ()]


def _given(options: Sequence[str], words: Sequence[str], message: str) -> str | None:
    """What was typed for the option, or stands in the framework's message; None where neither is known."""
    for word, after in zip(words, [*words[1:], None], strict=True):
        if word in options:
            return after
        for option in options:
            start = f"{option}=" if option.startswith("--") else option
            if option.startswith("-") and word.startswith(start):
                return word.removeprefix(start)
    quoted = re.search(r"'(.*?)' is not one of", message, re.DOTALL)
    return quoted[1] if quoted else None


def ending() -> tuple[signal.Signals, ...]:
    """The signals that end a command in order: as Ctrl-C does, with what is finished saved and nothing left behind.

    SIGTERM and, unless nohup(1) has it ignored, SIGHUP: the terminal is gone.
    """
    return (signal.SIGTERM,) if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGTERM, signal.SIGHUP)


def interrupt_on_end() -> None:
    """From here on these signals raise KeyboardInterrupt."""
    for number in ending():
        signal.signal(number, signal.default_int_handler)
