"""Sizes, durations and rates."""

import pytest

from tftpbench.model import units


@pytest.mark.parametrize(
    ("text", "size"),
    [(512, 512), ("512", 512), ("64KiB", 65536), ("10MiB", 10_485_760), ("10MB", 10**7), ("1.5 kB", 1500), ("0", 0)],
)
def test_a_size_is_read_in_bytes(text: str | int, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [("200ms", 200_000_000), ("1.5s", 1_500_000_000), ("2min", 120 * 10**9), ("1h", 3600 * 10**9), ("7us", 7000)],
)
def test_a_duration_is_read_in_nanoseconds(text: str, duration_ns: int) -> None:
    assert units.parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 parsec", "1e3s", "1s2ms", "٣s", "9" * 30 + "s"])
def test_what_is_no_duration_is_refused_and_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number with a unit"):
        units.parse_duration_ns(text)


def test_a_duration_without_a_unit_is_asked_about() -> None:
    with pytest.raises(ValueError, match=r"is ' 1\.5', without a unit; did you mean '1\.5s'\?$"):
        units.parse_duration_ns(" 1.5")


@pytest.mark.parametrize("text", ["64 kib", "1.2.3B", "MiB", "-5"])
def test_what_is_no_size_is_refused_and_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: bytes as a number"):
        units.parse_bytes(text)


def test_large_sizes_lose_no_byte() -> None:
    assert units.parse_bytes("9007199254740993") == 2**53 + 1


@pytest.mark.parametrize("duration_ns", [0, 1, 999, 1000, 1500, 200_000_000, 90 * 10**9, 123_456_789_012])
def test_a_duration_survives_being_written_and_read(duration_ns: int) -> None:
    assert units.parse_duration_ns(units.duration_text(duration_ns)) == duration_ns


def test_people_read_three_digits_and_a_unit() -> None:
    assert [units.format_bytes(size) for size in (0, 512, 1500, 65536, 10_485_760)] == [
        "0 B",
        "512 B",
        "1500 B",
        "64 KiB",
        "10 MiB",
    ]
    assert [units.format_duration(span) for span in (0, 950, 12_345_678, 999_999_999, 1.5e9, 185e9)] == [
        "0 ns",
        "950 ns",
        "12.3 ms",
        "1 s",
        "1.5 s",
        "3 min 5 s",
    ]
    assert units.format_rate(131_072, "data") == "131 k data/s"
    assert units.format_rate(12.5) == "12.5 /s"


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (131_072, "131 k"), (2.5e6, "2.5 M")])
def test_a_count_is_written_without_a_unit(count: float, text: str) -> None:
    assert units.format_count(count) == text


@pytest.mark.parametrize("of", ["ns", "us", "s", "bytes", "bytes/s", "1/s", "share", ""])
@pytest.mark.parametrize("value", [1e18, 1e300, 1.7e308, float("inf"), float("nan"), -1e300, 5e-324])
def test_no_figure_is_too_large_to_be_written_or_long(value: float, of: str) -> None:
    assert 0 < len(units.format_figure(value, of)) <= 400
    assert abs(value) < 1 or len(units.format_figure(value, of)) < 20


def test_a_span_of_days_is_written_in_hours() -> None:
    assert [units.format_duration(hours * 3600e9) for hours in (24, 240, 1e6, 1e200)] == [
        "1440 min", "240 h", "1000000 h", "1e+200 h",
    ]  # fmt: skip
