"""What is said beside the figures: what was found of servers, protocol faults, cells that could not be judged.

Pure. Each kind of each server once, however many trials showed it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from tftpbench.analysis.summary.lines import Line
from tftpbench.measure.findings import FORMER_KINDS, ORIGINS, Origin, stopped_at
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted

_EXAMPLE_MAX = 60  # of a datagram's hex dump, enough to know it; the whole is in trials.jsonl
_TEXT_MAX = 160

Row = Mapping[str, Any]


def findings(rows: Sequence[Row], labels: Mapping[str, str]) -> dict[Origin, tuple[str, ...]]:
    """What was found of each server, by whose doing it was and by its worst trial.

    As in "atftpd: never answered 900 of 1000 transfers (read, ...)". Every origin is there, and may be empty. A kind
    that this version does not know is the server's. Machines stand by each step at which they stopped.
    """
    found: dict[tuple[str, str, tuple[str, ...]], list[tuple[int, str, str]]] = {}
    for row in rows:
        for finding in row.get("server_findings") or ():
            seen = (int(finding["count"]), str(finding["text"])[:_TEXT_MAX], labels[row["cell_key"]])
            kind = str(finding["kind"])
            place = stopped_at(seen[1])
            found.setdefault((server_name(row), FORMER_KINDS.get(kind, kind), place or ()), []).append(seen)
    kinds: dict[str, Origin] = {str(kind): origin for kind, origin in ORIGINS.items()}
    return {
        origin: tuple(
            f"{server}: {_worst(seen)}"
            for (server, kind, _), seen in sorted(found.items())
            if kinds.get(kind, "server") == origin
        )
        for origin in get_args(Origin)
    }


def faults(rows: Sequence[Row]) -> tuple[str, ...]:
    """Breaches of the protocol, with the first example, over the trials that had something go wrong.

    Where nothing failed they are harmless: a late datagram, or a second answer to a request that was sent twice.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for row in rows:
        hurt = any(row.get(name) for name in ("failed", "timed_out", "content_mismatches"))
        for fault in (row.get("protocol_faults") or ()) if hurt else ():
            against = f" ({fault['rfc_section']})" if fault.get("rfc_section") else ""
            kind = (server_name(row), f"{fault['kind']}{against}")
            counts[kind] += int(fault["count"])
            examples.setdefault(kind, str(fault["example"]))
    return tuple(
        f"{server}, {kind}: {counted(count, 'time')}, as in: {examples[server, kind][:_EXAMPLE_MAX]}"
        for (server, kind), count in counts.items()
    )


def incomplete(lines: Sequence[Line], reference: str | None) -> tuple[str, ...]:
    """A server without a valid trial in a cell, or without a pair to compare it by, where that is not its own doing.

    `reference` None: each trial is compared with its own ceiling.
    """
    comparable = {
        line.label for line in lines if reference is None or (line.server == reference and line.figures["data_pps"])
    }
    found: list[str] = []
    for line in lines:
        if line.is_its_own_doing:
            continue
        if line.valid == 0:
            found.append(f"{line.server}, {line.cell.label}: none of {line.trials} trials is valid")
        elif line.cell.open_loop or line.cell.is_boots:
            continue  # it is compared by no ratio, or by one of times, which may be never
        elif line.ratio is None and line.server != reference and line.figures["data_pps"] and line.label in comparable:
            found.append(f"{line.server}, {line.cell.label}: no pair of valid trials to compare it by")
    return tuple(found)


def _worst(seen: Sequence[tuple[int, str, str]]) -> str:
    _, text, where = max(seen, key=lambda each: each[0])
    others = len({label for _, _, label in seen}) - 1
    elsewhere = f", and in {counted(others, 'other cell')}" if others else ""
    return f"{text} ({where}{elsewhere}; {counted(len(seen), 'trial')})"
