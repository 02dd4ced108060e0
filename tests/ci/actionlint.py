"""actionlint, which checks GitHub workflows: where it comes from, and whether it is here.

`python -m tests.ci.actionlint`, which `make peers` runs, fetches it into peers/. Called by the tests of workflows.
"""

import shutil
import sys
from pathlib import Path

from tftpbench.model.manifest import Fetch
from tftpbench.model.programs import peers_folder

PEER = "actionlint"
FETCH = {"go": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"}
GET_IT = "actionlint is not here; get it: make peers (which needs go)"


def program() -> Path | None:
    """The one that was fetched, else one in PATH."""
    found = shutil.which(PEER, path=str(peers_folder() / PEER / "bin")) or shutil.which(PEER)
    return Path(found) if found else None


def main() -> int:
    """Fetch it unless it is here."""
    from tftpbench.host import fetch
    from tftpbench.model.errors import FetchError

    try:
        fetched = fetch.fetch(peers_folder() / PEER, Fetch.model_validate(FETCH))
    except FetchError as error:
        print(f"{PEER}: not fetched: {error}; get it: go install {FETCH['go']}", file=sys.stderr)
        return 2
    print(f"{PEER}: {'fetched' if fetched else 'is here already'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
