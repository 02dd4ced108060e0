"""What `tftpbench load` says in the end, from figures made by hand."""

import numpy as np
import pytest

from tftpbench import _core
from tftpbench.host.generator import LoadConfig, LoadResult, ReadBack
from tftpbench.model.metrics import OUTCOMES
from tftpbench.model.protocol import ERRORS
from tftpbench.render import load_report


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


def test_what_was_read_back_is_printed_and_wrong_bytes_are_a_failure() -> None:
    back = ReadBack(files=4, compared=4, bytes=4096, mismatches=1, errors=())
    text = load_report.render(config(), COMPLETED, back)
    assert "4 of 4 files read back, 4 KiB compared, 1 with wrong bytes" in text
    assert load_report.has_failures(config(), COMPLETED, back)
    assert not load_report.has_failures(config(), COMPLETED)
    found = load_report.document(config(), COMPLETED, back)
    assert (found["bytes_verified"], found["content_mismatches"]) == (4096, 1)
    assert found["read_back"] == {"files": 4, "compared": 4}


@pytest.mark.parametrize(("errors", "why"), [((1, 2), "ERROR 1 (file not found), ERROR 2"), ((), "no answer")])
def test_a_server_that_refuses_to_serve_uploads_is_a_warning(errors: tuple[int, ...], why: str) -> None:
    back = ReadBack(files=4, compared=1, bytes=1024, mismatches=0, errors=errors)
    assert f"Warning: 3 of 4 files could not be read back ({why}" in load_report.render(config(), COMPLETED, back)
    assert not load_report.has_failures(config(), COMPLETED, back)


def test_errors_of_the_server_are_counted_by_code_and_named() -> None:
    found = result(("failed", 6), ("failed", 6), ("failed", 77), ("completed", -1))
    text = load_report.render(config(), found)
    assert "ERROR 6 (file already exists): 2 times" in text
    assert "ERROR 77: once" in text
    assert load_report.document(config(), found)["errors"] == {"6": 2, "77": 1}


def test_nothing_that_answers_is_a_failure_with_the_mend() -> None:
    found = result(("interrupted", -1), ("interrupted", -1), answered=False)
    assert load_report.has_failures(config(), found)
    text = load_report.render(config(operation="read"), found)
    assert "nothing answered: look whether a server listens on 127.0.0.1:6969" in text
    assert "nothing answered" not in load_report.render(config(), COMPLETED)


def test_transfers_that_timed_out_are_a_failure_and_one_sentence() -> None:
    found = result(*[("completed", -1)] * 2, *[("timed_out", -1)] * 2)
    assert load_report.has_failures(config(), found)
    sentence = "2 of 4 transfers timed out, since the server did not answer"
    assert f"Warning: {sentence}" in load_report.render(config(), found)
    warnings = load_report.document(config(), found)["warnings"]
    assert isinstance(warnings, list)
    assert warnings[0].startswith(sentence)


def test_of_a_number_of_transfers_those_that_were_not_done_are_a_failure_and_of_a_duration_none_is() -> None:
    found = result(("completed", -1), ("completed", -1), ("interrupted", -1))
    assert load_report.has_failures(config(transfers=4), found)
    assert "2 of 4 transfers were not done when the load ended" in load_report.render(config(transfers=4), found)
    lasting = config(transfers=None, duration_ns=10**9)
    assert not load_report.has_failures(lasting, found)
    assert "Warning" not in load_report.render(lasting, found)


def test_errors_mean_here_what_they_mean_to_the_native_core() -> None:
    assert dict(enumerate(_core.error_meanings())) == ERRORS
    assert [load_report.error_text(code) for code in (0, 8, 9)] == [
        "ERROR 0 (not defined)", "ERROR 8 (option refused)", "ERROR 9",
    ]  # fmt: skip
