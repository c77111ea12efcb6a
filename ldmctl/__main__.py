"""python -m ldmctl, and the `ldmctl` executable."""

import sys

from ldmctl.cli.app import run
from ldmctl.contention import wait_sparingly


def main() -> None:
    """Run the command line and exit with its code."""
    wait_sparingly(sys.argv[1:])
    raise SystemExit(run())


if __name__ == "__main__":
    main()
