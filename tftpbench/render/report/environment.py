"""Where and how a run was made, as names and values: machine, build, cores, servers, scenario.

What the manifest doesn't hold is left out, never guessed.
"""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from tftpbench.model.units import format_bytes

_MACHINE = {
    "cpu_model": "processor",
    "cpus": "cores",
    "cpu_quota": "cores granted by the control group",
    "architecture": "architecture",
    "memory_bytes": "memory",
    "kernel": "kernel",
    "virtualisation": "virtualisation",
    "governor": "frequency governor",
    "cpu_mhz": "clock at the start, MHz",
    "load_1min": "load at the start",
    "rmem_max": "rmem_max",
    "wmem_max": "wmem_max",
    "rmem_default": "rmem_default",
    "loopback_mtu": "MTU of the loopback interface",
    "python_full": "Python",
    "hostname": "host",
}
_BUILD = {
    "tftpbench": "tftpbench",
    "core": "native core",
    "build_profile": "build profile",
    "git_commit": "git commit",
    "git_dirty": "changed since that commit",
}
_SCENARIO = ("duration", "transfers", "warm_up", "time_limit", "trials", "distinct_files", "verify", "best_of")
_SIZES = {"memory_bytes", "rmem_max", "wmem_max", "rmem_default"}


class Fact(NamedTuple):
    """One thing that is known."""

    name: str
    value: str


class Server(NamedTuple):
    """Who was measured."""

    name: str
    version: str
    model: str
    command: str


def groups(manifest: Mapping[str, Any], placement: str) -> dict[str, tuple[Fact, ...]]:
    """Facts by heading, in the order in which they are read."""
    return {
        "What was asked": _asked(manifest),
        "Machine": _named(_mapping(manifest, "machine"), _MACHINE),
        "Placement": _placed(manifest, placement),
        "Build": _named(_mapping(manifest, "build"), _BUILD),
    }


def servers(manifest: Mapping[str, Any]) -> tuple[Server, ...]:
    """Each server with its version and command, in the scenario's order."""
    found = []
    for name, facts in _mapping(manifest, "servers").items():
        known = facts if isinstance(facts, Mapping) else {}
        words = [*_words(known, "argv"), *(f"[{word}]" for word in _words(known, "argv_write"))]
        command = " ".join(word if word.startswith(("{", "[")) else shlex.quote(word) for word in words)
        found.append(Server(str(name), _text(known.get("version")), _text(known.get("model")), command))
    return tuple(found)


def repeat(manifest: Mapping[str, Any]) -> str:
    """What to type to do the same again; "" where nothing was recorded."""
    return shlex.join(_words(manifest, "argv"))


def _asked(manifest: Mapping[str, Any]) -> tuple[Fact, ...]:
    scenario, keys = _mapping(manifest, "scenario"), _mapping(manifest, "keys")
    client, given = _mapping(scenario, "client"), scenario.get("matrix")
    facts = [Fact("scenario", _text(scenario.get("name")))]
    for matrix in given if isinstance(given, list) else [given]:
        facts += _varied(matrix if isinstance(matrix, dict) else {})
    facts += [Fact(name, _text(scenario[name])) for name in _SCENARIO if scenario.get(name)]
    facts.append(Fact("client", ", ".join(f"{name} {_text(value)}" for name, value in client.items())))
    facts.append(Fact("seed", _text(manifest.get("seed"))))
    facts += [Fact(name, _text(value)) for name, value in keys.items()]
    return tuple(fact for fact in facts if fact.value)


def _varied(matrix: Mapping[str, Any]) -> list[Fact]:
    facts = []
    for name, values in matrix.items():
        write = format_bytes if name == "file_size" else str
        written = [write(value) for value in values] if isinstance(values, list) else [_text(values)]
        facts.append(Fact(str(name), ", ".join(written)))
    return facts


def _placed(manifest: Mapping[str, Any], placement: str) -> tuple[Fact, ...]:
    where, roots = _mapping(manifest, "placement"), _mapping(manifest, "roots")
    files = f"{_text(roots.get('path'))} ({_text(roots.get('file_system'))})" if roots else ""
    facts = [
        Fact("where", placement),
        Fact("cores of the server", _text(where.get("server_cpus"))),
        Fact("cores of the generator", _text(where.get("generator_cpus"))),
        Fact("files served from", files),
    ]
    return tuple(fact for fact in facts if fact.value)


def _named(known: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Fact, ...]:
    facts = []
    for key, name in names.items():
        value = known.get(key)
        if value is not None:
            is_size = key in _SIZES and isinstance(value, (int, float))
            facts.append(Fact(name, format_bytes(value) if is_size else _text(value)))
    return tuple(facts)


def _mapping(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    return found if isinstance(found, Mapping) else {}


def _words(known: Mapping[str, Any], name: str) -> list[str]:
    found = known.get(name)
    return [str(word) for word in found] if isinstance(found, list) else []


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)
