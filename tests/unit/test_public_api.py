"""The front of the package: complete, and light to import."""

import subprocess
import sys

import pytest

import tftpbench
from tests.fixtures.recorded import RUN

HEAVY = {"jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "rich", "scipy", "typer", "yaml", "hdrh"}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    return set(done.stdout.split())


def test_every_public_name_can_be_had() -> None:
    assert list(tftpbench.__all__) == sorted(tftpbench.__all__)
    assert set(tftpbench.__all__) == set(tftpbench._HOMES)
    for name in tftpbench.__all__:
        assert getattr(tftpbench, name) is not None
    assert dir(tftpbench) == tftpbench.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = tftpbench.frobnicate


def test_the_child_process_of_a_bundled_server_loads_nothing_heavy() -> None:
    loaded = loaded_by("import tftpbench.serve; from tftpbench import _core")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("tftpbench")} == {
        "tftpbench",
        "tftpbench.serve",
        "tftpbench._core",
    }


def test_comparing_loads_data_frames_and_statistics_only_when_it_compares() -> None:
    assert not loaded_by("from tftpbench import compare") & {"jinja2", "matplotlib", "pandas", "rich", "scipy"}


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    assert loaded_by("import tftpbench.cli") & HEAVY == {"typer"}


SHOWN = """
import sys
from tftpbench.store import load_run
folder = sys.argv[1]
run = load_run(folder)
assert run._repr_html_() is None, "no renderer is known to the store"
assert not [name for name in sys.modules if name.startswith("tftpbench.render")]
import tftpbench
from tests.fixtures.recorded import RUN
run = tftpbench.load_run(folder)
assert not [name for name in sys.modules if name.startswith("tftpbench.render")], "not before something is shown"
for result in (run, run.latency("block_rtt"), tftpbench.answer(run), tftpbench.compare(folder, folder)):
    shown = result._repr_html_()
    assert "<table>" in shown, result
    print(shown)
"""


def test_a_notebook_shows_every_result_as_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(RUN)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for text in ("4, 3 valid", '<th style="text-align:left">p99</th>', "threads moves 0.76x", "the blocks of A"):
        assert text in done.stdout
