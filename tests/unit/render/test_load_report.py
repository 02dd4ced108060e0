"""What `tftpbench load` says in the end, from figures made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tftpbench.host.generator import LoadConfig, LoadResult, Progress, ReadBack
from tftpbench.measure import validity
from tftpbench.model.boot import Share, Step
from tftpbench.model.metrics import BOOT_OUTCOMES, OUTCOMES
from tftpbench.model.workload import Piece
from tftpbench.render import load_report
from tftpbench.render.load_report import Loaded


def config(**changes: object) -> LoadConfig:
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 6969,
        "operation": "write",
        "name": "w-{n}",
        "file_size_bytes": 1024,
        "concurrency": 2,
        "transfers": 4,
        "verify": "full",
    }
    return LoadConfig(**(values | changes))  # type: ignore[arg-type]


def result(*outcomes: tuple[str, int], answered: bool = True) -> LoadResult:
    """Transfers as (outcome, error code or -1)."""
    figures: dict[str, int | float | None] = dict.fromkeys(("content_mismatches", "bytes_verified"), 0)
    figures |= {name: sum(outcome == name for outcome, _ in outcomes) for name in OUTCOMES}
    transfers = {
        "outcome": np.array([OUTCOMES.index(outcome) for outcome, _ in outcomes]),
        "error_code": np.array([code for _, code in outcomes]),
        "first_response_ns": np.full(len(outcomes), 5 if answered else -1),
    }
    return LoadResult(figures | {"started": len(outcomes)}, transfers, {}, "", ())


COMPLETED = result(*[("completed", -1)] * 4)


def test_what_users_judge_by_comes_first_in_text_and_document() -> None:
    figures = {"transfer_ns_p50": 2e6, "transfer_ns_p99": 3e6, "transfer_ns_max": 5e9, "transfers_per_s": 1234.0}
    known = replace(COMPLETED, figures=COMPLETED.figures | figures | {"goodput_bytes_per_s": 2**21, "failed": 1})
    load = Loaded(config(operation="read", verify="off"), known)
    assert load_report.render(load).splitlines()[:5] == [
        "127.0.0.1:6969, read w-{n}, 2 at once",
        "  served         4 of 4 transfers, 1 failed",
        "  transfer time  p50 2 ms, p99 3 ms, max 5 s",
        "  files          1.23 k files/s",
        "  bytes          2 MiB/s",
    ]
    names = list(load_report.document(load))
    first = names.index("started")
    assert names[first : first + 3] == ["started", "completed", "failed"]
    assert max(names.index(name) for name in [*figures, "goodput_bytes_per_s"]) < names.index("content_mismatches")


def test_the_live_line_has_the_rates_of_its_last_second_and_fits_80_columns() -> None:
    before = Progress(10**9, None, started=110, ended=10, completed=10, bytes=0)
    now = Progress(2 * 10**9, None, started=12_355_110, ended=12_345_678, completed=12_345_668, bytes=2**34)
    text = load_report.live(config(transfers=None), now, before)
    assert text == "2 s: 12,345,668 done, 10 errors, 12.3 M files/s, 16 GiB/s, 9,432 open"
    assert len(text) < 80
    assert load_report.live(config(transfers=20), before, before).startswith("1 s: 10 of 20 done, 0 errors, 0 files/s")


def test_the_live_line_of_boots_counts_machines_and_so_does_the_wait_for_them() -> None:
    steps = (Share("uefi", 1, (STEP,)),)
    asked = replace(config(transfers=1_003), boots=steps, over_ns=0, deadline_ns=10 * 10**9)
    # Requests that are sent and answered, or not, say nothing of machines.
    now = Progress(2 * 10**9, 10**9, started=90_000, ended=89_990, completed=70_000, bytes=2**30,
                   machines=1_003, booted=120, lost=3)  # fmt: skip
    assert (
        load_report.live(asked, now, Progress(10**9, None, 0, 0, 0, 0)) == "2 s: 120 up, 880 booting, 3 lost, 1 GiB/s"
    )
    shed = load_report.live(asked, now._replace(shed=40), now)
    assert shed == "2 s: 120 up, 880 booting, 3 lost, 40 shed, 0 B/s"
    assert load_report.waiting(asked, now).endswith("waiting up to 9 s for 880 machines.")


def test_an_option_that_some_transfers_were_not_granted_is_told_so() -> None:
    some = replace(COMPLETED, answered=4, granted={"blksize": 3, "windowsize": 4})
    some = replace(some, figures=some.figures | {"blksize_granted": 512, "windowsize_granted": 2})
    load = Loaded(config(blksize=1428, windowsize=8), some)
    assert "blksize 1428 -> not granted in 1 of 4 transfers, windowsize 8 -> 2\n" in load_report.render(load)
    assert "blksize 1428 -> not known" in load_report.render(Loaded(config(blksize=1428), COMPLETED))
    assert "options" not in load_report.render(Loaded(config(), COMPLETED))


def test_what_was_read_back_is_printed_and_wrong_bytes_are_a_failure() -> None:
    back = ReadBack(files=4, compared=4, bytes=4096, mismatches=1, errors=())
    text = load_report.render(Loaded(config(), COMPLETED, back))
    assert "4 of 4 files read back, 4 KiB compared, 1 with wrong bytes" in text
    assert Loaded(config(), COMPLETED, back).has_failures
    assert not Loaded(config(), COMPLETED).has_failures
    found = load_report.document(Loaded(config(), COMPLETED, back))
    assert (found["bytes_verified"], found["content_mismatches"]) == (4096, 1)
    assert found["read_back"] == {"files": 4, "compared": 4}


@pytest.mark.parametrize(("errors", "why"), [((1, 2), "ERROR 1 (file not found), ERROR 2"), ((), "no answer")])
def test_a_server_that_refuses_to_serve_uploads_is_a_warning(errors: tuple[int, ...], why: str) -> None:
    back = ReadBack(files=4, compared=1, bytes=1024, mismatches=0, errors=errors)
    load = Loaded(config(), COMPLETED, back)
    assert f"Warning: 3 of 4 files could not be read back ({why}" in load_report.render(load)
    assert not load.has_failures


def test_errors_of_the_server_are_counted_by_code_and_named() -> None:
    found = result(("failed", 6), ("failed", 6), ("failed", 77), ("completed", -1))
    text = load_report.render(Loaded(config(), found))
    assert "ERROR 6 (file already exists): 2 times" in text
    assert "ERROR 77: once" in text
    assert load_report.document(Loaded(config(), found))["errors"] == {"6": 2, "77": 1}


def test_nothing_that_answers_is_a_failure_with_the_mend() -> None:
    found = result(("interrupted", -1), ("interrupted", -1), answered=False)
    assert Loaded(config(), found).has_failures
    text = load_report.render(Loaded(config(operation="read"), found))
    assert "nothing answered and nothing refused (by ICMP) on 127.0.0.1:6969: the server is overloaded" in text
    assert "try fewer at once" in text
    assert "try fewer" not in load_report.render(Loaded(config(operation="read", concurrency=1), found))
    assert "nothing answered" not in load_report.render(Loaded(config(), COMPLETED))


def test_a_refused_load_is_one_line_in_text_and_one_warning() -> None:
    found = result(("interrupted", -1), answered=False)
    load = Loaded(config(), found, refused=True, not_compared="nothing was compared")
    line = "nothing listens on 127.0.0.1:6969 (ICMP port unreachable): start the server, or correct the address"
    assert load_report.render(load) == f"Error: {line}"
    assert load_report.document(load)["warnings"] == [line]


def test_a_load_without_a_completed_transfer_is_not_valid_and_failures_are_said() -> None:
    known = load_report.document(Loaded(config(), COMPLETED))
    assert (known["verdict"], known["verdict_reason"], known["failures"]) == ("valid", None, False)
    nothing = load_report.document(Loaded(config(), result(("timed_out", -1))))
    reason = "no transfer completed, so nothing was measured"
    assert (nothing["verdict"], nothing["verdict_reason"], nothing["failures"]) == ("invalid", reason, True)


def test_as_many_are_at_once_as_there_are_transfers() -> None:
    first = load_report.render(Loaded(config(concurrency=100), COMPLETED)).splitlines()[0]
    assert first == "127.0.0.1:6969, write w-{n}, 4 at once (no more: -n is 4)"


def test_the_time_for_open_transfers_is_said_beside_the_measured_one() -> None:
    table = COMPLETED.transfers | {"end_ns": np.array([10**9, 7 * 10**9, -1, 3 * 10**9])}
    found = replace(COMPLETED, transfers=table, figures=COMPLETED.figures | {"duration_s": 2.0})
    lasting = config(transfers=None, duration_ns=2 * 10**9, warm_up_ns=10**9)
    said = "measured for   2 s, then 4 s for open transfers; rates are of the 2 s"
    assert said in load_report.render(Loaded(lasting, found))
    assert "open transfers" not in load_report.render(Loaded(config(), found))


def test_transfers_that_timed_out_are_a_failure_and_one_sentence() -> None:
    found = result(*[("completed", -1)] * 2, *[("timed_out", -1)] * 2)
    assert Loaded(config(), found).has_failures
    sentence = "2 of 4 transfers timed out, since the server did not answer"
    assert f"Warning: {sentence}" in load_report.render(Loaded(config(), found))
    warnings = load_report.document(Loaded(config(), found))["warnings"]
    assert isinstance(warnings, list)
    assert warnings[0].startswith(sentence)


def test_a_server_that_died_is_the_verdict_and_the_one_warning() -> None:
    found = result(*[("completed", -1)] * 2, ("timed_out", -1), ("interrupted", -1))
    died = "epoll: died with SIGKILL; its last log line: READY"
    load = Loaded(config(transfers=9), found, refused=True, died=died)
    known = load_report.document(load)
    assert (known["verdict"], known["verdict_reason"], known["failures"]) == ("invalid", died, True)
    [warning] = [line for line in load_report.render(load).splitlines() if line.startswith("Warning")]
    assert warning.startswith(f"Warning: {died}: the figures can't be used; ")
    nothing = load_report.document(Loaded(config(), result(("interrupted", -1), answered=False), died=died))
    assert nothing["verdict_reason"] == died
    assert Loaded(config(), COMPLETED, died=died).has_failures


def test_of_a_number_of_transfers_those_that_were_not_done_are_a_failure_and_of_a_duration_none_is() -> None:
    found = result(("completed", -1), ("completed", -1), ("interrupted", -1))
    load = Loaded(config(transfers=4), found)
    assert load.has_failures
    assert "2 of 4 transfers were not done when the load ended" in load_report.render(load)
    assert "--duration" in load_report.render(load)
    ended = load_report.render(Loaded(config(transfers=4), found, interrupted=True))
    assert "Warning: interrupted: 2 of 4 transfers were not done when the load ended\n" in f"{ended}\n"
    assert "--duration" not in ended
    lasting = config(transfers=None, duration_ns=10**9)
    until = "Warning: interrupted: the figures are of the time until then"
    assert until in load_report.render(Loaded(lasting, found, interrupted=True))
    assert not Loaded(lasting, found).has_failures
    assert "Warning" not in load_report.render(Loaded(lasting, found))


def test_errors_are_said_with_their_meaning() -> None:
    assert [load_report.error_text(code) for code in (0, 8, 9)] == [
        "ERROR 0 (not defined)", "ERROR 8 (option refused)", "ERROR 9",
    ]  # fmt: skip


def test_at_a_rate_what_was_late_or_shed_is_part_of_every_time() -> None:
    seen = result(*[("completed", -1)] * 90, *[("late", -1)] * 6)
    times: dict[str, int | float | None] = {
        "response_ns_p50": 2_000_000, "response_ns_p95": None, "response_ns_p99": None, "response_ns_max": None,
        "service_ns_p50": 1_000_000, "service_ns_p95": None, "service_ns_p99": None,
        "transfer_ns_p50": 1_000_000, "transfer_ns_p99": 1_500_000, "transfer_ns_max": 2_000_000,
    }  # fmt: skip
    never = {f"{name}_is_never": value is None for name, value in times.items() if not name.startswith("transfer")}
    counts = {"intended": 100, "shed": 4, "offered_per_s": 200.0, "achieved_per_s": 192.0}
    lag = {"schedule_lag_ns_p99": 90_000}
    seen = replace(seen, figures=seen.figures | times | never | counts | lag)
    asked = config(operation="read", verify="off", transfers=None, rate_per_s=200.0, deadline_ns=10**9, concurrency=50)
    load = Loaded(asked, seen)
    text = load_report.render(load)
    assert text.splitlines()[:5] == [
        "127.0.0.1:6969, read w-{n}, 200/s, even, 50 at once at most",
        "  served         90 of 100 transfers, 6 late, 4 shed",
        "  response time  p50 2 ms, p95 never, p99 never, max never",
        "  service time   p50 1 ms, p95 never, p99 never",
        "  starts         200/s offered, 192/s achieved; 90 us after their time (p99)",
    ]
    assert "transfer time" not in text
    assert "Warning: 6 of 100 transfers had not ended at their deadline of 1 s: lower the --rate, or give" in text
    assert "Warning: 4 of 100 transfers were not started, as 50 were in flight: lower the --rate, or allow" in text
    assert load.has_failures
    assert Loaded(replace(asked, transfers=100), seen).not_done == 0, "what was shed is said by itself"
    document = load_report.document(load)
    assert (document["rate_per_s"], document["arrivals"], document["deadline_ns"]) == (200.0, "even", 10**9)
    assert (document["response_ns_p99"], document["response_ns_p99_is_never"]) == (None, True)
    names = list(document)
    assert names.index("response_ns_p99_is_never") == names.index("response_ns_p99") + 1
    assert names.index("shed") < names.index("response_ns_p50") < names.index("transfer_ns_p50")
    assert load_report.document(Loaded(config(), COMPLETED))["arrivals"] is None
    now = Progress(2 * 10**9, 10**8, started=5, ended=3, completed=3, bytes=0)
    assert load_report.waiting(asked, now).endswith("waiting up to 1 s for 2 open transfers.")


STEP = Step("read", "grub.cfg", (), 600, 0, "whole", 0, 0, "", 0, (1,), (1,), "give_up", 0, "gap")


def booted(*machines: tuple[str, int]) -> LoadResult:
    """Machines of a storm as (outcome, end or -1); those that failed got no answer to their only request."""
    outcomes = [outcome for outcome, _ in machines]
    boots = {
        "outcome": np.array([BOOT_OUTCOMES.index(outcome) for outcome in outcomes]),
        "intended_start_ns": np.full(len(machines), 1_000_000),
        "actual_start_ns": np.full(len(machines), 1_000_000),
        "end_ns": np.array([end for _, end in machines]),
        "share": np.zeros(len(machines), np.int64),
        "failed_step": np.array([-1 if outcome == "booted" else 1 for outcome in outcomes]),
        "reason": np.array([2 if outcome == "failed" else 0 for outcome in outcomes]),
    }
    figures: dict[str, int | float | None] = {"machines": len(machines), "booted": outcomes.count("booted")}
    figures |= {f"boots_{name}": outcomes.count(name) for name in BOOT_OUTCOMES[1:]}
    figures |= {"boot_ns_p50": 99_000_000, "boot_ns_p99": None, "boot_ns_p99_is_never": True, "misses": 8}
    figures |= {"boot_ns_max": None, "boot_ns_max_is_never": True, "misses_unanswered": 2, "burst_ns": 3_000_000}
    return replace(COMPLETED, figures=COMPLETED.figures | figures, boots=boots)


def test_of_machines_it_says_first_how_many_are_up_since_when_and_where_the_others_stopped() -> None:
    ends = [("booted", 1_000_000 + 1_000_000 * place) for place in range(1, 100)]
    asked = config(boots=(Share("pi4", 1, (STEP,)),), over_ns=0, transfers=100, concurrency=100, operation="read")
    load = Loaded(asked, booted(*ends, ("failed", 2 * 10**9)))
    text = load_report.render(load)
    assert text.splitlines()[:7] == [
        "127.0.0.1:6969, boot pi4, 100 machines at once",
        "  booted         99 of 100 machines, 1 failed",
        "  up             half after 50 ms, 99 % after 99 ms, the last never",
        "  boot time      p50 99 ms, p99 never, max never",
        "  absent files   p50 -, p99 - until refused; 2 of 8 without an answer",
        "  starts         the last 3 ms after the first",
        "  requests       4 of 4 ended as they should",
    ]
    assert "transfer time" not in text
    assert "Machines:\n  1 machine stopped at grub.cfg: no answer\n  left 2 requests for absent files" in text
    assert load.has_failures
    assert not Loaded(asked, booted(*ends, ("booted", 10**9))).has_failures
    document = load_report.document(load)
    names = list(document)
    assert names.index("machines") < names.index("booted") < names.index("boot_ns_p50") < names.index("started")
    assert (document["boot"], document["operation"], document["machines_asked"]) == ("pi4", None, 100)
    assert (document["boot_ns_p99"], document["boot_ns_p99_is_never"]) == (None, True)
    assert document["stopped"] == list(load.stopped)
    braked = load_report.document(Loaded(asked, replace(load.result, stopped="failing")))
    assert (braked["braked"], braked["stopped"], document["braked"]) == ("failing", list(load.stopped), None)


def test_machines_that_were_not_begun_are_not_up() -> None:
    asked = config(boots=(Share("pi4", 1, (STEP,)),), over_ns=10**9, transfers=100, concurrency=100, operation="read")
    load = Loaded(asked, booted(*[("booted", 2_000_000)] * 50))
    assert ", 99 % never, the last never\n" in load_report.render(load)


def test_what_ctrl_c_cut_off_is_neither_up_nor_never() -> None:
    asked = config(boots=(Share("pi4", 1, (STEP,)),), over_ns=10**9, transfers=100, concurrency=100, operation="read")
    begun = [*[("booted", 2_000_000)] * 50, *[("interrupted", 3_000_000)] * 10]
    cut = Loaded(asked, booted(*begun), interrupted=True)
    assert ", 99 % -, the last -\n" in load_report.render(cut)
    assert "half after 1 ms" in load_report.render(cut)
    lossy = Loaded(asked, booted(*begun, ("failed", 3_000_000)), interrupted=True)
    assert ", 99 % -, the last never\n" in load_report.render(lossy)
    braked = Loaded(asked, replace(booted(*begun), stopped="failing"))
    assert braked.up_after_ns(1.0) is None
    assert Loaded(asked, booted(*begun)).up_after_ns(1.0) == math.inf, "its own time was over"


def test_each_row_of_a_sample_stands_for_as_many_machines_that_booted() -> None:
    ends = [("booted", 1_000_000 + 1_000_000 * place) for place in range(1, 201)]
    asked = config(boots=(Share("pi4", 1, (STEP,)),), over_ns=0, transfers=200, operation="read")
    whole = booted(*ends)
    fourth = {name: column[3::4] for name, column in whole.boots.items()}
    none = {name: column[:0] for name, column in whole.boots.items()}
    for boots, expected in ((whole.boots, [100e6, 200e6]), (fourth, [100e6, 200e6]), (none, [None, None])):
        load = Loaded(asked, replace(whole, boots=boots))
        assert [load.up_after_ns(share) for share in (0.5, 1.0)] == expected
    assert "  up             half -, 99 % -, the last -\n" in load_report.render(load)
    lost = booted(*ends[:100], *[("late", 10**9)] * 100)
    assert Loaded(asked, replace(lost, boots=none)).up_after_ns(0.51) == math.inf


def test_machines_that_were_late_or_shed_are_warned_of_by_what_was_asked() -> None:
    asked = config(boots=(Share("pi4", 1, (STEP,)),), over_ns=10**9, transfers=3, concurrency=2, operation="read")
    text = load_report.render(Loaded(asked, booted(("booted", 5), ("late", -1), ("shed", -1))))
    assert "Warning: 1 of 3 machines had not ended at their deadline of 30 s: spread them by a longer --over" in text
    assert "Warning: 1 of 3 machines were not started, as 2 were in flight: spread them by a longer --over" in text


def test_a_shape_is_named_by_its_pieces() -> None:
    ramp = Piece("ramp", (10, 10**9), (500, 10**9), 60 * 10**9)
    hold, burst = Piece("hold", (1, 2 * 10**7), (1, 2 * 10**7), 10**9), Piece("burst", count=2000)
    text = load_report.render(Loaded(config(shape=(ramp, hold, burst), transfers=None), COMPLETED))
    assert "write w-{n}, 10/s to 500/s in 1 min, 50/s for 1 s, 2,000 at once, even, 2 at once at most" in text


def test_a_load_from_hosts_says_how_many_they_were_and_how_far_apart() -> None:
    apart = {"load_hosts": 3, "clock_error_ns_max": 200_000, "start_spread_ns": 900_000}
    load = Loaded(config(operation="read", verify="off"), replace(COMPLETED, figures=COMPLETED.figures | apart))
    lines = load_report.render(load).splitlines()
    assert lines[0] == "127.0.0.1:6969, read w-{n}, 2 at once, from 3 load hosts"
    assert "  load hosts     3, clocks known to 200 us, first starts within 900 us" in lines
    document = load_report.document(load)
    assert {name: document[name] for name in apart} == apart
    assert (document["hosts_lost"], document["verdict"]) == (None, "valid")
    assert "load hosts" not in load_report.render(Loaded(config(), COMPLETED))


@pytest.mark.parametrize("brought_back", [result(), result(("completed", -1), ("interrupted", -1))])
def test_a_lost_load_host_is_said_once_and_blames_no_server(brought_back: LoadResult) -> None:
    figures = brought_back.figures | {"load_hosts": 2}
    lost = replace(brought_back, figures=figures, stopped="load host lost", hosts_lost="b: no answer for 3 s")
    load = Loaded(config(operation="read", transfers=100), lost)
    document = load_report.document(load)
    names = ("verdict", "verdict_reason", "hosts_lost", "failures", "braked")
    reason = "load host lost: b: no answer for 3 s"
    assert [document[name] for name in names] == ["invalid", reason, "b: no answer for 3 s", True, None]
    assert document["warnings"] == [f"{reason}: {validity.Kind.HOST_LOST.value}"]
    text = load_report.render(load)
    assert "most of the last 100" not in text
    assert "nothing answered" not in text
    assert "were not done when the load ended" not in text


def test_load_hosts_that_started_late_are_judged_by_the_shortest_piece_of_a_shape() -> None:
    rate = (1, 1_000_000)
    pieces = (Piece("hold", rate, rate, 2_000_000_000), Piece("hold", rate, rate, 60_000_000_000))
    for spread_ns, verdict in ((20_000_000, "valid"), (20_000_001, "invalid")):
        figures = COMPLETED.figures | {"load_hosts": 2, "clock_error_ns_max": 1, "start_spread_ns": spread_ns}
        load = Loaded(config(shape=pieces, transfers=None), replace(COMPLETED, figures=figures))
        assert load_report.document(load)["verdict"] == verdict
