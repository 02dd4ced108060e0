"""The load generator against peers that behave and peers that do not, over real sockets and over packet rings."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.loopback.peer import (
    ACK,
    ERROR,
    RRQ,
    Address,
    Peer,
    ack,
    contents,
    data,
    error,
    listening,
    oack,
    opcode,
    peer,
    placed,
    serve_bytes,
)
from tftpbench.host import generator
from tftpbench.host.generator import LoadConfig, LoadResult, run_load
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.model.errors import LoadError
from tftpbench.model.metrics import OUTCOMES

SIZE = 2_000


class Arrangement:
    """How the clients of the test at hand come to their sockets."""

    sockets: generator.Sockets = "per-transfer"


@pytest.fixture(params=["per-transfer", "shared", "ring"], autouse=True)
def arrangement(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is done with all."""
    monkeypatch.setattr(Arrangement, "sockets", request.param)
    if request.param == "ring":
        request.getfixturevalue("over_rings")


# For tests of silence; all else waits as long as a busy machine needs.
IMPATIENT = {"timeout_ns": 20_000_000, "retries": 1}
# For tests in which an answer must come in time, and then silence.
SHORT = {"timeout_ns": 1_000_000_000, "retries": 1}


def config(port: int, **changes: object) -> LoadConfig:
    """Ten reads of one file, two at a time, by clients that repeat nothing unless something is lost."""
    values: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "operation": "read",
        "name": "f-{n}",
        "file_size_bytes": SIZE,
        "concurrency": 2,
        "transfers": 10,
        "timeout_ns": 10_000_000_000,
        "retries": 1,
        "backoff": "constant",
        "sockets": Arrangement.sockets,
    }
    asked = LoadConfig(**(values | changes))  # type: ignore[arg-type]  # values are checked by the native side
    return asked if changes.keys() & {"host", "sockets"} else placed(asked)


def figure(result: LoadResult, name: str) -> float:
    """A figure that must be known."""
    value = result.figures[name]
    assert value is not None, name
    return value


def ended(result: LoadResult) -> dict[str, float]:
    """How the transfers ended; and they always add up."""
    counts = {name: figure(result, name) for name in OUTCOMES}
    assert sum(counts.values()) == figure(result, "started") == len(result.transfers["outcome"])
    return {name: count for name, count in counts.items() if count}


def test_every_byte_of_every_transfer_is_verified() -> None:
    with peer(serve_bytes(contents())) as server:
        result = run_load(config(server.port))
    assert ended(result) == {"completed": 10}
    assert figure(result, "bytes_verified") == 10 * SIZE
    assert figure(result, "content_mismatches") == 0
    assert result.faults == ()


def test_a_server_may_answer_from_its_listening_port() -> None:
    with peer(serve_bytes(contents())) as server:
        run_load(config(server.port, transfers=1, concurrency=1))
        assert [opcode(datagram) for datagram in server.received[:2]] == [RRQ, ACK]


def test_a_thousand_clients_at_once_may_be_answered_from_one_listening_port() -> None:
    patient = {"timeout_ns": 200_000_000, "retries": 100}
    with peer(serve_bytes(contents())) as server:
        result = run_load(config(server.port, transfers=1_500, concurrency=1_000, **patient))
    assert ended(result) == {"completed": 1_500}
    assert figure(result, "content_mismatches") == 0
    assert figure(result, "strays") == 0


def test_a_server_bound_to_every_address_is_heard() -> None:
    with peer(serve_bytes(contents()), host="0.0.0.0") as server:
        result = run_load(config(server.port))
    assert ended(result) == {"completed": 10}
    assert result.faults == ()


def test_an_answer_from_another_address_than_the_one_asked_is_a_stray() -> None:
    if Arrangement.sockets == "ring":
        pytest.skip("a server has one address in a network of its own")
    with listening("127.0.0.2") as other:

        def answer(_self: Peer, _datagram: bytes, address: Address) -> None:
            other.sendto(data(1, b"x"), address)

        with peer(answer) as server:
            result = run_load(config(server.port, transfers=2, **SHORT))
    assert ended(result) == {"timed_out": 2}
    assert figure(result, "strays") >= 2
    assert set(result.transfers["first_response_ns"]) == {-1}


@pytest.mark.parametrize(
    ("granted", "in_force"),
    [
        ({}, (512, 1)),
        ({"blksize": 800}, (800, 1)),
        ({"blksize": 1_024, "windowsize": 2}, (1_024, 2)),
        ({"blksize": 1_024, "windowsize": 4}, (1_024, 4)),
    ],
    ids=["ignored", "lowered", "half", "granted"],
)
def test_what_the_server_granted_is_told(granted: dict[str, int], in_force: tuple[int, int]) -> None:
    with peer(serve_bytes(contents(), **granted)) as server:
        result = run_load(config(server.port, blksize=1_024, windowsize=4))
    assert ended(result) == {"completed": 10}
    assert (result.figures["blksize_granted"], result.figures["windowsize_granted"]) == in_force


@pytest.mark.parametrize(
    ("answers", "outcome", "error_code", "first_answer"),
    [
        ([error(1)], "failed", 1, "the last datagram"),
        ([error(1), error(1)], "failed", 1, "the last datagram"),
        ([oack(blksize=800), error(1)], "failed", 1, "earlier"),
        ([oack(blksize=1_025)], "failed", -1, "the last datagram"),
        ([], "timed_out", -1, "none"),
        ([oack(blksize=800)], "timed_out", -1, "earlier"),
    ],
    ids=["refused", "refused-twice", "failed-later", "broke-a-rule", "silent", "stalled"],
)
def test_a_row_tells_how_a_transfer_that_did_not_complete_came_to_its_end(
    answers: list[bytes], outcome: str, error_code: int, first_answer: str
) -> None:
    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        for datagram_back in answers if opcode(datagram) == RRQ else ():
            self.send(datagram_back, address)

    with peer(answer) as server:
        waits = SHORT if outcome == "timed_out" else {}
        result = run_load(config(server.port, transfers=1, concurrency=1, blksize=1_024, windowsize=4, **waits))
    row = {name: int(column[0]) for name, column in result.transfers.items()}
    first_ns, end_ns = row["first_response_ns"], row["end_ns"]
    first = "none" if first_ns == -1 else "the last datagram" if first_ns == end_ns else "earlier"
    assert (OUTCOMES[row["outcome"]], row["error_code"], first) == (outcome, error_code, first_answer)
    granted = result.figures["blksize_granted"], result.figures["windowsize_granted"]
    assert granted == ((800, 1) if oack(blksize=800) in answers else (None, None))


def test_one_wrong_byte_is_a_mismatch_with_evidence() -> None:
    wrong = bytearray(contents())
    wrong[1_500] ^= 1
    with peer(serve_bytes(bytes(wrong))) as server:
        result = run_load(config(server.port, transfers=3))
    assert figure(result, "content_mismatches") == 3
    assert [fault.kind for fault in result.faults] == ["wrong_contents"]
    assert "DATA" in result.faults[0].example


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0, 1_536])
def test_a_file_that_ends_too_early_or_too_late_is_a_mismatch(size: int) -> None:
    with peer(serve_bytes(contents(size=size))) as server:
        result = run_load(config(server.port, transfers=2))
    assert figure(result, "content_mismatches") == 2


def test_an_error_is_a_failed_transfer_with_its_code() -> None:
    with peer(lambda self, _datagram, address: self.send(error(1), address)) as server:
        result = run_load(config(server.port))
    assert ended(result) == {"failed": 10}
    assert set(result.transfers["error_code"]) == {1}


def test_a_silent_server_is_timed_out_after_all_retries() -> None:
    with peer(lambda _self, _datagram, _address: None) as server:
        result = run_load(config(server.port, transfers=2, **IMPATIENT))
    assert ended(result) == {"timed_out": 2}
    assert len(server.received) == 4
    assert set(result.transfers["first_response_ns"]) == {-1}
    assert figure(result, "retransmissions") == 2


def test_a_port_where_nobody_listens_is_timed_out() -> None:
    with listening() as unused:
        port = unused.getsockname()[1]
    assert ended(run_load(config(port, transfers=2, **IMPATIENT))) == {"timed_out": 2}


@pytest.mark.parametrize(
    ("kind", "garbage"),
    [("too_short", b"\x00"), ("unknown_opcode", b"\x00\x09xx"), ("out_of_place", data(77, b"x" * 512))],
)
def test_garbage_is_counted_by_kind_and_the_transfer_goes_on(kind: str, garbage: bytes) -> None:
    correct = serve_bytes(contents())

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        self.send(garbage, address)
        correct(self, datagram, address)

    with peer(answer) as server:
        result = run_load(config(server.port))
    assert ended(result) == {"completed": 10}
    assert kind in [fault.kind for fault in result.faults]


def test_a_stray_tid_gets_error_5_and_disturbs_nothing() -> None:
    correct = serve_bytes(contents())
    with listening() as stranger:
        stranger.settimeout(25)

        def answer(self: Peer, datagram: bytes, address: Address) -> None:
            if opcode(datagram) == ACK:
                stranger.sendto(data(1, b"wrong"), address)
            correct(self, datagram, address)

        with peer(answer) as server:
            result = run_load(config(server.port, transfers=1, concurrency=1))
        refusal = stranger.recv(1024)
    assert ended(result) == {"completed": 1}
    assert figure(result, "strays") >= 1
    assert [(fault.kind, fault.rfc_section) for fault in result.faults] == [("stray_tid", "RFC 1350 section 4")]
    assert (opcode(refusal), refusal[3]) == (ERROR, 5)


def test_a_second_tid_for_a_request_that_we_repeated_is_a_stray_and_no_fault() -> None:
    requests: list[bytes] = []
    with listening() as second:
        second.settimeout(25)

        def answer(self: Peer, datagram: bytes, address: Address) -> None:
            if opcode(datagram) == RRQ:
                requests.append(datagram)
                if len(requests) == 2:
                    self.send(data(1, contents()[:512]), address)
                    second.sendto(data(1, contents()[:512]), address)
            elif opcode(datagram) == ACK and int.from_bytes(datagram[2:4], "big") * 512 <= SIZE:
                block = int.from_bytes(datagram[2:4], "big")
                self.send(data(block + 1, contents()[block * 512 :][:512]), address)

        with peer(answer) as server:
            result = run_load(config(server.port, transfers=1, concurrency=1, timeout_ns=1_000_000_000, retries=100))
        refusal = second.recv(1024)
    assert ended(result) == {"completed": 1}
    assert figure(result, "strays") == 1
    assert result.faults == ()
    assert (opcode(refusal), refusal[3]) == (ERROR, 5)


def test_a_stop_from_another_thread_interrupts_what_is_in_flight() -> None:
    stop = generator.Stop()
    asked = threading.Event()

    def answer(_self: Peer, _datagram: bytes, _address: Address) -> None:
        if not asked.is_set():
            asked.set()
            stop.request()

    with peer(answer) as server:
        result = run_load(config(server.port, timeout_ns=60_000_000_000), stop)
    assert ended(result) == {"interrupted": 2}


class Announced(MeasuredWindow):
    """A window that remembers what the generator said of it."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[tuple[int, int | None]] = []
        self.over_ns: list[int] = []

    def announce(self, open_ns: int, close_ns: int | None) -> None:
        self.announced.append((open_ns, close_ns))
        super().announce(open_ns, close_ns)

    def close(self, at_ns: int) -> None:
        self.over_ns.append(at_ns)
        super().close(at_ns)


def test_the_window_of_a_duration_opens_after_the_warm_up_and_both_its_edges_are_announced() -> None:
    window, before_ns = Announced(), time.monotonic_ns()
    with peer(serve_bytes(contents())) as server:
        changes = {"transfers": None, "duration_ns": 200_000_000, "warm_up_ns": 50_000_000}
        result = run_load(config(server.port, **changes), window=window)
    [(open_ns, close_ns)], [over_ns] = window.announced, window.over_ns
    assert before_ns + 50_000_000 < open_ns < over_ns < time.monotonic_ns()
    assert close_ns == open_ns + 200_000_000 <= over_ns
    assert result.window_ns == (open_ns, close_ns)
    assert figure(result, "duration_s") == pytest.approx(0.2)
    assert figure(result, "blocks_to_window_end") >= figure(result, "data_pps") * 0.2
    assert int(result.intervals["blocks"].sum()) >= figure(result, "blocks_to_window_end")


def test_the_window_of_fixed_work_closes_with_the_last_completion() -> None:
    window = Announced()
    with peer(serve_bytes(contents())) as server:
        result = run_load(config(server.port), window=window)
    [(open_ns, close_ns)], [over_ns] = window.announced, window.over_ns
    assert close_ns is None
    assert result.window_ns == (open_ns, over_ns)
    assert (over_ns - open_ns) / 1e9 >= figure(result, "duration_s")


def test_a_window_that_is_stopped_in_its_warm_up_has_no_length() -> None:
    stop, window = generator.Stop(), Announced()
    stop.request()
    with peer(serve_bytes(contents())) as server:
        changes = {"transfers": None, "duration_ns": 60_000_000_000, "warm_up_ns": 60_000_000_000}
        result = run_load(config(server.port, **changes), stop, window)
    assert result.window_ns == (window.over_ns[0], window.over_ns[0])


def test_an_exception_at_an_edge_of_the_window_ends_the_run() -> None:
    class Failing(MeasuredWindow):
        def announce(self, *_: object) -> None:
            raise KeyboardInterrupt

    with peer(serve_bytes(contents())) as server, pytest.raises(KeyboardInterrupt):
        run_load(config(server.port), window=Failing())


def test_columns_have_one_length_and_times_are_in_order() -> None:
    with peer(serve_bytes(contents())) as server:
        result = run_load(config(server.port))
    assert {len(column) for column in result.transfers.values()} == {10}
    assert np.all(result.transfers["intended_start_ns"] <= result.transfers["actual_start_ns"])
    assert np.all(result.transfers["actual_start_ns"] <= result.transfers["first_response_ns"])
    assert np.all(result.transfers["first_response_ns"] <= result.transfers["end_ns"])
    assert sorted(result.completed_numbers) == list(range(10))


def test_several_workers_share_the_transfers() -> None:
    with peer(serve_bytes(contents())) as server:
        result = run_load(config(server.port, workers=2, concurrency=3, transfers=20))
    assert ended(result) == {"completed": 20}
    assert sorted(result.completed_numbers) == list(range(20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "192.0.2.1"}, "--allow-remote"),
        ({"host": "::1", "sockets": "shared"}, "127.0.0.0/8"),
        ({"host": "tftp.example"}, "no IP address"),
        ({"concurrency": 0}, "concurrency"),
        ({"workers": 3}, "workers"),
        ({"name": ""}, "name"),
        ({"duration_ns": 1}, "exactly one"),
        ({"concurrency": 10_000_000, "sockets": "per-transfer"}, "open files"),
    ],
)
def test_what_cannot_be_run_is_one_line_that_says_why(changes: dict[str, object], words: str) -> None:
    with pytest.raises(LoadError, match=words) as raised:
        run_load(config(1069, **changes))
    assert "\n" not in str(raised.value)


def test_a_value_that_no_native_number_holds_is_one_line() -> None:
    with pytest.raises(LoadError, match=r"^seed: .*too big"):
        run_load(config(1069, seed=2**64))


class Store:
    """A server that keeps what is written in lock-step, and serves it, but for names that a test takes away."""

    def __init__(self, **altered: bytes) -> None:
        self.files: dict[str, bytes] = {}
        self.altered = altered
        self._writing: dict[Address, str] = {}
        self._reading: dict[Address, bytes] = {}

    def __call__(self, server: Peer, datagram: bytes, client: Address) -> None:
        """Answer one datagram."""
        name = datagram[2:].split(b"\0")[0].decode("latin-1")
        match opcode(datagram):
            case 2 if name == "f-1":
                server.send(error(6), client)
            case 2:
                self._writing[client] = name
                self.files[name] = b""
                server.send(ack(0), client)
            case 3:
                name, block = self._writing[client], int.from_bytes(datagram[2:4], "big")
                if block == len(self.files[name]) // 512 + 1:
                    self.files[name] += datagram[4:]
                server.send(ack(block), client)
            case 1 if self.altered.get(name) == b"refused":
                server.send(error(2), client)
            case 1:
                self._reading[client] = self.altered.get(name, self.files.get(name, b""))
                server.send(data(1, self._reading[client][:512]), client)
            case 4:
                block = int.from_bytes(datagram[2:4], "big")
                if block * 512 <= len(self._reading[client]):
                    server.send(data(block + 1, self._reading[client][block * 512 :][:512]), client)


def uploaded(store: Store) -> generator.ReadBack:
    """Four uploads of f-0 to f-3, of which the server refuses f-1, read back."""
    with peer(store) as server:
        asked = config(server.port, operation="write", verify="full", transfers=4, distinct_files=0)
        uploads = run_load(asked)
        assert ended(uploads) == {"completed": 3, "failed": 1}
        return generator.read_back(asked, uploads)


def test_completed_uploads_are_read_back_and_compared() -> None:
    assert uploaded(Store()) == generator.ReadBack(files=3, compared=3, bytes=3 * SIZE, mismatches=0, errors=())


def test_an_upload_that_comes_back_otherwise_is_a_mismatch() -> None:
    assert uploaded(Store(**{"f-2": b"x" * SIZE})).mismatches == 1


def test_an_older_file_under_the_name_of_a_failed_upload_is_not_judged() -> None:
    found = uploaded(Store(**{"f-1": b"older" * 400, "f-3": contents(file=3)[:-1]}))
    assert (found.files, found.compared, found.mismatches) == (3, 3, 1)


def test_a_server_that_refuses_to_serve_uploads_is_told_and_no_crash() -> None:
    found = uploaded(Store(**{"f-0": b"refused", "f-2": b"refused"}))
    assert found == generator.ReadBack(files=3, compared=1, bytes=SIZE, mismatches=0, errors=(2,))


def test_what_one_of_several_hosts_has_uploaded_is_read_back_whatever_its_share_is() -> None:
    with peer(Store(**{"f-0": b"x" * SIZE})) as server:
        shared = {"transfers": 4, "distinct_files": 2, "share": (2, 1, 4)}
        asked = config(server.port, operation="write", verify="full", **shared)
        uploads = run_load(asked)
        assert uploads.completed_numbers == [2]
        found = generator.read_back(asked, uploads)
    assert (found.files, found.compared, found.mismatches) == (1, 1, 1)


def test_without_a_completed_upload_nothing_is_read() -> None:
    with peer(lambda server, _, client: server.send(error(2), client)) as server:
        asked = config(server.port, operation="write", verify="full", transfers=2)
        assert generator.read_back(asked, run_load(asked)) == generator.ReadBack(0, 0, 0, 0, ())
        assert {opcode(datagram) for datagram in server.received} == {2}


def test_generated_contents_follow_their_definition(tmp_path: Path) -> None:
    path = tmp_path / "file"
    generator.write_contents(path, 9, 4, 5_003)
    assert path.read_bytes() == contents(seed=9, file=4, size=5_003)
    assert generator.first_difference(path, 9, 4, 5_003) is None
    assert generator.first_difference(path, 9, 5, 5_003) == 0


def test_a_read_can_be_verified_against_a_given_file(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"\x07" * 700)
    with peer(serve_bytes(b"\x07" * 700)) as server:
        right = run_load(config(server.port, verify_against=given))
        given.write_bytes(b"\x07" * 699 + b"\x08")
        wrong = run_load(config(server.port, verify_against=given))
    assert figure(right, "content_mismatches") == 0
    assert figure(wrong, "content_mismatches") == 10
