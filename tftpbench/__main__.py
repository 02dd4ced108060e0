"""``python -m tftpbench``: the same as the command ``tftpbench``."""

from tftpbench.cli import main

if __name__ == "__main__":
    main()
