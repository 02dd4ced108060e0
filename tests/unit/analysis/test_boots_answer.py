"""What a run of machines that boot says in the end: in machines, with what was lost and where, and with the wire."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.builders import scenario
from tftpbench.analysis import summary
from tftpbench.analysis.summary import Answer, boots
from tftpbench.measure.findings import stopped_at
from tftpbench.model import workload
from tftpbench.model.boot import Boot, Step
from tftpbench.model.metrics import BOOTS
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.render import answer as rendered
from tftpbench.render import markdown

MS = 1_000_000
PLACE = "on separate cores"
# One machine: a loader of 1000 blocks of 1000 bytes, so 1,070,000 bytes on the wire.
LOADER = Step(
    operation="read", name="loader.efi", options=(("blksize", "1000"),), size_bytes=999_999, file=0, ends="whole",
    stop_after=0, stop_code=0, stop_text="", think_ns=0, waits_ns=(4_000 * MS,) * 6, reading_waits_ns=(4_000 * MS,) * 6,
    then="give_up", restarts_max=0, nack="none",
)  # fmt: skip
PROFILE = Boot("uefi-grub", "Loads a loader.", "documented", (LOADER,), {"made": "here"}, ("made",))


# What is asked for makes the cell, and not its name: so another one asks for another file.
PI = replace(PROFILE, name="pi4", steps=(replace(LOADER, name="start4.elf"),))


@pytest.fixture(autouse=True)
def _profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "load_boot", lambda name: PI if name == "pi4" else PROFILE)


def storm(machines: object = 1000, over: object = "0s", **changes: object) -> Scenario:
    matrix = {"boot": "uefi-grub", "machines": machines, "over": over}
    base = {"servers": ["epoll", "threads"], "matrix": matrix, "trials": 7, "duration": None, **changes}
    return scenario(**base)


def rates(*per_s: str, **changes: object) -> Scenario:
    matrix = {"boot": "uefi-grub", "rate": list(per_s)}
    return scenario(**{"servers": ["epoll"], "matrix": matrix, "trials": 1, "duration": "10s", **changes})


def row(p50: float | None = 400, p99: float | None = 1100, last: float | None = 1300, **lost: int) -> dict[str, Any]:
    """A trial's figures; times in ms, None for never; all machines up but those that are named."""
    times = {"boot_ns_p50": p50, "boot_ns_p99": p99, "boot_ns_max": last}
    found: dict[str, Any] = {name: None if ms is None else int(ms * MS) for name, ms in times.items()}
    return found | {f"{name}_is_never": ms is None for name, ms in times.items()} | lost


def rows(question: Scenario, figures: Mapping[str, Any], rounds: int = 7) -> list[dict[str, Any]]:
    """Every cell on every server: `figures` by server, or by (server, load)."""
    made: list[dict[str, Any]] = []
    for number in range(rounds):
        for cell in question.cells():
            for server in figures:
                asked = cell.machines_asked or int((cell.rate_per_s or 0) * 10)
                ours = figures[server](cell) if callable(figures[server]) else figures[server]
                lost = {f"boots_{name}": ours.get(name, 0) for name in ("failed", "late", "shed", "interrupted")}
                noise = 1 + number / 100
                times = {
                    name: ours[name] and ours[name] * noise for name in ours if name.endswith(("p50", "p99", "max"))
                }
                made.append(
                    {
                        "trial": len(made) + 1, "round": number + 1, "cell_key": cell.key, "server": server,
                        "variant": None, "verdict": "valid", "verdict_reason": None, "boot": cell.boot,
                        "machines_asked": cell.machines_asked, "rate_per_s": cell.rate_per_s, "machines": asked,
                        "booted": asked - sum(lost.values()), "misses_unanswered": 0, "data_pps": 1e5,
                        "server_findings": ours.get("findings", []), "content_mismatches": 0, "duration_s": 10,
                        "offered_per_s": cell.rate_per_s,
                        **lost, **ours, **times,
                    }
                )  # fmt: skip
    return made


def answer(question: Scenario, figures: Mapping[str, Any], rounds: int = 7) -> Answer:
    return summary.summarise(question, list(figures), rows(question, figures, rounds), PLACE)


def stopped(count: int, step: str = "grub.cfg", reason: str = "no answer") -> dict[str, Any]:
    text = f"{count} machine{'s' if count > 1 else ''} stopped at {step}: {reason}"
    return {"kind": "boots_unanswered", "count": count, "text": text}


def test_one_server_is_told_in_machines() -> None:
    found = answer(storm(servers=["epoll"]), {"epoll": row()}, rounds=1)
    assert found.sentence.startswith(
        "epoll: 1000 machines of uefi-grub at once: half are up after 400 ms, 99 % after 1.1 s, the last after 1.3 s; "
        "none gave up."
    )
    assert found.conditions == (
        "Compared by the time until a machine is up, from its intended start, deadline 30 s, on separate cores."
    )


def test_those_that_gave_up_are_counted_and_where_most_of_them_stopped() -> None:
    lossy = row(last=None, failed=6, late=2) | {"findings": [stopped(4), stopped(2, "loader.efi", "fell silent")]}
    sentence = answer(storm(servers=["epoll"]), {"epoll": lossy}, rounds=1).sentence
    assert (
        "half are up after 400 ms, 99 % after 1.1 s; 6 gave up, 4 of them at grub.cfg (no answer), and 2 came late."
    ) in sentence
    assert "the last" not in sentence


@pytest.mark.parametrize(
    ("lost", "found", "words"),
    [
        ({"failed": 6}, [stopped(6)], "6 gave up, all at grub.cfg (no answer)."),
        ({"failed": 1}, [stopped(1)], "1 gave up, at grub.cfg (no answer)."),
        ({"failed": 6}, [], "6 gave up."),
        ({"failed": 1, "late": 2}, [], "1 gave up and 2 came late."),
        ({"late": 2, "shed": 3, "interrupted": 4}, [], "2 came late, 3 were not begun and 4 were cut off."),
    ],
)
def test_each_way_of_being_lost_has_its_words(lost: dict[str, int], found: list[Any], words: str) -> None:
    lossy = row(last=None, **lost) | {"findings": found}
    assert f"; {words}" in answer(storm(servers=["epoll"]), {"epoll": lossy}, rounds=1).sentence


def test_what_was_found_names_each_step_at_which_machines_stopped() -> None:
    lossy = row(last=None, failed=6) | {"findings": [stopped(4), stopped(2, "loader.efi")]}
    found = answer(storm(servers=["epoll"]), {"epoll": lossy}).findings
    assert [line.partition(" (")[0] for line in found] == [
        "epoll: 4 machines stopped at grub.cfg: no answer", "epoll: 2 machines stopped at loader.efi: no answer",
    ]  # fmt: skip


def test_of_several_trials_what_was_lost_is_said_of_all_their_machines() -> None:
    sentence = answer(storm(servers=["epoll"]), {"epoll": row(last=None, failed=1)}).sentence
    assert "7 of 7,000 gave up" in sentence


def test_a_share_that_never_came_up_has_no_time() -> None:
    found = answer(storm(servers=["epoll"]), {"epoll": row(p99=None, last=None, failed=60)}, rounds=1)
    assert "half are up after 400 ms; 60 gave up." in found.sentence
    found = answer(storm(servers=["epoll"]), {"epoll": row(None, None, None, failed=600)}, rounds=1)
    assert "fewer than half come up; 600 gave up." in found.sentence
    assert math.isinf(found.lines[0].figures["boot_ns_p50"] or 0)


def test_with_time_to_start_in_each_machine_has_a_clock_of_its_own() -> None:
    sentence = answer(storm(over="10s", servers=["epoll"]), {"epoll": row()}, rounds=1).sentence
    assert "half are up within 400 ms, 99 % within 1.1 s, the slowest within 1.3 s" in sentence


def test_servers_are_compared_by_when_the_last_machine_is_up() -> None:
    found = answer(storm(), {"epoll": row(), "threads": row(800, 2000, 2600)})
    assert found.sentence.startswith(
        "With 1000 machines of uefi-grub at once, epoll has its last machine up first, after 1.38 s; "
        "threads takes 2.00 times as long (95 % interval 2.00 to 2.00). "
        "epoll: half are up after 412 ms, 99 % after 1.13 s, the last after 1.38 s; none gave up. threads: half"
    )
    assert found.metric == "boot_ns_max"


def test_the_first_may_be_another_than_the_reference() -> None:
    sentence = answer(storm(), {"epoll": row(), "threads": row(last=650)}).sentence
    assert sentence.startswith("With 1000 machines of uefi-grub at once, threads has its last machine up first, after")
    assert "0.50 times as long as epoll (95 % interval" in sentence


def test_under_six_pairs_there_is_a_range() -> None:
    sentence = answer(storm(trials=5), {"epoll": row(), "threads": row(last=2600)}, rounds=5).sentence
    assert "2.00 times as long (range of 5: 2.00 to 2.00)" in sentence
    assert "interval" not in sentence


def test_servers_that_the_trials_do_not_tell_apart_are_both_first() -> None:
    question = storm()
    found = rows(question, {"epoll": row(), "threads": row()})
    for index, each in enumerate(found):
        each["boot_ns_max"] *= 1 + (0.1 if index % 4 == 1 else -0.09 if index % 4 == 3 else 0)
    sentence = summary.summarise(question, ["epoll", "threads"], found, PLACE).sentence
    assert "at once, epoll and threads have their last machine up first" in sentence
    assert "about as long" in sentence


def test_under_six_pairs_a_range_around_one_tells_no_server_apart() -> None:
    question = storm(trials=3, over="2s")
    found = rows(question, {"epoll": row(), "threads": row()}, rounds=3)
    for index, each in enumerate(found):
        each["boot_ns_max"] *= 1 + (0.1 if index % 4 == 1 else -0.09 if index % 4 == 3 else 0)
    sentence = summary.summarise(question, ["epoll", "threads"], found, PLACE).sentence
    assert "epoll and threads have their slowest machine up first, within 1." in sentence
    assert " s of its start; threads takes about as long (" in sentence
    assert "range of 3" in sentence


def test_one_that_loses_machines_is_never_first_and_its_losses_stand_beside() -> None:
    found = answer(storm(), {"epoll": row(last=None, failed=6), "threads": row(800, 2000, 2600)})
    assert "threads has its last machine up first" in found.sentence
    assert "epoll loses 42 of 7,000" in found.sentence
    assert found.lines[1].ratio is None, "epoll's last is never up, so that its time compares nothing"


def test_where_none_has_all_up_the_fewest_lost_are_named() -> None:
    sentence = answer(storm(), {"epoll": row(last=None, failed=1), "threads": row(last=None, failed=9)}).sentence
    assert "no server has all of them up; fewest are lost with epoll: 7 of 7,000." in sentence


def test_without_a_valid_trial_nothing_is_claimed() -> None:
    question = storm()
    found = rows(question, {"epoll": row(), "threads": row()})
    for each in found:
        each |= {"verdict": "invalid", "verdict_reason": "the server's socket is gone"}
    said = summary.summarise(question, ["epoll", "threads"], found, PLACE)
    assert said.sentence.startswith("No answer: no trial is valid with 1000 machines of uefi-grub at once.")
    assert said.wire.endswith("for these 1020 MiB.")


def test_of_one_server_each_load_is_told() -> None:
    sentence = answer(storm([100, 1000], servers=["epoll"]), {"epoll": row()}, rounds=1).sentence
    assert "epoll: 100 machines of uefi-grub at once: half" in sentence
    assert "epoll: 1000 machines of uefi-grub at once: half" in sentence


def of_two_boots(**changes: object) -> Scenario:
    return storm(matrix={"boot": ["uefi-grub", "pi4"], "machines": 1000, "over": "0s"}, **changes)


def test_of_several_boots_each_has_its_own_sentence_and_its_own_wire() -> None:
    found = answer(of_two_boots(), {"epoll": row(), "threads": row(800, 2000, 2600)})
    for profile in ("uefi-grub", "pi4"):
        assert f"With 1000 machines of {profile} at once, epoll has its last machine up first" in found.sentence
        assert f"for these 1020 MiB of {profile}: up to 1 Gb/s" in found.wire
    one = answer(of_two_boots(servers=["epoll"]), {"epoll": row()}, rounds=1).sentence
    assert one.count("half are up after 400 ms, 99 % after 1.1 s, the last after 1.3 s; none gave up.") == 2
    assert "epoll: 1000 machines of pi4 at once: half" in one


def test_of_several_boots_what_each_lost_is_found_by_itself() -> None:
    found = answer(
        of_two_boots(servers=["epoll"]),
        {"epoll": lambda cell: row(last=None, failed=6) | {"findings": [stopped(4 if cell.boot == "pi4" else 6)]}},
        rounds=1,
    )
    assert [line.partition(";")[0] for line in found.findings] == [
        "epoll: 4 machines stopped at grub.cfg: no answer (1000 machines of pi4 at once",
        "epoll: 6 machines stopped at grub.cfg: no answer (1000 machines of uefi-grub at once",
    ]


def test_of_several_boots_at_rates_each_has_a_rate_that_it_holds() -> None:
    question = rates(matrix={"boot": ["uefi-grub", "pi4"], "rate": ["100/s", "200/s"]})
    found = answer(
        question,
        {"epoll": lambda cell: row() if cell.boot == "pi4" or cell.rate_per_s == 100 else row(p99=None, failed=480)},
        rounds=1,
    )
    assert "epoll boots 100 machines a second of uefi-grub" in found.sentence
    assert "epoll boots 200 machines a second of pi4" in found.sentence
    assert "At 200/s the files of pi4 need 1.71 Gb/s on the wire" in found.wire


def test_where_only_one_server_can_do_a_boot_its_sentence_names_the_boot() -> None:
    question = of_two_boots()
    found = [each for each in rows(question, {"epoll": row(), "threads": row()}) if each["boot"] != "pi4"]
    found += [each for each in rows(question, {"epoll": row()}) if each["boot"] == "pi4"]
    sentence = summary.summarise(question, ["epoll", "threads"], found, PLACE).sentence
    assert "epoll: 1000 machines of pi4 at once: half are up" in sentence


def test_of_an_interrupted_run_the_hardest_load_that_was_tried_is_told() -> None:
    question = storm([100, 1000])
    found = [each for each in rows(question, {"epoll": row(), "threads": row()}) if each["machines_asked"] == 100]
    said = summary.summarise(question, ["epoll", "threads"], found, PLACE)
    assert said.sentence.startswith("With 100 machines of uefi-grub at once, epoll")
    assert said.headline == "100 machines of uefi-grub at once"


def test_losses_under_other_loads_are_not_left_out() -> None:
    found = answer(
        storm([100, 1000]),
        {"epoll": lambda cell: row() if cell.machines_asked == 1000 else row(last=None, failed=1), "threads": row()},
    )
    assert "epoll lost 7 of 700 with 100 machines of uefi-grub at once." in found.sentence


def test_of_many_servers_the_first_is_told_and_who_lost_most() -> None:
    many = {name: row(last=1300 + 100 * place) for place, name in enumerate("abcde")}
    many["e"] = row(last=None, failed=60)
    sentence = answer(storm(servers=list("abcde")), many).sentence
    assert "a has its last machine up first" in sentence
    assert "1 server lost machines, e most: 420 of 7,000." in sentence
    assert "b:" not in sentence


def test_at_rates_the_highest_that_is_held_is_said_and_what_became_of_the_next() -> None:
    held = row(p99=1200)
    found = answer(
        rates("100/s", "200/s", "400/s"),
        {"epoll": lambda cell: held if (cell.rate_per_s or 0) < 300 else row(p99=None, last=None, late=480)},
        rounds=1,
    )
    assert found.sentence.startswith(
        "epoll boots 200 machines a second of uefi-grub, 99 % within 1.2 s; at 400/s 12 % came late."
    )
    assert found.wire == "At 400/s the files need 3.42 Gb/s on the wire: a network of 10 Gb/s carries that."


def test_a_rate_that_is_not_held_is_no_rate_that_it_boots() -> None:
    found = answer(rates("200/s"), {"epoll": row(p99=None, last=None, failed=240)}, rounds=1)
    assert found.sentence.startswith("epoll does not hold 200 machines a second of uefi-grub: 12 % gave up.")


def test_the_wire_alone_needs_its_time_and_up_to_there_the_network_is_the_limit() -> None:
    # 1000 machines of 1,070,000 bytes: 8.56 s, 856 ms, 342 ms
    found = answer(storm(servers=["epoll"]), {"epoll": row()}, rounds=1)
    assert found.wire == (
        "The wire alone needs 8.56 s at 1 Gb/s, 856 ms at 10 Gb/s and 342 ms at 25 Gb/s for these 1020 MiB: "
        "up to 1 Gb/s the network is the limit, not epoll."
    )
    for text in (rendered.text(found, "x", "y"), markdown.written(rendered.sections(found))):
        assert found.wire in text


@pytest.mark.parametrize(
    ("last_ms", "words"),
    [
        (200, "at all of them the network is the limit, not epoll."),
        (500, "up to 10 Gb/s the network is the limit, not epoll."),
        (9000, "at none of them is the network the limit, but epoll."),
    ],
)
def test_the_network_is_the_limit_where_the_wire_takes_longer(last_ms: float, words: str) -> None:
    assert answer(storm(servers=["epoll"]), {"epoll": row(100, 150, last_ms)}, rounds=1).wire.endswith(words)


def test_time_to_start_in_is_time_that_the_wire_has() -> None:
    found = answer(storm(over="10s", servers=["epoll"]), {"epoll": row()}, rounds=1)
    assert found.wire.endswith("at none of them is the network the limit, and machines start within 10 s.")
    found = answer(storm(over="2s", servers=["epoll"]), {"epoll": row(last=9000)}, rounds=1)
    assert found.wire.endswith("at none of them is the network the limit, but epoll.")


def test_of_two_servers_the_limit_is_said_of_each_where_it_differs_and_of_none_that_never_is_done() -> None:
    wire = answer(storm(), {"epoll": row(100, 150, 500), "threads": row(last=2600)}).wire
    assert wire.endswith(": the network is the limit with epoll up to 10 Gb/s and with threads up to 1 Gb/s.")
    wire = answer(storm(), {"epoll": row(), "threads": row(last=2600)}).wire
    assert wire.endswith(": up to 1 Gb/s the network is the limit, not epoll or threads.")
    wire = answer(storm(), {"epoll": row(), "threads": row(p99=None, last=None, failed=60)}).wire
    assert wire.endswith(": up to 1 Gb/s the network is the limit, not epoll.")


def test_the_wire_is_headers_and_file_bytes_once() -> None:
    cell = storm().cells()[0]
    assert boots.BLOCK_OVERHEAD_BYTES == 70
    assert boots.wire_bytes(cell) == 999_999 + 70 * 1000
    assert answer(storm(), {"epoll": row(), "threads": row()}).wire_bytes == 999_999 + 70 * 1000


def test_a_profile_that_has_changed_since_leaves_the_wire_as_the_run_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    question = storm()
    document = question.document()
    before = answer(question, {"epoll": row(), "threads": row()}).wire
    larger = replace(PROFILE, steps=(replace(LOADER, size_bytes=5_000_000),))
    monkeypatch.setattr(workload, "load_boot", lambda _name: larger)
    recorded = from_document(document, "manifest.json")
    assert before
    assert answer(recorded, {"epoll": row(), "threads": row()}).wire == before


def test_a_profile_that_cannot_be_read_any_more_costs_the_wire_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tftpbench.model.errors import BootError

    question = storm(servers=["epoll"])
    found = rows(question, {"epoll": row()}, 1)

    def gone(_name: str) -> Boot:
        raise BootError("no boot is called uefi-grub")

    monkeypatch.setattr(workload, "load_boot", gone)
    later = from_document({**storm_again(question).document(), "asks": {}}, "of a run that did not write it down")
    said = summary.summarise(later, ["epoll"], found, PLACE)
    assert said.sentence.endswith("none gave up.")
    assert said.wire == ""


def storm_again(question: Scenario) -> Scenario:
    """As it is read back from a run's manifest."""
    return from_document(question.document(), "test")


def test_the_table_has_a_column_for_each_record_and_never_for_what_did_not_come_up() -> None:
    found = answer(storm(), {"epoll": row(), "threads": row(p99=None, last=None, failed=60)})
    table = rendered.headline_table(found)
    titles = [heading.title for heading in table.headings]
    assert titles[:6] == ["cell", "server", "booted", "boot p50", "p99", "max"]
    assert titles[-2:] == ["lost", "valid"]
    named = {name for heading in table.headings for name in heading.names} | {"boots_failed", "boots_late"}
    known = {name for name in BOOTS if any(line.figures[name] is not None for line in found.lines)}
    assert known <= named | {"boots_shed", "boots_interrupted"}
    lossy = [value.text for value in table.rows[1]]
    assert lossy[2] == "6,580 of 7,000 (94 %)"
    assert lossy.count("never") == 2
    assert lossy[-2:] == ["420", "7/7"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_text_fits_a_terminal_and_keeps_when_machines_are_up(width: int) -> None:
    found = answer(storm([100, 1000]), {"epoll": row(), "threads": row(p99=None, last=None, failed=60)})
    text = rendered.text(found, "results/x", "tftpbench run storm", width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "boot p50" in text
    assert "never" in text
    assert "lost" in text


def test_the_document_and_the_frame_hold_machines_and_never() -> None:
    question = storm()
    found = answer(question, {"epoll": row(), "threads": row(p99=None, last=None, failed=60)})
    document = json.loads(json.dumps(summary.document(found, "results/x", 1, rows(question, {"epoll": row()}))))
    assert document["ratios_of"] == found.metric
    threads = document["cells"][1]
    assert (threads["machines"], threads["booted"], threads["boots_failed"]) == (7000, 6580, 420)
    assert threads["boot_ns_p99"] is None
    assert threads["boot_ns_p99_is_never"] is True
    frame = found.to_frame()
    assert math.isinf(frame["boot_ns_max"].iloc[1])
    assert frame["booted"].tolist() == [7000, 6580]


def test_machines_that_the_window_intended_are_the_cohort_of_a_percentile() -> None:
    class Ended:
        count = 970

        def percentile(self, _p: float, /) -> float:
            return 5.0 * MS

    question = rates("100/s")
    found = rows(question, {"epoll": row()}, 1)  # 1000 machines in 10 s
    said = summary.summarise(
        question, ["epoll"], found, PLACE, merged=lambda kind, *_: Ended() if kind == "boot" else None
    )
    assert said.lines[0].figures["boot_ns_p50"] == 5 * MS
    assert math.isinf(said.lines[0].figures["boot_ns_p99"] or 0)


def test_at_so_many_at_once_a_percentile_is_the_trials_own() -> None:
    class Ended:
        count = 970

        def percentile(self, _p: float, /) -> float:
            return 5.0 * MS

    matrix = {"boot": "uefi-grub", "concurrency": 10}
    question = scenario(servers=["epoll"], matrix=matrix, trials=1, duration="1s")
    found = rows(question, {"epoll": row() | {"machines": 1000, "booted": 1000}}, 1)
    said = summary.summarise(question, ["epoll"], found, PLACE, merged=lambda *_: Ended())
    assert said.sentence == (
        "epoll: machines of uefi-grub, 10 at once: half are up within 400 ms, 99 % within 1.1 s, the slowest within "
        "1.3 s; none gave up."
    )


def test_a_quick_run_speaks_of_machines() -> None:
    question = storm(100).quick()
    assert answer(question, {"epoll": row(), "threads": row()}, rounds=1).sentence.startswith(
        "Works: all 200 machines booted"
    )


def test_where_machines_stopped_is_read_from_what_was_found() -> None:
    assert stopped_at("17 machines stopped at grub/grub.cfg-{ip_hex[8]}: no answer") == (
        "grub/grub.cfg-{ip_hex[8]}", "no answer",
    )  # fmt: skip
    assert stopped_at("1 machine stopped at a: b: refused") == ("a: b", "refused")
    assert stopped_at("never answered 900 of 1000 transfers") is None


def test_a_share_of_the_ceiling_that_no_column_shows_has_no_note() -> None:
    question = storm()
    found = rows(question, {"epoll": row() | {"ceiling_data_pps": 1e3, "ceiling_ratio": 100.0}, "threads": row()})
    said = summary.summarise(question, ["epoll", "threads"], found, PLACE)
    assert said.lines[0].ceiling_mark
    assert not [note for note in rendered.headline_table(said).notes if note.startswith("*")]
