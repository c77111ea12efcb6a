"""python -m ldmctl, and the `ldmctl` executable."""

import sys

from ldmctl.cli.app import run
from ldmctl.contention import wait_sparingly
from ldmctl.endings import hush_half_handovers


def main() -> None:
    """Run the command line and exit with its code."""
    wait_sparingly(sys.argv[1:])
    hush_half_handovers()
    raise SystemExit(run())


if __name__ == "__main__":
    main()
