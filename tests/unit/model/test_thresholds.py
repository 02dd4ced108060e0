"""Thresholds."""

import pytest

from tftpbench.model import thresholds
from tftpbench.model.errors import ThresholdError


def row(server: str = "epoll", verdict: str = "valid", **figures: object) -> dict[str, object]:
    return {"server": server, "variant": None, "verdict": verdict, **figures}


def verdicts(text: str, *rows: dict[str, object]) -> list[tuple[str, str, float | None]]:
    judged = thresholds.evaluate([thresholds.parse(text)], rows)
    return [(verdict.server, verdict.state, verdict.value) for verdict in judged]


def test_a_threshold_is_server_column_operator_number() -> None:
    assert thresholds.parse(" epoll.failed == 0 ") == thresholds.Threshold("epoll", "failed", "==", 0)
    assert thresholds.parse("data_pps>=1.5e4") == thresholds.Threshold(None, "data_pps", ">=", 15_000)
    assert thresholds.parse("tftpd-hpa@as_shipped.failed<1").server == "tftpd-hpa@as_shipped"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("transfer_ns_max <= 5s", 5e9),
        ("transfer_ns_max<=0.07 s", 70_000_000),
        ("block_rtt_ns_p99 < 250us", 250_000),
        ("duration_s > 500ms", 0.5),
        ("goodput_bytes_per_s >= 80MiB", 80 * 2**20),
        ("goodput_bytes_per_s >= 1.5 MB/s", 1_500_000),
        ("server_rss_bytes_max < 64KiB", 65536),
        ("data_pps > 50k/s", 50_000),
        ("transfers_per_s > 100/s", 100),
        ("ceiling_ratio >= 95 %", 0.95),
        ("busy_poll_us <= 1ms", 1000),
        ("transfer_ns_max <= 5000000000", 5e9),
    ],
)
def test_a_limit_may_have_a_unit_that_fits_its_column(text: str, limit: float) -> None:
    assert thresholds.parse(text).limit == limit
    assert thresholds.parse(str(thresholds.parse(text))) == thresholds.parse(text)


@pytest.mark.parametrize(
    ("text", "figures", "said"),
    [
        ("transfer_ns_max <= 5s", {"transfer_ns_max": 7.28e9}, "7.28 s, limit 5 s, largest of 1 valid trial"),
        (
            "transfer_ns_max <= 5s",
            {"transfer_ns_max": 5_000_000_001},
            "5000000001 ns, limit 5000000000 ns, largest",
        ),
        ("goodput_bytes_per_s >= 80MiB", {"goodput_bytes_per_s": 2**20}, "1 MiB/s, limit 80 MiB/s, median"),
        ("transfer_ns_max <= 10", {"transfer_ns_max": 2e9}, "2 s, limit 10 ns (a number alone is ns), largest"),
        ("data_pps > 50000", {"data_pps": 131_072}, "131 k/s, limit 50 k/s, median"),
        ("failed == 0", {"failed": 3}, "3, missed in 1 of 1 trial"),
        ("fairness < 9", {"fairness": 9.5}, "9.5, median"),
        ("data_pps > 1", {}, "not known in any valid trial"),
    ],
)
def test_a_verdict_says_the_figure_beside_its_limit(text: str, figures: dict[str, object], said: str) -> None:
    [verdict] = thresholds.evaluate([thresholds.parse(text)], [row() | figures])
    assert verdict.text.startswith(said)


@pytest.mark.parametrize(
    "text", ["epoll.failed == 0", "data_pps >= 50000", "fairness < 2.5", "transfer_ns_max <= 5s", "pps > 80 k"]
)
def test_a_threshold_is_written_as_it_was_read(text: str) -> None:
    assert str(thresholds.parse(text)).replace("80k", "80 k") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoll.faild == 0", "did you mean 'failed'?"),
        ("epoll.failed = 0", "is no threshold"),
        ("epoll.failed == none", "is no threshold"),
        ("failed", "is no threshold"),
        ("", "is no threshold"),
        ("verdict == 0", "verdict is no number"),
        ("transfer_ns_max <= 5parsec", "has the unit 'parsec'; allowed: a number, or one with a unit: 200ms, 1.5s"),
        ("failed <= 5s", "has the unit 's'; allowed: a number without a unit"),
        ("transfer_ns_max >= 1e400", "'transfer_ns_max >= 1e400' is beyond 1e+18 ns; allowed: a limit that can be re"),
        ("transfer_ns_max >= 1e400s", "is beyond 1e+18 ns"),
        ("transfer_ns_max <= 1e10s", "is beyond 1e+18 ns"),
        ("failed >= -1e19", "is beyond 1e+18; allowed"),
        ("goodput_bytes_per_s > 5ms", "has the unit 'ms'; allowed: a number, or one with a unit: 80MiB/s"),
    ],
)
def test_what_is_no_threshold_is_one_line_that_says_so(text: str, said: str) -> None:
    with pytest.raises(ThresholdError) as error:
        thresholds.parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_server_every_server_is_judged() -> None:
    rows = [row(failed=0), row("threads", failed=2)]
    assert verdicts("failed == 0", *rows) == [("epoll", "held", 0), ("threads", "missed", 2)]


def test_a_count_must_hold_in_every_trial_invalid_ones_too() -> None:
    rows = [row(content_mismatches=0), row(verdict="invalid", content_mismatches=3)]
    assert verdicts("content_mismatches == 0", *rows) == [("epoll", "missed", 3)]


def test_a_measurement_is_the_median_of_the_valid_trials() -> None:
    rows = [row(data_pps=1000.0), row(data_pps=9.0), row(data_pps=2000.0), row(verdict="invalid", data_pps=1.0)]
    assert verdicts("data_pps > 900", *rows) == [("epoll", "held", 1000)]


def test_a_time_that_is_never_misses_every_limit() -> None:
    never, soon = row(response_ns_p99=None, response_ns_p99_is_never=True), row(response_ns_p99=5)
    for text in ("response_ns_p99 <= 30", "response_ns_p99 > 0"):
        assert verdicts(text, soon, never, never) == [("epoll", "missed", None)]
    assert verdicts("response_ns_p99 <= 30", soon, soon, never) == [("epoll", "held", 5)]


def test_a_maximum_is_the_largest_of_the_valid_trials() -> None:
    longest = [9, 1, 1, 1, 1]
    rows = [row(transfer_ns_max=each) for each in longest] + [row(verdict="invalid", transfer_ns_max=99)]
    assert verdicts("transfer_ns_max <= 5", *rows) == [("epoll", "missed", 9)]
    assert verdicts("transfer_ns_max <= 9", *rows) == [("epoll", "held", 9)]
    [verdict] = thresholds.evaluate([thresholds.parse("transfer_ns_max <= 5")], rows)
    assert verdict.text.endswith("largest of 5 valid trials")


def test_what_is_not_known_never_holds() -> None:
    assert verdicts("udp_drops_server == 0", row(udp_drops_server=0), row()) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(fairness=None)) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(fairness=float("nan"))) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(verdict="invalid", fairness=1.0)) == [("epoll", "not known", None)]
    assert verdicts("threads.failed == 0", row(failed=0)) == [("threads", "not known", None)]
    assert verdicts("failed == 0") == [("", "not known", None)]
    assert not any(verdict.held for verdict in thresholds.evaluate([thresholds.parse("failed == 0")], [row()]))


def test_a_miss_counts_even_where_another_trial_is_not_known() -> None:
    assert verdicts("failed == 0", row(), row(failed=1)) == [("epoll", "missed", 1)]


def test_a_name_speaks_of_all_variants_and_name_at_variant_of_one() -> None:
    rows = [row("tftpy", failed=0), {**row("tftpy", failed=4), "variant": "as_shipped"}]
    assert verdicts("tftpy.failed == 0", *rows) == [("tftpy", "held", 0), ("tftpy@as_shipped", "missed", 4)]
    assert verdicts("tftpy@as_shipped.failed == 4", *rows) == [("tftpy@as_shipped", "held", 4)]


@pytest.mark.parametrize(
    ("op", "held"),
    [("==", [5]), ("!=", [4, 6]), ("<", [4]), ("<=", [4, 5]), (">", [6]), (">=", [5, 6])],
)
def test_each_operator_means_what_it_says(op: str, held: list[int]) -> None:
    assert [value for value in (4, 5, 6) if verdicts(f"failed {op} 5", row(failed=value))[0][1] == "held"] == held


def test_a_count_over_invalid_trials_alone_is_judged_where_the_server_served_to_the_end() -> None:
    busy = row(verdict="invalid", failed=0, content_mismatches=3, completed=7, data_pps=5.0)
    assert verdicts("failed == 0", busy, busy) == [("epoll", "held", 0)]
    assert verdicts("content_mismatches == 0", busy) == [("epoll", "missed", 3)]
    assert verdicts("data_pps > 1", busy) == [("epoll", "not known", None)]
    assert verdicts("failed == 0", busy, busy | {"failed": None}) == [("epoll", "not known", None)]


@pytest.mark.parametrize(
    "lost",
    [
        {"completed": 0},
        {"server_findings": [{"kind": "died", "count": 1, "text": "died with SIGSEGV"}]},
        {"server_findings": [{"kind": "not_ready", "count": 1, "text": "never was ready"}]},
        {"started": 9, "timed_out": 0, "interrupted": 0},
    ],
)
def test_a_count_is_not_known_where_the_server_never_served_to_the_end(lost: dict[str, object]) -> None:
    unfinished = row(verdict="invalid", failed=0, completed=7) | lost
    assert verdicts("failed == 0", unfinished) == [("epoll", "not known", None)]
    assert verdicts("failed == 0", unfinished | {"failed": 1}) == [("epoll", "missed", 1)]
    assert verdicts("failed == 0", unfinished, row(failed=0)) == [("epoll", "held", 0)]
