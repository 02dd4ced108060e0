"""The run that gate commands judge: measured now, as `tftpbench run` does, where none is named."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tftpbench.cli.signals import interrupt_on_end

if TYPE_CHECKING:
    from tftpbench.model.scenario import Scenario


def measured(scenario: "Scenario", seed: int, out: Path, command: Sequence[str], quiet: bool) -> Path:
    """Run a scenario; its folder. A run that is interrupted says how to go on with it."""
    from tftpbench.render import progress
    from tftpbench.store import recording

    interrupt_on_end()  # an orderly end for all: finished trials are saved
    with progress.display(sys.stderr, quiet=quiet) as shown:
        return recording.run(scenario, seed=seed, out=out, command=command, on_event=shown).folder


def refuse_beside_run(*options: str) -> None:
    """With --run nothing is measured, so what says how to measure has no meaning."""
    from tftpbench.model.errors import UsageError

    given = [option for option in options if option]
    if given:
        raise UsageError(f"--run judges a run that exists: leave {' and '.join(given)} out")
