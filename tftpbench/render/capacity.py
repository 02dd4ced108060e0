"""What searches for capacities found, as sections: the sentences, a table of bounds, remarks, each search's trials.

It must never compute a bound.
"""

from collections.abc import Sequence

from tftpbench.analysis import capacity
from tftpbench.model.capacity import FoundCapacity, FoundTrial
from tftpbench.model.programs import typed
from tftpbench.model.units import counted, format_duration
from tftpbench.render.plain import plain
from tftpbench.render.sections import UNKNOWN, Heading, Listing, Paragraph, Section, Table, Value

# After so many searches a sentence each is no answer any more; the table has them all.
SENTENCES_MAX = 6


def text(
    found: Sequence[FoundCapacity], folder: str, repeat: str, *, colour: bool = False, width: int | None = None
) -> str:
    """The end of a search for a terminal so wide, with where its files are and the command to repeat it."""
    next_ = (f"Files:  {folder}", f"Report: {typed(['tftpbench', 'report', folder])}", f"Repeat: {repeat}")
    return plain([*sections(found), Paragraph(next_)], colour=colour, width=width)


def sections(found: Sequence[FoundCapacity], *, with_trials: bool = False) -> list[Section]:
    """The sentences first. `with_trials`: each search's trials at the end; of a single one they always stand there."""
    said = capacity.sentences(found)
    is_one = len(found) == 1
    return [
        *(Paragraph((each,), is_answer=True) for each in said[:SENTENCES_MAX]),
        *([] if is_one else [bounds_table(found)]),
        Listing("Beside it:" if is_one else "Beside them:", capacity.remarks(found), 40),
        Listing("Not measured:", capacity.omitted(found), 40),
        *(trials_table(each) for each in found if is_one or with_trials),
    ]


def bounds_table(found: Sequence[FoundCapacity]) -> Table:
    """A row for each search."""
    headings = (
        Heading("server", is_figure=False),
        Heading("of", "What was asked for.", is_figure=False),
        Heading("find", is_figure=False),
        Heading("lower", "The most that was borne; of a spread the time that was too short."),
        Heading("upper", "The least that was not; of a spread the time that was enough."),
        Heading("p99 at 90 %", "99th percentile of the response, or boot, time at 90 % of the lower bound."),
        Heading("trials"),
        Heading("took"),
        Heading("result", is_figure=False),
    )
    return Table("capacities", "Capacities", headings, tuple(map(_row, found)))


def trials_table(found: FoundCapacity) -> Table:
    """All trials of a search, in their order."""
    headings = (
        Heading("trial"), Heading("for", is_figure=False), Heading("load"), Heading("for so long"), Heading("intended"),
        Heading("lost", "Failed, late or shed."),
        Heading("backlog", "By how much what was in flight grew over the trial."),
        Heading("p99", "99th percentile of the response, or boot, time."),
        Heading("said", is_figure=False),
    )  # fmt: skip
    rows = tuple(_trial(found, each) for each in found.trials)
    return Table(f"trials-{found.server}-{found.find}", f"Trials: {capacity.title(found)}", headings, rows)


def _row(found: FoundCapacity) -> tuple[Value, ...]:
    times = {each.trial: each for each in found.trials}
    at_90 = next((times.get(each.trial) for each in found.latencies if each.share == 0.9), None)
    p99 = UNKNOWN if at_90 is None else "never"
    if at_90 is not None and at_90.response_ns_p99 is not None:
        p99 = format_duration(at_90.response_ns_p99)
    return (
        Value(found.server), Value(found.cell), Value(found.find),
        *(Value(capacity.bound_text(found, bound), bound) for bound in found.bounds),
        Value(p99), Value(str(len(found.trials)), len(found.trials)),
        Value(format_duration(round(found.took_s) * 1e9), found.took_s),
        Value("regular" if found.is_regular else "irregular"),
    )  # fmt: skip


def _trial(found: FoundCapacity, trial: FoundTrial) -> tuple[Value, ...]:
    load = _load(found, trial)
    p99 = UNKNOWN if trial.response_ns_p99 is None else format_duration(trial.response_ns_p99)
    return (
        Value(UNKNOWN if trial.trial is None else str(trial.trial), trial.trial), Value(trial.stage),
        Value(load, trial.load), Value(format_duration(trial.duration_s * 1e9) if found.find == "rate" else UNKNOWN),
        Value(f"{trial.intended:,}", trial.intended), Value(f"{trial.lost:,}", trial.lost),
        Value(f"{trial.growth:+,.1f}", trial.growth), Value(p99, trial.response_ns_p99), Value(_said(found, trial)),
    )  # fmt: skip


def _load(found: FoundCapacity, trial: FoundTrial) -> str:
    if found.find == "rate":
        return f"{capacity.figure(trial.load or 0)}/s"
    if found.find == "machines":
        return capacity.figure(round(trial.load or 0))
    if trial.load is None:
        return "at once"
    return f"within {format_duration(round((found.machines or 0) / trial.load * 1e9, -6))}"


def _said(found: FoundCapacity, trial: FoundTrial) -> str:
    """What it said about its load."""
    if trial.fault:
        return f"{trial.fault}: {trial.reason}" if trial.reason else trial.fault
    if trial.stage in ("latencies", "recovery"):
        return ""
    share = trial.missing / trial.intended if trial.intended else 0.0
    return "borne" if capacity.is_borne(found, trial) else f"too much: {100 * share:.3g} % missing"


def comparison(rows: Sequence[capacity.Compared], paths: tuple[str, str]) -> list[Section]:
    """Two runs' searches side by side."""
    headings = (
        Heading("search", is_figure=False), Heading("A lower"), Heading("A upper"), Heading("B lower"),
        Heading("B upper"), Heading("B", is_figure=False),
    )  # fmt: skip
    body = tuple(
        (
            Value(each.title),
            *(Value(capacity.bound_text(each.first, bound), bound) for bound in (*each.a, *each.b)),
            Value(each.verdict),
        )
        for each in rows
    )
    moved = [each for each in rows if each.verdict in ("higher", "lower")]
    said = "; ".join(f"{each.title}: B is {each.verdict} than A" for each in moved)
    said = said or "No capacity is shown to differ: the bounds of A and B overlap"
    return [
        Paragraph((f"{said}.",), is_answer=True),
        Table("capacities", "Capacities", headings, body),
        Paragraph((f"A: {paths[0]}", f"B: {paths[1]}")),
    ]


def comparison_document(rows: Sequence[capacity.Compared], paths: tuple[str, str]) -> dict[str, object]:
    """The same as plain JSON values."""
    searches = [
        {"search": each.title, "find": each.find, "a": list(each.a), "b": list(each.b), "verdict": each.verdict}
        for each in rows
    ]
    return {"schema": "tftpbench.capacity-comparison/1", "a": paths[0], "b": paths[1], "searches": searches}


def progress_text(found: FoundCapacity) -> str:
    """A search that has ended, in a line."""
    return f"{capacity.sentence(found)} ({counted(len(found.trials), 'trial')})"
