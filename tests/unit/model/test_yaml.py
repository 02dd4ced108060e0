"""YAML within limits."""

from pathlib import Path

import pytest

from tftpbench.model import yaml
from tftpbench.model.errors import UsageError


def fault(folder: Path, content: bytes) -> str:
    path = folder / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        yaml.read(path, UsageError)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file.yaml:1:1: the file is empty; allowed: a mapping of keys to values"),
        (b"[1]", "file.yaml:1:1: the file is a list; allowed: a mapping of keys to values"),
        (b"a: 1\n\tb: 2", "file.yaml:2:1: is not YAML: found character '\\t' that cannot start any token"),
        (b"a: 1\nb: [1", "file.yaml:2:6: is not YAML"),
        (b"a: 1\n---\nb: 2", "file.yaml:2:1: is not YAML"),
        (b"\xff\xfe", "file.yaml: byte 0 is not UTF-8"),
        (b"a: \x00", "file.yaml: is not YAML: character"),
        (b"? [1]\n: 2", "file.yaml:1:3: a key is a list or a mapping; allowed: a word"),
        (b"a: !!python/object/apply:os.system [ls]", "file.yaml:1:4: has the tag"),
        (b"a: !!int x", "file.yaml:1:4: 'x' is no value of type 'int'"),
        (b"a: " + b"9" * 5000, "file.yaml:1:4: '9999"),
        (b"a: &a [*a]", "file.yaml:1:4: is nested deeper than 20"),
        (b"a: " + b"[" * 5000, "file.yaml: is nested too deeply"),
        (b"#" * 300_000, "file.yaml: is larger than 256 KiB"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_no_honest_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    assert fault(tmp_path, content).startswith(said)


def test_of_a_key_that_is_written_twice_the_first_counts_and_the_second_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\nb: {c: 2, c: [3]}\na: 4\n")
    document = yaml.read(path, UsageError)
    document.assign("d={e: 5, e: 6}")
    assert document.data == {"a": 1, "b": {"c": 2}, "d": {"e": 5}}
    assert [(key, str(origin).removeprefix(f"{tmp_path}/"), text) for key, origin, text in document.mistakes] == [
        (("b", "c"), "file.yaml:2:11", "is written twice"),
        (("a",), "file.yaml:3:1", "is written twice"),
        (("d", "e"), "--set d={e: 5, e: 6}", "is written twice"),
    ]


def test_aliases_of_aliases_stop_at_a_limit(tmp_path: Path) -> None:
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "the file holds more than 20000 values, aliases counted" in fault(tmp_path, bomb.encode())


def test_plain_words_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: off\nb: 1:30\nc: 010\nd: true\ne: ~\nf: 1e3\ng: 2026-01-01\nh: no\ni: '7'\n", encoding="utf-8")
    assert yaml.read(path, UsageError).data == {
        "a": "off",
        "b": "1:30",
        "c": 10,
        "d": True,
        "e": None,
        "f": 1000.0,
        "g": "2026-01-01",
        "h": "no",
        "i": "7",
    }


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, said in [(tmp_path / "absent.yaml", "there is no such file"), (tmp_path, "is no regular file")]:
        with pytest.raises(UsageError, match=said):
            yaml.read(path, UsageError)
