"""actionlint, which checks GitHub workflows: where it comes from, and whether it is here.

`make peers` fetches it into peers/. Called by the tests of workflows.
"""

import shutil
from pathlib import Path

from tftpbench.model.programs import peers_folder

PEER = "actionlint"
FETCH = {"go": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"}
GET_IT = "actionlint is not here; get it: make peers (which needs go)"


def program() -> Path | None:
    """The one that was fetched, else one in PATH."""
    found = shutil.which(PEER, path=str(peers_folder() / PEER / "bin")) or shutil.which(PEER)
    return Path(found) if found else None
