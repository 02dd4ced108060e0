"""Starts py3tftp's own command in the folder to serve, which is no option of it. Called through server.yaml alone."""

import argparse
import asyncio
import logging
import os
import sys

from py3tftp.__main__ import main as serve


def main() -> None:
    """Serve until killed; --loud keeps the logging that it ships with, all other words are py3tftp's own."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--root", required=True)
    parser.add_argument("--loud", action="store_true")
    asked, own_words = parser.parse_known_args()
    os.chdir(asked.root)
    if not asked.loud:
        logging.disable(logging.WARNING)
    # It asks for the thread's event loop, which Python no longer makes by itself since 3.14.
    asyncio.set_event_loop(asyncio.new_event_loop())
    sys.argv = ["py3tftp", *own_words]
    serve()


if __name__ == "__main__":
    main()
