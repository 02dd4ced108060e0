"""Is the generator on packet rings never the limit, and do its counts agree with the kernel's? `run` in namespaces.

    python -m benches.rings [--trials 7] [--duration 1s] [--directions read,write] [--concurrency 10,100,1000]
    python -m benches.rings --count 1000000
    python -m benches.rings --compare [--trials 7]

The bundled epoll server in a network namespace, the generator on rings in another one, a core each, every byte
compared. The exit code is 1 where the server's core is less than 97 % busy (median), the generator more than 85 %
(median) or 90 % (any trial), a trial is invalid, or a byte was not compared.

`--count`: a fixed number of blocks instead, of which all datagrams must agree exactly with those that the server's
network namespace counted. `--compare`: loopback and namespace with sockets, and namespace with rings, a round of each
in turn, for epoll, threads and dnsmasq where that is: ratios of the servers, their order, and the CPU time of a block.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import tftpbench
from tftpbench.analysis.stats import paired_ratio
from tftpbench.host.choice import manifest
from tftpbench.host.presence import Missing, locate

SERVER_MIN, GENERATOR_MEDIAN_MAX, GENERATOR_MAX = 0.97, 0.85, 0.90
RINGS = "namespace, rings"
ARRANGEMENTS = {"loopback": ("loopback", "shared"), "namespace": ("namespace", "shared"), RINGS: ("namespace", "ring")}
BLKSIZE, FILE_BLOCKS = 512, 129  # 64 KiB, and the empty block that ends it
Row = dict[str, Any]
Key = tuple[str, int]


def scenario(folder: Path, arrangement: str, servers: Sequence[str], asked: argparse.Namespace) -> Path:
    """A scenario of the cells that are asked for."""
    network, sockets = ARRANGEMENTS[arrangement]
    document: Row = {
        "schema": "tftpbench.scenario/1",
        "name": "rings",
        "description": "Is the generator ever the limit?",
        "servers": list(servers),
        "matrix": {
            "operation": asked.directions.split(","),
            "concurrency": [int(each) for each in asked.concurrency.split(",")],
            "file_size": "64KiB",
            "blksize": BLKSIZE,
            "windowsize": 1,
        },
        "distinct_files": 16,
        "client": {"timeout": "1s", "retries": 5, "sockets": sockets},
        "placement": {"server_cpus": 1, "generator_cpus": 1, "network": network},
        "trials": asked.trials,
        "verify": "full",
    }
    extent = {"transfers": -(-asked.count // FILE_BLOCKS)} if asked.count else {"duration": asked.duration}
    path = folder / "rings.yaml"
    path.write_text(json.dumps(document | extent), encoding="utf-8")  # JSON is YAML
    return path


def rows_of(arrangement: str, servers: Sequence[str], asked: argparse.Namespace) -> list[Row]:
    """The rows of one run."""
    with tempfile.TemporaryDirectory() as folder:
        path = scenario(Path(folder), arrangement, servers, asked)
        return tftpbench.run(path, out=asked.out, progress=False).rows


def in_cells(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """The rows of each operation and concurrency."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row["operation"], row["concurrency"]), []).append(row)
    return dict(sorted(found.items()))


def counts_differ(row: Row) -> str:
    """How the datagrams of one side differ from what the kernel counted of the other; "" where they are the same."""
    came = [row[f"server_udp_{name}"] for name in ("received", "no_buffer", "no_port", "bad_checksum")]
    if None in came or row["server_udp_sent"] is None:
        return "not counted"
    sent, received = sum(came) - row["datagrams_sent"], row["server_udp_sent"] - row["datagrams_received"]
    return "" if (sent, received) == (0, 0) else f"{sent:+} and {received:+}"


def faults(rows: Sequence[Row], *, is_exact: bool) -> Iterator[str]:
    """What a cell misses of what it must reach."""
    server, busy = values(rows, "server_busy_fraction"), values(rows, "generator_busy_fraction")
    if any(row["verdict"] != "valid" for row in rows):
        yield next(f"invalid: {row['verdict_reason']}" for row in rows if row["verdict"] != "valid")
    if any(row["generator_sockets"] != "ring" for row in rows):
        yield "not over rings"
    if any(row["content_mismatches"] or not row["bytes_verified"] or not row["completed"] for row in rows):
        yield "not every byte is right"
    if is_exact:
        yield from {f"counts differ by {text}" for row in rows if (text := counts_differ(row))}
        return
    if median(server) < SERVER_MIN:
        yield f"server at {median(server):.3f}"
    if median(busy) > GENERATOR_MEDIAN_MAX or max(busy) > GENERATOR_MAX:
        yield f"generator at {median(busy):.3f}, {max(busy):.3f} at most"


def values(rows: Sequence[Row], name: str) -> list[float]:
    """The figures of this name, 0 where there is none."""
    return [row.get(name) or 0.0 for row in rows]


def measure(asked: argparse.Namespace) -> bool:
    """Print a line for each cell; whether all is as it must be."""
    _say(
        f"{'cell':12} {'blocks/s':>9} {'server':>6} {'gen.':>5} {'most':>5} {'ceiling':>7} {'room':>5} "
        f"{'sent':>11} {'received':>11} {'counts exact':>12}  verdict"
    )
    right = True
    for (operation, concurrency), rows in in_cells(rows_of(RINGS, ["epoll"], asked)).items():
        wrong = [*faults(rows, is_exact=bool(asked.count))]
        right &= not wrong
        busy, exact = values(rows, "generator_busy_fraction"), sum(not counts_differ(row) for row in rows)
        ceiling, room = (_median_of(rows, name) for name in ("ceiling_ratio", "generator_headroom"))
        sent, received = (sum(row[name] for row in rows) for name in ("datagrams_sent", "datagrams_received"))
        _say(
            f"{operation:5} {concurrency:6} {median(values(rows, 'data_pps')):9,.0f} "
            f"{median(values(rows, 'server_busy_fraction')):6.3f} {median(busy):5.3f} {max(busy):5.3f} "
            f"{ceiling:>7} {room:>5} {sent:11,} {received:11,} {exact:6} of {len(rows):2}  "
            f"{'; '.join(wrong) or 'right'}"
        )
        for row in rows:
            if text := counts_differ(row):
                _say(f"  trial {row['trial']}: the server's side counted {text} datagrams")
    return right


def _median_of(rows: Sequence[Row], name: str) -> str:
    """The median where all rows have the figure."""
    found = [row[name] for row in rows if row.get(name) is not None]
    return f"{median(found):.3f}" if len(found) == len(rows) else "-"


def compare(asked: argparse.Namespace) -> bool:
    """Print ratios, orders and costs in each arrangement; whether all trials are valid."""
    servers = [name for name in ("epoll", "threads", "dnsmasq") if _is_here(name)]
    rounds, asked.trials = asked.trials, 1
    found: dict[str, list[Row]] = {name: [] for name in ARRANGEMENTS}
    for number in range(rounds):
        for turn in range(len(ARRANGEMENTS)):
            name = [*ARRANGEMENTS][(number + turn) % len(ARRANGEMENTS)]
            found[name] += [{**row, "round": number} for row in rows_of(name, servers, asked)]
            _say(f"round {number + 1} of {rounds}: {name}")
    invalid = [f"{name}: {row['server']}: {row['verdict_reason']}"
               for name, rows in found.items() for row in rows if row["verdict"] != "valid"]  # fmt: skip
    _say(f"{len(invalid)} of {sum(map(len, found.values()))} trials are invalid, and left out")
    for text in invalid:
        _say(f"  {text}")
    found = {name: [row for row in rows if row["verdict"] == "valid"] for name, rows in found.items()}
    for arrangement, rows in found.items():
        _say(f"\n{arrangement}")
        for (operation, concurrency), cell in in_cells(rows).items():
            by_server = {server: [row for row in cell if row["server"] == server] for server in servers}
            order = sorted((server for server in servers if by_server[server]), reverse=True,
                           key=lambda server: median(values(by_server[server], "data_pps")))  # fmt: skip
            rates = ", ".join(f"{each} {median(values(by_server[each], 'data_pps')):,.0f}" for each in order)
            ratios = [f"epoll/{other} {_ratio(by_server['epoll'], by_server[other], 'data_pps')}"
                      for other in servers if other != "epoll" and by_server[other]]  # fmt: skip
            _say(f"{operation:5} {concurrency:5}  {rates};  {'; '.join(ratios)}")
    _costs(found, servers)
    return not invalid


def _costs(found: dict[str, list[Row]], servers: Sequence[str]) -> None:
    _say("\nthe server's CPU time of a block, against loopback")
    base = in_cells(found["loopback"])
    for arrangement in [*ARRANGEMENTS][1:]:
        for key, rows in in_cells(found[arrangement]).items():
            for server in servers:
                here, there = ([row for row in each if row["server"] == server] for each in (rows, base.get(key, [])))
                if here and there:
                    ratio = _ratio(here, there, "server_cpu_ns_per_block")
                    _say(f"{arrangement:17} {key[0]:5} {key[1]:5} {server:8} {ratio}")


def _ratio(a: Sequence[Row], b: Sequence[Row], name: str) -> str:
    """Of the rows of the same rounds."""
    first, second = ({row["round"]: row[name] for row in rows if row[name]} for rows in (a, b))
    rounds = sorted(first.keys() & second.keys())
    if not rounds:
        return "-"
    return str(paired_ratio([first[each] for each in rounds], [second[each] for each in rounds]))


def _is_here(name: str) -> bool:
    found = locate(manifest(name), in_network=True)
    if isinstance(found, Missing):
        _say(f"{name} is left out: {found.reason}")
    return not isinstance(found, Missing)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """0 where all is as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--duration", default="1s")
    parser.add_argument("--directions", default="read,write")
    parser.add_argument("--concurrency", default="10,100,1000")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    return 0 if (compare if asked.compare else measure)(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
