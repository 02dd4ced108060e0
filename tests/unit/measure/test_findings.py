"""What a server did wrong, by how its transfers ended."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tftpbench.measure import findings
from tftpbench.model.boot import Share, Step
from tftpbench.model.metrics import BOOT_OUTCOMES, BOOT_REASONS, OUTCOMES

TIMEOUT_NS = 1_000_000_000
COMPLETED, FAILED, TIMED_OUT, INTERRUPTED, LATE = range(len(OUTCOMES))


def transfers(*ends: tuple[int, int, int, int]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Columns of transfers: outcome, first response, end, ERROR code."""
    columns = np.array(ends, np.int64).reshape(-1, 4).T
    return dict(zip(("outcome", "first_response_ns", "end_ns", "error_code"), columns, strict=True))


def found(row: dict[str, object], *ends: tuple[int, int, int, int]) -> list[tuple[str, int, str]]:
    listed = findings.of_a_load(row, transfers(*ends), TIMEOUT_NS)
    return [(finding.kind, finding.count, finding.text) for finding in listed]


def test_a_server_that_does_its_work_has_no_findings() -> None:
    row: dict[str, object] = {"completed": 100, "fairness": 3.0, "content_mismatches": 0, "blksize": 1468}
    assert found(row | {"blksize_granted": 1468}, (COMPLETED, 5, 99, -1)) == []


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ((FAILED, 5, 5, 0), ("refused", 1, "refused 1 of 2 transfers (ERROR 0, not defined)")),
        ((FAILED, 5, 6, 0), ("failed", 1, "broke off 1 of 2 transfers (ERROR 0, not defined)")),
        ((FAILED, 5, 5, -1), ("failed", 1, "broke off 1 of 2 transfers (protocol fault)")),
        ((TIMED_OUT, -1, 99, -1), ("silent", 1, "never answered 1 of 2 transfers")),
        ((INTERRUPTED, -1, 20_004_000_000, -1), ("unfinished", 1, "1 of 2 done in 20 s")),
        ((INTERRUPTED, 7, 1_500_000_000, -1), ("unfinished", 1, "1 of 2 done in 1.5 s")),
        ((TIMED_OUT, 7, 99, -1), ("timed_out", 1, "fell silent in 1 of 2 transfers")),
    ],
)
def test_each_way_to_lose_a_transfer_is_told_from_the_others(
    end: tuple[int, int, int, int], expected: tuple[str, int, str]
) -> None:
    assert found({}, (COMPLETED, 5, 99, -1), end) == [expected]


def test_transfers_without_a_row_are_counted_all_the_same() -> None:
    row: dict[str, object] = {"started": 1_000, "completed": 998}
    assert found(row, (TIMED_OUT, -1, 99, -1), (INTERRUPTED, 7, 99, -1)) == [
        ("silent", 1, "never answered 1 of 1000 transfers"),
        ("unfinished", 1, "998 of 1000 done in 99 ns"),
    ]


def test_what_a_rate_is_too_much_for_is_the_servers_and_never_invalid() -> None:
    row: dict[str, object] = {"deadline_ns": 2_000_000_000, "intended": 8, "shed": 5, "concurrency": 3}
    late = "had not finished 2 of 3 transfers at their deadline, 2 s after their intended start"
    assert found(row, (COMPLETED, 5, 99, -1), (LATE, 5, 99, -1), (LATE, -1, 99, -1)) == [
        ("late", 2, f"{late}, 1 of them without any answer"),
        ("shed", 5, "did not keep up: 5 of 8 transfers not begun, as 3 were in flight"),
    ]
    assert findings.ORIGINS["late"] == findings.ORIGINS["shed"] == "server"
    (all_late,) = found({"deadline_ns": 1_000_000, "intended": 1, "started": 1}, (LATE, 5, 99, -1))
    assert all_late[2].endswith(
        " 1 of 1 transfers at their deadline, 1 ms after their intended start; give a longer deadline"
    )


def test_a_broken_rule_is_named_with_its_rfc_the_most_frequent_first() -> None:
    faults = [
        {"kind": "stray_tid", "count": 1, "example": "x", "rfc_section": "RFC 1350 section 4"},
        {"kind": "wrong_contents", "count": 9, "example": "x", "rfc_section": None},
        {"kind": "data_too_large", "count": 3, "example": "x", "rfc_section": "RFC 2348"},
        {"kind": "late", "count": 30, "example": "of a run before rfc_section"},
    ]
    assert found({"protocol_faults": faults}, (FAILED, 5, 5, -1))[0][2] == (
        "broke off 1 of 1 transfers (protocol fault: data_too_large, RFC 2348; stray_tid, RFC 1350 section 4)"
    )


def test_the_most_frequent_errors_are_named_first() -> None:
    ends = [(FAILED, 1, 1, code) for code in (2, 9, 9, 0, 0, 0, 5)]
    assert found({}, *ends)[0][2] == (
        "refused 7 of 7 transfers (ERROR 0, not defined; ERROR 9, unknown; ERROR 2, access violation)"
    )


def test_wrong_bytes_options_and_unfairness_come_from_the_row() -> None:
    row: dict[str, object] = {
        "completed": 20, "content_mismatches": 2, "fairness": 10.5, "transfer_ns_max": 1.1e9,
        "blksize": 1468, "blksize_granted": 512, "windowsize": 16, "windowsize_granted": 16,
    }  # fmt: skip
    assert found(row) == [
        ("wrong_bytes", 2, "wrong bytes in 2 of 20 transfers"),
        ("not_granted", 1, "granted blksize 512 where 1468 was asked for"),
        ("unfair", 1, "the slowest transfer took 10 times as long as the median one"),
    ]


@pytest.mark.parametrize(("completed", "slowest_ns"), [(19, 2e9), (1000, 0.9e9)])
def test_of_few_transfers_or_short_of_the_clients_timer_the_slowest_says_nothing(
    completed: int, slowest_ns: float
) -> None:
    assert found({"completed": completed, "fairness": 100.0, "transfer_ns_max": slowest_ns}) == []


def test_work_that_the_trial_had_no_time_for_is_counted_whole_even_where_it_was_not_begun() -> None:
    ends = [(COMPLETED, 5, 99, -1)] * 209 + [(INTERRUPTED, 7, 20_000_000_000, -1)] * 100
    assert found({"transfers": 800}, *ends) == [("unfinished", 100, "209 of 800 done in 20 s")]


def test_what_a_server_that_died_left_unfinished_is_its_own_doing() -> None:
    ends = transfers((COMPLETED, 5, 99, -1), (INTERRUPTED, 7, 100, -1), (INTERRUPTED, -1, 100, -1))
    listed = findings.of_a_load({}, ends, TIMEOUT_NS, died="died with SIGSEGV")
    assert [(each.kind, each.text) for each in listed] == [
        ("died", "died with SIGSEGV"),
        ("silent", "never answered 1 of 3 transfers"),
        ("timed_out", "fell silent in 1 of 3 transfers"),
    ]
    assert {findings.ORIGINS[each.kind] for each in listed} == {"server"}


def test_every_kind_has_an_origin_and_only_some_are_the_servers() -> None:
    assert set(findings.ORIGINS) == set(get_args(findings.Kind))
    assert {kind: origin for kind, origin in findings.ORIGINS.items() if origin != "server"} == {
        "unfinished": "test", "boots_unfinished": "test", "not_granted": "option", "port_taken": "unmeasured",
    }  # fmt: skip


def test_a_dead_and_a_deaf_server_are_told_first() -> None:
    dead = findings.of_a_load({"content_mismatches": 1}, transfers(), TIMEOUT_NS, died="x: died with SIGSEGV")
    assert (dead[0].kind, dead[0].text) == ("died", "x: died with SIGSEGV")
    for silent_s, said in ((math.inf, "after the load"), (17.2, "for 17 s after the load")):
        found = findings.of_a_load({}, transfers(), TIMEOUT_NS, silent_s=silent_s)
        assert [(finding.kind, finding.text) for finding in found] == [
            ("unresponsive", f"answered no new request {said}")
        ]


def share(name: str, *steps: str) -> Share:
    one = Step("read", "", (), 1, 0, "whole", 0, 0, "", 0, (1,), (1,), "give_up", 0, "gap")
    return Share(name, 1, tuple(replace(one, name=step) for step in steps))


def boots(*machines: tuple[str, int, int, str]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Columns of boots: outcome, share, step that it failed at, reason."""
    known = [(BOOT_OUTCOMES.index(out), part, step, BOOT_REASONS.index(why)) for out, part, step, why in machines]
    columns = np.array(known, np.int64).reshape(-1, 4).T
    return dict(zip(("outcome", "share", "failed_step", "reason"), columns, strict=True))


GRUB, PI = share("grub", "shim.efi", "grub.cfg-{mac-}", "grub.cfg"), share("pi", "start4.elf")
UP = ("booted", 0, -1, "")


def found_of_boots(row: dict[str, object], *machines: tuple[str, int, int, str]) -> list[tuple[str, int, str]]:
    listed = findings.of_boots(row, boots(*machines), [GRUB, PI])
    return [(finding.kind, finding.count, finding.text) for finding in listed]


def test_machines_that_did_not_boot_are_grouped_by_where_they_stopped_the_most_frequent_first() -> None:
    silent, refused = ("failed", 0, 3, "no answer"), ("failed", 1, 1, "refused")
    assert found_of_boots({}, UP, refused, *[silent] * 17, ("failed", 0, 2, "fell silent")) == [
        ("boots_unanswered", 17, "17 machines stopped at grub.cfg: no answer"),
        ("boots_refused", 1, "1 machine stopped at start4.elf: refused"),
        ("boots_silent", 1, "1 machine stopped at grub.cfg-{mac-}: fell silent"),
    ]
    assert found_of_boots({}, UP, UP) == []
    kinds = {str(kind) for kind, _, _ in found_of_boots({}, *[("failed", 0, 1, why) for why in BOOT_REASONS[1:]])}
    assert kinds <= {*get_args(findings.Kind)}
    assert len(kinds) == len(BOOT_REASONS) - 1


def test_no_more_than_eight_places_are_listed_and_no_machine_is_left_out() -> None:
    many = share("many", *(f"file-{number}" for number in range(12)))
    machines = [("failed", 0, step, "no answer") for step in range(1, 13) for _ in range(13 - step)]
    listed = findings.of_boots({}, boots(*machines), [many])
    assert len(listed) == 9
    assert listed[0].text == "12 machines stopped at file-0: no answer"
    assert listed[-1].text == "10 machines more stopped at 4 other places"
    assert sum(finding.count for finding in listed) == len(machines)


def test_late_shed_and_cut_off_machines_and_misses_are_the_servers_or_the_tests() -> None:
    row: dict[str, object] = {"deadline_ns": 2_000_000_000, "machines": 9, "boots_shed": 1, "concurrency": 3}
    late = [("late", 0, 3, "")] * 2 + [("late", 1, 1, "")]
    shed, cut_off = ("shed", 0, -1, ""), ("interrupted", 0, 1, "")
    assert found_of_boots(row | {"misses_unanswered": 4}, UP, *late, shed, cut_off) == [
        (
            "boots_late", 3,
            "3 machines had not booted 2 s after the intended start: 2 at grub.cfg, 1 at start4.elf",
        ),
        ("boots_shed", 1, "did not keep up: 1 of 9 machines did not begin, as 3 were booting"),
        ("misses_unanswered", 4, "left 4 requests for absent files unanswered"),
        ("boots_unfinished", 1, "1 machine had not booted when the trial ended: 1 at shim.efi"),
    ]  # fmt: skip
    assert findings.ORIGINS["boots_late"] == "server"
    (all_late,) = found_of_boots({"deadline_ns": 1_000_000, "machines": 3}, *late)
    assert all_late[2].endswith("2 at grub.cfg, 1 at start4.elf; give a longer deadline")
    assert findings.ORIGINS["boots_unfinished"] == "test"


def test_machines_that_a_server_left_when_it_died_are_its_own_doing() -> None:
    listed = findings.of_boots({}, boots(UP, ("interrupted", 0, 1, "")), [GRUB, PI], died="died: signal 9")
    assert [(each.kind, each.text) for each in listed] == [
        ("died", "died: signal 9"),
        ("boots_silent", "1 machine had not booted when the server died: 1 at shim.efi"),
    ]


def test_wrong_bytes_of_machines_are_said_once() -> None:
    row: dict[str, object] = {"content_mismatches": 2, "started": 10}
    listed = found_of_boots(row, *[("failed", 0, 1, "wrong bytes")] * 2)
    assert listed == [("wrong_bytes", 2, "2 machines stopped at shim.efi: wrong bytes")]
