"""Starts tftpy's own server, which comes as a library without a command. Called through server.yaml alone."""

import argparse
import logging

import tftpy


def main() -> None:
    """Serve until killed; --loud logs to stderr at INFO, as the examples that tftpy ships do."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--loud", action="store_true")
    asked = parser.parse_args()
    if asked.loud:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.disable(logging.WARNING)
    tftpy.TftpServer(asked.root).listen(asked.host, asked.port)


if __name__ == "__main__":
    main()
