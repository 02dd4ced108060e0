"""The front of the package: complete, and light to import."""

import subprocess
import sys

import pytest

import tftpbench

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
    assert set(tftpbench.__all__) <= set(dir(tftpbench))


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
