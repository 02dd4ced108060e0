"""Two runs cell by cell: pairs of trials with their ratio and a verdict, and what the runs do not have in common.

The latter are cells and servers that only one has, and what may have moved every figure; every line names both values.
Pure, of rows of results and manifests.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from tftpbench.analysis.stats import CONFIDENCE, Ratio, holm, paired_ratio
from tftpbench.host.conditions import CONDITIONS, EFFECTS
from tftpbench.host.machine import HOST_KEY_FACTS
from tftpbench.measure.validity import is_open_loop
from tftpbench.model.axes import AXES, CELL, LOAD_HOSTS, hosts_text, label
from tftpbench.model.errors import NotComparable
from tftpbench.model.units import counted, format_bytes

Row = Mapping[str, Any]
Key = tuple[str, str]
"""(cell_key, contender)"""
Change = Literal["faster", "slower", "same", "can't tell"]
VERDICTS: tuple[Change, ...] = get_args(Change)

METRIC, CPU = "data_pps", "server_cpu_ns_per_block"


@dataclass(frozen=True)
class Compared:
    """One server in one cell. Ratios are B over A; cpu is None where no pair knows the server's CPU time.

    *_data_pps are medians over the pairs, as the ratio is: over all valid trials they could contradict it.
    """

    cell_key: str
    contender: str
    row: Row
    a_data_pps: float
    b_data_pps: float
    moved: Ratio
    cpu: Ratio | None
    p_holm: float | None
    verdict: Change

    @property
    def label(self) -> str:
        """Of the cell, as the summary of a run writes it."""
        return cell_label(self.row)


def by_cell(rows: Iterable[Row], contenders: Sequence[str]) -> dict[Key, list[Row]]:
    """Trials by cell and server: cells along their axes, in each the servers in the order of `contenders`."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row["cell_key"], row["contender"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (*axes(item[1][0]), item[0][0], contenders.index(item[0][1]))))


def axes(row: Row) -> tuple[str | int, ...]:
    """Where the row's cell is in a matrix; unknown numbers first."""
    return tuple(str(row.get(name)) if AXES[name].dtype == "text" else row.get(name) or 0 for name in CELL)


def cell_label(row: Row) -> str:
    """For people: "read, 100 at once, 64 KiB"; by its key where a row does not say."""
    known = {name: row.get(name) for name, axis in AXES.items() if axis.added is None or row.get(name) is not None}
    if None in known.values():
        return f"cell {row['cell_key']}"
    return label(known | {LOAD_HOSTS: row.get(LOAD_HOSTS)})


def pairs(a: Sequence[Row], b: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """The figures of A and of B in the rounds in which both have a valid trial that knows them."""
    ours, theirs = _by_round(a, metric), _by_round(b, metric)
    rounds = sorted(ours.keys() & theirs.keys())
    return [ours[each] for each in rounds], [theirs[each] for each in rounds]


def usable(row: Row, metric: str) -> bool:
    """Whether the trial is valid and knows the figure. One that moved nothing has no ratio; its own summary tells.

    Nor has one whose starts followed a schedule: how much it moves a second is not its server's doing.
    """
    value = None if is_open_loop(row) else row.get(metric)
    return bool(row["verdict"] == "valid" and isinstance(value, (int, float)) and math.isfinite(value) and value > 0)


def judged(a: Mapping[Key, Sequence[Row]], b: Mapping[Key, Sequence[Row]], within: float) -> tuple[Compared, ...]:
    """All that have a pair, in A's order. `within`: what counts as the same, 0.05 for 5 %."""
    ratios = {key: ratio for key in a if key in b and (ratio := _ratio(a[key], b[key], METRIC)) is not None}
    judgeable = {key: ratio.p_value for key, ratio in ratios.items() if ratio.p_value is not None}
    adjusted = {key: float(p_value[0]) for key, p_value in holm(judgeable).items()}
    medians = {key: [statistics.median(side) for side in pairs(a[key], b[key], METRIC)] for key in ratios}
    return tuple(
        Compared(
            *key, a[key][0], medians[key][0], medians[key][1], ratio, _ratio(a[key], b[key], CPU), adjusted.get(key),
            verdict(ratio, adjusted.get(key), within),
        )
        for key, ratio in ratios.items()
    )  # fmt: skip


def verdict(ratio: Ratio, p_holm: float | None, within: float) -> Change:
    """What may be said. "same" comes first: a difference can be sure and too small to matter."""
    if ratio.low is None or ratio.high is None or p_holm is None:
        return "can't tell"
    # 1/1.05 to 1.05 rather than 0.95 to 1.05: which run is A must not matter.
    if max(abs(math.log(ratio.low)), abs(math.log(ratio.high))) <= math.log1p(within):
        return "same"
    if ratio.differs and p_holm < 1 - CONFIDENCE:
        return "faster" if ratio.ratio > 1 else "slower"
    return "can't tell"


def _ratio(a: Sequence[Row], b: Sequence[Row], metric: str) -> Ratio | None:
    first, second = pairs(a, b, metric)
    return paired_ratio(second, first) if first else None


def _by_round(rows: Sequence[Row], metric: str) -> dict[int, float]:
    return {row["round"]: float(row[metric]) for row in rows if row.get("round") and usable(row, metric)}


Manifest = Mapping[str, Any]
Fields = Mapping[str, object]

# The part of cell_key that every trial's row holds; client and placement are in the manifest (docs/results-format.md).
ROW_FIELDS = (*AXES, "transfers", "distinct_files", "verify", LOAD_HOSTS)
# Of method_key, what the manifest tells; order and estimator are names inside tftpbench.
_METHOD = ("duration", "warm_up", "trials", "generators")
_UNTOLD = "their manifests do not say how"
# So many cells with the same thing to tell are named; the others are counted.
_NAMED_MAX = 3
COMMIT_DIGITS = 9
_VALUE_MAX = 80  # of a value that some hand may have made long


@dataclass(frozen=True)
class Side:
    """One run as it is compared: "A" or "B", its manifest, its trials by cell and server."""

    name: str
    manifest: Manifest
    trials: Mapping[Key, Sequence[Row]]

    @cached_property
    def contenders(self) -> list[str]:
        """Servers that have a trial, in the order of the trials."""
        return list(dict.fromkeys(contender for _, contender in self.trials))

    @cached_property
    def cells(self) -> dict[str, Row]:
        """A row of each cell."""
        return {key: rows[0] for (key, _), rows in self.trials.items()}

    def part(self, *names: str) -> Manifest:
        """A part of the manifest, empty where it has none."""
        return part(self.manifest, *names)

    def work(self, row: Row) -> Fields:
        """The fields of the row's cell_key."""
        client = {f"client.{name}": value for name, value in self.part("scenario", "client").items()}
        placement = {f"placement.{name}": value for name, value in self.part("scenario", "placement").items()}
        fields = {name: row.get(name) for name in ROW_FIELDS}
        return {**fields, LOAD_HOSTS: fields[LOAD_HOSTS] or 1, **client, **placement}  # older runs had one


def left_out(a: Side, b: Side) -> tuple[str, ...]:
    """Servers and cells that only one run has, with what the nearest cell of the other differs in."""
    lines: list[str] = []
    for one, other in ((a, b), (b, a)):
        alone = [server for server in one.contenders if server not in other.contenders]
        lines += [f"{', '.join(alone)}: only in {one.name}"] if alone else []
        lines += _grouped(
            (cell_label(row), f"only in {one.name}{_nearest(one, row, other)}")
            for key, row in one.cells.items()
            if key not in other.cells
        )
        lines += _grouped(
            (f"{contender}, {cell_label(rows[0])}", f"no trial in {other.name}")
            for (key, contender), rows in one.trials.items()
            if key in other.cells and contender in other.contenders and (key, contender) not in other.trials
        )
    return (*lines, *_grouped(_unpaired(a, b)))


def warnings(a: Side, b: Side) -> tuple[str, ...]:
    """What may have moved every figure: another machine, another method."""
    return tuple(
        line
        for key, part, names, alike, unlike in (
            ("host_key", "machine", HOST_KEY_FACTS, "whether the machines are alike", "the machines are not alike"),
            ("method_key", "scenario", _METHOD, "whether the runs were measured the same way",
             "the runs were not measured the same way"),
        )
        for line in _key_warning(a, b, key, [{name: each.part(part).get(name) for name in names} for each in (a, b)],
                                 alike, unlike)
    ) + tuple(_machines_of_load(a, b)) + conditions(a, b)  # fmt: skip


def _machines_of_load(a: Side, b: Side) -> Iterable[str]:
    """Whether the machines that made the load are alike, where both runs have some."""
    if not all(each.part("placement").get("load_hosts") for each in (a, b)):
        return ()
    machines = [[each.part("load_hosts", name) for name in each.part("load_hosts")] for each in (a, b)]
    fields = [
        {fact: " and ".join(sorted({shown(each.get(fact), fact) for each in side})) for fact in HOST_KEY_FACTS}
        for side in machines
    ]
    unknown, unlike = "whether the load hosts are alike", "the load hosts are not alike"
    return _key_warning(a, b, "load_hosts_key", fields, unknown, unlike)


def conditions(a: Side, b: Side) -> tuple[str, ...]:
    """Conditions of the machine whose effect differs, and settings of it that do, where both runs have looked."""
    found = [_conditions(each.manifest) for each in (a, b)]
    lines = []
    for each in CONDITIONS:
        if not all(each.id in side for side in found):
            continue
        (effect, seen), (effect_b, seen_b) = (side[each.id] for side in found)
        if effect != effect_b or (each.lasts and seen != seen_b):
            lines.append(f"{each.id} differs: {effect}, {shown(seen)} in A; {effect_b}, {shown(seen_b)} in B")
    return tuple(lines)


def _conditions(manifest: Manifest) -> dict[object, tuple[object, object]]:
    """What was known of each condition, by id."""
    found = manifest.get("conditions")
    return {
        each.get("id"): (each.get("effect"), each.get("found"))
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, Mapping) and each.get("effect") in EFFECTS and each.get("effect") != "not known"
    }


def _key_warning(a: Side, b: Side, key: str, fields: Sequence[Fields], alike: str, unlike: str) -> Iterable[str]:
    """What may be said of a key that is not known of both, or is not the same."""
    described = _described(differing(*fields))
    if unknown := _without(a, b, key):
        yield f"{alike} is not known: {unknown}{f'; {described}' if described else ''}"
    elif _key(a, key) != _key(b, key):
        yield f"{unlike} ({key} differs): {described or (_builds(a, b) if key == 'method_key' else _UNTOLD)}"


def notes(a: Side, b: Side) -> tuple[str, ...]:
    """What else is good to know: names of scenarios, versions of servers and of tftpbench itself, trials not used."""
    names = [str(each.part("scenario").get("name")) for each in (a, b)]
    lines = [f"A is a run of {names[0]}, B of {names[1]}: only equal work is compared"] if names[0] != names[1] else []
    for server in a.contenders:
        if server in b.contenders:
            versions = [{"version": each.part("servers", server).get("version")} for each in (a, b)]
            lines += [f"{server}: {_described(found)}" for found in [differing(*versions)] if found]
    build = differing(a.part("build"), b.part("build"))
    lines += [f"tftpbench itself: {_described(build)}"] if build else []
    return (*lines, *_grouped(_unused(a, b)))


def refuse_quick(manifest: Manifest, name: object) -> None:
    """Raises NotComparable for a run of --quick: its windows are too short for any verdict."""
    if part(manifest, "scenario").get("quick") is True:
        raise NotComparable(f"{name}: not comparable: a quick run judges no speed; measure it without --quick")


def refuse_mixed(first: Manifest, second: Manifest, names: tuple[object, object]) -> None:
    """Raises NotComparable for runs over different networks, over rings and over sockets, or of unlike hosts."""
    paths = [_path(each) for each in (first, second)]
    if paths[0] != paths[1]:
        raise NotComparable(
            f"{names[0]} was measured {paths[0]}, and {names[1]} {paths[1]}, so their figures can't be compared; "
            "measure both alike (placement, client.sockets, generators)"
        )


def _path(manifest: Manifest) -> str:
    """What the datagrams of a run went over, in words; older runs knew loopback only."""
    network, sockets = (
        part(manifest, "scenario", name).get(key) for name, key in (("placement", "network"), ("client", "sockets"))
    )
    is_apart = part(manifest, "scenario", "placement").get("server_host") is not None
    if (hosts := _load_hosts(manifest)) != 1 or is_apart:
        loaded = hosts_text(hosts) or "from another host"
        return f"{loaded}, with the server on a host of its own" if is_apart else loaded
    if network in (None, "loopback"):
        return "over loopback"
    return f"in network namespaces with {'rings' if sockets == 'ring' else 'sockets'}"


def _load_hosts(manifest: Manifest) -> int:
    """How many hosts a run's load came from; older runs knew one only."""
    hosts = part(manifest, "scenario", "generators").get("hosts")
    return len(hosts) if isinstance(hosts, list) else hosts if isinstance(hosts, int) else 1


def part(manifest: Manifest, *names: str) -> Manifest:
    """A part of a manifest, empty where it has none."""
    found: object = manifest
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def differing(a: Fields, b: Fields) -> dict[str, tuple[object, object]]:
    """The fields whose values are not equal, with both; a field that one has not is None there."""
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)}


def _unpaired(a: Side, b: Side) -> Iterable[tuple[str, str]]:
    for key, rows in a.trials.items():
        if key in b.trials and not pairs(rows, b.trials[key], METRIC)[0]:
            found = [(each.trials[key], each.name) for each in (a, b)]
            counts = " and ".join(f"{_usable(trials)} of {len(trials)} in {name}" for trials, name in found)
            if is_open_loop(rows[0]):
                described = "its load follows a schedule, so no speed is compared; see the times of each run"
                yield f"{key[1]}, {cell_label(rows[0])}", described
                continue
            described = f"no round has a valid trial with data_pps in both (valid, with data_pps: {counts})"
            yield f"{key[1]}, {cell_label(rows[0])}", described


def _unused(a: Side, b: Side) -> Iterable[tuple[str, str]]:
    """Trials that could be used and are in no pair, of those that have pairs."""
    for key, rows in a.trials.items():
        paired = len(pairs(rows, b.trials.get(key, ()), METRIC)[0])
        for one, other in ((a, b), (b, a)) if paired else ():
            count = _usable(one.trials[key])
            if alone := count - paired:
                have = "has" if alone == 1 else "have"
                described = f"{alone} of {one.name}'s {count} valid trials {have} no partner in {other.name}"
                yield f"{key[1]}, {cell_label(rows[0])}", described


def _usable(rows: Sequence[Row]) -> int:
    return sum(usable(row, METRIC) for row in rows)


def _nearest(one: Side, row: Row, other: Side) -> str:
    """What the cell of the other run that differs least differs in."""
    ours = one.work(row)
    found = [differing(ours, other.work(theirs)) for theirs in other.cells.values()]
    if not found:
        return ""
    least = min(found, key=lambda fields: (len(fields), sum(_distance(*values) for values in fields.values())))
    if not least:
        return f"; a cell of {other.name} looks the same but has another cell_key: keys of two versions of tftpbench"
    if one.name == "B":
        least = {name: (theirs, ours) for name, (ours, theirs) in least.items()}
    return f"; the nearest of {other.name} differs in {_described(least)}"


def _distance(one: object, other: object) -> float:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and one > 0 and other > 0:
        return abs(math.log(one / other))
    return 1.0


def _grouped(described: Iterable[tuple[str, str]]) -> list[str]:
    """One line for all that have the same thing to tell."""
    groups: dict[str, list[str]] = {}
    for named, what in described:
        groups.setdefault(what, []).append(named)
    return [f"{_some(labels)}: {what}" for what, labels in groups.items()]


def _some(labels: Sequence[str]) -> str:
    if len(labels) <= _NAMED_MAX:
        return "; ".join(labels)
    return f"{labels[0]}; and {counted(len(labels) - 1, 'other')}"


def _key(side: Side, name: str) -> object:
    return side.part("keys").get(name)


def _without(a: Side, b: Side, name: str) -> str:
    """Who lacks the key: two unknown machines are not one machine."""
    lacking = [each.name for each in (a, b) if not _key(each, name)]
    return f"{' and '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} no {name}" if lacking else ""


def _builds(a: Side, b: Side) -> str:
    """The versions of tftpbench, or its commits where these are equal: what else method_key is made of."""
    for what, name, length in (("versions", "tftpbench", _VALUE_MAX), ("commits", "git_commit", COMMIT_DIGITS)):
        first, second = (shown(each.part("build").get(name))[:length] for each in (a, b))
        if first != second:
            where = f"({first} in A, {second} in B)"
            return f"in the order of trials or the estimator, as {what} of tftpbench do {where}"
    return _UNTOLD


def _described(fields: Mapping[str, tuple[object, object]]) -> str:
    return ", ".join(f"{name} ({shown(a, name)} in A, {shown(b, name)} in B)" for name, (a, b) in fields.items())


def shown(value: object, name: str = "") -> str:
    """A value of a manifest, in one line of bounded length."""
    if value is None:
        return "none"
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    return " ".join(str(value).split())[:_VALUE_MAX]
