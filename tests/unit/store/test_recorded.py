"""Recorded runs keep their keys and their answers, whatever came into scenarios since (docs/results-format.md, Keys).

tests/fixtures/recorded.json was written once, by the version before keys could be added to. It is never renewed.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from tests.fixtures.unpacked import RUN
from tftpbench import load_run
from tftpbench.analysis.comparison import compare
from tftpbench.analysis.summary import answer_of, scenario_of
from tftpbench.model.keys import Added, key_fields, stable_key, with_implied
from tftpbench.model.values import DurationNs
from tftpbench.model.workload import Client

ROOT = Path(__file__).parents[3]
RECORDED: dict[str, Any] = json.loads((ROOT / "tests/fixtures/recorded.json").read_text(encoding="utf-8"))


def _folder(name: str) -> Path:
    return RUN if name == "tests/fixtures/run-1" else ROOT / name


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_keeps_its_keys(name: str) -> None:
    run = load_run(_folder(name))
    scenario = scenario_of(run)
    assert run.manifest["keys"]["method_key"] == RECORDED[name]["method_key"]
    assert set(RECORDED[name]["cells"]) <= {cell.key for cell in scenario.cells()}
    assert run.trials.groupby("cell_key", observed=True).size().to_dict() == RECORDED[name]["cells"]


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_keeps_its_answer(name: str) -> None:
    frame = answer_of(load_run(_folder(name))).to_frame()
    names = ["contender", "label", "data_pps", "ratio", "low", "high"]
    found = frame[names].astype(object).where(frame[names].notna(), None).to_numpy().tolist()
    assert [row[:2] for row in found] == [row[:2] for row in RECORDED[name]["lines"]]
    for ours, theirs in zip(found, RECORDED[name]["lines"], strict=True):
        assert [value for value in ours[2:] if value is not None] == pytest.approx(
            [value for value in theirs[2:] if value is not None], rel=1e-8
        )


@pytest.mark.parametrize("name", ["results/reference/concurrency", "tests/fixtures/run-1"])
def test_a_recorded_run_can_be_compared(name: str) -> None:
    found = compare(_folder(name), _folder(name))
    assert len(found.to_frame())
    assert not found.left_out


class Later(Client):
    """A client with a field that schema 1 did not have; older runs did not pause, and today's usual is another."""

    pause_ns: Annotated[DurationNs, Added(0)] = Field(default=5_000_000, alias="pause")


def test_a_later_field_is_hashed_only_where_it_differs_from_what_older_runs_implied() -> None:
    before = stable_key({"client": key_fields(Client())})
    assert stable_key({"client": key_fields(Later.model_validate({"pause": "0ms"}))}) == before
    assert stable_key({"client": key_fields(Later())}) != before
    assert key_fields(Later.model_validate({"pause": "1ms"}))["pause"] == "1ms"


def test_a_document_that_lacks_a_later_field_has_the_value_that_it_implied() -> None:
    older, newer = Client().model_dump(mode="json"), Later().model_dump(mode="json")
    assert Later.model_validate(with_implied(older, Later)).pause_ns == 0
    assert Later.model_validate(with_implied(newer, Later)).pause_ns == 5_000_000
    assert with_implied(newer, Later) == newer
