"""What is wrong with a command line, in one line: what, where, and what to do.

The framework's own exceptions say what is wrong, in words that differ from version to version. It must never show
these: what is allowed comes from the command itself, as its help has it.
"""

import re
from collections.abc import Sequence
from typing import Any

import typer

from tftpbench.cli.options import described
from tftpbench.model.errors import suggest
from tftpbench.model.programs import PROGRAM, typed

# Newer versions of typer carry their own copy of click, older ones use the installed one; the base of typer's own
# BadParameter is the right class either way.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def in_one_line(error: Any, words: Sequence[str]) -> str:
    """The line for a mistake that the framework found, or that a command raised as BadParameter."""
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
        hint = suggest(error.option_name, known)
        return f"{where} has no option {error.option_name}{hint}; all of them: {_help(context)}"
    if commands is not None and (match := re.match(r"No such command '(.*?)'", message, re.DOTALL)):
        start = "no command" if where == PROGRAM else f"no command of {where}"
        return f"{start} is called {match[1]!r}{suggest(match[1], commands)}; allowed: {', '.join(commands)}"
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
    return f"{shown}{f' is {value!r}' if value is not None else ''}{suggest(value or '', choices)}; allowed: {allowed}"


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
