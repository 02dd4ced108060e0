"""What a report says, in its order, gathered once from a Run. All forms are written from this.

It must never format for one of them.
"""

import shlex
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from tftpbench.analysis import summary
from tftpbench.analysis.summary import Answer
from tftpbench.model import axes
from tftpbench.model.errors import ResultsWarning
from tftpbench.model.metrics import METRICS, Metric, in_table
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import format_bytes
from tftpbench.render import answer, capacity
from tftpbench.render.answer import figure
from tftpbench.render.sections import UNKNOWN, Heading, Listing, Section, Table, Value
from tftpbench.store import Run


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


@dataclass(frozen=True)
class Contents:
    """One run, understood. Figures come from `answer`, trials as plain rows."""

    run: Run
    scenario: Scenario
    answer: Answer
    rows: tuple[Mapping[str, Any], ...]
    placement: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.name

    @property
    def started_at(self) -> str:
        """When the first trial began, to the second, UTC; "" where there is none."""
        times = [str(row["started_at"]) for row in self.rows if row.get("started_at")]
        return f"{min(times)[:19].replace('T', ' ')} UTC" if times else ""

    @property
    def valid(self) -> int:
        """How many trials count."""
        return sum(row["verdict"] == "valid" for row in self.rows)

    @property
    def planned(self) -> int:
        """How many trials there should be, as far as is known."""
        asked = self.run.manifest.get("trials_planned")
        return asked if isinstance(asked, int) else len(self.rows)

    @cached_property
    def searches(self) -> list[Section]:
        """What searches for capacities found, but for the sentences; nothing where there was none."""
        found = self.run.searches
        return capacity.sections(found, with_trials=True)[len(found[: capacity.SENTENCES_MAX]) :] if found else []

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the run is not whole; more may come to light as more of it is read."""
        return self.run.problems

    @property
    def broken(self) -> tuple[str, ...]:
        """Those of `problems` that a reader of the answer must know."""
        return self.run.broken

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Those of `problems` that tell of files which a run may be kept without."""
        return self.run.absent

    @property
    def invalid(self) -> tuple[str, ...]:
        """Each trial that does not count, and why."""
        return answer.invalid(self.answer)

    @cached_property
    def found(self) -> list[Listing]:
        """What was found of servers, by whose doing it was."""
        return answer.found(self.answer)

    @property
    def repeat(self) -> str:
        """The command that does the same again."""
        return repeat(self.run.manifest)

    @cached_property
    def judgements(self) -> tuple[summary.JudgedEverywhere, ...]:
        """Each threshold once."""
        return tuple(summary.judgements(self.answer.thresholds))

    @cached_property
    def headline(self) -> Table:
        """The figures."""
        return answer.headline_table(self.answer)

    @cached_property
    def cost(self) -> Table:
        """What the work cost each server."""
        return cost_table(self.answer, self.rows)

    @cached_property
    def losses(self) -> tuple[Table, int]:
        """Where something was lost, and in how many cells of servers nothing was."""
        return loss_table(self.scenario, self.rows)

    @cached_property
    def trials(self) -> Table:
        """Every trial."""
        return trials_table(self.scenario, self.rows)

    @cached_property
    def facts(self) -> dict[str, tuple[Fact, ...]]:
        """The environment, by heading."""
        return groups(self.run.manifest, self.placement)

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """Who was measured."""
        return servers(self.run.manifest)


def contents_of(run: Run) -> Contents:
    """Read what a report needs. Raises ResultsError where the run has no manifest, scenario or trials to read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # the report tells them all, as problems
        said = summary.answer_of(run)
        placement = summary.placement_of(run.manifest)
        return Contents(run, summary.scenario_of(run), said, tuple(run.rows), placement)


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
        Fact("load hosts", _text(where.get("load_hosts"))),
        Fact("server's host", _server_host(manifest)),
        Fact("files served from", files),
    ]
    return tuple(fact for fact in facts if fact.value)


def _server_host(manifest: Mapping[str, Any]) -> str:
    """Where servers were started, and on what machine; "" for the one that ran tftpbench."""
    there = _mapping(manifest, "server_host")
    facts = _mapping(there, "machine")
    known = [_text(there.get("address")), _text(facts.get("cpu_model")), f"Linux {_text(facts.get('kernel'))}"]
    return f"{_text(there.get('name'))} ({', '.join(filter(None, known))})" if there else ""


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


Row = Mapping[str, Any]


# In place of others where times of completed transfers would flatter: at a rate, and of machines that boot.
_AT_A_RATE = {"transfer_ns_p50": replace(METRICS["response_ns_p99"], short="response p99")}
_OF_BOOTS = {
    "completed": METRICS["booted"],
    "failed": METRICS["boots_failed"],
    "timed_out": METRICS["boots_late"],
    "transfer_ns_p50": replace(METRICS["boot_ns_p99"], short="boot p99"),
}
_WHO = (Heading("cell", is_figure=False), Heading("server", is_figure=False))


def cost_table(answer: Answer, rows: Sequence[Row]) -> Table:
    """What the work cost the server: medians over valid trials, which is where reasons are found."""
    metrics = in_table("cost")
    body = []
    for line in answer.lines:
        valid = [row for row in _of(rows, line.cell.key, line.server) if row["verdict"] == "valid"]
        figures = [figure(_median(valid, metric), metric) for metric in metrics]
        body.append((Value(line.label), Value(line.server), *figures))
    return Table("cost", "What it cost the server", (*_WHO, *map(_heading, metrics)), tuple(body)).known()


def loss_table(scenario: Scenario, rows: Sequence[Row]) -> tuple[Table, int]:
    """Where transfers and datagrams were lost, and by whom: sums over all trials, valid or not.

    Only servers and cells that lost anything; the other result is how many lost nothing.
    """
    metrics = in_table("losses")
    headings = (*_WHO, _heading(METRICS["started"]), *map(_heading, metrics))
    body, clean = [], 0
    for cell in scenario.cells():
        cell_key = cell.key
        here = [row for row in rows if row["cell_key"] == cell_key]
        for server in dict.fromkeys(map(server_name, here)):
            ours = _of(here, cell_key, server)
            sums = [_sum(ours, metric.name) for metric in metrics]
            if not any(sums):
                clean += 1
                continue
            figures = [
                figure(value, metric)
                for value, metric in zip((_sum(ours, "started"), *sums), (METRICS["started"], *metrics), strict=True)
            ]
            body.append((Value(cell.label), Value(server), *figures))
    return Table("losses", "What was lost, and where", headings, tuple(body)).known(), clean


def unharmed(cells: int, is_any_harmed: bool) -> str:
    """In how many rows that the table of losses leaves out nothing was lost."""
    if not cells:
        return ""
    others = "other cells" if is_any_harmed else "cells"
    return f"Nothing was lost or sent again in {cells} {others} (each server's cells counted)."


def trials_table(scenario: Scenario, rows: Sequence[Row]) -> Table:
    """Every trial, in the order of time."""
    labels = {cell.key: cell.label for cell in scenario.cells()}
    cells = scenario.cells()
    others = _OF_BOOTS if cells[0].is_boots else _AT_A_RATE if all(cell.open_loop for cell in cells) else {}
    metrics = [others.get(each.name, each) for each in in_table("trials")]
    body = []
    for row in sorted(rows, key=lambda row: row.get("order") or 0):
        verdict = "valid" if row["verdict"] == "valid" else f"invalid: {row.get('verdict_reason') or 'no reason given'}"
        figures = [figure(metric.of(row), metric) for metric in metrics]
        where = labels.get(row["cell_key"]) or _elsewhere(scenario, row)
        numbers = [
            Value(str(row[name]), row[name]) if row.get(name) is not None else Value(UNKNOWN)
            for name in ("order", "trial")
        ]
        body.append((*numbers, Value(where), Value(server_name(row)), *figures, Value(verdict)))
    headings = (
        Heading("order"), Heading("trial"), *_WHO, *map(_heading, metrics), Heading("verdict", is_figure=False)
    )  # fmt: skip
    bad = frozenset(number for number, row in enumerate(body) if row[-1].text != "valid")
    return Table("trials", "Every trial", headings, tuple(body), bad).known()


def _elsewhere(scenario: Scenario, row: Row) -> str:
    """Where a trial was that is of no cell: of a search, at the load that it tried."""
    if not scenario.capacity:
        return "no cell of the scenario"
    return axes.label({name: row.get(name) for name in (*axes.AXES, axes.LOAD_HOSTS)})


def _of(rows: Sequence[Row], cell_key: str, server: str) -> list[Row]:
    return [row for row in rows if row["cell_key"] == cell_key and server_name(row) == server]


def _median(rows: Sequence[Row], metric: Metric) -> float | None:
    known = [float(value) for row in rows if (value := metric.of(row)) is not None]
    return statistics.median(known) if known else None


def _sum(rows: Sequence[Row], name: str) -> int | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return sum(known) if known else None


def _heading(metric: Metric) -> Heading:
    return Heading(metric.heading, metric.meaning)
