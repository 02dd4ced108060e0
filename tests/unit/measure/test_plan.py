"""The order of trials, and who takes part in them."""

import json
import lzma
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.unit.builders import contender, scenario
from tftpbench.host.brake import leaves_machine
from tftpbench.host.choice import choose
from tftpbench.host.generator import LoadConfig, LocalGenerator, in_network
from tftpbench.host.network import Network, NetworkRefused
from tftpbench.host.presence import Found, Missing
from tftpbench.host.target import Target
from tftpbench.measure.plan import Contender, Plan, Trial, contenders, costs_s, estimate_s, networked, on_hosts, plan
from tftpbench.model.boot import Share, load_boot, shares
from tftpbench.model.errors import UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario, from_document

REFERENCE = sorted((Path(__file__).parents[3] / "results" / "reference").glob("*/trials.jsonl.xz"))


def three() -> list[Contender]:
    return [contender(name) for name in ("one", "two", "three")]


def order(made: Plan) -> list[tuple[int, str, str]]:
    return [(trial.round, trial.cell.key, trial.contender.name) for trial in made.trials]


def test_one_seed_is_one_order_and_another_seed_another() -> None:
    assert order(plan(scenario(), three(), 1)) == order(plan(scenario(), three(), 1))
    assert order(plan(scenario(), three(), 1)) != order(plan(scenario(), three(), 2))


def test_every_round_does_every_cell_on_every_server_once() -> None:
    made = order(plan(scenario(), three(), 7))
    assert [trial[0] for trial in made] == sorted(trial[0] for trial in made), "rounds follow one another"
    for number in range(1, 5):
        in_round = [trial for trial in made if trial[0] == number]
        assert len(in_round) == len(set(in_round)) == 6 * 3


def test_the_servers_of_a_cell_stay_together_in_changing_order() -> None:
    made = order(plan(scenario(trials=20), three(), 7))
    groups = [made[start : start + 3] for start in range(0, len(made), 3)]
    assert all(len({cell for _, cell, _ in group}) == 1 for group in groups)
    assert len({tuple(server for _, _, server in group) for group in groups}) == 6, "all orders of three occur"


def test_the_cells_of_a_round_come_in_changing_order() -> None:
    made = order(plan(scenario(), three(), 7))
    cells = [tuple(cell for _, cell, _ in made[start : start + 18 : 3]) for start in range(0, len(made), 18)]
    assert len(set(cells)) > 1


def test_numbers_are_unique_and_do_not_depend_on_what_is_installed() -> None:
    whole = plan(scenario(), three(), 7)
    lacking = plan(scenario(), [contender("one"), contender("two", Missing("is not here", "buy it")), *three()[2:]], 7)
    numbers = {(t.round, t.cell.key, t.contender.name): t.number for t in whole.trials}
    assert len(set(numbers.values())) == len(numbers)
    assert all(numbers[t.round, t.cell.key, t.contender.name] == t.number for t in lacking.trials)
    assert [trial.order for trial in lacking.trials] == list(range(1, len(lacking.trials) + 1))


def test_a_missing_server_is_skipped_with_the_reason_and_how_to_get_it() -> None:
    made = plan(scenario(), [contender("one"), contender("two", Missing("is not here", "buy it"))], 1)
    assert {trial.contender.name for trial in made.trials} == {"one"}
    assert [(skip.server, skip.cell, skip.reason, skip.get) for skip in made.skipped] == [
        ("two", None, "is not here", "buy it")
    ]


def test_a_cell_that_a_server_can_not_do_is_skipped_for_it_alone() -> None:
    made = plan(scenario(trials=1), [contender("one"), contender("two", operations=["read"])], 1)
    assert {trial.cell.operation for trial in made.trials if trial.contender.name == "two"} == {"read"}
    assert {skip.cell.label for skip in made.skipped if skip.cell} == {
        "write, 1 at once, 1 KiB",
        "write, 10 at once, 1 KiB",
        "write, 100 at once, 1 KiB",
    }


def test_options_that_clients_ask_for_count_as_needed() -> None:
    asked = scenario(trials=1, client={"tsize": True, "timeout_option": 3, "rollover": 1})
    made = plan(asked, [contender("one", options=["tsize", "timeout"])], 1)
    assert not made.trials
    assert {skip.reason for skip in made.skipped} == {"does not know rollover"}


def test_a_server_whose_only_port_is_taken_is_left_out_before_the_first_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        one, two = contender("one").server, contender("two").server
        assert isinstance(one, Manifest)
        fixed = one.model_copy(update={"fixed_port": port})
        monkeypatch.setattr("tftpbench.measure.plan.choose", lambda name: (fixed if name == "one" else two, None))
        monkeypatch.setattr("tftpbench.measure.plan.locate", lambda _, **_ask: Found("1", "/bin/x"))
        asked = scenario(servers=["one", "two"])
        made = plan(asked, contenders(asked), 1)
    (skip,) = made.skipped
    assert ({trial.contender.name for trial in made.trials}, skip.server, skip.get) == ({"two"}, "one", None)
    assert skip.reason.startswith(f"could not be measured: UDP port {port} is taken by ")
    us = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    assert f"is taken by {us} (process {os.getpid()}); stop that, or " in skip.reason
    assert not plan(asked, contenders(asked), 1).skipped, "it is free again"


@pytest.mark.parametrize("recorded", REFERENCE, ids=[path.parent.name for path in REFERENCE])
def test_the_estimate_is_near_to_what_recorded_runs_took(recorded: Path) -> None:
    """Where servers lose transfers, and wait for them, a run takes longer than any estimate can know."""
    manifest = json.loads((recorded.parent / "manifest.json").read_bytes())
    with lzma.open(recorded, "rt") as lines:
        rows = sorted(map(json.loads, lines), key=lambda row: row["started_at"])
    asked = from_document(manifest["scenario"], "recorded")
    cells = {cell.key: cell for cell in asked.cells()}
    servers = {entry: Contender(*choose(entry), Found("1", "/bin/x")) for entry in asked.servers}
    in_round = len(cells) * len(servers)
    trials = [
        Trial(
            row["trial"], order, (row["trial"] - 1) // in_round + 1, cells[row["cell_key"]],
            servers["@".join(filter(None, (row["server"], row["variant"])))],
        )
        for order, row in enumerate(rows, 1)
    ]  # fmt: skip
    first, last = (datetime.fromisoformat(rows[place]["started_at"]) for place in (0, -1))
    took_s = (last - first).total_seconds()
    assert took_s / 1.6 < sum(list(costs_s(trials).values())[:-1]) < took_s * 1.6


def test_the_estimate_grows_with_trials_windows_and_transfers() -> None:
    def seconds(**changes: object) -> float:
        return estimate_s(plan(scenario(**changes), three(), 1).trials)

    assert seconds(trials=8) > 1.8 * seconds(trials=4)
    assert seconds(duration="10s") > 5 * seconds(duration="1s")
    assert seconds(duration=None, transfers=100_000) > 4 * seconds(duration=None, transfers=10_000)
    nothing = plan(scenario(), [contender("two", Missing("is not here", "x"))], 1)
    assert estimate_s(nothing.trials) == 0


@pytest.mark.parametrize(("machines", "took_s"), [(100, 0.7), (1000, 4.5), (5000, 25)])
def test_the_estimate_of_a_storm_is_near_to_what_a_fast_server_takes(machines: int, took_s: float) -> None:
    """As epoll took on two cores, its start and stop included; slow servers lose machines, and are done the sooner."""
    asked = scenario(matrix={"boot": "uefi-grub", "machines": machines}, duration=None, deadline="2min", trials=1)
    trials = plan(asked, [contender("one")], 1).trials
    assert took_s / 2 < costs_s(trials)[1] < took_s * 2


def test_what_starts_by_a_schedule_is_moved_meanwhile() -> None:
    def seconds(matrix: dict[str, object], **changes: object) -> float:
        asked = scenario(matrix=matrix, trials=1, **changes)
        return costs_s(plan(asked, [contender("one")], 1).trials)[1]

    slow = seconds({"boot": "uefi-grub", "rate": "10/s"}, duration="10s")
    assert 10 < slow < 11
    assert 2 * slow < seconds({"boot": "uefi-grub", "rate": "1000/s"}, duration="10s") < 10 + 31
    assert seconds({"boot": "uefi-grub", "machines": 100, "over": "10s"}, duration=None) < 11
    shape = [{"hold": "10/s", "for": "10s"}, {"burst": 1000}]
    assert 11 < seconds({"boot": "uefi-grub", "shape": shape}, duration=None) < 30
    by_count = seconds({"operation": "read", "file_size": 1024, "rate": "10/s"}, duration=None, transfers=100)
    assert by_count > 10


def test_a_running_server_is_loaded_by_ascending_concurrency_and_a_started_one_in_random_order() -> None:
    running = Contender(Target("127.0.0.1", 69, None), None, Found("unknown", ""))
    for others in ([], [contender("one")]):
        made = plan(scenario(), [running, *others], 7).trials
        places = [(trial.cell.concurrency, trial.round) for trial in made]
        assert places == sorted(places)
        assert [trial.order for trial in made] == list(range(1, 1 + 6 * 4 * (1 + len(others))))
        pairs = [
            {trial.cell.key for trial in made[n : n + 1 + len(others)]} for n in range(0, len(made), 1 + len(others))
        ]
        assert all(len(cells) == 1 for cells in pairs), "the servers of a cell stay together"
        operations = {tuple(trial.cell.operation for trial in made if trial.round == n) for n in range(1, 5)}
        assert len(operations) > 1, "what is equal stays in random order"
    started = [trial.cell.concurrency for trial in plan(scenario(trials=1), [contender("one")], 7).trials]
    assert started != sorted(started)


def test_a_running_server_has_no_ceiling_that_takes_time() -> None:
    one_cell = scenario(matrix={"operation": "read", "concurrency": 1, "file_size": 1024}, trials=1, servers=["one"])
    running = Contender(Target("127.0.0.1", 69, "f"), None, Found("unknown", ""))
    here, there = (estimate_s(plan(one_cell, [each], 1).trials) for each in (contender("one"), running))
    assert here > there > 1


def test_boots_are_left_out_where_their_files_can_not_be_put_or_uploads_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "phone.yaml"
    path.write_text(
        "{schema: tftpbench.boot/1, name: phone, description: It reads and writes., certainty: less certain,"
        " sources: {test: this test}, sizes: {a: 10, log: 20},"
        " clients: {one: {source: test, options: [blksize 1400], waits: 500ms x 3, nack: gap}},"
        " steps: [{get: a, as: one}, {put: log, as: one}]}"
    )
    asked = scenario(matrix={"boot": str(path), "machines": 3}, duration=None)
    able, read_only = contender("one", options=[]), contender("two", operations=["read"])
    memory = contender("three")
    assert isinstance(memory.server, Manifest)
    memory = replace(memory, server=memory.server.model_copy(update={"store": "memory"}))
    made = plan(asked, [able, read_only, memory], 1)
    assert {trial.contender.name for trial in made.trials} == {"one"}, "options are asked for as real clients do"
    assert [(skip.server, skip.reason) for skip in made.skipped] == [
        ("two", "has no write"),
        ("three", "keeps its files in memory, where those of a boot can't be put"),
    ]
    assert estimate_s(made.trials) > 0


def refusing(monkeypatch: pytest.MonkeyPatch, *, network: str | None = None, packet: str = "") -> None:
    """A machine that makes no network for this reason, or one without packet sockets."""

    def asked() -> str:
        if network is not None:
            raise NetworkRefused(network)
        return packet

    monkeypatch.setattr("tftpbench.measure.plan.packet_refusal", asked)


def over(network: str, sockets: str = "auto", **more: object) -> Scenario:
    return scenario(placement={"network": network}, client={"sockets": sockets}, **more)


def test_what_auto_chooses_is_the_scenarios_and_always_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch)
    found, notes = networked(over("auto"))
    assert (found.placement.network, found.client.sockets, notes) == ("namespace", "ring", ())
    named, _ = networked(over("namespace", "ring"))
    assert [cell.key for cell in found.cells()] == [cell.key for cell in named.cells()]
    assert found.cells()[0].key_fields["placement"] == {"server_cpus": 1, "generator_cpus": 1, "network": "namespace"}
    refusing(monkeypatch, packet="Operation not permitted")
    without, notes = networked(over("auto"))
    assert (without.placement.network, without.client.sockets) == ("namespace", "shared")
    assert notes == ("measured with sockets, not rings: packet sockets are refused (Operation not permitted)",)
    assert {cell.key for cell in without.cells()}.isdisjoint(cell.key for cell in found.cells())


def test_loopback_is_left_out_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, network="user namespaces: refused")
    assert scenario().cells()[0].key_fields["placement"] == {"server_cpus": 1, "generator_cpus": 1}
    found, notes = networked(over("auto"))
    assert [cell.key for cell in found.cells()] == [cell.key for cell in scenario().cells()]
    assert notes == ("measured over loopback: this machine makes no namespaces (user namespaces: refused)",)
    assert networked(scenario()) == (scenario(), ())


@pytest.mark.parametrize(
    ("asked", "packet", "said"),
    [
        (
            over("namespace"),
            None,
            "placement.network is namespace, and this machine makes none (no veth); allowed: loo",
        ),
        (
            over("auto", "ring"),
            None,
            "placement.network is auto, and this machine makes none (no veth); allowed: client.sockets=auto, or root",
        ),
        (
            over("namespace", "ring"),
            None,
            (
                "placement.network is namespace, and this machine makes none (no veth); "
                "allowed: loopback with client.sockets=auto, or root"
            ),
        ),
        (over("auto", "ring", servers=["tftp://[::1]:69/f"]), "", "client.sockets is ring, and tftp://[::1]:69/f runs"),
        (
            over("namespace", "ring", servers=["tftp://[::1]:69/f"]),
            "",
            (
                "tftp://[::1]:69/f runs already, and not in a network of ours; "
                "allowed: --set placement.network=loopback with client.sockets=auto"
            ),
        ),
        (over("loopback", "ring"), "", "client.sockets is ring, and placement.network loopback; allowed: auto, "),
        (
            over("namespace", servers=["one", "tftp://127.0.0.1:69/f"]),
            "",
            "tftp://127.0.0.1:69/f runs already, and not",
        ),
    ],
)
def test_what_was_insisted_on_and_can_not_be_is_one_line(
    asked: Scenario, packet: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, network="no veth" if packet is None else None, packet=packet or "")
    with pytest.raises(UsageError) as raised:
        networked(asked)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("network", ["auto", "namespace"])
def test_without_packet_sockets_no_network_gives_rings(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, packet="Operation not permitted")
    with pytest.raises(UsageError) as raised:
        networked(over(network, "ring"))
    why = "client.sockets is ring, and packet sockets are refused (Operation not permitted)"
    assert str(raised.value) == f"{why}; allowed: auto, shared, per-transfer"


def test_a_running_server_is_measured_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch)
    found, notes = networked(over("auto", servers=["one", "tftp://127.0.0.1:69/f"]))
    assert (found.placement.network, notes) == ("loopback", ())


class Cluster(LocalGenerator):
    """Three load hosts, of which some are chosen."""

    def __init__(self, is_here: bool = True) -> None:
        self.hosts: tuple[str, ...] = ("a", "b", "c")
        self.is_here = is_here
        self.weights: tuple[int, ...] = ()

    def taking(self, hosts: Sequence[str], weights: Sequence[int]) -> "Cluster":
        chosen = Cluster(self.is_here)
        chosen.hosts, chosen.weights = tuple(hosts), tuple(weights)
        return chosen


TARGET = ["tftp://192.0.2.1:69/f"]


@pytest.mark.parametrize(
    ("generators", "hosts", "weights"),
    [
        (None, ("a", "b", "c"), ()),
        ({"hosts": 2}, ("a", "b"), ()),
        ({"hosts": ["c", "a"], "weights": [3, 1]}, ("c", "a"), (3, 1)),
    ],
)
def test_a_scenario_says_which_load_hosts_it_takes_else_all_by_equal_shares(
    generators: object, hosts: tuple[str, ...], weights: tuple[int, ...]
) -> None:
    asked = scenario(servers=TARGET, **({"generators": generators} if generators else {}))
    found, generator, names = on_hosts(asked, Cluster(is_here=False))
    assert isinstance(generator, Cluster)
    assert (generator.hosts, generator.weights, names) == (hosts, weights, hosts)
    assert {cell.load_hosts for cell in found.cells()} == {len(hosts)}
    assert on_hosts(found, Cluster(is_here=False))[0] == found, "as when it is resumed"


def test_without_load_hosts_a_scenario_stays_as_it_is() -> None:
    here = LocalGenerator()
    assert on_hosts(scenario(), here) == (scenario(), here, ())


@pytest.mark.parametrize(
    ("changes", "generator", "said"),
    [
        ({"generators": {"hosts": 3}}, LocalGenerator(),
         "generators asks for 3 load hosts; allowed: with a cluster of them, as in --dask tls://HOST:PORT, or"),
        ({"generators": {"hosts": 4}}, Cluster(), "generators.hosts is 4, and the cluster has 3 load hosts: a, b, c"),
        ({"generators": {"hosts": ["a", "d"]}}, Cluster(),
         "generators.hosts: the cluster has no load host 'd'; allowed: a, b, c"),
        ({"servers": ["one"]}, Cluster(is_here=False),
         "one is started here and listens on 127.0.0.1, which load hosts on other machines do not reach; all"),
        ({"servers": ["tftp://127.0.0.1:69/f"]}, Cluster(is_here=False),
         "tftp://127.0.0.1:69/f listens on 127.0.0.1, which load hosts on other machines do not reach"),
        ({"placement": {"network": "namespace"}}, Cluster(),
         "--dask: placement.network: is namespace, into which load hosts have no way"),
        ({"client": {"sockets": "ring"}}, Cluster(), "--dask: client.sockets: is ring, which load hosts do not have"),
    ],
)  # fmt: skip
def test_load_hosts_that_are_not_there_or_reach_nothing_are_refused_in_one_line(
    changes: dict[str, object], generator: LocalGenerator, said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        on_hosts(scenario(**changes), generator)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_load_hosts_measure_over_no_network_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch)
    found, _, _ = on_hosts(over("auto", servers=["one"]), Cluster())
    assert (networked(found)[0].placement.network, networked(found)[1]) == ("loopback", ())


def test_trials_from_load_hosts_take_longer_to_begin_and_have_no_ceiling() -> None:
    here = plan(scenario(trials=1), three(), 1).trials
    hosts = plan(scenario(trials=1).on_hosts(2), three(), 1).trials
    assert [trial.is_observed for trial in hosts] == [True] * len(hosts)
    assert costs_s(hosts).keys() == costs_s(here).keys()
    least, most = min(costs_s(hosts).values()), max(costs_s(hosts).values())
    assert most - least < 2, "no ceiling before the first of a cell"
    target = [Contender(Target("192.0.2.1", 69, "f"), None, Found("", ""))]
    [elsewhere, *_] = plan(scenario(servers=TARGET).on_hosts(2), target, 1).trials
    assert not elsewhere.is_observed


def booting(*names: str) -> tuple[Share, ...]:
    """Machines that boot so, in turn."""
    return shares([(load_boot(name), 1) for name in names])


@pytest.mark.parametrize(
    ("changes", "sockets"),
    [
        ({}, "ring"),
        ({"windowsize": 4}, "shared"),
        ({"blksize": 1468}, "ring"),
        ({"blksize": 1469}, "shared"),
        ({"boots": booting("bios-pxelinux")}, "ring"),
        ({"boots": booting("uefi")}, "shared"),
        ({"boots": booting("bios-pxelinux", "uefi")}, "shared"),
    ],
)
def test_what_rings_can_not_carry_goes_over_sockets(changes: dict[str, object], sockets: str) -> None:
    asked = LoadConfig(
        host="10.255.255.1",
        port=69,
        operation="read",
        name="f",
        file_size_bytes=1,
        concurrency=1,
        transfers=1,
        sockets="ring",
    )
    network = cast(Network, SimpleNamespace(requests_fd=7, ring_interface=2))
    found = in_network(replace(asked, **changes), network)  # type: ignore[arg-type]
    assert (found.sockets, found.network_fd, found.ring_interface) == (sockets, 7, 2)
    assert found.machines_network == ("10.0.0.0/9" if sockets == "ring" else "10.128.0.0/10")
    assert not leaves_machine(found)
