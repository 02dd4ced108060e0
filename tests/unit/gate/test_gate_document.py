"""gate.json: it holds the whole result, gives it back, and whatever was done to it is one line."""

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.unit.builders import GATES as RECORDED
from tests.unit.gate.gate_results import CELL, CELL_KEY, every, gate
from tftpbench.gate.document import (
    SCHEMA,
    SCHEMA_1,
    SIZE_MAX_BYTES,
    document,
    load,
    text,
)
from tftpbench.gate.result import Arm, GateResult, Judgement, judgements_frame
from tftpbench.model.errors import ResultsError
from tftpbench.model.gate_settings import METRICS, REPORTED
from tftpbench.render import schema

ROOT = Path(__file__).parents[3]
SCHEMA_OF_1 = json.loads((ROOT / "docs/schema/gate-1.json").read_text(encoding="utf-8"))
RESULTS = every()
each_result = pytest.mark.parametrize("name", RESULTS)


def stored(folder: Path, content: bytes | str) -> Path:
    path = folder / "gate.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def altered(change: Callable[[dict[str, Any]], object]) -> str:
    whole = document(gate())
    change(whole)
    return json.dumps(whole)


@each_result
def test_a_stored_gate_is_read_as_the_same_gate(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path, text(RESULTS[name]))
    assert load(path) == RESULTS[name]
    assert load(tmp_path) == RESULTS[name]


@each_result
def test_a_document_is_as_its_schema_says_and_every_top_key_is_needed(name: str) -> None:
    validator = Draft202012Validator(schema.json_schema("gate"))
    whole = json.loads(text(RESULTS[name]))
    validator.validate(whole)
    assert set(whole) == set(schema.json_schema("gate")["properties"]) == set(schema.json_schema("gate")["required"])
    for key in whole:
        assert not validator.is_valid({other: value for other, value in whole.items() if other != key}), key


def test_the_schema_knows_every_key_of_every_part_and_needs_and_explains_each() -> None:
    written, whole = schema.json_schema("gate"), document(gate())
    parts = {
        "Side": whole["base"],
        "Facts": whole["facts"],
        "Judgement": whole["judgements"][0],
        "Noise": whole["noise"][0],
        "Pair": whole["pairs"][0],
        "Arm": whole["pairs"][0]["arms"]["base"],
    }
    assert set(written["$defs"]) == {*parts, "Verdict"}
    for name, part in parts.items():
        known = written["$defs"][name]
        assert set(part) == set(known["properties"]) == set(known["required"])
        obvious = {"server_cpus", "generator_cpus"}
        assert all("description" in each for key, each in known["properties"].items() if key not in obvious), name


@pytest.mark.parametrize("where", ["verdict", "judgements"])
def test_the_schema_refuses_verdicts_that_no_gate_says(where: str) -> None:
    whole = document(gate())
    if where == "verdict":
        whole["verdict"] = "green"
    else:
        whole["judgements"][0]["verdict"] = "green"
    assert not Draft202012Validator(schema.json_schema("gate")).is_valid(whole)


def test_what_is_no_number_is_null() -> None:
    result = gate()
    odd = replace(result.pairs[0], arms={"base": Arm({"data_pps": math.nan, "server_rss_bytes_max": math.inf})})
    whole = document(replace(result, pairs=(odd,)))
    assert whole["pairs"][0]["arms"]["base"]["figures"] == {"data_pps": None, "server_rss_bytes_max": None}
    json.dumps(whole, allow_nan=False)


def test_names_that_are_no_unicode_are_written_as_escapes_that_every_reader_takes(tmp_path: Path) -> None:
    result = gate()
    odd = replace(result, base=replace(result.base, entry="./b\udce4se", argv=("./b\udce4se",)))
    assert load(stored(tmp_path, text(odd))).base.argv == ("./b\\udce4se",)


def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    def newer(whole: dict[str, Any]) -> None:
        whole["mood"] = "good"
        whole["judgements"][0]["mood"] = "good"

    assert load(stored(tmp_path, altered(newer))) == gate()


def schema_1(whole: dict[str, Any]) -> dict[str, Any]:
    """The document as versions before schema 2 wrote it."""
    names = {"verdict": "word", "pairs": "blocks"}
    old = {names.get(key, key): value for key, value in whole.items()} | {"schema": SCHEMA_1}
    old["judgements"] = [
        {"word" if key == "verdict" else key: each[key] for key in each} for each in whole["judgements"]
    ]
    return old


@each_result
def test_a_gate_of_schema_1_is_read_as_the_same_gate(name: str, tmp_path: Path) -> None:
    old = schema_1(document(RESULTS[name]))
    Draft202012Validator(SCHEMA_OF_1).validate(json.loads(json.dumps(old)))
    assert load(stored(tmp_path, json.dumps(old))) == RESULTS[name]


def test_names_of_schema_2_mean_nothing_in_a_document_of_schema_1(tmp_path: Path) -> None:
    old = schema_1(document(gate())) | {"verdict": "regressed", "pairs": 7}
    old["judgements"][0]["verdict"] = "green"
    assert load(stored(tmp_path, json.dumps(old))) == gate()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda old: old.update(word="green"), "word: "),
        (lambda old: old.pop("blocks"), "blocks: "),
        (lambda old: old.update(judgements=[7]), r"judgements\[0\]: "),
        (lambda old: old.update(judgements={}), "judgements: "),
        (lambda old: old["judgements"][0].update(word="green"), r"judgements\[0\]\.word: "),
        (lambda old: old["blocks"][0].update(number=True), r"blocks\[0\]\.number: "),
    ],
)
def test_an_altered_gate_of_schema_1_is_one_line_by_its_own_names(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    old = json.loads(json.dumps(schema_1(document(gate()))))
    change(old)
    with pytest.raises(ResultsError, match=rf"^[^\n]+gate\.json: {said}[^\n]*$"):
        load(stored(tmp_path, json.dumps(old)))


@pytest.mark.parametrize("value", ['"\\ud800"', "[" * 300 + "]" * 300])
def test_what_only_the_parser_refuses_in_a_gate_of_schema_1_is_one_line(tmp_path: Path, value: str) -> None:
    whole = json.dumps(schema_1(document(gate())))
    path = stored(tmp_path, f'{whole[:-1]}, "more": {value}}}')
    with pytest.raises(ResultsError) as raised:
        load(path)
    assert len(str(raised.value).splitlines()) == 1


def test_recorded_gates_are_of_schema_1_and_as_its_schema_says() -> None:
    paths = sorted(RECORDED.glob("*/*/gate.json"))
    assert paths
    for path in paths:
        whole = json.loads(path.read_text(encoding="utf-8"))
        assert whole["schema"] == SCHEMA_1
        Draft202012Validator(SCHEMA_OF_1).validate(whole)
        now = json.loads(text(load(path)))
        Draft202012Validator(schema.json_schema("gate")).validate(now)
        assert json.loads(json.dumps(schema_1(now))) == whole


def replaced(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(whole: Any) -> None:
        for part in path[:-1]:
            whole = whole[part]
        whole[path[-1]] = value

    return change


def without(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(whole: Any) -> None:
        for part in path[:-1]:
            whole = whole[part]
        del whole[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replaced("schema", value="tftpbench.gate/3"), "has the schema 'tftpbench.gate/3'"),
        (replaced("schema", value={"a": ["x" * 1000]}), "has the schema"),
        (without("schema"), "has the schema None"),
        (replaced("verdict", value="green"), "verdict: "),
        (replaced("method", value=None), "method: "),
        (replaced("judgements", value={}), "judgements: "),
        (replaced("judgements", 0, "ratio", value="1.01"), r"judgements\[0\]\.ratio: "),
        (replaced("judgements", 0, "ratio", value=True), r"judgements\[0\]\.ratio: "),
        (replaced("judgements", 0, "pairs", value=1.5), r"judgements\[0\]\.pairs: "),
        (replaced("judgements", 0, "metric", value=7), r"judgements\[0\]\.metric: "),
        (without("judgements", 0, "detail"), r"judgements\[0\]\.detail: "),
        (replaced("pairs", 0, "arms", "base", value=[]), r"pairs\[0\]\.arms\.base: "),
        (
            replaced("pairs", 0, "arms", "base", "figures", "data_pps", value="x"),
            r"pairs\[0\]\.arms\.base\.figures\.data_pps: ",
        ),
        (
            replaced("pairs", 0, "arms", "base", "figures", "a\nb\x1b[31m", value="x"),
            r"pairs\[0\]\.arms\.base\.figures\.a\\nb\\u001b\[31m: ",
        ),
        (replaced("facts", "seed", value="7"), r"facts\.seed: "),
        (replaced("facts", value=None), "facts: "),
        (replaced("base", "argv", value="epoll"), r"base\.argv: "),
        (
            replaced("remarks", value=[None]),
            r"remarks\[0\]: ",
        ),
        (without("sentence"), "sentence: "),
    ],
)
def test_an_altered_gate_is_one_line_that_says_where(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ResultsError, match=rf"^[^\n]+gate\.json: {said}[^\n]*$") as caught:
        load(stored(tmp_path, altered(change)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b'{"schema": "tftpbench.gate/2"', "is not JSON"),
        (b"[]", "has the schema None"),
        (b'"tftpbench.gate/2"', "has the schema None"),
        (b"[" * 100_000, "is not JSON: is nested too deep"),
        (b'{"schema": "tftpbench.gate/2", "a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"schema": "tftpbench.gate/2", "a": NaN}', "NaN is no number"),
        (b'{"schema": "tftpbench.gate/2", "a": -Infinity}', "-Infinity is no number"),
        (b'{"schema": "tftpbench.gate/2", "a": 1e999}', "1e999 is too large for a number"),
    ],
)
def test_what_is_no_gate_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=rf"^[^\n]+{said}[^\n]*$"):
        load(stored(tmp_path, content))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 400])
def test_a_figure_that_is_no_finite_number_is_refused(number: str, tmp_path: Path) -> None:
    whole = text(gate()).replace('"duration_s": 93.5', f'"duration_s": {number}')
    assert number in whole
    with pytest.raises(ResultsError, match=r"^[^\n]+$"):
        load(stored(tmp_path, whole))


def test_an_absent_gate_is_one_line_that_says_what_is_allowed(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "gate.json", tmp_path / "a\x00b"):
        with pytest.raises(ResultsError, match=r"^[^\n]+(allowed: the (folder|path) of a gate|can't be read)[^\n]*$"):
            load(path)
    (tmp_path / "gate.json").mkdir()
    with pytest.raises(ResultsError, match="is no regular file"):
        load(tmp_path)


def test_a_file_that_no_gate_could_be_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "gate.json").open("wb") as stream:
        stream.truncate(SIZE_MAX_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(ResultsError, match="is larger than 64 MiB"):
        load(tmp_path)


def test_the_document_is_every_field_of_the_result() -> None:
    assert list(document(gate())) == ["schema", *(each.name for each in fields(GateResult))]
    assert document(gate())["schema"] == SCHEMA


def test_pairs_are_tidy_and_ratios_are_other_over_base() -> None:
    result = gate(pairs=3)
    frame = result.to_frame()
    # four pairs, seven metrics; two of the pairs have a second base
    assert frame.groupby("compared").size().to_dict() == {"head": 28, "control": 14}
    assert (frame["ratio"] == frame["other"] / frame["base"]).all()
    pair = result.pairs[2]
    row = frame[(frame["pair"] == 3) & (frame["metric"] == "data_pps") & (frame["compared"] == "head")].iloc[0]
    assert (row["base"], row["other"]) == tuple(pair.arms[arm].figures["data_pps"] for arm in ("base", "head"))
    assert (row["cell"], row["cell_key"], row["base_first"], row["valid"]) == (
        CELL,
        CELL_KEY,
        pair.first == "base",
        True,
    )
    assert set(frame[~frame["valid"]]["pair"]) == {2}
    assert set(frame["metric"]) == {*METRICS, *REPORTED}


def test_a_figure_that_no_arm_has_makes_no_pair_and_one_that_is_half_known_no_ratio() -> None:
    frame = gate(syscalls=False).to_frame()
    assert "syscalls_per_block" not in set(frame["metric"])
    result = gate()
    odd = replace(result.pairs[0], arms={"base": Arm({"data_pps": 0.0}), "head": Arm({"data_pps": 5.0})})
    frame = replace(result, pairs=(odd,)).to_frame()
    assert frame["ratio"].isna().tolist() == [True]


def test_frames_of_a_gate_without_pairs_have_their_columns() -> None:
    assert RESULTS["empty"].to_frame().empty
    assert {"ratio", "base_first", "valid"} <= set(RESULTS["empty"].to_frame().columns)
    assert list(judgements_frame(RESULTS["empty"]).columns) == [each.name for each in fields(Judgement)]


def test_judgements_are_a_row_each() -> None:
    result = RESULTS["no syscalls"]
    frame = judgements_frame(result)
    assert frame["metric"].tolist() == [each.metric for each in result.judgements]
    assert frame.dtypes["ratio"] == frame.dtypes["budget"] == "float64"
    assert frame[frame["metric"] == "syscalls_per_block"]["ratio"].isna().tolist() == [True]
