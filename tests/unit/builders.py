"""Builders that tests of several layers share: a scenario, a contender, a run folder, what a command printed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tftpbench import cli
from tftpbench.host.presence import Found, Missing
from tftpbench.measure.plan import Contender
from tftpbench.model.keys import stable_key
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario, from_document

Rates = Mapping[str, float]
Cells = list[dict[str, Any]]
ONE: Cells = [{}]
FACTS = {"cpus": 2, "cpu_model": "Imaginary 1", "kernel_release": "6.1"}


def scenario(**changes: object) -> Scenario:
    base: dict[str, object] = {
        "schema": "tftpbench.scenario/1",
        "name": "order",
        "description": "In which order?",
        "servers": ["one", "two", "three"],
        "matrix": {"operation": ["read", "write"], "concurrency": [1, 10, 100], "file_size": 1024},
        "duration": "1s",
        "trials": 4,
    }
    return from_document({**base, **changes}, "test")


def contender(name: str, found: Found | Missing | None = None, **capabilities: object) -> Contender:
    able = {"operations": ["read", "write"], "options": ["blksize"], **capabilities}
    manifest = Manifest.model_validate(
        {
            "schema": "tftpbench.server/1",
            "name": name,
            "homepage": "none",
            "license": "MIT",
            "model": "none",
            "capabilities": able,
            "argv": ["x", "{port}", "{root}"],
            "find": {"program": "x"},
            "get": "somehow",
        }
    )
    return Contender(manifest, None, found or Found("1", "/bin/x"))


def made(
    path: Path,
    rates: Rates,
    cells: Cells = ONE,
    *,
    rounds: int = 8,
    noise: float = 0.01,
    seed: int = 1,
    row: Mapping[str, object] | None = None,
    **manifest: object,
) -> Path:
    """A run folder: each server at its rate in each cell, every trial off by a little."""
    rng = np.random.default_rng(seed)
    scenario = {"name": "made", "duration": "1s", "trials": rounds, "client": {"timeout": "1s"}}
    whole = {
        "schema": "tftpbench.run/1",
        "scenario": scenario,
        "servers": {name: {"version": "1.0"} for name in rates},
        "machine": FACTS,
        "build": {"tftpbench": "0.1.0"},
        "keys": {"method_key": "m", "host_key": "h"},
        **manifest,
    }
    lines: list[str] = []
    for number in range(rounds):
        for cell in cells:
            work = {"operation": "read", "concurrency": 100, "file_size_bytes": 65536, "blksize": 512}
            work |= {"windowsize": 1, **cell}
            for contender, rate in rates.items():
                server, _, variant = contender.partition("@")
                trial = {
                    **work,
                    "trial": len(lines) + 1,
                    "round": number + 1,
                    "cell_key": stable_key(work),
                    "server": server,
                    "variant": variant or None,
                    "verdict": "valid",
                    "data_pps": rate * float(np.exp(rng.normal(0, noise))),
                    "server_cpu_ns_per_block": 1e9 / rate,
                    **(row or {}),
                }
                lines.append(json.dumps(trial))
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps(whole))
    (path / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.exit_code(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err
